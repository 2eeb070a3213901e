"""Learning rate, validations and the number of steps: all of them by how far the training is."""

import math

from skipway.legs import Leg
from skipway.plan import Plan

MEASURED_STEPS = 20
"""Steps run before the number of steps is derived from a time budget; the warm-up is longer and does not need it."""

VALIDATIONS = 8
"""Validations during a training, where its time allows them."""


def learning_rate(plan: Plan, step: int, leg: Leg) -> float:
    """Linear warm-up, then half a cosine that reaches zero with the last step.

    η(s) = η₀ · min(1, (s + 1 − b) / W) · ½ (1 + cos(π p(s)))

    p is the part of the training that is done (`Leg.progress`). In the first leg it begins to count after the
    warm-up. A later leg goes on where the cosine of the longer training would stand, and warms up to that.

    Args:
        plan: Gives η₀ and W.
        step: s, optimiser steps done.
        leg: Gives b, its first step, and p.
    """
    warm = min(1.0, (step - leg.begin + 1) / plan.warmup)
    return plan.learning_rate * warm * (0.5 * (1 + math.cos(math.pi * leg.progress(step, _flat(plan, leg)))))


def _flat(plan: Plan, leg: Leg) -> int:
    """Steps of a leg that are before the cosine; a tenth of a training that was measured to be short."""
    if leg.begin or not leg.bends:
        return 0
    first, total = leg.bends[0]
    return plan.warmup if first == 0 else max(first, min(plan.warmup, total // 10))


def measured(steps: int, seconds: float, left: float) -> bool:
    """Whether enough was seen to turn time into steps: `MEASURED_STEPS`, or fewer where those would take too long.

    Args:
        steps: Steps done in this start.
        seconds: Time they took.
        left: Time that is left.
    """
    return steps >= MEASURED_STEPS or (steps >= 3 and seconds > left / 10) or seconds > left


def steps_in(step: int, left: float, per_step: float) -> int:
    """Number of the last step that the time allows; the one that is done, if there is none left.

    Args:
        step: Steps done.
        left: Seconds that remain for steps.
        per_step: Seconds a step.
    """
    return step + max(0, int(left / per_step))


def validates(step: int, leg: Leg) -> bool:
    """Whether the averaged weights are validated after `step`: at even parts of the training, and at its end."""
    if not leg.bends or step == leg.begin or step < leg.bends[0][0]:
        return False
    return step == leg.total or _part(leg, step) > _part(leg, step - 1)


def validations_left(step: int, leg: Leg) -> int:
    """Validations after `step`, the last one with it."""
    return max(1, _parts(leg) - _part(leg, step)) if step != leg.total else 0


def _parts(leg: Leg) -> int:
    return VALIDATIONS if leg.validations is None else leg.validations


def _part(leg: Leg, step: int) -> int:
    return int(_parts(leg) * leg.progress(step))
