"""Pixel scores, all read off one integer confusion matrix.

Counts stay whole numbers until the last division, so an image of 10⁹ pixels is scored as exactly as one of
64, and adding the matrices of two halves equals the matrix of the whole.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Pixels counted at a time: bincount widens its input to 8 bytes a pixel, and a chunk of that stays in cache.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class PixelScores:
    """How well one class was found, pixel by pixel; `None` where the ratio is 0/0.

    Attributes:
        dice: 2TP / (2TP + FP + FN).
        iou: TP / (TP + FP + FN).
        sensitivity: TP / (TP + FN), also called recall; undefined where the truth lacks the class.
        specificity: TN / (TN + FP); undefined where the truth holds nothing but the class.
        precision: TP / (TP + FP); undefined where nothing was predicted as the class.
        f1: F-score with β = 1, the same number as `dice`.
        f2: F-score with β = 2: 5TP / (5TP + 4FN + FP), which weighs a miss more than a false alarm.
    """

    dice: float | None
    iou: float | None
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None
    f2: float | None


def confusion(
    truth: NDArray[Any], prediction: NDArray[Any], classes: int, *, ignore: int | None = None
) -> NDArray[np.int64]:
    """Count the pixels of every pair (true class, predicted class).

    Args:
        truth: Class indices 0 … classes - 1, any integer type or bool. Shape (*S).
        prediction: The same for the prediction. Shape (*S).
        classes: Number of classes.
        ignore: Value of `truth` whose pixels do not count, whatever was predicted there.

    Returns:
        Matrix of shape (classes, classes), int64; row = truth, column = prediction.

    Raises:
        ValueError: The shapes differ, or an index lies outside 0 … classes - 1.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}; they must be equal")
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    code_type = np.dtype(np.uint8 if classes <= 16 else np.int64)  # 16 · 16 codes fit into one byte
    counts = np.zeros(classes * classes, np.int64)
    for start in range(0, flat_truth.size, _CHUNK):
        rows, columns = flat_truth[start : start + _CHUNK], flat_prediction[start : start + _CHUNK]
        if ignore is not None:
            kept = rows != ignore
            rows, columns = rows[kept], columns[kept]
        _check_indices(rows, classes, "truth")
        _check_indices(columns, classes, "prediction")
        codes = np.multiply(rows, classes, dtype=code_type, casting="unsafe") + columns.astype(code_type)
        counts += np.bincount(codes, minlength=classes * classes)
    return counts.reshape(classes, classes)


def _check_indices(indices: np.ndarray, classes: int, which: str) -> None:
    if not (np.issubdtype(indices.dtype, np.integer) or indices.dtype == np.bool_):
        raise ValueError(f"{which} is {indices.dtype}; class indices must be integers")
    if indices.size and (int(indices.max()) >= classes or int(indices.min()) < 0):
        low, high = int(indices.min()), int(indices.max())
        raise ValueError(f"{which} holds indices {low} … {high}; {classes} classes allow 0 … {classes - 1}")


def scores(matrix: NDArray[np.int64]) -> tuple[PixelScores, ...]:
    """Scores of every class against all others, in the order of the classes.

    With TP, FP, FN, TN of a class: Dice = 2TP / (2TP + FP + FN), IoU = TP / (TP + FP + FN), and so on
    (`PixelScores`).

    Args:
        matrix: Confusion matrix of shape (K, K), row = truth.

    Returns:
        K scores; `None` stands for 0/0.

    >>> scores(np.array([[24, 4], [6, 30]]))[1].iou
    0.75
    >>> scores(np.array([[64, 0], [0, 0]]))[1].dice is None
    True
    """
    return tuple(_one_against_rest(matrix, index) for index in range(len(matrix)))


def _one_against_rest(matrix: NDArray[np.int64], index: int) -> PixelScores:
    tp = int(matrix[index, index])
    fn = int(matrix[index].sum()) - tp
    fp = int(matrix[:, index].sum()) - tp
    tn = int(matrix.sum()) - tp - fn - fp
    f1 = _f_score(tp, fp, fn, beta=1)
    return PixelScores(
        dice=f1,
        iou=_ratio(tp, tp + fp + fn),
        sensitivity=_ratio(tp, tp + fn),
        specificity=_ratio(tn, tn + fp),
        precision=_ratio(tp, tp + fp),
        f1=f1,
        f2=_f_score(tp, fp, fn, beta=2),
    )


def pixel_error(matrix: np.ndarray) -> float | None:
    """Share of pixels whose class is wrong: 1 - trace / sum; `None` when no pixel counts.

    >>> pixel_error(np.array([[24, 4], [6, 30]]))
    0.15625
    """
    total = int(matrix.sum())
    return _ratio(total - int(np.trace(matrix)), total)


def mean_defined(values: Iterable[float | None]) -> tuple[float | None, int]:
    """Mean of the values that exist, and how many exist; the order of the values does not matter.

    >>> mean_defined([1.0, None, 0.5])
    (0.75, 2)
    >>> mean_defined([None])
    (None, 0)
    """
    defined = [value for value in values if value is not None]
    return (math.fsum(defined) / len(defined) if defined else None), len(defined)


def _f_score(tp: int, fp: int, fn: int, beta: int) -> float | None:
    """(1 + β²) TP / ((1 + β²) TP + β² FN + FP)."""
    gain = (1 + beta * beta) * tp
    return _ratio(gain, gain + beta * beta * fn + fp)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
