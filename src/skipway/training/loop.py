"""The training loop: steps, not epochs; one batch a step, batch k a pure function of (seed, k)."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from skipway.data.sampling import Batch
from skipway.errors import Interrupted, NumericalError, Problem
from skipway.losses import Loss
from skipway.nn.graph import SkipGraph
from skipway.plan import Plan
from skipway.runs import Run
from skipway.training.average import start_average, update_average
from skipway.training.collapse import Collapse
from skipway.training.ranks import ALONE, Ranks
from skipway.training.schedule import MEASURED_STEPS, learning_rate, measured, steps_in, validates
from skipway.training.shards import Shards, divided, take
from skipway.training.sharing import same_state, seed_of
from skipway.training.state import Parts, Progress, load_state, save_state
from skipway.training.step import Learnt, learn, optimiser_of, placed
from skipway.weights import save_model

STATE = "state.safetensors"
COLUMNS = ("step", "loss", "lr", "seconds", "val_score", "val_loss")
LOG_EVERY = 10
SAVE_SECONDS = 30.0
MAX_SKIPPED = 5
"""Batches with a non-finite loss or gradient that are left out before the training gives up."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Validation:
    """What one validation found: score and loss, either None where undefined."""

    score: float | None
    loss: float | None


@dataclass(frozen=True)
class Hooks:
    """What the loop calls and does not know.

    Attributes:
        batches: Batches for step s on, in order, with some left out (see `batch_number`).
        validate: Scores the averaged net.
        reserved: Seconds to keep for all validations and the final evaluation, given the averaged net.
        names: Names of the images of a batch, for messages.
        collapse: Looks at predictions of the training.
        event: Told of every step, validation, rewind and collapse.
        stopped: Asked after every step whether to save and stop.
    """

    batches: Callable[[int, Sequence[int]], AbstractContextManager[Iterator[Batch]]]
    validate: Callable[[SkipGraph], Validation]
    reserved: Callable[[SkipGraph], float]
    names: Callable[[Sequence[int]], Sequence[str]]
    collapse: Collapse
    event: Callable[[Event], None]
    stopped: Callable[[], bool]


def fit(
    plan: Plan,
    model: SkipGraph,
    loss: Loss,
    run: Run,
    hooks: Hooks,
    device: torch.device,
    *,
    spent: float = 0.0,
    ranks: Ranks = ALONE,
) -> SkipGraph:
    """Train until the plan's last step, from wherever the run folder says the training stands.

    Args:
        plan: Every number of the training.
        model: Freshly built; its weights are replaced when the folder holds a state.
        loss: Of logits, target and weights.
        run: The folder that holds state, metrics and, from the first save on, usable weights.
        hooks: Data, validation, messages.
        device: Where the arithmetic happens.
        spent: Seconds of a time budget that went before the loop.
        ranks: The processes that train together; the first alone reads and writes the folder.

    Returns:
        The averaged network, in evaluation mode, as saved.

    Raises:
        Interrupted: a stop was asked for; state and weights are saved.
        NumericalError: more than `MAX_SKIPPED` batches gave a loss or gradient that is not finite.
    """
    began = time.perf_counter()
    model = placed(model, plan, device)
    average = start_average(model)
    parts, shards = Parts(model, average, optimiser_of(plan, model)), None
    if ranks.shard:
        parts, shards = divided(ranks, plan, model, average)
    path = run.path / STATE
    fresh = not path.is_file()
    progress = restored(ranks, plan, parts, shards, path)
    if ranks.first:
        run.append_metrics(COLUMNS, [], keep_to=progress.step)
    clock = _Clock(progress.seconds + spent + time.perf_counter() - began)
    training = _Training(
        plan, model, parts, average, loss, run, hooks, device, ranks, shards, progress, clock
    )
    if fresh:
        training.save()
    while not training.finished:
        failed = training.steps()
        if failed is not None:
            training.rewind(failed)
    training.save()
    return average if shards is None else shards.read(average)


def restored(ranks: Ranks, plan: Plan, parts: Parts, shards: Shards | None, path: Path) -> Progress:
    """Set the parts in every process to the state that the first one reads, or else to its first weights."""
    plain = parts if shards is None else shards.plain(plan)
    progress = Progress(total=plan.steps)
    if ranks.first and path.is_file():
        progress = load_state(path, plain)
    progress = same_state(ranks, plain, progress)
    if shards is not None:
        take(parts, plain)
    return progress


def batch_number(step: int, skipped: Sequence[int]) -> int:
    """Number of the batch that step `step` (from 0) uses: every batch in order but the skipped ones.

    >>> [batch_number(step, [1, 2]) for step in range(3)]
    [0, 3, 4]
    """
    number = step
    for left_out in sorted(skipped):
        number += left_out <= number
    return number


@dataclass
class _Training:
    """What changes while the loop runs, and the four things done to it."""

    plan: Plan
    model: SkipGraph
    parts: Parts
    average: SkipGraph
    loss: Loss
    run: Run
    hooks: Hooks
    device: torch.device
    ranks: Ranks
    shards: Shards | None
    progress: Progress
    clock: "_Clock"
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.progress.total is not None and self.progress.step >= self.progress.total

    def steps(self) -> Batch | None:
        """Run to the end (None), or until a batch gives something that is not finite (that batch)."""
        progress, hooks = self.progress, self.hooks
        with hooks.batches(progress.step, tuple(progress.skipped)) as batches:
            while not self.finished:
                began = time.perf_counter()
                batch = next(batches)
                self.ranks.meet()
                rate = learning_rate(self.plan, progress.step, progress.total)
                learnt = self._learn(batch, rate)
                if learnt is None:
                    return batch
                progress.step += 1
                progress.loss_sum += learnt.loss
                progress.loss_count += 1
                update_average(self.average, self.parts.model, progress.step, self.plan.ema)
                self.clock.step(time.perf_counter() - began)
                self._plan_steps()
                hooks.event(
                    {
                        "event": "step",
                        "step": progress.step,
                        "total": progress.total,
                        "loss": learnt.loss,
                        "lr": rate,
                    }
                )
                if text := hooks.collapse.look(progress.step, learnt.logits, learnt.target):
                    hooks.event({"event": "warning", "text": text})
                self._after_step(rate)
        return None

    def rewind(self, failed: Batch) -> None:
        """Go back to the last saved state and leave the failed batch out from then on."""
        number = batch_number(self.progress.step, self.progress.skipped)
        indices = [index for part in self.ranks.gather(failed.indices) for index in part]
        images = ", ".join(self.hooks.names(indices))
        skipped = [*self.progress.skipped, number]
        if len(skipped) > MAX_SKIPPED:
            found = f"loss or gradient is not finite in {len(skipped)} batches, the last with {images}"
            raise NumericalError(
                Problem(found, f"step {self.progress.step}", fix="a lower --lr, or look at those images")
            )
        left = self.progress.step
        self.progress = restored(self.ranks, self.plan, self.parts, self.shards, self.run.path / STATE)
        self.progress.skipped = skipped
        self.rows.clear()
        self.hooks.event(
            {"event": "rewound", "from": left, "to": self.progress.step, "batch": number, "images": images}
        )

    def save(self) -> None:
        """Metrics, then weights, then the state that vouches for both."""
        parts = self.parts if self.shards is None else self.shards.gathered(self.plan, self.parts)
        if not self.ranks.first:
            self.rows.clear()
            return
        began = time.perf_counter()
        self.progress.seconds = self.clock.total
        self.run.append_metrics(COLUMNS, self.rows)
        self.rows.clear()
        average = self.average if self.shards is None else cast(SkipGraph, parts.average)
        save_model(self.run, average, self.plan.model, self.plan.config, self.progress.step)
        save_state(self.run.path / STATE, parts, self.progress)
        self.clock.saved(time.perf_counter() - began)

    def _learn(self, batch: Batch, rate: float) -> Learnt | None:
        plan, ranks = self.plan, self.ranks
        if not ranks.alone:
            torch.manual_seed(seed_of(plan.seed, ranks.rank, self.progress.step))
        return learn(plan, self.model, self.parts.optimiser, self.loss, batch, rate, self.device, ranks)

    def _plan_steps(self) -> None:
        """Turn a time budget into a number of steps, once, after the first steps were measured."""
        progress, budget = self.progress, self.plan.seconds
        if progress.total is None and budget is not None:
            progress.total = self.ranks.share(self._total(budget) if self.ranks.first else None)

    def _total(self, budget: float) -> int | None:
        """Steps that fit the budget, None before enough were measured."""
        progress = self.progress
        if not measured(progress.step, self.clock.total, budget):
            return None
        readable = self.average if self.shards is None else self.shards.readable
        reserved = self.hooks.reserved(readable)  # as fast with older weights
        total = steps_in(progress.step, budget, self.clock.total, self.clock.per_step, reserved)
        self.run.write("plan", replace(self.plan, steps=total).to_json())  # repeats with --plan
        facts = {"total": total, "seconds_per_step": self.clock.per_step, "reserved": reserved}
        self.hooks.event({"event": "planned", **facts})
        return total

    def _after_step(self, rate: float) -> None:
        """Validate, note, save and stop where it is time for it."""
        progress, first = self.progress, self.ranks.first
        scored = validates(progress.step, progress.total)
        if scored or progress.step % LOG_EVERY == 0:
            average = self.average if self.shards is None or not scored else self.shards.read(self.average)
            found = self.hooks.validate(average) if scored and first else Validation(None, None)
            self.rows.append(self._row(rate, found))
            if scored:
                self.hooks.event(
                    {"event": "validation", "step": progress.step, "score": found.score, "loss": found.loss}
                )
        stopped, due = self.ranks.any(self.hooks.stopped(), first and self.clock.due())
        if scored or stopped or due:
            self.save()
        if stopped:
            said = f"stopped after step {progress.step}; state and weights are saved"
            raise Interrupted(Problem(said, str(self.run.path), fix="type the same command to go on"))

    def _row(self, rate: float, found: Validation) -> dict[str, Any]:
        progress = self.progress
        row = {
            "step": progress.step,
            "loss": repr(progress.loss_sum / max(1, progress.loss_count)),
            "lr": repr(rate),
            "seconds": f"{self.clock.total:.1f}",
            "val_score": "" if found.score is None else repr(found.score),
            "val_loss": "" if found.loss is None else repr(found.loss),
        }
        progress.loss_sum, progress.loss_count = 0.0, 0
        return row


class _Clock:
    """Wall-clock time over all starts of a training, and the time of its first steps."""

    def __init__(self, before: float) -> None:
        self._before = before
        self._began = self._last_save = time.perf_counter()
        self._steps: list[float] = []
        self._pause = SAVE_SECONDS

    @property
    def total(self) -> float:
        return self._before + time.perf_counter() - self._began

    @property
    def per_step(self) -> float:
        """Median over the measured steps but the first few, which warm caches up."""
        return statistics.median(self._steps[3:] or self._steps)

    def step(self, seconds: float) -> None:
        if len(self._steps) < MEASURED_STEPS:
            self._steps.append(seconds)

    def due(self) -> bool:
        return time.perf_counter() - self._last_save > self._pause

    def saved(self, cost: float) -> None:
        """Saves take a twentieth of the time at most."""
        self._last_save = time.perf_counter()
        self._pause = max(SAVE_SECONDS, 20 * cost)
