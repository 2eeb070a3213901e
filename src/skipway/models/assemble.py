"""What builders share: the options of plain nodes, and from a row of the table to a network of plain nodes."""

from collections.abc import Callable, Sequence
from typing import TypedDict

from skipway.nn.blocks import Style, he_init
from skipway.nn.encoders import plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.nodes import MergeNode, Read, plain_node
from skipway.topology import Node, Topology

Row = Callable[[int], Topology]
"""From a depth to a member of the family, as `skipway.topology` lists them."""


class Options(TypedDict, total=False):
    """What every builder of plain decoder nodes takes besides channels and classes.

    Attributes:
        width: Channels of the finest level; each level below has twice as many.
        depth: Number of levels.
        ndim: Number of spatial axes, 2 or 3.
        up: `transposed`, `bilinear` (along every axis of a volume), `nearest` or `nearest_conv` (a 3-wide
            convolution follows).
        norm: `batch`, `channel_layer`, `instance`, `group` or `none`; see `nn.blocks.Style`.
        activation: `relu`, `leaky_relu` or `prelu`.
        bias: Whether the convolutions of the blocks have a bias; unless given, exactly when there is no norm.
        padding: `same` or `valid`.
        dropout: Rate after each activation.
        block: `plain`, `residual`, `residual_each`, `preactivation`, `recurrent` or `recurrent_residual`; see
            `nn.blocks.Style`.
        merge: `concat` or `sum`.
        gate: Whether each skip passes an attention gate; see `nn.nodes.AttentionGate`.
        pools: Pooling factor per axis before each level after the first, for voxels that are not cubes; 2
            unless given.
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


def plain_network(
    name: str,
    row: Row,
    in_channels: int,
    classes: int,
    *,
    width: int = 64,
    depth: int = 5,
    ndim: int = 2,
    up: str = "transposed",
    norm: str = "batch",
    activation: str = "relu",
    bias: bool | None = None,
    padding: str = "same",
    dropout: float = 0.0,
    block: str = "plain",
    merge: str = "concat",
    gate: bool = False,
    pools: Sequence[Sequence[int]] | None = None,
    halve: bool = False,
    recurrences: int = 2,
) -> SkipGraph:
    """A network of plain encoder stages and plain nodes over any topology.

    Args:
        name: Of the builder, for messages.
        row: The topology at any depth.
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: See `Options`, like all that follow but the last two.
        depth: …
        ndim: …
        up: …
        norm: …
        activation: …
        bias: …
        padding: …
        dropout: …
        block: …
        merge: …
        gate: …
        pools: …
        halve: Whether each block of the decoder halves the channels for the level above, as up-sampling
            without weights wants it.
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
    widths = doubling(width, depth)
    if halve:
        widths[-1] = widths[-2]

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        here = widths[node.level]
        after = here // 2 if halve and node.level else here
        return plain_node(reads, (here, after), style, up=up, merge=merge, gate=gate)

    encoder = plain_encoder(in_channels, widths, between_levels(pools, depth, ndim), style)
    return initialised(SkipGraph(row(depth), encoder, make_node, heads(classes, style), name=name))


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
    """The graph with weights drawn as He et al. 2015 draw them."""
    he_init(graph)
    return graph
