"""`evaluate`: from two folders to scores."""

import json
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import TRAINED, LabelMap
from skipway.data.layouts import Reading
from skipway.errors import DataError, Problem, UsageError
from skipway.evaluation.conventions import conventions
from skipway.evaluation.pages import Page, pair_pages
from skipway.evaluation.rules import Scheme, scheme_for, surprises, survey_pages
from skipway.evaluation.sets import evaluate_sets
from skipway.evaluation.trust import Trusted, trusted
from skipway.images import shown
from skipway.metrics.membranes import EM_THRESHOLDS, MembraneScores, membrane_scores
from skipway.metrics.objects import object_scores
from skipway.metrics.pixel import confusion, pixel_error, scores
from skipway.metrics.summary import Evaluation, ImageScores

LABELS = "labels.json"
"""The label map of the run, which `predict` writes beside its masks."""


def evaluate(
    pred: Path | str,
    truth: Path | str,
    *,
    labels: LabelMap | None = None,
    kinds: Collection[str] | None = None,
    reading: Reading | None = None,
    partly: bool = False,
) -> Evaluation:
    """Score predicted masks against true ones.

    Files are paired by exact stem (the suffix may differ), stacks page by page. What is scored follows from
    the masks: classes that overlap get pixel scores, each for itself; instance maps get object scores, class
    maps pixel scores for every value, thin membrane networks V_rand and V_info as well (`docs/metrics.md`).
    Probabilities beside the masks are held against the truth too, where a label map says what they are of.

    Args:
        pred: Folder of predicted masks, or one file; `<name>_probabilities.tif` beside them serve membranes.
        truth: Folder of true masks, one file, or the folder of a whole data set (docs/layouts.md).
        labels: The label map of the run; left out, the one that `predict` wrote beside the predictions, and
            without any the values of the truth are the classes.
        kinds: Some of `classes`, `objects`, `em`, to overrule the choice.
        reading: How the folder of truths is laid out, where that must be said.
        partly: Score the truths that have a prediction, and say how many of all they are.

    Returns:
        Scores of each image and their means, with the conventions; `.to_json()`, `.table()`, `.worst()`.

    Raises:
        DataError: truths without prediction (unless `partly`), other sizes, values that cannot be the same
            classes, or a damaged label map beside the predictions.
        UsageError: a path that does not exist, or scores that do not fit the masks.
    """
    labels = written_labels(Path(pred)) if labels is None else labels
    reading = reading or Reading()
    if labels is not None and reading.task is None:
        reading = replace(reading, task=labels.task)
    overlapping = labels is not None and labels.overlapping
    names = labels.names if labels and overlapping else ()
    pages, warnings = pair_pages(Path(pred), Path(truth), reading, names, partly=partly)
    warnings = (*warnings, *_not_new(Path(pred), pages))
    if labels is not None and overlapping:
        _refuse_kinds(kinds)
        judged = trusted(pages, labels)
        found = evaluate_sets(((page.name, *page.read()) for page in pages), labels, warnings)
        return replace(found, calibration=judged.to_json(), warnings=(*found.warnings, *judged.warnings))
    survey = survey_pages(pages, labels)
    with_probabilities = [page for page in pages if page.probabilities is not None]
    scheme = scheme_for(survey, labels, kinds, probable=len(with_probabilities) == len(pages))
    if "em" in scheme.kinds and with_probabilities and not scheme.probabilities:
        few = f"only {len(with_probabilities)} of {len(pages)} predictions have probabilities"
        warnings = (*warnings, f"{few}; membranes are scored from hard labels")
    judged = Trusted(None) if labels is None else trusted(pages, labels)
    return Evaluation(
        images=tuple(score_page(page, scheme) for page in pages),
        convention=conventions(scheme),
        warnings=(*warnings, *surprises(survey, scheme), *judged.warnings),
        thresholds=EM_THRESHOLDS if scheme.probabilities else (),
        calibration=judged.to_json(),
    )


def _refuse_kinds(kinds: Collection[str] | None) -> None:
    """Classes that overlap have the scores of classes alone."""
    if kinds is not None and set(kinds) != {"classes"}:
        found = f"{', '.join(sorted(kinds)) or 'no score'} asked for, and the classes overlap"
        raise UsageError(Problem(found, expected="classes", fix="leave out --score"))


def written_labels(pred: Path) -> LabelMap | None:
    """The label map that `predict` wrote beside its masks, `None` without one.

    Raises:
        DataError: it is damaged.
    """
    path = _labels_file(pred)
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return LabelMap.from_json({key: value[key] for key in value if key != TRAINED})
    except (ValueError, TypeError, OSError, DataError) as error:
        expected, fix = "a label map as `predict` writes it", "predict again, or take the file away"
        raise DataError(Problem("a damaged label map", shown(path), expected, fix, "E01")) from error


def _labels_file(pred: Path) -> Path:
    return (pred if pred.is_dir() else pred.parent) / LABELS


def _not_new(pred: Path, pages: Sequence[Page]) -> tuple[str, ...]:
    """A warning about pages whose images trained the network that predicted them, as `predict` noted it."""
    try:
        found = json.loads(_labels_file(pred).read_text(encoding="utf-8")).get(TRAINED, ())
        trained = {unicodedata.normalize("NFC", str(name)) for name in found}
    except (OSError, ValueError, TypeError, AttributeError):  # no note, or a label map of another make
        return ()
    count = sum(bool(trained & {page.name, page.name.rpartition("#")[0]}) for page in pages)
    text = f"{count} of {len(pages)} images trained the network that predicted them"
    return (f"{text}: their score says nothing about new ones",) if count else ()


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
    unknown = None if scheme.ignore is None else truth == scheme.ignore
    if unknown is not None:  # there is no object there, and what was predicted there is no error
        truth = _filled(truth, unknown, scheme.background(predicted=False))
        prediction = _filled(prediction, unknown, scheme.background(predicted=True))
    classes = len(scheme.names)
    true_classes = scheme.encode(truth, predicted=False)
    if unknown is not None:
        true_classes[unknown] = classes
    matrix = confusion(true_classes, scheme.encode(prediction, predicted=True), classes, ignore=classes)
    by_value = dict(zip(scheme.names, scores(matrix), strict=True)) if "classes" in scheme.kinds else {}
    objects = None
    if "objects" in scheme.kinds:
        objects = object_scores(
            scheme.instances(truth, predicted=False), scheme.instances(prediction, predicted=True)
        )
    membranes: tuple[MembraneScores, ...] = ()
    if "em" in scheme.kinds:
        cuts = () if inside is None else EM_THRESHOLDS
        found = scheme.interior(prediction, predicted=True) if inside is None else inside
        membranes = membrane_scores(scheme.interior(truth, predicted=False), found, thresholds=cuts)
    return ImageScores(name, pixel_error(matrix), by_value, objects, membranes)


def _filled(mask: NDArray[Any], where: NDArray[np.bool_], value: int) -> NDArray[Any]:
    return np.where(where, np.asarray(value, mask.dtype), mask)


def interior_probability(page: Page, scheme: Scheme) -> NDArray[Any]:
    """1 - p(wall) of each pixel, float (H, W); the wall is the first class.

    Raises:
        DataError: another number of classes or another size than the mask, or NaN.
    """
    probabilities = page.read_probabilities()
    with page.truth.open_mask() as mask:
        wanted = (len(scheme.values), *mask.size)
    where = str(page.probabilities or page.prediction)
    if probabilities.shape != wanted:
        found = f"probabilities of {' × '.join(map(str, probabilities.shape))}"
        expected = f"{' × '.join(map(str, wanted))} (classes, rows, columns)"
        raise DataError(Problem(found, where, expected, "predict again with --probabilities", "J07"))
    if not np.isfinite(probabilities[0]).all():
        raise DataError(
            Problem("probabilities that are not finite", where, "numbers from 0 to 1", "predict again", "J07")
        )
    return 1 - probabilities[0]
