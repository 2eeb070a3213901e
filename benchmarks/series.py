"""Rows kept one by one, so that an interrupted series goes on, and the part of a page that is written from them."""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common

PAGES = Path(__file__).parent.parent / "docs" / "results"

Row = Mapping[str, Any]


def wanted_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The words of the command, with what every series takes: where runs go, where figures go, or the page alone."""
    parser.add_argument("--out", type=Path, help="folder for all that is made")
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder for figures")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page")
    wanted = parser.parse_args()
    if not wanted.report and wanted.out is None:
        parser.error("--out is needed")
    return wanted


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows so far."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def found(rows: Iterable[Row], **key: Any) -> list[Row]:
    """The rows that have these values.

    >>> found([{"set": "a", "seed": 0}, {"set": "a", "seed": 1}], seed=1)
    [{'set': 'a', 'seed': 1}]
    """
    return [row for row in rows if all(row[name] == value for name, value in key.items())]


def replaced(rows: Iterable[Row], row: Row, keys: Sequence[str]) -> list[Row]:
    """The rows with one more, which takes the place of an earlier one of its keys.

    >>> replaced([{"set": "a", "score": 1}, {"set": "b", "score": 2}], {"set": "a", "score": 3}, ["set"])
    [{'set': 'b', 'score': 2}, {'set': 'a', 'score': 3}]
    """
    return [old for old in rows if any(old[key] != row[key] for key in keys)] + [row]


def keep(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows, one a line, numbers with six digits; a series stopped meanwhile keeps what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(_short(row), ensure_ascii=False) for row in rows)
    fresh = path.with_suffix(".new")
    fresh.write_text('{"rows": [\n' + lines + "\n]}\n", encoding="utf-8")
    fresh.replace(path)


def fill(page: Path, name: str, text: str, opening: str) -> None:
    """Put `text` between the marks of a benchmark on a page, which starts with `opening` where there is none yet."""
    begin, end = f"<!-- written by benchmarks/{name}.py -->", f"<!-- end of benchmarks/{name}.py -->"
    old = page.read_text(encoding="utf-8") if page.is_file() else opening.strip() + "\n\n"
    before, _, rest = old.partition(begin)
    after = rest.partition(end)[2] or "\n"
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def page_of(results: Path, name: str) -> Path:
    """A page of the docs; beside the figures where those are kept elsewhere, as those of a trial are."""
    return (PAGES if results == common.RESULTS else results) / f"{name}.md"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table of Markdown.

    >>> print(table(["set", "score"], [["a|b", "0.5"]]))
    | set | score |
    |---|---|
    | a\|b | 0.5 |
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)])


def number(value: float | None, digits: int = 3) -> str:
    """A score for a table.

    >>> number(0.98765), number(None)
    ('0.988', 'n/a')
    """
    return "n/a" if value is None else f"{value:.{digits}f}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation; the mean alone of one value.

    >>> spread([0.5, 0.7]), spread([0.5])
    ('0.600 ± 0.141', '0.500')
    """
    mean = number(statistics.fmean(values), digits)
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def origin(*packages: str) -> str:
    """This machine and the versions of `packages`, in a line; it goes with every row."""
    facts = common.machine(*packages)
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", *packages))
    return f"{facts['processor']}, {facts['cpus']} cores, {facts['system']}; {versions}"


def machines(rows: Iterable[Row]) -> str:
    """Where the rows come from; a sentence for each machine.

    >>> machines([{"machine": "A"}, {"machine": "B"}, {"machine": "A"}])
    'A. B.'
    """
    return " ".join(f"{machine}." for machine in dict.fromkeys(row["machine"] for row in rows))


def _short(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.6g}"))
