"""What a builder may be told: types and sizes of its arguments, checked before anything is built."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

LEVELS = 10
"""Most levels of a network: the deepest of them has one pixel for 512 of the image."""
REPEATS = 256
"""Most layers, blocks or uses of one kind."""
SIDE = 65_536
"""Largest of all other numbers: channels and sides."""

MOST: Mapping[str, int] = {
    "depth": LEVELS,
    **dict.fromkeys(("layers", "recurrences", "blocks", "units", "convs", "up_convs"), REPEATS),
}
"""Largest number by argument, else `SIDE`. What counts modules costs time even where nothing is computed."""
MAY_BE_ZERO = ("stop", "recurrences")


def check_config(builder: Callable[..., Any], config: Mapping[str, Any]) -> None:
    """Refuse values that no network is built from, wherever they come from: a command, a run folder.

    Names are left to Python, which refuses those that a builder does not take.

    Raises:
        ValueError: A value is of another type than its argument, not finite, or far too large.
    """
    hints = get_type_hints(builder)
    for passed_on in get_args(hints.pop("options", None)):  # of **options: Unpack[Options]
        hints |= get_type_hints(passed_on)
    for key in config.keys() & hints.keys():
        value = config[key]
        if not _fits(value, hints[key]):
            raise ValueError(f"{key} cannot be {value!r}; it is {_words(hints[key])}")
        least, most = int(key not in MAY_BE_ZERO), MOST.get(key, SIDE)
        for number in _integers(value):
            if not least <= number <= most:
                raise ValueError(f"{key} cannot be {value!r}; its numbers go from {least} to {most}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type: a number, a truth, a word, a list of those, or one of several types."""
    if get_origin(hint) is UnionType:
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Sequence:
        (inner,) = get_args(hint)
        return (
            isinstance(value, (list, tuple))
            and len(value) <= LEVELS
            and all(_fits(one, inner) for one in value)
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _integers(value: Any) -> list[int]:
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in _integers(one)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def _words(hint: Any) -> str:
    """A type as a person would say it."""
    if get_origin(hint) is UnionType:
        return " or ".join(_words(one) for one in get_args(hint))
    if get_origin(hint) is Sequence:
        return f"a list, each {_words(get_args(hint)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", NoneType: "nothing"}.get(
        hint, "a word"
    )
