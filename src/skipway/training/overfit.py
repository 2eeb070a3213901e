"""Whether a throwaway network of the plan can learn one batch, and if not, whether a lower rate can.

A network that is wired right, of data that can be learnt at all, learns a single batch by heart within some dozens of
steps. What it is measured against is the best constant prediction: the logits, equal for every pixel, that give that
batch the smallest loss.

A rate that is much too high does not always diverge: with a norm and AdamW the loss may fall all the same, only slowly.
So no absolute bound decides, but the same batch learnt at lower rates: where the plan's rate is right a lower one is
slower, and where it is too high a lower one is far better.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipway.data.augment import NONE
from skipway.data.labels import LabelMap
from skipway.data.sampling import Batch, BatchPlan, Samples, make_batch
from skipway.legs import Leg
from skipway.losses import Loss, centre
from skipway.metrics.pixel import confusion, mean_defined, scores
from skipway.metrics.sets import class_scores
from skipway.nn.graph import SkipGraph
from skipway.plan import Plan
from skipway.predict.logits import class_map, class_sets
from skipway.training.schedule import learning_rate
from skipway.training.step import learn, optimiser_of, placed

STEPS = 40
"""Steps of one attempt, unless the batch is learnt before or time runs out."""

FEWEST = 12
"""Steps below which nothing can be said."""

WARMUP = 5
"""Steps of warm-up of an attempt."""

SIDE, VOLUME_SIDE, PATCHES = 64, 32, 2
"""Of the batch: side of a patch in pixels and in voxels, and patches; a larger one tells no more."""

LEARNT = 0.25
"""Share of the best constant's loss that counts as learnt by heart."""

UNSURE, AGREED = 0.5, 0.9
"""Share of it above which, and Dice below which, the batch does not count as learnt, and lower rates are tried."""

BETTER = 0.5
"""Share of the planned rate's loss below which a lower rate is far better."""

LOWER = (0.01, 0.1, 0.001)
"""Factors of the lower rates, in the order in which they are tried."""

LAST = 5
"""Losses whose median is where an attempt ended."""

FAIR = 0.05
"""Share of the pixels of a batch that must be of other classes than the most frequent one."""

BATCHES = 8
"""Batches that are looked at for one with two classes or more."""


@dataclass(frozen=True)
class Attempt:
    """One try to learn the batch.

    Attributes:
        rate: Highest learning rate.
        losses: By step; one that is not finite ends the attempt and is not among them.
        agreement: Mean Dice of the classes other than the first in the batch, at the last step; None before.
        broken: Names of the parameters with a gradient that is not finite, at the step that ended it.
        dead: Names of the parameters that never had a gradient.
        finite: Whether every loss and gradient was finite.
    """

    rate: float
    losses: tuple[float, ...]
    agreement: float | None
    broken: tuple[str, ...]
    dead: tuple[str, ...]
    finite: bool

    @property
    def end(self) -> float:
        """Where the loss ended; infinite where it was no number."""
        return self.after(len(self.losses))

    def after(self, steps: int) -> float:
        """Where it stood after so many steps."""
        return median(self.losses[:steps][-LAST:]) if self.finite and self.losses else math.inf

    def learnt(self, constant: float) -> bool:
        """Whether the batch is learnt, next to the loss of the best constant prediction."""
        told = self.finite and len(self.losses) >= FEWEST
        return told and (self.end < UNSURE * constant or (self.agreement or 0.0) > AGREED)

    def stuck(self, constant: float) -> bool:
        """Whether all steps were made and changed next to nothing, short of what a constant prediction has."""
        if not self.finite or len(self.losses) < STEPS:
            return False
        return self.end > 0.97 * self.losses[0] and self.end > UNSURE * constant


def one_batch(samples: Samples, plan: Plan, model: SkipGraph, ignore: int) -> Batch:
    """The first batch, without augmentation, that holds two classes in fair shares; else the fairest of a few.

    Args:
        samples: Of the training.
        plan: Of the training.
        model: Its network.
        ignore: Target value of what is not annotated.
    """
    geometry = model.geometry
    margin = min(geometry.margins.values())
    side = SIDE if plan.ndim == 2 else VOLUME_SIDE
    wanted = geometry.next_legal([min(p, side + 2 * m) for p, m in zip(plan.patch, margin, strict=True)])
    if "ssim" in plan.loss or plan.loss == "unet3+":  # needs the five scales of a whole patch
        wanted = plan.patch
    batches = BatchPlan(
        seed=plan.seed,
        batch_size=min(PATCHES, plan.batch),
        patch=tuple(min(pair) for pair in zip(wanted, plan.patch, strict=True)),
        augmentation=NONE,
        n=len(samples),
        margin=margin,
        foreground=1.0,
        ignore=ignore,
    )
    best, fairest = None, -1.0
    for number in range(min(BATCHES, len(samples))):
        batch = make_batch(samples, batches, number)
        fair = _second_share(batch.target, ignore)
        if fair > fairest:
            best, fairest = batch, fair
        if fairest > FAIR:
            break
    assert best is not None
    return best


def _second_share(target: Tensor, ignore: int) -> float:
    """Share of all that is not of the most frequent class, 0 for one class only."""
    known = target[target != ignore]
    if not len(known):
        return -0.5
    return 1 - int(known.unique(return_counts=True)[1].max()) / len(known)


def constant_loss(batch: Batch, loss: Loss, channels: int) -> float:
    """Loss of the best constant prediction for a batch, by descent on its few logits."""
    logits = torch.zeros(channels, requires_grad=True)
    optimiser = torch.optim.Adam([logits], 0.3)
    axes = batch.target.ndim - 1
    best = math.inf
    for _ in range(40):
        everywhere = logits.view(1, -1, *(1,) * axes).expand(len(batch.target), -1, *batch.target.shape[1:])
        value = loss(everywhere, batch.target, batch.weights)
        best = min(best, value.item())
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return best


def attempt(
    plan: Plan,
    build: Callable[[], SkipGraph],
    loss: Loss,
    batch: Batch,
    device: torch.device,
    *,
    rate: float,
    judge: Callable[[Tensor, Tensor], float | None],
    enough: Callable[[Sequence[float]], bool],
    until: float,
) -> Attempt:
    """Learn one batch for `STEPS` steps, until that is enough, or until time is up.

    Args:
        plan: Its optimiser, precision and norm of gradients.
        build: Makes a fresh network; always the same.
        loss: Of logits, target and weights.
        batch: What is learnt.
        device: Where.
        rate: Highest learning rate, after a short warm-up; it does not fall again.
        judge: Agreement of logits with a target.
        enough: Whether the losses so far, `FEWEST` at least, say all.
        until: Time (`time.perf_counter`) at which to stop.
    """
    short = replace(plan, learning_rate=rate, warmup=WARMUP)
    model = placed(build(), short, device)
    optimiser = optimiser_of(short, model)
    losses: list[float] = []
    seen = _watched(model)
    agreement: float | None = None
    while len(losses) < STEPS and not (losses and time.perf_counter() > until):
        learnt = learn(
            short, model, optimiser, loss, batch, learning_rate(short, len(losses), Leg.of(None)), device
        )
        if learnt is None:
            broken = tuple(name for name, kind in seen.items() if kind == "broken")
            return Attempt(rate, tuple(losses), None, broken, (), finite=False)
        losses.append(learnt.loss)
        agreement = judge(learnt.logits, learnt.target)
        if len(losses) >= FEWEST and enough(losses):
            break
    dead = tuple(name for name, kind in seen.items() if kind == "dead")
    return Attempt(rate, tuple(losses), agreement, (), dead, finite=True)


def _watched(model: SkipGraph) -> dict[str, str]:
    """What becomes of the gradient of each parameter: "dead" until there was one, then "alive", or "broken".

    It is seen before the gradients are scaled by their norm, which makes all of them NaN where one is.
    """
    seen = {name: "dead" for name, value in model.named_parameters() if value.requires_grad}

    def watch(name: str) -> Callable[[Tensor], None]:
        def look(parameter: Tensor) -> None:
            gradient = parameter.grad
            if gradient is None or seen[name] == "broken":
                return
            if not bool(torch.isfinite(gradient).all()):
                seen[name] = "broken"
            elif bool(gradient.any()):
                seen[name] = "alive"

        return look

    for name, value in model.named_parameters():
        if value.requires_grad:
            value.register_post_accumulate_grad_hook(watch(name))
    return seen


def by_heart(best_constant: float) -> Callable[[Sequence[float]], bool]:
    """Whether losses end far below that of the best constant prediction."""
    return lambda losses: median(losses[-LAST:]) < LEARNT * best_constant


def too_high(
    planned: Attempt, best_constant: float, lower: Callable[[float], Attempt | None]
) -> Attempt | None:
    """The attempt at a lower rate that learns what the planned rate does not, if there is one.

    Args:
        planned: At the plan's rate.
        best_constant: Loss of the best constant prediction.
        lower: Tries a lower rate; None where no time is left.
    """
    if planned.learnt(best_constant) or (planned.finite and len(planned.losses) < FEWEST):
        return None
    for factor in LOWER:
        tried = lower(planned.rate * factor)
        if tried is None:
            return None
        there = planned.after(len(tried.losses))
        if len(tried.losses) >= FEWEST and tried.end < min(BETTER * there, best_constant):
            return tried
    return None


def decided(planned: Attempt, best_constant: float) -> Callable[[Sequence[float]], bool]:
    """Whether the losses at a lower rate need no further steps: learnt, or halfway and no better than the planned."""
    learnt = by_heart(best_constant)

    def enough(losses: Sequence[float]) -> bool:
        behind = median(losses[-LAST:]) > planned.after(len(losses))
        return (len(losses) >= STEPS // 2 and behind) or learnt(losses)

    return enough


def dice(logits: Tensor, target: Tensor, labels: LabelMap) -> float | None:
    """Mean Dice of what is decided, over the classes, other than a background, in truth or decision.

    Args:
        logits: (B, channels, *S).
        target: (B, *S), class indices or sets of them.
        labels: What they mean.
    """
    seen = centre(target, tuple(logits.shape[2:])).cpu()
    channels = logits.detach().float().cpu().movedim(1, 0)
    decided = (class_sets if labels.overlapping else class_map)(channels.flatten(1))
    return _agreement(decided.numpy(), seen.flatten().numpy(), labels)


def constant_dice(target: Tensor, labels: LabelMap) -> float:
    """The same of the best decision that is equal for every pixel."""
    truth = target.flatten().cpu().numpy()
    whole = 2 ** len(labels.values) - 1
    decisions = (whole,) if labels.overlapping else range(len(labels.values))
    return max(_agreement(np.full_like(truth, k), truth, labels) or 0.0 for k in decisions)


def _agreement(decided: NDArray[Any], truth: NDArray[Any], labels: LabelMap) -> float | None:
    classes = len(labels.values)
    if labels.overlapping:
        found = class_scores(truth, decided.astype(truth.dtype), classes)
        return mean_defined(one.dice for one in found)[0]
    counted = np.where(truth == labels.unknown, classes, truth)
    table = confusion(counted, decided.astype(counted.dtype), classes, ignore=classes)
    return mean_defined(one.dice for one in scores(table)[labels.grounded :])[0]
