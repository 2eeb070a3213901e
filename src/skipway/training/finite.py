"""Whether weights are numbers at all."""

import torch
from torch import Tensor, nn

from skipway.training.together import whole


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
    if all(bool(torch.isfinite(whole(nn.utils.get_total_norm(part)))) for part in _alike(values)):
        return True
    return all(
        bool(torch.isfinite(whole(v)).all()) for v in values
    )  # squares of large numbers may be too large


def _alike(values: list[Tensor]) -> tuple[list[Tensor], ...]:
    """Those that are whole, and those of which each process holds a share: torch takes no norm over both."""
    shared = [hasattr(value, "full_tensor") for value in values]
    return tuple(
        [v for v, divided in zip(values, shared, strict=True) if divided is kind] for kind in (False, True)
    )
