"""The two nearest objects of every pixel by distance transforms of scipy, in 2-D, 3-D or more."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Windows = list[tuple[int, tuple[slice, ...]]]
"""Number of an object and the box of pixels that it can matter to."""


def around_objects(labels: NDArray[np.int32], reach: float, units: tuple[float, ...]) -> Windows:
    """Each object's number and the box outside of which it cannot belong to a pair within `reach`.

    The nearest object is at least one pixel away, so the second one is looked for up to `reach` minus that.
    """
    grow = [max(0, math.floor((reach - min(units)) / unit)) for unit in units]

    def grown(box: tuple[slice, ...]) -> tuple[slice, ...]:
        sides = zip(box, grow, labels.shape, strict=True)
        return tuple(slice(max(0, side.start - g), min(n, side.stop + g)) for side, g, n in sides)

    found = enumerate(ndimage.find_objects(labels), 1)
    return [(number, grown(box)) for number, box in found if box is not None]


def area(windows: Windows) -> int:
    """Pixels that `two_nearest` transforms."""
    return sum(math.prod(s.stop - s.start for s in window) for _, window in windows)


def two_nearest(labels: NDArray[np.int32], windows: Windows, units: tuple[float, ...]) -> NDArray[np.float64]:
    """d1 + d2 by a distance transform in the window of each object, keeping the two least squares.

    Nothing is as large as objects × pixels. Right where the sum is within the reach of the windows, else
    too large.
    """
    first = np.full(labels.shape, np.inf)
    second = first.copy()
    for number, window in windows:
        squares = _squared_distance(labels[window] == number, units)
        a, b = first[window], second[window]
        np.minimum(b, np.maximum(a, squares), out=b)
        np.minimum(a, squares, out=a)
    np.sqrt(first, out=first)
    first += np.sqrt(second, out=second)
    return first


def area_by_digits(labels: NDArray[np.int32], count: int) -> int:
    """Pixels that `two_nearest_by_digits` transforms."""
    return labels.size * (1 + 2 * count.bit_length())


def two_nearest_by_digits(
    labels: NDArray[np.int32], count: int, units: tuple[float, ...]
) -> NDArray[np.float64]:
    """d1 + d2 by whole-image transforms, two a binary digit of the object numbers, whatever their shape.

    Any other object than the nearest one differs from it in some digit, so d2 is the least, over the
    digits, of the distances to all objects with the opposite digit.
    """
    index = ndimage.distance_transform_edt(labels == 0, units, return_distances=False, return_indices=True)
    nearest = labels[tuple(index)]
    del index
    first, second = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
    for digit in range(count.bit_length()):
        for value in (0, 1):
            objects = (labels > 0) & ((labels >> digit) & 1 == value)
            if not objects.any():
                continue
            squares = _squared_distance(objects, units)
            np.minimum(first, squares, out=first)
            np.minimum(second, squares, out=second, where=(nearest >> digit) & 1 != value)
    return np.sqrt(first) + np.sqrt(second)


def _squared_distance(objects: NDArray[np.bool_], units: tuple[float, ...]) -> NDArray[np.float64]:
    """Squared distance of each pixel to the nearest true one: exact integers where the units are integers."""
    index = ndimage.distance_transform_edt(~objects, units, return_distances=False, return_indices=True)
    squares = np.zeros(objects.shape)
    for axis, (unit, nearest) in enumerate(zip(units, index, strict=True)):
        own = np.arange(objects.shape[axis], dtype=np.int32)
        step = (np.moveaxis(nearest, axis, -1) - own).astype(np.float64)
        if unit != 1:
            step *= unit
        np.moveaxis(squares, axis, -1)[...] += np.square(step, out=step)
    return squares
