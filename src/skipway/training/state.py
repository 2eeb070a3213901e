"""The nine parts of a training that must survive a kill, in one file.

Weights, batch-norm buffers, optimiser, schedule position, averaged weights, the random states of torch, NumPy and
Python, and the step (which is also the position in the data, because batch k is a pure function of the seed and k).
Leave one out and the continued run differs from the one that never stopped. They travel in one safetensors file so
that one rename makes them all true at once.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skipway.errors import CheckpointError, Problem
from skipway.runs import read_tensors, write_tensors


@dataclass
class Progress:
    """Where the training stands.

    Attributes:
        step: Optimiser steps done.
        total: Optimiser steps of the whole schedule; None until they are measured.
        seconds: Wall-clock time spent so far, over all starts.
        loss_sum: Sum of the losses since the last row of metrics.csv.
        loss_count: Their number.
        skipped: Batches left out because a loss or gradient was not finite.
    """

    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """The objects whose state is kept."""

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer


def save_state(path: Path, parts: Parts, progress: Progress) -> None:
    """Write all parts, atomically."""
    write_tensors(path, *packed(parts, progress))


def load_state(path: Path, parts: Parts) -> Progress:
    """Put all parts back as they were saved.

    Raises:
        CheckpointError: the file is damaged, or belongs to another network.
        SecurityError: the file is not safetensors.
    """
    tensors, facts = read_tensors(path)
    try:
        return unpacked(parts, tensors, facts)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(
            Problem(f"does not belong to this training ({first})", str(path), fix="train into a new folder")
        ) from error


def packed(parts: Parts, progress: Progress) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """All parts as named arrays, and as facts that are JSON."""
    tensors: dict[str, NDArray[Any]] = {}
    tensors.update(_named("model", parts.model.state_dict()))
    tensors.update(_named("average", parts.average.state_dict()))
    optimiser = parts.optimiser.state_dict()
    for index, values in optimiser["state"].items():
        tensors.update(_named(f"optimiser.{index}", values))
    random_tensors, random_facts = _random_state()
    tensors.update(random_tensors)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimiser["param_groups"]]
    return tensors, {"progress": asdict(progress), "random": random_facts, "groups": groups}


def unpacked(parts: Parts, tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Progress:
    """Put all parts back out of what `packed` gave."""
    parts.model.load_state_dict(_under("model", tensors))
    parts.average.load_state_dict(_under("average", tensors))
    optimiser = parts.optimiser.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under("optimiser", tensors).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = [{**old, **new} for old, new in zip(optimiser["param_groups"], facts["groups"], strict=True)]
    parts.optimiser.load_state_dict({"state": state, "param_groups": groups})
    _set_random_state(tensors, facts["random"])
    return Progress(**facts["progress"])


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {
        f"{prefix}.{key}": np.asarray(torch.as_tensor(value).detach().cpu()) for key, value in values.items()
    }


def _under(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    start = len(prefix) + 1
    return {
        name[start:]: torch.from_numpy(array.copy())
        for name, array in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def _random_state() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Random states of torch (every device), NumPy and Python. Only Dropout draws from them; a user's code may too."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 (the global state is what we keep)
    version, internal, gauss_next = random.getstate()
    tensors: dict[str, NDArray[Any]] = {
        "random.torch": torch.get_rng_state().numpy(),
        "random.numpy": np.asarray(keys),
        "random.python": np.asarray(internal, np.uint32),
    }
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random.cuda.{index}"] = state.numpy()
    facts = {"numpy": [position, has_gauss, gauss], "python": [version, gauss_next]}
    return tensors, facts


def _set_random_state(tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    torch.set_rng_state(torch.from_numpy(tensors["random.torch"].copy()))
    position, has_gauss, gauss = facts["numpy"]
    np.random.set_state(("MT19937", tensors["random.numpy"], position, has_gauss, gauss))  # noqa: NPY002
    version, gauss_next = facts["python"]
    random.setstate((version, tuple(int(v) for v in tensors["random.python"]), gauss_next))
    if torch.cuda.is_available():
        saved = sorted(name for name in tensors if name.startswith("random.cuda."))
        for index, name in enumerate(saved[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.from_numpy(tensors[name].copy()), index)
