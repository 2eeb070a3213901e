"""Averaged weights: what is saved for prediction."""

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def start_average(model: M) -> M:
    """A copy of `model` in evaluation mode that learns only through `update_average`."""
    average = copy.deepcopy(model).eval()
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """θ̄ ← d · θ̄ + (1 − d) · θ with d = min(decay, (1 + step) / (10 + step)), batch-norm statistics alike.

    The ramp keeps the random start out of a short training.

    Args:
        average: Changed in place.
        model: Read.
        step: Optimiser steps done.
        decay: The final d.
    """
    d = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - d)
        else:
            kept.copy_(new)
