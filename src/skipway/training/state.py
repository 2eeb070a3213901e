"""The nine parts of a training that must survive a kill, in one file.

Weights, batch-norm buffers, optimiser, schedule position, averaged weights, the random states of torch, NumPy and
Python, and the step (which is also the position in the data, because batch k is a pure function of the seed and k).
Leave one out and the continued run differs from the one that never stopped. They travel in one safetensors file so
that one rename makes them all true at once.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skipway.errors import CheckpointError, Problem, SecurityError
from skipway.legs import Leg
from skipway.runs import read_tensors, write_tensors

STATE = "state.safetensors"
PREVIOUS = "previous.safetensors"
DAMAGED = "damaged-{}.safetensors"
"""What a damaged state is kept as, numbered: evidence that nobody deletes."""


@dataclass
class Progress:
    """Where the training stands.

    Attributes:
        step: Optimiser steps done.
        total: Optimiser steps of the whole schedule; None until they are measured.
        seconds: Wall-clock time spent so far, over all starts.
        loss_sum: Sum of the losses since the last row of metrics.csv.
        loss_count: Their number.
        skipped: Batches left out because a loss, gradient or weight was not finite.
        rows: Rows that metrics.csv does not hold yet.
        legs: How the length came about, see `skipway.legs`; one leg of `total` steps where none is given.
        leg: Number of the one that is under way.
    """

    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    legs: tuple[Leg, ...] = ()
    leg: int = 0

    def __post_init__(self) -> None:
        self.legs = self.legs or (Leg.of(self.total),)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Progress":
        """Progress out of plain values."""
        return cls(**{**value, "legs": tuple(map(Leg.from_json, value["legs"]))})

    @property
    def here(self) -> Leg:
        """The leg that is under way."""
        return self.legs[self.leg]

    @property
    def leg_over(self) -> bool:
        """Whether the next leg begins with the next step."""
        return self.leg + 1 < len(self.legs) and self.step >= self.legs[self.leg + 1].begin

    @property
    def course(self) -> tuple[Leg, ...]:
        """The legs, but none where the number of steps says it all."""
        return () if self.legs == (Leg.of(self.total),) else self.legs

    def bend(self, total: int, validations: int | None = None) -> None:
        """From this step on, the training is to end with step `total`, after so many validations in all."""
        leg = self.legs[-1].bent(self.step, total)
        self.legs = (*self.legs[:-1], replace(leg, validations=validations))
        self.total = total


@dataclass(frozen=True)
class Parts:
    """The objects whose state is kept."""

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer


def has_state(folder: Path) -> bool:
    """Whether a training was saved here."""
    return (folder / STATE).is_file() or (folder / PREVIOUS).is_file()


def keep_state(folder: Path, parts: Parts, progress: Progress) -> None:
    """Save a training in its run folder; the save before stays as the previous one."""
    save_state(folder / STATE, parts, progress, previous=folder / PREVIOUS)


def newest_state(folder: Path, parts: Parts) -> tuple[Progress, str | None]:
    """Put the newest state that is whole back; a damaged one is moved aside, never deleted.

    Returns:
        Where the training stands, and a warning where that is not what was saved last.

    Raises:
        CheckpointError: none is whole, or they belong to another network.
        SecurityError: the newest is no safetensors file, and there is no previous one.
    """
    try:
        return load_state(folder / STATE, parts), None
    except (CheckpointError, SecurityError) as error:
        try:
            progress = load_state(folder / PREVIOUS, parts)
        except (CheckpointError, SecurityError):
            raise error from None
        said = (
            f"{str(error).partition('. Fix')[0]}; going on from the save before it, of step {progress.step}"
        )
    if (folder / STATE).is_file():
        number = next(n for n in range(1, 1000) if not (folder / DAMAGED.format(n)).exists())
        (folder / STATE).replace(folder / DAMAGED.format(number))
        said += f"; the damaged file is kept as {DAMAGED.format(number)}"
    return progress, said


def forget_states(folder: Path) -> None:
    """Remove the states of a finished training; damaged ones stay."""
    for name in (STATE, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def save_state(path: Path, parts: Parts, progress: Progress, *, previous: Path | None = None) -> None:
    """Write all parts, atomically; what stood at `path` stays under the name `previous`."""
    write_tensors(path, *packed(parts, progress), previous=previous)


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
    groups = [numbers_of(group) for group in optimiser["param_groups"]]
    return tensors, {"progress": asdict(progress), "random": random_facts, "groups": groups}


def unpacked(parts: Parts, tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Progress:
    """Put all parts back out of what `packed` gave."""
    parts.model.load_state_dict(_under("model", tensors))
    parts.average.load_state_dict(_under("average", tensors))
    optimiser = parts.optimiser.state_dict()
    weights = [weight for group in parts.optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under("optimiser", tensors).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = _laid_out_as(weights[int(index)], value)
    groups = [{**old, **new} for old, new in zip(optimiser["param_groups"], facts["groups"], strict=True)]
    parts.optimiser.load_state_dict({"state": state, "param_groups": groups})
    _set_random_state(tensors, facts["random"])
    return Progress.from_json(facts["progress"])


def numbers_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """Rate, decay and their like of a group of weights, not which weights, nor by which kernel they are moved."""
    return {key: value for key, value in group.items() if key not in ("params", "fused", "foreach")}


def _laid_out_as(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A moment in the memory layout of its weight: a fused optimiser goes through both number by number."""
    if value.shape != weight.shape:
        return value
    return torch.empty_like(weight, dtype=value.dtype).copy_(value)


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


def seed_all(seed: int) -> None:
    """Start the generators of torch, NumPy and Python from one seed, of which the last two know 32 bits alike."""
    torch.manual_seed(seed % 2**64)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Every random state as it was, afterwards."""
    numbers, words = np.random.get_state(), random.getstate()  # noqa: NPY002 (the global state is what is kept)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(words)


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
