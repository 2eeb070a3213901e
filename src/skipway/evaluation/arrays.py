"""Scores of masks in memory, when the label map is known: what a run says of its own validation images."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.evaluation.conventions import conventions
from skipway.evaluation.rules import Scheme, holds_membranes
from skipway.evaluation.run import score_masks
from skipway.evaluation.sets import evaluate_sets
from skipway.metrics.summary import Evaluation

Masks = tuple[str, NDArray[Any], NDArray[Any]]
"""Name, true mask and predicted mask of one image, both (H, W)."""


def evaluate_arrays(masks: Iterable[Masks], labels: LabelMap, *, thin: bool = False) -> Evaluation:
    """Score predictions of a run, one image after the other.

    Args:
        masks: In the user's label values; where the labels are objects, the predictions are object ids.
        labels: The label map of the run.
        thin: The true masks hold membranes, by `holds_membranes`; looked at for two classes only.

    Returns:
        What `evaluate` returns for files.
    """
    if labels.overlapping:
        return evaluate_sets(masks, labels)
    scheme = scheme_of(labels, thin=thin)
    images = tuple(score_masks(name, truth, prediction, scheme) for name, truth, prediction in masks)
    return Evaluation(images, conventions(scheme))


def scheme_of(labels: LabelMap, *, thin: bool) -> Scheme:
    """How masks of a label map are scored."""
    if labels.task == "objects":
        return Scheme(
            frozenset({"classes", "objects"}),
            (labels.values[0], 1),
            labels.ignore,
            binarise=True,
            truth_ids=labels.ids,
            prediction_ids=True,
        )
    membranes = thin and len(labels.values) == 2
    return Scheme(frozenset({"classes", "em"} if membranes else {"classes"}), labels.values, labels.ignore)


__all__ = ["Masks", "evaluate_arrays", "holds_membranes", "scheme_of"]
