"""Networks made ready to predict on a CPU: norms folded, weights in oneDNN's own order, activations inside.

These are the operators that torch's compiler calls, called without it: nothing is exported, nothing is compiled.
"""

from typing import Any

import torch
from torch import Tensor, nn

from skipway.nn.folding import folded, followed
from skipway.nn.graph import SkipGraph
from skipway.nn.layers import CONVOLUTIONS, TRANSPOSED
from skipway.nn.layout import channels_last, for_prediction
from skipway.nn.paths import path_of
from skipway.shapes import Path

DTYPES = (torch.float32, torch.bfloat16)
ROUNDING_BF16 = 2**-5
"""Of the largest logit. Two roundings to 8 bits differ by 2⁻⁸; layers add up."""
ACTIVATIONS = (
    *(nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish),
    *(nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.ReLU6),
)
_OPERATORS = (
    *("_reorder_convolution_weight", "_convolution_pointwise"),
    *("_reorder_convolution_transpose_weight", "_convolution_transpose_pointwise"),
)


def packed(model: SkipGraph, dtype: torch.dtype | None = None) -> SkipGraph:
    """A copy of `model` that predicts the same, as far as rounding goes, in less time.

    Norms of running statistics are folded into the convolutions before them. On a CPU where torch has oneDNN, each
    convolution also keeps its weights as oneDNN wants them and applies the activation that follows. Elsewhere the
    folded copy is all that is gained.

    Args:
        model: Network, in any mode. It is not changed, and nothing is shared with it.
        dtype: Of the arithmetic, float32 or bfloat16; that of the model unless given.

    Returns:
        A graph with the same geometry, topology and surface, to predict with: it cannot be trained, saved, copied
        or moved to another device.
    """
    twin = folded(model)
    if dtype is not None:
        rounded(twin, dtype)
    if not _packable(twin):
        return for_prediction(twin, twin.ndim)
    twin.to(memory_format=channels_last(twin.ndim))
    seen = followed(twin, (*CONVOLUTIONS, *TRANSPOSED), ACTIVATIONS)
    activation = dict(seen.pairs)
    for name in seen.called:
        conv, follows = twin.get_submodule(name), activation.get(name)
        if not _known(conv):
            continue
        act = None if follows is None else twin.get_submodule(follows)
        if type(act) not in ACTIVATIONS:  # a subclass may compute something else
            act = None
        twin.set_submodule(name, PackedConv(conv, act))
        if follows is not None and act is not None:
            twin.set_submodule(follows, nn.Identity())
    return twin


class PackedConv(nn.Module):
    """activation(conv(x)) in one oneDNN operator, its weights in the order that operator wants.

    Args:
        conv: Convolution or transposed convolution, float32 or bfloat16, on the CPU.
        act: One of `ACTIVATIONS`, or None.

    Attributes:
        bias: Of the convolution; zeros where it has none.
        path: Size arithmetic, that of `conv`.
        kernel_size, stride, padding, dilation, groups, transposed: As of `conv`.
    """

    def __init__(self, conv: Any, act: nn.Module | None = None) -> None:
        super().__init__()
        ndim = conv.weight.ndim - 2
        self.transposed = isinstance(conv, TRANSPOSED)
        self.kernel_size, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        self.dilation, self.groups = conv.dilation, conv.groups
        self.path: Path = path_of(conv, ndim)
        self.layout = channels_last(ndim)
        bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        padding = [conv.padding, conv.output_padding] if self.transposed else [conv.padding]
        self._arguments = (*padding, conv.stride, conv.dilation, conv.groups)
        self._activation = _attributes(act)
        known = torch.ops.mkldnn
        reorder = (
            known._reorder_convolution_transpose_weight
            if self.transposed
            else known._reorder_convolution_weight
        )
        self._run = (
            known._convolution_transpose_pointwise if self.transposed else known._convolution_pointwise
        )
        weight = conv.weight.detach().contiguous(memory_format=self.layout)
        self._weight = reorder(weight, *self._arguments)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, width_out, *S')."""
        x = _laid_out(x, self.layout)
        return self._run(x, self._weight, self.bias, *self._arguments, *self._activation)

    def extra_repr(self) -> str:
        """Kernel, stride and activation, for printing."""
        return f"{self.bias.numel()}, kernel={self.kernel_size}, stride={self.stride}, {self._activation[0]}"


class Widened(nn.Module):
    """A module that computes in float32 what it is given in another type, and gives it back in that.

    Args:
        module: From one map to another.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """What the module gives, in the type of `x`."""
        return self.module(x.float()).to(x.dtype)


def rounded(model: SkipGraph, dtype: torch.dtype) -> SkipGraph:
    """The network, turned into one that computes in float32 or bfloat16."""
    model.to(dtype)
    if dtype == torch.bfloat16:
        model.rounding = ROUNDING_BF16
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.AvgPool3d):  # not there in bfloat16 on a CPU
                model.set_submodule(name, Widened(module))
    return model


def _packable(model: SkipGraph) -> bool:
    """Whether this torch has the operators, for the device and type of the model."""
    weight = next(model.parameters())
    able = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    there = able and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
    return there and weight.device.type == "cpu" and weight.dtype in DTYPES


def _known(conv: Any) -> bool:
    """Whether the operators compute this convolution."""
    if conv.weight.ndim < 4 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    return conv.groups == 1 if isinstance(conv, TRANSPOSED) else True


def _attributes(act: Any) -> tuple[str, list[float], str]:
    """What the operators call an activation: name, numbers, algorithm."""
    match act:
        case None:
            return "none", [], ""
        case nn.LeakyReLU():
            return "leaky_relu", [act.negative_slope], ""
        case nn.GELU():
            return "gelu", [], act.approximate
        case nn.Hardtanh():  # and ReLU6, which is one
            return "hardtanh", [act.min_val, act.max_val], ""
        case nn.SiLU():
            return "swish", [], ""
        case _:
            return type(act).__name__.lower(), [], ""


def _laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    """The map in a layout; of one channel too, which lies in both, but tells by its strides in which."""
    if x.stride(1) == 1:
        return x
    if x.shape[1] == 1:
        return x.contiguous()[:, 0].unsqueeze(-1).movedim(-1, 1)
    return x.contiguous(memory_format=layout)
