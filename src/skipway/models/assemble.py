"""What builders share: the options of plain nodes, and from a row of the table to a network of plain nodes."""

from collections.abc import Callable, Sequence
from math import prod
from typing import TypedDict, Unpack

from torch import nn

from skipway.nn.backbones import BackboneEncoder, backbone_encoder
from skipway.nn.encoders import Encoder, plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.init import he_init
from skipway.nn.nodes import MergeNode, Read, plain_node
from skipway.nn.resample import WEIGHTLESS
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
        depth: Number of levels; with a backbone, all that it has unless given.
        ndim: Number of spatial axes, 2 or 3.
        up: `transposed`, `bilinear` (along every axis of a volume), `nearest`, `nearest_conv` (a 3-wide
            convolution follows) or `bilinear_aligned`; see `nn.resample.upsample`.
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
    depth: int | None
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


PLAIN: Options = {
    "width": 64,
    "depth": 5,
    "ndim": 2,
    "up": "transposed",
    "norm": "batch",
    "activation": "relu",
    "bias": None,
    "padding": "same",
    "dropout": 0.0,
    "block": "plain",
    "merge": "concat",
    "gate": False,
    "pools": None,
    "backbone": None,
    "stem": False,
}
"""Options of a network with plain encoder stages, where neither the builder nor the user says otherwise."""

ON_BACKBONE: Options = {**PLAIN, "width": 16, "depth": None, "up": "nearest"}
"""The same with a backbone."""


def plain_network(
    name: str,
    row: Row,
    in_channels: int,
    classes: int,
    *,
    halve: bool = False,
    recurrences: int = 2,
    **options: Unpack[Options],
) -> SkipGraph:
    """A network of plain nodes over any topology, and of plain encoder stages or a backbone.

    Args:
        name: Of the builder, for messages.
        row: The topology at any depth.
        in_channels: Channels of the image.
        classes: Number of output channels.
        halve: Whether, where up-sampling has no weights to change channels with, each block of the decoder halves
            them for the level above, and the deepest level has no more than the one above it. A backbone's
            widths are its own, so that nothing is halved.
        recurrences: How often the convolutions of a recurrent block are used again.
        **options: See `Options`; the defaults are `PLAIN`, or `ON_BACKBONE`.

    Raises:
        TypeError: There is no such option.
        ValueError: An option cannot be, or two contradict each other.
    """
    if unknown := sorted(options.keys() - PLAIN.keys()):
        raise TypeError(f"{name}() got an unexpected keyword argument {unknown[0]!r}")
    own = options.get("backbone") is None
    chosen: Options = {**(PLAIN if own else ON_BACKBONE), **options}
    style = Style(
        ndim=chosen["ndim"],
        norm=chosen["norm"],
        padding=chosen["padding"],
        bias=chosen["bias"],
        dropout=chosen["dropout"],
        block=chosen["block"],
        activation=chosen["activation"],
        recurrences=recurrences,
    )
    halved = halve and own and chosen["up"] in WEIGHTLESS
    encoder = family_encoder(in_channels, style, chosen, halve=halved)
    widths = doubling(chosen["width"], len(encoder.widths))

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        here = widths[node.level]
        after = here // 2 if halved and node.level else here
        return plain_node(
            reads, (here, after), style, up=chosen["up"], merge=chosen["merge"], gate=chosen["gate"]
        )

    make_head = heads(classes, style, kernel=1 if own else 3)
    return initialised(SkipGraph(row(len(encoder.widths)), encoder, make_node, make_head, name=name))


def family_encoder(in_channels: int, style: Style, options: Options, *, halve: bool = False) -> Encoder:
    """The plain encoder of the family, or a backbone.

    Args:
        in_channels: Channels of the image.
        style: Of its stages, or of the stem of a backbone.
        options: Those of them that are about encoders: `width`, `depth`, `pools`, `backbone`, `stem`.
        halve: Whether the deepest level has no more channels than the one above it.

    Raises:
        ValueError: Options contradict each other.
    """
    options = {**PLAIN, **options}
    backbone, pools, stem = options["backbone"], options["pools"], options["stem"]
    if backbone is None:
        if stem:
            raise ValueError(
                "stem stands in for levels that a backbone has no map of; name a backbone with it"
            )
        depth = options["depth"] or 5
        widths = doubling(options["width"], depth)
        if halve:
            widths[-1] = widths[-2]
        return plain_encoder(in_channels, widths, between_levels(pools, depth, style.ndim), style)
    if style.ndim != 2:
        raise ValueError(f"the backbone {backbone} takes images of 2 axes, not {style.ndim}")
    if pools is not None:
        raise ValueError(f"pools cannot be chosen with the backbone {backbone}, which has its own strides")
    first = doubling(options["width"], 8) if stem else None
    return backbone_encoder(backbone, in_channels, options["depth"], stem=first, style=style)


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
