"""Multi-scale structural similarity (MS-SSIM) of two maps with values from 0 to 1, in any number of dimensions."""

from math import exp

import torch
from torch import Tensor

from skipway.losses.rules import class_maps, refuse

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponent of each scale, finest first."""
SIDE, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window, pixels."""
C1, C2 = 0.01**2, 0.03**2
"""(K1 L)² and (K2 L)² for a range of values L = 1."""
FLOOR = 1e-6
"""Least value of a factor: one below zero has no real power, and at zero its slope is infinite."""


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity of each image and channel.

    MS-SSIM = Π_{j<M} mean(cs_j)^β_j · mean(l_M cs_M)^β_M, from the finest scale 1 to the coarsest M, with

        l  = (2 μ_x μ_y + C1) / (μ_x² + μ_y² + C1)        luminance
        cs = (2 σ_xy + C2) / (σ_x² + σ_y² + C2)           contrast and structure

    and μ, σ under a Gaussian window of 11 pixels, σ = 1.5, at every place where it fits into the map. Each
    scale is the one before, averaged over 2 pixels along each axis. Means below `FLOOR` are raised to it.

    Rules for small maps: a scale is used while every side is at least 11 pixels on it, so all five need a
    shortest side of 11 · 2⁴ = 176; the exponents of those used are divided by their sum. Along a side below 11
    the window is cut to the largest odd number of pixels that fits.

    Args:
        x: (B, C, *S), values from 0 to 1.
        y: (B, C, *S).

    Returns:
        (B, C), at most 1, and 1 where the maps are equal. One scale alone is the SSIM.

    Source: Wang, Simoncelli, Bovik 2003, eq. 7; constants of Wang et al. 2004 (SSIM).

    >>> x = torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32)
    >>> [round(ms_ssim(x, y).item(), 4) for y in (x, x**2, 1 - x)]
    [1.0, 0.7986, 0.0]
    """
    shortest = min(x.shape[2:])
    count = max(1, sum(shortest >= SIDE * 2**scale for scale in range(len(SCALES))))
    result = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(SCALES[:count], start=1):
        luminance, structure = _terms(x, y)
        factor = (structure if scale < count else luminance * structure).flatten(2).mean(2)
        result = result * factor.clamp_min(FLOOR) ** (weight / sum(SCALES[:count]))
        if scale < count:
            x, y = _halved(x), _halved(y)
    return result


def ms_ssim_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """One minus the MS-SSIM of probability maps and truth, mean over images and classes but background.

    Where nothing is known both maps are 0, so that they agree there; a window that reaches across sees the
    zeros. See `ms_ssim` for images below 176 pixels.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: Refused.

    Returns:
        A scalar in [0, 1]; 0 with zero gradient when every pixel is ignored.

    Raises:
        ValueError: There are weights.

    Source: Huang et al. 2020, full-scale deep supervision.
    """
    refuse(weights, "ms_ssim_loss")
    return 1 - ms_ssim(*class_maps(logits, target)).mean()


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Maps l and cs, (B, C, *S'), at every place where the window fits."""
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blurred(torch.stack([x, y, x * x, y * y, x * y])).unbind()
    covariance = mean_xy - mean_x * mean_y
    variances = (mean_xx - mean_x**2) + (mean_yy - mean_y**2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)


def _blurred(maps: Tensor) -> Tensor:
    """Gaussian means of (5, B, C, *S) along every spatial axis.

    A product with a banded matrix per axis: on a CPU a fiftieth of the time of a convolution of one channel.
    """
    for axis in range(3, maps.ndim):
        maps = (maps.movedim(axis, -1) @ _band(maps.shape[axis], maps)).movedim(-1, axis)
    return maps


def _band(length: int, like: Tensor) -> Tensor:
    """Matrix (length, length − side + 1) whose columns are the window at each place where it fits."""
    side = min(SIDE, length - (length + 1) % 2)
    window = [exp(-((i - side // 2) ** 2) / (2 * SIGMA**2)) for i in range(side)]
    band = like.new_zeros(length, length - side + 1)
    for i, value in enumerate(window):
        band.diagonal(-i).fill_(value / sum(window))
    return band


def _halved(x: Tensor) -> Tensor:
    """Mean over blocks of 2 pixels along each axis; an odd last pixel is left out."""
    for axis in range(2, x.ndim):
        half = x.shape[axis] // 2
        x = x.narrow(axis, 0, 2 * half).unflatten(axis, (half, 2)).mean(axis + 1)
    return x
