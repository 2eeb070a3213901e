"""Per-pixel loss weights of the 2015 U-Net: the gap between touching objects, and balanced classes.

The paper's weight is w(x) = w_c(x) + border term; `border_weights` is the second summand, `class_weights` the
first, and `separate_touching` the morphological step that leaves a line of background between neighbours.
"""

import math
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skipway.weight_maps import lines, windows

REACH = math.sqrt(2 * 23 * math.log(2))
"""Distance in sigmas (5.65) at which exp(−d²/2) falls to 2^-23, the resolution of float32 next to 1."""

_SLOW = 2**25  # pixels to transform (about a second in scipy) from which loading numba pays for a single map


def border_weights(
    instances: NDArray[np.integer],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    spacing: Sequence[float] = (),
    route: Literal["auto", "numba", "scipy"] = "auto",
) -> NDArray[np.float32]:
    """Weight that makes a network learn the gaps between touching objects.

    w(x) = w0 · exp(−(d1(x) + d2(x))² / (2 sigma²)) on background, with d1, d2 the distances to the nearest
    and second nearest object.

    Distances are Euclidean and exact, from pixel centre to the nearest pixel centre *of the object* (so 1
    beside it; the paper's "distance to the border" may be read up to one pixel shorter). Where d1 + d2
    exceeds `REACH` · sigma (28.2 px by default) the weight would be below w0 · 2^-23 and is written as 0.

    Args:
        instances: Object map, 0 is background, every other value one object. Shape (*S), 1-D to 3-D
            (scipy: any).
        w0: Height on a vanishing gap, no unit.
        sigma: Fall-off, in the unit of `spacing` (pixels when that is empty).
        spacing: Size of a pixel along each axis; empty means 1.
        route: How the distances are found; the result is the same. `numba` compiles one pass over the pixels,
            `scipy` transforms a window around each object. `auto` takes numba where it is installed and
            either loaded already or quicker than scipy even with its start (a second, ten when it first
            compiles).

    Returns:
        Weights of shape (*S), float32; 0 inside objects and wherever fewer than two objects exist. Add class
        weights yourself.

    Raises:
        TypeError: `instances` is not an integer array.
        ValueError: `sigma` or a spacing is not positive, or `spacing` does not fit the axes.

    Source: Ronneberger et al. 2015, eq. 2 (the paper's w_c is `class_weights`).

    >>> border_weights(np.array([1, 0, 2])).tolist()
    [0.0, 9.231163024902344, 0.0]
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"border_weights: sigma is {sigma}; it must be positive")
    total = two_nearest(instances, REACH * sigma, spacing=spacing, route=route).ravel()
    near = np.flatnonzero(total < np.inf)  # often a small part of the map
    weights = np.zeros(np.shape(instances), np.float32)
    weights.ravel()[near] = w0 * np.exp(-0.5 * np.square(total[near] / sigma))
    return weights


def two_nearest(
    instances: NDArray[np.integer],
    reach: float,
    *,
    spacing: Sequence[float] = (),
    route: Literal["auto", "numba", "scipy"] = "auto",
) -> NDArray[np.float64]:
    """d1 + d2: the distances to the nearest and the second nearest object, added.

    Args:
        instances: Object map, 0 is background. Shape (*S).
        reach: Sums above this are not needed; they are returned as infinity. Unit of `spacing`.
        spacing: Size of a pixel along each axis; empty means 1.
        route: As in `border_weights`.

    Returns:
        Sums of shape (*S), float64; infinite beyond `reach` and inside objects.

    Raises:
        TypeError: `instances` is not an integer array.
        ValueError: A spacing is not positive or does not fit the axes.
    """
    instances = np.asarray(instances)
    if not np.issubdtype(instances.dtype, np.integer):
        raise TypeError(
            f"border weights need an integer object map, not {instances.dtype}; number the objects first"
        )
    units = tuple(float(s) for s in spacing) or (1.0,) * instances.ndim
    if len(units) != instances.ndim or not all(0 < u < math.inf for u in units):
        raise ValueError(
            f"spacing {tuple(spacing)} does not fit a map of {instances.ndim} axes; give one per axis"
        )
    labels, count = _compact(instances)
    if count < 2:
        return np.full(labels.shape, np.inf)
    compiles = route == "auto" and labels.ndim <= 3
    if route == "numba" or (compiles and "numba" in sys.modules):
        return lines.two_nearest(labels, reach, units)
    boxes = windows.around_objects(labels, reach, units)
    by_windows, by_digits = windows.area(boxes), windows.area_by_digits(labels, count)
    if compiles and min(by_windows, by_digits) > _SLOW and find_spec("numba"):
        return lines.two_nearest(labels, reach, units)
    if by_windows <= by_digits:
        total = windows.two_nearest(labels, boxes, units)
    else:  # objects in scattered pieces: the box of each is most of the image
        total = windows.two_nearest_by_digits(labels, count, units)
    total[(total > reach) | (labels != 0)] = np.inf
    return total


def class_weights(
    labels: NDArray[np.integer], classes: int, *, ignore: int | None = 255
) -> NDArray[np.float32]:
    """Weight of each class that makes all classes count alike: the paper's w_c, one number a class.

    w_c = N / (K · n_c), with n_c the pixels of class c, N their sum and K the number of classes present.

    So every class present carries the same total weight N / K, and the mean weight of a pixel is 1 (the paper
    leaves the scale open). The map is `class_weights(labels, classes)[labels]`; for a data set pass the
    counts of all its masks to `balance`.

    Args:
        labels: Class indices of shape (*S).
        classes: Number of classes.
        ignore: Value that is not counted.

    Returns:
        Weights of shape (classes,), float32; 0 for a class that does not occur.

    Raises:
        ValueError: A value is neither a class nor `ignore`.

    >>> class_weights(np.array([0, 0, 0, 0, 1]), 2).tolist()
    [0.625, 2.5]
    """
    values = np.asarray(labels).ravel()
    values = values if ignore is None else values[values != ignore]
    if values.size and not (values.min() >= 0 and values.max() < classes):
        raise ValueError(
            f"labels hold {values.min()}..{values.max()}; {classes} classes are 0..{classes - 1}"
        )
    return balance(np.bincount(values, minlength=classes))


def balance(counts: ArrayLike) -> NDArray[np.float32]:
    """Class weights N / (K · n_c) out of pixel counts n_c; 0 where a class does not occur.

    >>> balance([400, 100, 0]).tolist()
    [0.625, 2.5, 0.0]
    """
    n = np.asarray(counts, np.float64)
    share = n * np.count_nonzero(n)
    return np.divide(n.sum(), share, out=np.zeros_like(n), where=share > 0).astype(np.float32)


def separate_touching(instances: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Foreground mask with a line of background, one pixel wide, between objects that touch.

    Where two objects meet (edges and corners alike) the larger one gives up its pixel, so small objects
    survive and the result does not depend on how objects are numbered, except between objects of equal
    size (there the lower number gives way). Pixels that touch no other object stay as they are.

    Args:
        instances: Object map, 0 is background. Shape (*S).

    Returns:
        Mask of shape (*S); no two of its 8-connected (3-D: 26-connected) components hold two objects at once.

    Source: Ronneberger et al. 2015, section 3 ("the separation border is computed using morphological
    operations").

    >>> separate_touching(np.array([[1, 1, 1, 2, 2]])).astype(int).tolist()
    [[1, 1, 0, 1, 1]]
    """
    labels, count = _compact(np.asarray(instances))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    order = np.lexsort(
        (np.arange(1, len(sizes)), -sizes[1:])
    )  # largest first; the later a rank, the longer it stays
    rank = np.zeros(len(sizes), np.int32)
    rank[1 + order] = np.arange(1, len(sizes))
    ranks = rank[labels]
    return (ranks > 0) & (ndimage.maximum_filter(ranks, size=3, mode="nearest") == ranks)


def _compact(instances: NDArray[np.integer]) -> tuple[NDArray[np.int32], int]:
    """Object map with ids small enough to index by, and how large they get (0: no object)."""
    if instances.size == 0:
        return instances.astype(np.int32), 0
    low, high = int(instances.min()), int(instances.max())
    if low >= 0 and high <= max(instances.size, 2**16):
        return np.ascontiguousarray(instances, np.int32), high
    values, inverse = np.unique(instances, return_inverse=True)
    number = np.arange(len(values), dtype=np.int32)
    if 0 in values:
        zero = int(np.searchsorted(values, 0))
        number = np.where(number > zero, number, number + 1).astype(np.int32)
        number[zero] = 0
    else:
        number += 1
    return number[inverse].reshape(instances.shape), int(number.max())
