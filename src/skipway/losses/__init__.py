"""Losses: pure functions of logits and labels.

Five rules hold for all of them.

- Logits have shape (B, K, *S), targets (B, *S) with class indices and `IGNORE` where nothing is known, weights
  (B, *S). S is any number of axes. K ≥ 2 is a softmax; K = 1 is a sigmoid, whose foreground is class 1, and
  equals the softmax of (0, z).
- An ignored pixel changes nothing: its logits get no gradient, whatever they are.
- Weights multiply the entropy of a pixel. A loss without an entropy term refuses them.
- Value and gradient are finite for every finite logit and every target, also when all of it is ignored, empty
  or full. Half precision is computed in single precision.
- Classes that overlap are learnt by `each_class` of a loss: the mean over the channels, each a sigmoid of its own.
"""

from skipway.losses.entropy import binary_cross_entropy, cross_entropy, focal
from skipway.losses.hybrid import (
    cross_entropy_dice,
    transunet_loss,
    unet_3_plus_loss,
    unet_plus_plus_2020_loss,
    unet_plus_plus_code_loss,
    unet_plus_plus_loss,
)
from skipway.losses.overlap import (
    iou_loss,
    soft_dice,
    soft_dice_loss,
    soft_iou,
    soft_tversky,
    tversky_loss,
    vnet_dice_loss,
)
from skipway.losses.rules import IGNORE, Loss, each_class
from skipway.losses.similarity import ms_ssim, ms_ssim_loss
from skipway.losses.supervision import ETAS, centre, eta_weights, presence, supervised
from skipway.losses.table import LOSSES, Choice

__all__ = [
    "ETAS",
    "IGNORE",
    "LOSSES",
    "Choice",
    "Loss",
    "binary_cross_entropy",
    "centre",
    "cross_entropy",
    "cross_entropy_dice",
    "each_class",
    "eta_weights",
    "focal",
    "iou_loss",
    "ms_ssim",
    "ms_ssim_loss",
    "presence",
    "soft_dice",
    "soft_dice_loss",
    "soft_iou",
    "soft_tversky",
    "supervised",
    "transunet_loss",
    "tversky_loss",
    "unet_3_plus_loss",
    "unet_plus_plus_2020_loss",
    "unet_plus_plus_code_loss",
    "unet_plus_plus_loss",
    "vnet_dice_loss",
]
