"""Losses that compare regions: soft Dice, soft IoU, Tversky. None of them takes weights."""

from torch import Tensor

from skipway.losses.rules import class_maps, refuse

TINY = 1e-6
"""Added above and below where the publication adds nothing, so that empty against empty is 1, not 0/0."""


def soft_dice(
    probabilities: Tensor,
    truth: Tensor,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    per_image: bool = False,
) -> Tensor:
    """Soft Dice per class, over batch and space or over the space of each image.

    D = (2 Σ p y + s) / (Σ p + Σ y + s), or with squares below, (2 Σ p y + s) / (Σ p² + Σ y² + s).

    Args:
        probabilities: p, (B, C, *S).
        truth: y, (B, C, *S).
        smooth: s.
        squared: Whether the denominator sums squares.
        per_image: Whether each image has its own sums.

    Returns:
        (C,), or (B, C) per image.

    >>> import torch
    >>> y, p = torch.tensor([[[1.0, 0, 1, 0]]]), torch.tensor([[[0.8, 0.3, 0.6, 0.1]]])
    >>> round(soft_dice(p, y).item(), 6)
    0.791667
    """
    both = _total(probabilities * truth, per_image)
    power = 2 if squared else 1
    sizes = _total(probabilities**power, per_image) + _total(truth**power, per_image)
    return (2 * both + smooth) / (sizes + smooth)


def soft_iou(probabilities: Tensor, truth: Tensor, *, smooth: float = TINY, per_image: bool = True) -> Tensor:
    """Soft intersection over union (Jaccard) per class: (Σ p y + s) / (Σ p + Σ y − Σ p y + s).

    Args:
        probabilities: p, (B, C, *S).
        truth: y, (B, C, *S).
        smooth: s.
        per_image: Whether each image has its own sums.

    Returns:
        (B, C), or (C,) over the batch.

    >>> import torch
    >>> y, p = torch.tensor([[[1.0, 0, 1, 0]]]), torch.tensor([[[0.8, 0.3, 0.6, 0.1]]])
    >>> round(soft_iou(p, y).item(), 5)
    0.58333
    """
    both = _total(probabilities * truth, per_image)
    union = _total(probabilities, per_image) + _total(truth, per_image) - both
    return (both + smooth) / (union + smooth)


def soft_tversky(
    probabilities: Tensor,
    truth: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = TINY,
    per_image: bool = False,
) -> Tensor:
    """Tversky index per class: (TP + s) / (TP + α FP + β FN + s), with soft counts.

    TP = Σ p y, FP = Σ p (1 − y), FN = Σ (1 − p) y. α = β = 1/2 is Dice, α = β = 1 is IoU.

    Args:
        probabilities: p, (B, C, *S).
        truth: y, (B, C, *S).
        alpha: Price of a false positive.
        beta: Price of a false negative.
        smooth: s.
        per_image: Whether each image has its own sums.

    Returns:
        (C,), or (B, C) per image.

    >>> import torch
    >>> y, p = torch.tensor([[[1.0, 0, 1, 0]]]), torch.tensor([[[0.8, 0.3, 0.6, 0.1]]])
    >>> round(soft_tversky(p, y).item(), 5)
    0.72165
    """
    both = _total(probabilities * truth, per_image)
    false_positive = _total(probabilities, per_image) - both
    false_negative = _total(truth, per_image) - both
    return (both + smooth) / (both + alpha * false_positive + beta * false_negative + smooth)


def soft_dice_loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    per_image: bool = False,
) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes other than background.

    Sums run over the whole batch unless `per_image`, so that an image without class k does not pull the loss
    about; per image, small objects count as much as large ones.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: Refused.
        smooth: s; 1 as in the UNet++ code.
        squared: Whether the denominator sums squares, as in V-Net.
        per_image: Whether each image has its own sums, and the mean goes over images too.

    Returns:
        A scalar in [0, 1]; 0 with zero gradient when every pixel is ignored.

    Raises:
        ValueError: There are weights.

    Source: Milletari et al. 2016 (Dice), with the plain denominator of the UNet++ code.
    """
    refuse(weights, "soft_dice_loss")
    p, y = class_maps(logits, target)
    return 1 - soft_dice(p, y, smooth=smooth, squared=squared, per_image=per_image).mean()


def vnet_dice_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """One minus V-Net's Dice, D = 2 Σ p y / (Σ p² + Σ y²), mean over images and classes but background.

    The sums run over one volume, as printed; `TINY` is added above and below.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: Refused.

    Returns:
        A scalar in [0, 1]; 0 with zero gradient when every pixel is ignored.

    Raises:
        ValueError: There are weights.

    Source: Milletari et al. 2016, Dice loss layer.
    """
    refuse(weights, "vnet_dice_loss")
    return soft_dice_loss(logits, target, smooth=TINY, squared=True, per_image=True)


def iou_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """One minus the soft IoU of each image, mean over images and classes other than background.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: Refused.

    Returns:
        A scalar in [0, 1]; 0 with zero gradient when every pixel is ignored.

    Raises:
        ValueError: There are weights.

    Source: Huang et al. 2020, full-scale deep supervision; the mean over images as in the authors' code.
    """
    refuse(weights, "iou_loss")
    return 1 - soft_iou(*class_maps(logits, target)).mean()


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Tensor:
    """One minus the Tversky index over the batch, mean over the classes other than background.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: Refused.
        alpha: Price of a false positive.
        beta: Price of a false negative; above `alpha`, the network finds more and errs more.

    Returns:
        A scalar in [0, 1]; 0 with zero gradient when every pixel is ignored.

    Raises:
        ValueError: There are weights.

    Source: Salehi et al. 2017, "Tversky loss function for image segmentation".
    """
    refuse(weights, "tversky_loss")
    return 1 - soft_tversky(*class_maps(logits, target), alpha=alpha, beta=beta).mean()


def _total(values: Tensor, per_image: bool) -> Tensor:
    """Sum over space, and over the batch unless `per_image`."""
    space = tuple(range(2, values.ndim))
    return values.sum(space if per_image else (0, *space))
