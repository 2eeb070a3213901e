"""The label codec: the user's mask values on one side, class indices 0, 1, 2 … on the other.

One `LabelMap` is inferred from all masks at once, stored with the run, and used again at predict and
evaluate, so that whoever trained with {0, 255} gets {0, 255} back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.composites import MOST_SETS
from skipway.data.values import MaskValues, coding_problems, regions
from skipway.errors import DataError, Problem

GROUNDS = frozenset(("background", "bg", "none", "nothing", "other", "others", "rest", "empty"))
"""Names of a class 0 that is what is left over."""

IGNORE = 255
"""Class index of pixels about which nothing is known; the loss and the scores leave them out."""

MAX_CLASSES = 255

TASKS = ("classes", "objects", "multilabel")

UNKNOWN = -1
"""What `IGNORE` is where classes overlap: 255 is a set of eight of them there."""


TRAINED = "trained"
"""Key beside the label map in the `labels.json` of predictions: names of those whose images trained the network."""


@dataclass(frozen=True)
class LabelMap:
    """What the values of the user's masks mean.

    Attributes:
        task: "classes": a value is a class. "objects": a value, or a connected region, is one object.
            "multilabel": classes overlap, and a value is the set of those at a pixel.
        values: The user's value of class index 0, 1, …; for objects those of background and of inside; where
            classes overlap the bit of each of them, 1, 2, 4, …: a set is their sum, and 0 is none of them.
        names: One for each class.
        ids: Objects only: whether every value is one object; otherwise connected regions of one value are.
        palette: The user's colours ((r, g, b), …) by value, None without a palette.
        ignore: Value of pixels that carry no annotation.
    """

    task: str
    values: tuple[int, ...]
    names: tuple[str, ...]
    ids: bool = False
    palette: tuple[tuple[int, int, int], ...] | None = None
    ignore: int | None = None

    @property
    def overlapping(self) -> bool:
        """Whether a pixel may be of several classes."""
        return self.task == "multilabel"

    @property
    def background(self) -> int:
        """The user's value of pixels without any class or object."""
        return 0 if self.overlapping else self.values[0]

    @property
    def grounded(self) -> bool:
        """Whether class 0 is what is left over, not a class that somebody named, such as the sky of a street."""
        first = self.names[0].casefold()
        return not self.overlapping and (first in GROUNDS or first == unnamed(self.values[0]))

    @property
    def unknown(self) -> int:
        """What `encode` gives where nothing is annotated."""
        return UNKNOWN if self.overlapping else IGNORE

    def encode(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Class index of every pixel, or the set of its classes.

        Args:
            mask: The user's values, whole numbers, shape (*S).

        Returns:
            Indices, shape (*S); `IGNORE` where the mask holds the ignore value. For objects 0 and 1. Where
            classes overlap, Σ 2^k over the indices k of the classes there, in the smallest signed type, and
            `UNKNOWN` for the ignore value.

        Raises:
            DataError: a value that the training masks did not have.

        >>> LabelMap("classes", (0, 128, 255), ("none", "cell", "core")).encode(np.array([255, 0])).tolist()
        [2, 0]
        """
        mask = np.asarray(mask)
        if self.overlapping:
            return self._encode_sets(mask)
        if self.task == "objects":
            indices = (mask != self.values[0]).astype(np.uint8)
        else:
            known = np.asarray(self.values)
            indices = np.minimum(np.searchsorted(known, mask), len(known) - 1).astype(np.uint8)
            self._refuse_unknown(mask, known[indices] == mask)
        if self.ignore is not None:
            indices[mask == self.ignore] = IGNORE
        return indices

    def decode(self, indices: NDArray[Any]) -> NDArray[Any]:
        """The user's values of class indices or sets of them, in the smallest integer type that holds them all.

        Pixels of index `IGNORE`, or `UNKNOWN`, get the ignore value.

        >>> LabelMap("classes", (0, 255), ("nothing", "cell")).decode(np.array([0, 1], np.uint8)).tolist()
        [0, 255]
        """
        if self.overlapping:
            return self._decode_sets(np.asarray(indices))
        table = np.zeros(256, _smallest((*self.values, *(() if self.ignore is None else (self.ignore,)))))
        table[: len(self.values)] = self.values
        if self.ignore is not None:
            table[IGNORE] = self.ignore
        result: NDArray[Any] = table[np.asarray(indices)]
        return result

    def instances(self, mask: NDArray[Any]) -> NDArray[np.int32]:
        """Objects 1…n of a mask, 0 elsewhere and where nothing is annotated, shape (*S).

        Where values are ids, each value is one object; otherwise each connected region (pixels
        that share an edge) of one value is.
        """
        mask = np.asarray(mask)
        background = self.values[0]
        if self.ignore is not None:
            mask = np.where(mask == self.ignore, np.asarray(background, mask.dtype), mask)
        if not self.ids:
            return regions(mask, background, diagonals=False)  # as predicted objects are told apart
        known, numbers = np.unique(mask, return_inverse=True)
        order = np.cumsum(known != background) * (known != background)
        return order[numbers].reshape(mask.shape).astype(np.int32)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LabelMap":
        """A label map out of a run folder.

        Raises:
            DataError: a key is unknown or missing, or a value has another type.
        """
        try:
            palette = value.get("palette")
            colours = None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette)
            fields = {
                **value,
                "values": tuple(map(int, value["values"])),
                "names": tuple(map(str, value["names"])),
            }
            found = cls(**{**fields, "palette": colours})
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                Problem(f"the label map of the run is damaged ({error})", fix="train again")
            ) from error
        least = 1 if found.overlapping else 2
        bits = tuple(1 << k for k in range(min(len(found.values), MOST_SETS)))
        if (
            found.task not in TASKS
            or not least <= len(found.values) == len(found.names)
            or (found.overlapping and found.values != bits)
        ):
            raise DataError(Problem("the label map of the run is damaged", fix="train again"))
        return found

    def __str__(self) -> str:
        """One line for people: `classes {0 background, 255 foreground}`."""
        if self.task == "objects":
            how = "each value is one object" if self.ids else "connected regions are objects"
            text = f"objects ({how}, background {self.values[0]})"
        else:
            listed = ", ".join(f"{v} {n}" for v, n in zip(self.values, self.names, strict=True))
            text = f"{'overlapping ' if self.overlapping else ''}classes {{{listed}}}"
        return text if self.ignore is None else f"{text}, {self.ignore} is not annotated"

    def _encode_sets(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        every = sum(self.values)
        unsigned = mask.astype(np.uint64)  # a negative ignore value wraps, and is put right below
        self._refuse_unknown(mask, unsigned <= np.uint64(every))
        sets = (unsigned & np.uint64(every)).astype(_smallest((UNKNOWN, every)))
        if self.ignore is not None:
            sets[mask == self.ignore] = UNKNOWN
        return sets

    def _decode_sets(self, sets: NDArray[Any]) -> NDArray[Any]:
        ignored = () if self.ignore is None else (self.ignore,)
        values = sets.astype(_smallest((sum(self.values), *ignored)))
        if self.ignore is not None:
            values[sets < 0] = self.ignore
        return values

    def _refuse_unknown(self, mask: NDArray[Any], known: NDArray[np.bool_]) -> None:
        if self.ignore is not None:
            known = known | (mask == self.ignore)
        if known.all():
            return
        strange = np.unique(mask[~known])[:5].tolist()
        raise DataError(
            Problem(
                f"mask values {_listed(strange)} that the training masks did not have",
                expected=_listed(self.values),
                fix="use masks of the same coding, or train again with these among them",
                code="E01",
            )
        )


def has(sets: NDArray[Any], index: int) -> NDArray[np.bool_]:
    """Where class `index` is among the sets; nowhere where nothing is annotated.

    >>> has(np.array([0, 1, 6, UNKNOWN], np.int8), 1).tolist()
    [False, False, True, False]
    """
    known: NDArray[np.bool_] = sets >= 0
    return known & ((sets >> sets.dtype.type(index)) & sets.dtype.type(1)).astype(bool)


def infer_labels(
    masks: Mapping[str, MaskValues],
    task: str | None = None,
    ignore: int | None = None,
    *,
    names: Mapping[int, str] | None = None,
) -> LabelMap:
    """The label map that explains all masks of a data set.

    Without `task`, masks are read as objects when every value forms about one connected region and the values
    look like numbers given one after the other: they differ from file to file, or there are more than 20.
    Everything else is classes.

    Args:
        masks: File name to the values in it.
        task: "classes", "objects", "multilabel", or None to look.
        ignore: Value of pixels without annotation.
        names: What values, or the bits of overlapping classes, are called, where the data set says so.

    Raises:
        DataError: one value only, mixed codings, traces of JPEG or of smoothing, negative values, palettes
            that differ, 255 beside small class values and not declared, or too many classes.
    """
    if task == "multilabel":
        return _overlapping(masks, ignore, names or {})
    problems = coding_problems(masks, ignore)
    if problems:
        raise DataError(*problems)
    found = sorted(set().union(*(m.values for m in masks.values())) - {ignore})
    if len(found) < 2:
        raise DataError(
            Problem(
                f"{len(masks)} masks with one value only, {_listed(found)}",
                expected="at least two values, such as 0 and 255",
                fix="check that these are the masks, and that they were exported as labels",
                code="E20",
            )
        )
    background = 0 if 0 in found else found[0]
    if task is None:
        task = "objects" if _looks_like_objects(list(masks.values()), background, ignore) else "classes"
    if task == "objects":
        if len(found) > MAX_CLASSES and not _one_region_a_value(list(masks.values())):
            raise DataError(
                Problem(
                    f"{len(found)} different values, and most of them in many places",
                    next(iter(masks)),
                    "object numbers, each in one place, or a mask of few values",
                    "exchange the two folders if these are the images",
                    "E27",
                )
            )
        inside = found[1] if len(found) == 2 else 1
        several = len(found) > 2 and _one_region_a_value(list(masks.values()))
        called = ("background", "object")
        return LabelMap("objects", (background, inside), called, several, None, ignore)
    return _classes(masks, found, ignore, names or {})


def _overlapping(masks: Mapping[str, MaskValues], ignore: int | None, names: Mapping[int, str]) -> LabelMap:
    """A class for every bit that has a name, or without names for every bit up to the highest in use."""
    every = 0
    for name, mask in masks.items():
        sets = set(mask.values) - {ignore}
        if min(sets, default=0) < 0 or max(sets, default=0) >= 2**MOST_SETS:
            raise DataError(
                Problem(
                    f"value {min(sets) if min(sets) < 0 else max(sets)} in a mask of overlapping classes",
                    name,
                    f"sums of 1, 2, 4, … of at most {MOST_SETS} classes",
                    "one mask a class in folders of their own, or --task classes",
                    "E27",
                )
            )
        for value in sets:
            every |= value
    highest = max((bit.bit_length() for bit in names), default=every.bit_length())
    if not every or every.bit_length() > highest:
        found = f"a class {every.bit_length()}" if every else "masks without any class"
        expected = f"classes {', '.join(names.values())}" if names else "at least one pixel of one class"
        fix = "check that these are the masks, and that they were exported as labels"
        raise DataError(Problem(found, next(iter(masks), ""), expected, fix, "E20"))
    bits = tuple(1 << k for k in range(highest))
    called = tuple(names.get(bit, f"class {k}") for k, bit in enumerate(bits, start=1))
    return LabelMap("multilabel", bits, called, ignore=ignore)


def _classes(
    masks: Mapping[str, MaskValues], found: Sequence[int], ignore: int | None, said: Mapping[int, str]
) -> LabelMap:
    problems = _undeclared_ignore(masks, found, ignore)
    if len(found) > MAX_CLASSES:
        problems.append(
            Problem(
                f"{len(found)} different values in the masks",
                expected=f"at most {MAX_CLASSES} classes",
                fix="--task objects if they number objects; exchange the two folders if these are the images",
                code="E27",
            )
        )
    if problems:
        raise DataError(*problems)
    palette = next((m.palette for m in masks.values() if m.palette is not None), None)
    binary = len(found) == 2 and found[0] == 0
    names = tuple(
        said.get(value, "background" if value == 0 else "foreground" if binary else unnamed(value))
        for value in found
    )
    return LabelMap("classes", tuple(found), names, False, palette, ignore)


def unnamed(value: int) -> str:
    """What a class is called where nobody says."""
    return f"class {value}"


def _undeclared_ignore(
    masks: Mapping[str, MaskValues], found: Sequence[int], ignore: int | None
) -> list[Problem]:
    """255 beside small class numbers nearly always means "not annotated", but only the user can say so."""
    others = [value for value in found if value not in (0, 255)]
    if ignore is not None or 255 not in found or not others or max(others) > 50:
        return []
    where = [name for name, m in masks.items() if 255 in m.values]
    return [
        Problem(
            f"value 255 beside {_listed(sorted({0, *others}))} in {len(where)} of {len(masks)} masks",
            where[0],
            "classes without a gap, or 255 declared",
            f"--ignore 255 if it means not annotated; change it to {max(others) + 1} if it is a class",
            "E18",
        )
    ]


def _one_region_a_value(masks: Sequence[MaskValues]) -> bool:
    ids = sum(m.ids for m in masks)
    return ids > 0 and sum(m.regions for m in masks) <= 1.1 * ids


def _looks_like_objects(masks: Sequence[MaskValues], background: int, ignore: int | None) -> bool:
    sets = {frozenset(m.values) - {background, ignore} for m in masks}
    most = max(len(values) for values in sets)
    if most < 2 or not _one_region_a_value(masks):
        return False
    wide = any(m.bits > 8 for m in masks)
    return most > 20 or (len(sets) > 1 and (most >= 4 or wide))


def _smallest(values: Sequence[int]) -> type[np.integer[Any]]:
    """The smallest integer type that holds all of these."""
    low, high = min(values), max(values)
    types = (np.int8, np.int16, np.int32, np.int64) if low < 0 else (np.uint8, np.uint16, np.uint32)
    return next((t for t in types if np.iinfo(t).min <= low and high <= np.iinfo(t).max), np.uint64)


def _listed(values: Sequence[int], limit: int = 8) -> str:
    text = ", ".join(str(value) for value in values[:limit])
    return f"{{{text}{', …' if len(values) > limit else ''}}}"


__all__ = ["IGNORE", "TASKS", "UNKNOWN", "LabelMap", "MaskValues", "has", "infer_labels", "regions"]
