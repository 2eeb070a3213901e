"""TransUNet: the U-Net's decoder over a ResNet with a transformer on top."""

from collections.abc import Sequence

from skipway import topology
from skipway.models.assemble import heads as make_heads
from skipway.models.assemble import initialised
from skipway.nn.graph import SkipGraph
from skipway.nn.hybrid import LEVELS, STRIDE, hybrid_encoder
from skipway.nn.nodes import MergeNode, Read, plain_node
from skipway.nn.style import Style
from skipway.topology import Node


def trans_unet(
    in_channels: int = 1,
    classes: int = 9,
    *,
    width: int = 64,
    units: Sequence[int] = (3, 4, 9),
    layers: int = 12,
    heads: int = 12,
    size: int = 224,
    dropout: float = 0.1,
    resnet: bool = True,
) -> SkipGraph:
    """TransUNet: a transformer looks at the whole image between a ResNet and the U-Net's decoder.

    R50-ViT-B/16 at 224 pixels unless told otherwise. `layers=24, heads=16` is R50-ViT-L/16; `resnet=False` is ViT-B/16
    alone, without skips. Other sizes than `size` interpolate what was learned about positions.

    Args:
        in_channels: Channels of the image; an image of one channel is repeated to three.
        classes: Number of output channels.
        width: Channels of the ResNet's stem and of one head of the attention.
        units: Bottleneck units of the three stages of the ResNet.
        layers: Layers of the transformer.
        heads: Heads of each attention; a token has heads · width channels.
        size: Side of the images that positions are learned for, a multiple of 16.
        dropout: Rate in the transformer.
        resnet: Whether there is a ResNet below the transformer.

    Source: Chen et al. 2021, fig. 1 and section 3; parts as in the authors' code (105,277,081 parameters with 9
        classes).
    """
    if size <= 0 or size % STRIDE:
        raise ValueError(f"size is a side of images in pixels, a multiple of {STRIDE}, not {size}")
    if len(units) != LEVELS - 2:
        raise ValueError(f"units needs one number for each of {LEVELS - 2} stages, got {list(units)}")
    style = Style()
    encoder = hybrid_encoder(
        in_channels,
        width,
        units=units,
        layers=layers,
        heads=heads,
        grid=(size // STRIDE,) * 2,
        dropout=dropout,
        resnet=resnet,
    )
    widths = (max(1, width // 4), width, 2 * width, 4 * width)

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        return plain_node(reads, (widths[node.level],) * 2, style, up="bilinear_aligned")

    table = topology.unet(LEVELS)
    return initialised(
        SkipGraph(table, encoder, make_node, make_heads(classes, style, kernel=3), name="trans_unet")
    )


def trans_unet_small(
    in_channels: int = 1,
    classes: int = 2,
    *,
    width: int = 16,
    units: Sequence[int] = (2, 2, 2),
    layers: int = 4,
    heads: int = 4,
    size: int = 256,
    dropout: float = 0.1,
) -> SkipGraph:
    """TransUNet, small enough to learn on a CPU: the same parts, a quarter of the width, a third of the layers.

    Args:
        in_channels: Channels of the image; an image of one channel is repeated to three.
        classes: Number of output channels.
        width: As for `trans_unet`.
        units: As for `trans_unet`.
        layers: As for `trans_unet`.
        heads: As for `trans_unet`.
        size: As for `trans_unet`.
        dropout: As for `trans_unet`.

    Source: Chen et al. 2021; the sizes are ours.
    """
    return trans_unet(
        in_channels,
        classes,
        width=width,
        units=units,
        layers=layers,
        heads=heads,
        size=size,
        dropout=dropout,
    )
