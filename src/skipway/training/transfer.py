"""Weights of one network in another that differs in its classes and channels only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.models import build, sketch

Array = NDArray[Any]


@dataclass(frozen=True)
class Transferred:
    """What came of it.

    Attributes:
        tensors: All weights of the new network.
        said: What was not simply copied, for people.
        whole: Whether the new network decides between the same classes, so that it can be scored as it is.
    """

    tensors: Mapping[str, Array]
    said: tuple[str, ...]
    whole: bool


def same_class(new: LabelMap, old: LabelMap) -> tuple[int | None, ...]:
    """For each class of `new` that of `old` with the same name, or else the same value; None where there is none.

    >>> old = LabelMap("classes", (0, 1, 2), ("sky", "car", "tree"))
    >>> same_class(LabelMap("classes", (0, 1, 5), ("sky", "tree", "dog")), old)
    (0, 2, None)
    """
    if new.overlapping != old.overlapping:
        return (None,) * len(new.values)
    names, values = ({key: i for i, key in enumerate(keys)} for keys in (old.names, old.values))
    taken = set(new.names)
    found = []
    for name, value in zip(new.names, new.values, strict=True):
        by_value = values.get(value)
        free = by_value is not None and old.names[by_value] not in taken
        found.append(names.get(name, by_value if free else None))
    return tuple(found)


def transferred(
    model: str,
    old: tuple[Mapping[str, Any], LabelMap, Mapping[str, Array]],
    new: tuple[Mapping[str, Any], LabelMap],
    seed: int,
) -> Transferred:
    """Copy weights; adapt the rows of the head and the first convolutions; draw what has no origin.

    Args:
        model: Name of the builder of both.
        old: Arguments, classes and weights of the network that is there.
        new: Arguments and classes of the one to be.
        seed: Of what is drawn.
    """
    config, labels = new
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = {key: value.numpy().copy() for key, value in build(model, **config).state_dict().items()}
    heads, inputs = (_changing(model, config, key) for key in ("classes", "in_channels"))
    rows = same_class(labels, old[1])
    tensors, fresh = {}, []
    for key, value in drawn.items():
        before = old[2].get(key)
        made = None
        if before is not None and key in heads:
            made = _head(before, value, rows)
        elif before is not None and key in inputs:
            made = _input(before, value)
        elif before is not None and before.shape == value.shape:
            made = before
        fresh += [key] if made is None else []
        tensors[key] = value if made is None else made
    return Transferred(
        tensors, tuple(_said(rows, labels, old, config, fresh)), not fresh and None not in rows
    )


def _said(
    rows: Sequence[int | None],
    labels: LabelMap,
    old: tuple[Mapping[str, Any], LabelMap, Mapping[str, Array]],
    config: Mapping[str, Any],
    fresh: Sequence[str],
) -> list[str]:
    said = []
    new = [name for name, row in zip(labels.names, rows, strict=True) if row is None]
    if new:
        said.append(f"new classes: {', '.join(new)}")
    channels = old[0]["in_channels"], config["in_channels"]
    if channels[0] != channels[1]:
        how = {(1, 3): "repeated and divided", (3, 1): "summed"}.get(channels, "drawn anew")
        said.append(f"first weights from {channels[0]} to {channels[1]} channels: {how}")
    if fresh:
        said.append(
            f"drawn anew: {', '.join(fresh[:3])}" + (f" and {len(fresh) - 3} more" * (len(fresh) > 3))
        )
    return said


def _changing(model: str, config: Mapping[str, Any], key: str) -> set[str]:
    """Names of the weights whose shape follows from one argument."""
    here, there = (
        {name: value.shape for name, value in sketch(model, **numbers).state_dict().items()}
        for numbers in (config, {**config, key: config[key] + 1})
    )
    return {name for name, shape in here.items() if there.get(name) != shape}


def _head(before: Array, drawn: Array, rows: Sequence[int | None]) -> Array | None:
    """Rows of a head by class; one sigmoid channel z stands for the softmax channels (0, z)."""
    if before.shape[1:] != drawn.shape[1:]:
        return None
    old, new = len(before), len(drawn)
    if old == 1 and rows != (0,):
        before = np.concatenate([np.zeros_like(before), before])
    if new == 1 and len(rows) == 2:
        if None in rows:
            return None
        background, inside = (before[row] for row in rows if row is not None)
        return np.asarray(inside - background)[None]
    if new != len(rows) or all(row is None for row in rows):
        return None
    made = drawn.copy()
    for channel, row in enumerate(rows):
        if row is not None:
            made[channel] = before[row]
    return made


def _input(before: Array, drawn: Array) -> Array | None:
    """A first convolution for other channels: grey to RGB and back keep what it gives for a grey image."""
    if before.shape == drawn.shape:
        return before
    if before.ndim < 2 or (before.shape[0], *before.shape[2:]) != (drawn.shape[0], *drawn.shape[2:]):
        return None
    channels = before.shape[1], drawn.shape[1]
    if channels == (1, 3):
        return np.repeat(before / 3, 3, axis=1)
    return before.sum(axis=1, keepdims=True) if channels == (3, 1) else None
