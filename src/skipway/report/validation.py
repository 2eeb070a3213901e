"""The end of a training: predict the validation images, score them beside a baseline, write the report."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skipway.data.class_folders import class_mask
from skipway.data.labels import LabelMap
from skipway.data.layouts import Pair
from skipway.data.sources import Source
from skipway.evaluation import Evaluation
from skipway.evaluation.arrays import Masks, evaluate_arrays, holds_membranes
from skipway.evaluation.sets import NONE
from skipway.images import write_labels
from skipway.metrics.pixel import mean_defined
from skipway.predict.class_files import class_files, write_sets
from skipway.predict.predictor import Predictor
from skipway.report.page import Baseline, Case, LabelRow, ReportInput, SplitFacts, write_report
from skipway.runs import Run
from skipway.training.prepare import Prepared
from skipway.training.session import predicted_pages, read_mask
from skipway.training.trivial import pixels_of, predicted_by, simplest

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
    """Write `validation/`, evaluation.json and report.html into a run folder, one image in memory at a time.

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
    folder = run.path / "validation"
    evaluation, score, scored = _scored(prepared, _predictions(folder, prepared, predictor, event))
    rule = simplest(prepared)
    baseline, simple_score, _ = _scored(prepared, predicted_by(prepared, prepared.split.val_pairs, rule))
    figures = {"score": score, "scored": scored, "baseline": simple_score, "baseline_name": rule.name}
    run.write("evaluation", {"evaluation": evaluation.to_json(), **figures})
    split = prepared.split
    page = ReportInput(
        title=run.path.resolve().name,
        facts={key: text for key, text in facts.items() if key != "command"},
        score_name=prepared.task.score_name,
        metrics_csv=run.path / "metrics.csv",
        validation=evaluation.to_json(),
        cases=_cases(folder, prepared, evaluation),
        plan=prepared.plan.to_json(),
        labels=_label_rows(prepared.labels),
        split=SplitFacts(split.train, split.val, split.rule),
        versions=versions,
        command=facts["command"],
        baseline=Baseline(rule.name, baseline.to_json(), simple_score, rule.short),
        warnings=warnings,
    )
    write_report(run.path / "report.html", page)


def _label_rows(labels: LabelMap) -> list[LabelRow]:
    """The classes, background first; overlapping ones go by name and number, for nobody ever saw their bits."""
    if not labels.overlapping:
        rows = zip(labels.values, labels.names, strict=True)
        return [LabelRow(value, i, name) for i, (value, name) in enumerate(rows)]
    return [LabelRow(name, i, name) for i, name in enumerate((NONE, *labels.names))]


def _scored(prepared: Prepared, masks: Iterable[Masks]) -> tuple[Evaluation, float | None, int]:
    """The evaluation, and the task's own score with the number of images that have it, in one pass."""
    scores: list[float | None] = []

    def passing() -> Iterator[Masks]:
        for name, truth, decoded in masks:
            scores.append(prepared.task.score(decoded, truth))
            yield name, truth, decoded

    masks_of_val = (read_mask(pair) for pair in prepared.split.val_pairs)
    thin = not prepared.labels.overlapping and holds_membranes(masks_of_val)
    evaluation = evaluate_arrays(passing(), prepared.labels, thin=thin)
    return evaluation, *mean_defined(scores)


def _predictions(
    folder: Path, prepared: Prepared, predictor: Predictor, event: Callable[[Mapping[str, Any]], None]
) -> Iterator[Masks]:
    """Name, truth and prediction of each validation image; the predictions are written to `folder`."""
    total = len(prepared.split.val_pairs)
    pages = predicted_pages(predictor, prepared.val_volumes)
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


def _cases(folder: Path, prepared: Prepared, evaluation: Evaluation) -> list[Case]:
    """The worst validation images with what is needed to draw them."""
    task, labels = prepared.task, prepared.labels
    pairs = {pair.name: pair for pair in prepared.split.val_pairs}
    objects = labels.task == "objects"
    cases = []
    for scores in evaluation.worst(CASES):
        pair = pairs[scores.name]
        mask = read_mask(pair)
        decoded = _kept(folder, pair, labels)
        truth = labels.instances(mask) if objects else task.target(mask)
        prediction = decoded if objects else labels.encode(decoded)
        ignore, sets = None if objects else labels.unknown, labels.overlapping
        cases.append(Case(scores.name, pixels_of(pair), truth, prediction, objects, ignore, sets))
    return cases
