"""Convolution blocks and what dresses them: norm, padding, dropout, initialisation."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipway.nn.paths import path_of
from skipway.shapes import Grid, Path, advance

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)

NORMS = ("batch", "channel_layer", "instance", "group", "none")
PADDINGS = ("same", "valid")
BLOCKS = ("plain", "residual", "residual_each", "preactivation", "recurrent", "recurrent_residual")
ACTIVATIONS = ("relu", "leaky_relu", "prelu")
GROUPS = 32
LEAK = 0.01
"""Slope of `leaky_relu` below zero."""

Sides = int | Sequence[int]
"""A kernel or a stride: the same along each axis, or one number per axis."""


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
        bias: Whether the convolutions of blocks and gates have a bias; None means exactly when there is no
            norm, which has its own.
        dropout: Rate after each activation.
        block: `plain`; `residual`: the block adds its input (through a 1-wide convolution when widths differ)
            before its last activation; `residual_each`: each of its convolutions does;
            `preactivation`: norm and activation come before each convolution, the input is added last;
            `recurrent`: each convolution is used again on the sum of its input and its output;
            `recurrent_residual`: recurrent, and the block adds its input.
        activation: `relu`, `leaky_relu` (slope 0.01 below zero) or `prelu` (a learned slope per channel).
        recurrences: How often a recurrent convolution is used again.
    """

    ndim: int = 2
    norm: str = "batch"
    padding: str = "same"
    bias: bool | None = None
    dropout: float = 0.0
    block: str = "plain"
    activation: str = "relu"
    recurrences: int = 2

    def __post_init__(self) -> None:
        choose("norm", self.norm, NORMS)
        choose("padding", self.padding, PADDINGS)
        choose("block", self.block, BLOCKS)
        choose("activation", self.activation, ACTIVATIONS)
        if self.padding == "valid" and self.block in ("recurrent", "recurrent_residual"):
            raise ValueError(
                f"a {self.block} block adds its output to its input, so it cannot lose pixels; "
                "use padding 'same'"
            )
        if self.recurrences < 0:
            raise ValueError(f"recurrences is a number of uses, 0 or more, not {self.recurrences}")
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


class InstanceNorm(nn.Module):
    """Norm over the pixels of each channel of each image: y = (x − mean_S(x)) / sqrt(var_S(x) + eps) · w + b.

    The same function as torch's InstanceNorm with `affine`, computed as a group norm with one channel a
    group: that keeps the channels-last layout, and takes a map of a single pixel. Shape (B, C, *S) in and out.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps
        self.path: Path = ()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (B, C, *S)."""
        return torch.group_norm(x, self.weight.numel(), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Width and eps, for printing."""
        return f"{self.weight.numel()}, eps={self.eps}"


INSTANCE_NORMS = (InstanceNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def make_norm(width: int, style: Style) -> nn.Module | None:
    """The norm of a style for maps of `width` channels, or None."""
    match style.norm:
        case "batch":
            return BATCH_NORMS[style.ndim - 1](width)
        case "instance":
            return InstanceNorm(width)
        case "group":
            return nn.GroupNorm(next(g for g in range(min(GROUPS, width), 0, -1) if width % g == 0), width)
        case "channel_layer":
            return ChannelLayerNorm(width)
        case _:
            return None


def activation(width: int, style: Style, *, inplace: bool = True) -> nn.Module:
    """The activation of a style for maps of `width` channels; never in place on a map that others read."""
    match style.activation:
        case "leaky_relu":
            return nn.LeakyReLU(LEAK, inplace)
        case "prelu":
            return nn.PReLU(width)
        case _:
            return nn.ReLU(inplace)


def conv(
    width_in: int, width_out: int, kernel: Sides, style: Style, *, stride: Sides = 1, bias: bool = True
) -> nn.Module:
    """Convolution of the style's dimension and padding; kernel and stride are given once or per axis.

    Raises:
        ValueError: A kernel is even, so that its output would lie between the pixels.
    """
    kernels, strides = _per_axis(kernel, style), _per_axis(stride, style)
    if any(k % 2 == 0 for k in kernels):
        raise ValueError(f"a convolution needs odd kernels to stay on its grid, not {kernel}")
    padding: Any = tuple(k // 2 for k in kernels) if style.padding == "same" else 0
    return CONVOLUTIONS[style.ndim - 1](width_in, width_out, kernels, strides, padding, bias=bias)


def conv_block(
    width_in: int,
    widths: Sequence[int],
    style: Style,
    *,
    kernel: Sides = 3,
    stride: Sides = 1,
    opening: bool = False,
) -> nn.Module:
    """Convolutions, as many as there are widths, wired as the block of the style says.

    Args:
        width_in: Channels of the input.
        widths: Channels after each convolution; the last is the width of the block. A recurrent block has
            that width throughout.
        style: Norm, activation, padding, dropout, kind of block.
        kernel: Side of the convolutions, odd.
        stride: Of the first convolution.
        opening: Whether the block reads the image itself, so that norm and activation before the first
            convolution are left out of a pre-activation block.

    Returns:
        Module from (B, width_in, *S) to (B, widths[-1], *S / stride).

    Raises:
        ValueError: A kernel is even, or the block adds its input and its stride does not go with its kernel
            or padding.
    """
    match style.block:
        case "residual":
            return residual_block(width_in, widths, style, kernel=kernel, stride=stride)
        case "residual_each":
            return residual_each_block(width_in, widths, style, kernel=kernel, stride=stride)
        case "preactivation":
            return preactivation_block(width_in, widths, style, kernel=kernel, stride=stride, opening=opening)
        case "recurrent":
            return recurrent_block(width_in, widths, style, kernel=kernel, stride=stride)
        case "recurrent_residual":
            return recurrent_residual_block(width_in, widths, style, kernel=kernel, stride=stride)
        case _:
            return plain_block(width_in, widths, style, kernel=kernel, stride=stride)


def plain_block(
    width_in: int,
    widths: Sequence[int],
    style: Style,
    *,
    kernel: Sides = 3,
    stride: Sides = 1,
    closed: bool = True,
) -> nn.Sequential:
    """Convolutions, each followed by norm, activation and dropout where the style has them.

    Args:
        width_in: See `conv_block`, like all that follow but the last.
        widths: …
        style: …
        kernel: …
        stride: …
        closed: Whether the last convolution has an activation; without one it can be added to something.

    Returns:
        Children are named conv1, norm1, act1, drop1, conv2, ….
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    source = width_in
    for i, width in enumerate(widths, start=1):
        at = stride if i == 1 else 1
        layers[f"conv{i}"] = conv(source, width, kernel, style, stride=at, bias=has_bias(style))
        if (norm := make_norm(width, style)) is not None:
            layers[f"norm{i}"] = norm
        if closed or i < len(widths):
            layers[f"act{i}"] = activation(width, style)
        if style.dropout:
            layers[f"drop{i}"] = nn.Dropout(style.dropout)
        source = width
    return nn.Sequential(layers)


def residual_block(
    width_in: int,
    widths: Sequence[int],
    style: Style,
    *,
    kernel: Sides = 3,
    stride: Sides = 1,
    pooled: bool = False,
) -> "Residual":
    """The block adds its input to its last convolution, then activates the sum.

    Args:
        width_in: See `conv_block`, like all that follow but the last.
        widths: …
        style: …
        kernel: …
        stride: …
        pooled: Whether a strided block averages its input to the smaller grid, instead of taking every
            stride-th pixel of it.

    Source: He et al. 2016, "Deep residual learning", fig. 2; `pooled` after He, T. et al. 2019, ResNet-D.
    """
    _check_stride(style, kernel, stride)
    width = widths[-1]
    body = plain_block(width_in, widths, style, kernel=kernel, stride=stride, closed=False)
    way = shortcut(width_in, width, style, stride=stride, pooled=pooled)
    return Residual(body, way, activation(width, style), style.ndim)


def residual_each_block(
    width_in: int, widths: Sequence[int], style: Style, *, kernel: Sides = 3, stride: Sides = 1
) -> nn.Sequential:
    """Each convolution adds its own input: y = ReLU(norm(W x + b) + x). Arguments as of `conv_block`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    source, bare = width_in, replace(style, dropout=0.0)
    for i, width in enumerate(widths, start=1):
        at = stride if i == 1 else 1
        layers[f"unit{i}"] = residual_block(source, (width,), bare, kernel=kernel, stride=at)
        if style.dropout:
            layers[f"drop{i}"] = nn.Dropout(style.dropout)
        source = width
    return nn.Sequential(layers)


def preactivation_block(
    width_in: int,
    widths: Sequence[int],
    style: Style,
    *,
    kernel: Sides = 3,
    stride: Sides = 1,
    opening: bool = False,
) -> "Residual":
    """Norm, activation, convolution, as many times as there are widths, plus the input; nothing after the sum.

    Arguments as of `conv_block`. The shortcut is a 1-wide convolution without norm or bias where width or
    grid change.

    Source: He et al. 2016, "Identity mappings", fig. 1b; Zhang et al. 2018, fig. 1b and fig. 2.
    """
    _check_stride(style, kernel, stride)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    source = width_in
    for i, width in enumerate(widths, start=1):
        if i > 1 or not opening:
            if (norm := make_norm(source, style)) is not None:
                layers[f"norm{i}"] = norm
            layers[f"act{i}"] = activation(source, style, inplace=norm is not None or i > 1)
            if style.dropout:
                layers[f"drop{i}"] = nn.Dropout(style.dropout)
        at = stride if i == 1 else 1
        layers[f"conv{i}"] = conv(source, width, kernel, style, stride=at, bias=has_bias(style))
        source = width
    way = nn.Sequential()
    if width_in != source or _strided(stride, style):
        way.add_module("conv", conv(width_in, source, 1, style, stride=stride, bias=False))
    return Residual(nn.Sequential(layers), way, nn.Identity(), style.ndim)


def recurrent_block(
    width_in: int, widths: Sequence[int], style: Style, *, kernel: Sides = 3, stride: Sides = 1
) -> nn.Sequential:
    """A 1-wide convolution to the width of the block, then recurrent convolutions, one for each width.

    Arguments as of `conv_block`; how often a convolution is used again is `Style.recurrences`.

    Source: Alom et al. 2018, fig. 4b.
    """
    enter = conv(width_in, widths[-1], 1, style, stride=stride)
    return nn.Sequential(OrderedDict(enter=enter, units=_recurrent_units(widths, style, kernel)))


def recurrent_residual_block(
    width_in: int, widths: Sequence[int], style: Style, *, kernel: Sides = 3, stride: Sides = 1
) -> nn.Sequential:
    """The recurrent block, with the output of the 1-wide convolution added to that of the last unit.

    Arguments as of `conv_block`.

    Source: Alom et al. 2018, fig. 4d; wired as in LeeJunHyun/Image_Segmentation, where the sum is not
        activated.
    """
    enter = conv(width_in, widths[-1], 1, style, stride=stride)
    units = Residual(_recurrent_units(widths, style, kernel), nn.Sequential(), nn.Identity(), style.ndim)
    return nn.Sequential(OrderedDict(enter=enter, units=units))


def _recurrent_units(widths: Sequence[int], style: Style, kernel: Sides) -> nn.Sequential:
    units: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, len(widths) + 1):
        body = plain_block(widths[-1], widths[-1:], style, kernel=kernel)
        units[f"unit{i}"] = Recurrent(body, style.recurrences, style.ndim)
    return nn.Sequential(units)


def has_bias(style: Style) -> bool:
    """Whether the convolutions of a style have a bias."""
    return style.norm == "none" if style.bias is None else style.bias


def _per_axis(value: Sides, style: Style) -> tuple[Any, ...]:
    return (value,) * style.ndim if isinstance(value, int) else tuple(value)


def _strided(stride: Sides, style: Style) -> bool:
    return any(s != 1 for s in _per_axis(stride, style))


def _check_stride(style: Style, kernel: Sides, stride: Sides) -> None:
    """Both ways through a block must read the same pixels, or its path would tell only half of them."""
    if not _strided(stride, style):
        return
    if style.padding == "valid":
        raise ValueError(
            "a block with a stride that adds its input needs same padding, or the sum would be shifted"
        )
    if any(s > k for k, s in zip(_per_axis(kernel, style), _per_axis(stride, style), strict=True)):
        raise ValueError(
            f"a block of stride {stride} that adds its input needs a kernel as wide, not {kernel}"
        )


def shortcut(
    width_in: int, width_out: int, style: Style, *, stride: Sides = 1, pooled: bool = False
) -> nn.Sequential:
    """What a residual block adds: its input, brought to the block's width and grid where these differ.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the block.
        style: Norm after the 1-wide convolution.
        stride: Of the block.
        pooled: Whether averaging does the stride, and the convolution only the width.
    """
    layers = nn.Sequential()
    strided = _strided(stride, style)
    if strided and pooled:
        layers.add_module("pool", AVERAGES[style.ndim - 1](_per_axis(stride, style)))
        strided, stride = False, 1
    if width_in != width_out or strided:
        norm = make_norm(width_out, style)
        layers.add_module("conv", conv(width_in, width_out, 1, style, stride=stride, bias=norm is None))
        if norm is not None:
            layers.add_module("norm", norm)
    return layers


class Residual(nn.Module):
    """act(body(x) + shortcut(x)).

    Args:
        body: Module from (B, width_in, *S) to (B, width_out, *S').
        shortcut: Module to the same channels and grid; what valid convolutions take off in the body is
            cropped before it.
        act: Applied to the sum.
        ndim: Number of spatial axes.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, act: nn.Module, ndim: int) -> None:
        super().__init__()
        self.body = body
        self.path: Path = path_of(body, ndim)
        lost = advance((Grid(),) * ndim, self.path)
        self._inside = (..., *(slice(int(g.loss / 2), int(-g.loss / 2) or None) for g in lost))
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, width_out, *S'); S' is the body's."""
        return self.act(self.body(x) + self.shortcut(x[self._inside]))


class Repeat(nn.Module):
    """Channel i of the output is channel i mod C of the input: a shortcut to more channels without weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.path: Path = ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to (B, width, *S)."""
        times = -(-self.width // x.shape[1])
        return torch.cat([x] * times, dim=1)[:, : self.width]


class Recurrent(nn.Module):
    """y = f(x), then `times` times y = f(x + y), always with the same weights.

    The norm in f, if any, is shared too: its running statistics are those of all uses together.

    Args:
        body: f, from (B, width, *S) to the same shape.
        times: How often f is used again.
        ndim: Number of spatial axes.

    Source: Alom et al. 2018, eq. 1 to 3, unfolded as in fig. 4b.
    """

    def __init__(self, body: nn.Module, times: int, ndim: int) -> None:
        super().__init__()
        self.body = body
        self.times = times
        self.path: Path = path_of(body, ndim) * (times + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same shape."""
        y = self.body(x)
        for _ in range(self.times):
            y = self.body(x + y)
        return y

    def extra_repr(self) -> str:
        """Number of uses, for printing."""
        return f"times={self.times}"


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

    Instance and group norm take statistics over it; up-sampling with aligned corners has a step that depends
    on its size. A module of another kind, such as one with attention, says so by an attribute `tile_exact`.
    """
    return not any(
        isinstance(module, (*INSTANCE_NORMS, nn.GroupNorm))
        or (isinstance(module, nn.Upsample) and module.align_corners)
        or getattr(module, "tile_exact", True) is False
        for module in model.modules()
    )
