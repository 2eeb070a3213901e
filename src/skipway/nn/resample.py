"""Change of resolution by whole factors: max-pooling down; transposed convolution, linear or nearest up."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from skipway.nn.blocks import TRANSPOSED, choose

UPS = ("transposed", "bilinear", "nearest", "bilinear_aligned")
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_LINEAR = ("linear", "bilinear", "trilinear")


def pool(factor: Sequence[int]) -> nn.Module:
    """Max-pooling by `factor` per axis, windows disjoint."""
    return _POOLS[len(factor) - 1](tuple(factor))


def upsample(kind: str, factor: Sequence[int], width_in: int, width_out: int) -> tuple[nn.Module, int]:
    """Up-sampling by `factor` per axis.

    Args:
        kind: `transposed` (kernel = stride = factor, with bias), `bilinear` (linear along every axis of a
            volume, align_corners=False, so that it is local and tiles stay exact), `nearest`, or
            `bilinear_aligned`, which is `bilinear` with the corners of both maps in one place
            (align_corners=True), as some published networks have it; tiles are not exact with it.
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
    aligned = True if kind == "bilinear_aligned" else None
    return nn.Upsample(
        scale_factor=tuple(float(f) for f in factors), mode=mode, align_corners=aligned
    ), width_in
