"""Whether foreground and background are exchanged in some masks: what is marked is bright in most, and dark in those.

Brightness alone does not tell: a data set may hold dark things on bright ground beside bright things on dark ground. So
a mask must be the reverse of the others in a second way, too: the ground is one wide piece and what is marked lies in
pieces upon it, or the other way round; or the share that is marked is what the others leave unmarked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from skipway.data.sketch import Grey, Labels

CLEAR = 0.1
"""Difference from chance, or between two shares, from which a side is taken."""


@dataclass(frozen=True)
class Polarity:
    """How what is marked differs from the ground, on a sketch.

    Attributes:
        brighter: Chance that a marked pixel is brighter than one of the ground, less ½; in ±½.
        whole: Share of the ground that is its largest piece, less the same of what is marked; in ±1.
        pieces: Of the ground.
        marked: Share of the pixels that is marked.
    """

    brighter: float
    whole: float
    pieces: int
    marked: float


def polarity(grey: Grey, labels: Labels, ignore: int | None = None) -> tuple[float, ...]:
    """The fields of a `Polarity`; nothing where a sketch has one side only or is not finite.

    Args:
        grey: Sketch of the image, (h, w).
        labels: The mask at the same places.
        ignore: Value of pixels without annotation.
    """
    known = labels != ignore if ignore is not None else np.ones(labels.shape, bool)
    if grey.shape != labels.shape or not known.any() or not np.isfinite(grey).all():
        return ()
    ground = known & (labels == labels[known].min())
    marked = known & ~ground
    if not ground.any() or not marked.any():
        return ()
    ranks = stats.rankdata(np.concatenate([grey[marked], grey[ground]]))
    n, m = np.count_nonzero(marked), np.count_nonzero(ground)
    brighter = (float(ranks[:n].sum()) - n * (n + 1) / 2) / (n * m) - 0.5
    pieces, largest = _pieces(ground)
    return brighter, largest - _pieces(marked)[1], pieces, n / (n + m)


def _pieces(where: NDArray[Any]) -> tuple[int, float]:
    """Connected pieces, and the share of the largest."""
    numbered, count = ndimage.label(where)
    sizes = np.bincount(numbered.ravel())[1:]
    return count, float(sizes.max() / sizes.sum())


def together(found: Sequence[tuple[float, ...]]) -> Polarity | None:
    """That of a stack: the median of its slices."""
    known = [one for one in found if one]
    if not known:
        return None
    brighter, whole, pieces, marked = (median(column) for column in zip(*known, strict=True))
    return Polarity(brighter, whole, int(pieces), marked)


def reversed_ones(found: Mapping[str, Polarity]) -> list[str]:
    """Names of those that are the reverse of most others, a third of all at most.

    >>> usual, other = Polarity(0.4, 0.6, 1, 0.2), Polarity(-0.4, -0.6, 5, 0.8)
    >>> reversed_ones({"a": usual, "b": usual, "c": other, "d": usual})
    ['c']
    """
    if not found:
        return []
    bright, whole, share = (
        median(getattr(one, name) for one in found.values()) for name in ("brighter", "whole", "marked")
    )
    if abs(bright) < CLEAR:
        return []
    names = [
        name
        for name, one in found.items()
        if one.brighter * bright < 0
        and abs(one.brighter) > CLEAR
        and (
            (one.whole * whole < 0 and min(abs(one.whole), abs(whole)) > CLEAR)
            or (abs(share - 0.5) > CLEAR and abs(one.marked - (1 - share)) < CLEAR)
        )
    ]
    return names if len(names) <= len(found) // 3 else []
