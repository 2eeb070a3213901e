"""`evaluate`: from two folders to scores."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.errors import DataError, Problem
from skipway.evaluation.pages import Page, pair_pages
from skipway.evaluation.rules import Scheme, conventions, scheme_for, surprises, survey_pages
from skipway.images import open_mask, shown
from skipway.metrics.membranes import EM_THRESHOLDS, MembraneScores, membrane_scores
from skipway.metrics.objects import object_scores
from skipway.metrics.pixel import confusion, pixel_error, scores
from skipway.metrics.summary import Evaluation, ImageScores


def evaluate(
    pred: Path | str,
    truth: Path | str,
    *,
    labels: LabelMap | None = None,
    kinds: Collection[str] | None = None,
) -> Evaluation:
    """Score predicted masks against true ones.

    Files are paired by exact stem (the suffix may differ), stacks page by page. What is scored follows from
    the masks: instance maps get object scores, class maps pixel scores for every value, thin membrane
    networks V_rand and V_info as well (`docs/metrics.md`).

    Args:
        pred: Folder of predicted masks, or one file; `<name>_probabilities.tif` beside them serve membranes.
        truth: Folder of true masks, or one file.
        labels: The label map of the run; without it the values of the truth are the classes.
        kinds: Some of `classes`, `objects`, `em`, to overrule the choice.

    Returns:
        Scores of each image and their means, with the conventions; `.to_json()`, `.table()`, `.worst()`.

    Raises:
        DataError: truths without prediction, other sizes, values that cannot be the same classes.
        UsageError: a path that does not exist, or scores that do not fit the masks.
    """
    pages, warnings = pair_pages(Path(pred), Path(truth))
    survey = survey_pages(pages, labels)
    with_probabilities = [page for page in pages if page.probabilities is not None]
    scheme = scheme_for(survey, labels, kinds, probable=len(with_probabilities) == len(pages))
    if "em" in scheme.kinds and with_probabilities and not scheme.probabilities:
        few = f"only {len(with_probabilities)} of {len(pages)} predictions have probabilities"
        warnings = (*warnings, f"{few}; membranes are scored from hard labels")
    return Evaluation(
        images=tuple(score_page(page, scheme) for page in pages),
        convention=conventions(scheme),
        warnings=(*warnings, *surprises(survey, scheme)),
        thresholds=EM_THRESHOLDS if scheme.probabilities else (),
    )


def score_page(page: Page, scheme: Scheme) -> ImageScores:
    """All scores of one page.

    Args:
        page: A pair of masks of one size.
        scheme: What to score, and how.

    Returns:
        The scores.

    Raises:
        DataError: damaged files, or probabilities that do not fit the mask.
    """
    truth, prediction = page.read()
    inside = interior_probability(page, scheme) if scheme.probabilities else None
    return score_masks(page.name, truth, prediction, scheme, inside)


def score_masks(
    name: str,
    truth: NDArray[Any],
    prediction: NDArray[Any],
    scheme: Scheme,
    inside: NDArray[Any] | None = None,
) -> ImageScores:
    """All scores of one pair of masks.

    Args:
        name: Of the image.
        truth: Label values, (H, W).
        prediction: Label values, (H, W).
        scheme: What to score, and how.
        inside: Probability of being off the membranes, (H, W), where membranes are scored from probabilities.

    Returns:
        The scores.
    """
    if scheme.ignore is not None:  # what was predicted there is no error and no object
        prediction = np.where(
            truth == scheme.ignore, np.asarray(scheme.values[0], prediction.dtype), prediction
        )
    classes = len(scheme.names)
    ignored = None if scheme.ignore is None else classes
    matrix = confusion(scheme.encode(truth), scheme.encode(prediction), classes, ignore=ignored)
    by_value = dict(zip(scheme.names, scores(matrix), strict=True)) if "classes" in scheme.kinds else {}
    objects = None
    if "objects" in scheme.kinds:
        true_objects = scheme.instances(truth, scheme.truth_ids)
        objects = object_scores(true_objects, scheme.instances(prediction, scheme.prediction_ids))
    membranes: tuple[MembraneScores, ...] = ()
    if "em" in scheme.kinds:
        cuts = () if inside is None else EM_THRESHOLDS
        found = scheme.interior(prediction) if inside is None else inside
        membranes = membrane_scores(scheme.interior(truth), found, thresholds=cuts)
    return ImageScores(name, pixel_error(matrix), by_value, objects, membranes)


def interior_probability(page: Page, scheme: Scheme) -> NDArray[Any]:
    """1 - p(wall) of each pixel, float (H, W); the wall is the first class.

    Raises:
        DataError: another number of classes or another size than the mask, or NaN.
    """
    probabilities = page.read_probabilities()
    with open_mask(page.truth) as mask:
        wanted = (len(scheme.values), *mask.size)
    where = shown(page.probabilities or page.prediction)
    if probabilities.shape != wanted:
        found = f"probabilities of {' × '.join(map(str, probabilities.shape))}"
        expected = f"{' × '.join(map(str, wanted))} (classes, rows, columns)"
        raise DataError(Problem(found, where, expected, "predict again with --probabilities", "J07"))
    if not np.isfinite(probabilities[0]).all():
        raise DataError(
            Problem("probabilities that are not finite", where, "numbers from 0 to 1", "predict again", "J07")
        )
    return 1 - probabilities[0]
