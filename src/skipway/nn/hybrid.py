"""The encoder of TransUNet: a ResNet with standardised weights, a vision transformer on its coarsest map."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipway.nn.blocks import conv_block
from skipway.nn.norms import GroupNorm
from skipway.nn.paths import path_of
from skipway.nn.style import Style
from skipway.nn.transformer import EPS, GridTransformer
from skipway.shapes import Path, Window
from skipway.topology import Node

STRIDE = 16
"""Pixels of the image per token."""
LEVELS = 5
BOTTLENECK = 4
"""How many times wider a bottleneck unit is outside than inside."""
RGB = 3
POOLED = Node(2, 0).key
"""Level after the pooling without padding."""


class StandardisedConv(nn.Module):
    """Convolution without bias whose weights have mean 0 and variance 1 over the inputs of each output channel.

    Padded by half a kernel, so that sides are divided by the stride.

    Source: Qiao et al. 2019 (Weight Standardization), with the 1e-5 of TransUNet's code.
    """

    def __init__(
        self, width_in: int, width_out: int, kernel: int, stride: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.eps = eps
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, bias=False)
        self.path: Path = path_of(self.conv, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, width_out, *S / stride)."""
        return F.conv2d(x, self.weight(), None, self.conv.stride, self.conv.padding)

    def weight(self) -> Tensor:
        """The weights as they are used."""
        weight = self.conv.weight
        variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (weight - mean) / torch.sqrt(variance + self.eps)

    def multiplications(self, before: Sequence[int], after: Sequence[int]) -> int:
        """Multiplications from a map of sides `before` to one of `after`."""
        return self.conv.weight.numel() * prod(after)


class BottleneckUnit(nn.Module):
    """relu(norm3(conv3(…)) + shortcut(x)): convolutions 1, 3 and 1 wide, the stride on the middle one.

    The shortcut is a convolution with a norm of its own where the shape changes.
    """

    def __init__(self, width_in: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        width = BOTTLENECK * inner
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"], layers["norm1"] = StandardisedConv(width_in, inner, 1), GroupNorm(inner, eps=EPS)
        layers["relu1"] = nn.ReLU(inplace=True)
        layers["conv2"], layers["norm2"] = (
            StandardisedConv(inner, inner, 3, stride),
            GroupNorm(inner, eps=EPS),
        )
        layers["relu2"] = nn.ReLU(inplace=True)
        layers["conv3"], layers["norm3"] = StandardisedConv(inner, width, 1), GroupNorm(width, eps=EPS)
        self.body = nn.Sequential(layers)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width:
            self.shortcut.add_module("conv", StandardisedConv(width_in, width, 1, stride))
            self.shortcut.add_module("norm", GroupNorm(width, groups=width, eps=1e-5))
        self.path: Path = path_of(self.body, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, 4 · inner, *S / stride)."""
        return F.relu(self.body(x) + self.shortcut(x))


class HybridEncoder(nn.Module):
    """Maps of stride 2, 4 and 8 from a ResNet, and of stride 16 from a transformer on top; none of stride 1.

    Build it by `hybrid_encoder`.

    Args:
        in_channels: Channels of the image; an image of one channel is repeated to three.
        stages: Key of each level that has a map -> its stage.
        widths: Channels of each level's map, 0 where it has none.
    """

    def __init__(self, in_channels: int, stages: Mapping[str, nn.Module], widths: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stages = nn.ModuleDict(stages)
        self.widths = tuple(widths)
        self.strides: tuple[tuple[int, ...], ...] = tuple(
            (2**level,) * 2 for level in range(len(self.widths))
        )
        self.paths = tuple(self._path(level) for level in range(len(self.widths)))

    def _path(self, level: int) -> Path:
        key = Node(level, 0).key
        if key not in self.stages:
            return ((Window(2**level, 2**level),) * 2,)
        if key != POOLED:
            return path_of(self.stages[key], 2)
        _, *units = self.stages[key].children()
        return (
            (Window(4, 2, 1),) * 2,
            *path_of(nn.Sequential(*units), 2),
        )  # the row that is filled in, see forward

    def truncated(self, depth: int) -> "HybridEncoder":
        """The same encoder, sharing its weights, with only the first `depth` levels."""
        keys = [Node(level, 0).key for level in range(depth)]
        kept = {key: self.stages[key] for key in keys if key in self.stages}
        return HybridEncoder(self.in_channels, kept, self.widths[:depth])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, widths[i], *S / strides[i]) of the levels that have one, finest first.

        Pooling without padding leaves the map of stride 4 one row and one column short. The stages after it
        take it as it is; the decoder gets it with zeros there.
        """
        if self.in_channels == 1:
            x = x.expand(-1, RGB, -1, -1)
        maps = []
        for key, stage in self.stages.items():
            x = stage(x)
            maps.append(F.pad(x, (0, 1, 0, 1)) if key == POOLED else x)
        return maps


def hybrid_encoder(
    in_channels: int,
    width: int,
    *,
    units: Sequence[int],
    layers: int,
    heads: int,
    grid: Sequence[int],
    dropout: float,
    resnet: bool = True,
) -> HybridEncoder:
    """The encoder of TransUNet.

    Args:
        in_channels: Channels of the image; an image of one channel is repeated to three.
        width: Channels of the ResNet's stem; its stages have 4, 8 and 16 times as many. Also of one head of the
            attention.
        units: Bottleneck units of the three stages.
        layers: Layers of the transformer.
        heads: Heads of each attention; a token has heads · width channels.
        grid: Sides of the grid of tokens that positions are learned for.
        dropout: Rate in the transformer.
        resnet: Whether there is a ResNet below the transformer; without it patches of 16 x 16 pixels of the image
            are the tokens, and there is no map but the coarsest.
    """
    channels = RGB if in_channels == 1 else in_channels
    stages: dict[str, nn.Module] = {}
    widths = [0] * LEVELS
    below: OrderedDict[str, nn.Module] = OrderedDict()
    if resnet:
        root = OrderedDict(
            conv=StandardisedConv(channels, width, 7, 2), norm=GroupNorm(width, eps=EPS), relu=nn.ReLU()
        )
        stages[Node(1, 0).key] = nn.Sequential(root)
        widths[1], channels = width, width
        for level, count in enumerate(units, start=2):
            inner = width * 2 ** (level - 2)
            stage = nn.Sequential(OrderedDict(pool=nn.MaxPool2d(3, 2))) if level == 2 else nn.Sequential()
            for unit in range(count):
                stride = 2 if level > 2 and not unit else 1
                stage.add_module(f"unit{unit + 1}", BottleneckUnit(channels, inner, stride))
                channels = BOTTLENECK * inner
            if level == LEVELS - 1:
                below["units"] = stage
            else:
                stages[Node(level, 0).key], widths[level] = stage, channels
    patch = 1 if resnet else STRIDE
    below["tokens"] = GridTransformer(
        channels, heads * width, patch, grid, layers=layers, heads=heads, dropout=dropout
    )
    below["more"] = conv_block(heads * width, (8 * width,), Style())
    stages[Node(LEVELS - 1, 0).key], widths[-1] = nn.Sequential(below), 8 * width
    return HybridEncoder(in_channels, stages, widths)
