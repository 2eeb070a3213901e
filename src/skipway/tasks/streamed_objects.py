"""Objects of a class map that is never held as a whole: the ids of `to_objects`, whatever blocks it comes in.

Each block is cut into connected pieces on its own; pieces that share an edge across two blocks are joined (union-find
on the faces of the blocks). An object is then a set of pieces; its area is the sum of theirs, and its place in scanning
order that of the first pixel of any of them. Gaps are closed window by window: whether a pixel is closed, and to
what, depends on the pixels that touch it, so a window needs one pixel more on each side.

Memory: 8 bytes for each piece, 38 while they are joined, and the faces of one row of blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.metrics.objects import components
from skipway.regions import Regions, Window
from skipway.tasks.objects import closed

Pieces = Callable[[int, slice], NDArray[np.int32]]
"""Pieces of a block, 1…n and 0 elsewhere: `pieces(number, rows)`, the rows of its first axis."""


class Joining:
    """Takes the pieces of each block, in any order, and joins them across the blocks.

    Args:
        regions: The blocks.
    """

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._first: dict[int, int] = {}
        self._areas: list[NDArray[np.uint32]] = []
        self._starts: list[NDArray[Any]] = []
        self._count = 0
        self._pairs: list[NDArray[np.int64]] = []
        self._faces: dict[tuple[int, int], NDArray[np.int64]] = {}

    def add(self, number: int, foreground: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The pieces of a block, to be kept for `Joined.read`.

        Args:
            number: Of the block.
            foreground: Its pixels, of the shape of its window.
        """
        pieces = components(foreground)
        window = self._regions.window(number)
        count = int(pieces.max(initial=0))
        flat = pieces.ravel()
        self._first[number] = self._count
        self._areas.append(np.bincount(flat, minlength=count + 1)[1:].astype(np.uint32))
        starts = _first_pixels(pieces, count, window, self._regions.size)
        self._starts.append(starts.astype(np.uint32) if prod(self._regions.size) < 2**32 else starts)
        self._meet(number, pieces)
        self._count += count
        return pieces

    def joined(self, min_area: int = 0, *, close: bool = False) -> "Joined":
        """The objects, when all blocks were added; see `to_objects` for the rules. Nothing else can be asked then.

        Few pieces meet one of another block, so that all others are counted where they are: there are millions.
        """
        meeting, groups = _groups(self._pairs)
        areas, starts = _joint(self._areas, np.uint32), _joint(self._starts, np.int64)
        kept = areas >= max(1, min_area)
        groups_first, stands = np.unique(groups, return_index=True)
        total = np.zeros(len(groups_first), np.int64)
        np.add.at(total, groups, areas[meeting])
        first = np.full(len(groups_first), np.iinfo(np.int64).max)
        np.minimum.at(first, groups, starts[meeting])
        stands = meeting[stands]
        kept[meeting] = False
        kept[stands] = total >= max(1, min_area)
        starts[stands] = first
        del areas
        which = np.flatnonzero(kept)
        starts = starts[which]
        which = which[np.argsort(starts, kind="stable")]
        ids = np.zeros(self._count, np.int32)
        ids[which] = np.arange(1, len(which) + 1, dtype=np.int32)
        ids[meeting] = ids[stands[groups]]
        return Joined(self._regions, dict(self._first), ids, len(which), close)

    def _meet(self, number: int, pieces: NDArray[np.int32]) -> None:
        """Pairs of pieces that share an edge with a block that was added before."""
        whole = np.where(pieces > 0, pieces.astype(np.int64) + self._count, 0)
        counts, place = self._regions.counts, _place(number, self._regions.counts)
        for axis in range(whole.ndim):
            for side, index in ((-1, 0), (1, -1)):
                other = [*place]
                other[axis] += side
                if not 0 <= other[axis] < counts[axis]:
                    continue
                border = (axis, _number(other if side < 0 else place, counts))
                face = whole.take(index, axis=axis)
                before = self._faces.pop(border, None)
                if before is None:
                    self._faces[border] = face.copy()
                    continue
                both = (face > 0) & (before > 0)
                if both.any():
                    self._pairs.append(np.unique(np.stack([face[both], before[both]], 1) - 1, axis=0))


@dataclass(frozen=True)
class Joined:
    """The objects of a class map, read window by window.

    Attributes:
        regions: The blocks.
        first: Of each block, the pieces of all blocks before it.
        ids: The object of each piece, 0 for one that is too small.
        count: Objects.
        close: Whether gaps are closed.
    """

    regions: Regions
    first: dict[int, int]
    ids: NDArray[np.int32]
    count: int
    close: bool

    @property
    def dtype(self) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
        """16 bits where the ids fit, else 32."""
        return np.dtype(np.uint16) if self.count < 2**16 else np.dtype(np.uint32)

    def read(self, window: Sequence[slice], pieces: Pieces) -> NDArray[np.int32]:
        """Ids of a window, as `to_objects` of the whole class map has them.

        Args:
            window: With starts and stops inside the image.
            pieces: Gives back what `Joining.add` made.
        """
        if not self.close:
            return self._plain(tuple(window), pieces)
        more = tuple(
            slice(max(0, part.start - 1), min(side, part.stop + 1))
            for part, side in zip(window, self.regions.size, strict=True)
        )
        inner = tuple(
            slice(part.start - wide.start, part.stop - wide.start)
            for part, wide in zip(window, more, strict=True)
        )
        return closed(self._plain(more, pieces))[inner]

    def _plain(self, window: Window, pieces: Pieces) -> NDArray[np.int32]:
        found = np.zeros([part.stop - part.start for part in window], np.int32)
        for number in self.regions.touching(window):
            block = self.regions.window(number)
            both = [
                slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, block, strict=True)
            ]
            there = [slice(o.start - b.start, o.stop - b.start) for o, b in zip(both, block, strict=True)]
            here = tuple(
                slice(o.start - w.start, o.stop - w.start) for o, w in zip(both, window, strict=True)
            )
            part = pieces(number, there[0])[(slice(None), *there[1:])]
            found[here] = self._named(number, part)
        return found

    def _named(self, number: int, part: NDArray[np.int32]) -> NDArray[np.int32]:
        named = np.zeros(part.shape, np.int32)
        there = part > 0
        named[there] = self.ids[part[there] - 1 + self.first[number]]
        return named


def _first_pixels(
    pieces: NDArray[np.int32], count: int, window: Window, size: Sequence[int]
) -> NDArray[np.int64]:
    """Place of the first pixel of each piece in the whole image, in scanning order."""
    flat = pieces.ravel()
    first = np.full(count + 1, pieces.size, np.int64)
    places = np.flatnonzero(flat)
    # Pieces are numbered in scanning order, so the last to write is the first to stand: go backwards.
    first[flat[places[::-1]]] = places[::-1]
    inside = np.unravel_index(first[1:], pieces.shape)
    found = np.zeros(count, np.int64)
    for index, part, side in zip(inside, window, size, strict=True):
        found = found * side + index + part.start
    return found


def _joint(parts: list[NDArray[Any]], empty: type[np.generic]) -> NDArray[Any]:
    """All of them in one, and none of them any more."""
    found = np.concatenate(parts) if parts else np.zeros(0, empty)
    parts.clear()
    return found


def _groups(pairs: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pieces that meet others, and for each of them the number of its group, 0 and up."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = _joint(pairs, np.int64).reshape(-1, 2)
    pieces, places = np.unique(edges, return_inverse=True)
    if not len(pieces):
        return pieces, pieces
    ends = places.reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), shape=(len(pieces),) * 2)
    return pieces, connected_components(graph, directed=False)[1].astype(np.int64)


def _place(number: int, counts: Sequence[int]) -> list[int]:
    places = []
    for count in reversed(counts):
        number, place = divmod(number, count)
        places.append(place)
    return places[::-1]


def _number(place: Sequence[int], counts: Sequence[int]) -> int:
    number = 0
    for at, count in zip(place, counts, strict=True):
        number = number * count + at
    return number
