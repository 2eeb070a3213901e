"""Per-pixel loss weights of the 2015 U-Net: the gap between touching objects, and balanced classes.

The paper's weight is w(x) = w_c(x) + border term; `border_weights` is the second summand, `class_weights` the
first, and `separate_touching` the morphological step that leaves a line of background between neighbours.
"""

import functools
import math
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

REACH = math.sqrt(2 * 23 * math.log(2))
"""Distance in sigmas (5.65) at which exp(−d²/2) falls to 2^-23, the resolution of float32 next to 1."""

_SLOW = 2**25  # pixels to transform (about a second in scipy) from which loading numba pays for a single map
_FAR = np.int32(2**30)
_Windows = list[tuple[int, tuple[slice, ...]]]
_Ints = NDArray[np.int32]
_Reals = NDArray[np.float64]


def border_weights(
    instances: NDArray[np.integer],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    spacing: Sequence[float] = (),
    route: Literal["auto", "numba", "scipy"] = "auto",
) -> NDArray[np.float32]:
    """Weight that makes a network learn the gaps between touching objects.

    w(x) = w0 · exp(−(d1(x) + d2(x))² / (2 sigma²)) on background, with d1, d2 the distances to the nearest and
    second nearest object.

    Distances are Euclidean and exact, from pixel centre to the nearest pixel centre *of the object* (so 1 beside
    it; the paper's "distance to the border" may be read up to one pixel shorter). Where d1 + d2 exceeds
    `REACH` · sigma (28.2 px by default) the weight would be below w0 · 2^-23 and is written as 0.

    Args:
        instances: Object map, 0 is background, every other value one object. Shape (*S), 1-D to 3-D (scipy: any).
        w0: Height on a vanishing gap, no unit.
        sigma: Fall-off, in the unit of `spacing` (pixels when that is empty).
        spacing: Size of a pixel along each axis; empty means 1.
        route: How the distances are found; the result is the same. `numba` compiles one pass over the pixels,
            `scipy` transforms a window around each object. `auto` takes numba where it is installed and either
            loaded already or quicker than scipy even with its start (a second, ten when it first compiles).

    Returns:
        Weights of shape (*S), float32; 0 inside objects and wherever fewer than two objects exist. Add class
        weights yourself.

    Raises:
        TypeError: `instances` is not an integer array.
        ValueError: `sigma` or a spacing is not positive, or `spacing` does not fit the axes.

    Source: Ronneberger et al. 2015, eq. 2 (the paper's w_c is `class_weights`).

    >>> border_weights(np.array([1, 0, 2])).round(1).tolist()
    [0.0, 9.2, 0.0]
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"border_weights: sigma is {sigma}; it must be positive")
    total = two_nearest(instances, REACH * sigma, spacing=spacing, route=route)
    total /= sigma
    np.square(total, out=total)
    total *= -0.5
    np.exp(total, out=total)
    total *= w0
    total[np.asarray(instances) != 0] = 0.0
    return total.astype(np.float32)


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
        Sums of shape (*S), float64; infinite beyond `reach`. Inside objects the value is unspecified.

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
    if route == "numba" or (route == "auto" and labels.ndim <= 3 and "numba" in sys.modules):
        return _by_numba(labels, reach, units)
    windows = _windows(labels, reach, units)
    by_windows, by_bits = _area(windows), labels.size * (1 + 2 * count.bit_length())
    if route == "auto" and labels.ndim <= 3 and min(by_windows, by_bits) > _SLOW and find_spec("numba"):
        return _by_numba(labels, reach, units)
    if by_bits < by_windows:  # objects in scattered pieces: the window of each is most of the image
        total = _by_bits(labels, count, units)
    else:
        total = _by_windows(labels, windows, units)
    total[total > reach] = np.inf
    return total


def class_weights(
    labels: NDArray[np.integer], classes: int, *, ignore: int | None = 255
) -> NDArray[np.float32]:
    """Weight of each class that makes all classes count alike: the paper's w_c, one number a class.

    w_c = N / (K · n_c), with n_c the pixels of class c, N their sum and K the number of classes present.

    So every class present carries the same total weight N / K, and the mean weight of a pixel is 1 (the paper
    leaves the scale open). The map is `class_weights(labels, classes)[labels]`; for a data set pass the counts of
    all its masks to `balance`.

    Args:
        labels: Class indices of shape (*S).
        classes: Number of classes.
        ignore: Value that is not counted.

    Returns:
        Weights of shape (classes,), float32; 0 for a class that does not occur.

    Raises:
        ValueError: A value is neither a class nor `ignore`.

    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
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

    >>> balance([300, 100, 0]).round(3).tolist()
    [0.667, 2.0, 0.0]
    """
    n = np.asarray(counts, np.float64)
    share = n * np.count_nonzero(n)
    return np.divide(n.sum(), share, out=np.zeros_like(n), where=share > 0).astype(np.float32)


def separate_touching(instances: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Foreground mask with a line of background, one pixel wide, between objects that touch.

    Where two objects meet (edges and corners alike) the larger one gives up its pixel, so small objects survive
    and the result does not depend on how objects are numbered, except between objects of equal size (there the
    lower number gives way). Pixels that touch no other object stay as they are.

    Args:
        instances: Object map, 0 is background. Shape (*S).

    Returns:
        Mask of shape (*S); no two of its 8-connected (3-D: 26-connected) components hold two objects at once.

    Source: Ronneberger et al. 2015, section 3 ("the separation border is computed using morphological operations").

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


# --- object maps and the choice of the route ---------------------------------------------------------------------


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


def _windows(labels: NDArray[np.int32], reach: float, units: tuple[float, ...]) -> _Windows:
    """Each object's number and the box outside of which it cannot belong to a pair within `reach`.

    The nearest object is at least one pixel away, so the second one is looked for up to `reach` minus that.
    """
    grow = [max(0, math.floor((reach - min(units)) / unit)) for unit in units]

    def grown(box: tuple[slice, ...]) -> tuple[slice, ...]:
        sides = zip(box, grow, labels.shape, strict=True)
        return tuple(slice(max(0, side.start - g), min(n, side.stop + g)) for side, g, n in sides)

    found = enumerate(ndimage.find_objects(labels), 1)
    return [(number, grown(box)) for number, box in found if box is not None]


def _area(windows: _Windows) -> int:
    return sum(math.prod(s.stop - s.start for s in window) for _, window in windows)


# --- scipy: a distance transform in the window of each object ----------------------------------------------------


def _by_windows(
    labels: NDArray[np.int32], windows: _Windows, units: tuple[float, ...]
) -> NDArray[np.float64]:
    """Running two minima of the squared distances, object by object; nothing of the size objects × pixels."""
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


def _by_bits(labels: NDArray[np.int32], count: int, units: tuple[float, ...]) -> NDArray[np.float64]:
    """Whole-image transforms, two for each binary digit of the object numbers, whatever the shape of the objects.

    Any other object than the nearest one differs from it in some digit, so d2 is the least, over the digits, of
    the distances to all objects with the opposite digit.
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
        own = np.arange(objects.shape[axis], dtype=np.int32).reshape(
            [-1 if a == axis else 1 for a in range(objects.ndim)]
        )
        step = (nearest - own).astype(np.float64)
        if unit != 1:
            step *= unit
        squares += np.square(step, out=step)
    return squares


# --- numba: two nearest labels, one axis after the other ---------------------------------------------------------
#
# The two nearest objects of a pixel, seen along one axis, are always among the two nearest of the pixels of that
# line as seen along the axes before: whoever is beaten twice there is beaten twice here. So three passes suffice:
# a scan forth and back along the first axis, then a search to both sides along each further axis, ended as soon as
# nothing within reach can come. The functions below are plain Python, compiled by `_compiled`.


def _by_numba(labels: _Ints, reach: float, units: tuple[float, ...]) -> _Reals:
    if labels.ndim > 3:
        raise ValueError(f"the numba route takes up to 3 axes, not {labels.ndim}; use route='scipy'")
    shape = {1: (1, 1, -1), 2: (labels.shape[0], 1, -1), 3: labels.shape}[labels.ndim]
    steps = {1: (1.0, 1.0, *units), 2: (units[0], 1.0, units[-1]), 3: units}[labels.ndim]
    scan, search = _compiled()
    volume = labels.reshape(shape)
    return search(volume, *scan(volume), np.array(steps), float(reach)).reshape(labels.shape)


@functools.cache
def _compiled() -> tuple[Callable[..., tuple[_Ints, ...]], Callable[..., _Reals]]:
    """The two kernels, compiled once a process and kept on disk beside this file."""
    import numba
    from numba.extending import register_jitable

    register_jitable(_nearer)
    register_jitable(_search_line)
    compiler = numba.njit(cache=True, nogil=True)
    return compiler(_scan), compiler(_search)


def _nearer(a: float, la: int, b: float, lb: int, d: float, new: int) -> tuple[float, int, float, int]:
    """Two nearest distinct labels (a of la, b of lb) after one more candidate, d of `new`."""
    if new == la:
        return min(a, d), la, b, lb
    if d < a:
        return d, new, a, la
    if d < b:
        return a, la, d, new
    return a, la, b, lb


def _scan(labels: _Ints) -> tuple[_Ints, _Ints, _Ints, _Ints]:
    """Steps to the two nearest labels along the first axis, and those labels: a, la, b, lb."""
    depth, height, width = labels.shape
    a, b = np.full(labels.shape, _FAR), np.full(labels.shape, _FAR)
    la, lb = np.zeros(labels.shape, np.int32), np.zeros(labels.shape, np.int32)
    for turn in range(2):
        for step in range(depth):
            z = depth - 1 - step if turn else step
            z0 = z + 1 if turn else z - 1
            for y in range(height):
                for x in range(width):
                    s, ls, t, lt = a[z, y, x], la[z, y, x], b[z, y, x], lb[z, y, x]
                    if turn == 0 and labels[z, y, x] != 0:
                        s, ls = np.int32(0), labels[z, y, x]
                    if step > 0:
                        s, ls, t, lt = _nearer(s, ls, t, lt, a[z0, y, x] + np.int32(1), la[z0, y, x])
                        s, ls, t, lt = _nearer(s, ls, t, lt, b[z0, y, x] + np.int32(1), lb[z0, y, x])
                    a[z, y, x], la[z, y, x], b[z, y, x], lb[z, y, x] = s, ls, t, lt
    return a, la, b, lb


def _search_line(
    seen: tuple[_Reals, _Ints, _Reals, _Ints],
    done: _Ints,
    unit: float,
    reach: float,
    limit: float,
    found: tuple[_Reals, _Ints, _Reals, _Ints],
) -> None:
    """Two nearest labels of each pixel of a line, from the squared distances that its pixels have `seen` so far.

    Pixels where `done` is not 0 are left out. A nearest label beyond `limit` is not needed: in the last pass that
    is half of `reach`, because d1 is the smaller part of d1 + d2.
    """
    p, lp, q, lq = seen
    a_found, la_found, b_found, lb_found = found
    n = len(p)
    for x in range(n):
        a, la, b, lb = reach * reach, np.int32(0), reach * reach, np.int32(0)
        if done[x] == 0:
            for step in range(max(x + 1, n - x)):
                along = step * unit
                square = along * along
                if square >= b or (
                    along > limit and a > (reach - along) ** 2
                ):  # nothing of use is that far away
                    break
                if x >= step:
                    a, la, b, lb = _nearer(a, la, b, lb, p[x - step] + square, lp[x - step])
                    a, la, b, lb = _nearer(a, la, b, lb, q[x - step] + square, lq[x - step])
                if x + step < n:
                    a, la, b, lb = _nearer(a, la, b, lb, p[x + step] + square, lp[x + step])
                    a, la, b, lb = _nearer(a, la, b, lb, q[x + step] + square, lq[x + step])
        a_found[x], la_found[x], b_found[x], lb_found[x] = a, la, b, lb


def _search(labels: _Ints, a: _Ints, la: _Ints, b: _Ints, lb: _Ints, units: _Reals, reach: float) -> _Reals:
    """d1 + d2 out of the scan along the first axis; infinite beyond `reach`."""
    depth, height, width = labels.shape
    longest = max(height, width)
    total = np.full(labels.shape, np.inf)
    line = (np.empty(longest), np.empty(longest, np.int32), np.empty(longest), np.empty(longest, np.int32))
    everywhere = np.zeros(height, np.int32)
    for z in range(depth):
        p, q = (a[z] * units[0]) ** 2, (b[z] * units[0]) ** 2
        lp, lq = la[z].copy(), lb[z].copy()
        if height > 1:
            for x in range(width):
                seen = (p[:, x], lp[:, x], q[:, x], lq[:, x])
                _search_line(seen, everywhere, units[1], reach, reach, line)
                p[:, x], lp[:, x], q[:, x], lq[:, x] = (
                    line[0][:height],
                    line[1][:height],
                    line[2][:height],
                    line[3][:height],
                )
        for y in range(height):
            seen_in_row = (p[y], lp[y], q[y], lq[y])
            _search_line(seen_in_row, labels[z, y], units[2], reach, reach / 2, line)
            for x in range(width):
                d = math.sqrt(line[0][x]) + math.sqrt(line[2][x])
                if line[3][x] != 0 and d <= reach:
                    total[z, y, x] = d
    return total
