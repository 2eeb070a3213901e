"""What users write about their images: lists of names, and tables with a column of names.

A name may be that of the pair (`site1/a`), with its suffix (`site1/a.tif`), or the bare file name (`a.tif`); the
name of a stack means all of its pages.
"""

import csv
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipway.data.layouts import Pair
from skipway.errors import DataError, Problem, UsageError
from skipway.images import shown, suffix_of

NAMES = ("name", "file", "filename", "file_name", "image", "image_id", "img", "id", "path")
"""Headings of the column that names the image, best first."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        path: Where it stands.
        heads: Headings, lower case, in order.
        rows: Cells in the order of the headings.
    """

    path: Path
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def head(self, wanted: Sequence[str]) -> str | None:
        """The first of these headings that the table has."""
        return next((head for head in wanted if head in self.heads), None)

    def column(self, head: str) -> tuple[str, ...]:
        """The cells under a heading."""
        index = self.heads.index(head)
        return tuple(row[index] for row in self.rows)

    def by_name(self, heads: Sequence[str], option: str) -> tuple[str, list[tuple[str, str]]]:
        """The heading that was found, and (name, cell) of every row.

        Raises:
            DataError: no column of names, or none of these headings.
        """
        names, head = self.head([n for n in NAMES if n not in heads]), self.head(heads)
        if names is None or head is None:
            raise DataError(
                Problem(
                    f"columns {', '.join(map(shown, self.heads[:8]))}",
                    shown(self.path),
                    f"a column {NAMES[0]} and a column {heads[0]}",
                    f"name the columns in the first line, or check {option}",
                    "L05",
                )
            )
        return head, list(zip(self.column(names), self.column(head), strict=True))


def read_text(path: Path, option: str) -> str:
    """A text file in Unicode's composed form, as the names of pairs are.

    Raises:
        UsageError: there is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark before the first name
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            Problem("no folder and no text file", shown(path), "a list or table of names", f"check {option}")
        ) from error
    return unicodedata.normalize("NFC", text)


def read_table(path: Path, option: str) -> Table:
    """A table whose first line names the columns; commas, semicolons or tabs between the cells.

    Raises:
        UsageError: there is no such file.
    """
    lines = [line for line in read_text(path, option).splitlines() if line.strip()]
    comma = max(",;\t", key=lines[0].count) if lines else ","
    heads, *rows = list(csv.reader(lines, delimiter=comma)) or [[]]
    width = len(heads)
    # cells keep their spaces: "p01 " is for the reader of the column to judge
    filled = tuple(tuple((*row, *[""] * width)[:width]) for row in rows)
    return Table(path, tuple(head.strip().casefold() for head in heads), filled)


def is_table(path: Path) -> bool:
    """Whether a file is a table by its suffix."""
    return path.suffix.lower() in (".csv", ".tsv")


def matched(pairs: Iterable[Pair], wanted: Iterable[str]) -> tuple[dict[str, set[str]], list[str]]:
    """What each pair is called by, of the names that somebody wrote down.

    Returns:
        (the wanted names of each pair that has any, wanted names that no pair has).
    """
    names = {name.strip().replace("\\", "/") for name in wanted} - {""}
    found = {pair.name: names & called(pair) for pair in pairs}
    return {name: by for name, by in found.items() if by}, sorted(names.difference(*found.values()))


def called(pair: Pair) -> set[str]:
    """Every name that means this pair."""
    file, stem = pair.image.path, stem_of_pair(pair)
    return {pair.name, stem, f"{stem}{suffix_of(file)}", unicodedata.normalize("NFC", file.name)}


def stem_of_pair(pair: Pair) -> str:
    """The name of a pair without the number of its page."""
    return pair.name if pair.image.page is None else pair.name.rpartition("#")[0] or pair.name


def by_pair(
    pairs: Sequence[Pair], rows: Sequence[tuple[str, str]], path: Path, what: str
) -> Mapping[str, str]:
    """The cell of each pair, where it has one.

    Raises:
        DataError: two rows of one pair say different things.
    """
    cells: dict[str, str] = {}
    clash: set[str] = set()
    for name, cell in rows:
        name = name.strip().replace("\\", "/")
        if cells.setdefault(name, cell) != cell:
            clash.add(name)
    found, _ = matched(pairs, cells)
    said = {name: {cells[call] for call in by} for name, by in found.items()}
    clash |= {name for name, values in said.items() if len(values) > 1}
    if clash:
        raise DataError(
            Problem(
                f"two rows that differ in {what} for {some(sorted(clash))}",
                shown(path),
                "one row an image",
                "correct the table",
                "L05",
            )
        )
    return {name: next(iter(values)) for name, values in said.items() if next(iter(values)).strip()}


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more
