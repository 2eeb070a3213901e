"""The end of a training: predict the validation images, score them beside a baseline, write the report."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.layouts import Pair
from skipway.evaluation import Evaluation
from skipway.evaluation.arrays import Masks, evaluate_arrays
from skipway.images import open_image, write_labels
from skipway.losses import IGNORE
from skipway.metrics.baseline import otsu_mask
from skipway.metrics.pixel import mean_defined
from skipway.predict.predictor import Predictor
from skipway.report.page import Baseline, Case, LabelRow, ReportInput, SplitFacts, write_report
from skipway.runs import Run
from skipway.training.prepare import Prepared
from skipway.training.session import read_mask

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
    """Write `validation/`, evaluation.json and report.html into a run folder.

    Args:
        run: The folder.
        prepared: Data and plan of the run.
        predictor: The saved weights, as `predict` loads them.
        facts: What was understood, line by line, and the `command`.
        warnings: What the reader must know.
        versions: Program and version.
        event: Told of every image.
    """
    masks = _predicted(run, prepared, predictor, event)
    name, simple = _baseline(prepared)
    evaluation, baseline = evaluate_arrays(masks, prepared.labels), evaluate_arrays(simple, prepared.labels)
    simple_score = _score(prepared, simple)
    figures = {"score": _score(prepared, masks), "baseline": simple_score, "baseline_name": name}
    run.write("evaluation", {"evaluation": evaluation.to_json(), **figures})
    labels = prepared.labels
    rows = [
        LabelRow(value, i, text)
        for i, (value, text) in enumerate(zip(labels.values, labels.names, strict=True))
    ]
    split = prepared.split
    page = ReportInput(
        title=run.path.resolve().name,
        facts={key: text for key, text in facts.items() if key != "command"},
        score_name=prepared.task.score_name,
        metrics_csv=run.path / "metrics.csv",
        validation=evaluation.to_json(),
        cases=_cases(prepared, evaluation, masks),
        plan=prepared.plan.to_json(),
        labels=rows,
        split=SplitFacts(split.train, split.val, split.rule),
        versions=versions,
        command=facts["command"],
        baseline=Baseline(name, baseline.to_json(), simple_score),
        warnings=warnings,
    )
    write_report(run.path / "report.html", page)


def _predicted(
    run: Run, prepared: Prepared, predictor: Predictor, event: Callable[[Mapping[str, Any]], None]
) -> list[Masks]:
    """Name, truth and prediction of each validation image; the predictions are written to `validation/`."""
    folder = run.path / "validation"
    folder.mkdir(exist_ok=True)
    found = []
    pairs = prepared.split.val_pairs
    for done, pair in enumerate(pairs, start=1):
        with open_image(pair.image.path) as image:
            decoded = predictor.task.decode(predictor.predict_page(image, pair.image.page or 0).labels)
        name = re.sub(r"[^\w.#-]+", "_", pair.name)
        write_labels(folder / f"{name}.tif", decoded)
        found.append((pair.name, read_mask(pair), decoded))
        event({"event": "file", "name": f"validation {pair.name}", "done": done, "of": len(pairs)})
    return found


def _score(prepared: Prepared, masks: Sequence[Masks]) -> float | None:
    return mean_defined(prepared.task.score(decoded, mask) for _, mask, decoded in masks)[0]


def _baseline(prepared: Prepared) -> tuple[str, list[Masks]]:
    """The simplest method: Otsu's threshold for two classes, the commonest class for more."""
    task, labels = prepared.task, prepared.labels
    two = len(labels.values) == 2
    commonest = int(np.argmax(prepared.fingerprint.class_shares))
    rows = []
    for pair in prepared.split.val_pairs:
        mask = read_mask(pair)
        class_map = _otsu(pair) if two else np.full(mask.shape, commonest, np.uint8)
        rows.append((pair.name, mask, task.decode(class_map)))
    return "Otsu threshold" if two else f"everything {labels.names[commonest]}", rows


def _otsu(pair: Pair) -> NDArray[np.uint8]:
    """1 where the mean over the channels lies above Otsu's threshold."""
    with open_image(pair.image.path) as image:
        pixels = image.read(pair.image.page or 0)
    return otsu_mask(pixels[0] if len(pixels) == 1 else pixels.mean(0)).astype(np.uint8)


def _cases(prepared: Prepared, evaluation: Evaluation, masks: Sequence[Masks]) -> list[Case]:
    """The worst validation images with what is needed to draw them."""
    task, labels = prepared.task, prepared.labels
    pairs = {pair.name: pair for pair in prepared.split.val_pairs}
    by_name = {name: (mask, decoded) for name, mask, decoded in masks}
    objects = labels.task == "objects"
    cases = []
    for scores in evaluation.worst(CASES):
        mask, decoded = by_name[scores.name]
        pair = pairs[scores.name]
        with open_image(pair.image.path) as file:
            image = file.read(pair.image.page or 0)
        truth = labels.instances(mask) if objects else task.target(mask)
        prediction = decoded if objects else labels.encode(decoded)
        cases.append(Case(scores.name, image, truth, prediction, objects, None if objects else IGNORE))
    return cases
