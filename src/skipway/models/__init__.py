"""Published networks, one builder each; the only place that knows them by name.

A builder takes plain keyword arguments, which a run folder can store as JSON, and gives a `SkipGraph` with
weights drawn from torch's global generator. Defaults are the published ones.
"""

from skipway.models.cards import ModelCard, describe
from skipway.models.nested import unet_3_plus, unet_e, unet_plus, unet_plus_plus
from skipway.models.registry import BUILDERS, Builder, arguments, build, published_classes
from skipway.models.unets import unet, unet_2015

__all__ = [
    "BUILDERS",
    "Builder",
    "ModelCard",
    "arguments",
    "build",
    "describe",
    "published_classes",
    "unet",
    "unet_3_plus",
    "unet_2015",
    "unet_e",
    "unet_plus",
    "unet_plus_plus",
]
