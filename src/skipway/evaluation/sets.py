"""Scores where classes overlap: each class against its own absence."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.metrics.pixel import confusion, scores
from skipway.metrics.sets import class_scores
from skipway.metrics.summary import Evaluation, ImageScores

NONE = "no class"
"""What pixels without any class are called; it stands first, as the background of other masks does."""


def evaluate_sets(
    masks: Iterable[tuple[str, NDArray[Any], NDArray[Any]]], labels: LabelMap, warnings: tuple[str, ...] = ()
) -> Evaluation:
    """Score predicted sets of classes, one image after the other.

    Args:
        masks: Name, true and predicted mask in the user's values, (H, W).
        labels: The label map of the run.
        warnings: What was left out.

    Raises:
        DataError: values that the label map does not know.
    """
    images = tuple(score_sets(name, truth, prediction, labels) for name, truth, prediction in masks)
    return Evaluation(images, set_conventions(labels), warnings)


def score_sets(name: str, truth: NDArray[Any], prediction: NDArray[Any], labels: LabelMap) -> ImageScores:
    """Scores of one image: of each class, and of the pixels without any; the pixel error counts whole sets.

    Args:
        name: Of the image.
        truth: The user's values, (H, W).
        prediction: The user's values, (H, W).
        labels: The label map of the run.
    """
    true_sets, found_sets = labels.encode(truth), labels.encode(prediction)
    known = true_sets != labels.unknown
    none = scores(confusion(true_sets[known] == 0, found_sets[known] == 0, 2))[1]
    by_name = dict(zip(labels.names, class_scores(true_sets, found_sets, len(labels.names)), strict=True))
    wrong = float(np.mean(true_sets[known] != found_sets[known])) if known.any() else None
    return ImageScores(name, wrong, {NONE: none, **by_name})


def set_conventions(labels: LabelMap) -> tuple[str, ...]:
    """What the numbers mean, one sentence an entry."""
    texts = (
        "classes overlap: each is scored against its own absence, whatever else is there",
        "every score is made per image (page), then averaged over the images that have it; n counts those",
        "0/0 has no value (n/a, null): a class in neither truth nor prediction counts neither as 0 nor as 1",
        "the pixel error is the share of pixels whose set of classes is not exactly right",
    )
    return (
        texts if labels.ignore is None else (*texts, f"pixels whose truth is {labels.ignore} are not counted")
    )
