"""Everything the command line can do, as Python calls."""

import math
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from skipway.data.arrays import are_arrays, saved
from skipway.data.layouts import Reading
from skipway.errors import Problem, UsageError
from skipway.folds import train_folds
from skipway.memory import amount
from skipway.predict.files import Summary, predict_files
from skipway.predict.options import FileOptions
from skipway.predict.predictor import Predictor
from skipway.report.folds import in_words
from skipway.request import Request
from skipway.runs import Run
from skipway.single import Host, checked_by, follow, train_single
from skipway.tasks import TASKS
from skipway.training.order import Order
from skipway.training.ranks import ALONE, Ranks, joined
from skipway.training.stopping import Listener

Arrays = NDArray[Any] | Sequence[NDArray[Any]]
Event = Callable[[Mapping[str, Any]], None]

__all__ = [
    "FileOptions",
    "Order",
    "Predictor",
    "Ranks",
    "Summary",
    "Trained",
    "joined",
    "load",
    "predict_files",
    "seconds",
    "train",
    "train_run",
]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: Its folder.
        evaluation: Scores on the validation images, as `skipway evaluate --json` gives them.
        score: The one that the curve in the report shows.
        scored: Validation images that have it.
        baseline: The same score of the simplest method; None where it is undefined.
        baseline_name: That method.
        score_name: What the two scores are.
        device: Where it ran.
        folds: Of a run of folds, the score of each and the interval of their mean; see `report.folds`.
        start: Scores before and after, where the training began with weights of another, and which were kept.
    """

    run: Run
    evaluation: Mapping[str, Any]
    score: float | None
    scored: int
    baseline: float | None
    baseline_name: str
    score_name: str
    device: str
    folds: Mapping[str, Any] | None = None
    start: Mapping[str, Any] | None = None

    def predict(self, array: NDArray[Any]) -> NDArray[Any]:
        """Masks of one image in memory; see `Predictor.predict`."""
        return load(self.run.path, device=self.device).predict(array)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines that say what a figure alone would hide."""
        lines = []
        if em := self.evaluation.get("em"):
            v_rand, v_info = (
                "n/a" if em[name] is None else f"{em[name]:.3f}" for name in ("v_rand", "v_info")
            )
            lines.append(f"{'membranes':<10} V_rand {v_rand}, V_info {v_info}, thinned")
        if self.folds is not None:
            lines.append(f"{'folds':<10} {in_words(self.folds)}")
        if self.score is not None and self.baseline is not None and self.score <= self.baseline:
            lines.append(f"{'warning':<10} this does not beat the baseline: give it more --time or --steps")
        return tuple(lines)

    @property
    def summary(self) -> str:
        """The last lines that `skipway train` prints."""
        score, baseline = (
            "n/a" if value is None else f"{value:.3f}" for value in (self.score, self.baseline)
        )
        return "\n".join(
            (
                f"{'score':<10} {score}, {self.score_name}, mean of {self.scored} validation images",
                f"{'baseline':<10} {baseline}, {self.baseline_name} on the same images",
                *self.remarks,
                f"{'report':<10} {self.run.path / 'report.html'}",
                f"{'next':<10} skipway predict {shlex.quote(str(self.run.path))} NEW_IMAGES -o OUT",
            )
        )


def train(
    images: Path | str | Arrays,
    masks: Path | str | Arrays | None = None,
    output: Path | str = "run",
    *,
    task: str | None = None,
    val: Path | str | None = None,
    time: str | float | None = None,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    layout: str | None = None,
    suffix: str | None = None,
    pairs: Path | str | None = None,
    colours: Path | str | None = None,
    colour: str | None = None,
    ignore: int | None = None,
    groups: Path | str | None = None,
    fold: str | None = None,
    folds: int | None = None,
    workers: int = 1,
    self_test: bool = True,
    event: Event = lambda _: None,
    ranks: Ranks = ALONE,
    **choices: Any,
) -> Trained:
    """Train a network on images and masks, or go on where the same call stopped.

    Args:
        images: Folder of images, a multi-page TIFF, a folder that holds a data set (docs/layouts.md), or arrays:
            (N, H, W) or (N, H, W, C), or a list of them; (N, Z, H, W) for volumes. Arrays are kept as TIFF files in
            `data` inside the run folder, and read from there, so that the same call can go on.
        masks: Folder of masks, a multi-page TIFF, a file of shapes, or arrays of whole numbers.
        output: Run folder.
        task: "classes", "objects" or "multilabel" (classes that overlap); read from the masks by default.
        val: Validation data: a folder, a list, a table with a column `split`, nnU-Net's or a run's split file.
            By default whole groups, the end of a numbered series, or images drawn by lot: about a fifth.
        time: Wall-clock budget, seconds or text such as "20m".
        ram: Memory that the training keeps to, bytes or text such as "4G"; by default 80 % of what is free.
        vram: The same of the GPU.
        device: Where to run.
        layout: Name of the layout of the folder, see docs/layouts.md; found by default.
        suffix: What a mask's name has that its image's has not.
        pairs: CSV with columns image and mask, and optionally group, split and page.
        colours: Table name,r,g,b of masks in colours.
        colour: "grey" or "rgb" to read all images so, in this training and in what is predicted with it.
        ignore: Mask value of pixels that nobody annotated.
        groups: Images that must not be parted: a table with columns `name` and `group`, or "none" to switch off
            what their names say.
        fold: Which of how many parts validates, such as "2/5"; of nnU-Net's split file, the number of the fold.
        folds: Train so many folds one after the other, so that every image validates once (docs/folds.md).
        workers: Threads that make batches ahead of time; no result depends on it.
        self_test: Whether a new training is tested first, see docs/training.md.
        event: Told of what happens, one dictionary an event.
        ranks: The processes that train together, from `with joined() as ranks` under a launcher.
        **choices: Fields of `skipway.plan.Request`: model, steps, seed, preset, width, depth, loss, …

    Returns:
        The finished run.

    Raises:
        SkipwayError: see `skipway.errors` for the kinds.
    """
    choices |= {name: str(Path(choices[name]).resolve()) for name in ("start",) if choices.get(name)}
    try:
        request = Request(
            **choices,
            seconds=None if time is None else seconds(time),
            ram=None if ram is None else amount(ram, "--ram"),
            vram=None if vram is None else amount(vram, "--vram"),
        )
    except TypeError as error:
        raise UsageError(Problem(str(error).partition("__init__() ")[2] or str(error), "train")) from error
    if are_arrays(images) or are_arrays(masks):
        if not Run(Path(output)).exists:
            Run(Path(output)).require_free()
        places: tuple[Path, Path | None] = saved(images, masks, Path(output))
    else:
        places = Path(cast(str, images)), None if masks is None else Path(cast(str, masks))
    reading = Reading(
        layout=layout,
        suffix=suffix,
        pairs=None if pairs is None else Path(pairs),
        colours=None if colours is None else Path(colours),
        colour=colour,
    )
    order = Order(
        *places,
        Path(output),
        request,
        task=task,
        val=None if val is None else Path(val),
        reading=reading,
        ignore=ignore,
        groups=None if groups is None else str(groups),
        fold=fold,
        folds=folds,
        device=device,
        workers=workers,
        self_test=self_test,
    )
    return train_run(order, event, ranks=ranks)


def load(
    run: Path | str,
    device: str | None = None,
    *,
    member: int | None = None,
    calibrated: bool = True,
    backend: str = "torch",
    precision: str = "fp32",
) -> Predictor:
    """Load a run folder to predict with; see `Predictor.load`."""
    return Predictor.load(
        run, device, member=member, calibrated=calibrated, backend=backend, precision=precision
    )


def train_run(order: Order, event: Event, began: float | None = None, ranks: Ranks = ALONE) -> Trained:
    """Check, split, plan, train, evaluate, report: what `skipway train` does.

    Args:
        order: Data, run folder and what the user named.
        event: Told of what happens.
        began: When the command began, by `time.perf_counter`; now by default.
        ranks: The processes that train together. The first does all of it and tells what happens; the others take
            their part in the steps and return the same.

    Returns:
        The finished run.

    Raises:
        UsageError: the folder holds another run, or something else.
        DataError: the data cannot be used.
        Interrupted: a stop was asked for; the same call goes on.
    """
    began = time.perf_counter() if began is None else began
    heard = Listener(event)
    host = Host(ranks.device(order.device), heard, lambda: heard.left, began, ranks)
    if not ranks.first:
        follow(host)
    figures = ranks.share(_led(order, host) if ranks.first else None)
    return Trained(Run(order.output), **figures, device=str(host.device))


def _led(order: Order, host: Host) -> Mapping[str, Any]:
    """All that one process does, or the first of several; figures of the finished run."""
    if order.task is not None and order.task not in TASKS:
        raise UsageError(Problem(f"found {order.task!r}", "--task", ", ".join(TASKS)))
    if order.folds is not None:
        run, prepared = train_folds(order, host)
    else:
        run, prepared = train_single(order, host, checked_by(order, host))
    host.ranks.share()  # no more trainings
    figures = run.read("evaluation")
    host.event({"event": "finished", "run": str(run.path), **figures})
    return {**figures, "score_name": prepared.task.score_name}


def seconds(text: str | float) -> float:
    """A duration: a number of seconds, or text such as 90s, 20m, 1.5h or 1h30m.

    Raises:
        UsageError: it is none.

    >>> seconds("20m"), seconds("1h30m"), seconds(45)
    (1200.0, 5400.0, 45.0)
    """
    if isinstance(text, int | float):
        return float(text)
    if re.fullmatch(r"\s*[\d.]+\s*", text):  # twenty seconds to one, twenty minutes to the other
        fix = f"--time {text.strip()}m for minutes, {text.strip()}s for seconds"
        raise UsageError(Problem(f"found {text!r}", "--time", "a duration with its unit", fix))
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m(?:in)?)?(?:([\d.]+)s)?", text.strip())
    try:
        hours, minutes, rest = (
            (float(part or 0) for part in parts.groups()) if parts and text.strip() else (0, 0, 0)
        )
    except ValueError:
        hours = minutes = rest = 0.0
    total = 3600 * hours + 60 * minutes + rest
    if not total > 0 or not math.isfinite(total):
        raise UsageError(Problem(f"found {text!r}", "--time", "a duration above 0 such as 90s, 20m or 2h"))
    return total
