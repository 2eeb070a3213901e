"""Published networks, one builder each; the only place that knows them by name.

A builder takes plain keyword arguments, which a run folder can store as JSON, and gives a `SkipGraph` with
weights drawn from torch's global generator. Defaults are the published ones.
"""

from skipway.models.attention import attention_unet, r2_attention_unet, r2_unet
from skipway.models.cards import ModelCard, describe
from skipway.models.fcn import fcn, fcn_8s, fcn_16s, fcn_32s
from skipway.models.nested import unet_3_plus, unet_e, unet_plus, unet_plus_plus
from skipway.models.nnunet import nnunet, nnunet_residual
from skipway.models.registry import (
    BUILDERS,
    Builder,
    arguments,
    build,
    published_classes,
    sketch,
    strangers,
    unknown,
)
from skipway.models.residual import residual_unet, vnet
from skipway.models.transunet import trans_unet, trans_unet_small
from skipway.models.unets import unet, unet_3d_2016, unet_2015, unet_two_level, wide_unet

__all__ = [
    "BUILDERS",
    "Builder",
    "ModelCard",
    "arguments",
    "attention_unet",
    "build",
    "describe",
    "fcn",
    "fcn_8s",
    "fcn_16s",
    "fcn_32s",
    "nnunet",
    "nnunet_residual",
    "published_classes",
    "r2_attention_unet",
    "r2_unet",
    "residual_unet",
    "sketch",
    "strangers",
    "trans_unet",
    "trans_unet_small",
    "unet",
    "unet_3_plus",
    "unet_3d_2016",
    "unet_2015",
    "unet_e",
    "unet_plus",
    "unet_plus_plus",
    "unet_two_level",
    "unknown",
    "vnet",
    "wide_unet",
]
