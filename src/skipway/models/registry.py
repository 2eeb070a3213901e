"""Builders by name: the one dictionary that the command line and run folders go by."""

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch

from skipway.errors import Problem, UsageError
from skipway.models.assemble import Options
from skipway.models.attention import attention_unet, r2_attention_unet, r2_unet
from skipway.models.config import check_config
from skipway.models.fcn import fcn, fcn_8s, fcn_16s, fcn_32s
from skipway.models.nested import unet_3_plus, unet_e, unet_plus, unet_plus_plus
from skipway.models.nnunet import nnunet, nnunet_residual
from skipway.models.residual import residual_unet, vnet
from skipway.models.transunet import trans_unet, trans_unet_small
from skipway.models.unets import unet, unet_3d_2016, unet_2015, unet_two_level, wide_unet
from skipway.nn.graph import SkipGraph

Builder = Callable[..., SkipGraph]

BUILDERS: Mapping[str, Builder] = {
    builder.__name__: builder
    for builder in (
        unet,
        unet_2015,
        unet_e,
        unet_plus,
        unet_plus_plus,
        unet_3_plus,
        wide_unet,
        unet_two_level,
        unet_3d_2016,
        fcn,
        fcn_32s,
        fcn_16s,
        fcn_8s,
        trans_unet,
        trans_unet_small,
        residual_unet,
        attention_unet,
        r2_unet,
        r2_attention_unet,
        vnet,
        nnunet,
        nnunet_residual,
    )
}


def build(name: str, /, *, level: int | None = None, **config: Any) -> SkipGraph:
    """Build a network by the name and keyword arguments that a run folder stores.

    Args:
        name: One of `BUILDERS`.
        level: Column of the only output that is kept, see `SkipGraph.pruned`; the network has no more than that
            output needs. Unless given, the network is whole.
        **config: Arguments of the builder.

    Raises:
        UsageError: No builder has that name.
        TypeError: The builder has no such argument.
        ValueError: An argument cannot be, see `check_config`, or they contradict each other.
        TopologyError: The network has no output of that level.
    """
    if name not in BUILDERS:
        raise UsageError(unknown(name))
    check_config(BUILDERS[name], config)
    graph = BUILDERS[name](**config)
    return graph if level is None else graph.pruned(level)


def unknown(name: str, where: str = "") -> Problem:
    """What is wrong with a name that no builder has, and the name that was meant, as papers write it too.

    >>> [unknown(name).fix for name in ("UNet++", "unetpp", "U-Net 3+", "attention-unet")]
    ['use unet_plus_plus', 'use unet_plus_plus', 'use unet_3_plus', 'use attention_unet']
    """
    spelt = {_letters(one): one for one in BUILDERS}
    near = get_close_matches(_letters(name), spelt, n=1)
    return Problem(
        found=f"no model is called {name!r}",
        where=where,
        expected=f"one of {', '.join(BUILDERS)}",
        fix=f"use {spelt[near[0]]}" if near else "list them with `skipway models`",
        code="U201",
    )


def _letters(name: str) -> str:
    """A name without what its spellings differ in.

    >>> _letters("U-Net++"), _letters("unetpp"), _letters("unet_plus_plus")
    ('unetplusplus', 'unetplusplus', 'unetplusplus')
    """
    words = re.sub(r"pp$", "++", name.lower()).replace("+", "plus")
    return re.sub(r"[^a-z0-9]", "", words)


def sketch(name: str, /, **config: Any) -> SkipGraph:
    """The network that `build` gives, on the meta device: all sizes, no memory for weights.

    Raises:
        UsageError: No builder has that name.
        ValueError: It cannot be built, whatever the reason.
    """
    try:
        with torch.device("meta"):
            return build(name, **config)
    except (TypeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(str(error)) from error


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


def strangers(name: str, asked: Mapping[str, str], *, besides: tuple[str, ...] = ()) -> list[Problem]:
    """A problem for each option that a builder does not have.

    Args:
        name: Of the builder.
        asked: Argument -> the words that asked for it, such as `--set width`.
        besides: Arguments that can be asked for too, such as the classes where no data decide them.
    """
    known = (*besides, *arguments(name))
    problems = []
    for key, words in asked.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            fix = f"use {near[0]}" if near else f"see `skipway models {name}`"
            problems.append(
                Problem(f"{name} has no option {key!r}", words, f"one of {', '.join(known)}", fix)
            )
    return problems
