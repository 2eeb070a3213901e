"""Members whose blocks add what they read: the residual U-Net and V-Net."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from skipway import topology
from skipway.models.assemble import between_levels, doubling, heads, initialised
from skipway.nn.blocks import conv_block, plain_block, residual_block
from skipway.nn.encoders import staged_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.layers import Repeat, Residual, activation
from skipway.nn.nodes import MergeNode, Read, concat, plain_node
from skipway.nn.norms import make_norm
from skipway.nn.resample import down_conv, upsample
from skipway.nn.style import Style, has_bias
from skipway.topology import Node

KERNEL = 5
"""Side of the convolutions of V-Net."""


def residual_unet(
    in_channels: int = 3,
    classes: int = 1,
    *,
    width: int = 64,
    depth: int = 4,
    ndim: int = 2,
    up: str = "nearest",
    norm: str = "batch",
    dropout: float = 0.0,
    pools: Sequence[Sequence[int]] | None = None,
) -> SkipGraph:
    """Residual U-Net: pre-activation units, strided convolutions instead of pooling.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level; each level below has twice as many.
        depth: Number of levels, the bridge included.
        ndim: Number of spatial axes, 2 or 3.
        up: See `nn.resample.upsample_in_style`.
        norm: See `nn.style.Style`.
        dropout: Rate after each activation.
        pools: Stride per axis of each level after the first; 2 unless given.

    Source: Zhang et al. 2018, fig. 1b and fig. 2 (weights of the 3-wide convolutions and the head for 3 -> 1:
        7,780,096, the paper's 7.8 M; those of the shortcuts: 430,272).
    """
    style = Style(ndim=ndim, norm=norm, dropout=dropout, block="preactivation")
    widths = doubling(width, depth)

    def make_stage(level: int, source: int, factor: tuple[int, ...]) -> nn.Module:
        return conv_block(source, (widths[level],) * 2, style, stride=factor, opening=not level)

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        return plain_node(reads, (widths[node.level],) * 2, style, up=up)

    factors = between_levels(pools, depth, ndim)
    encoder = staged_encoder(in_channels, widths, factors, make_stage, ndim=ndim)
    graph = SkipGraph(topology.unet(depth), encoder, make_node, heads(classes, style), name="residual_unet")
    return initialised(graph)


def vnet(
    in_channels: int = 1,
    classes: int = 2,
    *,
    width: int = 16,
    depth: int = 5,
    ndim: int = 3,
    norm: str = "none",
    activation: str = "prelu",
    dropout: float = 0.0,
    convs: Sequence[int] | None = None,
    up_convs: Sequence[int] | None = None,
    pools: Sequence[Sequence[int]] | None = None,
) -> SkipGraph:
    """V-Net: 5-wide convolutions on volumes, each stage adds its input, convolutions go down and up.

    Args:
        in_channels: Channels of the image; they are repeated to `width` where the first stage adds them.
        classes: Number of output channels.
        width: Channels of the finest level; each level below has twice as many. A stage of the decoder works
            on the skip and the up-sampled map, twice the channels of its level.
        depth: Number of levels.
        ndim: Number of spatial axes, 2 or 3.
        norm: See `nn.style.Style`; the paper has none.
        activation: `relu`, `leaky_relu` or `prelu`.
        dropout: Rate after each activation within a stage.
        convs: Convolutions of each level of the encoder, finest first; 1, 2, 3, 3, … unless given.
        up_convs: Those of each level of the decoder, finest first; 1, 2, 3, 3, … unless given.
        pools: Stride per axis of each level after the first; 2 unless given.

    Source: Milletari et al. 2016, fig. 2 and table 1.
    """
    style = Style(ndim=ndim, norm=norm, activation=activation, dropout=dropout, block="residual")
    widths = doubling(width, depth)
    down = _per_level("convs", convs, depth)
    up = _per_level("up_convs", up_convs, depth - 1)

    def make_stage(level: int, source: int, factor: tuple[int, ...]) -> nn.Module:
        here = (widths[level],) * down[level]
        if not level:
            return _repeating(source, here, style)
        lower = down_conv(factor, source, here[0], bias=has_bias(style))
        block = residual_block(here[0], here, style, kernel=KERNEL)
        return nn.Sequential(OrderedDict(down=_dressed(lower, here[0], style), block=block))

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        here = widths[node.level]
        branches = {}
        for read in reads:
            if read.scale != (1,) * ndim:
                upper, _ = upsample("transposed", [int(s) for s in read.scale], read.width, here)
                branches[read.key] = _dressed(upper, here, style)
        body = residual_block(2 * here, (2 * here,) * up[node.level], style, kernel=KERNEL)
        return MergeNode(reads, branches, concat, body, 2 * here)

    factors = between_levels(pools, depth, ndim)
    encoder = staged_encoder(in_channels, widths, factors, make_stage, ndim=ndim)
    return initialised(
        SkipGraph(topology.unet(depth), encoder, make_node, heads(classes, style), name="vnet")
    )


def _per_level(name: str, given: Sequence[int] | None, levels: int) -> list[int]:
    numbers = [min(level + 1, 3) for level in range(levels)] if given is None else list(given)
    if len(numbers) != levels or min(numbers) < 1:
        raise ValueError(f"{name} needs {levels} numbers, 1 or more each, got {given}")
    return numbers


def _dressed(layer: nn.Module, width: int, style: Style) -> nn.Sequential:
    """A change of grid with norm and activation."""
    layers = OrderedDict(conv=layer)
    if (norm := make_norm(width, style)) is not None:
        layers["norm"] = norm
    layers["act"] = activation(width, style)
    return nn.Sequential(layers)


def _repeating(in_channels: int, widths: Sequence[int], style: Style) -> Residual:
    """The first stage: a residual block that adds the image itself, its channels repeated."""
    body = plain_block(in_channels, widths, style, kernel=KERNEL, closed=False)
    return Residual(body, Repeat(widths[-1]), activation(widths[-1], style), style.ndim)
