"""The arithmetic of one optimiser step, and nothing of what comes before or after it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skipway.data.sampling import Batch
from skipway.losses import Loss, supervised
from skipway.nn.graph import SkipGraph
from skipway.plan import Plan
from skipway.training.ranks import ALONE, Ranks
from skipway.training.together import sum_gradients, synchronised, whole, whole_batch


@dataclass(frozen=True)
class Learnt:
    """What came of a step.

    Attributes:
        loss: Of the batch, before the step.
        logits: Of its last output, (B, channels, *S).
        target: Its truth, (B, *S).
    """

    loss: float
    logits: Tensor
    target: Tensor


def placed(model: SkipGraph, plan: Plan, device: torch.device) -> SkipGraph:
    """The network on its device, in the memory layout that it trains in."""
    if plan.ndim == 2:
        return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def optimiser_of(plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; no weight decay on biases and norms, which have one axis."""
    many = [p for p in model.parameters() if p.ndim > 1]
    few = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": many, "weight_decay": plan.weight_decay}, {"params": few, "weight_decay": 0.0}]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


def learn(
    plan: Plan,
    model: SkipGraph,
    optimiser: torch.optim.Optimizer,
    loss: Loss,
    batch: Batch,
    rate: float,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Learnt | None:
    """One optimiser step; None where loss or gradient is not finite, and the weights are untouched then.

    Args:
        plan: Its precision, largest gradient norm and weights of the outputs.
        model: In training mode afterwards.
        optimiser: Of its parameters.
        loss: Of logits, target and weights.
        batch: On the CPU; of several processes each gives its part.
        rate: Learning rate of this step.
        device: Where the arithmetic happens.
        ranks: The processes that take this step together; each does the same to its weights.
    """
    model.train()
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    image, target = batch.image.to(device), batch.target.to(device)
    weights = None if batch.weights is None else batch.weights.to(device)
    if image.ndim == 4:
        image = image.contiguous(memory_format=torch.channels_last)
    with synchronised(ranks), torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        outputs: tuple[Tensor, ...] = model(image)
    if not ranks.alone:
        outputs = tuple(whole_batch(ranks, logits, plan.batch) for logits in outputs)
        target = whole_batch(ranks, target, plan.batch)
        weights = None if weights is None else whole_batch(ranks, weights, plan.batch)
    value = supervised(loss, outputs, target, weights, eta=plan.supervision)
    if not torch.isfinite(value):
        return None
    value.backward()
    sum_gradients(ranks, model.parameters())
    if not torch.isfinite(whole(nn.utils.clip_grad_norm_(model.parameters(), plan.clip))):
        return None
    optimiser.step()
    return Learnt(value.item(), outputs[-1].detach(), target)
