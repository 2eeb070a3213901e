"""How the weights of a network are drawn or set, as its paper says."""

from functools import reduce
from math import prod, sqrt

import torch
from torch import Tensor, nn

from skipway.nn.layers import CONVOLUTIONS, TRANSPOSED
from skipway.nn.norms import BATCH_NORMS


def he_init(model: nn.Module) -> None:
    """Initialise all convolutions of a model: weights ~ N(0, sqrt(2 / N)), biases 0.

    N is the number of incoming connections of one neuron: channels · kernel, and for a transposed convolution
    what of that one output pixel sees, channels · kernel / stride. Draws from torch's global generator.

    Source: Ronneberger et al. 2015, section 3 (after He et al. 2015).
    """
    for module in model.modules():
        if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) or module.weight.is_meta:
            continue  # nothing to draw on the meta device, where normal_ would load the whole compiler
        fan_in = module.in_channels // module.groups * prod(module.kernel_size)
        if isinstance(module, TRANSPOSED):
            fan_in //= prod(module.stride)
        nn.init.normal_(module.weight, std=sqrt(2 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def norm_init(model: nn.Module, std: float) -> None:
    """Draw the scales of all batch norms from N(1, std). Source: the code of UNet 3+ (Huang et al. 2020)."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS) and not module.weight.is_meta:
            nn.init.normal_(module.weight, mean=1.0, std=std)


def bilinear_row(kernel: int) -> Tensor:
    """Weights of linear interpolation along one axis: 1 − |x − centre| / f, f = half the kernel, rounded up.

    Source: Long et al. 2015, section 3.3; `surgery.py` of its authors.

    >>> bilinear_row(4).tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    half = (kernel + 1) // 2
    centre = half - 1 if kernel % 2 else half - 0.5
    return torch.tensor([1 - abs(x - centre) / half for x in range(kernel)])


def bilinear_init(model: nn.Module) -> None:
    """Make every transposed convolution of a model interpolate each channel by itself, linearly."""
    for module in model.modules():
        if isinstance(module, TRANSPOSED) and not module.weight.is_meta:
            kernel = reduce(
                torch.multiply, torch.meshgrid(*map(bilinear_row, module.kernel_size), indexing="ij")
            )
            weight = module.weight.detach()
            weight.zero_()
            for channel in range(module.in_channels):
                weight[channel, 0 if module.groups > 1 else channel] = kernel
