"""Heads: from a node's features to logits on the grid of the image."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from skipway.nn.layers import conv
from skipway.nn.paths import path_of
from skipway.nn.resample import upsample
from skipway.nn.style import Style
from skipway.shapes import Path


class AnyHead(Protocol):
    """What the executor asks of a head; a module with these attributes.

    Attributes:
        classes: Channels of the logits.
        path: Size arithmetic from the node to the logits.
    """

    classes: int
    path: Path

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (B, classes, *S) for a node's map."""


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


class ScoreHead(nn.Module):
    """Brings class scores to the image's grid; makes them first where the node holds features.

    Args:
        width: Channels of the node.
        classes: Number of output channels.
        style: Dimension.
        score: Whether the node holds features, which a 1-wide convolution turns into scores.
        resample: Up-samples scores to the image's grid; None where the node is on it.
    """

    def __init__(
        self, width: int, classes: int, style: Style, *, score: bool, resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.classes = classes
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if score:
            layers["score"] = conv(width, classes, 1, style)
        if resample is not None:
            layers["resample"] = resample
        self.layers = nn.Sequential(layers)
        self.path: Path = path_of(self.layers, style.ndim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *S / stride) to logits (B, classes, *S), or larger for the graph to crop."""
        return self.layers(features)
