"""Instance and group norm with the statistics of the whole image, so that tiles change nothing.

These norms take mean and variance over the map that is there, which for a tile is not what it is for the image. The
statistics of a norm depend on all norms before it, so they are found one norm after the other: the tiles of the image
run up to the first norm whose statistics are not known, the pixels that each tile decides are counted, and the norm is
replaced by the scale and shift that follow. With n norms these are n passes, each up to its norm: about half of n
times the time of a prediction. What comes of them is a network whose every layer is local.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from skipway.data.fingerprint import Constants, normalised
from skipway.errors import Problem, UsageError
from skipway.nn.norms import GroupNorm
from skipway.nn.paths import tile_exact
from skipway.predict.pixels import Pixels
from skipway.predict.stream import evaluating
from skipway.shapes import Geometry, Path
from skipway.tiles import Tile, default_tile, plan_tiles, round_tile

_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMS = (GroupNorm, nn.GroupNorm, *_INSTANCE)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared distances from it, of numbers seen so far, group by group.

    >>> one, two = Moments.of(torch.tensor([[1.0, 3.0]])), Moments.of(torch.tensor([[8.0]]))
    >>> both = one.joined(two)
    >>> both.mean.item(), both.variance.item()
    (4.0, 8.666666666666666)
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, groups: Tensor) -> "Moments":
        """Of numbers (groups, n), in double precision."""
        groups = groups.double()
        mean = groups.mean(1)
        return cls(groups.shape[1], mean, (groups - mean[:, None]).square().sum(1))

    def joined(self, other: "Moments") -> "Moments":
        """Of the numbers of both.

        Source: Chan, Golub & LeVeque 1983, equations 1.5 and 1.6, which lose no digits where means are large.
        """
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        squares = self.squares + other.squares + apart.square() * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def variance(self) -> Tensor:
        """Mean squared distance from the mean."""
        return self.squares / self.count


class KnownNorm(nn.Module):
    """A norm whose statistics are constants: y = x · scale_k + shift_k in use k of a pass.

    Args:
        norm: In whose place it stands.

    Attributes:
        groups: Groups of channels that share their statistics; None for one a channel.
        path: (), for it looks at one pixel.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.groups: int | None = getattr(norm, "groups", getattr(norm, "num_groups", None))
        self.path: Path = ()
        self._eps = float(norm.eps)
        self._affine = None if norm.weight is None else (norm.weight.double(), norm.bias.double())
        self.known: list[tuple[Tensor, Tensor]] = []
        self.wants: Sums | None = None
        self._use = 0

    def learn(self, moments: Moments) -> None:
        """The statistics of one use more."""
        scale, mean = (moments.variance + self._eps).rsqrt(), moments.mean
        if self._affine is not None:
            weight, bias = self._affine
            each = len(weight) // len(mean)
            scale, mean = (value.repeat_interleave(each) for value in (scale, mean))
            self.known.append((scale * weight, bias - mean * scale * weight))
        else:
            self.known.append((scale, -mean * scale))

    def begin(self) -> None:
        """A new pass of the network."""
        self._use = 0

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (B, C, *S); of a use that is not known yet, count and end the pass."""
        if self._use == len(self.known):
            if self.wants is None:  # a pass is over, and another begins
                self._use = 0
            else:
                self.wants.take(self, x)
        scale, shift = (
            value.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2)) for value in self.known[self._use]
        )
        self._use += 1
        return x * scale + shift


class _Enough(Exception):
    """A pass came to the norm that is being counted."""


class Sums:
    """Counts what the tiles of an image bring to one norm."""

    def __init__(self) -> None:
        self.norm: KnownNorm | None = None
        self.moments: Moments | None = None
        self.tile: Tile | None = None
        self.owns: Sequence[slice] = ()

    def take(self, norm: KnownNorm, x: Tensor) -> None:
        """Count the pixels that the tile in hand decides, on the grid of this map, and end its pass."""
        assert self.tile is not None
        own = []
        for side, region, part in zip(x.shape[2:], self.tile.region, self.owns, strict=True):
            stride = len(region) // side
            own.append(slice((part.start - region.start) // stride, (part.stop - region.start) // stride))
        inside = x[0][:, *own]
        found = Moments.of(inside.reshape(norm.groups or len(inside), -1))
        self.norm, self.moments = norm, found if self.moments is None else self.moments.joined(found)
        raise _Enough


def with_whole_norms(
    model: nn.Module,
    pixels: Pixels,
    constants: Constants | None = None,
    *,
    tile: int | Sequence[int] | None = None,
) -> nn.Module:
    """A copy of a network whose norms have the statistics of one image; `model` itself where nothing is to be found.

    Args:
        model: Network with a `geometry`.
        pixels: The image.
        constants: (offset, scale) of its grey values, see `predict_pixels`.
        tile: Step between tiles; the statistics depend on it as far as rounding goes.

    Returns:
        A network for this image alone, local in every layer that was not local for its norm.

    Raises:
        UsageError: the network has convolutions without padding, whose tiles overlap in every layer.
    """
    if not any(isinstance(module, _NORMS) for module in model.modules()):
        return model
    geometry: Geometry = model.geometry  # type: ignore[assignment]
    if any(geometry.margin):
        found = "a network without padding and with a norm over the map"
        raise UsageError(Problem(found, "--whole-norms", "one with padding, or batch norm"))
    found_model = copy.deepcopy(model)
    norms = _replaced(found_model)
    step = default_tile(geometry, pixels.shape[1:]) if tile is None else round_tile(tile, geometry)
    tiles = list(plan_tiles(pixels.shape[1:], step, geometry))
    weight = next(model.parameters())
    with evaluating(found_model):
        while (sums := _counted(found_model, norms, tiles, pixels, constants, weight)).moments is not None:
            cast(KnownNorm, sums.norm).learn(sums.moments)
    for part in found_model.modules():
        known: Any = getattr(part, "geometry", None)
        if isinstance(known, Geometry):
            setattr(part, "geometry", replace(known, tile_exact=tile_exact(part)))  # noqa: B010 (no tensor)
    return found_model


def passes(model: nn.Module) -> int:
    """How many streamed passes `with_whole_norms` takes at least: one a norm."""
    return sum(isinstance(module, _NORMS) for module in model.modules())


def _replaced(model: nn.Module) -> list[KnownNorm]:
    """Put a `KnownNorm` in the place of each norm."""
    norms = []
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _NORMS):
                norms.append(KnownNorm(child))
                module.add_module(name, norms[-1])
    return norms


def _counted(
    model: nn.Module,
    norms: Sequence[KnownNorm],
    tiles: Sequence[Tile],
    pixels: Pixels,
    constants: Constants | None,
    weight: Tensor,
) -> Sums:
    """One pass over the image, up to the first norm that is not known; empty where all are."""
    sums = Sums()
    with _asking(norms, sums):
        for tile in tiles:
            sums.tile, sums.owns = tile, _owns(tile, tiles[-1])
            for norm in norms:
                norm.begin()
            window = tile.take(pixels.read(tile.read))
            seen = window if constants is None else normalised(window, constants)
            given = torch.from_numpy(np.ascontiguousarray(seen)).to(weight)[None]
            try:
                model(given)
            except _Enough:
                continue
            break
    return sums


@contextmanager
def _asking(norms: Sequence[KnownNorm], sums: Sums) -> Iterator[None]:
    for norm in norms:
        norm.wants = sums
    try:
        yield
    finally:
        for norm in norms:
            norm.wants = None


def _owns(tile: Tile, last: Tile) -> list[slice]:
    """What a tile decides, and at the end of the image the mirrored pixels with it: one pass reads them, too."""
    ends = [part.stop for part in last.region]
    return [
        slice(part.start, end if part.stop == side else part.stop)
        for part, side, end in zip(tile.write, tile.size, ends, strict=True)
    ]
