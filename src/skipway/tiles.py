"""Cuts an image of any size into tiles that, put side by side, equal one pass over the whole image.

Three rules make a grid of tiles exact, for a network whose output depends on a bounded neighbourhood:

1. tiles start on multiples of the largest stride: every pooling window covers the same pixels as in one pass;
2. a tile reads at least as far as the network looks around the pixels it keeps, and keeps nothing beyond;
3. at the border of the image a tile ends where one pass ends: zero padding falls on the same pixels.

"The whole image" is defined as follows, and so every size has an output of the same size.

*Same padding*: the image is extended at its end (bottom, right) by mirroring, up to a multiple of the stride.
*Valid padding*: it is extended by the margin on every side, and at its end up to the next legal size.

In both cases the output is cropped to the image. Mirroring leaves out the edge pixel (c b | a b c | b a) and
goes back and forth as often as needed, so that a margin of 92 around a single pixel is possible.

Source: overlap-tile of Ronneberger et al. 2015, section 2. The output of 388 drawn there is no multiple
of 16: stepping by it shifts the pooling windows between tiles, so steps are rounded down here (to 384).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from math import prod

import numpy as np

from skipway.shapes import Geometry


@dataclass(frozen=True)
class Tile:
    """One read, one run of the network, one write.

    Attributes:
        region: Input pixels of the tile along each axis, in image coordinates; those outside the image are
            mirrored.
        write: Pixels of the image that this tile decides.
        crop: Where they lie in the network's output for this tile.
        size: Size of the image, one number an axis.
    """

    region: tuple[range, ...]
    write: tuple[slice, ...]
    crop: tuple[slice, ...]
    size: tuple[int, ...]

    @property
    def pad(self) -> tuple[tuple[int, int], ...]:
        """Mirrored pixels before and after the image's own, along each axis."""
        sides = zip(self.region, self.size, strict=True)
        return tuple((max(0, -r.start), max(0, r.stop - side)) for r, side in sides)

    @property
    def read(self) -> tuple[slice, ...]:
        """The smallest window of the image that holds every pixel needed, mirrored ones included."""
        return tuple(_bounds(r, side) for r, side in zip(self.region, self.size, strict=True))

    def take(self, pixels: np.ndarray) -> np.ndarray:
        """The network's input: the window `read`, mirrored where the tile reaches beyond the image.

        Args:
            pixels: The pixels of `read`, shape (C, *window).

        Returns:
            Array of shape (C, *region); `pixels` itself, not a copy, where nothing is mirrored.
        """
        for axis, (r, side) in enumerate(zip(self.region, self.size, strict=True), start=1):
            if r.start < 0 or r.stop > side:
                index = mirror_index(r, side)
                pixels = pixels.take(index - index.min(), axis=axis)
        return pixels


def mirror_index(region: range, side: int) -> np.ndarray:
    """Pixel that stands at each place of `region` when an axis of `side` pixels is mirrored without end.

    With period p = 2 (side - 1): i = x mod p, and p - i beyond the last pixel. A single pixel is repeated.

    >>> mirror_index(range(-3, 6), 4).tolist()
    [3, 2, 1, 0, 1, 2, 3, 2, 1]
    >>> mirror_index(range(-2, 3), 1).tolist()
    [0, 0, 0, 0, 0]
    """
    if side == 1:
        return np.zeros(len(region), np.intp)
    period = 2 * (side - 1)
    index = np.arange(region.start, region.stop, dtype=np.intp) % period
    return np.minimum(index, period - index)


def round_tile(tile: int | Sequence[int], geometry: Geometry) -> tuple[int, ...]:
    """Step between tiles along each axis: `tile` rounded down to a multiple of the stride, at least one.

    Args:
        tile: Wanted side of the region one tile decides (its core, without the context it reads), in pixels.
        geometry: Of the network.

    Raises:
        ValueError: Sides that are no positive numbers, or not one for each axis.
    """
    sides = (tile,) * geometry.ndim if isinstance(tile, int) else tuple(tile)
    if len(sides) != geometry.ndim or min(sides) < 1:
        raise ValueError(f"a tile needs {geometry.ndim} sides of at least 1 pixel, found {sides}")
    return tuple(max(s, side // s * s) for side, s in zip(sides, geometry.stride, strict=True))


def default_tile(
    geometry: Geometry, size: Sequence[int] | None = None, *, pixel_bytes: int = 768, memory: int = 2 << 30
) -> tuple[int, ...]:
    """The largest tile of up to 512 pixels a side whose pass through the network stays within `memory`.

    A larger tile computes fewer pixels twice, a smaller one needs less memory; beyond 512 there is little
    left to gain. A tile is no less than half its halo, even if that takes more memory: a smaller one would be
    nearly all context and save little. Deep networks of volumes meet this bound.

    Args:
        geometry: Of the network.
        size: Of the image; no pass reads more than that.
        pixel_bytes: Bytes that an input pixel takes at the peak of a pass, all maps alive then together.
        memory: Bytes that a pass may take.
    """
    sides = list(
        zip(geometry.halo, geometry.margin, geometry.stride, size or [1 << 30] * geometry.ndim, strict=True)
    )

    def cost(core: int) -> int:
        reads = (min(core + 2 * (m + _context(h, m, s)), _up(n + 2 * m, s)) for h, m, s, n in sides)
        return prod(reads) * pixel_bytes

    least = max(max(geometry.halo) // 2, 1)
    return round_tile(next((core for core in range(512, least, -8) if cost(core) <= memory), least), geometry)


def plan_tiles(size: Sequence[int], tile: int | Sequence[int], geometry: Geometry) -> Iterator[Tile]:
    """Tiles in reading order; their `write` regions cover every pixel of the image exactly once.

    Args:
        size: Size of the image, one number ≥ 1 an axis.
        tile: Largest core of a tile; rounded by `round_tile`. A tile at the border of the image needs no
            context there, so it decides that much more: an image that fits into one read is one tile.
        geometry: Of the network.
    """
    axes = _axes(size, geometry)
    steps = round_tile(tile, geometry)
    for spans in product(*(axis.spans(step) for axis, step in zip(axes, steps, strict=True))):
        yield _tile(spans, size)


def tile_around(
    size: Sequence[int], window: Sequence[slice], geometry: Geometry, *, extra: int | Sequence[int] = 0
) -> Tile:
    """One tile that decides `window` and reads `extra` pixels more context than it needs.

    The window may start anywhere; what is read starts on a multiple of the stride. With the whole image as
    its window it is the one pass that every plan is equal to.

    Args:
        size: Size of the image.
        window: Pixels to decide.
        geometry: Of the network.
        extra: Context in addition to the network's, rounded up to a multiple of the stride.
    """
    more = (extra,) * geometry.ndim if isinstance(extra, int) else tuple(extra)
    axes = _axes(size, geometry)
    spans = [
        a.span(w.start, w.stop, a.context + _up(e, a.stride))
        for a, w, e in zip(axes, window, more, strict=True)
    ]
    return _tile(spans, size)


def seams(size: Sequence[int], tile: int | Sequence[int], geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    """First pixels of all tiles but the first, along each axis."""
    steps = round_tile(tile, geometry)
    axes = zip(_axes(size, geometry), steps, strict=True)
    return tuple(tuple(s.write.start for s in axis.spans(step)[1:]) for axis, step in axes)


def count_tiles(size: Sequence[int], tile: int | Sequence[int], geometry: Geometry) -> int:
    """Number of tiles that `plan_tiles` gives."""
    return prod(len(cuts) + 1 for cuts in seams(size, tile, geometry))


def redundancy(size: Sequence[int], tile: int | Sequence[int], geometry: Geometry) -> float:
    """Pixels the network computes over pixels of the image."""
    axes = zip(_axes(size, geometry), round_tile(tile, geometry), strict=True)
    return prod(sum(len(span.region) for span in axis.spans(step)) for axis, step in axes) / prod(size)


@dataclass(frozen=True)
class _Span:
    """A tile along one axis."""

    region: range
    write: slice
    crop: slice


@dataclass(frozen=True)
class _Axis:
    """One axis of an image under one network.

    Attributes:
        side: Pixels of the image.
        stride: Pixels between places where a tile's input may start.
        margin: Pixels that valid convolutions consume on either side.
        context: Pixels to read beyond those, up to a cut, so that the cut is out of sight.
        legal: Smallest side the network takes that is at least as long.
    """

    side: int
    stride: int
    margin: int
    context: int
    legal: Callable[[int], int]

    @property
    def end(self) -> int:
        """Where one pass over the whole image stops reading; it starts at -margin."""
        return self.legal(self.side + 2 * self.margin) - self.margin

    def span(self, start: int, stop: int, context: int) -> _Span:
        """The tile that decides start…stop, reading no further than one pass over the whole image would."""
        origin = start // self.stride * self.stride - self.margin
        reach = origin + self.legal(stop - origin + self.margin)
        first = max(-self.margin, origin - context)
        crop = start - self.margin - first
        region = range(first, min(self.end, reach + context))
        return _Span(region, slice(start, stop), slice(crop, crop + stop - start))

    def spans(self, step: int) -> list[_Span]:
        """As few tiles as reads of at most step + 2 contexts allow, all about equally long.

        A tile at the border needs no context there and decides that much more. Equal lengths cost no more
        pixels than full ones with a rest, need less memory, and no small rest makes torch switch kernels.
        """
        inner = max(1, self.side - 2 * self.context)
        tiles = -(-inner // step)
        step = _up(-(-inner // tiles), self.stride)
        stops = [*range(step + self.context, self.side - self.context, step), self.side]
        return [self.span(start, stop, self.context) for start, stop in pairwise([0, *stops])]


def _axes(size: Sequence[int], geometry: Geometry) -> list[_Axis]:
    if len(size) != geometry.ndim or min(size) < 1:
        raise ValueError(f"an image needs {geometry.ndim} sides of at least 1 pixel, found {tuple(size)}")
    sides = zip(size, geometry.stride, geometry.margin, geometry.halo, strict=True)
    return [
        _Axis(n, s, m, _context(h, m, s), partial(_legal, geometry, i))
        for i, (n, s, m, h) in enumerate(sides)
    ]


def _legal(geometry: Geometry, axis: int, side: int) -> int:
    """`next_legal` of one axis alone."""
    return geometry.next_legal((side,) * geometry.ndim)[axis]


def _context(halo: int, margin: int, stride: int) -> int:
    """Pixels to read beyond those that valid convolutions consume.

    With same padding that is the halo. A valid network consumes all it sees and needs nothing more, unless
    it interpolates at the edges of its maps: then the halo exceeds the margin by a stride or more.
    """
    return 0 if halo <= _up(margin, stride) else _up(halo - margin, stride)


def _up(pixels: int, stride: int) -> int:
    return -(-pixels // stride) * stride


def _bounds(region: range, side: int) -> slice:
    """Smallest window of an axis that holds all sources of `region`."""
    if region.start >= 0 and region.stop <= side:
        return slice(region.start, region.stop)
    index = mirror_index(region, side)
    return slice(int(index.min()), int(index.max()) + 1)


def _tile(spans: Sequence[_Span], size: Sequence[int]) -> Tile:
    return Tile(
        tuple(s.region for s in spans),
        tuple(s.write for s in spans),
        tuple(s.crop for s in spans),
        tuple(size),
    )
