"""The one reading of logits, targets and weights that every loss shares."""

from collections.abc import Callable

import torch
from torch import Tensor

IGNORE = 255

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Of logits (B, K, *S), target (B, *S) and weights (B, *S) or None, to a scalar."""


def read(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of at least two classes in single precision or better, class indices, and what is known.

    One channel is two: sigmoid(z) is the softmax of (0, z), so everything below knows the softmax alone.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known. For K = 1 every class but 1 is
            background.

    Returns:
        Logits (B, max(K, 2), *S); indices (B, *S), 0 where ignored; a mask (B, *S) of the known pixels.

    Raises:
        ValueError: The shapes do not fit.
    """
    if logits.ndim < 2 or (logits.shape[0], *logits.shape[2:]) != tuple(target.shape):
        raise ValueError(
            f"logits (B, K, *S) and target (B, *S) must agree in B and S, "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    logits, known = widened(logits), target != IGNORE
    if logits.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits), logits], 1), (target == 1).long(), known
    return logits, target.masked_fill(~known, 0).long(), known


def widened(logits: Tensor) -> Tensor:
    """Half precision as single precision; single and double as they are."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def each_class(loss: Loss) -> Loss:
    """A loss of classes that overlap: the mean over the channels of `loss`, each as a sigmoid of its own.

    The cross-entropy of one channel is the binary cross-entropy, and its Dice that of its class against the
    rest; so every loss that takes one channel serves.

    Args:
        loss: Of logits (B, 1, *S).

    Returns:
        A loss of logits (B, K, *S) and a target (B, *S) of sets, Σ 2^k over the channels k that are present,
        below 0 where nothing is known.

    >>> from skipway.losses import cross_entropy
    >>> two = torch.tensor([[[0.0, 3.0], [0.0, -3.0]]])
    >>> round(each_class(cross_entropy)(two, torch.tensor([[3, 1]]), None).item(), 4)
    0.3709
    """

    def mean(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        unknown = target < 0
        classes = range(logits.shape[1])
        parts = (((target >> k) & 1).masked_fill(unknown, IGNORE) for k in classes)
        found = [loss(logits[:, k : k + 1], part, weights) for k, part in zip(classes, parts, strict=True)]
        return torch.stack(found).mean()

    return mean


def class_maps(logits: Tensor, target: Tensor, *, background: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities p and truth y of each class, both 0 where nothing is known.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        background: Whether class 0 is among them.

    Returns:
        Two tensors (B, C, *S): C = max(K, 2) with the background, one fewer without.
    """
    logits, index, known = read(logits, target)
    inside = known.unsqueeze(1)
    first = 0 if background else 1
    truth = torch.zeros_like(logits).scatter_(1, index.unsqueeze(1), 1.0)
    return (logits.softmax(1) * inside)[:, first:], (truth * inside)[:, first:]


def weighted_mean(
    values: Tensor, known: Tensor, weights: Tensor | None, *, per_image: bool = False
) -> Tensor:
    """Σ w v / Σ w over the known pixels of the batch, or of each image; 0 where none is known.

    The sum is written out: the mean of a library's 2-D cross-entropy is not deterministic on a GPU, while the
    same loss without reduction is.

    Args:
        values: (B, *S).
        known: (B, *S), bool.
        weights: (B, *S), not negative; 1 where absent.
        per_image: Whether to return one mean an image, shape (B,), instead of one scalar.
    """
    w = known.to(values.dtype) if weights is None else weights * known
    total, count = values * w, w
    if per_image:
        total, count = total.flatten(1).sum(1), count.flatten(1).sum(1)
    else:
        total, count = total.sum(), count.sum()
    return total / count.clamp_min(torch.finfo(values.dtype).tiny)


def refuse(weights: Tensor | None, name: str) -> None:
    """Refuse weights for a loss that has no term for them.

    Raises:
        ValueError: There are weights.
    """
    if weights is not None:
        raise ValueError(
            f"{name} takes no weights: they multiply the entropy of a pixel, and it has none. "
            f"Use a loss with an entropy term, such as cross_entropy_dice"
        )
