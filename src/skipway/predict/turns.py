"""Test-time augmentation by seven rotations, as U-Net was tested on membranes in 2015.

The paper says "averaged over 7 rotated versions of the input data" and no more. Read by the word, these are seven
rotations; what seven can be is equal steps of 360°/7, the image as it is among them. Only one of them maps pixels onto
pixels, so the image is interpolated, linearly, as rotated patches are in training.

View k of network f is defined without borders and without tiles. The image is mirrored at its edges without end, and a
grid, turned by k · 360°/7 about the first pixel, lies over it. The network runs on the values at the points of the
grid, each with as much around it as it looks at, and its logits are interpolated back at the pixels of the image. So a
tile needs only to know where in the image it lies to give what the whole image gives.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from skipway.errors import Problem, UsageError
from skipway.predict.backends import Model
from skipway.predict.logits import centred
from skipway.predict.opinions import asked
from skipway.shapes import Geometry
from skipway.tiles import tile_around

SEVEN = 7

FAR = 2**24
"""Strides between the first pixel and the edges of the turned grid, which nobody comes near."""

TAPS = 2
"""Pixels that interpolation looks further, either way, at the pixels and at the points of the grid."""


class Turns(nn.Module):
    """A network of two axes, or several as one, whose outputs are the means over seven rotations.

    Args:
        model: The network.

    Raises:
        UsageError: it has three axes.
    """

    model: Model

    def __init__(self, model: Model) -> None:
        super().__init__()
        inner: Geometry = model.geometry
        if inner.ndim != 2:
            found = f"{inner.name} sees volumes, and seven rotations turn a plane"
            raise UsageError(Problem(found, "--tta seven", "a network of two axes", "--tta mirror or all"))
        self.model = model
        self.in_channels = model.in_channels
        self.classes = model.classes
        self.rounding = model.rounding
        reach = max(h + s for h, s in zip(inner.halo, inner.stride, strict=True))
        margin = (math.ceil(math.sqrt(2) * reach) + 2 * TAPS,) * 2
        least = (2 * margin[0] + 1,) * 2
        self.geometry = Geometry(
            name=f"{inner.name}, turned",
            stride=(1, 1),
            smallest=least,
            margin=margin,
            halo=margin,
            receptive_field=least,
            margins={"turned": margin},
            levels=(),
            tile_exact=inner.tile_exact,
        )

    def opinions(
        self, x: Tensor, first: Sequence[int], wanted: Sequence[slice] = ()
    ) -> Iterator[tuple[Tensor, ...]]:
        """What the network says of each rotation; see `opinions.Several`."""
        for k in range(SEVEN):
            yield from self._turned(x, first, 2 * math.pi * k / SEVEN)

    def _turned(self, x: Tensor, first: Sequence[int], angle: float) -> Iterator[tuple[Tensor, ...]]:
        inner: Geometry = self.model.geometry
        margin = self.geometry.margin
        lines = [
            torch.arange(start + m, start + side - m, dtype=torch.float64)
            for start, side, m in zip(first, x.shape[2:], margin, strict=True)
        ]
        pixels = _turn(lines, -angle)  # the image's pixels on the grid
        shift = [FAR * s for s in inner.stride]
        window = [
            slice(int(line.min().floor()) + far, int(line.max().floor()) + 2 + far)
            for line, far in zip(pixels, shift, strict=True)
        ]
        tile = tile_around([2 * far for far in shift], window, inner)
        grid = [
            torch.arange(r.start - far, r.stop - far, dtype=torch.float64)
            for r, far in zip(tile.region, shift, strict=True)
        ]
        shown = _at(x, _turn(grid, angle), first)
        corner = [w.start - far for w, far in zip(window, shift, strict=True)]
        for found in asked(self.model, shown, ()):
            last = found[-1].shape[2:]
            yield tuple(
                _at(centred(output, last)[:, :, *tile.crop], pixels, corner)
                for output in found
                if output.ndim > 2
            )


def _turn(lines: Sequence[Tensor], angle: float) -> tuple[Tensor, Tensor]:
    """Rows and columns, each (h, w), of the points (rows, columns) of a grid, turned about the origin."""
    rows, columns = lines[0][:, None], lines[1][None, :]
    cos, sin = math.cos(angle), math.sin(angle)
    return rows * cos - columns * sin, rows * sin + columns * cos


def _at(x: Tensor, places: Sequence[Tensor], first: Sequence[int]) -> Tensor:
    """Values (B, C, h, w) of x (B, C, *S), whose first pixel lies at `first`, interpolated linearly.

    Places beyond x get the values of its edge: nothing that is kept looks at them.
    """
    low = [place.floor() for place in places]
    share = [(place - one).to(x.device, x.dtype) for place, one in zip(places, low, strict=True)]
    rows, columns = (
        [(one.long() - start + step).clamp_(0, side - 1).to(x.device) for step in (0, 1)]
        for one, start, side in zip(low, first, x.shape[2:], strict=True)
    )
    flat = x.flatten(2)
    total: Tensor | None = None
    for across, r in zip((1 - share[0], share[0]), rows, strict=True):
        for along, c in zip((1 - share[1], share[1]), columns, strict=True):
            part = flat[:, :, r * x.shape[3] + c] * (across * along)
            total = part if total is None else total.add_(part)
    assert total is not None
    return total
