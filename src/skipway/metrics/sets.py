"""Scores of classes that overlap."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.metrics.pixel import PixelScores, confusion, scores


def class_scores(
    truth: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]], classes: int
) -> tuple[PixelScores, ...]:
    """Scores of each class against its own absence.

    Args:
        truth: Sets of class indices, (*S), below 0 where nothing is annotated.
        prediction: Sets of class indices, (*S).
        classes: Number of classes.

    >>> [one.dice for one in class_scores(np.array([3, 2]), np.array([1, 2]), 2)]
    [1.0, 0.6666666666666666]
    """
    known = truth >= 0
    truth, prediction = truth[known], prediction[known]
    bits = (
        [side >> side.dtype.type(k) & side.dtype.type(1) for side in (truth, prediction)]
        for k in range(classes)
    )
    return tuple(scores(confusion(true, found, 2))[1] for true, found in bits)
