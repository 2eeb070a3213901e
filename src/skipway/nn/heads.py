"""Heads: from a node's features to logits on the grid of the image."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from skipway.nn.blocks import Style, conv
from skipway.nn.paths import path_of
from skipway.nn.resample import upsample
from skipway.shapes import Path


class Head(nn.Module):
    """A convolution to one channel a class, then up-sampling to the image's grid where the node is coarser.

    Args:
        width: Channels of the node.
        classes: Number of output channels.
        stride: Stride of the node per axis.
        style: Dimension and padding.
        kernel: Side of the convolution, odd.
        up: Kind of up-sampling, `bilinear` or `nearest`.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        stride: Sequence[int],
        style: Style,
        *,
        kernel: int = 1,
        up: str = "bilinear",
    ) -> None:
        super().__init__()
        self.classes = classes
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv(width, classes, kernel, style))
        if any(s != 1 for s in stride):
            layers["resample"], _ = upsample(up, stride, classes, classes)
        self.layers = nn.Sequential(layers)
        self.path: Path = path_of(self.layers, style.ndim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *S / stride) to logits (B, classes, *S)."""
        return self.layers(features)
