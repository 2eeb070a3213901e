"""report.html: one file that needs no network, no script and no other file, and that a sceptic can read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import replacing, utf8
from . import curves, pictures, scores

CASE_SIDE = 448  # pixels of a case that are shown, at full resolution


@dataclass(frozen=True)
class Case:
    """One validation image to look at.

    Attributes:
        name: Name of the pair.
        image: Pixels (H, W) or (C, H, W), any real type.
        truth: Class indices or object ids (H, W), 0 is background.
        prediction: The same.
        objects: Whether the labels are object ids.
        ignore: Value in `truth` that does not count, or None.
        sets: Whether the labels are sets of overlapping classes, Σ 2^k.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    objects: bool = False
    ignore: int | None = None
    sets: bool = False


@dataclass(frozen=True)
class LabelRow:
    """One class: the value in the user's masks, or its name where classes overlap, the index, and a name."""

    value: int | str
    index: int
    name: str = ""


@dataclass(frozen=True)
class SplitFacts:
    """Names of the pairs on either side, the rule that divided them, and how many folds there are."""

    train: Sequence[str]
    val: Sequence[str]
    rule: str
    folds: int = 0

    @property
    def lead(self) -> str:
        """What the images that validate are to the network."""
        if self.folds:
            return f"each predicted by the one of {self.folds} networks that never saw it"
        if self.train == self.val:
            return "the same that trained, so the figures say nothing about new images"
        return "never trained on"


@dataclass(frozen=True)
class Baseline:
    """A simple method on the same validation images.

    Attributes:
        name: Such as `Otsu threshold`.
        evaluation: Its JSON of `evaluate`.
        score: Its value of the score that the curve shows, or None.
        short: What to call it after it was named once; empty for `name`.
    """

    name: str
    evaluation: Mapping[str, Any]
    score: float | None = None
    short: str = ""


@dataclass(frozen=True)
class Trust:
    """How far the probabilities hold: label and text, and a diagram of reliability."""

    facts: Sequence[tuple[str, str]]
    chart: curves.Chart | None


@dataclass(frozen=True)
class ReportInput:
    """All that the page shows.

    Attributes:
        title: Name of the run.
        facts: What was understood and done, as the command line printed it: label and text.
        score_name: What `val_score` in metrics.csv is.
        metrics_csv: File with the columns step, loss, lr, seconds, val_score, val_loss.
        validation: JSON of `evaluate` on the validation images.
        cases: Images to show, worst first; `scores.worst_first` names them.
        plan: The plan, nested or flat.
        labels: The label map; the entry with index 0 is background.
        split: Who trained, who validated.
        versions: Program and version.
        command: What to type to repeat the run.
        baseline: Simple method to compare with, or None.
        warnings: What the reader must know before trusting a number; those of `validation` are added.
        folds: The score of each fold, of a run of folds.
        calibration: How far the probabilities hold.
        charts: Shown before those of `metrics_csv`.
    """

    title: str
    facts: Mapping[str, str]
    score_name: str
    metrics_csv: Path
    validation: Mapping[str, Any]
    cases: Sequence[Case]
    plan: Mapping[str, Any]
    labels: Sequence[LabelRow]
    split: SplitFacts
    versions: Mapping[str, str]
    command: str
    baseline: Baseline | None = None
    warnings: Sequence[str] = field(default=())
    folds: scores.Table | None = None
    calibration: Trust | None = None
    charts: Sequence[curves.Chart] = field(default=())


def write_report(path: Path, report: ReportInput) -> Path:
    """Write the page, atomically.

    Args:
        path: File to write, usually `report.html` in the run folder.
        report: What to show.

    Returns:
        `path`.

    Raises:
        EnvironmentFault: The file cannot be written.
    """
    page = render(report)
    with replacing(path) as file:
        file.write(utf8(page))
    return path


def render(report: ReportInput) -> str:
    """The page as text. Every name in it is escaped; a policy in its head forbids scripts and the network."""
    template = page_template(files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    baseline = report.baseline.evaluation if report.baseline else None
    short = (report.baseline.short or report.baseline.name) if report.baseline else ""
    background = next((str(label.value) for label in report.labels if label.index == 0), "0")
    names = {str(label.value): label.name for label in report.labels}
    objects = any(case.objects for case in report.cases)
    return template.render(
        report=report,
        baseline_name=report.baseline.name if report.baseline else "",
        baseline_short=short,
        n=report.validation.get("n", len(report.split.val)),
        warnings=[*report.warnings, *report.validation.get("warnings", ())],
        convention=_convention(report.validation.get("convention", "")),
        figures=scores.headline(report.validation, baseline, background),
        tables=scores.summary_tables(report.validation, baseline, short, names),
        image_table=scores.image_table(report.validation, background),
        calibration=report.calibration,
        charts=[*report.charts, *_charts(report)],
        box=curves,
        cases=[picture(case) for case in report.cases],
        legend=pictures.legend(objects, any(case.sets for case in report.cases)),
        swatch={}
        if objects
        else {label.index: pictures.label_colour(label.index) for label in report.labels},
        plan=list(_flat(report.plan)),
    )


def page_template(text: str) -> Any:
    """A template of a page in the one style, which it finds as `style`. Names are escaped, `number` is a filter."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.globals["style"] = Markup(files(__package__).joinpath("style.css").read_text("utf-8"))
    return environment.from_string(text)


def _charts(report: ReportInput) -> list[curves.Chart]:
    columns = curves.read_columns(report.metrics_csv)
    score = columns.get("val_score", ())
    lines = [curves.Line("validation", score)]
    if score and report.baseline and report.baseline.score is not None:
        level = ((0.0, report.baseline.score), (score[-1][0], report.baseline.score))
        lines.append(curves.Line(report.baseline.short or report.baseline.name, level, "level"))
    loss = [
        curves.Line("training", columns.get("loss", ())),
        curves.Line("validation", columns.get("val_loss", ()), "second"),
    ]
    found = (curves.draw_chart("Loss", loss), curves.draw_chart(report.score_name, lines, bounds=(0.0, 1.0)))
    return [chart for chart in found if chart]


@dataclass(frozen=True)
class _Panel:
    title: str
    uri: str


@dataclass(frozen=True)
class Picture:
    """A case as the template needs it."""

    name: str
    note: str
    panels: tuple[_Panel, ...]
    size: tuple[int, int]
    summary: str


def picture(case: Case) -> Picture:
    """The window with the most errors, at full resolution: shrinking would hide what there is to see."""
    kind = pictures.errors(case.truth, case.prediction, objects=case.objects, ignore=case.ignore)
    window = pictures.window_of_most_errors(kind, CASE_SIDE)
    # Contrast, ids and matches are those of the whole image, whatever part of it is shown.
    predicted = pictures.follow(case.prediction, case.truth) if case.objects else case.prediction
    marked = pictures.error_overlay(
        case.image, case.truth, case.prediction, objects=case.objects, ignore=case.ignore
    )
    height, width = kind[window].shape
    truth, found = (
        pictures.overlay_sets(case.image, labels)[window]
        if case.sets
        else pictures.colour_labels(labels[window])
        for labels in (case.truth, predicted)
    )
    note = f"{width} × {height} pixels"
    if kind[window].shape != kind.shape:
        note += f" at x {window[1].start}, y {window[0].start} of {kind.shape[1]} × {kind.shape[0]}"
    return Picture(
        name=case.name,
        note=note,
        panels=(
            _Panel("input", pictures.data_uri(pictures.stretch(case.image)[window], photo=True)),
            _Panel("truth", pictures.data_uri(truth, photo=case.sets)),
            _Panel("prediction", pictures.data_uri(found, photo=case.sets)),
            _Panel("errors", pictures.data_uri(marked[window], photo=True)),
        ),
        size=(width, height),
        summary=_in_words(kind, case),
    )


def _in_words(kind: np.ndarray, case: Case) -> str:
    counts = np.bincount(kind.ravel(), minlength=len(pictures.KINDS) + 1)[1:]
    if not counts.any():
        return "nothing to find, nothing found"
    shares = 100 * counts / counts.sum()
    if case.sets:
        return f"of all pixels that truth or prediction give a class, {shares[0]:.0f} % have exactly the right ones"
    wrong = "merged, split or misshapen" if case.objects else "of the wrong class"
    return (
        f"of all pixels that truth or prediction call foreground, {shares[0]:.0f} % right, "
        f"{shares[1]:.0f} % missed, {shares[2]:.0f} % false alarm, {shares[3]:.0f} % {wrong}"
    )


def _number(value: object) -> str:
    """Three decimals for a fraction, a dash for what is not defined."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return "–" if value is None else str(value)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text); entries of lists are counted from 1.

    >>> _flat({"batch": 4, "legs": [{"begin": 0}]})
    [('batch', '4'), ('legs.1.begin', '0')]
    """
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            rows += _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list | tuple) and any(isinstance(entry, Mapping) for entry in item):
            for number, entry in enumerate(item, start=1):
                rows += _flat(entry, f"{prefix}{key}.{number}.")
        elif isinstance(item, list | tuple):
            rows.append((f"{prefix}{key}", ", ".join(str(entry) for entry in item)))
        else:
            rows.append((f"{prefix}{key}", "–" if item is None else str(item)))
    return rows


def _convention(value: object) -> list[str]:
    """The convention as sentences, whether it came as text, a list or a mapping."""
    if isinstance(value, Mapping):
        return [f"{key}: {text}" for key, text in value.items()]
    if isinstance(value, list | tuple):
        return [str(text) for text in value]
    return [str(value)] if value else []
