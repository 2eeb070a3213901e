"""Deep supervision: one loss over all outputs of a network."""

import torch
from torch import Tensor

from skipway.losses.entropy import cross_entropy
from skipway.losses.rules import IGNORE, Loss, widened

ETAS = ("equal", "halving", "last")


def eta_weights(rule: str, n: int) -> tuple[float, ...]:
    """Share of each of `n` supervised outputs in the loss, the most trusted output last; they sum to 1.

    - `equal`: 1/n each. UNet++ sets eta_i = 1; the mean keeps the learning rate independent of n.
    - `halving`: each output half of the next one, as in nnU-Net. nnU-Net then sets the first, coarsest one to
      0, which leaves its head without a gradient; here every head that exists learns.
    - `last`: the last output alone.

    Raises:
        ValueError: There is no such rule, or no output.

    Source: Zhou et al. 2018 (equal); Isensee et al. 2021 (halving).

    >>> eta_weights("halving", 2), eta_weights("last", 3)
    ((0.3333333333333333, 0.6666666666666666), (0.0, 0.0, 1.0))
    """
    if n < 1:
        raise ValueError(f"there must be an output to supervise, found {n}")
    if rule == "equal":
        return (1 / n,) * n
    if rule == "halving":
        return tuple(2**i / (2**n - 1) for i in range(n))
    if rule == "last":
        return (0.0,) * (n - 1) + (1.0,)
    raise ValueError(f"eta cannot be {rule!r}; choose one of {', '.join(ETAS)}")


def supervised(
    loss: Loss,
    outputs: tuple[Tensor, ...],
    target: Tensor,
    weights: Tensor | None,
    *,
    eta: str = "equal",
) -> Tensor:
    """Σ eta_i · loss(output_i), and the cross-entropy of presence logits where the network gives them.

    An output smaller than the target (valid convolutions) is compared with the target's centre. An output
    without spatial axes, (B, 2), says whether an image holds any foreground; its cross-entropy is added as it
    is, outside of eta, as UNet 3+ does.

    Args:
        loss: Of one output.
        outputs: Logits (B, K, *S_i) of each output, the most trusted one last; presence logits (B, 2).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), or None.
        eta: Rule of `eta_weights`, over the outputs with spatial axes.

    Returns:
        A scalar.
    """
    maps = [logits for logits in outputs if logits.ndim > 2]
    total = widened(maps[0]).new_zeros(())
    for share, logits in zip(eta_weights(eta, len(maps)), maps, strict=True):
        if share:
            size = tuple(logits.shape[2:])
            w = None if weights is None else centre(weights, size)
            total = total + share * loss(widened(logits), centre(target, size), w)
    seen = centre(target, tuple(maps[-1].shape[2:]))
    for logits in outputs:
        if logits.ndim == 2:
            total = total + cross_entropy(logits, presence(seen, maps[-1].shape[1]))
    return total


def presence(target: Tensor, classes: int) -> Tensor:
    """Whether each image holds foreground: 1 for yes, 0 for no, `IGNORE` where that is not known.

    Args:
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        classes: Channels of the network's outputs; for one, only class 1 is foreground.

    Returns:
        (B,), int64. An image is empty for certain only when all of it is known.

    >>> presence(torch.tensor([[0, 2], [0, 0], [0, IGNORE], [1, IGNORE]]), 3).tolist()
    [1, 0, 255, 1]
    """
    known = target != IGNORE
    foreground = target == 1 if classes == 1 else known & (target > 0)
    unsure = (~known).flatten(1).any(1).long() * IGNORE
    return torch.where(foreground.flatten(1).any(1), 1, unsure)


def centre(array: Tensor, size: tuple[int, ...]) -> Tensor:
    """The middle of the last axes, `size` pixels long."""
    for axis, side in zip(range(array.ndim - len(size), array.ndim), size, strict=True):
        array = array.narrow(axis, (array.shape[axis] - side) // 2, side)
    return array
