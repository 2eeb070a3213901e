"""Blocks: convolutions with norm, activation and dropout, wired in the ways that papers have found."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from skipway.nn.layers import Recurrent, Residual, activation, conv
from skipway.nn.norms import make_norm
from skipway.nn.style import Sides, Style, has_bias, per_axis

AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


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
    uses: int = 1,
) -> nn.Sequential:
    """Convolutions, each followed by norm, activation and dropout where the style has them.

    Arguments as of `conv_block`; `closed` is whether the last convolution has an activation, for without one it
    can be added to something; `uses` is how often one pass runs the block (see `make_norm`). Children are named
    conv1, norm1, act1, drop1, conv2, ….
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    source = width_in
    for i, width in enumerate(widths, start=1):
        at = stride if i == 1 else 1
        layers[f"conv{i}"] = conv(source, width, kernel, style, stride=at, bias=has_bias(style))
        if (norm := make_norm(width, style, uses)) is not None:
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
) -> Residual:
    """The block adds its input to its last convolution, then activates the sum.

    Arguments as of `conv_block`; `pooled` is whether a strided block averages its input to the smaller grid,
    instead of taking every stride-th pixel of it.

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
) -> Residual:
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
        body = plain_block(widths[-1], widths[-1:], style, kernel=kernel, uses=style.recurrences + 1)
        units[f"unit{i}"] = Recurrent(body, style.recurrences, style.ndim)
    return nn.Sequential(units)


def _strided(stride: Sides, style: Style) -> bool:
    return any(s != 1 for s in per_axis(stride, style.ndim))


def _check_stride(style: Style, kernel: Sides, stride: Sides) -> None:
    """Both ways through a block must read the same pixels, or its path would tell only half of them."""
    if not _strided(stride, style):
        return
    if style.padding == "valid":
        raise ValueError(
            "a block with a stride that adds its input needs same padding, or the sum would be shifted"
        )
    if any(s > k for k, s in zip(per_axis(kernel, style.ndim), per_axis(stride, style.ndim), strict=True)):
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
        layers.add_module("pool", AVERAGES[style.ndim - 1](per_axis(stride, style.ndim)))
        strided, stride = False, 1
    if width_in != width_out or strided:
        norm = make_norm(width_out, style)
        layers.add_module("conv", conv(width_in, width_out, 1, style, stride=stride, bias=norm is None))
        if norm is not None:
            layers.add_module("norm", norm)
    return layers
