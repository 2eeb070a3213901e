"""The values of one mask, and what a set of masks gives away about damage and mixed codings."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import Problem

_DARK, _BRIGHT = 32, 223

_CROWD = 8
"""Values that no other mask holds from which a mask is called smeared."""


@dataclass(frozen=True)
class MaskValues:
    """Which values a mask holds, and how they lie.

    Attributes:
        values: Ascending.
        counts: Pixels of each value.
        bits: Bits a pixel in the file.
        ids: Values other than background and the ignored one.
        regions: Connected regions of equal value other than these.
        touching: Objects that touch another one.
        median_area: Pixels of the median region, 0 without any.
        palette: Colours of a palette file by value.
        objects: Regions of each value, in the order of `values`.
        areas: Pixels of the regions, their 5 %, 50 % and 95 % percentiles; empty without any.
    """

    values: tuple[int, ...]
    counts: tuple[int, ...] = field(repr=False)
    bits: int = 8
    ids: int = 0
    regions: int = 0
    touching: int = 0
    median_area: float = 0.0
    palette: tuple[tuple[int, int, int], ...] | None = field(default=None, repr=False)
    objects: tuple[int, ...] = field(default=(), repr=False)
    areas: tuple[float, ...] = ()

    def count(self, value: int) -> int:
        """Pixels with this value."""
        return sum(c for v, c in zip(self.values, self.counts, strict=True) if v == value)

    def share(self, value: int) -> float:
        """Share of the pixels with this value, in [0, 1]."""
        total = sum(self.counts)
        return self.count(value) / total if total else 0.0


def summarise(
    mask: NDArray[Any], bits: int = 8, palette: NDArray[Any] | None = None, *, ignore: int | None = None
) -> MaskValues:
    """The values of one mask.

    Objects are told apart as `LabelMap.instances` does: pixels of one value that share an edge. What is said of
    regions (`ids`, `regions`, `touching`, `median_area`) is that of the upper left 4096 × 4096 pixels, which
    bounds the memory.

    Args:
        mask: Whole numbers, shape (H, W).
        bits: Bits a pixel in the file.
        palette: (N, 3) colours of a palette file.
        ignore: Value of pixels without annotation, which are no object.
    """
    values, counts = counted(mask)
    labelled = values[values != ignore] if ignore is not None else values
    background = 0 if 0 in labelled or not len(labelled) else int(labelled[0])
    part = mask[:4096, :4096]
    if ignore is not None and len(labelled) < len(values):
        part = np.where(part == ignore, np.asarray(background, part.dtype), part)
    numbered = regions(part, background, diagonals=False)
    areas = np.bincount(numbered.ravel())[1:]
    colours = None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette)
    inside, _ = counted(part)
    return MaskValues(
        tuple(values.tolist()),
        tuple(counts.tolist()),
        bits,
        int(np.count_nonzero(inside != background)),
        len(areas),
        _touching(numbered),
        float(np.median(areas)) if len(areas) else 0.0,
        colours,
        _regions_by_value(part, numbered, values),
        tuple(np.percentile(areas, (5, 50, 95)).tolist()) if len(areas) else (),
    )


def _regions_by_value(
    part: NDArray[Any], numbered: NDArray[np.int32], values: NDArray[Any]
) -> tuple[int, ...]:
    owner = np.zeros(int(numbered.max(initial=0)) + 1, part.dtype)
    owner[numbered.ravel()] = part.ravel()
    return tuple(np.bincount(np.searchsorted(values, owner[1:]), minlength=len(values)).tolist())


def regions(mask: NDArray[Any], background: int = 0, *, diagonals: bool = True) -> NDArray[np.int32]:
    """Connected regions of equal value numbered 1…n, `background` is 0; pixels that share a corner connect or not."""
    from skimage.measure import label  # slow to import

    numbers = mask.astype(np.int64, copy=False)
    return np.asarray(
        label(numbers, background=background, connectivity=mask.ndim if diagonals else 1), np.int32
    )


def counted(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Values in ascending order and how often each occurs."""
    if mask.dtype.kind == "u" and mask.dtype.itemsize <= 2:
        counts = np.bincount(mask.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(mask, return_counts=True)


def seams(mask: NDArray[Any], values: tuple[int, ...]) -> tuple[int, ...]:
    """Values that lie, one pixel wide, between lower and higher ones nearly everywhere they occur.

    >>> seams(np.repeat([[0, 0, 0, 2, 3, 3, 3]], 5, axis=0), (0, 2, 3))
    (2,)
    """
    if not 3 <= len(values) <= 16:  # numbered objects have no order
        return ()
    from scipy import ndimage

    part = mask[:4096, :4096]
    lowest, highest = ndimage.minimum_filter(part, 3), ndimage.maximum_filter(part, 3)
    found = []
    for value in values[1:-1]:
        here = part == value
        between = np.count_nonzero(here & (lowest < value) & (highest > value))
        if between and between >= 0.75 * np.count_nonzero(here):
            found.append(int(value))
    return tuple(found)


def _touching(numbered: NDArray[np.int32]) -> int:
    """Objects with another object next to them (four directions)."""
    found = [
        numbers[(first != second) & (first > 0) & (second > 0)]
        for first, second in ((numbered[1:], numbered[:-1]), (numbered[:, 1:], numbered[:, :-1]))
        for numbers in (first, second)
    ]
    return len(np.unique(np.concatenate(found)))


def coding_problems(
    masks: Mapping[str, MaskValues], ignore: int | None, known: Collection[int] = ()
) -> list[Problem]:
    """Everything that makes the values of these masks untrustworthy, file by file.

    Args:
        masks: File name to the values in it.
        ignore: Value of pixels without annotation.
        known: Values whose meaning is known: those of the label map that these masks must fit.
    """
    problems = []
    smeared = {name for name, mask in masks.items() if _smeared(mask)} | _crowded(masks)
    for name, mask in masks.items():
        if mask.values[0] < 0 and (ignore is None or any(v < 0 and v != ignore for v in mask.values)):
            problems.append(
                Problem(
                    f"negative mask value {mask.values[0]}",
                    name,
                    "values from 0 upwards",
                    f"--ignore {mask.values[0]} if it means not annotated",
                    "E16",
                )
            )
        elif name in smeared:
            problems.append(
                Problem(
                    f"{len(mask.values)} values smeared between {mask.values[0]} and {mask.values[-1]}",
                    name,
                    "a few label values",
                    "the mask went through JPEG or smooth resizing: export it again, or threshold it",
                    "E11",
                )
            )
    if problems:
        return problems
    return [*_mixed_binary(masks, {*known, ignore}), *_different_palettes(masks)]


def _smeared(mask: MaskValues) -> bool:
    """A binary mask after JPEG (noise around 0 and around 255) or smooth resizing (rare values between)."""
    values, counts = np.asarray(mask.values), np.asarray(mask.counts)
    if len(values) < 5 or values[0] < 0 or values[-1] > 255:
        return False
    share = counts / counts.sum()
    dark, bright, ends = values <= _DARK, values >= _BRIGHT, (values <= 4) | (values >= 251)
    noise = np.any(dark & (values > 0)) and np.any(bright & (values < 255))
    piled = all(share[half & ends].sum() > 0.5 * share[half].sum() > 0 for half in (dark, bright))
    jpeg = noise and piled and share[dark | bright].sum() > 0.6 and mask.regions > 1.1 * mask.ids
    white = share[-1] if values[-1] == 255 else 0.0
    smooth = len(values) >= 8 and values[0] == 0 and share[0] + white > 0.8 and white > 0.5 * (1 - share[0])
    return bool(jpeg or smooth)


def _crowded(masks: Mapping[str, MaskValues]) -> set[str]:
    """Few masks of many values, each in many places and in no other mask, where most masks hold a handful."""
    usual = median(len(mask.values) for mask in masks.values()) if masks else 0
    crowd = {
        name: mask
        for name, mask in masks.items()
        if len(mask.values) > max(_CROWD, 2 * usual) and mask.regions > 2 * mask.ids  # no object numbers
    }
    if 2 * len(crowd) >= len(masks):
        return set()
    others = {value for name, mask in masks.items() if name not in crowd for value in mask.values}
    return {name for name, mask in crowd.items() if len({*mask.values} - others) > max(_CROWD, 2 * usual)}


def _mixed_binary(masks: Mapping[str, MaskValues], known: Collection[int | None]) -> list[Problem]:
    """{0, 1} in some files and {0, 255} in others, no file with both, and nobody said what 255 means."""
    found = set().union(*(m.values for m in masks.values()))
    if found - {0, 1, 255} or not {1, 255} <= found or 255 in known:
        return []
    ones = [name for name, m in masks.items() if 1 in m.values]
    full = [name for name, m in masks.items() if 255 in m.values]
    if set(ones) & set(full):
        return []
    return [
        Problem(
            f"{{0, 1}} in {len(ones)} mask{'s' if len(ones) > 1 else ''} ({_some(ones)}) "
            f"and {{0, 255}} in {len(full)} ({_some(full)})",
            expected="one coding for all masks",
            fix="multiply the masks of 0 and 1 by 255",
            code="E01",
        )
    ]


def _different_palettes(masks: Mapping[str, MaskValues]) -> list[Problem]:
    """The same number with another colour means that somebody counted the classes differently."""
    colours: dict[int, dict[tuple[int, int, int], str]] = {}
    for name, mask in masks.items():
        for value in mask.values:
            if mask.palette is not None and 0 <= value < len(mask.palette):
                colours.setdefault(value, {}).setdefault(mask.palette[value], name)
    return [
        Problem(
            f"value {value} is coloured {', '.join(f'{c} in {n}' for c, n in list(seen.items())[:3])}",
            expected="one palette for all masks",
            fix="export all masks with the same class list",
            code="E05",
        )
        for value, seen in sorted(colours.items())
        if len(seen) > 1
    ]


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
