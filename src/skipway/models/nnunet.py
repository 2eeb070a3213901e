"""The networks that nnU-Net plans: plain and with a residual encoder."""

from collections.abc import Callable, Sequence

from torch import nn

from skipway import topology
from skipway.models.assemble import between_levels, doubling, ending, heads, initialised
from skipway.nn.blocks import plain_block, residual_block
from skipway.nn.encoders import staged_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.nodes import MergeNode, Read, concat
from skipway.nn.resample import upsample
from skipway.nn.style import Sides, Style
from skipway.topology import Node, Topology, diagonal

WIDEST = {1: 512, 2: 512, 3: 320}
"""Most channels of a level in nnU-Net's plans, by number of spatial axes."""

BLOCKS = (1, 3, 4, 6)
"""Residual blocks of the first levels; each level below has as many as the last of these."""


def nnunet(
    in_channels: int = 1,
    classes: int = 2,
    *,
    width: int = 32,
    depth: int = 6,
    ndim: int = 3,
    widest: int | None = None,
    norm: str = "instance",
    dropout: float = 0.0,
    pools: Sequence[Sequence[int]] | None = None,
    kernels: Sequence[Sequence[int]] | None = None,
    supervised: bool = True,
) -> SkipGraph:
    """nnU-Net's plain network: strided convolutions, instance norm, leaky ReLU, a head on every decoder level.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level; each level below has twice as many.
        depth: Number of levels.
        ndim: Number of spatial axes, 2 or 3.
        widest: Most channels of a level; 320 for volumes, 512 for images unless given.
        norm: See `nn.style.Style`. Instance norm, as published, sees the whole tile.
        dropout: Rate after each activation.
        pools: Stride per axis of each level after the first; 2 unless given.
        kernels: Side of the convolutions per axis, for each level; 3 unless given.
        supervised: Whether every level of the decoder carries a head. Its logits come up-sampled to the grid
            of the image, where nnU-Net compares them with a smaller target.

    Source: Isensee et al. 2021, online methods; `PlainConvUNet` of nnU-Net v2 (31,195,594 parameters for 1 ->
        2 on six levels, heads included).
    """
    style = _style(ndim, norm, dropout)
    sides = _sides(kernels, depth, ndim)
    widths = _widths(width, depth, ndim, widest)

    def make_stage(level: int, source: int, factor: tuple[int, ...]) -> nn.Module:
        return plain_block(source, (widths[level],) * 2, style, kernel=sides[level], stride=factor)

    factors = between_levels(pools, depth, ndim)
    encoder = staged_encoder(in_channels, widths, factors, make_stage, ndim=ndim)
    make_node = _node(2, sides, style)
    table = ending(_supervised, supervised)(depth)
    return initialised(SkipGraph(table, encoder, make_node, heads(classes, style), name="nnunet"))


def nnunet_residual(
    in_channels: int = 1,
    classes: int = 2,
    *,
    width: int = 32,
    depth: int = 6,
    ndim: int = 3,
    widest: int | None = None,
    norm: str = "instance",
    dropout: float = 0.0,
    blocks: Sequence[int] | None = None,
    pools: Sequence[Sequence[int]] | None = None,
    kernels: Sequence[Sequence[int]] | None = None,
    supervised: bool = True,
) -> SkipGraph:
    """nnU-Net with a residual encoder (ResEnc): many blocks on the way down, one convolution a level up.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: As for `nnunet`.
        depth: As for `nnunet`.
        ndim: As for `nnunet`.
        widest: As for `nnunet`.
        norm: As for `nnunet`.
        dropout: As for `nnunet`.
        blocks: Residual blocks of each level of the encoder, two convolutions each; 1, 3, 4, 6, 6, … unless
            given.
        pools: As for `nnunet`.
        kernels: As for `nnunet`.
        supervised: As for `nnunet`.

    Source: Isensee et al. 2024, "nnU-Net revisited", section 2; `ResidualEncoderUNet` of nnU-Net v2
        (102,349,770 parameters for 1 -> 2 on six levels, heads included).
    """
    style = _style(ndim, norm, dropout)
    sides = _sides(kernels, depth, ndim)
    widths = _widths(width, depth, ndim, widest)
    numbers = [BLOCKS[min(level, 3)] for level in range(depth)] if blocks is None else list(blocks)
    if len(numbers) != depth or min(numbers) < 1:
        raise ValueError(f"blocks needs {depth} numbers, 1 or more each, got {blocks}")

    def make_stage(level: int, source: int, factor: tuple[int, ...]) -> nn.Module:
        here, side = widths[level], sides[level]
        stage = nn.Sequential()
        if not level:
            stage.add_module("stem", plain_block(source, (here,), style, kernel=side))
            source = here
        for i in range(1, numbers[level] + 1):
            block = residual_block(source, (here,) * 2, style, kernel=side, stride=factor, pooled=True)
            stage.add_module(f"block{i}", block)
            source, factor = here, (1,) * ndim
        return stage

    factors = between_levels(pools, depth, ndim)
    encoder = staged_encoder(in_channels, widths, factors, make_stage, ndim=ndim)
    make_node = _node(1, sides, style)
    table = ending(_supervised, supervised)(depth)
    return initialised(SkipGraph(table, encoder, make_node, heads(classes, style), name="nnunet_residual"))


def _style(ndim: int, norm: str, dropout: float) -> Style:
    return Style(ndim=ndim, norm=norm, dropout=dropout, activation="leaky_relu", bias=True)


def _widths(width: int, depth: int, ndim: int, widest: int | None) -> list[int]:
    most = WIDEST[ndim] if widest is None else widest
    return [min(here, most) for here in doubling(width, depth)]


def _sides(kernels: Sequence[Sequence[int]] | None, depth: int, ndim: int) -> list[tuple[int, ...]]:
    if kernels is None:
        return [(3,) * ndim] * depth
    if len(kernels) != depth or any(len(kernel) != ndim for kernel in kernels):
        raise ValueError(f"kernels needs {depth} sides of {ndim} axes at depth {depth}, got {kernels}")
    return [tuple(kernel) for kernel in kernels]


def _supervised(depth: int) -> Topology:
    """The U-Net's row with an output on every decoder node, coarsest first."""
    return Topology(topology.unet(depth).reads, diagonal(depth)[::-1])


def _node(
    convolutions: int, sides: Sequence[Sides], style: Style
) -> Callable[[Node, Sequence[Read]], MergeNode]:
    """Makes the node of both: transposed up-sampling to the width of the skip, then plain convolutions."""

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        skip, below = reads
        up, _ = upsample("transposed", [int(s) for s in below.scale], below.width, skip.width)
        branches = {below.key: nn.Sequential()}
        branches[below.key].add_module("resample", up)
        widths = (skip.width,) * convolutions
        body = plain_block(2 * skip.width, widths, style, kernel=sides[node.level])
        return MergeNode(reads, branches, concat, body, skip.width)

    return make_node
