"""Losses that are a mean over pixels: cross-entropy, binary cross-entropy, focal loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from skipway.losses.rules import read, weighted_mean


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
    logits, index, known = read(logits, target)
    return weighted_mean(F.cross_entropy(logits, index, reduction="none"), known, weights)


def binary_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of each class against the rest, mean over the classes other than background.

    E = − Σ_x w(x) · mean_k [ y_k log p_k + (1 − y_k) log(1 − p_k) ] / Σ_x w(x).

    For one or two channels this is the cross-entropy. With more, p_k is still that of the softmax.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S); 1 where absent.

    Returns:
        A scalar; 0 with zero gradient when every pixel is ignored.

    >>> z = torch.tensor([[[0.0, 2.0]]])
    >>> round(binary_cross_entropy(z, torch.tensor([[1, 0]])).item(), 4)
    1.41
    """
    logits, index, known = read(logits, target)
    yes, no = logits.log_softmax(1)[:, 1:], log_rest(logits)[:, 1:]
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(-1, *[1] * (logits.ndim - 2))
    return weighted_mean(-torch.where(index.unsqueeze(1) == classes, yes, no).mean(1), known, weights)


def focal(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Cross-entropy in which a pixel that is already right counts little.

    FL = − Σ_x w · α_t (1 − p_t)^γ log p_t / Σ_x w, with p_t the probability of the true class.

    Computed as exp(γ log(1 − p_t)), so that every γ ≥ 0 has a finite gradient. γ = 0 without α is the
    cross-entropy. The paper divides by the number of anchors that hold an object; a mean over pixels needs no
    such rule.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S); 1 where absent.
        alpha: α_t of the classes other than background, which has 1 − alpha; None for 1 everywhere.
        gamma: γ ≥ 0.

    Returns:
        A scalar; 0 with zero gradient when every pixel is ignored.

    Source: Lin et al. 2017, "Focal loss for dense object detection", eq. 5, with its α = 0.25 and γ = 2.

    >>> sure = torch.tensor([[[0.0], [3.0]]])
    >>> round(focal(sure, torch.tensor([[1]]), gamma=0, alpha=None).item(), 4)
    0.0486
    >>> round(focal(sure, torch.tensor([[1]])).item(), 6)
    2.7e-05
    """
    logits, index, known = read(logits, target)
    entropy = F.cross_entropy(logits, index, reduction="none")
    wrong = log_rest(logits).gather(1, index.unsqueeze(1)).squeeze(1)
    value = (gamma * wrong).exp() * entropy
    if alpha is not None:
        value = value * (1 - alpha + (2 * alpha - 1) * (index > 0))
    return weighted_mean(value, known, weights)


def log_rest(logits: Tensor) -> Tensor:
    """log(1 − p_k) of a softmax, to full precision for p_k near 0 and near 1.

    At most one class of a pixel is above one half, the largest: for it the others are summed, for them
    log(1 − p) is safe.

    Args:
        logits: (B, K, *S), K ≥ 2.

    >>> log_rest(torch.tensor([[[50.0], [0.0]]])).flatten().tolist()
    [-50.0, -1.9287498933537385e-22]
    """
    winner = logits.max(1, keepdim=True).indices  # an eighth of the time of argmax
    largest = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, winner, True)
    others = logits.masked_fill(largest, -torch.inf).logsumexp(1, keepdim=True)
    rest = others - logits.logsumexp(1, keepdim=True)
    return torch.where(largest, rest, torch.log1p(-logits.softmax(1).masked_fill(largest, 0.0)))
