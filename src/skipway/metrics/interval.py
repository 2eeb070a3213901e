"""How far the mean of a score over images can be trusted."""

import math
from collections.abc import Hashable, Sequence

SHARE = 0.95
"""Of intervals: how often they hold the mean of images like these, if these were drawn by chance."""


def mean_interval(values: Sequence[float], units: Sequence[Hashable]) -> tuple[float, float] | None:
    """The 95 % interval of a mean over images, where images of one unit (patient, slide) are alike.

    With S_g the sum over the n_g values of unit g, N values in all, G units and mean m,
    se² = G / (G − 1) · Σ_g (S_g − n_g m)² / N², and the interval is m ± t_{0.975, G−1} se. With one value a
    unit this is Student's interval.

    Args:
        values: Scores.
        units: The unit of each.

    Returns:
        Its ends; None for fewer than two units.

    >>> [round(end, 3) for end in mean_interval([0.7, 0.8, 0.9], "abc")]
    [0.552, 1.048]
    >>> [round(end, 3) for end in mean_interval([0.7, 0.7, 0.8, 0.8, 0.9, 0.9], "aabbcc")]
    [0.552, 1.048]
    """
    from scipy.stats import t

    counts: dict[Hashable, int] = {}
    sums: dict[Hashable, float] = {}
    for value, unit in zip(values, units, strict=True):
        counts[unit] = counts.get(unit, 0) + 1
        sums[unit] = sums.get(unit, 0.0) + value
    total, number = len(values), len(counts)
    if number < 2:
        return None
    mean = math.fsum(values) / total
    squares = math.fsum((sums[unit] - counts[unit] * mean) ** 2 for unit in counts)
    half = float(t.ppf((1 + SHARE) / 2, number - 1)) * math.sqrt(number / (number - 1) * squares) / total
    return mean - half, mean + half
