"""Learning rate by step, and steps by time."""

import math

from skipway.plan import Plan

MEASURED_STEPS = 20
"""Steps run before the number of steps is derived from a time budget; the warm-up is longer and does not need it."""

VALIDATIONS = 8
"""Validations during a training."""


def learning_rate(plan: Plan, step: int, total: int | None) -> float:
    """Linear warm-up, then half a cosine that reaches zero with the last step.

    η(s) = η₀ · (s + 1) / W for s < W, else η₀ · ½ (1 + cos(π (s − W) / (T − W)))

    Args:
        plan: Gives η₀ and W.
        step: s, optimiser steps done.
        total: T; None before it is measured (s < W then).
    """
    warmup = plan.warmup
    if step < warmup or total is None:
        return plan.learning_rate * min(1.0, (step + 1) / warmup)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def measured(step: int, spent: float, budget: float) -> bool:
    """Whether enough was seen to turn a budget into steps: `MEASURED_STEPS`, or three where a step takes long."""
    return step >= MEASURED_STEPS or (step >= 3 and spent > budget / 10)


def steps_in(step: int, budget: float, spent: float, per_step: float, reserved: float) -> int:
    """Steps that a time budget allows, counted from the first.

    Args:
        step: Steps done.
        budget: Seconds of the whole command.
        spent: Seconds already used, from the start of the command on.
        per_step: Seconds a step, median of the measured ones.
        reserved: Seconds kept for the validations and the final evaluation.
    """
    return step + max(1, int((budget - spent - reserved) / per_step))


def validates(step: int, total: int | None) -> bool:
    """Whether the averaged weights are validated after `step`."""
    if total is None or step == 0:
        return False
    return step == total or step % max(1, math.ceil(total / VALIDATIONS)) == 0
