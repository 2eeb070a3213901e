"""The end of a run of folds: the scores of all images, each by the network that never saw it, and one report."""

from collections.abc import Callable, Mapping, Sequence
from statistics import stdev
from typing import Any

from skipway.metrics.interval import mean_interval
from skipway.metrics.pixel import mean_defined
from skipway.metrics.summary import Evaluation
from skipway.predict.calibration import NAME
from skipway.report.calibration import FILE, Sampled, calibrated, trust
from skipway.report.curves import Chart, Line, draw_chart, read_columns
from skipway.report.page import Baseline, ReportInput, SplitFacts, write_report
from skipway.report.scores import Table
from skipway.report.validation import cases, label_rows
from skipway.runs import Run
from skipway.training.prepare import Prepared


def report_folds(
    run: Run,
    whole: Prepared,
    facts: Mapping[str, str],
    warnings: Sequence[str],
    versions: Mapping[str, str],
    event: Callable[[Mapping[str, Any]], None],
) -> None:
    """Write evaluation.json and report.html of a run whose folds are finished; nothing is predicted again.

    Args:
        run: The folder of the whole.
        whole: Its data and plan.
        facts: What was understood, line by line, and the `command`.
        warnings: What the reader must know.
        versions: Program and version.
        event: Told of the temperature.

    Raises:
        CheckpointError: a file of a fold is missing or damaged.
        DataError: an image cannot be read any more.
    """
    found = [fold.read("evaluation") for fold in run.folds]
    scored = [fold.read("scores") for fold in run.folds]
    evaluation = Evaluation.pooled([one["evaluation"] for one in found])
    baseline = Evaluation.pooled([one["baseline_evaluation"] for one in scored])
    scores, simple = (
        {name: value for one in scored for name, value in one[key].items()} for key in ("score", "baseline")
    )
    (score, count), (simple_score, _) = mean_defined(scores.values()), mean_defined(simple.values())
    rules = " or ".join(dict.fromkeys(one["baseline_name"] for one in found))
    figures = {"score": score, "scored": count, "baseline": simple_score, "baseline_name": rules}
    folds = {
        "folds": [{key: one[key] for key in ("score", "scored", "baseline")} for one in found],
        **_interval(scores, whole.split.groups),
    }
    run.write("evaluation", {"evaluation": evaluation.to_json(), **figures, "folds": folds})
    run.write("scores", {"score": scores, "baseline": simple, "baseline_evaluation": baseline.to_json()})
    parts = [Sampled.read(fold.path / FILE) for fold in run.folds]
    calibration = calibrated(parts, overlapping=whole.labels.overlapping)
    run.write(NAME, calibration.to_json())
    event({"event": "line", "name": "calibrated", "text": str(calibration)})
    places = {
        name: fold.path / "validation"
        for fold, names in zip(run.folds, whole.split.folds, strict=True)
        for name in names
    }
    page = ReportInput(
        title=run.path.resolve().name,
        facts={key: text for key, text in facts.items() if key != "command"},
        score_name=whole.task.score_name,
        metrics_csv=run.path / "metrics.csv",
        validation=evaluation.to_json(),
        cases=cases(places.__getitem__, whole, evaluation),
        plan=whole.plan.to_json(),
        labels=label_rows(whole.labels),
        split=SplitFacts(whole.split.train, whole.split.val, whole.split.rule, len(run.folds)),
        versions=versions,
        command=facts["command"],
        baseline=Baseline(rules, baseline.to_json(), simple_score, "baseline"),
        warnings=warnings,
        calibration=trust(calibration),
        folds=_table(folds, figures, whole.task.score_name),
        charts=_charts(run, whole.task.score_name),
    )
    write_report(run.path / "report.html", page)


def _interval(scores: Mapping[str, float | None], groups: Mapping[str, str]) -> dict[str, Any]:
    """Ends of the 95 % interval of the mean, and what was counted as independent."""
    known = {name: value for name, value in scores.items() if value is not None}
    units = [groups.get(name, name) for name in known]
    ends = mean_interval(list(known.values()), units)
    interval = None if ends is None else [max(0.0, ends[0]), min(1.0, ends[1])]
    return {"interval": interval, "units": len(set(units)), "unit": "groups" if groups else "images"}


def in_words(folds: Mapping[str, Any]) -> str:
    """The scores of the folds, their spread and the interval of the mean in one line.

    Args:
        folds: What evaluation.json of a run of folds holds under `folds`.

    >>> folds = {"folds": [{"score": 0.8}, {"score": 0.9}], "interval": [0.7, 1.0], "units": 8, "unit": "images"}
    >>> in_words(folds)
    '0.800, 0.900 (standard deviation 0.071); 95 % interval of the mean 0.700 to 1.000, by 8 images'
    """
    values = [one["score"] for one in folds["folds"]]
    defined = [value for value in values if value is not None]
    text = ", ".join("n/a" if value is None else f"{value:.3f}" for value in values)
    if len(defined) > 1:
        text += f" (standard deviation {stdev(defined):.3f})"
    if folds["interval"] is not None:
        low, high = folds["interval"]
        text += f"; 95 % interval of the mean {low:.3f} to {high:.3f}, by {folds['units']} {folds['unit']}"
    return text


def _table(folds: Mapping[str, Any], figures: Mapping[str, Any], score_name: str) -> Table:
    """One row a fold, and all images together."""
    rows = [
        (f"fold {number}", False, (one["scored"], one["score"], one["baseline"]))
        for number, one in enumerate(folds["folds"], start=1)
    ]
    pooled = (figures["scored"], figures["score"], figures["baseline"])
    rows.append(("all images, out of fold", False, pooled))
    return Table("Folds", ("n", score_name, "baseline"), tuple(rows), f"{in_words(folds)}.")


def _charts(run: Run, score_name: str) -> tuple[Chart, ...]:
    """The validation scores of the folds during their trainings."""
    lines = [
        Line(fold.path.name, read_columns(fold.path / "metrics.csv").get("val_score", ()))
        for fold in run.folds
    ]
    chart = draw_chart(f"{score_name}, fold by fold", lines, bounds=(0.0, 1.0))
    return () if chart is None else (chart,)
