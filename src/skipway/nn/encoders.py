"""Encoders: modules that turn an image into one feature map per level, finest first."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

from torch import Tensor, nn

from skipway.nn.blocks import Style, conv_block
from skipway.nn.paths import path_of
from skipway.nn.resample import pool
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
    """One stage a level: max-pooling (not before level 0), then a block of convolutions.

    Args:
        in_channels: Channels of the image.
        stages: Key of each level (`x0_0`, `x1_0`, …) -> its stage, pooling included.
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
    stages: dict[str, nn.Module] = {}
    source = in_channels
    for level, widths in enumerate(blocks):
        stage = nn.Sequential()
        if level:
            stage.add_module("pool", pool(factors[level - 1]))
        stage.add_module("block", conv_block(source, widths, style))
        if rates.get(level):
            stage.add_module("drop", nn.Dropout(rates[level]))
        stages[Node(level, 0).key] = stage
        source = widths[-1]
    ends = [widths[-1] for widths in blocks]
    return PlainEncoder(in_channels, stages, ends, [(1,) * style.ndim, *factors])
