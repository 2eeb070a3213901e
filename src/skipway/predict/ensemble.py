"""Several networks of one kind as one, by the mean of their probabilities."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from skipway.errors import CheckpointError, Problem
from skipway.nn.graph import SkipGraph
from skipway.predict.logits import log_parts, logits_of, more


class Ensemble(nn.Module):
    """A network whose outputs are the means of those of its members; it looks as far as they do, so tiles stay exact.

    The members run one after the other, each as `SkipGraph.frugal` does: memory is that of one of them and the
    logits of one tile. Presence logits of a gate, which has done its work inside each member, are left out.
    """

    def __init__(self, members: Sequence[SkipGraph], *, overlapping: bool = False) -> None:
        """Join networks.

        Args:
            members: At least one, all of one topology, with the same channels and classes.
            overlapping: Whether each channel has a sigmoid of its own.

        Raises:
            CheckpointError: they are not of one kind.
        """
        super().__init__()
        first = members[0]
        for other in members[1:]:
            if _kind(other) != _kind(first):
                found = f"{other.name} and {first.name} are not networks of one kind"
                raise CheckpointError(Problem(found, fix="predict with one of them"))
        self.members = nn.ModuleList(members)
        self.overlapping = overlapping
        self.name = first.name
        self.topology = first.topology
        self.geometry = first.geometry
        self.ndim = first.ndim
        self.in_channels = first.in_channels
        self.classes = first.classes
        self.rounding = max(member.rounding for member in members)

    @property
    def networks(self) -> tuple[SkipGraph, ...]:
        """The members."""
        return tuple(cast("SkipGraph", member) for member in self.members)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of the mean of probabilities, one a supervised output.

        Args:
            x: Images (B, in_channels, *S) with S legal by `geometry`.

        Returns:
            One (B, classes, *S − 2 margin) per output.
        """
        sums: list[tuple[Tensor, ...]] = []
        for maps in self.opinions(x):
            parts = [log_parts(logits, overlapping=self.overlapping) for logits in maps]
            sums = [more(*pair) for pair in zip(sums, parts, strict=True)] if sums else parts
        return tuple(logits_of(one, len(self.members)) for one in sums)

    def opinions(
        self, x: Tensor, first: Sequence[int] = (), wanted: Sequence[slice] = ()
    ) -> Iterator[tuple[Tensor, ...]]:
        """What each member says; see `opinions.Several`."""
        for member in self.networks:
            yield tuple(output for output in member.frugal(x) if output.ndim > 2)

    def pruned(self, level: int) -> "Ensemble":
        """The same of the members' outputs in column `level`; see `SkipGraph.pruned`.

        Raises:
            TopologyError: No output stands in that column.
        """
        members = [member.pruned(level) for member in self.networks]
        return Ensemble(members, overlapping=self.overlapping).train(self.training)


def _kind(model: SkipGraph) -> tuple[object, ...]:
    return model.geometry, model.topology, model.in_channels, model.classes
