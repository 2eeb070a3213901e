"""Convolution blocks and what dresses them: norm, padding, dropout, initialisation."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipway.nn.paths import path_of
from skipway.shapes import Grid, Path, advance

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

NORMS = ("batch", "channel_layer", "instance", "group", "none")
PADDINGS = ("same", "valid")
BLOCKS = ("plain", "residual")
GROUPS = 32


def choose(what: str, value: str, choices: Sequence[str]) -> str:
    """`value` when it is one of `choices`.

    Raises:
        ValueError: It is not; the message names the choices.
    """
    if value not in choices:
        raise ValueError(f"{what} cannot be {value!r}; choose one of {', '.join(choices)}")
    return value


@dataclass(frozen=True)
class Style:
    """How every convolution of a network is dressed.

    Attributes:
        ndim: Number of spatial axes, 1 to 3.
        norm: `batch`, `channel_layer` (over the channels of one pixel), `instance`, `group` or `none`.
            Instance and group norm take statistics over space, so that a tile no longer gives what the whole
            image gives.
        padding: `same` (zeros) or `valid` (none: each 3-wide convolution takes a pixel off every side).
        bias: Whether 3-wide convolutions have a bias; None means exactly when there is no norm, which has its
            own.
        dropout: Rate after each ReLU.
        block: `plain`, or `residual`: the block adds its input (through a 1-wide convolution when widths
            differ) before its last ReLU.
    """

    ndim: int = 2
    norm: str = "batch"
    padding: str = "same"
    bias: bool | None = None
    dropout: float = 0.0
    block: str = "plain"

    def __post_init__(self) -> None:
        choose("norm", self.norm, NORMS)
        choose("padding", self.padding, PADDINGS)
        choose("block", self.block, BLOCKS)
        if self.ndim not in (1, 2, 3):
            raise ValueError(f"ndim is the number of spatial axes, 1 to 3, not {self.ndim}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a rate from 0 up to but not including 1, not {self.dropout}")


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each pixel: y = (x − mean_C(x)) / sqrt(var_C(x) + eps) · weight + bias.

    It sees one pixel at a time, so it needs no batch and does not depend on the tile. Shape (B, C, *S) in and
    out.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps
        self.path: Path = ()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (B, C, *S)."""
        rows = x.movedim(1, -1)
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps).movedim(-1, 1)

    def extra_repr(self) -> str:
        """Width and eps, for printing."""
        return f"{self.weight.numel()}, eps={self.eps}"


def make_norm(width: int, style: Style) -> nn.Module | None:
    """The norm of a style for maps of `width` channels, or None."""
    match style.norm:
        case "batch":
            return BATCH_NORMS[style.ndim - 1](width)
        case "instance":
            return INSTANCE_NORMS[style.ndim - 1](width, affine=True)
        case "group":
            return nn.GroupNorm(next(g for g in range(min(GROUPS, width), 0, -1) if width % g == 0), width)
        case "channel_layer":
            return ChannelLayerNorm(width)
        case _:
            return None


def conv(width_in: int, width_out: int, kernel: int, style: Style, *, bias: bool = True) -> nn.Module:
    """Convolution of the style's dimension and padding, with an odd kernel, the same along each axis."""
    padding = kernel // 2 if style.padding == "same" else 0
    return CONVOLUTIONS[style.ndim - 1](width_in, width_out, kernel, padding=padding, bias=bias)


def conv_block(width_in: int, widths: Sequence[int], style: Style) -> nn.Module:
    """3-wide convolutions, each followed by norm, ReLU and dropout where the style has them.

    Args:
        width_in: Channels of the input.
        widths: Channels after each convolution; the last is the width of the block.
        style: Norm, padding, dropout, kind of block.

    Returns:
        Module from (B, width_in, *S) to (B, widths[-1], *S); children are named conv1, norm1, relu1, drop1,
        conv2, ….
    """
    bias = style.norm == "none" if style.bias is None else style.bias
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    source = width_in
    for i, width in enumerate(widths, start=1):
        layers[f"conv{i}"] = conv(source, width, 3, style, bias=bias)
        if (norm := make_norm(width, style)) is not None:
            layers[f"norm{i}"] = norm
        if not (style.block == "residual" and i == len(widths)):
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if style.dropout:
            layers[f"drop{i}"] = nn.Dropout(style.dropout)
        source = width
    body = nn.Sequential(layers)
    return Residual(body, width_in, widths[-1], style) if style.block == "residual" else body


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1-wide convolution with norm when widths differ."""

    def __init__(self, body: nn.Module, width_in: int, width_out: int, style: Style) -> None:
        super().__init__()
        self.body = body
        self.path: Path = path_of(body, style.ndim)
        lost = advance((Grid(),) * style.ndim, self.path)
        self._inside = (..., *(slice(int(g.loss / 2), int(-g.loss / 2) or None) for g in lost))
        self.shortcut = nn.Sequential()
        if width_in != width_out:
            norm = make_norm(width_out, style)
            self.shortcut.add_module("conv", conv(width_in, width_out, 1, style, bias=norm is None))
            if norm is not None:
                self.shortcut.add_module("norm", norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, width_out, *S); S shrinks as the body's does."""
        return F.relu(self.body(x) + self.shortcut(x[self._inside]))


def he_init(model: nn.Module) -> None:
    """Initialise all convolutions of a model: weights ~ N(0, sqrt(2 / N)), biases 0.

    N is the number of incoming connections of one neuron: channels · kernel, and for a transposed convolution
    what of that one output pixel sees, channels · kernel / stride. Draws from torch's global generator.

    Source: Ronneberger et al. 2015, section 3 (after He et al. 2015).
    """
    for module in model.modules():
        if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) or module.weight.is_meta:
            continue  # nothing to draw on the meta device, where normal_ would load the whole compiler
        fan_in = module.in_channels // module.groups * prod(module.kernel_size)
        if isinstance(module, TRANSPOSED):
            fan_in //= prod(module.stride)
        nn.init.normal_(module.weight, std=sqrt(2 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def norm_init(model: nn.Module, std: float) -> None:
    """Draw the scales of all batch norms from N(1, std). Source: the code of UNet 3+ (Huang et al. 2020)."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS) and not module.weight.is_meta:
            nn.init.normal_(module.weight, mean=1.0, std=std)


def norm_of(model: nn.Module) -> str:
    """Name of the first norm in a model, as `Style` calls it."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            return "batch"
        if isinstance(module, INSTANCE_NORMS):
            return "instance"
        if isinstance(module, nn.GroupNorm):
            return "group"
        if isinstance(module, ChannelLayerNorm):
            return "channel_layer"
    return "none"


def tile_exact(model: nn.Module) -> bool:
    """Whether no module looks at the whole map when it predicts.

    Instance and group norm take statistics over it. A module of another kind says so by an attribute
    `tile_exact`.
    """
    return not any(
        isinstance(module, (*INSTANCE_NORMS, nn.GroupNorm)) or getattr(module, "tile_exact", True) is False
        for module in model.modules()
    )
