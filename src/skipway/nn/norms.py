"""Norms: which one a style asks for, and those that torch has not as the family needs them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skipway.nn.layout import layout_of
from skipway.nn.style import Style
from skipway.shapes import Path

GROUPS = 32
"""Groups of channels in a group norm, or the next lower number that divides the width."""


class RepeatedBatchNorm(nn.Module):
    """Batch norm of a convolution that is used several times: y = (x − mean_k) / sqrt(var_k + eps) · weight + bias.

    Scale and shift are the same in every use; mean and variance in prediction are those of use k, for each use
    sees other maps. One pair for all uses is right for none, and prediction can lose what training has learned
    (measured in docs/decisions/0013-statistics-of-each-use.md).

    Args:
        width: Channels.
        uses: Number of uses in one pass.
        eps: Added to the variance.
        momentum: Share of the newest batch in the running statistics.

    Source: Cooijmans et al. 2017, "Recurrent batch normalization", section 3: statistics for each time step.
    """

    def __init__(self, width: int, uses: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(uses, width))
        self.register_buffer("running_var", torch.ones(uses, width))
        self.eps = eps
        self.momentum = momentum
        self.path: Path = ()

    def forward(self, x: Tensor, use: int) -> Tensor:
        """Normalise `x` of shape (B, C, *S) in use number `use`, from 0."""
        mean, var = self.running_mean[use], self.running_var[use]
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)

    def extra_repr(self) -> str:
        """Width, uses and eps, for printing."""
        uses, width = self.running_mean.shape
        return f"{width}, uses={uses}, eps={self.eps}"


_USED_ONCE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BATCH_NORMS = (*_USED_ONCE, RepeatedBatchNorm)


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each pixel: y = (x − mean_C(x)) / sqrt(var_C(x) + eps) · weight + bias.

    It sees one pixel at a time, so it needs no batch and does not depend on the tile. Shape (B, C, *S) in and
    out.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps
        self.path: Path = ()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (B, C, *S)."""
        rows = x.movedim(1, -1)
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps).movedim(-1, 1)

    def extra_repr(self) -> str:
        """Width and eps, for printing."""
        return f"{self.weight.numel()}, eps={self.eps}"


class _InstanceNorm(torch.autograd.Function):
    """Instance norm of a channels-last map, with the backward pass that torch lacks for it.

    Forward is `torch.group_norm`, to the bit. Its backward pass walks a channels-last map channel by channel, 7 times
    (fp32) to 45 times (bf16) as long as a contiguous one; that of batch norm, an image at a time, is the same
    gradient and does not. Figures in docs/decisions/0016-speed-of-a-step.md.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        images, width = x.shape[:2]
        y, mean, scale = torch.native_group_norm(x, weight, bias, images, width, x[0, 0].numel(), width, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=layout_of(x))
        found = [
            torch.ops.aten.native_batch_norm_backward(
                *(gradient[i : i + 1], x[i : i + 1], weight, None, None, mean[i], scale[i]),
                *(True, ctx.eps, [True, True, True]),
            )
            for i in range(len(x))
        ]
        inputs, weights, biases = zip(*found, strict=True)
        return (
            inputs[0] if len(x) == 1 else torch.cat(inputs),
            torch.stack(weights).sum(0),
            torch.stack(biases).sum(0),
            None,
        )


class GroupNorm(nn.Module):
    """Norm over the pixels of some channels of one image: y = (x − mean(x)) / sqrt(var(x) + eps) · w + b.

    With as many groups as channels it is the instance norm. The same function as torch's modules of these
    names, which refuse a map of a single pixel; and the instance norm of torch does not keep the
    channels-last layout. Shape (B, C, *S) in and out.

    Args:
        width: Channels.
        groups: Number of groups, or the next lower one that divides the width.
        eps: Added to the variance.

    Attributes:
        tile_exact: False: a tile has other statistics than the whole image.
    """

    tile_exact = False

    def __init__(self, width: int, groups: int = GROUPS, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.groups = next(g for g in range(min(groups, width), 0, -1) if width % g == 0)
        self.eps = eps
        self.path: Path = ()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (B, C, *S)."""
        whole = self.groups == self.weight.numel()
        if self.training and whole and x.device.type == "cpu" and layout_of(x) != torch.contiguous_format:
            return _InstanceNorm.apply(x, self.weight, self.bias, self.eps)
        return torch.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Width, groups and eps, for printing."""
        return f"{self.weight.numel()}, groups={self.groups}, eps={self.eps}"


def make_norm(width: int, style: Style, uses: int = 1) -> nn.Module | None:
    """The norm of a style for maps of `width` channels, or None; `uses` is how often a pass runs it."""
    match style.norm:
        case "batch" if uses > 1:
            return RepeatedBatchNorm(width, uses)
        case "batch":
            return _USED_ONCE[style.ndim - 1](width)
        case "instance":
            return GroupNorm(width, groups=width)
        case "group":
            return GroupNorm(width)
        case "channel_layer":
            return ChannelLayerNorm(width)
        case _:
            return None


def norm_of(model: nn.Module) -> str:
    """Names of the norms in a model, as `Style` calls them, in order; `none` where there is none.

    A group norm of one channel a group is an instance norm.
    """
    found = dict.fromkeys(name for module in model.modules() if (name := _name(module)))
    return ", ".join(found) or "none"


def _name(module: nn.Module) -> str | None:
    if isinstance(module, BATCH_NORMS):
        return "batch"
    if isinstance(module, ChannelLayerNorm):
        return "channel_layer"
    if isinstance(module, GroupNorm):
        return "instance" if module.groups == module.weight.numel() else "group"
    return None
