"""Predicts an image of any length in strips: every pixel is computed once, and equals one pass over the whole image.

Tiles compute the pixels around their cores again; strips keep them. The image flows through the network along one
axis (see `skipway.nn.strips`), so memory grows with the other axes and not with this one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from skipway.nn.strips import most_bytes, stream
from skipway.nn.tape import Tape, record
from skipway.predict.logits import Outputs
from skipway.predict.pixels import Pixels
from skipway.shapes import Geometry
from skipway.tiles import Tile, mirror_index, tile_around

T = TypeVar("T")

PIXELS = 2**17
"""Pixels of a strip: 32 rows of 4096. Fewer take less memory, and more time for what is done once a strip."""

SLAB = 4
"""Planes of a slab at least: each convolution copies two more."""

LONGER = 2
"""How many times longer than the first axis another one must be to be the one along which the image flows: rows
are what most files can be read by."""


@dataclass(frozen=True)
class Strips:
    """How an image goes through a network in strips; made by `plan_strips`.

    Attributes:
        tape: The network's calls along the axis.
        axis: Axis in space along which the image flows.
        rows: Rows of a strip along it.
        ahead: Per output, its rows before the first of the last output.
        whole: The one pass that the strips are equal to: over the image, or over a stretch of its rows.
    """

    tape: Tape
    axis: int
    rows: int
    ahead: tuple[int, ...]
    whole: Tile

    @property
    def size(self) -> tuple[int, ...]:
        """Size of a strip, one number an axis."""
        return tuple(self.rows if i == self.axis else side for i, side in enumerate(self._decided))

    @property
    def count(self) -> int:
        """Number of strips."""
        return -(-self._decided[self.axis] // self.rows)

    @property
    def bytes(self) -> int:
        """Bytes of maps that are alive at once, at most; kernels need some more."""
        return most_bytes(self.tape, self.rows, self.ahead)

    @property
    def redundancy(self) -> float:
        """Pixels the network computes over pixels it decides: what is mirrored at the end of the image."""
        return prod(len(region) for region in self.whole.region) / prod(self._decided)

    @property
    def _decided(self) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in self.whole.write)

    def run(
        self, pixels: Pixels, prepare: Callable[[np.ndarray], Tensor]
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], tuple[Tensor, ...]]]:
        """Compute the outputs.

        Args:
            pixels: The image; each of its rows is read once.
            prepare: From pixels (C, *S) to what the network sees, (1, C, *S).

        Yields:
            The region that is decided, where it lies in the last output, and these rows of each output.
        """
        source = _Source(pixels, self.whole, self.axis)
        begin = self.whole.write[self.axis].start
        for first, outputs in stream(
            self.tape,
            lambda start, stop: prepare(source.read(start, stop)),
            self.rows,
            length_in=len(self.whole.region[self.axis]),
            length_out=self._decided[self.axis],
            ahead=self.ahead,
        ):
            rows = outputs[-1].shape[2 + self.axis]
            write = _set(self.whole.write, self.axis, slice(begin + first, begin + first + rows))
            yield write, _set(self.whole.crop, self.axis, slice(0, rows)), outputs


def plan_strips(
    model: nn.Module,
    size: Sequence[int],
    *,
    outputs: Outputs = "last",
    rows: int | Sequence[int] | None = None,
    axis: int | None = None,
    stretch: slice | None = None,
) -> Strips:
    """Strips for an image of a size.

    Args:
        model: Network with a `geometry`, in evaluation mode.
        size: Of the image, one number ≥ 1 an axis.
        outputs: Which outputs are wanted; what only others need is not computed.
        rows: Rows of a strip, once or one number an axis; unless given, as many as make `PIXELS` pixels.
        axis: Along which the image flows; unless given, the first, or the longest if it is `LONGER` times as long.
        stretch: Rows along that axis that are wanted; what is needed around them is computed, and forgotten.

    Raises:
        NotInRows: The network is not local, or calls what is not known to be.
    """
    geometry: Geometry = model.geometry  # type: ignore[assignment]
    along = _axis(size) if axis is None else axis
    every = tuple(slice(0, side) for side in size)
    whole = tile_around(size, every if stretch is None else _set(every, along, stretch), geometry)
    last = outputs == "last"
    margins = [margin[along] for margin in geometry.margins.values()]
    before = geometry.margin[along] + whole.crop[along].start
    ahead = tuple(before - margin for margin in (margins[-1:] if last else margins))
    tape = record(model, geometry, along, size=[len(region) for region in whole.region], last=last)
    plane = prod(len(region) for i, region in enumerate(whole.region) if i != along)
    wanted = _rows(plane, geometry, along) if rows is None else rows if isinstance(rows, int) else rows[along]
    return Strips(tape, along, max(1, min(wanted, size[along])), ahead, whole)


def _axis(size: Sequence[int]) -> int:
    longest = max(range(len(size)), key=lambda axis: size[axis])
    return longest if size[longest] > LONGER * size[0] else 0


def _rows(plane: int, geometry: Geometry, axis: int) -> int:
    """Rows of a strip; whole strides if it has that many, so that all strips have the same work."""
    rows, stride = max(1 if geometry.ndim < 3 else SLAB, PIXELS // plane), geometry.stride[axis]
    return rows if rows < stride else rows // stride * stride


@dataclass
class _Source:
    """Rows of the image, mirrored as far as the whole pass says; each of the image's own is read once.

    Attributes:
        pixels: The image.
        whole: The pass over it.
        axis: The axis of the rows.
        index: Row of the image that stands at each place of the pass.
        needed: First row of the image that stands there or later.
        held: Rows that were read and are still needed, and which is the first of them.
    """

    pixels: Pixels
    whole: Tile
    axis: int
    index: np.ndarray = field(init=False)
    needed: np.ndarray = field(init=False)
    held: np.ndarray | None = None
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.index = mirror_index(self.whole.region[self.axis], self.whole.size[self.axis])
        self.needed = np.minimum.accumulate(self.index[::-1])[::-1]
        self.first = int(self.needed[0])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` … `stop` - 1 of the pass, (C, *S); the other axes are whole."""
        index = self.index[start:stop]
        known = self.first + (0 if self.held is None else self.held.shape[1 + self.axis])
        if (end := int(index.max()) + 1) > known:
            more = self._window(known, end)
            self.held = more if self.held is None else np.concatenate([self.held, more], 1 + self.axis)
        assert self.held is not None
        found = self.held.take(index - self.first, 1 + self.axis)
        left = int(self.needed[stop]) if stop < len(self.needed) else end
        keep = [slice(None)] * self.held.ndim
        keep[1 + self.axis] = slice(left - self.first, None)
        self.held, self.first = self.held[tuple(keep)].copy(), left
        return found

    def _window(self, first: int, stop: int) -> np.ndarray:
        rows = slice(first, stop)
        region = _set(self.whole.region, self.axis, range(first, stop))
        here = replace(self.whole, region=region)
        return here.take(self.pixels.read(_set(here.read, self.axis, rows)))


def _set(values: tuple[T, ...], axis: int, value: T) -> tuple[T, ...]:
    return (*values[:axis], value, *values[axis + 1 :])
