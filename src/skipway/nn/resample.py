"""Change of resolution by whole factors: pooling or convolution down; transposed, linear or nearest up."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from skipway.nn.blocks import plain_block
from skipway.nn.layers import CONVOLUTIONS, TRANSPOSED
from skipway.nn.style import Style, choose

WEIGHTLESS = ("bilinear", "nearest", "bilinear_aligned")
"""Kinds of up-sampling that keep the number of channels."""
UPS = ("transposed", *WEIGHTLESS)
STYLED_UPS = (*UPS, "nearest_conv")
"""Kinds of up-sampling between nodes; heads have no norm or activation and take `UPS` only."""
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_LINEAR = ("linear", "bilinear", "trilinear")


def pool(factor: Sequence[int]) -> nn.Module:
    """Max-pooling by `factor` per axis, windows disjoint."""
    return _POOLS[len(factor) - 1](tuple(factor))


def down_conv(factor: Sequence[int], width_in: int, width_out: int, *, bias: bool = True) -> nn.Module:
    """Convolution whose kernel is its stride, `factor` per axis: each pixel is read once."""
    convolution: Any = CONVOLUTIONS[len(factor) - 1]
    return convolution(width_in, width_out, tuple(factor), stride=tuple(factor), bias=bias)


def upsample_in_style(
    kind: str, factor: Sequence[int], width_in: int, width_out: int, style: Style, *, bias: bool = True
) -> tuple[nn.Module, int]:
    """Up-sampling by `factor` per axis, between nodes.

    Args:
        kind: As for `upsample`, or `nearest_conv`: nearest, then a 3-wide convolution to `width_out` with the
            norm and the activation of the style.
        factor: Whole factor per axis.
        width_in: Channels of the source.
        width_out: Channels wanted.
        style: Dress of that convolution.
        bias: Whether a transposed convolution has one.

    Returns:
        The module, and the channels it gives.
    """
    if choose("up", kind, STYLED_UPS) != "nearest_conv":
        return upsample(kind, factor, width_in, width_out, bias=bias)
    nearest, _ = upsample("nearest", factor, width_in, width_in)
    block = plain_block(width_in, (width_out,), style)
    return nn.Sequential(OrderedDict(nearest=nearest, block=block)), width_out


def upsample(
    kind: str, factor: Sequence[int], width_in: int, width_out: int, *, bias: bool = True
) -> tuple[nn.Module, int]:
    """Up-sampling by `factor` per axis.

    Args:
        kind: `transposed` (kernel = stride = factor), `bilinear` (linear along every axis of a
            volume, align_corners=False, so that it is local and tiles stay exact), `nearest`, or
            `bilinear_aligned`, which is `bilinear` with the corners of both maps in one place
            (align_corners=True), as some published networks have it; tiles are not exact with it.
        factor: Whole factor per axis.
        width_in: Channels of the source.
        width_out: Channels wanted; only a transposed convolution can change them.
        bias: Whether a transposed convolution has one.

    Returns:
        The module, and the channels it gives.
    """
    choose("up", kind, UPS)
    factors = tuple(factor)
    if kind == "transposed":
        transposed: Any = TRANSPOSED[len(factors) - 1]
        return transposed(width_in, width_out, factors, stride=factors, bias=bias), width_out
    mode = "nearest" if kind == "nearest" else _LINEAR[len(factors) - 1]
    aligned = True if kind == "bilinear_aligned" else None
    return nn.Upsample(
        scale_factor=tuple(float(f) for f in factors), mode=mode, align_corners=aligned
    ), width_in


def overlapping(factor: Sequence[int], width: int, *, learned: bool = False) -> nn.Module:
    """Up-sampling as in FCN: a transposed convolution of kernel 2 · factor and stride `factor`, without bias.

    n pixels become factor · (n + 1): half a factor more on either side than they cover, for a crop to take
    off. `init.bilinear_init` makes it linear interpolation.

    Args:
        factor: Whole factor per axis.
        width: Channels, which stay as they are.
        learned: Whether its kernels learn and mix channels. Otherwise there is one a channel, held as a
            buffer: in the state dict, but out of an optimiser's reach and no parameter.

    Source: Long et al. 2015, section 3.3.
    """
    factors = tuple(factor)
    transposed: Any = TRANSPOSED[len(factors) - 1]
    kernel, groups = tuple(2 * f for f in factors), 1 if learned else width
    module: Any = transposed(width, width, kernel, stride=factors, groups=groups, bias=False)
    if not learned:
        kernels = module.weight.detach()
        del module.weight
        module.register_buffer("weight", kernels)
    return module
