"""Change of resolution by whole factors: pooling or convolution down; transposed, linear or nearest up."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from skipway.nn.blocks import CONVOLUTIONS, TRANSPOSED, Style, choose, plain_block

UPS = ("transposed", "bilinear", "nearest")
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
    kind: str, factor: Sequence[int], width_in: int, width_out: int, style: Style
) -> tuple[nn.Module, int]:
    """Up-sampling by `factor` per axis, between nodes.

    Args:
        kind: As for `upsample`, or `nearest_conv`: nearest, then a 3-wide convolution to `width_out` with the
            norm and the activation of the style.
        factor: Whole factor per axis.
        width_in: Channels of the source.
        width_out: Channels wanted.
        style: Dress of that convolution.

    Returns:
        The module, and the channels it gives.
    """
    if choose("up", kind, STYLED_UPS) != "nearest_conv":
        return upsample(kind, factor, width_in, width_out)
    nearest, _ = upsample("nearest", factor, width_in, width_in)
    block = plain_block(width_in, (width_out,), style)
    return nn.Sequential(OrderedDict(nearest=nearest, block=block)), width_out


def upsample(kind: str, factor: Sequence[int], width_in: int, width_out: int) -> tuple[nn.Module, int]:
    """Up-sampling by `factor` per axis.

    Args:
        kind: `transposed` (kernel = stride = factor, with bias), `bilinear` (linear along every axis of a
            volume, align_corners=False, so that it is local and tiles stay exact) or `nearest`.
        factor: Whole factor per axis.
        width_in: Channels of the source.
        width_out: Channels wanted; only a transposed convolution can change them.

    Returns:
        The module, and the channels it gives.
    """
    choose("up", kind, UPS)
    factors = tuple(factor)
    if kind == "transposed":
        transposed: Any = TRANSPOSED[len(factors) - 1]
        return transposed(width_in, width_out, factors, stride=factors), width_out
    mode = "nearest" if kind == "nearest" else _LINEAR[len(factors) - 1]
    return nn.Upsample(scale_factor=tuple(float(f) for f in factors), mode=mode), width_in
