"""Object scores: which true object was found by which predicted one, and how well.

Everything is read off one sparse table of overlaps, made in a single pass over the pixels: runs of equal
(truth, prediction) first, then the few runs are summed. No array of objects × pixels is ever built.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.metrics.pixel import mean_defined

#: 0.50, 0.55 … 0.95 as the nearest floats: a running sum drifts to 0.6000000000000001 and loses exact ties.
AP_THRESHOLDS: tuple[float, ...] = tuple((50 + 5 * k) / 100 for k in range(10))


@dataclass(frozen=True)
class OverlapTable:
    """Areas of all objects and of every non-empty intersection, in pixels. Background (0) is left out.

    Attributes:
        truth_ids: Ids of the T true objects, ascending.
        truth_areas: Their areas, int64 (T,).
        prediction_ids: Ids of the P predicted objects, ascending.
        prediction_areas: Their areas, int64 (P,).
        rows: Position in `truth_ids` of each overlapping pair, (M,).
        columns: Position in `prediction_ids` of each overlapping pair, (M,).
        areas: Shared pixels of each pair, int64 (M,), all positive.
    """

    truth_ids: NDArray[Any]
    truth_areas: NDArray[np.int64]
    prediction_ids: NDArray[Any]
    prediction_areas: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    areas: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each overlapping pair, float64 (M,)."""
        return self.areas / (self.truth_areas[self.rows] + self.prediction_areas[self.columns] - self.areas)


@dataclass(frozen=True)
class Matching:
    """One-to-one matches at one IoU threshold.

    Attributes:
        threshold: Smallest IoU that counts as found (≥).
        tp: Matched pairs.
        fp: Predicted objects without a partner.
        fn: True objects without a partner.
        iou_sum: Sum of the IoU of the matched pairs.
        pairs: (true id, predicted id) of the matches.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    iou_sum: float
    pairs: tuple[tuple[int, int], ...]

    @property
    def ap(self) -> float | None:
        """TP / (TP + FP + FN); `None` when neither side holds an object. StarDist calls it accuracy."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else None

    @property
    def f1(self) -> float | None:
        """2TP / (2TP + FP + FN), the recognition quality RQ."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    @property
    def sq(self) -> float | None:
        """Segmentation quality: mean IoU of the matches; `None` without a match."""
        return self.iou_sum / self.tp if self.tp else None

    @property
    def pq(self) -> float | None:
        """Panoptic quality: IoU sum / (TP + FP/2 + FN/2); `None` when neither side holds an object."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.iou_sum / total if total else None


@dataclass(frozen=True)
class ObjectScores:
    """Object scores of one image; `None` where there is nothing to score.

    Attributes:
        ap50: AP at IoU ≥ 0.5.
        ap75: AP at IoU ≥ 0.75.
        mean_ap: Mean of AP over the ten thresholds 0.50, 0.55 … 0.95 (the score of DSB 2018).
        pq: Panoptic quality at 0.5.
        sq: Segmentation quality at 0.5.
        rq: Recognition quality at 0.5.
        seg: SEG of the Cell Tracking Challenge.
        truth: Number of true objects.
        predicted: Number of predicted objects.
    """

    ap50: float | None
    ap75: float | None
    mean_ap: float | None
    pq: float | None
    sq: float | None
    rq: float | None
    seg: float | None
    truth: int
    predicted: int


def components(foreground: NDArray[Any]) -> NDArray[np.int32]:
    """Number the connected parts of a mask; pixels are neighbours when they share an edge (a face in 3-D).

    Args:
        foreground: Everything but 0 is foreground. Shape (*S).

    Returns:
        Instances 1 … n in scan order, 0 = background, int32 (*S).

    >>> components(np.array([[1, 1, 0], [0, 0, 1]])).tolist()
    [[1, 1, 0], [0, 0, 2]]
    """
    from scipy import ndimage

    return ndimage.label(foreground)[0]


def overlap_table(truth: NDArray[Any], prediction: NDArray[Any]) -> OverlapTable:
    """Areas and intersections of all objects of two instance maps, in time that grows with the pixels.

    Args:
        truth: Instances, 0 = background, any other value one object; gaps are fine. Shape (*S).
        prediction: The same for the prediction. Shape (*S).

    Returns:
        The table; ids of the two maps need not agree.

    Raises:
        ValueError: The shapes differ, or an array does not hold integers.

    >>> overlap_table(np.array([0, 7, 7, 7]), np.array([3, 3, 3, 0])).areas.tolist()
    [2]
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}; they must be equal")
    for which, array in (("truth", truth), ("prediction", prediction)):
        if not np.issubdtype(array.dtype, np.integer) and array.dtype != np.bool_:
            raise ValueError(f"{which} is {array.dtype}; instance maps hold integers")
    starts, lengths = _runs(truth.reshape(-1), prediction.reshape(-1))
    truth_ids, rows, truth_areas = _summed(truth.reshape(-1)[starts], lengths)
    prediction_ids, columns, prediction_areas = _summed(prediction.reshape(-1)[starts], lengths)
    both = (truth_ids[rows] != 0) & (prediction_ids[columns] != 0)
    width = max(prediction_ids.size, 1)
    codes, _, areas = _summed(rows[both] * width + columns[both], lengths[both])
    # Positions move down by one where they lie behind the background, which is dropped from the lists of ids.
    truth_shift, prediction_shift = np.cumsum(truth_ids == 0), np.cumsum(prediction_ids == 0)
    return OverlapTable(
        truth_ids=truth_ids[truth_ids != 0],
        truth_areas=truth_areas[truth_ids != 0],
        prediction_ids=prediction_ids[prediction_ids != 0],
        prediction_areas=prediction_areas[prediction_ids != 0],
        rows=codes // width - truth_shift[codes // width],
        columns=codes % width - prediction_shift[codes % width],
        areas=areas,
    )


def _runs(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Start and length of every stretch of pixels over which both arrays are constant."""
    change = first[1:] != first[:-1]
    change |= second[1:] != second[:-1]
    starts = np.concatenate(([0] if first.size else [], np.flatnonzero(change) + 1)).astype(np.int64)
    return starts, np.diff(starts, append=first.size)


def _summed(keys: NDArray[Any], weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Distinct keys (ascending), position of each key among them, and the summed weight of each."""
    distinct, positions = _distinct(keys)
    sums = np.bincount(positions, weights, minlength=distinct.size)  # float64 is exact below 2⁵³ pixels
    return distinct, positions, sums.astype(np.int64)


def _distinct(keys: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Distinct keys (ascending) and the position of each key among them; by a table where ids are dense."""
    if not keys.size or int(keys.min()) < 0 or int(keys.max()) > 16 * keys.size:
        return np.unique(keys, return_inverse=True)
    present = np.zeros(int(keys.max()) + 1, bool)
    present[keys] = True
    return np.flatnonzero(present).astype(keys.dtype), (np.cumsum(present) - 1)[keys]


def match(table: OverlapTable, threshold: float = 0.5) -> Matching:
    """Pair true and predicted objects one to one: as many pairs as possible, then the largest sum of IoU.

    Args:
        table: Overlaps.
        threshold: Smallest IoU of a pair (≥), above 0.

    Returns:
        The matching.

    Raises:
        ValueError: `threshold` is not in (0, 1].

    Source: StarDist `matching.py` (Hungarian assignment). Above 0.5 every pair is unique, so the assignment
    is solved only among objects with more than one candidate.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"IoU threshold {threshold} is outside (0, 1]")
    iou = table.iou
    candidates = np.flatnonzero(iou >= threshold)
    rows, columns = table.rows[candidates], table.columns[candidates]
    contested = (np.bincount(rows)[rows] > 1) | (np.bincount(columns)[columns] > 1)
    chosen = np.concatenate((candidates[~contested], _assign(table, iou, candidates[contested])))
    tp = int(chosen.size)
    ids = zip(table.truth_ids[table.rows[chosen]], table.prediction_ids[table.columns[chosen]], strict=True)
    return Matching(
        threshold=threshold,
        tp=tp,
        fp=int(table.prediction_ids.size) - tp,
        fn=int(table.truth_ids.size) - tp,
        iou_sum=float(np.sort(iou[chosen]).sum()),
        pairs=tuple(sorted((int(t), int(p)) for t, p in ids)),
    )


def _assign(table: OverlapTable, iou: NDArray[Any], candidates: NDArray[Any]) -> NDArray[Any]:
    """The candidates kept by the best one-to-one assignment among them."""
    from scipy.optimize import linear_sum_assignment

    if not candidates.size:
        return candidates
    truths, rows = np.unique(table.rows[candidates], return_inverse=True)
    predictions, columns = np.unique(table.columns[candidates], return_inverse=True)
    gain = np.zeros((truths.size, predictions.size))
    gain[rows, columns] = 1 + iou[candidates] / (
        2 * min(gain.shape)
    )  # the IoU term never outweighs one match
    position = np.full(gain.shape, -1)
    position[rows, columns] = candidates
    kept = position[linear_sum_assignment(gain, maximize=True)]
    return kept[kept >= 0]


def seg(table: OverlapTable) -> float | None:
    """SEG: mean over the true objects R of |R ∩ S| / |R ∪ S| with the S where |R ∩ S| > |R| / 2, else 0.

    Args:
        table: Overlaps.

    Returns:
        The score in [0, 1]; `None` without a true object.

    Source: Cell Tracking Challenge, definition of SEG (Maška et al. 2014).
    """
    if not table.truth_ids.size:
        return None
    found = 2 * table.areas > table.truth_areas[table.rows]
    return float(np.sort(table.iou[found]).sum() / table.truth_ids.size)


def det(table: OverlapTable) -> float | None:
    """DET = 1 - min(AOGM-D, AOGM-D0) / AOGM-D0: detection alone, with splits 5, misses 10, false alarms 1.

    S is assigned to R when |R ∩ S| > |R| / 2. AOGM-D = 5·(extra assignments of a prediction to more than one
    true object) + 10·(true objects without one) + 1·(predictions without one); AOGM-D0 = 10·(true objects).

    Args:
        table: Overlaps.

    Returns:
        The score in [0, 1]; `None` without a true object.

    Source: Cell Tracking Challenge, definition of DET (Matula et al. 2015).
    """
    if not table.truth_ids.size:
        return None
    columns = table.columns[2 * table.areas > table.truth_areas[table.rows]]
    used = np.unique(columns).size
    missed = table.truth_ids.size - columns.size
    cost = 5 * (columns.size - used) + 10 * missed + (table.prediction_ids.size - used)
    worst = 10 * table.truth_ids.size
    return 1 - min(cost, worst) / worst


def average_precision(truth: NDArray[Any], prediction: NDArray[Any], threshold: float = 0.5) -> float | None:
    """AP = TP / (TP + FP + FN) of two instance maps at one IoU threshold; `None` when both are empty.

    Args:
        truth: Instances, 0 = background. Shape (*S).
        prediction: Instances, 0 = background. Shape (*S).
        threshold: Smallest IoU that counts as found (≥).

    Returns:
        The score in [0, 1].

    >>> average_precision(np.array([1, 1, 0, 2]), np.array([9, 9, 0, 0]))
    0.5
    """
    return match(overlap_table(truth, prediction), threshold).ap


def object_scores(truth: NDArray[Any], prediction: NDArray[Any]) -> ObjectScores:
    """All object scores of one image.

    Args:
        truth: Instances, 0 = background. Shape (*S).
        prediction: Instances, 0 = background. Shape (*S).

    Returns:
        AP at 0.5 and 0.75, mean AP, PQ = SQ · RQ, SEG, and the number of objects; all scores `None` when both
        maps are empty.

    Raises:
        ValueError: As for `overlap_table`.

    >>> object_scores(np.array([1, 1, 0, 2]), np.array([9, 9, 0, 0])).ap50
    0.5
    """
    table = overlap_table(truth, prediction)
    matchings = {threshold: match(table, threshold) for threshold in AP_THRESHOLDS}
    half = matchings[0.5]
    return ObjectScores(
        ap50=half.ap,
        ap75=matchings[0.75].ap,
        mean_ap=mean_defined(matching.ap for matching in matchings.values())[0],
        pq=half.pq,
        sq=half.sq,
        rq=half.f1,
        seg=seg(table),
        truth=int(table.truth_ids.size),
        predicted=int(table.prediction_ids.size),
    )
