"""What `skipway models` says: a table of all networks, or all about one."""

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from skipway.cli.drawing import sides
from skipway.cli.settings import parsed
from skipway.draw.words import once, show, times
from skipway.errors import Problem, ShapeError, SkipwayError, UsageError
from skipway.models import BUILDERS, ModelCard, arguments, describe, strangers, unknown
from skipway.models.cards import documented, explained

Row = Sequence[str]
UNKNOWN: Row = "–" * 7
"""The cells between name and source of a network that cannot be built here."""


def cards(size: str | None = None) -> list[dict[str, Any]]:
    """One dictionary a builder, at its published defaults; `problem` says why one cannot be built here."""
    found = []
    for name in BUILDERS:
        card = _card(name, size)
        if isinstance(card, ModelCard):
            found.append(card.to_json())
        else:
            summary, source = documented(BUILDERS[name])
            found.append({"name": name, "summary": summary, "source": source, "problem": card})
    return found


def card(name: str, size: str | None = None, settings: Sequence[str] = ()) -> ModelCard:
    """The card of one network.

    Args:
        name: Of the builder.
        size: Input size as typed.
        settings: Arguments of the builder as `key=value`.

    Raises:
        UsageError: No network has that name or such options, or the size does not suit it.
    """
    config = parsed(settings)
    if name not in BUILDERS:
        raise UsageError(unknown(name))
    if wrong := strangers(name, {key: f"--set {key}" for key in config}, besides=("in_channels", "classes")):
        raise UsageError(*wrong)
    try:
        return describe(name, sides(size), **config)
    except ShapeError as error:
        raise UsageError(
            Problem(str(error), "--size", fix="one side for all axes, or one per axis")
        ) from error
    except ValueError as error:
        fix = "other values with --set, as KEY=VALUE"
        raise UsageError(Problem(f"{name} cannot be built: {error}", " ".join(settings), fix=fix)) from error


def table(size: str | None = None) -> str:
    """All networks for people, one line each."""
    head = ("model", "parameters", "GMAC", "at", "gives", "field", "halo", "tiles", "source")
    rows: list[Row] = [head]
    problems = []
    for name in BUILDERS:
        found = _card(name, size)
        if isinstance(found, ModelCard):
            tiles = "exact" if found.tile_exact else "no"
            rows.append((name, *costs(found), tiles, short(found.source)))
        else:
            rows.append((name, *UNKNOWN, short(documented(BUILDERS[name])[1])))
            problems.append(f"{name}: {found}")
    notes = [
        "GMAC: 10^9 multiplications for one image of the size under `at`. Field: receptive field, pixels a side.",
        "Halo: context of a tile on each side. Tiles: whether they give exactly what the whole image gives;",
        "where not, some layer looks at the whole image, and field and halo are those of the others.",
        "All at the published defaults; `skipway models NAME` tells all, `skipway draw NAME` draws it.",
    ]
    return "\n".join([*columns(rows, right=(1, 2)), "", *problems, *notes])


def page(found: ModelCard, settings: Sequence[str] = ()) -> str:
    """One network for people: the figures, every node, what can be set."""
    facts = [*figures(found), ("source", found.source)]
    width = max(len(name) for name, _ in facts)
    lines = [" ".join((found.name, *settings)), found.summary, ""]
    lines += [f"{name.ljust(width)}  {text}" for name, text in facts]
    lines += ["", *columns(node_rows(found), right=(2, 4)), "", *options(found.name)]
    return "\n".join(lines)


def figures(found: ModelCard) -> list[tuple[str, str]]:
    """What is measured on a network, as pairs of words."""
    legal = [
        ", ".join(str(least + k * step) for k in range(3)) + ", …"
        for least, step in zip(found.smallest, found.stride, strict=True)
    ]
    exact = "exactly what the whole image gives" if found.tile_exact else "nearly what the whole image gives"
    return [
        ("parameters", f"{found.parameters:,}"),
        ("operations", f"{gigas(found.macs)} GMAC for an image of {times((found.in_channels, *found.size))}"),
        ("outputs", ", ".join(f"{times((h.classes, *h.size))} of {show(h.key)}" for h in found.heads)),
        ("receptive field", times(found.receptive_field)),
        ("legal sides", legal[0] if len(set(legal)) == 1 else "; ".join(legal)),
        ("tiles", f"give {exact}, with a halo of {once(found.halo)}"),
        ("norm", found.norm),
    ]


def options(name: str) -> list[str]:
    """What `--set KEY=VALUE` takes: name, default where the builder says it, meaning."""
    meaning = explained(name)
    left = {key: key if value is None else f"{key}={value}" for key, value in arguments(name).items()}
    width = max(map(len, left.values()))
    lines = ["options, as --set KEY=VALUE in train, models and draw"]
    for key, text in left.items():
        words = re.sub(r"[;,] see `[\w.]+`", "", meaning[key]).replace("`", "")
        more = wrap(words, 110 - width, initial_indent="  ", subsequent_indent="  ")
        lines += [f"  {text.ljust(width)}{more[0] if more else ''}".rstrip()]
        lines += [f"  {' ' * width}{rest}" for rest in more[1:]]
    return lines


def node_rows(found: ModelCard) -> list[Row]:
    """The table of nodes: a head, a row a node, a row an output."""
    rows: list[Row] = [("node", "reads", "channels", "size", "parameters")]
    for node in found.nodes:
        reads = ", ".join(
            show(key) + (f" −{once(crop)}" if any(crop) else "")
            for key, crop in zip(node.reads, node.crops, strict=True)
        )
        rows.append((show(node.key), reads, str(node.width), times(node.size), f"{node.parameters:,}"))
    for head in found.heads:
        rows.append(("output", show(head.key), str(head.classes), times(head.size), f"{head.parameters:,}"))
    return rows


def short(source: str) -> str:
    """A source up to its first year.

    >>> short("Zhou et al. 2018, eq. 1; Zhou et al. 2020 (9,041,601 parameters)")
    'Zhou et al. 2018'
    """
    found = re.match(r".*?\b(19|20)\d\d\b", source)
    return found[0] if found and len(found[0]) <= 40 else source[:40]


def columns(rows: Iterable[Row], *, right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines, each column as wide as it must be."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def costs(found: ModelCard) -> Row:
    """The cells of a row about one network that are numbers."""
    return (
        f"{found.parameters:,}",
        gigas(found.macs),
        times((found.in_channels, *found.size)),
        times((found.classes, *found.output_size)),
        once(found.receptive_field),
        once(found.halo),
    )


def gigas(macs: int) -> str:
    """Operations in 10^9, with a decimal."""
    return f"{macs / 1e9:,.1f}"


def _card(name: str, size: str | None) -> ModelCard | str:
    """The card, or what stands in the way: an optional package, or axes that the size does not suit."""
    wanted = sides(size)
    try:
        return describe(name, wanted)
    except ImportError as error:
        return f"needs a package that is not installed ({error})"
    except ShapeError as error:
        return str(error)
    except SkipwayError as error:
        return "; ".join(str(problem) for problem in error.problems)
