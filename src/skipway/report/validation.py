"""The end of a training: predict the validation images, score them beside a baseline, write the report."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skipway.data.class_folders import class_mask
from skipway.data.labels import LabelMap
from skipway.data.layouts import Pair, Volume
from skipway.data.sources import Source
from skipway.evaluation import Evaluation
from skipway.evaluation.arrays import Masks, evaluate_arrays, holds_membranes
from skipway.evaluation.sets import NONE
from skipway.images import write_labels
from skipway.metrics.pixel import mean_defined
from skipway.predict.calibration import NAME as CALIBRATION
from skipway.predict.calibration import Calibration
from skipway.predict.class_files import class_files, write_sets
from skipway.predict.familiar import NAME as FAMILIAR
from skipway.predict.predictor import Predictor
from skipway.report.calibration import FILE, Collector, calibrated, trust
from skipway.report.familiar import familiar
from skipway.report.page import Baseline, Case, LabelRow, ReportInput, SplitFacts, picture, write_report
from skipway.runs import Run
from skipway.training.prepare import Prepared
from skipway.training.reserve import Ending
from skipway.training.session import predicted_pages, read_mask
from skipway.training.trivial import OTSU, pixels_of, predicted_by, simplest

CASES = 6
"""Validation images shown in the report, the worst first."""


def validate_run(
    run: Run,
    prepared: Prepared,
    predictor: Predictor,
    facts: Mapping[str, str],
    warnings: Sequence[str],
    versions: Mapping[str, str],
    event: Callable[[Mapping[str, Any]], None],
) -> None:
    """Write familiar.json, `validation/`, evaluation.json and report.html of a run, one image in memory at a time.

    Args:
        run: The folder.
        prepared: Data and plan of the run.
        predictor: The saved weights, as `predict` loads them.
        facts: What was understood, line by line, and the `command`.
        warnings: What the reader must know.
        versions: Program and version.
        event: Told of every image.

    Raises:
        DataError: an image cannot be read any more.
        EnvironmentFault: the folder cannot be written.
    """
    run.write(FAMILIAR, familiar(prepared).to_json())
    folder = run.path / "validation"
    collector = Collector(prepared, predictor.model.classes)
    evaluation, scores = _scored(prepared, _predictions(folder, prepared, predictor, collector, event))
    calibration = _calibrated(run, prepared, collector)
    event({"event": "line", "name": "calibrated", "text": str(calibration)})
    rule = simplest(prepared)
    baseline, simple_scores = _scored(prepared, predicted_by(prepared, prepared.split.val_pairs, rule))
    by_image = {"score": scores, "baseline": simple_scores, "baseline_evaluation": baseline.to_json()}
    run.write("scores", by_image)
    (score, scored), (simple_score, _) = mean_defined(scores.values()), mean_defined(simple_scores.values())
    figures = {"score": score, "scored": scored, "baseline": simple_score, "baseline_name": rule.name}
    run.write("evaluation", {"evaluation": evaluation.to_json(), **figures})
    split = prepared.split
    page = ReportInput(
        title=run.path.resolve().name,
        facts={key: text for key, text in facts.items() if key != "command"},
        score_name=prepared.task.score_name,
        metrics_csv=run.path / "metrics.csv",
        validation=evaluation.to_json(),
        cases=cases(lambda _: folder, prepared, evaluation),
        plan=prepared.plan.to_json(),
        labels=label_rows(prepared.labels),
        split=SplitFacts(split.train, split.val, split.rule),
        versions=versions,
        command=facts["command"],
        baseline=Baseline(rule.name, baseline.to_json(), simple_score, rule.short),
        warnings=warnings,
        calibration=trust(calibration),
    )
    write_report(run.path / "report.html", page)


def _calibrated(run: Run, prepared: Prepared, collector: Collector) -> Calibration:
    """Fit and keep the temperature; of a fold the pixels too, for that of all folds."""
    sampled = collector.sampled
    calibration = calibrated([sampled], overlapping=prepared.labels.overlapping)
    run.write(CALIBRATION, calibration.to_json())
    if prepared.split.fold is not None:
        sampled.write(run.path / FILE)
    return calibration


def ending(prepared: Prepared) -> Ending:
    """What `validate_run` does, in parts whose time can be measured before; nothing is written."""

    def each(predictor: Predictor, volume: Volume) -> None:
        names = tuple(pair.name for pair in volume.pairs)
        part = replace(prepared, split=replace(prepared.split, val=names))
        found = list(predicted_pages(predictor, [volume]))
        _scored(part, ((pair.name, read_mask(pair), decoded) for pair, decoded in found))
        _scored(part, predicted_by(part, part.split.val_pairs, OTSU))

    def shown(volume: Volume) -> None:
        pair = volume.pairs[0]
        truth = _truth(prepared, read_mask(pair))
        picture(_case(prepared, pair, truth, truth))

    return Ending(each, lambda: (simplest(prepared), familiar(prepared)), shown, CASES)


def label_rows(labels: LabelMap) -> list[LabelRow]:
    """The classes, background first; overlapping ones go by name and number, for nobody ever saw their bits."""
    if not labels.overlapping:
        rows = zip(labels.values, labels.names, strict=True)
        return [LabelRow(value, i, name) for i, (value, name) in enumerate(rows)]
    return [LabelRow(name, i, name) for i, name in enumerate((NONE, *labels.names))]


def _scored(prepared: Prepared, masks: Iterable[Masks]) -> tuple[Evaluation, dict[str, float | None]]:
    """The evaluation, and the task's own score of each image, in one pass."""
    scores: dict[str, float | None] = {}

    def passing() -> Iterator[Masks]:
        for name, truth, decoded in masks:
            scores[name] = prepared.task.score(decoded, truth)
            yield name, truth, decoded

    masks_of_val = (read_mask(pair) for pair in prepared.split.val_pairs)
    thin = not prepared.labels.overlapping and holds_membranes(masks_of_val)
    return evaluate_arrays(passing(), prepared.labels, thin=thin), scores


def _predictions(
    folder: Path,
    prepared: Prepared,
    predictor: Predictor,
    collector: Collector,
    event: Callable[[Mapping[str, Any]], None],
) -> Iterator[Masks]:
    """Name, truth and prediction of each validation image; the predictions are written to `folder`."""
    total = len(prepared.split.val_pairs)
    pages = predicted_pages(predictor, prepared.val_volumes, collector.look)
    for done, (pair, decoded) in enumerate(pages, start=1):
        _keep(folder, pair, decoded, prepared.labels)
        event({"event": "file", "name": f"validation {pair.name}", "done": done, "of": total})
        yield pair.name, read_mask(pair), decoded


def _place(folder: Path, pair: Pair) -> Path:
    return folder / f"{pair.name}.tif"


def _places(folder: Path, pair: Pair, labels: LabelMap) -> tuple[Path, ...]:
    """Where the masks of overlapping classes are, one each."""
    return class_files(folder, Path(f"{pair.name}.png"), labels.names)


def _keep(folder: Path, pair: Pair, decoded: NDArray[Any], labels: LabelMap) -> None:
    """Write a prediction as `predict` does."""
    if labels.overlapping:
        write_sets(_places(folder, pair, labels), labels.encode(decoded))
    else:
        path = _place(folder, pair)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, decoded)


def _kept(folder: Path, pair: Pair, labels: LabelMap) -> NDArray[Any]:
    """A prediction that was written, in the user's values."""
    place = Source(_place(folder, pair))
    if labels.overlapping:
        files = dict(zip(labels.names, _places(folder, pair, labels), strict=True))
        place = class_mask(files, labels.names)
    with place.open_mask() as file:
        return file.read()[0]


def cases(folder: Callable[[str], Path], prepared: Prepared, evaluation: Evaluation) -> list[Case]:
    """The worst validation images with what is needed to draw them.

    Args:
        folder: Where the prediction of an image of this name was written.
        prepared: Data and plan of the run.
        evaluation: Scores of the images.
    """
    labels = prepared.labels
    pairs = {pair.name: pair for pair in prepared.split.val_pairs}
    found = []
    for scores in evaluation.worst(CASES):
        pair = pairs[scores.name]
        decoded = _kept(folder(pair.name), pair, labels)
        prediction = decoded if labels.task == "objects" else labels.encode(decoded)
        found.append(_case(prepared, pair, _truth(prepared, read_mask(pair)), prediction))
    return found


def _truth(prepared: Prepared, mask: NDArray[Any]) -> NDArray[Any]:
    """Objects or class indices of a mask, as a case shows them."""
    if prepared.labels.task == "objects":
        return prepared.labels.instances(mask)
    return prepared.task.target(mask)


def _case(prepared: Prepared, pair: Pair, truth: NDArray[Any], prediction: NDArray[Any]) -> Case:
    labels = prepared.labels
    objects = labels.task == "objects"
    ignore = None if objects else labels.unknown
    return Case(pair.name, pixels_of(pair), truth, prediction, objects, ignore, labels.overlapping)
