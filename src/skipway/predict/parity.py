"""How far a network that something else computes is from itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skipway.nn.graph import ROUNDING
from skipway.predict.logits import decided
from skipway.predict.stream import evaluating

POINTS = 0.5
"""What bf16 and int8 may lose against fp32, in points: of agreement, and of Dice."""


@dataclass(frozen=True)
class Parity:
    """How far a network computed by a backend is from itself computed by torch in fp32.

    Attributes:
        difference: Largest absolute difference of the logits, over the largest absolute logit.
        changed: Share of the pixels whose label differs.
        dice: Mean over the classes but the first, of those that either of the two sees; 1 where neither does.
    """

    difference: float
    changed: float
    dice: float

    @property
    def lost(self) -> float:
        """Points lost: the larger of 100 · (1 − agreement) and 100 · (1 − Dice)."""
        return 100 * max(self.changed, 1 - self.dice)

    def holds(self, precision: str, points: float = POINTS) -> bool:
        """Whether it may be used: in fp32 no label differs and the logits by 1e-4, else `points` are lost at most."""
        if precision == "fp32":
            return self.changed == 0 and self.difference <= ROUNDING
        return self.lost <= points

    def __str__(self) -> str:
        """One clause."""
        return (
            f"{100 * self.changed:.3g} % of labels differ, Dice {self.dice:.4f}, "
            f"logits by {self.difference:.1e} of the largest"
        )


def compared(
    model: nn.Module, reference: nn.Module, tiles: Sequence[Tensor], *, overlapping: bool = False
) -> Parity:
    """Hold what `model` gives for tiles against what `reference` gives.

    Args:
        model: One network.
        reference: The same, as it should be.
        tiles: Each (1, C, *S), normalised; at least one.
        overlapping: Whether labels are sets of classes.
    """
    largest = off = 0.0
    pixels = changed = 0
    counts: dict[int, list[int]] = {}
    for tile in tiles:
        wanted, found = logits_of(reference, tile), logits_of(model, tile)
        largest, off = max(largest, float(wanted.abs().max())), max(off, float((wanted - found).abs().max()))
        truth, labels = (decided(logits, overlapping=overlapping) for logits in (wanted, found))
        pixels, changed = pixels + truth.numel(), changed + int(torch.count_nonzero(truth != labels))
        for number, (a, b) in enumerate(_classes(truth, labels, len(wanted), overlapping=overlapping)):
            count = counts.setdefault(number, [0, 0])
            count[0] += 2 * int(torch.count_nonzero(a & b))
            count[1] += int(torch.count_nonzero(a)) + int(torch.count_nonzero(b))
    scores = [both / total for both, total in counts.values() if total]
    dice = sum(scores) / len(scores) if scores else 1.0
    return Parity(off / max(largest, 1e-12), changed / pixels, dice)


def logits_of(model: nn.Module, tile: Tensor) -> Tensor:
    """Logits (K, *S) of the last output, float32 on the CPU."""
    weight = next(model.parameters())
    with evaluating(model):
        outputs = getattr(model, "frugal", model)(tile.to(weight.device, weight.dtype))
        return outputs[-1][0].float().cpu()


def _classes(
    truth: Tensor, labels: Tensor, channels: int, *, overlapping: bool
) -> list[tuple[Tensor, Tensor]]:
    """Masks of each class in both maps: of all where they overlap, else without the first, the background."""
    if overlapping:
        return [((truth >> k) & 1 > 0, (labels >> k) & 1 > 0) for k in range(channels)]
    return [(truth == k, labels == k) for k in range(1, max(2, channels))]
