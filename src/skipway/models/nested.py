"""Members with more skips than the U-Net: U-Net^e, UNet+, UNet++ and UNet 3+."""

from collections.abc import Sequence
from typing import Unpack

from skipway import topology
from skipway.models.assemble import Options, Row, ending, family_encoder, heads, initialised, plain_network
from skipway.nn.graph import SkipGraph
from skipway.nn.init import norm_init
from skipway.nn.nodes import MergeNode, Read, full_scale_node
from skipway.nn.presence import Presence
from skipway.nn.style import Style
from skipway.topology import Node


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
    return _nested("unet_plus", ending(topology.unet_plus, supervised), in_channels, classes, options)


def unet_plus_plus(
    in_channels: int = 1, classes: int = 1, *, supervised: bool = False, **options: Unpack[Options]
) -> SkipGraph:
    """UNet++: the triangle of nodes with dense skips; supervised, it can be pruned to any level.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        supervised: Whether every node of the finest level carries a head.
        **options: See `Options`; the defaults are width 32, depth 5, transposed up-sampling, no norm and, as
            in the authors' code, dropout 0.5 after each ReLU; with a backbone those of `Options`.

    Source: Zhou et al. 2018, eq. 1; Zhou et al. 2020 (9,041,601 parameters; 9,041,700 supervised).
    """
    return _nested(
        "unet_plus_plus", ending(topology.unet_plus_plus, supervised), in_channels, classes, options
    )


def unet_3_plus(
    in_channels: int = 3,
    classes: int = 1,
    *,
    width: int = 64,
    depth: int | None = None,
    ndim: int = 2,
    up: str = "bilinear",
    norm: str = "batch",
    backbone: str | None = None,
    stem: bool = False,
    supervised: bool = False,
    guided: bool = False,
) -> SkipGraph:
    """UNet 3+: every decoder node reads every scale, each through `width` channels.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level, doubled each level below, and of every branch of a decoder node.
        depth: Number of levels; 5, or all that the backbone has, unless given.
        ndim: Number of spatial axes, 2 or 3.
        up: `bilinear` or `nearest`.
        norm: See `nn.style.Style`.
        backbone: See `Options`; each node then has as many branches as there are maps to read.
        stem: See `Options`.
        supervised: Whether every decoder node and the bottom of the encoder carry a head, up-sampled to the
            image.
        guided: Whether the bottom of the encoder also says if the image holds any foreground, and empties all
            outputs where it says no: the classification-guided module. Its logits (B, 2) are the first
            output. As published it gates in training as in prediction, so an image that it calls empty
            teaches the segmentation nothing in that step; and tiles are judged one by one.

    Source: Huang et al. 2020, eq. 1, fig. 2 and the classification-guided module (26,971,777
        parameters for 3 -> 1; 26,989,637 supervised; 26,991,687 guided too).
    """
    style = Style(ndim=ndim, norm=norm, bias=True)
    options: Options = {"width": width, "depth": depth, "backbone": backbone, "stem": stem}
    encoder = family_encoder(in_channels, style, options)

    def make_node(_: Node, reads: Sequence[Read]) -> MergeNode:
        return full_scale_node(reads, width, style, up=up)

    depth = len(encoder.widths)
    gate = (Node(depth - 1, 0), Presence(encoder.widths[-1], style)) if guided else None
    make_head = heads(classes, style, kernel=3, up=up)
    table = ending(topology.unet_3_plus, supervised)(depth)
    graph = SkipGraph(table, encoder, make_node, make_head, name="unet_3_plus", gate=gate)
    initialised(graph)
    norm_init(graph.nodes if backbone else graph, std=0.02)
    return graph


def _nested(name: str, row: Row, in_channels: int, classes: int, options: Options) -> SkipGraph:
    published: Options = {"width": 32, "norm": "none", "dropout": 0.5}
    if options.get("backbone"):
        published = {}
    return plain_network(name, row, in_channels, classes, **(published | options))
