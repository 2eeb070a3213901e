"""Sums of losses: the default, and those that UNet++, UNet 3+ and TransUNet were trained with.

Weights act on the entropy term of each.
"""

import torch.nn.functional as F
from torch import Tensor

from skipway.losses.entropy import binary_cross_entropy, cross_entropy, focal
from skipway.losses.overlap import TINY, iou_loss, soft_dice, soft_dice_loss
from skipway.losses.rules import class_maps, read, weighted_mean
from skipway.losses.similarity import ms_ssim_loss


def cross_entropy_dice(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice, the default: the first gives clean gradients, the second bears imbalance.

    Weights act on the cross-entropy.
    """
    return cross_entropy(logits, target, weights) + soft_dice_loss(logits, target)


def unet_plus_plus_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The hybrid loss of UNet++ as its first paper prints it.

    L = − (1/B) Σ_b ( ½ Y_b log P_b + 2 Y_b P_b / (Y_b + P_b) ), with Y_b, P_b all pixels of image b.

    As printed, only foreground pixels have an entropy. Read here: Y_b log P_b is the mean over the pixels of
    the image (a sum would outgrow the other term with the size of the image), 2 Y_b P_b / (Y_b + P_b) the
    Dice of the image. With several classes the first is summed and the second averaged over those other than
    background. `TINY` is added above and below the fraction.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), of the entropy, whose mean is then Σ w v / Σ w of each image; 1 where absent.

    Returns:
        A scalar, −1 at best; −1 with zero gradient when every pixel is ignored.

    Source: Zhou et al. 2018 (DLMIA), deep supervision.

    >>> import torch
    >>> two = torch.tensor([[[0.0, 0.0]]])
    >>> round(unet_plus_plus_loss(two, torch.tensor([[1, 0]])).item(), 4)
    -0.3267
    """
    whole, index, known = read(logits, target)
    entropy = F.cross_entropy(whole, index, reduction="none") * (index > 0)
    dice = soft_dice(*class_maps(logits, target), smooth=TINY, per_image=True)
    return 0.5 * weighted_mean(entropy, known, weights, per_image=True).mean() - dice.mean()


def unet_plus_plus_code_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss of the authors' UNet++ code: ½ BCE − Dice, smooth 1, sums over the whole batch.

    It differs from the paper's equation: both classes have an entropy, and the Dice is that of the batch.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), of the entropy; 1 where absent.

    Returns:
        A scalar, −1 at best; −1 with zero gradient when every pixel is ignored.

    Source: `bce_dice_loss` of MrGiovanni/UNetPlusPlus (Keras).
    """
    dice = soft_dice(*class_maps(logits, target), smooth=1.0)
    return 0.5 * binary_cross_entropy(logits, target, weights) - dice.mean()


def unet_plus_plus_2020_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """A pixel-wise cross-entropy and Dice over all classes, after the second paper of UNet++.

    L = − (1/N) Σ_n Σ_c ( y log p + 2 y p / (y² + p²) ), over N pixels and C classes; y is 0 or 1, so only the
    true class of a pixel counts: − (1/N) Σ_n ( log p_t + 2 p_t / (1 + p_t²) ).

    Not verified: that the paper joins cross-entropy and soft Dice over N pixels and C classes is; the squares
    and the sum inside the mean are not, because the printed equation could not be consulted.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), of both terms, since both are of one pixel; 1 where absent.

    Returns:
        A scalar, −1 at best; 0 with zero gradient when every pixel is ignored.

    Source: after Zhou et al. 2020 (T-MI); see above.
    """
    whole, index, known = read(logits, target)
    entropy = F.cross_entropy(whole, index, reduction="none")
    p = (-entropy).exp()
    return weighted_mean(entropy - 2 * p / (1 + p * p), known, weights)


def unet_3_plus_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The hybrid loss of UNet 3+: focal + MS-SSIM + IoU, for pixels, patches and maps.

    The focal loss has the α and γ of its own paper.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), of the focal loss; 1 where absent.

    Returns:
        A scalar; 0 with zero gradient when every pixel is ignored.

    Source: Huang et al. 2020, full-scale deep supervision.
    """
    return focal(logits, target, weights) + ms_ssim_loss(logits, target) + iou_loss(logits, target)


def transunet_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss of TransUNet: ½ cross-entropy + ½ Dice, the Dice over all classes, background too.

    1 − D_k = 1 − (2 Σ p y + s) / (Σ p² + Σ y² + s), s = 1e-5, sums over the whole batch.

    Args:
        logits: (B, K, *S).
        target: (B, *S), class indices, `IGNORE` where nothing is known.
        weights: (B, *S), of the cross-entropy; 1 where absent.

    Returns:
        A scalar; 0 with zero gradient when every pixel is ignored.

    Source: Chen et al. 2021; `trainer.py` and `utils.py` of Beckschen/TransUNet.
    """
    dice = soft_dice(*class_maps(logits, target, background=True), smooth=1e-5, squared=True)
    return 0.5 * cross_entropy(logits, target, weights) + 0.5 * (1 - dice.mean())
