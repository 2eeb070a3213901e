"""Losses: pure functions of logits and labels.

Logits have shape (B, K, *S), or (B, 1, *S) for two classes; targets (B, *S) with class indices and `IGNORE`
where nothing is known; weights (B, *S). Every reduction is ours, because the mean of a library's 2-D
cross-entropy is not deterministic on a GPU while the same loss without reduction is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted cross-entropy of a pixel-wise softmax.

    E = − Σ_x w(x) · log p_{l(x)}(x) / Σ_x w(x), over the pixels that are not ignored.

    The paper prints the sum without the minus and without the division; dividing keeps the learning rate
    independent of the number of cells.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), w(x) of `weight_maps`; 1 where absent.

    Returns:
        A scalar; 0 with zero gradient when every pixel is ignored.

    Source: Ronneberger et al. 2015, eq. 1.

    >>> two = torch.tensor([[[0.0], [0.0]]])
    >>> round(cross_entropy(two, torch.tensor([[1]])).item(), 4)
    0.6931
    """
    known, logits = target != IGNORE, _two(logits)
    per_pixel = F.cross_entropy(logits, target.masked_fill(~known, 0), reduction="none")
    w = known.to(per_pixel.dtype) if weights is None else weights * known
    return (per_pixel * w).sum() / w.sum().clamp_min(torch.finfo(per_pixel.dtype).tiny)


def soft_dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes other than background.

    D_k = (2 Σ p_k y_k + s) / (Σ p_k + Σ y_k + s), sums over the whole batch, so that an image without
    class k does not pull the loss about.

    Args:
        logits: (B, K, *S), K ≥ 2.
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        smooth: s; 1 as in the UNet++ code.

    Returns:
        A scalar in [0, 1].

    Source: Milletari et al. 2016 (Dice), with the plain denominator of the UNet++ code.
    """
    known, logits = (target != IGNORE).unsqueeze(1), _two(logits)
    probabilities = logits.softmax(1) * known
    truth = _one_hot(target, logits.shape[1], probabilities.dtype) * known
    return 1 - soft_dice(probabilities[:, 1:], truth[:, 1:], smooth=smooth).mean()


def soft_dice(probabilities: Tensor, truth: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft Dice per class over batch and space, shape (K,).

    >>> y, p = torch.tensor([[[1.0, 0, 1, 0]]]), torch.tensor([[[0.8, 0.3, 0.6, 0.1]]])
    >>> round(soft_dice(p, y).item(), 6)
    0.791667
    """
    axes = [axis for axis in range(probabilities.ndim) if axis != 1]
    both = (probabilities * truth).sum(axes)
    return (2 * both + smooth) / (probabilities.sum(axes) + truth.sum(axes) + smooth)


def cross_entropy_dice(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice, the default: the first gives clean gradients, the second bears imbalance.

    Weights act on the cross-entropy.
    """
    return cross_entropy(logits, target, weights) + soft_dice_loss(logits, target)


SUPERVISIONS = ("equal", "halving", "last")
"""Rules by which supervised outputs are weighed."""


def eta_weights(rule: str, count: int) -> tuple[float, ...]:
    """Weights eta_i of `count` supervised outputs, the most trusted last; they add up to 1.

    `equal` is the rule of UNet++ (all eta_i alike), `halving` that of nnU-Net (each output counts half of the
    next), `last` trains the last output alone.

    >>> eta_weights("halving", 3), eta_weights("last", 2)
    ((0.14285714285714285, 0.2857142857142857, 0.5714285714285714), (0.0, 1.0))
    """
    parts = {"equal": [1] * count, "halving": [2**i for i in range(count)], "last": [0] * (count - 1) + [1]}
    return tuple(part / sum(parts[rule]) for part in parts[rule])


def supervised(
    loss: Loss,
    outputs: tuple[Tensor, ...],
    target: Tensor,
    weights: Tensor | None,
    *,
    eta: str = "equal",
) -> Tensor:
    """Weighted mean of `loss` over the supervised outputs, by the rule `eta` of `eta_weights`.

    An output smaller than the target (valid convolutions) is compared with the target's centre.
    """
    total = outputs[0].new_zeros(())
    for share, logits in zip(eta_weights(eta, len(outputs)), outputs, strict=True):
        size = tuple(logits.shape[2:])
        inner = None if weights is None else centre(weights, size)
        total = total + share * loss(logits.float(), centre(target, size), inner)
    return total


def centre(array: Tensor, size: tuple[int, ...]) -> Tensor:
    """The middle of the last axes, `size` pixels long."""
    for axis, side in zip(range(array.ndim - len(size), array.ndim), size, strict=True):
        array = array.narrow(axis, (array.shape[axis] - side) // 2, side)
    return array


def _two(logits: Tensor) -> Tensor:
    """One channel z as the two (0, z): their softmax is the sigmoid of z. More channels pass as they are."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def _one_hot(target: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    shape = (target.shape[0], classes, *target.shape[1:])
    index = target.masked_fill(target == IGNORE, 0).unsqueeze(1)
    return torch.zeros(shape, dtype=dtype, device=target.device).scatter_(1, index, 1.0)


@dataclass(frozen=True)
class Choice:
    """A loss and whether it is fed the weight map of the 2015 paper."""

    function: Loss
    weighted: bool


LOSSES: Mapping[str, Choice] = {
    "ce-dice": Choice(cross_entropy_dice, weighted=False),
    "ce": Choice(cross_entropy, weighted=False),
    "weighted-ce-dice": Choice(cross_entropy_dice, weighted=True),
    "weighted-ce": Choice(cross_entropy, weighted=True),
}
"""Losses by the name that a plan stores."""
