"""Whether weights are numbers at all."""

import torch
from torch import nn


@torch.no_grad()
def finite(*modules: nn.Module) -> bool:
    """Whether every weight and running statistic is finite: one pass over them, a small part of a step's time.

    >>> layer = nn.Linear(2, 1)
    >>> finite(layer)
    True
    >>> _ = layer.weight.data[0, 1].fill_(torch.inf)
    >>> finite(layer)
    False
    """
    values = [v for module in modules for v in module.state_dict().values() if v.is_floating_point()]
    if bool(torch.isfinite(nn.utils.get_total_norm(values))):
        return True
    return all(bool(torch.isfinite(v).all()) for v in values)  # squares of large numbers may be too large
