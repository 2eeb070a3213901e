"""FCN: class scores of several levels, up-sampled and summed; as published on VGG-16, and on a U-Net's encoder."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from skipway import topology
from skipway.models.assemble import between_levels, doubling, initialised
from skipway.nn.encoders import Encoder, PlainEncoder, plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import ScoreHead
from skipway.nn.init import bilinear_init
from skipway.nn.nodes import MergeNode, Read, score_node
from skipway.nn.resample import overlapping, pool, upsample
from skipway.nn.style import Style, choose
from skipway.topology import Node, Topology

Resample = Callable[[Sequence[int]], nn.Module]
"""From a factor per axis to the module that up-samples class scores by it."""

PADDING = 100
"""Zeros around the image of the published networks, so that the 7-wide fc6 finds a place in any image."""


def fcn_32s(
    in_channels: int = 3,
    classes: int = 21,
    *,
    width: int = 64,
    hidden: int | None = None,
    dropout: float = 0.5,
) -> SkipGraph:
    """FCN-32s: the scores of VGG-16's last layer alone, up-sampled by 32.

    No weights are downloaded: the features start as He et al. 2015 draw them. The layers of scores start at
    zero, as published, so in the first step they are all that learns. The bilinear up-sampling is fixed.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the first convolutions; 2, 4, 8 and 8 times as many in the blocks after.
        hidden: Channels of fc6 and fc7; 64 · width unless given.
        dropout: Rate after fc6 and after fc7.

    Source: Long et al. 2015, fig. 3 and section 4; `voc-fcn32s` of the authors'
        fcn.berkeleyvision.org (134,346,581 learned parameters for 3 -> 21).
    """
    return _published("fcn_32s", 4, in_channels, classes, width, hidden, dropout)


def fcn_16s(
    in_channels: int = 3,
    classes: int = 21,
    *,
    width: int = 64,
    hidden: int | None = None,
    dropout: float = 0.5,
    learned_up: bool = False,
) -> SkipGraph:
    """FCN-16s: the scores of FCN-32s up-sampled by 2, plus those of pool4, up-sampled by 16.

    Starts as `fcn_32s` does.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: As for `fcn_32s`.
        hidden: As for `fcn_32s`.
        dropout: As for `fcn_32s`.
        learned_up: Whether the up-sampling between scores starts bilinear and learns, as in the paper's text;
            in the networks that were released it is fixed. The last one is fixed in both.

    Source: Long et al. 2015, fig. 3 and section 4.2; `voc-fcn16s` of the authors'
        fcn.berkeleyvision.org (134,357,354 learned parameters for 3 -> 21).
    """
    return _published("fcn_16s", 3, in_channels, classes, width, hidden, dropout, learned_up)


def fcn_8s(
    in_channels: int = 3,
    classes: int = 21,
    *,
    width: int = 64,
    hidden: int | None = None,
    dropout: float = 0.5,
    learned_up: bool = False,
) -> SkipGraph:
    """FCN-8s: the scores of FCN-16s up-sampled by 2, plus those of pool3, up-sampled by 8.

    Starts as `fcn_32s` does.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: As for `fcn_32s`.
        hidden: As for `fcn_32s`.
        dropout: As for `fcn_32s`.
        learned_up: As for `fcn_16s`.

    Source: Long et al. 2015, fig. 3 and section 4.2; `voc-fcn8s` of the authors'
        fcn.berkeleyvision.org (134,362,751 learned parameters for 3 -> 21).
    """
    return _published("fcn_8s", 2, in_channels, classes, width, hidden, dropout, learned_up)


def fcn(
    in_channels: int = 1,
    classes: int = 2,
    *,
    width: int = 64,
    depth: int = 5,
    stop: int | None = None,
    ndim: int = 2,
    up: str = "bilinear",
    norm: str = "batch",
    padding: str = "same",
    dropout: float = 0.0,
    block: str = "plain",
    pools: Sequence[Sequence[int]] | None = None,
) -> SkipGraph:
    """A light FCN on the U-Net's encoder: what the family gains by concatenation, this one lacks.

    The scores of the deepest level are up-sampled and those of the level above are added, up to level `stop`;
    from there they are up-sampled to the image. No convolution follows a sum.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level; each level below has twice as many.
        depth: Number of levels.
        stop: Finest level whose scores are added: 0 for all of them, depth − 1 for the deepest alone. Unless
            given, two levels above the deepest, as in FCN-8s.
        ndim: Number of spatial axes, 2 or 3.
        up: `bilinear` (along every axis of a volume) or `nearest`.
        norm: See `nn.style.Style`, like `padding`, `dropout` and `block`.
        padding: `same` or `valid`.
        dropout: Rate after each ReLU.
        block: `plain` or `residual`.
        pools: Pooling factor per axis before each level after the first; 2 unless given.

    Source: after Long et al. 2015, fig. 3, on the encoder of Ronneberger et al. 2015; not a published network.
    """
    style = Style(ndim=ndim, norm=norm, padding=padding, dropout=dropout, block=block)
    encoder = plain_encoder(in_channels, doubling(width, depth), between_levels(pools, depth, ndim), style)
    choose("up", up, ("bilinear", "nearest"))

    def resample(factor: Sequence[int]) -> nn.Module:
        return upsample(up, factor, classes, classes)[0]

    table = topology.fcn(depth, max(0, depth - 3) if stop is None else stop)
    return initialised(_sums("fcn", table, encoder, classes, style, resample, resample))


def _published(
    name: str,
    stop: int,
    in_channels: int,
    classes: int,
    width: int,
    hidden: int | None,
    dropout: float,
    learned_up: bool = False,
) -> SkipGraph:
    """One of the three on VGG-16, up-sampling bilinear and scores zero."""
    graph = _sums(
        name,
        topology.fcn(5, stop),
        _vgg16(in_channels, width, hidden or 64 * width, dropout),
        classes,
        Style(norm="none"),
        lambda factor: overlapping(factor, classes, learned=learned_up),
        lambda factor: overlapping(factor, classes),
    )
    initialised(graph)
    bilinear_init(graph)
    for key, parameter in graph.named_parameters():
        if ".score." in key and not parameter.is_meta:
            nn.init.zeros_(parameter)
    return graph


def _sums(
    name: str,
    table: Topology,
    encoder: Encoder,
    classes: int,
    style: Style,
    between: Resample,
    last: Resample,
) -> SkipGraph:
    """A network whose decoder only adds scores: `between` up-samples from sum to sum, `last` to the image."""
    features = {Node(level, 0).key for level in range(len(encoder.widths))}

    def make_node(_: Node, reads: Sequence[Read]) -> MergeNode:
        return score_node(reads, features, classes, style, between)

    def make_head(node: Node, width: int, stride: tuple[int, ...]) -> ScoreHead:
        resample = last(stride) if any(s != 1 for s in stride) else None
        return ScoreHead(width, classes, style, score=node.key in features, resample=resample)

    return SkipGraph(table, encoder, make_node, make_head, name=name)


def _vgg16(in_channels: int, width: int, hidden: int, dropout: float) -> PlainEncoder:
    """VGG-16 with its two hidden layers as convolutions; its levels are the maps after the five poolings.

    Source: `net.py` of the authors' fcn.berkeleyvision.org; Simonyan, Zisserman 2015, table 1, column D.
    """
    stages: dict[str, nn.Module] = {}
    source = in_channels
    for level, count in enumerate((2, 2, 3, 3, 3)):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        here = width * min(2**level, 8)
        for i in range(1, count + 1):
            padding = PADDING if (level, i) == (0, 1) else 1
            layers[f"conv{i}"] = nn.Conv2d(source, here, 3, padding=padding)
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
            source = here
        layers["pool"] = pool((2, 2))
        stages[Node(level, 0).key] = nn.Sequential(layers)
    for i, (kernel, before) in enumerate(((7, source), (1, hidden)), start=6):
        layers[f"fc{i}"] = nn.Conv2d(before, hidden, kernel)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        layers[f"drop{i}"] = nn.Dropout(dropout)
    stages[Node(4, 0).key] = nn.Sequential(layers)
    return PlainEncoder(in_channels, stages, [width, 2 * width, 4 * width, 8 * width, hidden], [(2, 2)] * 5)
