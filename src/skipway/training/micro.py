"""A batch computed in parts, so that a step needs less memory and learns the same.

Two things see a part instead of the whole batch: batch norm takes its statistics over it, and a Dice loss that sums
over a batch sums over it. A loss that is a mean over pixels is the same up to rounding.
"""

from collections.abc import Sequence

from torch import Tensor

from skipway.data.sampling import Batch
from skipway.losses.rules import IGNORE
from skipway.training.ranks import ALONE, Ranks


def chunks(ranks: Ranks, batch: int, micro: int | None) -> int:
    """Parts that a batch is computed in; of several processes each has a patch in every part.

    Args:
        ranks: The processes.
        batch: Patches of the whole batch.
        micro: Patches that one process computes at once at most, where that is possible; None for all.

    >>> chunks(Ranks(), 7, 3), chunks(Ranks(), 7, None), chunks(Ranks(0, 2), 7, 2)
    (3, 1, 2)
    """
    most, least = len(ranks.part(batch, 0)), len(ranks.part(batch, ranks.world - 1))
    return 1 if micro is None else min(-(-most // micro), least)


def micro_batches(batch: Batch, parts: int) -> tuple[Batch, ...]:
    """The batch in so many parts, as even as can be.

    >>> import torch
    >>> seven = Batch(torch.zeros(7, 1, 2), torch.zeros(7, 2), None, tuple(range(7)))
    >>> [part.indices for part in micro_batches(seven, 3)]
    [(0, 1, 2), (3, 4), (5, 6)]
    """
    count = len(batch.image)
    if parts == 1:
        return (batch,)
    sizes = [count // parts + (k < count % parts) for k in range(parts)]
    ends = [sum(sizes[: k + 1]) for k in range(parts)]
    return tuple(_part(batch, end - size, end) for size, end in zip(sizes, ends, strict=True))


def shares(parts: Sequence[Batch], ranks: Ranks = ALONE) -> tuple[float, ...]:
    """What each part's mean counts in the mean of the whole batch; they sum to 1.

    That is its share of the weights of all pixels that somebody annotated, since losses divide by their sum; where
    none is annotated, of the patches. (Of a set of eight overlapping classes, a pixel of all eight counts as not
    annotated here; only this share notices.)

    >>> import torch
    >>> whole = Batch(torch.zeros(2, 1, 2), torch.tensor([[0, 1], [1, 255]]), None, (0, 1))
    >>> [round(share, 3) for share in shares(micro_batches(whole, 2))]
    [0.667, 0.333]
    """
    if len(parts) == 1:
        return (1.0,)
    everywhere = ranks.gather([(_mass(part.target, part.weights), len(part.image)) for part in parts])
    masses = [sum(mass for mass, _ in part) for part in zip(*everywhere, strict=True)]
    if sum(masses) <= 0:
        masses = [sum(patches for _, patches in part) for part in zip(*everywhere, strict=True)]
    return tuple(mass / sum(masses) for mass in masses)


def _mass(target: Tensor, weights: Tensor | None) -> float:
    known = (target >= 0) & (target != IGNORE)
    return float(known.sum() if weights is None else (weights * known).double().sum())


def _part(batch: Batch, begin: int, end: int) -> Batch:
    weights = None if batch.weights is None else batch.weights[begin:end]
    return Batch(batch.image[begin:end], batch.target[begin:end], weights, batch.indices[begin:end])
