"""Which items train and which validate: what the user or the data set says, else groups, the end of a series, or lots.

Neighbours by name are often neighbours in time or depth, and images of one patient or slide are alike, so that a free
choice would put near-copies on both sides. Groups stay whole; of a numbered series without groups the end is held
out as one piece; images without any order are drawn by lot, with every class on both sides where that can be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skipway.data.agreement import either
from skipway.data.check import Checked, FileRecord, inspect
from skipway.data.draws import as_stored, choose
from skipway.data.groups import NONE, Groups, find_groups, from_table
from skipway.data.labels import LabelMap
from skipway.data.layouts import Pair, Reading, find_pairs, natural
from skipway.data.sequences import neighbours
from skipway.data.sides import Chosen, by_file, by_sides, read_json
from skipway.data.sources import Source
from skipway.errors import NAMED, DataError, Problem, UsageError
from skipway.images import shown
from skipway.parts import Part


@dataclass(frozen=True)
class Split:
    """A split that can be repeated and verified.

    Attributes:
        train: Names that train.
        val: Names that validate. The one training name again where there is only one item.
        rule: How it was made, for people.
        hashes: SHA-256 of the image's pixels by name.
        mask_hashes: The same of the mask's pixels.
        pairs: The files by name, those of a separate validation folder among them.
        warnings: Lines for people.
        groups: The patient, slide or movie of each name; empty where every image stands alone.
        grouping: How the groups were found, for people.
        fold: Which of how many, such as "2/5"; None without folds.
        folds: Of a run that is made of folds, the names that validate in each; all train, and all validate once.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    rule: str
    hashes: Mapping[str, str]
    mask_hashes: Mapping[str, str]
    pairs: Mapping[str, Pair] = field(repr=False)
    warnings: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict, repr=False)
    grouping: str = ""
    fold: str | None = None
    folds: tuple[tuple[str, ...], ...] = ()

    @property
    def train_pairs(self) -> tuple[Pair, ...]:
        """The pairs that train, in order."""
        return tuple(self.pairs[name] for name in self.train)

    @property
    def val_pairs(self) -> tuple[Pair, ...]:
        """The pairs that validate, in order."""
        return tuple(self.pairs[name] for name in self.val)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return {
            "train": list(self.train),
            "val": list(self.val),
            "rule": self.rule,
            "hashes": dict(self.hashes),
            "mask_hashes": dict(self.mask_hashes),
            "pairs": {name: _pair_to_json(pair) for name, pair in self.pairs.items()},
            "groups": dict(self.groups),
            "grouping": self.grouping,
            "fold": self.fold,
            **({"folds": [list(names) for names in self.folds]} if self.folds else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Split":
        """A split out of a run folder.

        Raises:
            DataError: it is damaged.
        """
        try:
            pairs = {name: _pair_from_json(name, pair) for name, pair in value["pairs"].items()}
            split = cls(
                tuple(value["train"]),
                tuple(value["val"]),
                value["rule"],
                dict(value["hashes"]),
                dict(value["mask_hashes"]),
                pairs,
                groups=dict(value.get("groups", {})),
                grouping=str(value.get("grouping", "")),
                fold=value.get("fold"),
                folds=tuple(tuple(names) for names in value.get("folds", ())),
            )
            if not {*split.train, *split.val} <= pairs.keys():
                raise KeyError("a name without files")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                Problem(f"the split of the run is damaged ({error})", fix="train again")
            ) from error
        return split


def split(
    checked: Checked,
    *,
    val: Path | None = None,
    reading: Reading | None = None,
    fraction: float = 0.2,
    groups: str | Path | None = None,
    fold: str | None = None,
    seed: int = 0,
) -> Split:
    """Divides checked data.

    Args:
        checked: From `inspect`.
        val: A folder with images and masks of its own (found as `find_pairs` does), a text file with one name of
            the training data a line, a table with a column `split`, nnU-Net's `splits_final.json`, or the
            `split.json` of an earlier run, whose images stay where they were. Left out: the sides that the data set
            states, else the choice of `data.draws`.
        reading: How a folder `val` is read, as for `find_pairs`.
        fraction: Share that validates where the choice is free, in (0, 1); at least one item.
        groups: A table with columns `name` and `group`, or "none"; see `find_groups`.
        fold: Which of how many equal parts validates, such as "2/5"; of nnU-Net's file, the number of the fold.
        seed: Of the choice by lot.

    Raises:
        DataError: the same picture or group on both sides, or names that do not exist.
        UsageError: `val` does not exist, or `fraction` or `fold` is out of range.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"a validation share of {fraction} was asked for; it lies between 0 and 1")
    found = find_groups(checked.pairs, groups)
    if val is not None and Path(val).is_dir():
        if fold is not None:
            raise UsageError(Problem("--fold with a folder", shown(val), fix="leave out --fold or --val"))
        return _by_folder(checked, Path(val), reading or Reading(), found, groups)
    pairs = sorted(checked.pairs.pairs, key=lambda pair: natural(pair.name))
    if val is None:
        stated = checked.pairs.stated.sides
        chosen = (
            by_sides(pairs, stated, "as the data set states", None)
            if fold is None and {*stated.values()} >= {"train", "val"}
            else choose(
                checked,
                found,
                fraction=fraction,
                fold=None if fold is None else Part.parse(fold, "--fold", least=2),
                seed=seed,
            )
        )
    elif Path(val).suffix.lower() == ".json" and _is_stored(value := read_json(Path(val))) and fold is None:
        chosen = as_stored(checked, found, value, Path(val), seed)
    else:
        chosen = by_file(pairs, Path(val), fold)
    return _made(checked, chosen, found)


def _is_stored(value: Any) -> bool:
    return isinstance(value, dict) and "hashes" in value


def _by_folder(
    checked: Checked, folder: Path, reading: Reading, found: Groups | None, asked: str | Path | None
) -> Split:
    """Validation data of its own, checked like the training data and against its label map."""
    own = find_pairs(folder, reading=reading.elsewhere())
    _refuse_other_names(checked.pairs.stated.names, own.stated.names, folder)
    other = inspect(own, labels=checked.labels)
    _refuse_foreign(checked, other, folder)
    hashes, mask_hashes = _hashes(checked)
    pairs = {p.name: p for p in checked.pairs.pairs}
    table = None if asked is None or str(asked) == NONE else from_table(other.pairs.pairs, Path(asked))
    of = dict(found.of) if found else {}
    names = []
    for pair, record in zip(other.pairs.pairs, other.records, strict=True):
        name = f"{folder.name}/{pair.name}"
        while name in pairs:
            name = f"val/{name}"
        names.append(name)
        pairs[name] = Pair(name, pair.image, pair.mask)
        hashes[name], mask_hashes[name] = record.sha256, record.mask_sha256
        of |= {name: table.of[pair.name]} if table else {}
    train = tuple(sorted((r.name for r in checked.records), key=natural))
    chosen = Chosen(train, tuple(names), f"{shown(folder)} validates", listed=folder)
    groups = replace(found, of=of) if found else None
    warnings = (*other.warnings, *_class_warnings(checked.labels, checked.records, other.records))
    result = Split(train, chosen.val, chosen.rule, hashes, mask_hashes, pairs, warnings)
    blank = {name for name, record in zip(names, other.records, strict=True) if record.constant}
    blank |= {r.name for r in checked.records if r.constant}
    return _grouped(_without_leak(result, blank), chosen, groups)


def _refuse_other_names(known: Mapping[int, str], other: Mapping[int, str], folder: Path) -> None:
    """One value must mean one class on both sides: shapes and class files are numbered by the names there are."""
    differs = [value for value in known if value in other and other[value] != known[value]]
    if differs:
        value = differs[0]
        raise DataError(
            Problem(
                f"value {value} is {other[value]}",
                shown(folder),
                f"{known[value]}, as in the training data",
                "give both folders the same classes, or put both in one folder and name a list with --val",
                "E05",
            )
        )


def _hashes(checked: Checked) -> tuple[dict[str, str], dict[str, str]]:
    """Of the images and of the masks, by name."""
    return {r.name: r.sha256 for r in checked.records}, {r.name: r.mask_sha256 for r in checked.records}


def _refuse_foreign(checked: Checked, other: Checked, folder: Path) -> None:
    """Validation images must be of the kind that trains."""
    first, second = checked.records[0], other.records[0]
    if (first.channels, first.dtype) != (second.channels, second.dtype):
        expected = f"{first.kind} like the training images"
        mixed = first.channels != second.channels
        fix = either((first.channels, second.channels)) if mixed else "export them alike"
        raise DataError(
            Problem(f"{second.kind} images", shown(folder), expected, fix, "D01" if mixed else "C07")
        )


def _made(checked: Checked, chosen: Chosen, groups: Groups | None) -> Split:
    hashes, mask_hashes = _hashes(checked)
    pairs = {pair.name: pair for pair in checked.pairs.pairs}
    records = {record.name: record for record in checked.records}
    sides = ([records[name] for name in names] for names in (chosen.train, chosen.val))
    warnings = (*chosen.warnings, *_class_warnings(checked.labels, *sides))
    result = Split(
        chosen.train, chosen.val, chosen.rule, hashes, mask_hashes, pairs, warnings, fold=chosen.fold
    )
    if chosen.train != chosen.val:
        result = _without_leak(result, {record.name for record in checked.records if record.constant})
    return _grouped(result, chosen, groups)


def _grouped(result: Split, chosen: Chosen, groups: Groups | None) -> Split:
    """The same with its groups; what parts one is refused, or warned of where groups are guessed or there is one."""
    warnings = list(result.warnings)
    if groups is not None:
        warnings += groups.warnings
        result = replace(result, groups=groups.of, grouping=groups.rule)
        sides = [
            {groups.of[name] for name in side if name in groups.of} for side in (chosen.train, chosen.val)
        ]
        parted = sorted(sides[0] & sides[1], key=natural)
        alone = len(groups.members) == 1
        if parted and groups.certain and not alone:
            raise DataError(_parted(result, parted, chosen.listed))
        if parted and alone and len(result.pairs) > 1:
            warnings.append(
                f"all images are of one group, {shown(parted[0])} ({groups.rule}), which trains and validates: the "
                "score says nothing about others [L01]"
            )
        elif parted:
            warnings.append(
                f"{len(parted)} of {len(groups.members)} groups ({groups.rule}) {'is' if len(parted) == 1 else 'are'} "
                f"on both sides, {shown(parted[0])} "
                "among them: images of one group are alike, so the score will be too good [L02]"
            )
    if chosen.train != chosen.val:
        warnings += neighbours(result.train_pairs, result.val_pairs)
    return replace(result, warnings=tuple(warnings))


def _parted(result: Split, parted: Sequence[str], listed: Path | None) -> Problem:
    counts = [sum(result.groups.get(name) in parted for name in side) for side in (result.train, result.val)]
    more = f" and {len(parted) - NAMED} more" if len(parted) > NAMED else ""
    verb = "is" if len(parted) == 1 else "are"
    return Problem(
        f"{', '.join(map(shown, parted[:NAMED]))}{more} ({result.grouping}) {verb} on both sides: "
        f"{counts[0]} images train, {counts[1]} validate",
        "" if listed is None else shown(listed),
        "all images of a group on one side",
        "move them to one side, or --groups none if they have nothing to do with each other",
        "L01",
    )


def _class_warnings(
    labels: LabelMap, train: Sequence[FileRecord], val: Sequence[FileRecord]
) -> tuple[str, ...]:
    """Classes that only one side has: the score cannot tell anything about them."""
    if labels.task == "objects":
        return ()
    in_train, in_val = _values(train, labels), _values(val, labels)
    lines = []
    for value, name in zip(labels.values, labels.names, strict=True):
        if value in in_val - in_train:
            lines.append(f"{name} (value {value}) is only in the validation images: it cannot be learnt")
        if value in in_train - in_val:
            lines.append(f"{name} (value {value}) is not in the validation images: its score stays unknown")
    return tuple(lines)


def _values(records: Iterable[FileRecord], labels: LabelMap) -> set[int]:
    """Values of the classes in these masks."""
    found = {value for record in records for value in record.values.values}
    if not labels.overlapping:
        return found
    return {bit for bit in labels.values if any(value & bit for value in found - {labels.ignore})}


def _without_leak(result: Split, constant: set[str]) -> Split:
    """The same pixels on both sides make the score a lie; blank images are alike without being a leak."""
    seen = {result.hashes[name]: name for name in result.train if name not in constant}
    problems = [
        Problem(
            f"the same picture as {shown(result.pairs[seen[result.hashes[name]]].image.path)}, which trains",
            shown(result.pairs[name].image.path),
            "different pictures for training and validation",
            "remove one of the two",
            "A25",
        )
        for name in result.val
        if name not in constant and result.hashes[name] in seen
    ]
    if problems:
        raise DataError(*problems)
    return result


def _pair_to_json(pair: Pair) -> list[Any]:
    return [pair.image.to_json(), pair.mask.to_json()]


def _pair_from_json(name: str, value: list[Any]) -> Pair:
    image, mask = value
    return Pair(name, Source.from_json(image), Source.from_json(mask))
