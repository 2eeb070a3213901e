"""Count what a network costs, without running it on numbers."""

from copy import deepcopy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from skipway.nn.blocks import BATCH_NORMS, CONVOLUTIONS, INSTANCE_NORMS, TRANSPOSED, ChannelLayerNorm, Repeat
from skipway.nn.graph import SkipGraph
from skipway.nn.paths import path_of
from skipway.shapes import Grid, advance

_PER_CHANNEL = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, ChannelLayerNorm, nn.PReLU, Repeat)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a model: weights, biases, scales and shifts of norms; no running statistics."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: SkipGraph, size: tuple[int, ...]) -> int:
    """Multiplications (each with its addition) in the convolutions of one forward pass of one image.

    A convolution costs output pixels · kernel · channels in · channels out; a transposed one, input pixels.
    Biases, norms, pooling and interpolation are left out, as papers do.

    Args:
        model: Network, on any device (also `meta`); it is left as it is.
        size: Legal size of the image.

    Raises:
        ShapeError: The network cannot take that size.
    """
    weights = {id(parameter): parameter for parameter in model.parameters()}
    twin = deepcopy(model, weights).eval()  # with the weights in the memo, no weight is copied
    shells: list[_Shell] = []
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (*CONVOLUTIONS, *TRANSPOSED)):
                shells.append(_Shell(child))
                setattr(parent, name, shells[-1])
            elif isinstance(child, _PER_CHANNEL):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        twin(torch.zeros(()).expand(1, model.in_channels, *size))
    return sum(shell.macs for shell in shells)


class _Shell(nn.Module):
    """Stands in for a convolution: gives a map of the right size, one channel of zeros, and notes the cost.

    Running the network on the meta device would do the same, but loads torch's compiler for four seconds.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.path = path_of(convolution, len(convolution.kernel_size))
        self.transposed = isinstance(convolution, TRANSPOSED)
        self.weights = convolution.weight.numel()
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to (1, 1, *S') of zeros."""
        before = x.shape[2:]
        grids = advance((Grid(),) * len(before), self.path)
        after = [int(grid.size(n)) for grid, n in zip(grids, before, strict=True)]
        self.macs += self.weights * prod(before if self.transposed else after)
        return torch.zeros(1, 1, *after)
