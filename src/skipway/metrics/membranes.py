"""Scores of membrane maps, ISBI 2012 and after: do the walls enclose the right regions?

Pixel scores hardly notice a gap of three pixels that joins two cells. V_rand and V_info compare the *regions*
that the walls enclose, over the pixels that the truth calls interior. Both are read off the overlap table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.metrics.objects import OverlapTable, components, overlap_table
from skipway.metrics.pixel import mean_defined

#: Thresholds at which an interior probability is cut: 0, 0.1 … 1.
EM_THRESHOLDS: tuple[float, ...] = tuple(k / 10 for k in range(11))

_BORDER, _UNSEEN, _QUEUED, _OUTSIDE = 0, -1, -2, -3


@dataclass(frozen=True)
class RandScore:
    """Foreground-restricted Rand score.

    Attributes:
        precision: Falls when predicted regions merge true ones.
        recall: Falls when predicted regions split true ones.
        score: Harmonic mean, V_rand.
    """

    precision: float | None
    recall: float | None
    score: float | None


@dataclass(frozen=True)
class InfoScore:
    """Foreground-restricted information score.

    Attributes:
        precision: I / H(T), falls with merges; `None` when the truth is one region.
        recall: I / H(S), falls with splits; `None` when the prediction is one region.
        score: 2I / (H(T) + H(S)), V_info; `None` when both are one region.
        variation: H(T) + H(S) - 2I, variation of information in nats; 0 is perfect.
    """

    precision: float | None
    recall: float | None
    score: float | None
    variation: float | None


@dataclass(frozen=True)
class MembraneScores:
    """V_rand and V_info of one image, `None` where undefined."""

    v_rand: float | None
    v_info: float | None


def segments(interior: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Regions of a wall map: 4-connected parts of the interior, walls stay 0.

    Args:
        interior: True inside, False on walls. Shape (H, W).

    Returns:
        Regions 1 … n, int32 (H, W).
    """
    return components(interior)


def thin(interior: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Regions after every wall was thinned to one pixel: watershed of the inverted map, 4-connected.

    Regions grow into the walls breadth first; a pixel that touches two different regions when its turn comes
    becomes wall (0). Wall that separates nothing disappears. A map without interior is one region.

    Args:
        interior: True inside, False on walls. Shape (H, W).

    Returns:
        Regions 1 … n, 0 on the thin walls, int32 (H, W).

    Source: Vincent and Soille 1991 on a two-level image, visited column by column as in Fiji's
    `WatershedTransform2D`, the tool that scored the ISBI 2012 challenge.

    >>> thin(np.array([[1, 0, 0, 0, 1]], bool)).tolist()
    [[1, 1, 0, 2, 2]]
    """
    from scipy import ndimage

    regions = segments(interior)
    if not regions.any():
        return np.ones_like(regions)
    # Transposed: the flood starts column by column. Framed: no neighbour needs a bounds check.
    upright = np.ascontiguousarray(np.where(regions > 0, regions, _UNSEEN).T)
    framed = np.pad(upright, 1, constant_values=_OUTSIDE)
    touching = (framed == _UNSEEN) & ndimage.binary_dilation(framed > 0)
    framed[touching] = _QUEUED
    _flood(framed.reshape(-1).data, np.flatnonzero(touching).tolist(), framed.shape[1])
    return np.ascontiguousarray(framed[1:-1, 1:-1].T)


def _flood(labels: memoryview, queue: list[int], stride: int) -> None:
    """Grow the regions of a flat framed image in place; `queue` holds wall pixels next to a region.

    Plain Python on purpose: which of two equally near pixels becomes wall depends on the order of visits.
    """
    for pixel in queue:  # grows while it is read
        found = 0
        for neighbour in (pixel - stride, pixel - 1, pixel + stride, pixel + 1):
            label = labels[neighbour]
            if label > 0:
                if not found:
                    found = label
                elif found != label:
                    found = -1
            elif label == _UNSEEN:
                labels[neighbour] = _QUEUED
                queue.append(neighbour)
        labels[pixel] = found if found > 0 else _BORDER


def v_rand(table: OverlapTable) -> RandScore:
    """Foreground-restricted Rand score V_rand.

    precision = (Σ n_ij² + c) / (Σ m_j² + c), recall = (Σ n_ij² + c) / Σ n_i², V_rand = 2PR / (P + R), where
    true region i and predicted region j share n_ij pixels, n_i is the area of i (predicted wall included),
    m_j = Σ_i n_ij, and c interior pixels of the truth were predicted as wall, each its own region.

    Args:
        table: Overlaps of true and predicted regions, wall = 0 in both.

    Returns:
        The score; all `None` when the truth has no interior pixel.

    Source: Arganda-Carreras et al. 2015, and Fiji's `RandError` (N² normalisation).
    """
    if not table.truth_ids.size:
        return RandScore(None, None, None)
    inside = _predicted_areas_inside_truth(table).astype(np.float64)
    walled = float(table.truth_areas.sum() - table.areas.sum())
    true_pairs = float(np.sum(np.square(table.truth_areas, dtype=np.float64)))
    predicted_pairs = float(np.sum(np.square(inside))) + walled
    shared_pairs = float(np.sum(np.square(table.areas, dtype=np.float64))) + walled
    return RandScore(
        precision=shared_pairs / predicted_pairs,
        recall=shared_pairs / true_pairs,
        score=2 * shared_pairs / (true_pairs + predicted_pairs),
    )


def v_info(table: OverlapTable) -> InfoScore:
    """Foreground-restricted information score V_info.

    V_info = 2I / (H(T) + H(S)) with I = H(T) + H(S) - H(T,S), H(T) = -Σ p_i ln p_i,
    H(S) = -Σ q_j ln q_j + w ln n and H(T,S) = -Σ p_ij ln p_ij + w ln n, over the n interior pixels of the
    truth, of which the share w was predicted as wall, each pixel its own region.

    Args:
        table: Overlaps of true and predicted regions, wall = 0 in both.

    Returns:
        The score; all `None` when the truth has no interior pixel.

    Source: Arganda-Carreras et al. 2015, and Fiji's `VariationOfInformation` (N² normalisation).
    """
    if not table.truth_ids.size:
        return InfoScore(None, None, None, None)
    total = float(table.truth_areas.sum())
    walled = float(table.truth_areas.sum() - table.areas.sum()) / total * np.log(total)
    of_truth = _entropy(table.truth_areas / total)
    of_prediction = _entropy(_predicted_areas_inside_truth(table) / total) + walled
    of_both = _entropy(table.areas / total) + walled
    information = max(0.0, of_truth + of_prediction - of_both)  # below 0 by rounding only
    both = of_truth + of_prediction
    return InfoScore(
        precision=min(1.0, information / of_truth) if of_truth else None,
        recall=min(1.0, information / of_prediction) if of_prediction else None,
        score=min(1.0, 2 * information / both) if both else None,
        variation=max(0.0, both - 2 * information),
    )


def _predicted_areas_inside_truth(table: OverlapTable) -> NDArray[np.int64]:
    """Pixels of every predicted region that lie on the interior of the truth, int64 (P,)."""
    sums = np.bincount(table.columns, table.areas, minlength=table.prediction_ids.size)
    return sums.astype(np.int64)


def _entropy(shares: NDArray[np.float64]) -> float:
    """-Σ p ln p, with 0 ln 0 = 0."""
    present = np.sort(shares[shares > 0])  # sorted: renumbering the regions must not change the last bit
    return float(-np.sum(present * np.log(present))) + 0.0


def membrane_scores(
    truth: NDArray[Any], prediction: NDArray[Any], *, thresholds: Sequence[float] = (), thinned: bool = True
) -> tuple[MembraneScores, ...]:
    """V_rand and V_info of one image, at one or several thresholds.

    Args:
        truth: 0 on walls, anything else inside. Shape (H, W).
        prediction: The same as labels; or, with `thresholds`, the probability of being inside. Shape (H, W).
        thresholds: Cuts of the probability; a pixel is inside where it is greater. Empty: labels.
        thinned: Thin predicted walls to one pixel first, as the challenge does; the truth is never thinned.

    Returns:
        One pair of scores for each threshold, or a single pair for labels.

    Raises:
        ValueError: The images differ in shape or are not 2-D.
    """
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(
            f"need two images of one shape (H, W); truth {truth.shape}, prediction {prediction.shape}"
        )
    true_regions = segments(truth != 0)
    interiors = [prediction > cut for cut in thresholds] if thresholds else [prediction != 0]
    scores = []
    for interior in interiors:
        table = overlap_table(true_regions, thin(interior) if thinned else segments(interior))
        scores.append(MembraneScores(v_rand(table).score, v_info(table).score))
    return tuple(scores)


def best_threshold(images: Sequence[Sequence[float | None]]) -> int:
    """Index of the threshold with the largest mean over the images; the first of equals, 0 without a value.

    Args:
        images: For each image its scores, one per threshold.

    Returns:
        The index.

    Source: the challenge averages over the sections at every threshold and keeps the best average, so that
    one threshold serves the whole stack.
    """
    means = [mean_defined(column)[0] for column in zip(*images, strict=True)]
    ranked = [-1.0 if mean is None else mean for mean in means]  # every score is 0 or more
    return ranked.index(max(ranked)) if ranked else 0
