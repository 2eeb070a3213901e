"""What the user named of a training; the rules of `skipway.plan` choose the rest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from skipway.errors import Problem, UsageError
from skipway.losses import ETAS, LOSSES
from skipway.models import BUILDERS, strangers, unknown

PRESETS = ("default", "2015")
OPTIMISERS = ("adamw", "sgd")
FLAGS = ("width", "depth", "backbone", "supervised")
"""Options of a model that have a flag of their own; the others go by --set."""

WORDS = {"start": "from", "learning_rate": "lr"}
"""Flags that are called other than the field that holds them."""

BESIDE_START = ("--from", "--loss", "--optimiser", "--lr", "--batch", "--seed")
"""Flags that may be named beside --from, with the length."""


@dataclass(frozen=True)
class Request:
    """What the user named; None leaves the choice to the rules.

    `plan` is the plan of another run, which then decides everything but the length. `start` is a run whose weights
    the training begins with, and whose network it therefore has. `ram` and `vram` are the bytes that the training
    may hold, of the machine and of its GPU.
    """

    preset: str = "default"
    model: str | None = None
    width: int | None = None
    depth: int | None = None
    loss: str | None = None
    optimiser: str | None = None
    learning_rate: float | None = None
    batch: int | None = None
    patch: int | None = None
    steps: int | None = None
    seconds: float | None = None
    supervised: bool | None = None
    supervision: str = "equal"
    backbone: str | None = None
    pretrained: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    plan: str | None = None
    ram: int | None = None
    vram: int | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        problems = [
            Problem(f"found {value}", flag, "a number above 0")
            for flag, value in (
                ("--steps", self.steps),
                ("--time", self.seconds),
                ("--batch", self.batch),
                ("--patch", self.patch),
                ("--width", self.width),
                ("--lr", self.learning_rate),
                ("--ram", self.ram),
                ("--vram", self.vram),
            )
            if value is not None and not (value > 0 and math.isfinite(value))
        ]
        if self.depth is not None and not 2 <= self.depth <= 7:
            problems.append(Problem(f"found {self.depth}", "--depth", "2 to 7 levels"))
        for flag, value, names in (
            ("--preset", self.preset, PRESETS),
            ("--loss", self.loss, tuple(LOSSES)),
            ("--optimiser", self.optimiser, OPTIMISERS),
            ("--supervision", self.supervision, ETAS),
        ):
            if value is not None and value not in names:
                problems.append(Problem(f"found {value!r}", flag, "one of " + ", ".join(names)))
        if self.model is not None and self.model not in BUILDERS:
            problems.append(unknown(self.model, "--model"))
        if self.steps is not None and self.seconds is not None:
            problems.append(Problem("both --steps and --time are given", "train", "one of them"))
        if not 0 <= self.seed < 2**63:
            problems.append(Problem(f"found {self.seed}", "--seed", "0 to 2^63 - 1"))
        problems += self._strangers()
        if self.plan is not None:
            problems += [
                Problem(f"{flag} and --plan are both given", "train", fix="leave one out, or edit the plan")
                for flag in self._named
            ]
        elif self.start is not None and (beside := [f for f in self._named if f not in BESIDE_START]):
            found = f"--from and {', '.join(beside)} are both given"
            problems.append(Problem(found, "train", fix="leave one out: --from brings its network along"))
        if problems:
            raise UsageError(*problems)

    @property
    def asked(self) -> dict[str, Any]:
        """Options of the model that the user named, by a flag of their own or by --set."""
        flags = {key: getattr(self, key) for key in FLAGS}
        return {key: value for key, value in flags.items() if value is not None} | dict(self.options)

    @property
    def _named(self) -> list[str]:
        """Flags that the user gave and a plan decides, too."""
        others = (part for part in fields(self) if part.name not in ("plan", "steps", "seconds", "options"))
        default = {part.name: part.default for part in others}
        return [
            *(
                f"--{WORDS.get(name, name)}"
                for name, value in default.items()
                if getattr(self, name) != value
            ),
            *(f"--set {name}" for name in self.options),
        ]

    def _strangers(self) -> list[Problem]:
        """Options that the model does not have, or that are named twice."""
        model = self.model or ("unet_2015" if self.preset == "2015" else "unet")
        if model not in BUILDERS:
            return []
        flags = {key: f"--{key}" for key in FLAGS if getattr(self, key) is not None}
        twice = [
            Problem(f"{key} is named twice", f"{flags[key]}, --set {key}", fix="leave one out")
            for key in flags.keys() & self.options.keys()
        ]
        return twice + strangers(model, flags | {key: f"--set {key}" for key in self.options})
