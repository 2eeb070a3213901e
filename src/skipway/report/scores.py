"""What `evaluate` found, arranged for a reader: headline, tables, and which images to look at first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    "n": "n",
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "f2": "F2",
    "ap50": "AP at 0.5",
    "ap75": "AP at 0.75",
    "mean_ap": "mean AP",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "seg": "SEG",
    "v_rand": "V_rand",
    "v_info": "V_info",
}
HEADLINE = (("objects", "ap50"), ("classes", "dice"), ("objects", "pq"), ("em", "v_rand"), ("em", "v_info"))
PER_IMAGE = (*HEADLINE[:1], ("objects", "mean_ap"), HEADLINE[1], ("classes", "iou"), *HEADLINE[2:])
MOST_ROWS = 200  # of the table of images; the JSON of `evaluate` holds them all

Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One headline number beside the same number of the baseline; None where it is not defined."""

    name: str
    value: float
    baseline: float | None


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        title: Heading.
        columns: Headings of the columns of numbers.
        rows: (name, whether it is the baseline's, numbers).
        note: Line beneath, may be empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, bool, tuple[float | int | None, ...]], ...]
    note: str = ""


def score_of(scores: Scores, group: str, key: str, background: str = "0") -> float | None:
    """One number out of the JSON of `evaluate`, or out of one entry of its `images`.

    For `classes` it is the mean over the classes other than `background` for which the number is defined.

    >>> score_of({"classes": {"0": {"dice": 0.9}, "1": {"dice": 0.5}}}, "classes", "dice")
    0.5
    """
    found = scores.get(group) or {}
    if group != "classes":
        return _finite(found.get(key))
    values = [_finite(found[name].get(key)) for name in found if str(name) != background or len(found) == 1]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def worst_first(evaluation: Scores, background: str = "0") -> list[Mapping[str, Any]]:
    """The images of an evaluation, lowest score first: AP at 0.5 of objects, else V_rand, else mean Dice.

    Images for which that score is not defined come last.
    """
    group, key = next(
        (entry for entry in (("objects", "ap50"), ("em", "v_rand")) if evaluation.get(entry[0])),
        ("classes", "dice"),
    )

    def order(image: Mapping[str, Any]) -> float:
        value = score_of(image, group, key, background)
        return math.inf if value is None else value

    return sorted(evaluation.get("images", ()), key=order)


def headline(evaluation: Scores, baseline: Scores | None, background: str = "0") -> tuple[Figure, ...]:
    """The figures that exist, each beside the baseline's."""
    found = []
    for group, key in HEADLINE:
        value = score_of(evaluation, group, key, background)
        if value is not None:
            beside = score_of(baseline, group, key, background) if baseline else None
            found.append(Figure(NAMES[key], value, beside))
    return tuple(found)


def summary_tables(
    evaluation: Scores, baseline: Scores | None, baseline_name: str, names: Mapping[str, str]
) -> tuple[Table, ...]:
    """One table a group: classes by row, objects and membranes in one row, the baseline under each.

    Args:
        evaluation: JSON of `evaluate`.
        baseline: The same of the baseline, or None.
        baseline_name: What to call it.
        names: Name of each class by its value as text.
    """
    tables = []
    rows: list[tuple[str, bool, Scores]] = []
    for value, scores in (evaluation.get("classes") or {}).items():
        name = names.get(str(value), "")
        shown = f"{value} · {name}" if name and name != str(value) else str(value)
        rows.append((shown, False, scores))
        beside = ((baseline or {}).get("classes") or {}).get(value)
        if beside:
            rows.append((f"{baseline_name}, {shown}", True, beside))
    if rows:
        error = _finite(evaluation.get("pixel_error"))
        note = "" if error is None else f"Share of pixels with the wrong class: {error:.4f}."
        tables.append(_table("Classes, pixel by pixel", rows, note))
    for group, title in (("objects", "Objects"), ("em", "Membranes")):
        if evaluation.get(group):
            rows = [("this run", False, evaluation[group])]
            if (baseline or {}).get(group):
                rows.append((baseline_name, True, (baseline or {})[group]))
            tables.append(_table(title, rows))
    return tuple(tables)


def _table(title: str, rows: Sequence[tuple[str, bool, Scores]], note: str = "") -> Table:
    keys = [key for key in NAMES if key in rows[0][2]]
    numbers = (
        [scores.get("n") if key == "n" else _finite(scores.get(key)) for key in keys] for *_, scores in rows
    )
    return Table(
        title,
        tuple(NAMES[key] for key in keys),
        tuple((name, baseline, tuple(row)) for (name, baseline, _), row in zip(rows, numbers, strict=True)),
        note,
    )


def image_table(evaluation: Scores, background: str = "0") -> Table | None:
    """One row an image, worst first, in the columns that hold any number."""
    images = worst_first(evaluation, background)
    keys = [e for e in PER_IMAGE if any(score_of(image, *e, background) is not None for image in images)]
    if not images or not keys:
        return None
    rows = tuple(
        (str(image.get("name", "")), False, tuple(score_of(image, *entry, background) for entry in keys))
        for image in images[:MOST_ROWS]
    )
    left = len(images) - len(rows)
    note = f"{left:,} better ones are not shown; `skipway evaluate --json` lists all." if left else ""
    return Table("Image by image, worst first", tuple(NAMES[key] for _, key in keys), rows, note)
