"""The U-Net: as published in 2015, and as it is used today."""

from collections.abc import Sequence
from typing import Unpack

from skipway import topology
from skipway.models.assemble import Options, doubling, heads, initialised, plain_network
from skipway.nn.blocks import Style
from skipway.nn.encoders import plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.nodes import MergeNode, Read, plain_node
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

    With `bilinear` or `nearest` up-sampling, which cannot change the number of channels, every block of the
    decoder halves them for the level above, and the deepest level has as many as the one above it.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        **options: See `Options`; the defaults are width 64, depth 5, transposed up-sampling, batch norm.

    Source: Ronneberger et al. 2015, with padding and norm as in milesial/Pytorch-UNet (31,037,698 for 3 ->
        2).
    """
    halve = options.get("up", "transposed") in ("bilinear", "nearest")
    return plain_network("unet", topology.unet, in_channels, classes, halve=halve, **options)
