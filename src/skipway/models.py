"""Published networks, one builder each; the only place that knows them by name.

A builder takes plain keyword arguments, which a run folder can store as JSON, and gives a `SkipGraph` with
weights drawn from torch's global generator. Defaults are the published ones.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, TypedDict, Unpack

import torch

from skipway import topology
from skipway.errors import Problem, UsageError
from skipway.nn.blocks import Style, he_init, norm_init, norm_of
from skipway.nn.encoders import plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.nodes import MergeNode, Read, full_scale_node, plain_node
from skipway.nn.operations import count_macs, count_parameters
from skipway.topology import Node, Topology

Builder = Callable[..., SkipGraph]


class Options(TypedDict, total=False):
    """What every builder of plain decoder nodes takes besides channels and classes.

    Attributes:
        width: Channels of the finest level; each level below has twice as many.
        depth: Number of levels.
        ndim: Number of spatial axes, 2 or 3.
        up: `transposed`, `bilinear` (along every axis of a volume) or `nearest`.
        norm: `batch`, `channel_layer`, `instance`, `group` or `none`; see `nn.blocks.Style`.
        padding: `same` or `valid`.
        dropout: Rate after each ReLU.
        residual: Whether each block adds its input to its output.
        merge: `concat` or `sum`.
        pools: Pooling factor per axis before each level after the first, for voxels that are not cubes; 2
            unless given.
    """

    width: int
    depth: int
    ndim: int
    up: str
    norm: str
    padding: str
    dropout: float
    residual: bool
    merge: str
    pools: Sequence[Sequence[int]] | None


def unet_2015(
    in_channels: int = 1,
    classes: int = 2,
    *,
    width: int = 64,
    depth: int = 5,
    dropout: float = 0.5,
    released: bool = False,
) -> SkipGraph:
    """The network of 2015: valid convolutions, no norm, cropped skips; 572 pixels give 388.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level; each level below has twice as many.
        depth: Number of levels.
        dropout: Rate at the end of the contracting path: after the last two levels, where pooling and skip
            both see it. The paper gives no rate; 0.5 is that of the released network.
        released: The network of the released code instead of the paper's figure: a ReLU after each
            up-convolution, the up-sampled map before the skip, and the last up-convolution keeping its 2 ·
            width channels.

    Source: Ronneberger, Fischer, Brox 2015, fig. 1; `phseg_v5` of the authors' release of 2015-10-02.
    """
    style = Style(norm="none", padding="valid")
    widths = _doubling(width, depth)
    table = topology.unet(depth)
    if released:
        table = Topology({node: sources[::-1] for node, sources in table.reads.items()}, table.outputs)

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        kept = widths[1] if released and not node.level else None
        return plain_node(reads, (widths[node.level],) * 2, style, up_width=kept, up_relu=released)

    encoder = plain_encoder(
        in_channels, widths, [(2, 2)] * (depth - 1), style, dropout={depth - 2: dropout, depth - 1: dropout}
    )
    return _initialised(SkipGraph(table, encoder, make_node, _heads(classes, style), name="unet_2015"))


def unet(in_channels: int = 1, classes: int = 2, **options: Unpack[Options]) -> SkipGraph:
    """The U-Net as it is used today: same padding and batch norm; sizes in and out are equal.

    With `bilinear` or `nearest` up-sampling, which cannot change the number of channels, every block of the
    decoder halves them for the level above, and the deepest level has as many as the one above it.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        **options: See `Options`; the defaults are width 64, depth 5, transposed up-sampling, batch norm.

    Source: Ronneberger et al. 2015, with padding and norm as in milesial/Pytorch-UNet (31,037,698 for 3 ->
        2).
    """
    return _plain("unet", topology.unet, in_channels, classes, **options)


def unet_e(in_channels: int = 1, classes: int = 1, **options: Unpack[Options]) -> SkipGraph:
    """U-Net^e: U-Nets of every depth on one shared encoder, a head on each.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        **options: See `Options`; the defaults are those of `unet_plus_plus`.

    Source: Zhou et al. 2020, fig. 1 and section III (8,728,356 parameters with four heads).
    """
    return _nested("unet_e", topology.unet_e, in_channels, classes, options)


def unet_plus(
    in_channels: int = 1, classes: int = 1, *, supervised: bool = False, **options: Unpack[Options]
) -> SkipGraph:
    """UNet+: the triangle of nodes with short skips only.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        supervised: Whether every node of the finest level carries a head.
        **options: See `Options`; the defaults are those of `unet_plus_plus`.

    Source: Zhou et al. 2020, fig. 1 and section III (8,728,257 parameters; 8,728,356 supervised).
    """
    return _nested("unet_plus", _ending(topology.unet_plus, supervised), in_channels, classes, options)


def unet_plus_plus(
    in_channels: int = 1, classes: int = 1, *, supervised: bool = False, **options: Unpack[Options]
) -> SkipGraph:
    """UNet++: the triangle of nodes with dense skips; supervised, it can be pruned to any level.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        supervised: Whether every node of the finest level carries a head.
        **options: See `Options`; the defaults are width 32, depth 5, transposed up-sampling, no norm and, as
            in the authors' code, dropout 0.5 after each ReLU.

    Source: Zhou et al. 2018, eq. 1; Zhou et al. 2020 (9,041,601 parameters; 9,041,700 supervised).
    """
    return _nested(
        "unet_plus_plus", _ending(topology.unet_plus_plus, supervised), in_channels, classes, options
    )


def unet_3_plus(
    in_channels: int = 3,
    classes: int = 1,
    *,
    width: int = 64,
    depth: int = 5,
    ndim: int = 2,
    up: str = "bilinear",
    norm: str = "batch",
    supervised: bool = False,
) -> SkipGraph:
    """UNet 3+: every decoder node reads every scale, each through `width` channels.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level, doubled each level below, and of every branch of a decoder node.
        depth: Number of levels.
        ndim: Number of spatial axes, 2 or 3.
        up: `bilinear` or `nearest`.
        norm: See `nn.blocks.Style`.
        supervised: Whether every decoder node and the bottom of the encoder carry a head, up-sampled to the
            image.

    Source: Huang et al. 2020, eq. 1 and fig. 2 (26,971,777 parameters for 3 -> 1; 26,989,637 supervised).
    """
    style = Style(ndim=ndim, norm=norm, bias=True)
    encoder = plain_encoder(in_channels, _doubling(width, depth), [(2,) * ndim] * (depth - 1), style)

    def make_node(_: Node, reads: Sequence[Read]) -> MergeNode:
        return full_scale_node(reads, width, style, up=up)

    table = _ending(topology.unet_3_plus, supervised)(depth)
    graph = SkipGraph(table, encoder, make_node, _heads(classes, style, kernel=3, up=up), name="unet_3_plus")
    _initialised(graph)
    norm_init(graph, std=0.02)
    return graph


BUILDERS: Mapping[str, Builder] = {
    "unet": unet,
    "unet_2015": unet_2015,
    "unet_e": unet_e,
    "unet_plus": unet_plus,
    "unet_plus_plus": unet_plus_plus,
    "unet_3_plus": unet_3_plus,
}


def build(name: str, **config: Any) -> SkipGraph:
    """Build a network by the name and keyword arguments that a run folder stores.

    Raises:
        UsageError: No builder has that name.
    """
    if name not in BUILDERS:
        near = get_close_matches(name, BUILDERS, n=1)
        raise UsageError(
            Problem(
                found=f"no model is called {name!r}",
                expected=f"one of {', '.join(BUILDERS)}",
                fix=f"use {near[0]}" if near else "list them with `skipway models`",
                code="U201",
            )
        )
    return BUILDERS[name](**config)


@dataclass(frozen=True)
class ModelCard:
    """What `skipway models` says about a builder, at its defaults.

    Attributes:
        name: Name of the builder.
        summary: One line.
        source: Paper, with equation, figure or section.
        in_channels: Channels of the image.
        classes: Channels of each output.
        outputs: Keys of the nodes with a head.
        parameters: Trainable numbers.
        size: Input size at which the rest is counted.
        output_size: Size of the last output.
        macs: Multiplications in the convolutions, for one image of `size`.
        receptive_field: Side of the window one output pixel depends on, per axis.
        smallest: Smallest legal input.
        stride: Legal sides repeat with this period.
        norm: Norm of the blocks.
        tile_exact: Whether tiles give what the whole image gives.
    """

    name: str
    summary: str
    source: str
    in_channels: int
    classes: int
    outputs: tuple[str, ...]
    parameters: int
    size: tuple[int, ...]
    output_size: tuple[int, ...]
    macs: int
    receptive_field: tuple[int, ...]
    smallest: tuple[int, ...]
    stride: tuple[int, ...]
    norm: str
    tile_exact: bool

    def to_json(self) -> dict[str, Any]:
        """The card as a dictionary for JSON."""
        return asdict(self)


def describe(name: str, size: Sequence[int] | None = None, **config: Any) -> ModelCard:
    """Card of a network: what it is, where it comes from, what it costs. No weights are made.

    Args:
        name: Name of the builder.
        size: Input size; the next legal one is taken. Unless given, 256 along each axis, or the 572 of the
            paper for valid padding.
        **config: As for `build`.

    Raises:
        UsageError: No builder has that name.
    """
    with torch.device("meta"):
        model = build(name, **config)
    shape = model.geometry
    at = shape.next_legal(size or (572 if any(shape.margin) else 256,) * model.ndim)
    summary, source = _documented(BUILDERS[name])
    return ModelCard(
        name=name,
        summary=summary,
        source=source,
        in_channels=model.in_channels,
        classes=model.classes,
        outputs=tuple(node.key for node in model.topology.outputs),
        parameters=count_parameters(model),
        size=at,
        output_size=shape.output_size(at),
        macs=count_macs(model, at),
        receptive_field=shape.receptive_field,
        smallest=shape.smallest,
        stride=shape.stride,
        norm=norm_of(model),
        tile_exact=shape.tile_exact,
    )


def _documented(builder: Builder) -> tuple[str, str]:
    """First line and `Source:` paragraph of a builder's docstring, which is the one place that has them."""
    summary, *paragraphs = (inspect.getdoc(builder) or "").split("\n\n")
    sources = [" ".join(text.split()) for text in paragraphs if text.startswith("Source: ")]
    return summary, "".join(sources).removeprefix("Source: ")


def _plain(
    name: str,
    row: Callable[[int], Topology],
    in_channels: int,
    classes: int,
    *,
    width: int = 64,
    depth: int = 5,
    ndim: int = 2,
    up: str = "transposed",
    norm: str = "batch",
    padding: str = "same",
    dropout: float = 0.0,
    residual: bool = False,
    merge: str = "concat",
    pools: Sequence[Sequence[int]] | None = None,
) -> SkipGraph:
    """A network of plain encoder stages and plain nodes over any topology."""
    style = Style(ndim=ndim, norm=norm, padding=padding, dropout=dropout, residual=residual)
    widths = _doubling(width, depth)
    halve = name == "unet" and up != "transposed"
    if halve:
        widths[-1] = widths[-2]

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        here = widths[node.level]
        after = here // 2 if halve and node.level else here
        return plain_node(reads, (here, after), style, up=up, merge=merge)

    factors = [(2,) * ndim] * (depth - 1) if pools is None else [tuple(factor) for factor in pools]
    if len(factors) != depth - 1 or any(len(factor) != ndim for factor in factors):
        raise ValueError(f"pools needs {depth - 1} factors of {ndim} axes at depth {depth}, got {pools}")
    encoder = plain_encoder(in_channels, widths, factors, style)
    return _initialised(SkipGraph(row(depth), encoder, make_node, _heads(classes, style), name=name))


def _nested(
    name: str, row: Callable[[int], Topology], in_channels: int, classes: int, options: Options
) -> SkipGraph:
    published: Options = {"width": 32, "norm": "none", "dropout": 0.5}
    return _plain(name, row, in_channels, classes, **(published | options))


def _ending(row: Callable[[int], Topology], supervised: bool) -> Callable[[int], Topology]:
    """The row with all its outputs, or with its last one alone."""
    return row if supervised else lambda depth: (table := row(depth)).pruned(table.outputs[-1])


def _heads(classes: int, style: Style, *, kernel: int = 1, up: str = "bilinear") -> Callable[..., Head]:
    return lambda _, width, stride: Head(width, classes, stride, style, kernel=kernel, up=up)


def _doubling(width: int, depth: int) -> list[int]:
    return [width * 2**level for level in range(depth)]


def _initialised(graph: SkipGraph) -> SkipGraph:
    he_init(graph)
    return graph
