"""What each level of a supervised network is worth and costs, and a run folder with the smallest that will do.

A supervised network has several outputs; the sub-network of one of them is what can be reached from it. Its
output equals that of the whole network to the bit, so nothing is trained again: pruning is a choice.

Source: Zhou et al. 2020, section III-D (L1 … L4 of UNet++).
"""

import datetime
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from skipway.errors import NumericalError, Problem, UsageError
from skipway.metrics.pixel import mean_defined
from skipway.nn.graph import SkipGraph
from skipway.nn.operations import count_macs, count_parameters, peak_bytes
from skipway.predict.predictor import Predictor
from skipway.predict.stream import evaluating
from skipway.report.validation import validate_run
from skipway.runs import FORMAT, MARK, Run
from skipway.training.claim import versions
from skipway.training.prepare import Prepared
from skipway.training.session import predicted_pages, read_mask
from skipway.weights import save_model

Event = Callable[[Mapping[str, Any]], None]

ROUNDS = 5
"""Timed passes of each level, in rotation; the median counts."""

WITHIN = 0.005
"""Score that a smaller network may lose, unless the user says otherwise."""


FEW = 10
"""Validation images below which the table says that it decides little."""


@dataclass(frozen=True)
class Level:
    """One sub-network: its worth and its cost.

    Attributes:
        level: Column of its output.
        output: Key of the output node.
        score: Mean over the validation images that have one; None where none has.
        parameters: Trainable numbers.
        macs: Multiplications of one pass over a tile of `size`.
        milliseconds: Of one pass, median of `ROUNDS`.
        peak_mib: Most memory that feature maps took at once during that pass.
        size: Side of the tile that was timed, per axis.
    """

    level: int
    output: str
    score: float | None
    parameters: int
    macs: int
    milliseconds: float
    peak_mib: float
    size: tuple[int, ...]


@dataclass(frozen=True)
class Pruned:
    """What `prune` did.

    Attributes:
        run: The new run folder.
        kept: Level that it holds.
        levels: All levels, smallest output first, the whole network last.
        score_name: What the scores are.
        scored: Validation images they are the mean of.
    """

    run: Path
    kept: int
    levels: tuple[Level, ...]
    score_name: str
    scored: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for prune.json."""
        return {**asdict(self), "run": str(self.run)}

    def __str__(self) -> str:
        """The table, the level that was kept marked."""
        rows = [("level", "output", "score", "parameters", "GMAC", "ms", "feature MiB", "")]
        rows += [
            (
                f"L{one.level}",
                one.output,
                "n/a" if one.score is None else f"{one.score:.4f}",
                f"{one.parameters:,}",
                f"{one.macs / 1e9:.2f}",
                f"{one.milliseconds:.1f}",
                f"{one.peak_mib:.1f}",
                "kept" if one.level == self.kept else "",
            )
            for one in self.levels
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        size = "×".join(map(str, self.levels[-1].size))
        few = (
            ()
            if self.scored >= FEW
            else (f"warning: {self.scored} images decide little about small differences",)
        )
        notes = (
            f"score: {self.score_name}, mean of {self.scored} validation images; costs of one pass over {size}",
            *few,
            f"run    {self.run}",
            f"next   skipway predict {shlex.quote(str(self.run))} NEW_IMAGES -o OUT",
        )
        return "\n".join((*lines, *notes))


def prune(
    run: Path | str,
    output: Path | str | None = None,
    *,
    level: int | None = None,
    within: float = WITHIN,
    device: str | None = None,
    event: Event = lambda _: None,
) -> Pruned:
    """Measure every level of a run and write the one to keep as a run folder of its own.

    Args:
        run: Run folder of a network with several outputs.
        output: Folder for the pruned run; `<run>-L<level>` unless given.
        level: Level to keep; unless given, the smallest whose score is at most `within` below the whole
            network's.
        within: That tolerance, in the unit of the score.
        device: Where to measure.
        event: Told of what happens.

    Raises:
        UsageError: The run has one output only, no such level, or the folder is taken.
        DataError: A validation image cannot be read.
        NumericalError: The pruned output differs from the whole network's.
    """
    source = Run.open(Path(run))
    if not within >= 0:
        raise UsageError(Problem(f"found {within}", "--within", "a score of 0 or more, such as 0.005"))
    whole = Predictor.load(source.path, device)
    columns = _columns(whole.network, source.path)
    if level is not None and level not in columns:
        there = ", ".join(map(str, columns))
        raise UsageError(Problem(f"found {level}", "--level", f"one of {there}"))
    if output is not None:
        Run(Path(output)).require_free()
    prepared = Prepared.read(source)
    levels, scored = _measured(whole, prepared, columns, event)
    kept = level if level is not None else choose(levels, within)
    target = Path(output or f"{source.path.resolve()}-L{kept}")
    found = Pruned(target, kept, levels, prepared.task.score_name, scored)
    _write(source, Run.create(target), whole, prepared, found, event)
    event({"event": "finished", **found.to_json()})
    return found


def choose(levels: Sequence[Level], within: float) -> int:
    """The level of fewest parameters among those that score at most `within` below the last.

    >>> costs = {"macs": 1, "milliseconds": 1.0, "peak_mib": 1.0, "size": (8,)}
    >>> some = [Level(i, f"x0_{i}", s, 10**i, **costs) for i, s in ((1, 0.80), (2, 0.896), (3, 0.90))]
    >>> choose(some, 0.005), choose(some, 0.001), choose(some, 0.2)
    (2, 3, 1)
    """
    best = levels[-1].score
    good = [one for one in levels if best is None or (one.score is not None and one.score >= best - within)]
    return levels[-1].level if best is None else min(good, key=lambda one: one.parameters).level


def _columns(model: SkipGraph, source: Path) -> tuple[int, ...]:
    columns = tuple(dict.fromkeys(node.column for node in model.topology.outputs))
    if len(columns) < 2:
        raise UsageError(
            Problem(
                f"the network has one output, {model.topology.outputs[0].key}: there is nothing to choose",
                str(source),
                "a run trained with several outputs",
                "train with --model unet_plus_plus --supervised, or another model that offers it",
            )
        )
    return columns


def _measured(
    whole: Predictor, prepared: Prepared, columns: Sequence[int], event: Event
) -> tuple[tuple[Level, ...], int]:
    """Worth and cost of every level, and the number of images the scores are the mean of."""
    predictors = {column: whole.using(level=column) for column in columns}
    size = predictors[columns[-1]].network.geometry.next_legal(prepared.fingerprint.size(whole.ndim))
    tile = torch.randn(1, whole.network.in_channels, *size).to(whole.device)
    times = _times({column: predictor.network for column, predictor in predictors.items()}, tile)
    levels = []
    scored = 0
    for done, (column, predictor) in enumerate(predictors.items(), start=1):
        score, scored = _score(predictor, prepared)
        model = predictor.network
        levels.append(
            Level(
                level=column,
                output=model.topology.outputs[-1].key,
                score=score,
                parameters=count_parameters(model),
                macs=count_macs(model, size),
                milliseconds=1000 * statistics.median(times[column]),
                peak_mib=peak_bytes(model.frugal, tile) / 2**20,
                size=size,
            )
        )
        event({"event": "file", "name": f"level {column}", "done": done, "of": len(columns)})
    return tuple(levels), scored


def _times(models: Mapping[int, SkipGraph], tile: torch.Tensor) -> dict[int, list[float]]:
    """Seconds of `ROUNDS` passes of each network, in rotation, after one that warms up."""
    times: dict[int, list[float]] = {column: [] for column in models}
    for number in range(ROUNDS + 1):
        for column, model in models.items():
            with evaluating(model):
                began = time.perf_counter()
                _ = model.frugal(tile)[-1].sum().item()  # waits for the device
                if number:
                    times[column].append(time.perf_counter() - began)
    return times


def _score(predictor: Predictor, prepared: Prepared) -> tuple[float | None, int]:
    pages = predicted_pages(predictor, prepared.val_volumes)
    return mean_defined(predictor.task.score(decoded, read_mask(pair)) for pair, decoded in pages)


def _write(
    source: Run, target: Run, whole: Predictor, prepared: Prepared, found: Pruned, event: Event
) -> None:
    """The run folder of the level that was kept, scored and reported like any other."""
    predictor = whole.using(level=found.kept)
    _require_equal(whole.network, predictor.network, found.levels[-1].size, whole.device)
    plan = replace(prepared.plan, config={**prepared.plan.config, "level": found.kept})
    pruned = replace(prepared, plan=plan)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    asked = {"pruned_from": str(source.path.resolve()), "level": found.kept}
    with target.locked():
        mark = {"format": FORMAT, "created": created, "finished": False, "asked": asked}
        target.write(MARK.removesuffix(".json"), mark)
        pruned.write(target)
        target.write("versions", {**versions(), "device": str(whole.device)})
        target.write("prune", found.to_json())
        if (source.path / "metrics.csv").is_file():
            shutil.copyfile(source.path / "metrics.csv", target.path / "metrics.csv")
        save_model(target, predictor.network, plan.model, plan.config, step=plan.steps or 0)
        facts = {
            "pruned": f"L{found.kept} of {source.path}",
            "command": f"skipway prune {source.path} --level {found.kept} -o {target.path}",
        }
        validate_run(
            target, pruned, Predictor.load(target.path, str(whole.device)), facts, (), versions(), event
        )
        target.write("run", {**mark, "finished": True})


def _require_equal(whole: SkipGraph, part: SkipGraph, size: tuple[int, ...], device: torch.device) -> None:
    """Run both once; the output that was kept must not differ in a bit."""
    image = torch.randn(1, whole.in_channels, *size).to(device)
    outputs = whole.topology.outputs
    at = outputs.index(part.topology.outputs[-1]) - len(outputs)  # from the end: presence logits come first
    with evaluating(whole), evaluating(part):
        if not torch.equal(whole.frugal(image)[at], part.frugal(image)[-1]):
            raise NumericalError(
                Problem("the pruned output differs from the whole network's", part.name, "equal bits")
            )
