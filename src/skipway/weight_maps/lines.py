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
    register_jitable(_search_line)
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
    seen: _Line,
    done: _Ints,
    unit: float,
    reach: float,
    limit: float,
    found: _Line,
) -> None:
    """Two nearest labels of each pixel of a line, from the squared distances its pixels have `seen` so far.

    Pixels where `done` is not 0 are left out. A nearest label beyond `limit` is not needed: in the last pass
    that is half of `reach`, because d1 is the smaller part of d1 + d2.
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
