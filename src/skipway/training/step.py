"""The arithmetic of one optimiser step, and nothing of what comes before or after it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skipway.data.sampling import Batch
from skipway.losses import Loss, supervised
from skipway.nn.graph import SkipGraph
from skipway.nn.layout import channels_last
from skipway.nn.norms import norm_of
from skipway.plan import Plan
from skipway.training.micro import chunks, micro_batches, shares
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
    """The network on its device, in the memory layout that it trains in fastest."""
    layout = layout_for(model, plan)
    if layout == torch.contiguous_format:
        return model.to(device)
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def layout_for(model: nn.Module, plan: Plan) -> torch.memory_format:
    """The layout that a network trains in fastest, as measured (docs/decisions/0016-speed-of-a-step.md).

    Channels-last, but not with a norm over several channels at once, whose backward pass does not know that layout; and
    volumes only in bfloat16, for in single precision it gains nothing there.
    """
    grouped = "group" in norm_of(model).split(", ")
    if grouped or (plan.ndim == 3 and plan.precision != "bf16"):
        return torch.contiguous_format
    return channels_last(plan.ndim)


def optimiser_of(plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; no weight decay on biases and norms, which have one axis.

    On a CPU AdamW is the fused one, but where weights are divided over processes: one pass over them in place of
    ten, in half the time.
    """
    many = [p for p in model.parameters() if p.ndim > 1]
    few = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": many, "weight_decay": plan.weight_decay}, {"params": few, "weight_decay": 0.0}]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum)
    plain = all(type(weight) is nn.Parameter and weight.device.type == "cpu" for weight in many)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=plain or None)


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
        plan: Its precision, largest gradient norm, weights of the outputs, and how many patches are computed at
            once; gradients of the parts of a batch add up to those of the whole (see `training.micro`).
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
    patches = len(batch.image) if ranks.alone else plan.batch
    parts = micro_batches(batch, chunks(ranks, patches, plan.micro))
    total, logits, targets = 0.0, [], []
    for part, share in zip(parts, shares(parts, ranks), strict=True):
        value, seen, target = _loss_of(plan, model, loss, part, device, ranks)
        if not torch.isfinite(value):
            return None
        (share * value).backward()
        total += share * value.item()
        logits.append(seen)
        targets.append(target)
    sum_gradients(ranks, model.parameters())
    if not torch.isfinite(whole(nn.utils.clip_grad_norm_(model.parameters(), plan.clip))):
        return None
    optimiser.step()
    return Learnt(total, torch.cat(logits), torch.cat(targets))


def _loss_of(
    plan: Plan, model: SkipGraph, loss: Loss, batch: Batch, device: torch.device, ranks: Ranks
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of a batch or a part of it, logits of its last output, and its truth there, of all processes together."""
    image, target = batch.image.to(device), batch.target.to(device)
    weights = None if batch.weights is None else batch.weights.to(device)
    image = image.contiguous(memory_format=layout_for(model, plan))
    with synchronised(ranks), torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        outputs: tuple[Tensor, ...] = model(image)
    if not ranks.alone:
        sizes = ranks.gather(len(image))
        outputs = tuple(whole_batch(ranks, logits, sizes) for logits in outputs)
        target = whole_batch(ranks, target, sizes)
        weights = None if weights is None else whole_batch(ranks, weights, sizes)
    return supervised(loss, outputs, target, weights, eta=plan.supervision), outputs[-1].detach(), target
