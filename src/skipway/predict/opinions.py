"""What several networks, outputs or views of an image say, as one answer, and how far they lie apart.

The answer is the mean of their probabilities. They lie apart by the mutual information between the class of a
pixel and who is asked,

    (H[mean of p_i] − mean of H[p_i]) / H of knowing nothing,

with H the entropy: 0 where all say the same, sure or unsure; up to 1 where each is sure of something else. Knowing
nothing is ln K for the softmax of K classes, and ln 2 for a sigmoid; of several sigmoids it is the mean.

Source: Houlsby et al. 2011, Bayesian active learning by disagreement; Lakshminarayanan et al. 2017, deep ensembles.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import log
from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn

from skipway.predict.logits import Outputs, centred, log_parts, logits_of, more


@runtime_checkable
class Several(Protocol):
    """A model that asks more than once."""

    def opinions(
        self, x: Tensor, first: Sequence[int], wanted: Sequence[slice] = ()
    ) -> Iterator[tuple[Tensor, ...]]:
        """What each says, one after the other.

        Args:
            x: Images (B, in_channels, *S).
            first: Where in the image the first pixel of `x` lies, one number an axis; negative in what is mirrored.
            wanted: The part of the last output that is kept; what is said elsewhere need only be finite. Empty for all.

        Returns:
            Of each the logits (B, K, *S − 2 margin) of every supervised output, the last to be trusted most.
        """
        ...


def asked(
    model: nn.Module, x: Tensor, first: Sequence[int], wanted: Sequence[slice] = ()
) -> Iterator[tuple[Tensor, ...]]:
    """The opinions of a model, or the one it has, with as little memory as it can; see `Several.opinions`."""
    if isinstance(model, Several):
        yield from model.opinions(x, first, wanted)
        return
    found = getattr(model, "frugal", model)(x)  # the same numbers in less memory
    yield (found,) if isinstance(found, Tensor) else cast("tuple[Tensor, ...]", found)


def heard(
    model: nn.Module, x: Tensor, first: Sequence[int], outputs: Outputs, wanted: Sequence[slice] = ()
) -> Iterator[Tensor]:
    """Logits (B, K, *S) of all that have a say: of each opinion the last output, or for "mean" every output."""
    if outputs not in ("last", "mean"):
        raise ValueError(f"outputs are combined by 'last' or 'mean', not {outputs!r}")
    for found in asked(model, x, first, wanted):
        yield from told(found, outputs)


def told(found: Sequence[Tensor], outputs: Outputs) -> Iterator[Tensor]:
    """Of one opinion, the logits that have a say: the last output, or for "mean" every output, as large as the last."""
    if outputs == "last":
        yield found[-1]
    else:
        yield from (centred(one, found[-1].shape[2:]) for one in found if one.ndim > 2)


def agreed(
    found: Iterable[Tensor], *, overlapping: bool = False, apart: bool = False
) -> tuple[Tensor, Tensor | None]:
    """One answer, holding one opinion at a time.

    Args:
        found: Logits (B, K, *S), at least one.
        overlapping: Whether each channel has a sigmoid of its own.
        apart: Whether to say how far they lie apart.

    Returns:
        Logits (B, K, *S) of the mean of the probabilities, those of a single opinion as they are; and how far
        apart they lie, (B, *S) from 0 to 1, where that was asked and there are several.

    >>> import torch
    >>> sure = torch.tensor([[[30.0], [0.0]]])
    >>> logits, spread = agreed([sure, sure.flip(1)], apart=True)
    >>> (logits[0, 0] - logits[0, 1]).item(), round(spread.item(), 6)
    (0.0, 1.0)
    """
    total: tuple[Tensor, ...] = ()
    alone: Tensor | None = None
    doubts: Tensor | None = None
    count = 0
    for logits in found:
        count += 1
        if count == 1:
            alone = logits
            continue
        if alone is not None:
            total = log_parts(alone, overlapping=overlapping)
            doubts, alone = doubt(total) if apart else None, None
        parts = log_parts(logits, overlapping=overlapping)
        total = more(total, parts)
        if doubts is not None:
            doubts += doubt(parts)
    if not count:
        raise ValueError("the mean of no logits was asked for")
    if alone is not None:
        return alone, None
    if doubts is None:
        return logits_of(total, count), None
    mean = tuple(part - log(count) for part in total)
    return logits_of(total, count), (doubt(mean) - doubts / count).clamp_(0, 1)


def doubt(parts: tuple[Tensor, ...]) -> Tensor:
    """Entropy of each pixel, as a share of that of knowing nothing.

    Args:
        parts: (log p,), or (log p, log(1 − p)) of sigmoids, each (B, K, *S); see `logits.log_parts`.

    Returns:
        (B, *S), from 0 to 1.

    >>> import torch
    >>> doubt((torch.full((1, 4, 1), 0.25).log(),)).item()
    1.0
    """
    surprise = parts[0].exp().mul_(parts[0])
    if len(parts) == 1:
        return surprise.sum(1) / -log(parts[0].shape[1])
    return (surprise + parts[1].exp().mul_(parts[1])).mean(1) / -log(2)
