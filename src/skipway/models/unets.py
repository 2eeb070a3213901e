"""U-Nets: as published in 2015 and 2016, as used today, the wide one of UNet++, and one to teach with."""

from collections.abc import Sequence
from typing import Unpack

from skipway import topology
from skipway.models.assemble import Options, between_levels, doubling, heads, initialised, plain_network
from skipway.nn.encoders import plain_encoder, pooled_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.nodes import MergeNode, Read, plain_node
from skipway.nn.style import Style
from skipway.topology import Node, Topology


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
    widths = doubling(width, depth)
    table = topology.unet(depth)
    if released:
        table = Topology({node: sources[::-1] for node, sources in table.reads.items()}, table.outputs)

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        kept = widths[1] if released and not node.level else None
        return plain_node(reads, (widths[node.level],) * 2, style, up_width=kept, up_relu=released)

    encoder = plain_encoder(
        in_channels, widths, [(2, 2)] * (depth - 1), style, dropout={depth - 2: dropout, depth - 1: dropout}
    )
    return initialised(SkipGraph(table, encoder, make_node, heads(classes, style), name="unet_2015"))


def unet(in_channels: int = 1, classes: int = 2, **options: Unpack[Options]) -> SkipGraph:
    """The U-Net as it is used today: same padding and batch norm; sizes in and out are equal.

    With up-sampling that has no weights (`bilinear`, `bilinear_aligned`, `nearest`) and cannot change the number of
    channels, every block of the decoder halves them for the level above, and the deepest level has as many as
    the one above it.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        **options: See `Options`; the defaults are width 64, depth 5, transposed up-sampling, batch norm.

    Source: Ronneberger et al. 2015, with padding and norm as in milesial/Pytorch-UNet (31,037,698 for 3 ->
        2).
    """
    return plain_network("unet", topology.unet, in_channels, classes, halve=True, **options)


def wide_unet(in_channels: int = 1, classes: int = 1, **options: Unpack[Options]) -> SkipGraph:
    """The wide U-Net: widths 35 to 560, so that UNet++ is compared with a U-Net of its own size.

    The paper says 9.13M parameters. That does not follow from the widths it gives: they make 9,282,246, which
    is also what the authors' code says.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        **options: See `Options`; the defaults are width 35, depth 5, transposed up-sampling, no norm and, as
            in the authors' code, dropout 0.5 after each ReLU. Up-sampling as for `unet`.

    Source: Zhou et al. 2018, table 2 (widths 35, 70, 140, 280, 560); `wU_Net` of the authors' code.
    """
    published: Options = {"width": 35, "norm": "none", "dropout": 0.5}
    return plain_network(
        "wide_unet", topology.unet, in_channels, classes, halve=True, **(published | options)
    )


def unet_two_level(in_channels: int = 1, classes: int = 1, *, width: int = 64) -> SkipGraph:
    """A U-Net to teach with: two poolings, one convolution at the bottom, nearest up-sampling; grey, sigmoid.

    Two 3-wide convolutions with ReLU at each level on the way down and up, zero padding, no norm. The bottom
    has one convolution of 4 · width channels. Maps are up-sampled by repetition, which keeps their channels,
    and stand behind the skip in the concatenation. Like every builder it returns logits: the sigmoid belongs
    to the loss. It is drawn for grey images of 256², but takes every size that 4 divides.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the finest level, doubled at the second and again at the bottom.

    Source: no paper; Ronneberger et al. 2015 cut down to what fits on a slide (1,291,905 parameters).
    """
    style = Style(norm="none")
    widths = doubling(width, 3)
    blocks = [(widths[0],) * 2, (widths[1],) * 2, (widths[2],)]

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        return plain_node(reads, blocks[node.level], style, up="nearest")

    encoder = pooled_encoder(in_channels, blocks, [(2, 2)] * 2, style)
    table = topology.unet(3)
    return initialised(SkipGraph(table, encoder, make_node, heads(classes, style), name="unet_two_level"))


def unet_3d_2016(
    in_channels: int = 3,
    classes: int = 3,
    *,
    width: int = 32,
    depth: int = 4,
    ndim: int = 3,
    norm: str = "batch",
    padding: str = "valid",
    pools: Sequence[Sequence[int]] | None = None,
) -> SkipGraph:
    """The 3-D U-Net: channels doubled before each pooling, batch norm; 132 × 132 × 116 voxels give 44 × 44 × 28.

    The second convolution of each level doubles the channels, up-convolutions keep theirs and have no bias.
    The paper normalises by the batch's own statistics when it predicts as well, which made tiles depend on
    each other; here the running averages are used, as everywhere.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        width: Channels of the first convolution; the second has twice as many, and so has each level below.
        depth: Number of levels.
        ndim: Number of spatial axes; 2 gives the network in the plane that the paper compares with.
        norm: See `nn.style.Style`.
        padding: `valid` as published, or `same`: sizes in and out are equal.
        pools: Pooling factor per axis before each level after the first, for voxels that are not cubes; 2
            unless given.

    Source: Çiçek et al. 2016, fig. 2 and section 2.1 (19,069,955 parameters for 3 -> 3 without the scales and
        shifts of batch norm, 19,074,627 with them).
    """
    style = Style(ndim=ndim, norm=norm, padding=padding, bias=True)
    blocks = [(narrow, 2 * narrow) for narrow in doubling(width, depth)]
    encoder = pooled_encoder(in_channels, blocks, between_levels(pools, depth, ndim), style)

    def make_node(node: Node, reads: Sequence[Read]) -> MergeNode:
        wide = blocks[node.level][-1]
        return plain_node(reads, (wide, wide), style, up_width=reads[-1].width, up_bias=False)

    table = topology.unet(depth)
    return initialised(SkipGraph(table, encoder, make_node, heads(classes, style), name="unet_3d_2016"))
