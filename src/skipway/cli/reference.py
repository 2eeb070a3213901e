"""The page `docs/reference/models.md`, written from the builders, so that it cannot say what they do not."""

import inspect
from collections.abc import Iterable

from skipway.cli.models import UNKNOWN, Row, costs, figures, node_rows, short
from skipway.errors import SkipwayError
from skipway.models import BUILDERS, ModelCard, describe
from skipway.models.assemble import Options
from skipway.models.cards import documented, entries

HEAD = """# Models

Written by `uv run python docs/make.py` from the builders in `skipway.models`; change those, not this page.

`skipway train --model NAME` trains any of them, `skipway models NAME` prints the figures at another `--size`,
`skipway draw NAME` draws it. Figures are those of the published defaults. GMAC: 10^9 multiplications for one image of
the size given. Field: receptive field, pixels a side. Halo: context that a tile needs on each side. Exact: tiles give
what the whole image gives; where not, some layer looks at the whole image, and field and halo are those of the others.
What X[i,j] and the reads are: [the grid](../concepts/the-grid.md).
"""


def reference() -> str:
    """The whole page, in Markdown."""
    found = {name: _card(name) for name in BUILDERS}
    rows: list[Row] = [("model", "parameters", "GMAC", "at", "gives", "field", "halo", "exact", "source")]
    rows += [_row(name, card) for name, card in found.items()]
    parts = [HEAD, _table(rows, right=(1, 2))]
    for name, card in found.items():
        parts.append(_section(name, card))
    parts.append("## Options of plain nodes\n\nWhat “see Options” stands for above.\n")
    parts.append(_list(entries(inspect.getdoc(Options) or "", "Attributes:")))
    return "\n".join(parts)


def _card(name: str) -> ModelCard | str:
    try:
        return describe(name)
    except SkipwayError as error:
        return str(error)


def _row(name: str, card: ModelCard | str) -> Row:
    link = f"[`{name}`](#{name})"
    if isinstance(card, str):
        return (link, *UNKNOWN, short(documented(BUILDERS[name])[1]))
    return (link, *costs(card), "yes" if card.tile_exact else "no", short(card.source))


def _section(name: str, card: ModelCard | str) -> str:
    summary, source = documented(BUILDERS[name])
    arguments = _list(entries(inspect.getdoc(BUILDERS[name]) or "", "Args:"))
    signature = ", ".join(map(_plain, inspect.signature(BUILDERS[name]).parameters.values()))
    parts = [
        f"## {name}",
        "",
        summary,
        "",
        f"    {name}({signature})",
        "",
        f"{arguments}",
        f"Source: {source}",
        "",
    ]
    if isinstance(card, str):
        return "\n".join([*parts, card, ""])
    facts = [f"- {what}: {text}" for what, text in figures(card)]
    nodes = _table(node_rows(card), right=(2, 4))
    return "\n".join([*parts, *facts, "", nodes])


def _plain(parameter: inspect.Parameter) -> str:
    """A parameter without its type."""
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return "**options"
    return str(parameter.replace(annotation=inspect.Parameter.empty))


def _list(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f"- `{name}`: {text}\n" for name, text in entries)


def _table(rows: Iterable[Row], *, right: Iterable[int] = ()) -> str:
    head, *body = rows
    rule = ["---:" if i in set(right) else "---" for i in range(len(head))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))
