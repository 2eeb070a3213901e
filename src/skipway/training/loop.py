"""The training loop: steps, not epochs; one batch a step, batch k a pure function of (seed, k)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from skipway.data.sampling import Batch
from skipway.errors import CheckpointError, EnvironmentFault, Interrupted, NumericalError, Problem
from skipway.losses import Loss
from skipway.memory import forget_peak, ran_out
from skipway.nn.graph import SkipGraph
from skipway.nn.layout import for_prediction
from skipway.plan import Plan
from skipway.runs import Run
from skipway.training.average import start_average, update_average
from skipway.training.finite import finite
from skipway.training.hooks import Hooks, Validation
from skipway.training.pace import LARGE, Pace
from skipway.training.ranks import ALONE, Ranks
from skipway.training.schedule import learning_rate, validates
from skipway.training.shards import Shards, divided
from skipway.training.sharing import restored, seed_of
from skipway.training.skipping import Failed, allowed, batch_number
from skipway.training.state import Parts, Progress, has_state, keep_state, seed_all
from skipway.training.step import Learnt, learn, optimiser_of, placed
from skipway.weights import save_model

COLUMNS = ("step", "loss", "lr", "seconds", "val_score", "val_loss")
LOG_EVERY = 10


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
    provisional: bool = False,
    now: Callable[[], float] = time.perf_counter,
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
        provisional: Whether the weights for prediction are left as they are: somebody will judge the new ones.
        now: Reads a clock, in seconds.

    Returns:
        The averaged network, in evaluation mode, as saved.

    Raises:
        Interrupted: a stop was asked for; state and weights are saved.
        NumericalError: more batches than `allowed` gave a loss, gradient or weight that is not finite.
        EnvironmentFault: memory ran out a second time.
    """
    began = now()
    model = placed(model, plan, device)
    average = for_prediction(start_average(model), plan.ndim)
    parts, shards = Parts(model, average, optimiser_of(plan, model)), None
    if ranks.shard:
        parts, shards = divided(ranks, plan, model, average)
    going_on = ranks.share(has_state(run.path))
    progress, warning = restored(ranks, plan, parts, shards, run.path)
    if warning:
        hooks.event({"event": "warning", "text": warning})
    pace = Pace(progress.seconds + spent + now() - began, plan.seconds, now)
    training = _Training(
        *(plan, model, parts, average, loss, run, hooks, device, ranks, shards, progress, pace, provisional)
    )
    training.note()
    if not going_on:
        training.save()
    while not training.finished:
        training.enter_leg()
        failed = training.steps()
        if failed is not None:
            training.rewind(failed)
    training.save()
    return average if shards is None else shards.read(average)


@dataclass
class _Training:
    """What changes while the loop runs, and what is done to it."""

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
    pace: Pace
    provisional: bool = False
    noted: bool = True
    halved: bool = False

    @property
    def finished(self) -> bool:
        return self.progress.total is not None and self.progress.step >= self.progress.total

    def enter_leg(self) -> None:
        """At the beginning of a later leg: the averaged weights, a fresh optimiser, and chance anew."""
        if self.progress.leg_over:
            self.progress.leg += 1
            self.model.load_state_dict(self.average.state_dict())
            self.parts = replace(self.parts, optimiser=optimiser_of(self.plan, self.model))
            seed_all(self.plan.seed + self.progress.step)

    def steps(self) -> Failed | None:
        """Run to the end of the leg (None), or until a batch gives something that is not finite."""
        progress, hooks = self.progress, self.hooks
        with hooks.batches(progress.step, tuple(progress.skipped)) as batches:
            while not (self.finished or progress.leg_over):
                batch = next(batches)
                self.ranks.meet()
                rate = learning_rate(self.plan, progress.step, progress.here)
                try:
                    learnt = self._learn(batch, rate)
                except (RuntimeError, MemoryError) as error:
                    if not (self.ranks.alone and ran_out(error)):
                        raise
                    break  # and forget the error, which holds what the step had allocated
                if learnt is None:
                    return Failed(batch, "a loss or gradient that is not finite")
                update_average(self.average, self.parts.model, progress.step + 1, self.plan.ema)
                if not finite(self.model, self.average):
                    return Failed(batch, "weights that are not finite")
                progress.step += 1
                progress.loss_sum += learnt.loss
                progress.loss_count += 1
                self.pace.step()
                self._keep_time()
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
        if not (self.finished or progress.leg_over):
            self._compute_less()
        return None

    def rewind(self, failed: Failed) -> None:
        """Go back to the last saved state and leave the failed batch out from then on."""
        number = batch_number(self.progress.step, self.progress.skipped)
        indices = [index for part in self.ranks.gather(failed.batch.indices) for index in part]
        images = ", ".join(self.hooks.names(indices))
        skipped = [*self.progress.skipped, number]
        if len(skipped) > allowed(self.progress.total):
            total = f" of {self.progress.total}" if self.progress.total else ""
            found = f"{len(skipped)} batches{total} could not be learned from, the last ({images}) gave {failed.what}"
            raise NumericalError(
                Problem(found, f"step {self.progress.step}", fix="a lower --lr, or look at those images")
            )
        left = self.progress.step
        self._restore()
        self.progress.skipped = skipped
        told = {"from": left, "to": self.progress.step, "batch": number, "images": images}
        self.hooks.event({"event": "rewound", **told, "what": failed.what})

    def note(self) -> None:
        """Rows into metrics.csv; where that fails they travel in the state, and the training goes on."""
        rows = self.progress.rows
        if not self.ranks.first:
            rows.clear()
            return
        known = rows[0]["step"] - 1 if rows else self.progress.step
        try:
            self.run.append_metrics(COLUMNS, rows, keep_to=known)
            rows.clear()
            self.noted = True
        except (EnvironmentFault, CheckpointError) as fault:
            if self.noted:
                self.hooks.event({"event": "warning", "text": f"{fault}; the training goes on"})
            self.noted = False

    def _restore(self) -> None:
        """Everything as it was saved last."""
        found = restored(self.ranks, self.plan, self.parts, self.shards, self.run.path)
        self.progress, warning = found
        if warning:
            self.hooks.event({"event": "warning", "text": warning})

    def _compute_less(self) -> None:
        """After running out of memory: half as many patches at once, from the last saved state on, but only once."""
        micro, left = self.plan.micro or self.plan.batch, self.progress.step
        if self.halved or micro == 1:
            raise EnvironmentFault(
                Problem(
                    f"memory ran out in step {left + 1}, with {micro} of {self.plan.batch} patches at once",
                    str(self.device),
                    fix="train into a new folder with a smaller --patch, --width or --batch, or end other programs",
                )
            )
        self.halved = True
        why = f"{micro // 2} of {self.plan.batch} patches at once: memory ran out with {micro} in step {left + 1}"
        self.plan = replace(self.plan, micro=micro // 2, reasons={**self.plan.reasons, "micro": why})
        self.parts.optimiser.zero_grad(set_to_none=True)
        forget_peak(self.device)
        self._restore()
        if self.progress.total is not None:
            self.plan = replace(self.plan, steps=self.progress.total, legs=self.progress.course)
        self.run.write("plan", self.plan.to_json())
        text = f"{why}; goes on from step {self.progress.step} with the same batches, in more parts"
        self.hooks.event({"event": "warning", "text": text})

    def save(self) -> None:
        """Metrics, then weights, then the state that vouches for both."""
        parts = self.parts if self.shards is None else self.shards.gathered(self.plan, self.parts)
        self.note()
        if not self.ranks.first:
            return
        began = self.pace.total
        self.progress.seconds = began
        if not self.provisional:
            average = self.average if self.shards is None else cast(SkipGraph, parts.average)
            save_model(self.run, average, self.plan.model, self.plan.config, self.progress.step)
        self._note_plan()
        keep_state(self.run.path, parts, self.progress)
        self.pace.saved(self.pace.total - began)

    def _learn(self, batch: Batch, rate: float) -> Learnt | None:
        plan, ranks = self.plan, self.ranks
        if not ranks.alone:
            torch.manual_seed(seed_of(plan.seed, ranks.rank, self.progress.step))
        return learn(plan, self.model, self.parts.optimiser, self.loss, batch, rate, self.device, ranks)

    def _keep_time(self) -> None:
        """Measure, say when all will be over, and change the number of steps where that would miss the budget.

        Of several processes the first looks at the clock, and the others do as it does.
        """
        progress, pace = self.progress, self.pace
        first = not pace.known
        looks = self.ranks.first and pace.looks(progress.here, progress.step)
        length = self._fitting() if looks else None
        if pace.budget is not None:
            length = self.ranks.share(length)
        if length is not None:
            progress.bend(*length)
        if looks and (first or length is not None):
            self._note_plan()
            self._say_plan(first=first)

    def _fitting(self) -> tuple[int, int | None] | None:
        """Another number of steps, where the budget asks for it, and that of validations."""
        progress, pace, leg = self.progress, self.pace, self.progress.here
        if pace.measures(leg, progress.step):
            readable = (
                self.average if self.shards is None else self.shards.readable
            )  # as fast with older weights
            pace.reserving(lambda: self.hooks.reserved(readable), leg, progress.step)
        if leg.total is None:
            leg = replace(leg, validations=pace.validations)
        total = pace.fitting(leg, progress.step)
        return None if total is None else (total, leg.validations)

    def _say_plan(self, *, first: bool) -> None:
        progress, pace = self.progress, self.pace
        kept = pace.kept(progress.here, progress.step)
        facts = {
            "total": progress.total,
            "seconds_per_step": pace.per_step,
            "reserved": kept,
            "left": pace.left(progress.here, progress.step),
            "first": first,
        }
        self.hooks.event({"event": "planned", **facts})
        if first and pace.budget is not None and kept > LARGE * pace.budget:
            text = (
                f"validations and the final scores take about {kept:.0f} of the {pace.budget:.0f} s: "
                "give more --time, or fewer images to validate with --val"
            )
            self.hooks.event({"event": "warning", "text": text})
        if progress.step == progress.total:
            text = f"the time is over after step {progress.step}: give more --time"
            self.hooks.event({"event": "warning", "text": text})

    def _note_plan(self) -> None:
        """Write down what the length has become, so that --plan repeats it."""
        progress = self.progress
        if progress.total is not None and (progress.total, progress.course) != (
            self.plan.steps,
            self.plan.legs,
        ):
            self.plan = replace(self.plan, steps=progress.total, legs=progress.course)
            self.run.write("plan", self.plan.to_json())

    def _after_step(self, rate: float) -> None:
        """Validate, note, save and stop where it is time for it."""
        progress, first = self.progress, self.ranks.first
        scored = validates(progress.step, progress.here)
        if scored or progress.step % LOG_EVERY == 0:
            progress.rows.append(self._row(rate, self._validation() if scored else Validation(None, None)))
        stopped, due = self.ranks.any(self.hooks.stopped(), first and self.pace.due())
        if scored or stopped or due:
            self.save()
        if stopped:
            said = f"stopped after step {progress.step}; state and weights are saved"
            raise Interrupted(Problem(said, str(self.run.path), fix="type the same command to go on"))

    def _validation(self) -> Validation:
        average = self.average if self.shards is None else self.shards.read(self.average)
        if not self.ranks.first:
            return Validation(None, None)
        with self.pace.validating():
            found = self.hooks.validate(average)
        self.hooks.event(
            {
                "event": "validation",
                "step": self.progress.step,
                "score": found.score,
                "loss": found.loss,
            }
        )
        return found

    def _row(self, rate: float, found: Validation) -> dict[str, Any]:
        progress = self.progress
        row = {
            "step": progress.step,
            "loss": repr(progress.loss_sum / max(1, progress.loss_count)),
            "lr": repr(rate),
            "seconds": f"{self.pace.total:.1f}",
            "val_score": "" if found.score is None else repr(found.score),
            "val_loss": "" if found.loss is None else repr(found.loss),
        }
        progress.loss_sum, progress.loss_count = 0.0, 0
        return row
