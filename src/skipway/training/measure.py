"""What a step takes on this machine: real steps of a throwaway network, timed and weighed."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from skipway import memory
from skipway.data.sampling import make_batch, prefetch
from skipway.devices import fast_bf16
from skipway.errors import Problem, UsageError
from skipway.models import build
from skipway.nn.graph import SkipGraph
from skipway.plan import KEPT, Plan, geometry_of, published_width
from skipway.request import Request
from skipway.training.average import start_average
from skipway.training.budget import SMALLEST, Cost, Limits, TooLarge, fitted, work
from skipway.training.dataset import TrainingSet
from skipway.training.prepare import Prepared
from skipway.training.session import NEVER, batch_plan, read_ahead_seconds, spread
from skipway.training.state import undisturbed
from skipway.training.step import learn, optimiser_of, placed

LOOKS = {2: 4, 3: 2}
"""Images, or volumes, that steps are measured on."""

TIMED = 3
"""Steps that are timed after a first one that warms up; the fastest counts."""

MEASURING = 0.05
"""Largest share of a time budget that is spent on measuring."""

TRAINING = 0.82
"""Share of a time budget that remains for steps and final scores: validations, saves and surprises take the rest."""

LEAST, LONG = 400, 600.0
"""Steps that a training should have at least, in budgets of so many seconds or more; see `least_steps`."""

HEADROOM = 0.1
"""Share of the memory that no measured step may fill: a whole training, with validation and scores, held 11 % more."""

CACHE_SHARE = 0.25
"""Largest share of the memory of the machine for decoded images."""


def measured(
    prepared: Prepared, request: Request, device: torch.device, spent: float = 0.0, processes: int = 1
) -> Prepared:
    """What was prepared, with a plan that fits the memory, and the time where one is given.

    Nothing of the training that follows depends on it but the plan: weights and random states are put back.

    Args:
        prepared: With the plan that the rules chose.
        request: What the user named.
        device: Where the training will run.
        spent: Seconds of a time budget that are gone.
        processes: How many train together; each computes its part of a batch, whose size is kept then.

    Raises:
        UsageError: one patch of the smallest plan exceeds the memory.
        DataError: an image cannot be read.
    """
    whole_batch = prepared.plan.batch
    plan = replace(prepared.plan, batch=-(-whole_batch // processes))
    prepared = replace(prepared, plan=plan)
    cpu, on_gpu = torch.device("cpu"), device.type == "cuda"
    kept = frozenset({"batch"} if processes > 1 else ())
    whole = memory.budget(device, request.vram if on_gpu else request.ram)
    host = memory.budget(cpu, request.ram)
    with undisturbed():
        meter = Meter(prepared, device, math.inf if request.seconds is None else MEASURING * request.seconds)
        cache = min(KEPT, meter.decoded)
        if host is not None:
            cache = min(cache, int(CACHE_SHARE * max(0, host - memory.in_use(cpu))))
        held = 0 if on_gpu else cache
        room = None if whole is None else (1 - HEADROOM) * whole - held
        try:
            found = fitted(
                plan,
                _named(prepared, request) | kept,
                _limits(prepared, request, device, room, spent + meter.ahead),
                meter.cost,
            )
        except TooLarge as error:
            raise _too_large(error, request, on_gpu, whole or 0, held) from error
        finally:
            meter.close()
    facts: dict[str, Any] = {"bytes": int(found.cost.bytes) + held if found.cost.bytes else None}
    facts["limit"] = whole
    if request.seconds is not None:
        facts["seconds"] = float(f"{found.cost.seconds:.3g}")
    batch = whole_batch if processes > 1 else found.plan.batch
    return replace(prepared, plan=replace(found.plan, batch=batch, cache=cache, measured=facts))


@dataclass
class Meter:
    """Measures plans, each on steps of a network of its own, on batches like those of the training.

    Attributes:
        prepared: Whose images the batches are cut from.
        device: Where the steps run.
        allowance: Seconds for all measurements. What is asked later, once the planned patch and network were measured,
            is estimated from the last measurement where it is smaller, and refused where it is larger.
        decoded: Bytes of all training images once decoded.
        ahead: Seconds that decoding them before the first step will take.
        overhead: Seconds of a step on one patch as small as can be.
    """

    prepared: Prepared
    device: torch.device
    allowance: float
    spent: float = 0.0
    last: tuple[Plan, Cost] | None = None
    overhead: float = 0.0
    samples: TrainingSet = field(init=False)
    decoded: int = field(init=False)
    ahead: float = field(init=False)
    net: tuple[dict[str, Any], SkipGraph, SkipGraph, torch.optim.Optimizer] | None = None

    def __post_init__(self) -> None:
        began, plan = time.perf_counter(), self.prepared.plan
        chosen = spread(self.prepared.train_volumes, LOOKS[plan.ndim])
        self.samples = TrainingSet(
            [pair for volume in chosen for pair in volume.pairs],
            self.prepared.task,
            self.prepared.normalisation,
            weighted=plan.weighted,
            ndim=plan.ndim,
        )
        sizes = []
        for index in range(len(self.samples)):
            sample = self.samples[index]
            sizes.append(
                sample.image.nbytes
                + sample.target.nbytes
                + (0 if sample.weights is None else sample.weights.nbytes)
            )
        count = len(self.prepared.train_volumes)
        self.decoded = int(sum(sizes) / len(sizes) * count)
        self.spent += time.perf_counter() - began
        self.ahead = read_ahead_seconds(self.spent / len(sizes) * count, plan.seconds)
        self._warm_up()

    def _warm_up(self) -> None:
        """One small step, for all that torch loads and compiles in the first one; a training pays for it anyway."""
        plan, spent = self.prepared.plan, self.spent
        small = geometry_of(plan.model, plan.config).next_legal([SMALLEST[plan.ndim]] * plan.ndim)
        if math.prod(small) < math.prod(plan.patch):
            self.overhead = self.cost(replace(plan, patch=small, batch=1)).seconds
            self.spent = spent

    def cost(self, plan: Plan) -> Cost:
        """Seconds of a whole step, peak bytes of one micro-batch; see `fitted`."""
        if self.last is not None and self.spent > self.allowance:
            return _estimate(plan, *self.last, self.overhead)
        began = time.perf_counter()
        micro = plan.micro or plan.batch
        try:
            try:
                found = self._steps(plan, micro)
            except ValueError:
                if micro > 1:
                    raise
                found = self._steps(plan, 2)  # a batch norm over a single value refuses one patch
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            found = None
        if found is None:
            self.close()
            found = Cost(math.inf, math.inf)
        elif self.last is not None or (plan.patch, plan.config) == (
            self.prepared.plan.patch,
            self.prepared.plan.config,
        ):
            self.last = plan, found
        self.spent += time.perf_counter() - began
        return found

    def close(self) -> None:
        """Give the memory back."""
        self.net = None
        memory.forget_peak(self.device)

    def _steps(self, plan: Plan, micro: int) -> Cost:
        model, optimiser = self._network(plan)
        cut = replace(self.prepared, plan=replace(plan, batch=micro))
        batches, loss = batch_plan(cut, model, len(self.samples)), self.prepared.loss
        whole = replace(plan, micro=None)
        memory.forget_peak(self.device)
        took: list[float] = []
        with closing(prefetch(lambda k: make_batch(self.samples, batches, k), 0, NEVER)) as made:
            while not self._enough(took):
                began = time.perf_counter()
                learn(whole, model, optimiser, loss, next(made), 0.0, self.device)
                took.append(time.perf_counter() - began)
            most = memory.peak(self.device)
        memory.forget_peak(self.device)
        kept = memory.in_use(self.device)
        return Cost(min(took) * plan.batch / micro, most, min(kept, most))

    def _enough(self, took: Sequence[float]) -> bool:
        """One step tells the memory; the time that of `TIMED` more, or fewer where they take long, but of one more."""
        if self.allowance == math.inf:
            return len(took) > 0
        return len(took) > TIMED or (len(took) > 1 and sum(took) > self.allowance / 20)

    def _network(self, plan: Plan) -> tuple[SkipGraph, torch.optim.Optimizer]:
        """A network with its average and optimiser, that of the last measurement where it is the same."""
        config = {**plan.config, "": plan.model}
        if self.net is None or self.net[0] != config:
            self.net = None
            model = placed(build(plan.model, **plan.config), plan, self.device)
            self.net = config, model, start_average(model), optimiser_of(plan, model)
        return self.net[1], self.net[3]


def _estimate(plan: Plan, known: Plan, cost: Cost, overhead: float) -> Cost:
    """From a plan that was measured to a smaller one, with the seconds that a part of a batch takes however small."""
    parts, before = (-(-of.batch // (of.micro or of.batch)) for of in (plan, known))
    share = work(plan, plan.batch) / work(known, known.batch)
    if share > 1:
        return Cost(math.inf, math.inf)
    part = work(plan, plan.micro or plan.batch) / work(known, known.micro or known.batch)
    least = min(overhead * before, cost.seconds)
    seconds = least * parts / before + (cost.seconds - least) * share
    return Cost(seconds, cost.kept + (cost.bytes - cost.kept) * part, cost.kept)


def least_steps(seconds: float) -> int:
    """Steps that a training of so much time should have: fewer where it is short, since all else gets less as well.

    >>> least_steps(60), least_steps(120), least_steps(600), least_steps(3600)
    (126, 178, 400, 400)
    """
    return int(LEAST * min(1.0, math.sqrt(seconds / LONG)))


def _limits(
    prepared: Prepared, request: Request, device: torch.device, room: float | None, spent: float
) -> Limits:
    plan, seconds = prepared.plan, request.seconds
    both = seconds is not None and fast_bf16(device)
    return Limits(
        bytes=room,
        seconds=None if seconds is None else max(0.1 * seconds, TRAINING * seconds - spent),
        least=LEAST if seconds is None else least_steps(seconds),
        width=published_width(plan.model) if "width" in plan.config else 0,
        image=prepared.fingerprint.size(plan.ndim),
        looked=len(prepared.val_volumes) * math.prod(prepared.fingerprint.size(plan.ndim)),
        precisions=("fp32", "bf16") if both else (),
    )


def _named(prepared: Prepared, request: Request) -> frozenset[str]:
    """What is left alone: what the user named, and what makes a published recipe or a network what it is."""
    plan = prepared.plan
    named = {name for name in ("batch", "patch") if getattr(request, name) is not None}
    narrow = "width" in plan.config and plan.ndim == 2 and published_width(plan.model) <= 16
    if "width" in request.asked or "backbone" in request.asked or narrow:
        named.add("width")
    if request.preset == "2015":
        named |= {"batch", "width"}
    return frozenset(named)


def _too_large(error: TooLarge, request: Request, on_gpu: bool, whole: int, held: int) -> UsageError:
    flag, asked = ("--vram", request.vram) if on_gpu else ("--ram", request.ram)
    where, sides = flag if asked else "free memory", "×".join(map(str, error.smallest.patch))
    if not math.isfinite(error.least):
        found = f"one patch of {sides} does not fit"
        return UsageError(Problem(found, where, fix="a smaller --patch or --width"))
    least = 1.03 * (error.least + held) / (1 - HEADROOM)  # no two measurements agree to the last page
    return UsageError(
        Problem(
            f"{memory.said(whole)}, too little for steps on one patch of {sides}",
            where,
            f"{memory.said(least)} at least",
            f"{flag} {1 + least // 2**20:.0f}M, or a smaller --patch or --width",
        )
    )
