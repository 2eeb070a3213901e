"""Losses by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from skipway.losses.entropy import binary_cross_entropy, cross_entropy, focal
from skipway.losses.hybrid import (
    cross_entropy_dice,
    transunet_loss,
    unet_3_plus_loss,
    unet_plus_plus_2020_loss,
    unet_plus_plus_code_loss,
    unet_plus_plus_loss,
)
from skipway.losses.overlap import iou_loss, soft_dice_loss, tversky_loss, vnet_dice_loss
from skipway.losses.rules import Loss
from skipway.losses.similarity import ms_ssim_loss


@dataclass(frozen=True)
class Choice:
    """A loss and whether it is fed the weight map of the 2015 paper."""

    function: Loss
    weighted: bool = False


LOSSES: Mapping[str, Choice] = {
    "ce-dice": Choice(cross_entropy_dice),
    "ce": Choice(cross_entropy),
    "weighted-ce-dice": Choice(cross_entropy_dice, weighted=True),
    "weighted-ce": Choice(cross_entropy, weighted=True),
    "bce": Choice(binary_cross_entropy),
    "focal": Choice(focal),
    "dice": Choice(soft_dice_loss),
    "dice-per-image": Choice(partial(soft_dice_loss, per_image=True)),
    "vnet-dice": Choice(vnet_dice_loss),
    "iou": Choice(iou_loss),
    "tversky": Choice(tversky_loss),
    "ms-ssim": Choice(ms_ssim_loss),
    "unet++": Choice(unet_plus_plus_loss),
    "unet++-code": Choice(unet_plus_plus_code_loss),
    "unet++-2020": Choice(unet_plus_plus_2020_loss),
    "unet3+": Choice(unet_3_plus_loss),
    "transunet": Choice(transunet_loss),
}
"""Losses by the name that a plan stores."""
