"""Norms: which one a style asks for, and those that torch has not as the family needs them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
