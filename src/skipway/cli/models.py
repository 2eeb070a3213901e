"""What `skipway models` lists."""

from typing import Any

from skipway.models import BUILDERS, describe


def cards() -> list[dict[str, Any]]:
    """One dictionary a builder, at its published defaults."""
    return [describe(name).to_json() for name in BUILDERS]


def table() -> str:
    """The same for people."""
    rows = [("model", "parameters", "operations", "at", "gives", "receptive field", "source")]
    for name in BUILDERS:
        card = describe(name)
        rows.append(
            (
                name,
                f"{card.parameters:,}",
                f"{card.macs / 1e9:.1f} GMAC",
                _size((card.in_channels, *card.size)),
                _size((card.classes, *card.output_size)),
                _size(card.receptive_field),
                card.source,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        (*lines, "", "Counts are those of the published defaults; --width and --depth change them.")
    )


def _size(sides: tuple[int, ...]) -> str:
    return "×".join(map(str, sides))
