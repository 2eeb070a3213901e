"""Encoders: modules that turn an image into one feature map per level, finest first."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Protocol

from torch import Tensor, nn

from skipway.nn.blocks import conv_block
from skipway.nn.paths import path_of
from skipway.nn.resample import pool
from skipway.nn.style import Style
from skipway.shapes import Path
from skipway.topology import Node


class Encoder(Protocol):
    """What the executor asks of an encoder; a module with these attributes.

    Attributes:
        in_channels: Channels of the image.
        widths: Channels of each level's map; 0 where it has none, so that nobody can read that level.
        strides: Input pixels per feature pixel, per level and axis.
        paths: Size arithmetic to each level from the next finer one that has a map, or from the image.
    """

    in_channels: int
    widths: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    paths: tuple[Path, ...]

    def truncated(self, depth: int) -> "Encoder":
        """The same encoder, sharing its weights, with only the first `depth` levels."""

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Maps of the levels that have one, finest first, for images (B, in_channels, *S)."""


class PlainEncoder(nn.Module):
    """One stage a level, each reading the one above: a change of grid (not at level 0), then convolutions.

    Args:
        in_channels: Channels of the image.
        stages: Key of each level (`x0_0`, `x1_0`, …) -> its stage, change of grid included.
        widths: Channels of each level's map.
        factors: Per level and axis, how much coarser the level is than the one above; level 0 has ones.
    """

    def __init__(
        self,
        in_channels: int,
        stages: Mapping[str, nn.Module],
        widths: Sequence[int],
        factors: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stages = nn.ModuleDict(stages)
        self.widths = tuple(widths)
        self._factors = tuple(tuple(factor) for factor in factors)
        columns = list(zip(*self._factors, strict=True))
        self.strides = tuple(
            tuple(prod(column[: level + 1]) for column in columns) for level in range(len(self._factors))
        )
        self.paths = tuple(path_of(stage, len(columns)) for stage in self.stages.values())

    def truncated(self, depth: int) -> "PlainEncoder":
        """The same encoder, sharing its weights, with only the first `depth` levels."""
        stages = dict(list(self.stages.items())[:depth])
        return PlainEncoder(self.in_channels, stages, self.widths[:depth], self._factors[:depth])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, widths[i], *S / strides[i]) of all levels, finest first."""
        maps = []
        for stage in self.stages.values():
            x = stage(x)
            maps.append(x)
        return maps


def plain_encoder(
    in_channels: int,
    widths: Sequence[int],
    factors: Sequence[Sequence[int]],
    style: Style,
    *,
    dropout: Mapping[int, float] | None = None,
) -> PlainEncoder:
    """The encoder of the family: two convolutions a level of equal width; see `pooled_encoder`."""
    blocks = [(width, width) for width in widths]
    return pooled_encoder(in_channels, blocks, factors, style, dropout=dropout)


def pooled_encoder(
    in_channels: int,
    blocks: Sequence[Sequence[int]],
    factors: Sequence[Sequence[int]],
    style: Style,
    *,
    dropout: Mapping[int, float] | None = None,
) -> PlainEncoder:
    """Blocks of convolutions with max-pooling between them.

    Args:
        in_channels: Channels of the image.
        blocks: Channels after each convolution of each level.
        factors: Pooling factor per axis before each level after the first, so one fewer than `blocks`.
        style: Norm, padding, dropout of the blocks.
        dropout: Level -> rate at the end of its stage, where both the pooling and the skip see it.
    """
    rates = dropout or {}

    def make_stage(level: int, source: int, factor: tuple[int, ...]) -> nn.Module:
        stage = nn.Sequential()
        if level:
            stage.add_module("pool", pool(factor))
        stage.add_module("block", conv_block(source, blocks[level], style, opening=not level))
        if rates.get(level):
            stage.add_module("drop", nn.Dropout(rates[level]))
        return stage

    widths = [block[-1] for block in blocks]
    return staged_encoder(in_channels, widths, factors, make_stage, ndim=style.ndim)


def staged_encoder(
    in_channels: int,
    widths: Sequence[int],
    factors: Sequence[Sequence[int]],
    make_stage: Callable[[int, int, tuple[int, ...]], nn.Module],
    *,
    ndim: int,
) -> PlainEncoder:
    """An encoder of any stages, each of which reads the one above.

    Args:
        in_channels: Channels of the image.
        widths: Channels of each level.
        factors: Per axis, how much coarser each level after the first is than the one above.
        make_stage: From a level, the channels it reads and its factor (ones at level 0) to its stage, which
            does the change of grid too.
        ndim: Number of spatial axes.
    """
    steps = [(1,) * ndim, *(tuple(factor) for factor in factors)]
    sources = (in_channels, *widths)
    stages = {
        Node(level, 0).key: make_stage(level, sources[level], steps[level]) for level in range(len(widths))
    }
    return PlainEncoder(in_channels, stages, widths, steps)
