"""Fine-tuning: a training that starts from the weights of another run, and holds a copy of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skipway.data.fingerprint import Fingerprint
from skipway.data.labels import LabelMap
from skipway.data.lists import some
from skipway.data.splits import Split
from skipway.errors import CheckpointError, DataError, Problem, UsageError
from skipway.models import build
from skipway.nn.graph import SkipGraph
from skipway.plan import Plan
from skipway.request import Request
from skipway.runs import Run, read_tensors, write_tensors
from skipway.training.transfer import transferred
from skipway.weights import FILE, load_model

NAME = "start.safetensors"
"""The first weights, in the run that starts from them."""

SLOWER = 1 / 3
"""Highest learning rate over that of the run that is started from: what it knows is not to be shaken out."""


@dataclass(frozen=True)
class Start:
    """First weights, and where they come from.

    Attributes:
        tensors: Weights of the new network.
        facts: For run.json: run, SHA-256 of its weights, what was not copied, and whether they can be scored.
        taught: SHA-256 of the pixels of the images that trained them, where that is known.
    """

    tensors: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]
    taught: frozenset[str] = frozenset()

    def known(self, split: Split) -> tuple[str, ...]:
        """A warning where images that trained these weights validate: their scores flatter the network."""
        names = [name for name in split.val if split.hashes[name] in self.taught]
        if not names:
            return ()
        text = f"{len(names)} of {len(split.val)} validation images trained the run named by --from ({some(names)})"
        return (f"{text}: the scores flatter it; --val RUN/split.json keeps its split",)

    def write(self, run: Run) -> None:
        """Copy the weights into the run that starts from them."""
        write_tensors(run.path / NAME, self.tensors, self.facts)

    @classmethod
    def copied(cls, folder: Path) -> "Start":
        """The first weights of a run that was fine-tuned, to repeat it.

        Raises:
            SkipwayError: they are missing or damaged.
        """
        tensors, facts = read_tensors(folder / NAME)
        return cls(tensors, facts)


@dataclass(frozen=True)
class Origin:
    """A run to start from."""

    path: Path
    plan: Plan
    labels: LabelMap
    model: SkipGraph
    taught: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "Origin":
        """Read it.

        Raises:
            UsageError: no run folder.
            CheckpointError: something in it is damaged.
            SecurityError: its weights are no safetensors.
        """
        run = Run.open(path)
        model = load_model(run, torch.device("cpu"))
        name, config = (read_tensors(path / FILE)[1][key] for key in ("model", "config"))
        plan = replace(Plan.from_json(run.read("plan")), model=name, config=config)
        return cls(path, plan, LabelMap.from_json(run.read("labels")), model, _taught(run))

    def request(self, asked: Request) -> Request:
        """What is asked, with the network of this run."""
        own = {key: value for key, value in self.plan.config.items() if key not in ("in_channels", "classes")}
        return replace(
            asked,
            start=None,
            model=self.plan.model,
            options=own,
            batch=asked.batch or self.plan.batch,
            optimiser=asked.optimiser or self.plan.optimiser,
        )

    def begin(self, plan: Plan, asked: Request, data: Fingerprint, labels: LabelMap) -> tuple[Plan, Start]:
        """The plan with the network and patch of this run and a lower rate, and the first weights.

        Args:
            plan: What the rules chose for `request`.
            asked: What the user named.
            data: What the training images look like.
            labels: Their classes.

        Raises:
            UsageError: the network has three axes and the images are no stacks.
        """
        if self.plan.ndim == 3 and data.slices == 1:
            found = "a network of three axes, and images of one slice"
            raise UsageError(
                Problem(found, "--from", "stacks, as that run was trained on", "name another run")
            )
        one = len(labels.values) == 2 and not labels.overlapping and self.plan.config["classes"] == 1
        classes = 1 if one else len(labels.values)
        config = {**self.plan.config, "in_channels": data.channels, "classes": classes}
        usual = self.plan.learning_rate if plan.optimiser == self.plan.optimiser else plan.learning_rate
        plan = replace(
            plan,
            config=config,
            patch=self.plan.patch,
            learning_rate=asked.learning_rate or usual * SLOWER,
            start=NAME,
        )
        weights = {key: np.asarray(value) for key, value in self.model.state_dict().items()}
        made = transferred(plan.model, (self.plan.config, self.labels, weights), (config, labels), plan.seed)
        facts = {
            "run": str(self.path.resolve()),
            "sha256": hashlib.sha256((self.path / FILE).read_bytes()).hexdigest(),
            "changed": list(made.said),
            "whole": made.whole,
            "learning_rate": plan.learning_rate,
        }
        return plan, Start(made.tensors, facts, self.taught)


def _taught(run: Run) -> frozenset[str]:
    """Hashes of what trained a run; none where its split is missing or damaged, since it only serves a warning."""
    try:
        split = Split.from_json(run.read("split"))
    except (CheckpointError, DataError):
        return frozenset()
    return frozenset(split.hashes[name] for name in split.train)


def started(plan: Plan, folder: Path) -> SkipGraph:
    """The network of a plan with the first weights that its run holds."""
    model = build(plan.model, **plan.config)
    tensors, _ = read_tensors(folder / NAME)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
    return model


def said(facts: Mapping[str, Any]) -> str:
    """One line about where a training starts."""
    changed = "".join(f"; {text}" for text in facts["changed"])
    return (
        f"{facts['run']} ({facts['sha256'][:12]}), learning rate {facts['learning_rate']:.3g} at most"
        f"{changed} [--from, --lr]"
    )
