"""What the validations and the final evaluation will cost, measured on few images and scaled by pixels."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from skipway.data.layouts import Volume
from skipway.predict.predictor import Predictor
from skipway.training.pace import Reserve

ENOUGH = 0.01
"""Part of a time budget after which no further image is measured."""

UNBOUND = 5.0
"""Seconds after which none is, where no time is given."""

PLACES = (0.0, 0.5, 0.85)
"""Images that are measured: their places among all in order of size."""


@dataclass(frozen=True)
class Ending:
    """What follows a training, in the parts by which its time grows.

    Attributes:
        each: What is done with every volume, given the network.
        once: What is done once.
        shown: What is done with some volumes to show them.
        shows: How many those are.
    """

    each: Callable[[Predictor, Volume], object]
    once: Callable[[], object]
    shown: Callable[[Volume], object]
    shows: int


NOTHING = Ending(lambda predictor, volume: None, lambda: None, lambda volume: None, 0)


def pixels(volume: Volume) -> int:
    """Pixels of a page or volume, by its header."""
    with volume.image.open_image() as image:
        return math.prod(image.size) * len(volume.pages)


def measure(
    predictor: Predictor,
    volumes: Sequence[Volume],
    watched: Sequence[Volume],
    validate: Callable[[Predictor, Volume], object],
    ending: Ending,
    budget: float | None,
) -> Reserve:
    """Validate and end with a few volumes, the smallest twice: the first pays for what the rest find ready.

    Args:
        predictor: Around the network as it is.
        volumes: All that the final evaluation looks at.
        watched: Those that a validation looks at.
        validate: What a validation does with one.
        ending: What follows the training.
        budget: Seconds of the whole training; None where steps rule.
    """
    sizes = {volume.name: pixels(volume) for volume in volumes}
    ordered = sorted(volumes, key=lambda volume: sizes[volume.name])
    chosen = [ordered[0], *(ordered[int(place * (len(ordered) - 1))] for place in PLACES)]
    began, enough = time.perf_counter(), UNBOUND if budget is None else ENOUGH * budget
    seen, looking, each = 0, 0.0, 0.0
    for number, volume in enumerate(chosen):
        if number == 1:
            seen, looking, each = 0, 0.0, 0.0
        seen += sizes[volume.name]
        looking += _seconds(partial(validate, predictor, volume))
        each += _seconds(partial(ending.each, predictor, volume))
        last = volume
        if number and time.perf_counter() - began > enough:
            break
    ending.shown(last)
    shown = _seconds(partial(ending.shown, last)) / sizes[last.name] * sum(sizes.values()) / len(volumes)
    final = (
        each / seen * sum(sizes.values()) + shown * min(ending.shows, len(volumes)) + _seconds(ending.once)
    )
    return Reserve(looking / seen * sum(sizes[volume.name] for volume in watched), final)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
