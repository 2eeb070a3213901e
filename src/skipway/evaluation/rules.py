"""What the masks are, and which scores fit them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap, infer_labels
from skipway.data.values import MaskValues, regions, summarise
from skipway.errors import DataError, Problem, UsageError
from skipway.evaluation.pages import Page, values_of
from skipway.metrics.objects import components

KINDS = ("classes", "objects", "em")

UNKNOWN = 255  # beside small class values: a pixel that nobody annotated
_SMALL_CLASS = 50
_THIN_SHARE, _THIN_PIXELS, _THIN_FRACTION = 0.9, 6.0, 1 / 50


@dataclass(frozen=True)
class Survey:
    """What a first look at all masks found.

    Attributes:
        truth: Values of all true masks, and the first file that holds each.
        prediction: The same of all predicted masks.
        truth_ids: The truths number objects, by the test that `train` uses.
        prediction_ids: The predictions number objects; looked at only where they may.
        thin_network: Value 0 of the truths is a thin network between regions.
        ignore: Value of the truths that means "not annotated".
    """

    truth: Mapping[int, str]
    prediction: Mapping[int, str]
    truth_ids: bool = False
    prediction_ids: bool = False
    thin_network: bool = False
    ignore: int | None = None

    @property
    def objects(self) -> bool:
        """One side numbers objects."""
        return self.truth_ids or self.prediction_ids

    @property
    def two_codings(self) -> bool:
        """Both sides are binary, and each in its own way."""
        sides = (self.truth.keys() - {self.ignore}, self.prediction.keys())
        return max(map(len, sides)) <= 2 < len(sides[0] | sides[1])


@dataclass(frozen=True)
class Scheme:
    """How every page of a set is scored.

    Attributes:
        kinds: Some of `classes`, `objects`, `em`.
        values: Label value of each class, background first.
        ignore: Value of the truth that does not count.
        binarise: Everything but the background is one class, because one side numbers objects.
        truth_ids: The values of the truth are object ids.
        prediction_ids: The values of the prediction are object ids.
        probabilities: Membranes are scored from probability files.
    """

    kinds: frozenset[str]
    values: tuple[int, ...]
    ignore: int | None = None
    binarise: bool = False
    truth_ids: bool = False
    prediction_ids: bool = False
    probabilities: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What each class is called: its value, or 0 and 1 where objects are told from background."""
        return ("0", "1") if self.binarise else tuple(map(str, self.values))

    def background(self, *, predicted: bool) -> int:
        """Value of the first class on one side; ids that were predicted start after 0, whatever the truth holds."""
        return 0 if predicted and self.prediction_ids else self.values[0]

    def encode(self, mask: NDArray[Any], *, predicted: bool) -> NDArray[Any]:
        """Class index of each pixel, (*S), of a type that holds the number of classes too."""
        small = np.uint8 if len(self.values) < 256 else np.int64
        if self.binarise:
            return self.interior(mask, predicted=predicted).astype(small)
        order = np.argsort(self.values)
        found = np.searchsorted(np.array(self.values)[order], mask)
        return order.astype(small)[np.minimum(found, len(order) - 1)]

    def interior(self, mask: NDArray[Any], *, predicted: bool) -> NDArray[np.bool_]:
        """True off the background, which is the wall of a membrane map."""
        inside: NDArray[np.bool_] = mask != self.background(predicted=predicted)
        return inside

    def instances(self, mask: NDArray[Any], *, predicted: bool) -> NDArray[Any]:
        """Object ids, 0 = background: the values themselves, or the components off the background."""
        inside = self.interior(mask, predicted=predicted)
        are_ids = self.prediction_ids if predicted else self.truth_ids
        return np.where(inside, mask, 0) if are_ids else components(inside)


def scheme_for(
    survey: Survey, labels: LabelMap | None, kinds: Collection[str] | None, probable: bool
) -> Scheme:
    """The scores that fit the masks, or those asked for.

    Args:
        survey: What the masks hold.
        labels: The user's label map, where it is known.
        kinds: Scores asked for; `None` chooses by the rules of `docs/metrics.md`.
        probable: Every prediction has its file of probabilities.

    Returns:
        The scheme.

    Raises:
        DataError: truth and prediction hold values that cannot be the same classes.
        UsageError: scores that do not exist or do not fit.
    """
    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown or (kinds is not None and not kinds):
        found = f"no such score: {', '.join(unknown)}" if unknown else "no score was asked for"
        raise UsageError(Problem(found, expected=f"some of {', '.join(KINDS)}"))
    learned = labels is not None and labels.task == "objects"
    asked = kinds is not None and set(kinds) == {"objects"} and survey.two_codings
    if survey.objects or learned or asked:
        return _object_scheme(survey, labels, kinds)
    values, ignore = _class_values(survey, labels)
    chosen = frozenset(kinds or ({"classes", "em"} if survey.thin_network else {"classes"}))
    return Scheme(chosen, values, ignore, probabilities=probable and "em" in chosen)


def _object_scheme(survey: Survey, labels: LabelMap | None, kinds: Collection[str] | None) -> Scheme:
    if kinds is not None and "em" in kinds:
        found = "membrane scores were asked for, and the masks hold objects"
        raise UsageError(Problem(found, expected="a class mask with 0 on membranes", fix="leave out em"))
    return Scheme(
        kinds=frozenset(kinds or ("classes", "objects")),
        values=(labels.values[0] if labels is not None else 0, 1),
        ignore=survey.ignore,
        binarise=True,
        truth_ids=survey.truth_ids,
        prediction_ids=survey.prediction_ids,
    )


def _class_values(survey: Survey, labels: LabelMap | None) -> tuple[tuple[int, ...], int | None]:
    """Values to score in the order of the classes, and the value to ignore."""
    truth, prediction = survey.truth.keys(), survey.prediction.keys()
    if labels is not None:
        for side, allowed in ((survey.prediction, labels.values), (survey.truth, _allowed(labels))):
            strange = {value: file for value, file in side.items() if value not in allowed}
            if strange:
                where = next(iter(strange.values()))
                raise _mismatch(f"values {_set(strange)}", where, f"only {_set(allowed)} of the label map")
        return tuple(labels.values), labels.ignore
    if not (truth <= prediction or prediction <= truth or len(truth & prediction) > 1):
        where = next(where for value, where in survey.prediction.items() if value not in truth)
        found = f"predictions hold {_set(prediction)}, truths {_set(truth)}"
        raise _mismatch(found, where, "the same label values in both")
    ignore = UNKNOWN if _is_unknown(truth) and UNKNOWN not in prediction else None
    return tuple(sorted((truth | prediction) - {ignore})), ignore


def _allowed(labels: LabelMap) -> set[int]:
    """Values that a true mask may hold."""
    return {*labels.values, *(() if labels.ignore is None else (labels.ignore,))}


def _is_unknown(truth: Collection[int]) -> bool:
    """Whether 255 beside small class values means "not annotated", as it nearly always does."""
    others = set(truth) - {0, UNKNOWN}
    return UNKNOWN in truth and bool(others) and max(others) <= _SMALL_CLASS


def _mismatch(found: str, where: str, expected: str) -> DataError:
    fix = "predict with a run trained on these labels, or convert one side to the values of the other"
    return DataError(Problem(found, where, expected, fix, "E01"))


def _set(values: Iterable[int]) -> str:
    ordered = sorted(values)
    return "{" + ", ".join(map(str, ordered[:12])) + (", …" if len(ordered) > 12 else "") + "}"


def survey_pages(pages: Sequence[Page], labels: LabelMap | None) -> Survey:
    """A first look at all masks, a page at a time.

    Args:
        pages: What will be scored.
        labels: The user's label map, where it is known; otherwise the truths are looked at as `train` would.

    Returns:
        The survey.

    Raises:
        DataError: damaged files, or truths whose coding cannot be trusted.
    """
    truth: dict[int, str] = {}
    prediction: dict[int, str] = {}
    summaries: dict[str, MaskValues] = {}
    networks = 0
    ignore = None if labels is None else labels.ignore
    for page in pages:
        true_mask, predicted = page.read()
        counting = predicted if ignore is None else predicted[true_mask != ignore]
        for known, mask, file in ((truth, true_mask, page.truth), (prediction, counting, page.prediction)):
            for value in values_of(mask).tolist():
                known.setdefault(value, str(file))
        summaries[page.name] = summarise(true_mask, 8 * true_mask.dtype.itemsize, ignore=ignore)
        networks += len(truth) <= 2 and is_thin_network(true_mask)
    truth_ids = _truth_numbers_objects(truth, summaries, labels)
    if labels is None and not truth_ids and _is_unknown(truth):
        ignore = UNKNOWN
    candidates = truth_ids or _may_number_objects(truth.keys() - {ignore}, prediction, labels)
    declared = labels is not None and labels.task == "objects"
    prediction_ids = candidates and len(prediction) > 2 and (declared or _predictions_are_ids(pages))
    thin = not (truth_ids or prediction_ids) and len(truth) == 2 and 2 * networks > len(pages)
    return Survey(truth, prediction, truth_ids, prediction_ids, thin, ignore)


def _truth_numbers_objects(
    truth: Collection[int], summaries: Mapping[str, MaskValues], labels: LabelMap | None
) -> bool:
    """The test of `train` on the truths, where the label map leaves it open.

    255 beside small classes is left to `_class_values`.
    """
    ignore = labels.ignore if labels is not None else UNKNOWN if _is_unknown(truth) else None
    if len(set(truth) - {ignore}) <= 2 or (
        labels is not None and labels.task == "classes" and set(truth) <= _allowed(labels)
    ):
        return False
    if labels is not None and labels.ids:
        return True
    return infer_labels(summaries, ignore=ignore).task == "objects"


def _may_number_objects(truth: Collection[int], prediction: Collection[int], labels: LabelMap | None) -> bool:
    """Whether predicted values beside a class truth may be ids: the classes do not explain them."""
    if labels is None:
        return len(truth) <= 2
    return labels.task == "objects" or not set(prediction) <= set(labels.values)


def _predictions_are_ids(pages: Sequence[Page]) -> bool:
    """Whether most values of the predictions lie in one piece each; class values lie in many.

    Pieces that share a corner count as one: a program that fills gaps between objects leaves such pixels.
    """
    pieces = ids = 0
    for page in pages:
        mask = page.read()[1]
        pieces += int(regions(mask).max(initial=0))
        ids += len(set(values_of(mask).tolist()) - {0})
    return pieces <= 1.5 * ids


def is_thin_network(mask: NDArray[Any]) -> bool:
    """Whether 0 is a thin network between regions, as membranes are.

    0 covers less than half of the pixels, the rest falls into two or more 4-connected regions, and nine
    tenths of the 0 pixels lie within 6 pixels of a region (1/50 of the shorter side, where that is more).

    Args:
        mask: Label values. Shape (H, W).

    Returns:
        The verdict.
    """
    from scipy import ndimage

    wall = mask == 0
    share = np.count_nonzero(wall) / max(1, wall.size)
    if not 0 < share < 0.5 or components(~wall).max() < 2:
        return False
    reach = max(_THIN_PIXELS, _THIN_FRACTION * min(mask.shape))
    near = ndimage.distance_transform_edt(wall)[wall] <= reach
    return bool(np.count_nonzero(near) >= _THIN_SHARE * near.size)


def holds_membranes(masks: Iterable[NDArray[Any]]) -> bool:
    """Whether in more than half of the true masks 0 is a thin network, which is when membranes are scored.

    Args:
        masks: Label values, each (H, W).

    Returns:
        The verdict; False without masks.
    """
    verdicts = [is_thin_network(mask) for mask in masks]
    return 2 * sum(verdicts) > len(verdicts)


def surprises(survey: Survey, scheme: Scheme) -> tuple[str, ...]:
    """Warnings about values that only one side holds."""
    if scheme.binarise:
        return ()
    only = (
        ("truths", survey.truth.keys() - survey.prediction.keys() - {scheme.ignore}),
        ("predictions", survey.prediction.keys() - survey.truth.keys()),
    )
    return tuple(f"value {_set(values)} is in the {side} only" for side, values in only if values)
