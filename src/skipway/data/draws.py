"""The choice of validation images where nobody named them: groups, the end of a series, or lots."""

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from skipway.data.check import Checked, FileRecord
from skipway.data.groups import Groups
from skipway.data.labels import LabelMap
from skipway.data.layouts import natural
from skipway.data.sequences import FRAME_WORD
from skipway.data.sides import Chosen
from skipway.data.strata import EVEN, Unit, divide, lot
from skipway.errors import DataError, Problem, UsageError
from skipway.images import shown
from skipway.parts import Part

ONE_STACK = (
    "one stack only: parts of it validate, and pages of one stack are alike, so the score will be too good"
)
ASIDE = 2
"""What an image is that an earlier run neither trained on nor validated on."""

GAP = 0.05
"""Share of the pages of a single stack left out on each side of what validates, where there are ten or more."""
ONE_IMAGE = "one image only: it trains and validates, so the validation score means nothing"


def choose(
    checked: Checked, groups: Groups | None, *, fraction: float, fold: Part | None, seed: int
) -> Chosen:
    """The sides of data of which nobody said anything.

    Args:
        checked: From `inspect`.
        groups: From `find_groups`.
        fraction: Share that validates where no fold is asked for.
        fold: Which part of how many validates.
        seed: Of the lots.

    Raises:
        UsageError: more folds than groups or images.
    """
    names = tuple(sorted((record.name for record in checked.records), key=natural))
    if groups is not None and len(groups.members) == 1:  # one movie or patient can only be parted
        groups = None
    count = len(names) if groups is None else len(groups.members)
    if fold is not None and fold.of > count:
        what = "images" if groups is None else f"groups ({groups.rule})"
        raise UsageError(Problem(f"{fold.of} folds of {count} {what}", "--fold", f"at most {count}"))
    if len(names) == 1:
        return Chosen(names, names, "one image for both", (ONE_IMAGE,))
    if groups is None and is_series(names):
        return _end(checked, names, fraction, fold)
    units = units_of(checked, groups, seed)
    if len(units) < (fold.of if fold else 2):
        return _end(
            checked, names, fraction, fold
        )  # copies of one picture, which the check for leaks refuses
    parts = (
        divide(units, [1 / fold.of] * fold.of, tolerance=EVEN)
        if fold
        else divide(units, (1 - fraction, fraction), home=0)
    )
    chosen = {n for unit, part in zip(units, parts, strict=True) if part == _held(fold) for n in unit.names}
    train, val = (tuple(n for n in names if (n in chosen) == held) for held in (False, True))
    return Chosen(train, val, _said(groups, names, val, fold, seed), fold=str(fold) if fold else None)


def _held(fold: Part | None) -> int:
    return fold.number - 1 if fold else 1


def _said(
    groups: Groups | None, names: Sequence[str], val: Sequence[str], fold: Part | None, seed: int
) -> str:
    by_lot = f"drawn by lot with every class on both sides where that can be (seed {seed})"
    which = f"fold {fold}: " if fold else ""
    if groups is None:
        return f"{which}{len(val)} of {len(names)} images, {by_lot}"
    held = len({groups.of[name] for name in val})
    return f"{which}{held} of {len(groups.members)} whole groups ({groups.rule}), {by_lot}"


def _end(checked: Checked, names: Sequence[str], fraction: float, fold: Part | None) -> Chosen:
    """The last part of a series, or one of several blocks that follow each other."""
    n = len(names)
    pages = {pair.image.path for pair in checked.pairs.pairs if pair.image.page is not None}
    warnings = (ONE_STACK,) if len(pages) == 1 else ()
    gap = max(1, round(GAP * n)) if warnings and n >= 10 else 0
    if fold is None:
        first, last = n - max(1, round(n * fraction)), n
        rule = f"the last {last - first} of {n} by name validate"
    else:
        first, last = ((2 * n * k + fold.of) // (2 * fold.of) for k in (fold.number - 1, fold.number))
        rule = f"fold {fold}: block {fold.number} of {fold.of} by name validates"
    if gap:
        rule += f", and {gap} beside {'them' if fold is None else 'it'} neither train nor validate"
    train = (*names[: max(0, first - gap)], *names[last + gap :])
    return Chosen(train, tuple(names[first:last]), rule, warnings, str(fold) if fold else None)


def is_series(names: Sequence[str]) -> bool:
    """Whether names differ in one number alone, which counts with few gaps, or frames or slices with any.

    >>> is_series(["a1", "a2", "a10"]), is_series(["a3f", "b99c"]), is_series(["7", "397133", "580001"])
    (True, False, False)
    >>> is_series(["01_t001", "01_t049", "01_t112"])
    True
    """
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(part) for part in parts}) != 1:
        return False
    columns = list(zip(*parts, strict=True))
    differ = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    if len(differ) != 1 or not all(text.isdecimal() for text in columns[differ[0]]):
        return False
    numbers = sorted({int(text) for text in columns[differ[0]]})
    if len(numbers) < len(names):
        return False
    if FRAME_WORD.search(columns[differ[0] - 1][0]):
        return True
    step = math.gcd(*(b - a for a, b in pairwise(numbers)))
    return (numbers[-1] - numbers[0]) // max(step, 1) < 4 * len(names)


def units_of(checked: Checked, groups: Groups | None, seed: int) -> tuple[Unit, ...]:
    """What must not be parted: the images of a group, and one picture under two names.

    The lot of an image is drawn from its pixels, that of a group from its name, which more images do not change.
    """
    records = {record.name: record for record in checked.records}
    members = groups.members if groups else {name: [name] for name in sorted(records, key=natural)}
    joined = _joined(members, records)
    found = []
    for ids in joined:
        names = tuple(name for one in ids for name in members[one])
        identities = ids if groups else sorted({records[name].sha256 for name in names})
        holds = frozenset(c for name in names for c in presence(records[name], checked.labels))
        found.append(Unit(names, min(lot(seed, identity) for identity in identities), holds))
    return tuple(found)


def _joined(members: Mapping[str, Sequence[str]], records: Mapping[str, FileRecord]) -> list[tuple[str, ...]]:
    """Groups that share a picture, together; blank images are alike without being the same."""
    root = {group: group for group in members}

    def top(group: str) -> str:
        while root[group] != group:
            group = root[group]
        return group

    first: dict[str, str] = {}
    for group, names in members.items():
        for name in names:
            if not records[name].constant:
                root[top(group)] = top(first.setdefault(records[name].sha256, group))
    found: defaultdict[str, list[str]] = defaultdict(list)
    for group in members:
        found[top(group)].append(group)
    return [tuple(groups) for groups in found.values()]


def presence(record: FileRecord, labels: LabelMap) -> frozenset[Hashable]:
    """The classes that occur in a mask; of objects, whether there is any."""
    held = {value for value in record.values.values if value != labels.ignore}
    if labels.overlapping:
        return frozenset(bit for bit in labels.values if any(value & bit for value in held))
    return frozenset({bool(held - {labels.values[0]})} if labels.task == "objects" else held)


def as_stored(
    checked: Checked, groups: Groups | None, value: Mapping[str, Any], path: Path, seed: int
) -> Chosen:
    """The sides of an earlier run, by the pixels of its images, so that renamed ones are found; new ones join.

    New images go where their group is, else by lot; in a numbered series they train.

    Raises:
        DataError: the file is damaged, that of a run of folds, or none of its images validates here.
    """
    if value.get("folds"):
        every = f"all images of {len(value['folds'])} folds"
        fix = "name that of one fold, such as fold-1/split.json"
        raise DataError(Problem(every, shown(path), "one split", fix, "L05"))
    before = _sides_before(value, path)
    names = tuple(sorted((record.name for record in checked.records), key=natural))
    records = {record.name: record for record in checked.records}
    known = {name: _known(records[name], before) for name in names}
    names = tuple(name for name in names if known[name] != ASIDE)
    side = {name: part for name in names if (part := known[name]) is not None}
    if set(side.values()) != {0, 1}:
        expected = "the split of these images, with some of them on both sides"
        raise DataError(
            Problem("none of its images on one side", shown(path), expected, "check --val", "L05")
        )
    new = [name for name in names if name not in side]
    units = units_of(checked, groups, seed)
    fixed = {
        i: min(found) for i, unit in enumerate(units) if (found := {side[n] for n in unit.names if n in side})
    }
    rest = groups is None and is_series(names)
    parts = (0,) * len(units) if rest else divide(units, (0.8, 0.2), fixed=fixed, home=0)
    for i, unit in enumerate(units):
        side = {name: fixed.get(i, parts[i]) for name in unit.names} | side
    train, val = (tuple(name for name in names if side[name] == which) for which in (0, 1))
    rule = f"as in {shown(path)}"
    rule += f"; of {len(new)} new images {sum(side[name] for name in new)} validate" if new else ""
    return Chosen(train, val, rule, listed=path)


def _known(record: FileRecord, before: Mapping[tuple[str | None, str], int]) -> int | None:
    """The side an image had under this name, or under any; blank images are alike without being the same."""
    named = before.get((record.name, record.sha256))
    return named if named is not None or record.constant else before.get((None, record.sha256))


def _sides_before(value: Mapping[str, Any], path: Path) -> dict[tuple[str | None, str], int]:
    """0, 1 or `ASIDE` by (name, hash) and by (None, hash), out of the split.json of a run."""
    try:
        hashes = dict(value["hashes"])
        sides = [(name, which) for which, key in enumerate(("train", "val")) for name in value[key]]
        found: dict[tuple[str | None, str], int] = {}
        for name, one in hashes.items():
            found[name, str(one)] = found[None, str(one)] = ASIDE
        for name, which in sides:
            found[name, str(hashes[name])] = which
            found[None, str(hashes[name])] = which
    except (KeyError, TypeError, ValueError) as error:
        problem = Problem(f"damaged ({error})", shown(path), "the split.json of a run", "check --val", "L05")
        raise DataError(problem) from error
    return found
