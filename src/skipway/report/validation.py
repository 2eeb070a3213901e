"""The end of a training: predict the validation images, score them beside a baseline, write the report."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.layouts import Pair
from skipway.evaluation import Evaluation
from skipway.evaluation.arrays import Masks, evaluate_arrays, holds_membranes
from skipway.images import open_mask, write_labels
from skipway.losses import IGNORE
from skipway.metrics.baseline import otsu_mask, otsu_polarity
from skipway.metrics.pixel import mean_defined
from skipway.predict.predictor import Predictor
from skipway.report.page import Baseline, Case, LabelRow, ReportInput, SplitFacts, write_report
from skipway.runs import Run
from skipway.training.prepare import Prepared
from skipway.training.session import predicted_pages, read_mask

CASES = 6
"""Validation images shown in the report, the worst first."""

JUDGES = 8
"""Training images that decide which side of Otsu's threshold is the foreground."""


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
    method, class_map = _simplest(prepared)
    baseline, simple_score, _ = _scored(prepared, _baseline(prepared, class_map))
    figures = {"score": score, "scored": scored, "baseline": simple_score, "baseline_name": method}
    run.write("evaluation", {"evaluation": evaluation.to_json(), **figures})
    names, split = prepared.labels.names, prepared.split
    page = ReportInput(
        title=run.path.resolve().name,
        facts={key: text for key, text in facts.items() if key != "command"},
        score_name=prepared.task.score_name,
        metrics_csv=run.path / "metrics.csv",
        validation=evaluation.to_json(),
        cases=_cases(folder, prepared, evaluation),
        plan=prepared.plan.to_json(),
        labels=[LabelRow(value, i, names[i]) for i, value in enumerate(prepared.labels.values)],
        split=SplitFacts(split.train, split.val, split.rule),
        versions=versions,
        command=facts["command"],
        baseline=Baseline(method, baseline.to_json(), simple_score),
        warnings=warnings,
    )
    write_report(run.path / "report.html", page)


def _scored(prepared: Prepared, masks: Iterable[Masks]) -> tuple[Evaluation, float | None, int]:
    """The evaluation, and the task's own score with the number of images that have it, in one pass."""
    scores: list[float | None] = []

    def passing() -> Iterator[Masks]:
        for name, truth, decoded in masks:
            scores.append(prepared.task.score(decoded, truth))
            yield name, truth, decoded

    thin = holds_membranes(read_mask(pair) for pair in prepared.split.val_pairs)
    evaluation = evaluate_arrays(passing(), prepared.labels, thin=thin)
    return evaluation, *mean_defined(scores)


def _predictions(
    folder: Path, prepared: Prepared, predictor: Predictor, event: Callable[[Mapping[str, Any]], None]
) -> Iterator[Masks]:
    """Name, truth and prediction of each validation image; the predictions are written to `folder`."""
    total = len(prepared.split.val_pairs)
    pages = predicted_pages(predictor, prepared.val_volumes)
    for done, (pair, decoded) in enumerate(pages, start=1):
        path = _place(folder, pair)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, decoded)
        event({"event": "file", "name": f"validation {pair.name}", "done": done, "of": total})
        yield pair.name, read_mask(pair), decoded


def _place(folder: Path, pair: Pair) -> Path:
    return folder / f"{pair.name}.tif"


def _simplest(prepared: Prepared) -> tuple[str, Callable[[Pair], NDArray[np.uint8]]]:
    """The simplest method by name: Otsu's threshold for two classes, the commonest class for more.

    Which side of the threshold is the foreground is decided on training images.
    """
    if len(prepared.labels.values) == 2:
        judges = prepared.split.train_pairs[:JUDGES]
        side = otsu_polarity(
            [_pixels(pair) for pair in judges], [_foreground(prepared, pair) for pair in judges]
        )
        return f"Otsu threshold, {side} side", lambda pair: otsu_mask(_pixels(pair), foreground=side).astype(
            np.uint8
        )
    commonest = int(np.argmax(prepared.fingerprint.class_shares))
    return (
        f"everything {prepared.labels.names[commonest]}",
        lambda pair: np.full(read_mask(pair).shape, commonest, np.uint8),
    )


def _pixels(pair: Pair) -> NDArray[Any]:
    with pair.image.open_image() as image:
        return image.read(pair.image.page or 0)


def _foreground(prepared: Prepared, pair: Pair) -> NDArray[np.bool_]:
    return prepared.task.target(read_mask(pair)) == 1


def _baseline(prepared: Prepared, class_map: Callable[[Pair], NDArray[np.uint8]]) -> Iterator[Masks]:
    """The simplest method on the validation images, decoded as the network's class maps are."""
    for pair in prepared.split.val_pairs:
        yield pair.name, read_mask(pair), prepared.task.decode(class_map(pair))


def _cases(folder: Path, prepared: Prepared, evaluation: Evaluation) -> list[Case]:
    """The worst validation images with what is needed to draw them."""
    task, labels = prepared.task, prepared.labels
    pairs = {pair.name: pair for pair in prepared.split.val_pairs}
    objects = labels.task == "objects"
    cases = []
    for scores in evaluation.worst(CASES):
        pair = pairs[scores.name]
        mask = read_mask(pair)
        with open_mask(_place(folder, pair)) as file:
            decoded = file.read()[0]
        truth = labels.instances(mask) if objects else task.target(mask)
        prediction = decoded if objects else labels.encode(decoded)
        cases.append(
            Case(scores.name, _pixels(pair), truth, prediction, objects, None if objects else IGNORE)
        )
    return cases
