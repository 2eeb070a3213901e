"""Presence: does an image hold any foreground at all? And the gate that empties the images that do not."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from skipway.nn.layers import conv
from skipway.nn.style import Style

CLOSED = 30.0
"""Size of the logits of a closed gate: foreground at 1e-13, and finite in half precision."""


class Presence(nn.Module):
    """Logits of absent and present, one pair an image: dropout, a 1-wide convolution, the maximum over space.

    It looks at the whole image, so tiles are judged one by one.

    Args:
        width: Channels of the map it reads.
        style: Dimension.
        dropout: Rate on that map.

    Source: Huang et al. 2020, the classification-guided module. Its two sigmoids with a binary
        cross-entropy are a softmax here.
    """

    tile_exact = False

    def __init__(self, width: int, style: Style, *, dropout: float = 0.5) -> None:
        super().__init__()
        layers = OrderedDict(drop=nn.Dropout(dropout), conv=conv(width, 2, 1, style))
        self.layers = nn.Sequential(layers)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *S) to (B, 2)."""
        return self.layers(features).flatten(2).amax(2)


def gated(logits: Tensor, presence: Tensor) -> Tensor:
    """The logits, with every pixel background in the images where absent beats present.

    A choice has no slope: of an image that is gated off nothing comes back to the segmentation, and how to
    choose is learnt from the presence logits' own loss (`losses.supervised`).

    Args:
        logits: (B, K, *S).
        presence: (B, 2), absent and present.

    Returns:
        (B, K, *S); where absent, −30 for K = 1, else 30 for class 0 and −30 for the rest.

    >>> z, presence = torch.tensor([[[5.0, 5.0]], [[5.0, 5.0]]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> gated(z, presence).tolist()
    [[[-30.0, -30.0]], [[5.0, 5.0]]]
    """
    background = logits.new_full((logits.shape[1],), -CLOSED)
    if len(background) > 1:
        background[0] = CLOSED
    absent = presence.argmax(1) == 0
    space = (1,) * (logits.ndim - 2)
    return torch.where(absent.view(-1, 1, *space), background.view(1, -1, *space), logits)
