"""Objects: instance ids out of a foreground map, the route of the 2015 paper.

Touching objects are drawn apart in the target by a thin border of background, the loss weighs those borders,
and the prediction is cut into connected components; the gaps are closed again afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import IGNORE, LabelMap
from skipway.metrics.objects import components, match, overlap_table
from skipway.tasks.classes import by_class
from skipway.weight_maps import border_weights, separate_touching


@dataclass(frozen=True)
class Objects:
    """Every object gets a number of its own.

    Attributes:
        labels: Two classes, background and object.
        class_weights: w_c of the two.
        min_area: Components smaller than this many pixels are dropped.
    """

    labels: LabelMap
    class_weights: tuple[float, ...]
    min_area: int = 0

    score_name = "AP of objects at IoU 0.5"
    outputs = 2

    def target(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """1 on objects, 0 on background and on the border between objects that touch."""
        target = separate_touching(self.labels.instances(mask)).astype(np.uint8)
        return np.where(self._unknown(mask), np.uint8(IGNORE), target)

    def weights(self, mask: NDArray[Any]) -> NDArray[np.float32]:
        """w_c + the border term between objects."""
        ids = self.labels.instances(mask)
        target = self.target(mask)
        return by_class(target, self.class_weights) + border_weights(np.where(target == 1, ids, 0))

    def decode(self, class_map: NDArray[Any]) -> NDArray[np.int32]:
        """Object ids 1…n, 0 is background. Shape (*S) in and out.

        Gaps are closed only where the target drew them: between objects that had ids of their own.
        """
        return to_objects(class_map == 1, self.min_area, close=self.labels.ids)

    def score(self, decoded: NDArray[Any], mask: NDArray[Any]) -> float | None:
        """AP at IoU 0.5 = TP / (TP + FP + FN); pixels that nobody annotated hold no objects."""
        known = np.where(self._unknown(mask), 0, decoded)
        return match(overlap_table(self.labels.instances(mask), known), 0.5).ap

    def _unknown(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """Where the mask holds the ignore value."""
        found: NDArray[np.bool_] = self.labels.encode(mask) == IGNORE
        return found


def to_objects(foreground: NDArray[np.bool_], min_area: int = 0, *, close: bool = False) -> NDArray[np.int32]:
    """Connected components (pixels that share an edge), small ones dropped, gaps between neighbours closed.

    To close: a background pixel goes to an object that it shares an edge with when two different objects lie
    around it. Those pixels are the border that the target drew between touching objects.

    Args:
        foreground: (*S).
        min_area: Pixels an object needs.
        close: Whether to close the gaps.

    Returns:
        Ids 1…n in scanning order, shape (*S).

    >>> to_objects(np.array([[True, False, True]])).tolist()
    [[1, 0, 2]]
    >>> to_objects(np.array([[True, False, True]]), close=True).tolist()
    [[1, 1, 2]]
    """
    ids = components(foreground)
    if min_area > 1:
        kept = np.bincount(ids.ravel()) >= min_area
        kept[0] = False
        ids = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[ids]
    return closed(ids) if close else ids


def closed(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Objects with the gaps between them closed, see `to_objects`; a pixel depends on those that touch it alone.

    Args:
        ids: (*S), changed in place.
    """
    from scipy import ndimage

    gap = (ids == 0) & _between(ids)
    if gap.any():
        distance, nearest = ndimage.distance_transform_edt(ids == 0, return_indices=True)
        gap &= distance <= 1  # a pixel that only shares a corner with an object would be a piece of its own
        ids[gap] = ids[tuple(axis[gap] for axis in nearest)]
    return ids


def _between(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels with two different objects among their neighbours."""
    from scipy import ndimage

    highest = ndimage.maximum_filter(ids, size=3, mode="nearest")
    lowest = -ndimage.maximum_filter(
        np.where(ids > 0, -ids, np.iinfo(np.int32).min + 1), size=3, mode="nearest"
    )
    result: NDArray[np.bool_] = (highest > 0) & (lowest < highest)
    return result
