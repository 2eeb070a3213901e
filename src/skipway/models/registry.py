"""Builders by name: the one dictionary that the command line and run folders go by."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from skipway.errors import Problem, UsageError
from skipway.models.assemble import Options
from skipway.models.attention import attention_unet, r2_attention_unet, r2_unet
from skipway.models.nested import unet_3_plus, unet_e, unet_plus, unet_plus_plus
from skipway.models.nnunet import nnunet, nnunet_residual
from skipway.models.residual import residual_unet, vnet
from skipway.models.unets import unet, unet_2015
from skipway.nn.graph import SkipGraph

Builder = Callable[..., SkipGraph]

BUILDERS: Mapping[str, Builder] = {
    "unet": unet,
    "unet_2015": unet_2015,
    "unet_e": unet_e,
    "unet_plus": unet_plus,
    "unet_plus_plus": unet_plus_plus,
    "unet_3_plus": unet_3_plus,
    "residual_unet": residual_unet,
    "attention_unet": attention_unet,
    "r2_unet": r2_unet,
    "r2_attention_unet": r2_attention_unet,
    "vnet": vnet,
    "nnunet": nnunet,
    "nnunet_residual": nnunet_residual,
}


def build(name: str, **config: Any) -> SkipGraph:
    """Build a network by the name and keyword arguments that a run folder stores.

    Raises:
        UsageError: No builder has that name.
    """
    if name not in BUILDERS:
        near = get_close_matches(name, BUILDERS, n=1)
        raise UsageError(
            Problem(
                found=f"no model is called {name!r}",
                expected=f"one of {', '.join(BUILDERS)}",
                fix=f"use {near[0]}" if near else "list them with `skipway models`",
                code="U201",
            )
        )
    return BUILDERS[name](**config)


def arguments(name: str) -> Mapping[str, Any]:
    """Keyword arguments that a builder takes besides channels and classes, with their defaults.

    An option that the builder passes on (see `Options`) has the default None here: the builder chooses.

    >>> arguments("unet_2015")["width"], "norm" in arguments("unet"), "norm" in arguments("unet_2015")
    (64, True, False)
    """
    found: dict[str, Any] = {}
    for parameter in inspect.signature(BUILDERS[name]).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= dict.fromkeys(Options.__annotations__)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found[parameter.name] = parameter.default
    return found


def published_classes(name: str) -> int:
    """Channels of the head as published: 1 is a sigmoid, 2 or more are a softmax."""
    classes: int = inspect.signature(BUILDERS[name]).parameters["classes"].default
    return classes
