"""Line charts as numbers in the units of an SVG view box; the page's template draws them."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 520, 250  # view box
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34  # room around the plot
MOST_POINTS = 400  # more would cost bytes and show nothing

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Line:
    """One curve before drawing.

    Attributes:
        name: What the key under the chart calls it.
        points: (step, value), in order of steps, all finite.
        kind: Look, as the template's style names it: `main`, `second` or `level`.
    """

    name: str
    points: Points
    kind: str = "main"


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where in the view box, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn.

    Attributes:
        title: Heading.
        summary: The chart in words, for those who do not see it.
        lines: (name, kind, SVG `points` attribute, position of the last point).
        x_ticks: Marks along the steps.
        y_ticks: Marks along the values.
        log: Whether the value axis is logarithmic.
        over: What lies along the other axis, in one word.
    """

    title: str
    summary: str
    lines: tuple[tuple[str, str, str, tuple[float, float]], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    log: bool
    over: str = "step"


def read_columns(path: Path) -> dict[str, Points]:
    """Columns of metrics.csv as (step, value) pairs; empty, malformed and non-finite values are left out.

    A missing file gives no columns: a report of a finished run must not fail over its curves.
    """
    columns: dict[str, list[tuple[float, float]]] = {}
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, text in row.items():
                value = _number(text)
                if step is not None and value is not None and name != "step":
                    columns.setdefault(name, []).append((step, value))
    return {name: tuple(points) for name, points in columns.items()}


def _number(text: object) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def draw_chart(
    title: str, lines: Sequence[Line], *, bounds: tuple[float, float] | None = None
) -> Chart | None:
    """Lay out a chart, or give None when no line has a point.

    Without `bounds`, the value axis is logarithmic when the values, all positive, span a factor of 20.

    Args:
        title: Heading.
        lines: Curves; those without points are left out.
        bounds: Values that the axis shows at least, or None to fit the data.
    """
    lines = [Line(line.name, _thinned(line.points), line.kind) for line in lines if line.points]
    if not lines:
        return None
    values = [value for line in lines for _, value in line.points]
    low, high = min(*values, *(bounds or values)), max(*values, *(bounds or values))
    log = bounds is None and low > 0 and high > 20 * low
    marks = log_ticks(low, high) if log else nice_ticks(low, high)
    last = max(step for line in lines for step, _ in line.points)
    # The end of the axis is left to its name.
    steps = [tick for tick in nice_ticks(0, last) if tick <= 0.88 * last]
    low, high = min(low, marks[0]), max(high, marks[-1])

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1), 1)

    def y(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    return Chart(
        title=title,
        summary="; ".join(_in_words(line) for line in lines),
        lines=tuple((line.name, line.kind, *drawn([(x(s), y(v)) for s, v in line.points])) for line in lines),
        x_ticks=tuple(Tick(x(step), f"{step:,.0f}") for step in steps),
        y_ticks=tuple(Tick(y(mark), f"{mark:g}") for mark in marks),
        log=log,
    )


def position(x: float, y: float) -> tuple[float, float]:
    """Where a point of the unit square lies in the view box."""
    across = LEFT + (WIDTH - LEFT - RIGHT) * x
    return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y, 1)


def drawn(points: Sequence[tuple[float, float]]) -> tuple[str, tuple[float, float]]:
    """SVG `points` of a curve, and its last point."""
    return " ".join(f"{x:g},{y:g}" for x, y in points), points[-1]


def _in_words(line: Line) -> str:
    (_, first), (step, last) = line.points[0], line.points[-1]
    if line.kind == "level":
        return f"{line.name} {last:.3g}"
    values = [value for _, value in line.points]
    spread = f"lowest {min(values):.3g}, highest {max(values):.3g}"
    return f"{line.name} goes from {first:.3g} to {last:.3g} at step {step:,.0f}, {spread}"


def _thinned(points: Points) -> Points:
    """Means over equal runs of points, so that no more than `MOST_POINTS` are left."""
    run = math.ceil(len(points) / MOST_POINTS)
    chunks = (points[k : k + run] for k in range(0, len(points), run))
    return tuple((chunk[-1][0], sum(v for _, v in chunk) / len(chunk)) for chunk in chunks)


def nice_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Round numbers that enclose `low`…`high`, at most `most` of them, 1, 2 or 5 times a power of ten apart.

    >>> nice_ticks(0.13, 0.94)
    (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """
    if high - low <= 1e-9 * abs(low):  # a constant, but for rounding
        high = low + (abs(low) or 1.0)
    power = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            break
    return tuple(float(f"{n * step:.12g}") for n in range(first, last + 1))


def log_ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Numbers 1, 2 or 5 times a power of ten that enclose `low`…`high`; powers alone when there are too many.

    >>> log_ticks(0.08, 1.7)
    (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        marks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        first = max(k for k, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
        last = min(k for k, mark in enumerate(marks) if mark >= high * (1 - 1e-9))
        if last - first < most:
            break
    return tuple(marks[first : last + 1])
