"""The layers that blocks are made of: a convolution, an activation, a sum with the input, a second use."""

from typing import Any

import torch
from torch import Tensor, nn

from skipway.nn.norms import RepeatedBatchNorm
from skipway.nn.paths import path_of
from skipway.nn.style import Sides, Style, per_axis
from skipway.shapes import Grid, Path, advance

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LEAK = 0.01
"""Slope of `leaky_relu` below zero."""


def conv(
    width_in: int, width_out: int, kernel: Sides, style: Style, *, stride: Sides = 1, bias: bool = True
) -> nn.Module:
    """Convolution of the style's dimension and padding; kernel and stride are given once or per axis.

    Raises:
        ValueError: A kernel is even, so that its output would lie between the pixels.
    """
    kernels, strides = per_axis(kernel, style.ndim), per_axis(stride, style.ndim)
    if any(k % 2 == 0 for k in kernels):
        raise ValueError(f"a convolution needs odd kernels to stay on its grid, not {kernel}")
    padding: Any = tuple(k // 2 for k in kernels) if style.padding == "same" else 0
    return CONVOLUTIONS[style.ndim - 1](width_in, width_out, kernels, strides, padding, bias=bias)


def activation(width: int, style: Style, *, inplace: bool = True) -> nn.Module:
    """The activation of a style for maps of `width` channels; never in place on a map that others read."""
    match style.activation:
        case "leaky_relu":
            return nn.LeakyReLU(LEAK, inplace)
        case "prelu":
            return nn.PReLU(width)
        case _:
            return nn.ReLU(inplace)


class Residual(nn.Module):
    """act(body(x) + shortcut(x)).

    Args:
        body: Module from (B, width_in, *S) to (B, width_out, *S').
        shortcut: Module to the same channels and grid; what valid convolutions take off in the body is
            cropped before it.
        act: Applied to the sum.
        ndim: Number of spatial axes.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, act: nn.Module, ndim: int) -> None:
        super().__init__()
        self.body = body
        self.path: Path = path_of(body, ndim)
        lost = advance((Grid(),) * ndim, self.path)
        self._inside = (..., *(slice(int(g.loss / 2), int(-g.loss / 2) or None) for g in lost))
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, width_out, *S'); S' is the body's."""
        return self.act(self.body(x) + self.shortcut(x[self._inside]))


class Repeat(nn.Module):
    """Channel i of the output is channel i mod C of the input: a shortcut to more channels without weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.path: Path = ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to (B, width, *S)."""
        times = -(-self.width // x.shape[1])
        return torch.cat([x] * times, dim=1)[:, : self.width]


class Recurrent(nn.Module):
    """y = f(x), then `times` times y = f(x + y), always with the same weights.

    Args:
        body: f, layer by layer, from (B, width, *S) to the same shape. A batch norm in it is one that knows its
            uses.
        times: How often f is used again.
        ndim: Number of spatial axes.

    Source: Alom et al. 2018, eq. 1 to 3, unfolded as in fig. 4b.
    """

    def __init__(self, body: nn.Sequential, times: int, ndim: int) -> None:
        super().__init__()
        self.body = body
        self.times = times
        self.path: Path = path_of(body, ndim) * (times + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same shape."""
        y = self._use(0, x)
        for number in range(1, self.times + 1):
            y = self._use(number, x + y)
        return y

    def _use(self, number: int, x: Tensor) -> Tensor:
        for layer in self.body:
            x = layer(x, number) if isinstance(layer, RepeatedBatchNorm) else layer(x)
        return x

    def extra_repr(self) -> str:
        """Number of uses, for printing."""
        return f"times={self.times}"
