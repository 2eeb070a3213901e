"""Sides that somebody named: a list, a table with a column of sides, nnU-Net's file of folds, the data set itself."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipway.data.layouts import Pair
from skipway.data.lists import NAMES, by_pair, is_table, matched, read_table, read_text, some
from skipway.errors import DataError, Problem, UsageError
from skipway.images import shown

COLUMNS = ("split", "side", "set", "subset", "partition", "fold")
"""Headings of the column of sides, best first."""

TRAIN = ("train", "training", "tr")
VAL = ("val", "valid", "validation", "dev", "va")
ASIDE = ("test", "testing", "holdout", "ts")
"""What a table may call the sides; what is set aside for a test neither trains nor validates."""


@dataclass(frozen=True)
class Chosen:
    """Names by side, in natural order, and why.

    Attributes:
        train: Names that train.
        val: Names that validate.
        rule: For people.
        warnings: Lines for people.
        fold: Which of how many, such as "2/5".
        listed: The file that names them, where there is one.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    rule: str
    warnings: tuple[str, ...] = ()
    fold: str | None = None
    listed: Path | None = None


def by_file(pairs: Sequence[Pair], path: Path, fold: str | None) -> Chosen:
    """The sides that a file names.

    Args:
        pairs: In natural order.
        path: A text file of names that validate, one a line; a table (.csv, .tsv) with a column `split`, or else
            of names that validate; nnU-Net's `splits_final.json`.
        fold: For a file of folds, the number of one, counted from 0 as that file does.

    Raises:
        DataError: names that the data do not have, or a side without any.
        UsageError: no such file, or a fold that it does not have.
    """
    if path.suffix.lower() == ".json":
        return _by_folds(pairs, path, read_json(path), fold)
    if fold is not None:
        raise UsageError(
            Problem("--fold with a list", shown(path), "either of the two", "leave out --fold or --val")
        )
    table = read_table(path, "--val") if is_table(path) else None
    if table and table.head(COLUMNS):
        head, rows = table.by_name(COLUMNS, "--val")
        return by_sides(pairs, by_pair(pairs, rows, path, head), f"column {head} of {path.name}", path)
    names = table.head(NAMES) if table else None
    wanted = table.column(names) if table and names else read_text(path, "--val").splitlines()
    found, missing = matched(pairs, wanted)
    _refuse_missing(missing, path)
    train, val = _sides(pairs, {pair.name: "val" if pair.name in found else "train" for pair in pairs})
    _refuse_empty(train, val, shown(path))
    return Chosen(train, val, f"the {len(val)} names in {path.name} validate", listed=path)


def by_sides(pairs: Sequence[Pair], sides: Mapping[str, str], rule: str, path: Path | None) -> Chosen:
    """The sides that a table or the data set states, by name of a pair.

    Raises:
        DataError: a side that has no meaning here, an image without one, or nobody on one side.
    """
    where = shown(path) if path else "the data set"
    plain = {name: side.strip().casefold() for name, side in sides.items()}
    strange = sorted({*plain.values()} - {*TRAIN, *VAL, *ASIDE})
    missing = [pair.name for pair in pairs if pair.name not in plain]
    if strange or missing:
        found = (
            f"sides {', '.join(map(shown, strange[:8]))}"
            if strange
            else f"no side for {len(missing)} of {len(pairs)} images: {some(missing)}"
        )
        raise DataError(
            Problem(found, where, "train, val or test for every image", "correct the rows", "L05")
        )
    known = {name: "train" if s in TRAIN else "val" if s in VAL else "test" for name, s in plain.items()}
    train, val = _sides(pairs, known)
    _refuse_empty(train, val, where)
    aside = len(pairs) - len(train) - len(val)
    rule += f"; {aside} of the test side are left aside" if aside else ""
    return Chosen(train, val, rule, listed=path)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is no JSON.
        UsageError: there is no such file.
    """
    try:
        return json.loads(read_text(path, "--val"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            Problem(
                f"no JSON ({error})", shown(path), "splits_final.json or split.json", "check --val", "L05"
            )
        ) from error


def _by_folds(pairs: Sequence[Pair], path: Path, value: Any, fold: str | None) -> Chosen:
    """One fold of nnU-Net's list of {"train": […], "val": […]}."""
    folds = value if isinstance(value, list) else [value]
    if not folds or not all(_is_fold(one) for one in folds):
        raise DataError(
            Problem(
                "JSON of another form",
                shown(path),
                'a list of {"train": [names], "val": [names]}, or the split.json of a run',
                "check --val",
                "L05",
            )
        )
    if fold is None and len(folds) > 1:
        raise UsageError(Problem(f"{len(folds)} folds", shown(path), "one of them", "add --fold 0"))
    number = int(fold) if fold is not None and fold.isdecimal() else 0 if fold is None else -1
    if not 0 <= number < len(folds):
        expected = f"0 to {len(folds) - 1}, as the file counts"
        raise UsageError(Problem(f"found {fold!r}", "--fold", expected, f"--fold {len(folds) - 1}"))
    parts = {side: matched(pairs, map(str, folds[number][side])) for side in ("train", "val")}
    _refuse_missing([name for _, missing in parts.values() for name in missing], path)
    both = parts["train"][0].keys() & parts["val"][0].keys()
    if both:
        raise DataError(
            Problem(
                f"on both sides: {some(sorted(both))}",
                shown(path),
                "each on one side",
                "correct the file",
                "L09",
            )
        )
    train, val = _sides(pairs, {name: side for side, (found, _) in parts.items() for name in found})
    _refuse_empty(train, val, shown(path))
    aside = [pair.name for pair in pairs if pair.name not in {*train, *val}]
    warnings = (f"{shown(path)} does not name {some(aside)}: left aside",) if aside else ()
    said = f"fold {number} of {path.name} validates" if len(folds) > 1 else f"as in {path.name}"
    return Chosen(train, val, said, warnings, None if fold is None else fold, path)


def _is_fold(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(side), list) for side in ("train", "val"))


def _sides(pairs: Iterable[Pair], side: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = [pair.name for pair in pairs]
    train, val = (tuple(name for name in names if side.get(name) == which) for which in ("train", "val"))
    return train, val


def _refuse_missing(missing: Sequence[str], path: Path) -> None:
    if missing:
        found = f"names that are not in the data: {some(missing)}"
        raise DataError(Problem(found, shown(path), "names of some of the images", "correct the list", "L05"))


def _refuse_empty(train: Sequence[str], val: Sequence[str], where: str) -> None:
    for side, what in ((train, "train"), (val, "validate")):
        if not side:
            found = f"no name is left over to {what}"
            raise DataError(
                Problem(found, where, "images on both sides", "correct the list, or leave it out", "L05")
            )
