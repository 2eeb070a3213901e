"""What an image looks like in a few numbers, to tell whether another is of the same kind.

They are taken from windows at fixed places, at most `WINDOWS` along an axis and `SIDE` pixels wide: the whole of an
image of up to 1024², and a part that does not grow with it of a larger one. The same code looks at the training images
and at those that are predicted.

    brightness c   median of channel c, in the values of the file
    contrast c     log2 of its scale, the difference of the percentiles that normalise it
    tone c         mean of the normalised values: how much of it is bright
    noise          log2 of the mean |second difference along both axes| / 6 of the normalised values
    sharpness      log2 of the mean |difference of neighbours| over that of pixels `FAR` apart
    share k        square root of the share of class k
    size           log2 of the mean length of runs of one class along rows and columns, background left out

Source: the mask of `noise` is that of Immerkær 1996, Fast noise variance estimation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.fingerprint import Constants, normalised

SIDE, WINDOWS = 256, 4
"""Pixels of a window along an axis, and windows along it."""

DEEP = 4
"""The same two along the slices of a volume: so many windows of one slice."""

FAR = 4
"""Pixels apart for the slow changes that sharpness is measured by."""

FAINT = 1e-4
"""Noise below this is none."""

Window = tuple[slice, ...]


def windows(size: Sequence[int]) -> Iterator[Window]:
    """Places to look at, spread evenly.

    >>> list(windows((100, 300)))
    [(slice(0, 100, None), slice(0, 150, None)), (slice(0, 100, None), slice(150, 300, None))]
    """
    axes = [_places(side, SIDE, WINDOWS) for side in size[-2:]]
    first = [_places(side, 1, DEEP) for side in size[:-2]]
    grids = np.meshgrid(*(np.arange(len(axis)) for axis in (*first, *axes)), indexing="ij")
    for place in zip(*(grid.ravel().tolist() for grid in grids), strict=True):
        yield tuple(axis[i] for axis, i in zip((*first, *axes), place, strict=True))


def _places(side: int, width: int, most: int) -> list[slice]:
    """Stretches of at most `width` pixels, each in the middle of an equal part."""
    count = min(most, -(-side // width))
    ends = [side * k // count for k in range(count + 1)]
    found = []
    for low, high in pairwise(ends):
        start = low + max(0, high - low - width) // 2
        found.append(slice(start, min(high, start + width)))
    return found


def looks(
    read: Callable[[Window], NDArray[Any]], size: Sequence[int], constants: Constants
) -> dict[str, float]:
    """Numbers of the grey values.

    Args:
        read: Pixels (C, *window) of a window.
        size: (*S) of the image.
        constants: (offset, scale) that normalise it, each (C,).

    Returns:
        By name; sharpness is left out of an image that is flat or too small.
    """
    offset, scale = constants
    middles: list[NDArray[np.floating]] = []
    sums = np.zeros((len(offset), 2))
    grain, near, far = np.zeros(2), np.zeros(2), np.zeros(2)
    for window in windows(size):
        pixels = read(window)
        middles.append(np.median(pixels.reshape(len(pixels), -1), axis=1))
        values = normalised(pixels, constants)
        sums += np.stack([values.reshape(len(values), -1).sum(1), np.full(len(values), values[0].size)], 1)
        grain += _mean(_second(_second(values, -1), -2))
        for axis in (-1, -2):
            near += _mean(_step(values, axis, 1))
            far += _mean(_step(values, axis, FAR))
    middle = np.median(middles, axis=0)
    found = {}
    for c in range(len(offset)):
        found[f"brightness {c + 1}"] = float(middle[c])
        found[f"contrast {c + 1}"] = math.log2(float(scale[c]))
        found[f"tone {c + 1}"] = float(sums[c, 0] / sums[c, 1])
    if grain[1]:
        found["noise"] = math.log2(max(grain[0] / grain[1] / 6, FAINT))
    if far[0] > 0 and near[0] > 0:
        found["sharpness"] = math.log2((near[0] / near[1]) / (far[0] / far[1]))
    return found


def _mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum of absolute values, and their number."""
    return np.array([np.abs(values).sum(dtype=np.float64), values.size])


def _step(values: NDArray[np.floating], axis: int, pixels: int) -> NDArray[np.floating]:
    values = np.moveaxis(values, axis, -1)
    return values[..., pixels:] - values[..., :-pixels]


def _second(values: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    values = np.moveaxis(values, axis, -1)
    return np.moveaxis(values[..., 2:] - 2 * values[..., 1:-1] + values[..., :-2], -1, axis)


def shares(counts: Sequence[float], pixels: float) -> dict[str, float]:
    """Numbers of the classes, from the pixels of each.

    >>> shares([25, 0], 100)
    {'share 1': 0.5, 'share 2': 0.0}
    """
    return {f"share {k}": math.sqrt(count / max(pixels, 1)) for k, count in enumerate(counts, start=1)}


def size_of(parts: Sequence[NDArray[np.integer]], background: int | None) -> dict[str, float]:
    """The number of the sizes, from class maps (*window); left out where there is nothing but background.

    >>> size_of([np.array([[0, 0, 0], [1, 1, 0]])], 0)  # one run of two pixels in the row, two of one in columns
    {'size': 0.415...}
    """
    pixels, runs = 0, 0
    for part in parts:
        inside = np.ones(part.shape, bool) if background is None else part != background
        for axis in (-1, -2):
            there, values = np.moveaxis(inside, axis, -1), np.moveaxis(part, axis, -1)
            starts = there.copy()
            starts[..., 1:] &= values[..., 1:] != values[..., :-1]
            pixels += int(there.sum())
            runs += int(starts.sum())
    return {"size": math.log2(pixels / runs)} if runs else {}
