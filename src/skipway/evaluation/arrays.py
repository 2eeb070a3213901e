"""Scores of masks in memory, when the label map is known: what a run says of its own validation images."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.evaluation.rules import Scheme, conventions, is_thin_network
from skipway.evaluation.run import score_masks
from skipway.metrics.summary import Evaluation

Masks = tuple[str, NDArray[Any], NDArray[Any]]
"""Name, true mask and predicted mask of one image, both (H, W)."""


def evaluate_arrays(masks: Iterable[Masks], labels: LabelMap) -> Evaluation:
    """Score predictions of a run.

    Args:
        masks: In the user's label values; where the labels are objects, the predictions are object ids.
        labels: The label map of the run.

    Returns:
        What `evaluate` returns for files.
    """
    images, scheme = [], None
    for name, truth, prediction in masks:
        scheme = scheme or scheme_of(labels, truth)
        images.append(score_masks(name, truth, prediction, scheme))
    return Evaluation(tuple(images), conventions(scheme) if scheme else (), (), ())


def scheme_of(labels: LabelMap, first: NDArray[Any]) -> Scheme:
    """How masks of a label map are scored; `first` tells membranes from other masks of two classes."""
    if labels.task == "objects":
        return Scheme(
            frozenset({"classes", "objects"}),
            (labels.values[0], 1),
            labels.ignore,
            binarise=True,
            truth_ids=labels.ids,
            prediction_ids=True,
        )
    thin = len(labels.values) == 2 and is_thin_network(first)
    return Scheme(frozenset({"classes", "em"} if thin else {"classes"}), labels.values, labels.ignore)
