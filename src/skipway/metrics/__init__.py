"""Scores of a prediction against the truth: pixels, objects, membranes, and a simple baseline to beat.

Plain functions on numpy arrays. A score that has no value (0/0, an empty image against an empty image) is
`None`, never 0 or 1; `mean_defined` averages the rest and says how many there were. The definitions are in
`docs/metrics.md`.
"""

from skipway.metrics.baseline import (
    by_rule,
    class_sides,
    otsu_mask,
    otsu_polarity,
    otsu_threshold,
    simplest_rule,
)
from skipway.metrics.membranes import MembraneScores, membrane_scores, segments, thin, v_info, v_rand
from skipway.metrics.objects import (
    AP_THRESHOLDS,
    Matching,
    ObjectScores,
    OverlapTable,
    average_precision,
    components,
    det,
    match,
    object_scores,
    overlap_table,
    seg,
)
from skipway.metrics.pixel import PixelScores, confusion, mean_defined, pixel_error, scores

__all__ = [
    "AP_THRESHOLDS",
    "Matching",
    "MembraneScores",
    "ObjectScores",
    "OverlapTable",
    "PixelScores",
    "average_precision",
    "by_rule",
    "class_sides",
    "components",
    "confusion",
    "det",
    "match",
    "mean_defined",
    "membrane_scores",
    "object_scores",
    "otsu_mask",
    "otsu_polarity",
    "otsu_threshold",
    "overlap_table",
    "pixel_error",
    "scores",
    "seg",
    "segments",
    "simplest_rule",
    "thin",
    "v_info",
    "v_rand",
]
