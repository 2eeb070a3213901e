"""Which items train and which validate: the last fifth by name, or what the user names; stored with hashes.

Neighbouring names are often neighbouring frames or slices, so the end of the list is held out as one piece; a
random choice would put near-copies on both sides.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skipway.data.check import Checked, FileRecord, inspect
from skipway.data.labels import LabelMap
from skipway.data.layouts import Pair, Reading, find_pairs, natural
from skipway.data.sources import Source
from skipway.errors import DataError, Problem, UsageError
from skipway.images import shown, suffix_of


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
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    rule: str
    hashes: Mapping[str, str]
    mask_hashes: Mapping[str, str]
    pairs: Mapping[str, Pair] = field(repr=False)
    warnings: tuple[str, ...] = ()

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
            )
            if not {*split.train, *split.val} <= pairs.keys():
                raise KeyError("a name without files")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                Problem(f"the split of the run is damaged ({error})", fix="train again")
            ) from error
        return split


def split(
    checked: Checked, *, val: Path | None = None, reading: Reading | None = None, fraction: float = 0.2
) -> Split:
    """Divides checked data.

    Args:
        checked: From `inspect`.
        val: A folder with images and masks of its own (found as `find_pairs` does), or a text file with one
            name of the training data a line. Left out: the last `fraction` of the names in natural order.
        reading: How a folder `val` is read, as for `find_pairs`.
        fraction: Share that validates without `val`, in (0, 1); at least one item.

    Raises:
        DataError: the same picture on both sides, or names that do not exist.
        UsageError: `val` does not exist, or `fraction` is out of range.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"a validation share of {fraction} was asked for; it lies between 0 and 1")
    if val is None:
        result = _by_name(checked, fraction)
    elif Path(val).is_dir():
        result = _by_folder(checked, Path(val), reading or Reading())
    else:
        result = _by_list(checked, Path(val))
    return result


def _by_name(checked: Checked, fraction: float) -> Split:
    names = sorted((record.name for record in checked.records), key=natural)
    if len(names) == 1:
        warning = "one image only: it trains and validates, so the validation score means nothing"
        return _made(checked, names, names, "one image for both", (warning,))
    held = max(1, round(len(names) * fraction))
    rule = f"the last {held} of {len(names)} by name validate"
    return _made(checked, names[:-held], names[-held:], rule)


def _by_list(checked: Checked, path: Path) -> Split:
    wanted = _lines(path)
    by_name = {pair.name: pair for pair in checked.pairs.pairs}
    names = sorted(by_name, key=natural)
    called = {name: wanted & _names_of(by_name[name]) for name in names}
    held = [name for name in names if called[name]]
    missing = sorted(wanted.difference(*called.values()))
    if missing or not held or len(held) == len(names):
        found = (
            f"names that are not in the data: {', '.join(map(shown, missing[:8]))}"
            if missing
            else "no name is left over"
        )
        raise DataError(
            Problem(found, shown(path), "names of some of the images, one a line", "correct the list", "L05")
        )
    train = [name for name in names if name not in held]
    return _made(checked, train, held, f"the {len(held)} names in {path.name} validate")


def _lines(path: Path) -> set[str]:
    """The lines of a text file in Unicode's composed form, as the names of pairs are."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark before the first name
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            Problem(
                "no folder and no text file",
                shown(path),
                "a folder with images and masks, or a list of names",
                "check --val",
            )
        ) from error
    return {unicodedata.normalize("NFC", line.strip()) for line in text.splitlines()} - {""}


def _names_of(pair: Pair) -> set[str]:
    """What a list may call a pair: `site1/a`, `site1/a.tif` or `a.tif`; any file name of a stack means all of it."""
    file = pair.image.path
    stem = pair.name if pair.image.page is None else pair.name.rpartition("#")[0]
    return {pair.name, f"{stem}{suffix_of(file)}", unicodedata.normalize("NFC", file.name)}


def _by_folder(checked: Checked, folder: Path, reading: Reading) -> Split:
    """Validation data of its own, checked like the training data and against its label map."""
    found = find_pairs(folder, reading=reading.elsewhere())
    _refuse_other_names(checked.pairs.stated.names, found.stated.names, folder)
    other = inspect(found, labels=checked.labels)
    _refuse_foreign(checked, other, folder)
    hashes, mask_hashes = _hashes(checked)
    pairs = {p.name: p for p in checked.pairs.pairs}
    names = []
    for pair, record in zip(other.pairs.pairs, other.records, strict=True):
        name = f"{folder.name}/{pair.name}"
        while name in pairs:
            name = f"val/{name}"
        names.append(name)
        pairs[name] = Pair(name, pair.image, pair.mask)
        hashes[name], mask_hashes[name] = record.sha256, record.mask_sha256
    train = tuple(sorted((r.name for r in checked.records), key=natural))
    warnings = (*other.warnings, *_class_warnings(checked.labels, checked.records, other.records))
    result = Split(train, tuple(names), f"{shown(folder)} validates", hashes, mask_hashes, pairs, warnings)
    blank = {name for name, record in zip(names, other.records, strict=True) if record.constant}
    return _without_leak(result, blank | {r.name for r in checked.records if r.constant})


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
        raise DataError(Problem(f"{second.kind} images", shown(folder), expected, "convert them", "D01"))


def _made(
    checked: Checked, train: list[str], val: list[str], rule: str, warnings: tuple[str, ...] = ()
) -> Split:
    hashes, mask_hashes = _hashes(checked)
    pairs = {pair.name: pair for pair in checked.pairs.pairs}
    records = {record.name: record for record in checked.records}
    sides = ([records[name] for name in names] for names in (train, val))
    warnings = (*warnings, *_class_warnings(checked.labels, *sides))
    result = Split(tuple(train), tuple(val), rule, hashes, mask_hashes, pairs, warnings)
    if train == val:
        return result
    return _without_leak(result, {record.name for record in checked.records if record.constant})


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
