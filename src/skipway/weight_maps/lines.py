"""The two nearest objects of every pixel in one pass an axis, compiled by numba, in 1-D to 3-D.

The two nearest objects of a pixel, seen along one axis, are always among the two nearest of the pixels of
that line as seen along the axes before: whoever is beaten twice there is beaten twice here. So a scan
forth and back along the first axis and a search to both sides along each further one suffice, and each
search ends as soon as nothing within reach can come. The kernels are plain Python; `_compiled` hands them
to numba.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FAR = np.int32(2**30)
_Ints = NDArray[np.int32]
_Reals = NDArray[np.float64]
_Line = tuple[_Reals, _Ints, _Reals, _Ints]


def two_nearest(labels: _Ints, reach: float, units: tuple[float, ...]) -> _Reals:
    """d1 + d2 of every background pixel, infinite beyond `reach`; one thread, 40 bytes a pixel at most."""
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
    register_jitable(_nearer_sum)
    register_jitable(_search_line)
    register_jitable(_sum_line)
    compiler = numba.njit(cache=True, nogil=True)
    return compiler(_scan), compiler(_search)


def _nearer(a: Any, la: Any, b: Any, lb: Any, d: Any, new: Any) -> tuple[Any, Any, Any, Any]:
    """Two nearest distinct labels (a of la, b of lb) after one more candidate, d of `new`."""
    if new == la:
        return min(a, d), la, b, lb
    if d < a:
        return d, new, a, la
    if d < b:
        return a, la, d, new
    return a, la, b, lb


def _nearer_sum(a: Any, la: Any, b: Any, d: Any, new: Any) -> tuple[Any, Any, Any]:
    """The same where only the nearest one's label is of interest."""
    if new == la:
        return min(a, d), la, b
    if d < a:
        return d, new, a
    return a, la, min(b, d)


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


def _search_line(seen: _Line, unit: float, reach: float, found: _Line) -> None:
    """Two nearest labels of each pixel of a line, from the squared distances along the axes before."""
    p, lp, q, lq = seen
    a_found, la_found, b_found, lb_found = found
    n = len(p)
    for x in range(n):
        a, la, b, lb = reach * reach, np.int32(0), reach * reach, np.int32(0)
        for step in range(max(x + 1, n - x)):
            square = (step * unit) ** 2
            if square >= b:
                break
            if x >= step:
                a, la, b, lb = _nearer(a, la, b, lb, p[x - step] + square, lp[x - step])
                a, la, b, lb = _nearer(a, la, b, lb, q[x - step] + square, lq[x - step])
            if x + step < n:
                a, la, b, lb = _nearer(a, la, b, lb, p[x + step] + square, lp[x + step])
                a, la, b, lb = _nearer(a, la, b, lb, q[x + step] + square, lq[x + step])
        a_found[x], la_found[x], b_found[x], lb_found[x] = a, la, b, lb


def _sum_line(seen: _Line, objects: _Ints, unit: float, reach: float, total: _Reals) -> None:
    """The last search: d1 + d2 of each background pixel of a line, infinite beyond `reach`.

    Half of `reach` is as far as the nearest label may be, because d1 is the smaller part of d1 + d2; so is
    any second one that the nearest leaves no room for. Both end the search, and its label need not be known.
    `seen` is `pad` pixels longer on either side, so that no step leaves it.
    """
    p, lp, q, lq = seen
    n = len(objects)
    pad = (len(p) - n) // 2
    for x in range(n):
        total[x] = np.inf
        if objects[x] != 0:
            continue
        a, la, b = reach * reach, np.int32(0), reach * reach
        for step in range(pad + 1):
            along = step * unit
            square, rest = along * along, reach - along
            if square >= b or (along > rest and a > rest * rest):  # nothing of use is that far away
                break
            for i in (
                np.uint32(x + pad - step),
                np.uint32(x + pad + step),
            ):  # unsigned: not counted from the end
                a, la, b = _nearer_sum(a, la, b, p[i] + square, lp[i])
                a, la, b = _nearer_sum(a, la, b, q[i] + square, lq[i])
        if b < reach * reach and math.sqrt(a) + math.sqrt(b) <= reach:
            total[x] = math.sqrt(a) + math.sqrt(b)


def _search(labels: _Ints, a: _Ints, la: _Ints, b: _Ints, lb: _Ints, units: _Reals, reach: float) -> _Reals:
    """d1 + d2 out of the scan along the first axis; infinite beyond `reach`."""
    depth, height, width = labels.shape
    pad = min(width, int(reach / units[2]) + 1)
    total = np.empty(labels.shape)
    shape = (height, width + 2 * pad)
    p, q = np.full(shape, np.inf), np.full(shape, np.inf)
    lp, lq = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    column = (np.empty(height), np.empty(height, np.int32), np.empty(height), np.empty(height, np.int32))
    inner = slice(pad, pad + width)
    for z in range(depth):
        p[:, inner], q[:, inner] = (a[z] * units[0]) ** 2, (b[z] * units[0]) ** 2
        lp[:, inner], lq[:, inner] = la[z], lb[z]
        if height > 1:
            for x in range(pad, pad + width):
                _search_line((p[:, x], lp[:, x], q[:, x], lq[:, x]), units[1], reach, column)
                p[:, x], lp[:, x], q[:, x], lq[:, x] = column
        for y in range(height):
            _sum_line((p[y], lp[y], q[y], lq[y]), labels[z, y], units[2], reach, total[z, y])
    return total
