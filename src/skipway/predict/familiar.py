"""What the training images look like, and how far another image lies from them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skipway.errors import CheckpointError, Problem
from skipway.runs import Run

NAME = "familiar"
"""Of the file: familiar.json."""

INSIDE = 2.0
"""Distance at most of a value within the range of the training images, however narrow most of them lie."""

STRANGE = 3.0
"""Distance from which an image is said to be of another kind, and its expected score believed less."""

LEAST = {"contrast": 0.1, "tone": 0.02, "noise": 0.15, "sharpness": 0.05, "share": 0.03, "size": 0.15}
"""A standard deviation is at least this, for a few images may happen to be alike; see `data.looks` for the units."""

BRIGHT = 0.05
"""The same of the brightness, in parts of the median scale."""

FEW = 3.0
"""A standard deviation from n images is made wider by 1 + FEW / n."""

WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("poorer in contrast", "richer in contrast"),
    "tone": ("darker in tone", "lighter in tone"),
    "noise": ("smoother", "noisier"),
    "sharpness": ("blurrier", "sharper"),
    "share": ("emptier of {}", "fuller of {}"),
    "size": ("finer in what was found", "coarser in what was found"),
}
"""Than all training images: what a smaller number means, and a larger one."""


@dataclass(frozen=True)
class Drift:
    """How far one number of an image lies from those of the training images.

    Attributes:
        name: A name of `data.looks`.
        distance: In standard deviations, as robust as the images allow; negative where it is smaller.
    """

    name: str
    distance: float

    def said(self, classes: Sequence[str]) -> str:
        """What the image is, compared with all training images.

        >>> Drift("brightness 3", 7.0).said(())
        'brighter in channel 3'
        >>> Drift("share 2", -5.0).said(("cell", "core"))
        'emptier of core'
        """
        kind, _, number = self.name.partition(" ")
        text = WORDS[kind][self.distance > 0]
        if kind == "share":
            return text.format(classes[int(number) - 1])
        return f"{text} in channel {number}" if number not in ("", "1") else text


@dataclass(frozen=True)
class Familiar:
    """The numbers of `data.looks` of training images.

    Attributes:
        values: By name, one an image, ascending.
    """

    values: Mapping[str, tuple[float, ...]]

    @classmethod
    def of_images(cls, images: Iterable[Mapping[str, float]]) -> "Familiar":
        """From the numbers of each image."""
        found: dict[str, list[float]] = {}
        for image in images:
            for name, value in image.items():
                found.setdefault(name, []).append(float(f"{value:.6g}"))
        return cls({name: tuple(sorted(values)) for name, values in found.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain values for familiar.json."""
        return {name: list(values) for name, values in self.values.items()}

    @classmethod
    def of(cls, run: Run) -> "Familiar | None":
        """What a run says of itself, of folds all of them; None for one that was trained before this was kept.

        Raises:
            CheckpointError: the file is damaged.
        """
        parts = [cls._read(one) for one in (run.folds or (run,)) if (one.path / f"{NAME}.json").is_file()]
        names = dict.fromkeys(name for part in parts for name in part.values)
        joined = {name: sorted(v for part in parts for v in part.values.get(name, ())) for name in names}
        return cls({name: tuple(values) for name, values in joined.items()}) if parts else None

    @classmethod
    def _read(cls, run: Run) -> "Familiar":
        try:
            stored = run.read(NAME)
            found = {str(name): tuple(sorted(map(float, values))) for name, values in stored.items()}
            if not all(values and np.isfinite(values).all() for values in found.values()):
                raise ValueError("numbers that are missing or not finite")
        except (AttributeError, TypeError, ValueError) as error:
            path = str(run.path / f"{NAME}.json")
            fix = "copy it again, or remove it to predict without a comparison"
            raise CheckpointError(Problem(f"damaged ({error})", path, fix=fix)) from error
        return cls(found)

    def drift(self, image: Mapping[str, float]) -> tuple[Drift, ...]:
        """What differs, the largest distance first; names that the training images lack are left out."""
        found = [
            Drift(name, self._distance(name, value)) for name, value in image.items() if name in self.values
        ]
        return tuple(sorted(found, key=lambda one: -abs(one.distance)))

    def _distance(self, name: str, value: float) -> float:
        """(value − median) / standard deviation, no more than `INSIDE` within the range of the images.

        The deviation is the largest of three: by the median of distances, by the middle 80 %, and `LEAST`.
        """
        known = np.array(self.values[name])
        middle = float(np.median(known))
        mad = 1.4826 * float(np.median(np.abs(known - middle)))
        low, high = np.quantile(known, (0.1, 0.9))
        spread = max(mad, float(high - low) / 2.563, self._least(name)) * (1 + FEW / len(known))
        distance = (value - middle) / spread
        if known[0] <= value <= known[-1]:
            return math.copysign(min(abs(distance), INSIDE), distance)
        return distance

    def _least(self, name: str) -> float:
        kind, _, channel = name.partition(" ")
        if kind != "brightness":
            return LEAST[kind]
        return BRIGHT * 2.0 ** float(np.median(self.values[f"contrast {channel}"]))
