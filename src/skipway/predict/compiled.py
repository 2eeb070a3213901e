"""A network that `torch.compile` turns into code for this machine, behind the surface of a `SkipGraph`."""

import torch
from torch import Tensor, nn

from skipway.nn.graph import SkipGraph


class Compiled(nn.Module):
    """A network that is compiled when it first sees an image; to predict with, like the graph it was made of.

    The code holds for all sizes, but for a few bounds inside torch: an image beyond one of them is compiled for again.

    Args:
        model: Network in evaluation mode; it is kept, and computes what cannot be compiled.
    """

    def __init__(self, model: SkipGraph) -> None:
        super().__init__()
        self.model = model
        self.name = model.name
        self.topology = model.topology
        self.geometry = model.geometry
        self.ndim = model.ndim
        self.in_channels = model.in_channels
        self.classes = model.classes
        self.rounding: float = model.rounding
        self._run = torch.compile(model.forward, dynamic=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits as of `SkipGraph.forward`."""
        return self._run(x)

    def frugal(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, ...]:
        """The same; memory is a matter of the compiler."""
        return self(x)

    def pruned(self, level: int) -> "Compiled":
        """The same with the output of one level alone; see `SkipGraph.pruned`.

        Raises:
            TopologyError: no output stands in that column.
        """
        return Compiled(self.model.pruned(level)).train(self.training)
