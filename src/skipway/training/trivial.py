"""What a network must beat: the simplest methods, chosen on training images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.composites import set_type
from skipway.data.labels import has
from skipway.data.layouts import Pair
from skipway.metrics.baseline import by_rule, class_sides, otsu_mask, otsu_polarity, simplest_rule
from skipway.training.prepare import Prepared
from skipway.training.session import read_mask

JUDGES = 8
"""Training images that decide which side of Otsu's threshold is the foreground."""

Scored = tuple[str, NDArray[Any], NDArray[Any]]
"""Name, true mask and predicted mask of one image, both (H, W)."""


@dataclass(frozen=True)
class Rule:
    """The simplest method: in full, in short, and what it makes of an image."""

    name: str
    short: str
    class_map: Callable[[Pair], NDArray[np.integer[Any]]]


OTSU = Rule("", "", lambda pair: otsu_mask(pixels_of(pair)).astype(np.uint8))
"""Bright is class 1: as long as any, to measure how long a baseline takes."""


def one_everywhere(prepared: Prepared) -> Rule:
    """The most frequent class everywhere, or what is left over where classes overlap: no network at all."""
    labels = prepared.labels
    if labels.overlapping:
        common = [k for k, share in enumerate(prepared.fingerprint.class_shares) if share > 0.5]
        value, name = sum(1 << k for k in common), " and ".join(labels.names[k] for k in common) or "no class"
        dtype = set_type(len(labels.values))
    else:
        value = int(np.argmax(prepared.fingerprint.class_shares))
        name, dtype = labels.names[value], np.dtype(np.uint8)
    said = f"everything {name}"
    return Rule(said, said, lambda pair: np.full(read_mask(pair).shape, value, dtype))


def simplest(prepared: Prepared) -> Rule:
    """Otsu's threshold, with a class on either side, or one class everywhere.

    Which it is and which class lies on which side is decided on training images, never on those that validate.
    Of overlapping classes each has its own simplest rule.
    """
    if prepared.labels.overlapping:
        return _sets(prepared)
    if len(prepared.labels.values) == 2:
        judges = prepared.split.train_pairs[:JUDGES]
        side = otsu_polarity(
            [pixels_of(pair) for pair in judges], [_foreground(prepared, pair) for pair in judges]
        )
        name = f"Otsu threshold, {side} side"
        return Rule(name, name, lambda pair: otsu_mask(pixels_of(pair), foreground=side).astype(np.uint8))
    return _classes(prepared)


def _classes(prepared: Prepared) -> Rule:
    """One class on each side of Otsu's threshold, or one everywhere, whichever suits the training images best."""
    labels = prepared.labels
    classes = len(labels.values)

    def table(pair: Pair) -> NDArray[np.int64]:
        """Pixels of each class on the dark and on the bright side."""
        truth, bright = labels.encode(read_mask(pair)), otsu_mask(pixels_of(pair))
        sides = [truth[side & (truth != labels.unknown)] for side in (~bright, bright)]
        return np.stack([np.bincount(side, minlength=classes) for side in sides])

    dark, bright = class_sides([table(pair) for pair in prepared.split.train_pairs[:JUDGES]])

    def class_map(pair: Pair) -> NDArray[np.integer[Any]]:
        return np.where(otsu_mask(pixels_of(pair)), np.uint8(bright), np.uint8(dark))

    one = f"everything {labels.names[dark]}"
    two = f"Otsu threshold ({labels.names[bright]} bright, {labels.names[dark]} dark)"
    return Rule(one, one, class_map) if dark == bright else Rule(two, "Otsu threshold", class_map)


def _sets(prepared: Prepared) -> Rule:
    """Each class everywhere, or on one side of Otsu's threshold, whichever suits the training images best."""
    labels, judges = prepared.labels, prepared.split.train_pairs[:JUDGES]
    images = [pixels_of(pair) for pair in judges]
    targets = [labels.encode(read_mask(pair)) for pair in judges]
    classes = range(len(labels.values))
    rules = [simplest_rule(images, [has(target, k) for target in targets]) for k in classes]

    def sets(pair: Pair) -> NDArray[np.integer[Any]]:
        pixels, dtype = pixels_of(pair), set_type(len(rules))
        parts = [by_rule(pixels, rule).astype(dtype) << dtype.type(k) for k, rule in enumerate(rules)]
        return np.asarray(np.bitwise_or.reduce(parts))

    said = {"everywhere": "everywhere", "bright": "Otsu bright", "dark": "Otsu dark"}
    listed = ", ".join(f"{name} {said[rule]}" for name, rule in zip(labels.names, rules, strict=True))
    return Rule(f"the simplest rule of each class ({listed})", "simplest rules", sets)


def _foreground(prepared: Prepared, pair: Pair) -> NDArray[np.bool_]:
    return prepared.task.target(read_mask(pair)) == 1


def predicted_by(prepared: Prepared, pairs: Sequence[Pair], rule: Rule) -> Iterator[Scored]:
    """What a rule makes of images, decoded as the network's class maps are."""
    for pair in pairs:
        yield pair.name, read_mask(pair), prepared.task.decode(rule.class_map(pair))


def pixels_of(pair: Pair) -> NDArray[Any]:
    """The image of a pair as it is stored, (C, H, W)."""
    with pair.image.open_image() as image:
        return image.read(pair.image.page or 0)
