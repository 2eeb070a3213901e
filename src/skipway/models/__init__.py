"""Published networks, one builder each; the only place that knows them by name.

A builder takes plain keyword arguments, which a run folder can store as JSON, and gives a `SkipGraph` with
weights drawn from torch's global generator. Defaults are the published ones.
"""

from skipway.models.attention import attention_unet, r2_attention_unet, r2_unet
from skipway.models.cards import ModelCard, describe
from skipway.models.nested import unet_3_plus, unet_e, unet_plus, unet_plus_plus
from skipway.models.nnunet import nnunet, nnunet_residual
from skipway.models.registry import BUILDERS, Builder, arguments, build, published_classes
from skipway.models.residual import residual_unet, vnet
from skipway.models.unets import unet, unet_2015

__all__ = [
    "BUILDERS",
    "Builder",
    "ModelCard",
    "arguments",
    "attention_unet",
    "build",
    "describe",
    "nnunet",
    "nnunet_residual",
    "published_classes",
    "r2_attention_unet",
    "r2_unet",
    "residual_unet",
    "unet",
    "unet_3_plus",
    "unet_2015",
    "unet_e",
    "unet_plus",
    "unet_plus_plus",
    "vnet",
]
