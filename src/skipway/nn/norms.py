"""Norms: which one a style asks for, and those that torch has not as the family needs them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipway.nn.style import Style
from skipway.shapes import Path

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
GROUPS = 32
"""Groups of channels in a group norm, or the next lower number that divides the width."""


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


def make_norm(width: int, style: Style) -> nn.Module | None:
    """The norm of a style for maps of `width` channels, or None."""
    match style.norm:
        case "batch":
            return BATCH_NORMS[style.ndim - 1](width)
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
