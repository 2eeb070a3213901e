"""Whether probabilities mean what they say, and the one number that mends most of it.

A network that says 0.9 should be right nine times out of ten. The temperature T divides its logits: T > 1 makes it
less sure, T < 1 surer, and no class changes, because z / T has the same largest entry as z.

Source: Guo et al. 2017, On calibration of modern neural networks (temperature scaling; expected calibration error).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of equal width over the confidences from 0 to 1."""

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures are looked for between these; masks found without an error would ask for 0."""

STEPS, PRECISION = 60, 1e-7
"""At most so many steps to a temperature, and the relative change that ends them; six or seven are the rule."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Reliability:
    """How confidence and truth agree.

    Attributes:
        ece: Σ_b n_b / N · |share right in b − mean confidence in b| over the bins b.
        nll: Mean of −log p(true class).
        bins: (pixels, mean confidence, share right) of each bin; (0, 0, 0) where it is empty.
    """

    ece: float
    nll: float
    bins: tuple[tuple[int, float, float], ...]


def choices(
    logits: Floats, truth: NDArray[np.integer[Any]], *, overlapping: bool = False
) -> tuple[Floats, NDArray[np.int64]]:
    """Every decision of a network as a choice between two or more: a sigmoid of z is the softmax of (0, z).

    Args:
        logits: (n, K).
        truth: (n,) class indices; sets Σ 2^k where classes overlap.
        overlapping: Whether each channel has a sigmoid of its own.

    Returns:
        Logits (m, C) with C ≥ 2, and the right choices (m,); m = n K where classes overlap, else n.

    >>> choices(np.array([[2.0, -1.0]]), np.array([2]), overlapping=True)[1].tolist()
    [0, 1]
    """
    right: NDArray[np.int64] = truth.astype(np.int64)
    if overlapping:
        right = ((right[:, None] >> np.arange(logits.shape[1], dtype=np.int64)) & 1).ravel()
        logits = logits.reshape(-1, 1)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return logits, right


def fit_temperature(logits: Floats, truth: NDArray[np.int64]) -> float:
    """T with the least cross-entropy of logits / T, between `LOWEST` and `HIGHEST`.

    In β = 1 / T the cross-entropy is convex, with the slope E[Σ_c p_c z_c − z_truth] and the curvature E[Var_p z]:
    Newton's steps, and the middle of the bracket where one would leave it. (SciPy's root finders would do as well;
    importing them takes longer than all of this.)

    Args:
        logits: (n, C), C ≥ 2.
        truth: (n,) class indices.
    """
    z = _below_largest(logits)
    right = float(z[truth, np.arange(len(truth))].mean())

    def slopes(beta: float) -> tuple[float, float]:
        shares = np.exp(beta * z)
        shares /= shares.sum(axis=0)
        mean = (shares * z).sum(axis=0)
        return float(mean.mean()) - right, float(((shares * z * z).sum(axis=0) - mean**2).mean())

    low, high, beta = 1 / HIGHEST, 1 / LOWEST, 1.0
    if slopes(low)[0] >= 0:
        return HIGHEST
    if slopes(high)[0] <= 0:
        return LOWEST
    for _ in range(STEPS):
        slope, curvature = slopes(beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        newton = beta - slope / curvature if curvature > 0 else math.inf
        before, beta = beta, newton if low < newton < high else math.sqrt(low * high)
        if abs(beta - before) < PRECISION * beta:
            break
    return 1 / beta


def reliability(
    logits: Floats, truth: NDArray[np.int64], temperature: float | Floats = 1.0, bins: int = BINS
) -> Reliability:
    """Agreement of the probabilities of logits / T with the truth.

    Args:
        logits: (n, C), C ≥ 2.
        truth: (n,) class indices.
        temperature: T, one or (n,).
        bins: Bins of equal width (low, high] for the probability of the chosen class.
    """
    z = _below_largest(logits) / np.asarray(temperature, np.float64)
    log_sum = np.log(np.exp(z).sum(axis=0))
    chosen = z.argmax(axis=0)
    confidence = np.exp(-log_sum)  # the logit of the chosen class is 0
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    share = np.bincount(place, weights=chosen == truth, minlength=bins) / np.maximum(counts, 1)
    mean = np.bincount(place, weights=confidence, minlength=bins) / np.maximum(counts, 1)
    return Reliability(
        ece=float((counts / len(truth) * np.abs(share - mean)).sum()),
        nll=float((log_sum - z[truth, np.arange(len(truth))]).mean()),
        bins=tuple(zip(counts.tolist(), mean.tolist(), share.tolist(), strict=True)),
    )


def _below_largest(logits: Floats) -> NDArray[np.float64]:
    """Logits (C, n) in double precision, less the largest of each pixel; classes first, which sums fast."""
    z = np.array(logits.T, np.float64, order="C")
    z -= z.max(axis=0)
    return z
