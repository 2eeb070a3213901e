"""Memory layout of maps: plane after plane (contiguous), or a pixel's channels side by side (channels-last)."""

from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(ndim: int) -> torch.memory_format:
    """The layout with the channels of a pixel side by side, for maps (B, C, *S) of `ndim` axes in space.

    >>> channels_last(2), channels_last(1)
    (torch.channels_last, torch.contiguous_format)
    """
    return _CHANNELS_LAST.get(ndim + 2, torch.contiguous_format)


def layout_of(x: Tensor) -> torch.memory_format:
    """The layout in which the map `x`, (B, C, *S), lies; contiguous where it has one channel.

    >>> layout_of(torch.zeros(1, 3, 4, 4)), layout_of(torch.zeros(1, 4, 4, 3).movedim(-1, 1))
    (torch.contiguous_format, torch.channels_last)
    """
    if x.ndim in _CHANNELS_LAST and x.stride(1) == 1 and x.shape[1] > 1:
        return _CHANNELS_LAST[x.ndim]
    return torch.contiguous_format


def for_prediction(model: M, ndim: int) -> M:
    """A network of `ndim` axes in the layout that predicts fastest on a CPU: channels-last for images, not volumes."""
    layout = channels_last(2) if ndim == 2 else torch.contiguous_format
    return model.to(memory_format=layout)
