"""The region list: an output cut into blocks that are made, kept, lost and made again each on its own.

A region is a block of the output, aligned with the blocks it is stored in. Its labels depend on the input and on the
list alone, so that any order, any process and any machine give the same bits. A list is four plain numbers an axis: it
can be written down, split into parts, and sent anywhere.

A region that is larger than one pass of the network is made of several passes, cut evenly; see `passes`. Or regions
are whole rows, and a stretch of them is made in one flow of strips; see `strip_list`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, product
from math import prod
from typing import Any

from skipway.shapes import Geometry
from skipway.tiles import Tile, tile_around

Window = tuple[slice, ...]

REACH = 64
"""How many times longer than the halo a stretch of strips is: what is computed twice is a 32nd part."""


@dataclass(frozen=True)
class Regions:
    """The regions of one page or volume, numbered in reading order.

    Attributes:
        size: Of the output, one number an axis.
        block: Of a region; those at the end of an axis are what is left.
        step: Largest side of one pass of the network inside a region, or of a strip.
        stretch: Regions that are made in one flow of strips, which begins anew with the next; 0 where passes make them.

    >>> regions = Regions((5, 4), (3, 4), (3, 4))
    >>> [regions.window(number) for number in regions]
    [(slice(0, 3, None), slice(0, 4, None)), (slice(3, 5, None), slice(0, 4, None))]
    """

    size: tuple[int, ...]
    block: tuple[int, ...]
    step: tuple[int, ...]
    stretch: int = 0

    def __post_init__(self) -> None:
        sides = (self.size, self.block, self.step)
        if len({len(side) for side in sides}) != 1 or any(min(side) < 1 for side in sides):
            raise ValueError(f"regions need as many sides of at least 1 pixel each, found {sides}")

    @property
    def counts(self) -> tuple[int, ...]:
        """Regions along each axis."""
        return tuple(-(-side // block) for side, block in zip(self.size, self.block, strict=True))

    def __len__(self) -> int:
        return prod(self.counts)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def window(self, number: int) -> Window:
        """Pixels of a region."""
        if not 0 <= number < len(self):
            raise IndexError(f"region {number} of {len(self)}")
        places = []
        for count in reversed(self.counts):
            number, place = divmod(number, count)
            places.append(place)
        axes = zip(reversed(places), self.block, self.size, strict=True)
        return tuple(slice(place * block, min((place + 1) * block, side)) for place, block, side in axes)

    def touching(self, window: Window) -> Iterator[int]:
        """Numbers of the regions that share a pixel with a window, in reading order.

        >>> list(Regions((5, 4), (3, 2), (3, 2)).touching((slice(2, 4), slice(0, 1))))
        [0, 2]
        """
        if any(part.start >= part.stop for part in window):
            return
        spans = [
            range(part.start // block, -(-part.stop // block))
            for part, block in zip(window, self.block, strict=True)
        ]
        for places in product(*spans):
            number = 0
            for place, count in zip(places, self.counts, strict=True):
                number = number * count + place
            yield number

    def passes(self, number: int, geometry: Geometry) -> list[Tile]:
        """The passes of the network that make a region, in reading order; their `write` regions cover it once.

        Args:
            number: Of the region.
            geometry: Of the network.
        """
        axes = zip(self.window(number), self.step, geometry.stride, strict=True)
        pieces = product(*(_pieces(part, step, stride) for part, step, stride in axes))
        return [tile_around(self.size, window, geometry) for window in pieces]

    def cuts(self, geometry: Geometry) -> tuple[tuple[int, ...], ...]:
        """First pixels of all passes or strips but the first, along each axis."""
        if self.stretch:
            return (tuple(range(self.step[0], self.size[0], self.step[0])), *((),) * (len(self.size) - 1))
        found = []
        for side, block, step, stride in zip(self.size, self.block, self.step, geometry.stride, strict=True):
            blocks = (slice(at, min(at + block, side)) for at in range(0, side, block))
            starts = (piece.start for part in blocks for piece in _pieces(part, step, stride))
            found.append(tuple(starts)[1:])
        return tuple(found)

    def computed(self, geometry: Geometry) -> float:
        """Pixels that the network computes over pixels of the image."""
        redundant = 1.0
        for axis, cuts in enumerate(self._begun(geometry)):
            bounds = (0, *cuts, self.size[axis])
            middle = [slice(0, 1)] * len(self.size)
            pixels = 0
            for start, stop in pairwise(bounds):
                middle[axis] = slice(start, stop)
                pixels += len(tile_around(self.size, middle, geometry).region[axis])
            redundant *= pixels / self.size[axis]
        return redundant

    def _begun(self, geometry: Geometry) -> tuple[tuple[int, ...], ...]:
        """Pixels but the first from which on all that is needed around is computed anew."""
        if not self.stretch:
            return self.cuts(geometry)
        rows = self.stretch * self.block[0]
        return (tuple(range(rows, self.size[0], rows)), *((),) * (len(self.size) - 1))

    def flows(self, numbers: Sequence[int]) -> list[tuple[slice, list[int]]]:
        """Regions by the stretch that they are made in, and the rows of that.

        >>> Regions((9, 5), (2, 5), (1, 5), stretch=2).flows([1, 2, 4])
        [(slice(0, 4, None), [1]), (slice(4, 8, None), [2]), (slice(8, 9, None), [4])]
        """
        rows = self.stretch * self.block[0]
        return [
            (slice(place * rows, min((place + 1) * rows, self.size[0])), list(some))
            for place, some in groupby(numbers, lambda number: number // self.stretch)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain lists of numbers."""
        sides = {"size": [*self.size], "block": [*self.block], "step": [*self.step]}
        return {**sides, "stretch": self.stretch}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Regions":
        """A list that was written down.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        size, block, step = (tuple(int(n) for n in value[key]) for key in ("size", "block", "step"))
        return cls(size, block, step, int(value["stretch"]))


def region_list(size: Sequence[int], step: Sequence[int], chunk: Sequence[int]) -> Regions:
    """The regions of an output, each of whole chunks and about as large as one pass.

    Args:
        size: Of the output.
        step: Largest side of one pass.
        chunk: Of what is stored at once, such as the tile of a TIFF; 1 where nothing binds.

    >>> region_list((5000, 300), (700, 700), (512, 512)).block, region_list((5000, 300), (64, 64), (512, 512)).block
    ((512, 512), (512, 512))
    """
    pairs = zip(step, chunk, strict=True)
    block = tuple(max(part, side // part * part) for side, part in pairs)
    return Regions(tuple(size), block, tuple(min(s, b) for s, b in zip(step, block, strict=True)))


def strip_list(size: Sequence[int], rows: int, chunk: int, halo: int) -> Regions:
    """The regions of an output that is made in strips: whole rows, about as many as are stored at once.

    A stretch of them begins with what the network looks at before it, so that it does not depend on the one before:
    any of them can be made again, anywhere, to the same bits.

    Args:
        size: Of the output.
        rows: Of a strip.
        chunk: Rows of what is stored at once.
        halo: Of the network along the first axis.

    >>> strip_list((9000, 300), 32, 512, 96)
    Regions(size=(9000, 300), block=(512, 300), step=(32, 300), stretch=12)
    """
    block, rest = strip_block(rows, chunk), tuple(size[1:])
    return Regions(tuple(size), (block, *rest), (rows, *rest), max(1, -(-REACH * halo // block)))


def strip_block(rows: int, chunk: int) -> int:
    """Rows of a region made of strips: as many whole strips as fit what is stored at once, or one.

    >>> strip_block(48, 512), strip_block(600, 512)
    (480, 600)
    """
    return max(rows, chunk // rows * rows)


def _pieces(part: slice, step: int, stride: int) -> list[slice]:
    """A stretch cut into as few pieces as `step` allows, all about equally long, at multiples of the stride."""
    longest = max(stride, step // stride * stride)
    length = part.stop - part.start
    each = -(-length // -(-length // longest))
    each = -(-each // stride) * stride
    return [slice(at, min(at + each, part.stop)) for at in range(part.start, part.stop, each)]
