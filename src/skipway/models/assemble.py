"""What builders share: the options of plain nodes, and from a row of the table to a network of plain nodes."""

from collections.abc import Callable, Sequence
from math import prod
from typing import TypedDict

from torch import nn

from skipway.nn.backbones import BackboneEncoder, backbone_encoder
from skipway.nn.encoders import Encoder, plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.init import he_init
from skipway.nn.nodes import MergeNode, Read, plain_node
from skipway.nn.style import Style
from skipway.topology import Node, Topology

Row = Callable[[int], Topology]
"""From a depth to a member of the family, as `skipway.topology` lists them."""


COARSEST = 1024
"""Largest stride of a level: pixels of the image that become one. Every one of them has its own size arithmetic."""


class Options(TypedDict, total=False):
    """What every builder of plain decoder nodes takes besides channels and classes.

    With a backbone the defaults are those of segmentation_models (Yakubovskiy), whose numbers the field knows:
    width 16, all levels that the backbone has, nearest up-sampling, batch norm, no dropout, a head 3 wide.

    Attributes:
        width: Channels of the finest level; each level below has twice as many. With a backbone, of the decoder.
        depth: Number of levels.
        ndim: Number of spatial axes, 2 or 3.
        up: `transposed`, `bilinear` (along every axis of a volume), `nearest` or `nearest_conv` (a 3-wide
            convolution follows).
        norm: `batch`, `channel_layer`, `instance`, `group` or `none`; see `nn.style.Style`.
        activation: `relu`, `leaky_relu` or `prelu`.
        bias: Whether the convolutions of the blocks have a bias; unless given, exactly when there is no norm.
        padding: `same` or `valid`.
        dropout: Rate after each activation.
        block: `plain`, `residual`, `residual_each`, `preactivation`, `recurrent` or `recurrent_residual`; see
            `nn.style.Style`.
        merge: `concat` or `sum`.
        gate: Whether each skip passes an attention gate; see `nn.nodes.AttentionGate`.
        pools: Pooling factor per axis before each level after the first, for voxels that are not cubes; 2
            unless given.
        backbone: Encoder by the name that timm gives it, such as `resnet34`; images then have two axes. Nodes
            read no level that it has no map of. The weights are drawn; `skipway.pretrained` loads others.
        stem: Whether two plain convolutions a level stand in for the levels that the backbone has no map of.
    """

    width: int
    depth: int
    ndim: int
    up: str
    norm: str
    activation: str
    bias: bool | None
    padding: str
    dropout: float
    block: str
    merge: str
    gate: bool
    pools: Sequence[Sequence[int]] | None
    backbone: str | None
    stem: bool


def plain_network(
    name: str,
    row: Row,
    in_channels: int,
    classes: int,
    *,
    width: int | None = None,
    depth: int | None = None,
    ndim: int = 2,
    up: str | None = None,
    norm: str = "batch",
    activation: str = "relu",
    bias: bool | None = None,
    padding: str = "same",
    dropout: float = 0.0,
    block: str = "plain",
    merge: str = "concat",
    gate: bool = False,
    pools: Sequence[Sequence[int]] | None = None,
    backbone: str | None = None,
    stem: bool = False,
    halve: bool = False,
    recurrences: int = 2,
) -> SkipGraph:
    """A network of plain nodes over any topology, and of plain encoder stages or a backbone.

    Args:
        name: Of the builder, for messages.
        row: The topology at any depth.
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: See `Options`, like all that follow but the last two; 64, or 16 with a backbone, unless given.
        depth: 5, or all levels of the backbone, unless given.
        ndim: …
        up: `transposed`, or `nearest` with a backbone, unless given.
        norm: …
        activation: …
        bias: …
        padding: …
        dropout: …
        block: …
        merge: …
        gate: …
        pools: …
        backbone: …
        stem: …
        halve: Whether each block of the decoder halves the channels for the level above, as up-sampling
            without weights wants it; a backbone's widths are its own, so that nothing is halved.
        recurrences: How often the convolutions of a recurrent block are used again.
    """
    style = Style(
        ndim=ndim,
        norm=norm,
        padding=padding,
        bias=bias,
        dropout=dropout,
        block=block,
        activation=activation,
        recurrences=recurrences,
    )
    own = backbone is None
    encoder = family_encoder(
        in_channels, style, width, depth, pools=pools, backbone=backbone, stem=stem, halve=halve
    )
    widths = doubling(width or (64 if own else 16), len(encoder.widths))
    halved = halve and own

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        here = widths[node.level]
        after = here // 2 if halved and node.level else here
        kind = up or ("transposed" if own else "nearest")
        return plain_node(reads, (here, after), style, up=kind, merge=merge, gate=gate)

    make_head = heads(classes, style, kernel=1 if own else 3)
    return initialised(SkipGraph(row(len(encoder.widths)), encoder, make_node, make_head, name=name))


def family_encoder(
    in_channels: int,
    style: Style,
    width: int | None = None,
    depth: int | None = None,
    *,
    pools: Sequence[Sequence[int]] | None = None,
    backbone: str | None = None,
    stem: bool = False,
    halve: bool = False,
) -> Encoder:
    """The plain encoder of the family, or a backbone; the arguments are those of `plain_network`.

    Raises:
        ValueError: Options contradict each other.
    """
    if backbone is None:
        if stem:
            raise ValueError(
                "stem stands in for levels that a backbone has no map of; name a backbone with it"
            )
        depth = depth or 5
        widths = doubling(width or 64, depth)
        if halve:
            widths[-1] = widths[-2]
        return plain_encoder(in_channels, widths, between_levels(pools, depth, style.ndim), style)
    if style.ndim != 2:
        raise ValueError(f"the backbone {backbone} takes images of 2 axes, not {style.ndim}")
    if pools is not None:
        raise ValueError(f"pools cannot be chosen with the backbone {backbone}, which has its own strides")
    first = doubling(width or 16, 8) if stem else None
    return backbone_encoder(backbone, in_channels, depth, stem=first, style=style)


def between_levels(
    factors: Sequence[Sequence[int]] | None, depth: int, ndim: int, *, name: str = "pools"
) -> list[tuple[int, ...]]:
    """How much coarser each level after the first is than the one above, per axis; 2 unless given.

    Raises:
        ValueError: They do not fit the depth or the dimension.
    """
    if factors is None:
        return [(2,) * ndim] * (depth - 1)
    if len(factors) != depth - 1 or any(len(factor) != ndim for factor in factors):
        raise ValueError(f"{name} needs {depth - 1} factors of {ndim} axes at depth {depth}, got {factors}")
    strides = [prod(axis) for axis in zip(*factors, strict=True)]
    if any(f < 1 for factor in factors for f in factor) or max(strides, default=1) > COARSEST:
        raise ValueError(
            f"{name} cannot be {factors}: 1 or more each, {COARSEST} or less together along an axis"
        )
    return [tuple(factor) for factor in factors]


def ending(row: Row, supervised: bool) -> Row:
    """The row with all its outputs, or with its last one alone."""
    return row if supervised else lambda depth: (table := row(depth)).pruned(table.outputs[-1])


def heads(classes: int, style: Style, *, kernel: int = 1, up: str = "bilinear") -> Callable[..., Head]:
    """Makes the head of any output node."""
    return lambda _, width, stride: Head(width, classes, stride, style, kernel=kernel, up=up)


def doubling(width: int, depth: int) -> list[int]:
    """Channels of each level, finest first: `width`, doubled with every level."""
    return [width * 2**level for level in range(depth)]


def initialised(graph: SkipGraph) -> SkipGraph:
    """The graph with weights drawn as He et al. 2015 draw them; a backbone keeps those that timm drew."""
    encoder = graph.encoder.stem if isinstance(graph.encoder, BackboneEncoder) else graph.encoder
    for part in (encoder, graph.nodes, graph.heads):
        if isinstance(part, nn.Module):
            he_init(part)
    return graph
