"""Tables beside a data set: what mask values and colours are called, and which of them mean "not annotated"."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipway.data.folders import data_error, files_in
from skipway.data.layouts.pairs import Pair, Pairs, Reading
from skipway.errors import DataError, Problem
from skipway.images import shown

CLASS_TABLES = ("classes.csv", "class_dict.csv", "labels.csv", "labelmap.txt", "label_colors.txt")
"""Files that say what values or colours of masks mean."""

_NO_CLASS = re.compile(r"(?<![a-z])(un-?label+ed|ignored?|void|not[ _-]annotated)(?![a-z])", re.I)
_NAMES = ("name", "class", "label", "class_name")
_VALUES = ("value", "id", "index", "label_id", "class_id")
_COLOURS = (("r", "red"), ("g", "green"), ("b", "blue"))


@dataclass(frozen=True)
class Classes:
    """A table of classes.

    Attributes:
        path: The file.
        names: By value: as it is written there, or the number of the row where the table gives colours.
        colours: Of each name in the same order; empty where the table has none.
    """

    path: Path
    names: Mapping[int, str]
    colours: tuple[tuple[int, int, int], ...] = ()

    @property
    def ignore(self) -> int | None:
        """The value of pixels that nobody annotated, where a name says so."""
        return ignored(self.names)


def ignored(names: Mapping[int, str]) -> int | None:
    """The first value that is called unlabelled, ignore or void.

    >>> ignored({0: "sky", 11: "unlabelled(ignore)"})
    11
    """
    return next((value for value, name in names.items() if _NO_CLASS.search(name)), None)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a table with a header, by column names in lower case.

    Raises:
        DataError: not a text file, no header, or a row of another length.
    """
    text = _text(path)
    lines = text.splitlines()
    head = lines[0] if lines else ""
    delimiter = max(",;\t", key=head.count)
    try:
        header, *body = csv.reader(lines, delimiter=delimiter) if lines else [[]]
    except csv.Error as error:
        raise data_error(f"no table: {error}", path, "a CSV", "save it again", "A33") from error
    header = [name.strip().lower() for name in header]
    if len(set(header)) < max(2, len(header)):
        raise data_error("no header of two or more columns", path, "a first line of names", "add it", "A33")
    rows = []
    for number, row in enumerate(body, start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise data_error(
                f"{len(row)} cells in line {number}",
                path,
                f"{len(header)} as in its header",
                "correct it",
                "A33",
            )
        rows.append(dict(zip(header, (cell.strip() for cell in row), strict=True)))
    return rows


def classes_in(path: Path) -> Classes:
    """A table of classes: `value,name`, or `name,r,g,b`, or a colour map of one of the tools that write it.

    Raises:
        DataError: neither names with values nor names with colours, or one of either twice.
    """
    table = _colour_map(path) if path.suffix.lower() == ".txt" else _class_rows(path)
    for what, given in (("colour", table.colours), ("value", tuple(table.names))):
        if len(set(given)) < len(given):
            twice = next(one for one in given if given.count(one) > 1)
            raise data_error(f"{what} {twice} stands there twice", path, "once", "correct the table", "A33")
    return table


def with_tables(pairs: Pairs, reading: Reading) -> Pairs:
    """The pairs with what tables beside them say of classes and colours."""
    paths = [reading.colours] if reading.colours else _tables_beside(pairs)
    tables = [classes_in(path) for path in paths[:1]]
    if not tables or not all(pair.mask.kind == "file" for pair in pairs.pairs):
        return pairs
    table = tables[0]
    if reading.colours and not table.colours:
        raise data_error("no columns r, g and b", table.path, "name,r,g,b", "add the colours", "E07")
    names = {**pairs.stated.names, **table.names}
    ignore = table.ignore if pairs.stated.ignore is None else pairs.stated.ignore
    stated = replace(pairs.stated, names=names, ignore=ignore, task=pairs.stated.task or "classes")
    rule = (
        f"{pairs.rule}; {table.path.name} names {len(table.names)} {'colours' if table.colours else 'values'}"
    )
    if ignore is not None and ignore == table.ignore:
        rule += f", {ignore} {table.names[ignore]} is not annotated"
    if table.colours:
        pairs = replace(pairs, pairs=tuple(_coloured(pair, table) for pair in pairs.pairs))
    return replace(pairs, rule=rule, stated=stated)


def _coloured(pair: Pair, table: Classes) -> Pair:
    mask = replace(pair.mask, kind="colours", names=tuple(table.names.values()), colours=table.colours)
    return replace(pair, mask=mask)


def _tables_beside(pairs: Pairs) -> list[Path]:
    """Class tables in the folders of images and masks, and in the folder that holds both."""
    roots = [pairs.images_root, pairs.masks_root]
    folders = [root if root.is_dir() else root.parent for root in roots]
    if roots[0] != roots[1] and roots[0].resolve().parent == roots[1].resolve().parent:
        folders.append(roots[0].parent)
    files = [file for folder in dict.fromkeys(folders) for file in files_in(folder)]
    named = [file for file in files if file.name.casefold() in CLASS_TABLES]
    tables = list({file.resolve(): file for file in named if _tells(file)}.values())
    if len(tables) > 1:
        raise DataError(
            Problem(
                f"several tables of classes: {', '.join(file.name for file in tables)}",
                shown(tables[0].parent),
                "one",
                "move the others away, or name one with --colours",
                "A09",
            )
        )
    return tables


def _tells(path: Path) -> bool:
    """Whether a file of such a name is a table of classes at all: its header says so."""
    if path.suffix.lower() == ".txt":
        return bool(_colour_lines(_text(path)))
    head = set(re.split(r"[,;\t]", _text(path).partition("\n")[0].strip().lower()))
    return bool(head & set(_NAMES)) and (bool(head & set(_VALUES)) or bool(head & {"r", "red"}))


def _class_rows(path: Path) -> Classes:
    rows = rows_of(path)
    columns = rows[0] if rows else {}
    name = _column(columns, _NAMES)
    value = _column(columns, _VALUES)
    rgb = [_column(columns, words) for words in _COLOURS]
    coloured = None not in rgb
    if name is None or not (value or coloured):
        raise data_error(
            f"columns {', '.join(columns) or 'none'}",
            path,
            "name and value, or name, r, g and b",
            "add them",
            "A33",
        )
    names = [row[name] for row in rows]
    if coloured:
        colours = [_numbers(path, [row[str(part)] for part in rgb]) for row in rows]
        return Classes(path, dict(enumerate(names)), tuple((r, g, b) for r, g, b in colours))
    values = [_numbers(path, [row[str(value)]])[0] for row in rows]
    _refuse_twice(path, values)
    return Classes(path, dict(zip(values, names, strict=True)))


def _refuse_twice(path: Path, values: Sequence[int]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise data_error(f"value {twice[0]} stands there twice", path, "once", "correct the table", "A33")


def _colour_map(path: Path) -> Classes:
    found = _colour_lines(_text(path))
    if not found:
        raise data_error("no colours", path, "lines such as `road:128,64,128`", "correct the table", "A33")
    return Classes(path, dict(enumerate(name for name, _ in found)), tuple(colour for _, colour in found))


def _colour_lines(text: str) -> list[tuple[str, tuple[int, int, int]]]:
    """`name:r,g,b:…` or `r g b name`, one a line; lines that begin with # are comments."""
    found = []
    for line in text.splitlines():
        before = re.match(r"\s*([^#:][^:]*):\s*(\d+),\s*(\d+),\s*(\d+)\s*(?::|$)", line)
        after = re.match(r"\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+([^#\s].*)$", line)
        if before:
            name, *rgb = before.groups()
        elif after:
            *rgb, name = after.groups()
        else:
            continue
        found.append((name.strip(), (int(rgb[0]), int(rgb[1]), int(rgb[2]))))
    return found


def _column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _numbers(path: Path, cells: Sequence[str]) -> list[int]:
    try:
        return [int(cell) for cell in cells]
    except ValueError as error:
        raise data_error(
            f"{', '.join(cells)!r}", path, "whole numbers", "correct the table", "A33"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors put a mark before the first name
    except (OSError, UnicodeDecodeError) as error:
        raise data_error(
            "not a text file", path, "a table as text (UTF-8)", "save it again", "A33"
        ) from error
