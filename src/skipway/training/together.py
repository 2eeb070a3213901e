"""The arithmetic of a step that several processes share: equal to that of one process with the whole batch.

Each process computes the maps of its own patches. What looks across patches does so over all of them:

- batch norm takes mean and variance of the whole batch, and gives back their share of the gradient;
- the loss is that of the whole batch, computed in every process from everybody's logits, of which only its own carry
  a gradient (the sum of such gradients is the gradient, for a Dice as for a mean);
- gradients of the weights are summed, not averaged, for each is already a share of the whole.

Sums over processes are in the precision of what is summed: gradients in float32, moments of a norm in float64.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skipway.training.ranks import Ranks

BUCKET = 8 * 1024**2
"""Numbers of a bucket of gradients: large enough to be worth a message, small enough to be copied beside the rest."""


def synchronised(ranks: Ranks) -> AbstractContextManager[Any]:
    """Within it every batch norm that trains has the statistics of the whole batch, whichever module calls it."""
    return nullcontext() if ranks.alone else _Synchronised(ranks)


class _Synchronised(TorchFunctionMode):
    """Puts `batch_norm` below in the place of torch's, as torch lets a context do; the network stays as it is."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function is F.batch_norm:
            return batch_norm(self._ranks, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def batch_norm(
    ranks: Ranks,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of the maps of all processes together.

    Args:
        ranks: The processes.
        input: Maps of this one, (B_r, C, *S).
        running_mean: (C), moved by the share `momentum` towards the mean of the whole batch, in place.
        running_var: (C), likewise, to the variance without bias.
        weight: (C).
        bias: (C).
        training: Whether the batch decides; otherwise the running statistics do.
        momentum: That share.
        eps: Added to the variance.

    Raises:
        ValueError: the whole batch has a single value a channel.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    normalised, mean, variance, count = _BatchNorm.apply(input, weight, bias, eps, ranks)
    if count[0] < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got {tuple(input.shape)}")
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.mul_(1 - momentum).add_(mean.to(running_mean), alpha=momentum)
            unbiased = variance * count / (count - 1)
            running_var.mul_(1 - momentum).add_(unbiased.to(running_var), alpha=momentum)
    return normalised


class _BatchNorm(torch.autograd.Function):
    """y = (x − mean) / sqrt(var + eps) · w + b with mean and var of all processes, and its gradient.

    With x̂ the normalised map, N the values of a channel and Σ over all processes:
    dx = w / sqrt(var + eps) · (dy − Σ dy / N − x̂ · Σ dy x̂ / N).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide, axes = _wide(x), _axes(x)
        own_var, own_mean = torch.var_mean(wide, axes, correction=0)
        own_count = torch.full_like(own_mean, x.numel() / x.shape[1], dtype=torch.float64)
        moments = torch.stack([own_count, own_mean.double(), own_var.double()])
        counts, means, variances = ranks.stacked(moments).unbind(1)  # (world, C) each
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        narrow_mean, narrow_var = mean.to(wide.dtype), variance.to(wide.dtype)
        y = torch.batch_norm(x, weight, bias, narrow_mean, narrow_var, False, 0.0, eps, False)
        ctx.save_for_backward(x, weight, narrow_mean, (variance + eps).rsqrt().to(wide.dtype), count)
        ctx.ranks = ranks
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        axes, over = _axes(x), (1, -1, *(1,) * (x.ndim - 2))
        dy = _wide(gradients[0])
        normal = (_wide(x) - mean.view(over)) * scale.view(over)
        along, across = dy.sum(axes), (dy * normal).sum(axes)
        sums = torch.stack([along, across]).double()
        ctx.ranks.summed([sums])
        shift, slope = (sums / count).to(dy.dtype).unbind()
        dx = (dy - shift.view(over)).addcmul_(normal, slope.view(over), value=-1)
        dx = dx.mul_((scale if weight is None else scale * weight.to(dy.dtype)).view(over))
        needed = ctx.needs_input_grad
        return dx.to(x.dtype), across if needed[1] else None, along if needed[2] else None, None, None


def whole_batch(ranks: Ranks, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """The patches of all processes in their order; those of others carry no gradient.

    Args:
        ranks: The processes.
        tensor: Of the patches of this one, (B_r, …).
        sizes: Patches of each.
    """
    if ranks.alone:
        return tensor
    padded = tensor.detach()
    if len(padded) < max(sizes):
        padded = torch.cat([padded, padded.new_zeros(max(sizes) - len(padded), *padded.shape[1:])])
    pieces = [row[:size] for row, size in zip(ranks.stacked(padded), sizes, strict=True)]
    pieces[ranks.rank] = tensor
    return torch.cat(pieces)


def whole(tensor: Any) -> Any:
    """All of a tensor of which each process holds a share (every process must ask), or the tensor itself."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def sum_gradients(ranks: Ranks, parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes; a weight that has none has none in any of them.

    Where the network is divided over the processes, its gradients have been summed on the way.
    """
    if ranks.alone or ranks.shard:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    buckets = [(bucket, torch.cat([g.reshape(-1) for g in bucket])) for bucket in _buckets(gradients)]
    ranks.summed([flat for _, flat in buckets])
    for bucket, flat in buckets:
        for gradient, piece in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(piece.view(gradient.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, about `BUCKET` numbers together."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (bucket[0].dtype != tensor.dtype or sum(t.numel() for t in bucket) >= BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _axes(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))
