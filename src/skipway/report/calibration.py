"""The temperature of a run, fitted on pixels of its validation images while these are predicted anyway."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skipway.data.layouts import Volume
from skipway.metrics.calibration import BINS, choices, fit_temperature, reliability
from skipway.predict.calibration import Calibration
from skipway.report.curves import Chart, Points, Tick, drawn, position
from skipway.report.page import Trust
from skipway.runs import read_tensors, write_tensors
from skipway.training.dataset import read_masks
from skipway.training.prepare import Prepared
from skipway.training.session import OnLogits, spread

FILE = "calibration.safetensors"
"""Of a fold: the logits and classes of its pixels, for the temperature of all folds."""

VALUES = 200_000
"""Logits that are kept at most: 100,000 pixels of two classes, 17,000 of twelve."""

IMAGES = 100
"""Validation images that are looked at, evenly spread where there are more: reading masks takes time."""

FEW = 0.001
"""Share of the pixels below which a bin is not drawn."""

Logits = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Sampled:
    """Annotated pixels of images that did not train.

    Attributes:
        logits: (n, K).
        truth: (n,) class indices, or sets of them.
        unit: (n,) number of the image or group that each lies in.
        images: How many images there are.
    """

    logits: Logits
    truth: Integers
    unit: Integers
    images: int

    def write(self, path: Path) -> None:
        """Keep them."""
        write_tensors(
            path, {key: getattr(self, key) for key in ("logits", "truth", "unit")}, {"images": self.images}
        )

    @classmethod
    def read(cls, path: Path) -> "Sampled":
        """Read them back.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        tensors, facts = read_tensors(path)
        return cls(**tensors, images=int(facts["images"]))


@dataclass(frozen=True)
class Grid:
    """Every n-th pixel along each axis of an image.

    Attributes:
        size: (*S) of the image.
        steps: n of each axis.
    """

    size: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(cls, size: tuple[int, ...], quota: int) -> "Grid":
        """At most `quota` pixels, but at least one, by the smallest step that gives no more.

        >>> Grid.of((100, 200), 200).shape, Grid.of((3, 100, 100), 300).shape
        ((10, 20), (1, 17, 17))
        """
        quota = max(1, quota)
        least = max(1, math.ceil((math.prod(size) / quota) ** (1 / len(size))))
        grids = (cls(size, tuple(min(side, step) for side in size)) for step in count(least))
        return next(grid for grid in grids if math.prod(grid.shape) <= quota)

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        axes = zip(self.size, self.steps, strict=True)
        return tuple(len(range(step // 2, side, step)) for side, step in axes)

    @property
    def pixels(self) -> tuple[slice, ...]:
        """The pixels of the whole image."""
        return tuple(slice(step // 2, None, step) for step in self.steps)

    def part(self, region: tuple[slice, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of the grid that lies in a region, and where within the region that is.

        >>> Grid((20,), (4,)).part((slice(5, 12),))  # pixels 6 and 10, the second and the third
        ((slice(1, 3, None),), (slice(1, None, 4),))
        """
        here, there = [], []
        for window, step in zip(region, self.steps, strict=True):
            first, last = (max(0, math.ceil((end - step // 2) / step)) for end in (window.start, window.stop))
            here.append(slice(first, last))
            there.append(slice(first * step + step // 2 - window.start, None, step))
        return tuple(here), tuple(there)


@dataclass
class Collector:
    """Picks pixels on a grid out of each image that is predicted, about equally many of each.

    Attributes:
        prepared: Data and plan of the run.
        classes: Channels of the logits.
    """

    prepared: Prepared
    classes: int
    _found: list[tuple[Volume, Logits, Integers]] = field(default_factory=list)

    def __post_init__(self) -> None:
        split, volumes = self.prepared.split, self.prepared.val_volumes
        looked = () if split.train == split.val else spread(volumes, IMAGES)
        self._looked = {volume.name for volume in looked}
        self._quota = VALUES // self.classes // max(1, len(looked))

    def look(self, volume: Volume, size: tuple[int, ...]) -> OnLogits | None:
        """What is to be told of the logits of an image or volume of (*S) pixels; None where it is passed over."""
        if volume.name not in self._looked:
            return None
        task = self.prepared.task
        grid = Grid.of(size, self._quota)
        logits = np.zeros((self.classes, *grid.shape), np.float32)
        truth = task.target(read_masks(volume, self.prepared.plan.ndim))[grid.pixels]
        self._found.append((volume, logits, truth))

        def keep(region: tuple[slice, ...], found: Tensor) -> None:
            here, there = grid.part(region)
            logits[:, *here] = found[:, *there].float().cpu().numpy()

        return keep

    @property
    def sampled(self) -> Sampled:
        """All annotated pixels that were seen; of no image where the one that validates trained, too."""
        groups, unknown = self.prepared.split.groups, self.prepared.labels.unknown
        own = [groups.get(volume.pairs[0].name, volume.name) for volume, *_ in self._found]
        names = own if len(set(own)) > 1 else [volume.name for volume, *_ in self._found]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        parts = [
            (np.moveaxis(found, 0, -1)[target != unknown], target[target != unknown], numbers[name])
            for name, (_, found, target) in zip(names, self._found, strict=True)
        ]
        nothing = np.empty((0, self.classes), np.float32), np.empty(0, np.int64), 0
        return Sampled(
            logits=np.concatenate([part[0] for part in (nothing, *parts)]),
            truth=np.concatenate([part[1].astype(np.int64) for part in (nothing, *parts)]),
            unit=np.concatenate([np.full(len(part[1]), part[2]) for part in (nothing, *parts)]),
            images=len(parts),
        )


def calibrated(parts: Sequence[Sampled], *, overlapping: bool) -> Calibration:
    """One temperature for all pixels, and what it does to pixels that did not choose it.

    Args:
        parts: Pixels of each fold, each held against the temperature of the others; of a single run, one part,
            whose first half of the images is held against the temperature of the second half and the other way round.
        overlapping: Whether each channel has a sigmoid of its own.
    """
    logits, truth, side = _joined(parts)
    images, pixels = sum(part.images for part in parts), len(truth)
    if not pixels:
        return Calibration(rule="not fitted: there is no annotated image that did not train")
    z, right = choices(logits, truth, overlapping=overlapping)
    side = np.repeat(side, len(right) // pixels)
    fitted = fit_temperature(z, right)
    before = reliability(z, right)
    said = f"fitted on {pixels:,} pixels of {images} validation image{'' if images == 1 else 's'}"
    sides = np.unique(side)
    if len(sides) < 2:
        alone = f"{said}; one alone cannot say what it does to others"
        return Calibration(fitted, pixels, images, alone, ece=before.ece, nll=before.nll, bins=before.bins)
    own = np.ones(len(right))
    for one in sides:
        own[side == one] = fit_temperature(z[side != one], right[side != one])
    after = reliability(z, right, own)
    halves = (
        "each half by the temperature of the other" if len(parts) == 1 else "each fold by that of the others"
    )
    helps = after.nll < before.nll
    unused = (
        "" if helps else f"; T = {fitted:.3f} is not used: it made images that did not choose it no likelier"
    )
    return Calibration(
        temperature=fitted if helps else 1.0,
        pixels=pixels,
        images=images,
        rule=f"{said}; the error after is that of {halves}{unused}",
        ece=before.ece,
        ece_after=after.ece,
        nll=before.nll,
        nll_after=after.nll,
        bins=before.bins,
        bins_after=after.bins,
    )


def _joined(parts: Sequence[Sampled]) -> tuple[Logits, Integers, Integers]:
    """Logits, classes and sides of all parts: each a side, or the two halves of a single one; no more than of one."""
    every = len(parts)
    logits, truth = (
        np.concatenate([getattr(part, key)[::every] for part in parts]) for key in ("logits", "truth")
    )
    if every > 1:
        side = np.concatenate([np.full(len(part.truth[::every]), k) for k, part in enumerate(parts)])
    else:
        unit = parts[0].unit
        side = (unit >= (unit.max(initial=0) + 1) / 2).astype(np.int64)
    return logits, truth, side


def trust(found: Calibration) -> Trust:
    """What the page shows of it."""

    def change(before: float | None, after: float | None) -> str:
        return " → ".join("n/a" if value is None else f"{value:.4f}" for value in (before, after))

    facts = [("temperature", f"T = {found.temperature:.3f}, {found.rule}")]
    if found.ece is not None:
        error = f"{change(found.ece, found.ece_after)}: the mean gap between confidence and share right, {BINS} bins"
        likely = f"{change(found.nll, found.nll_after)}: −log of the probability of the true class, mean"
        facts += [("calibration error", error), ("log likelihood", likely)]
    return Trust(facts, reliability_chart(found))


def reliability_chart(found: Calibration) -> Chart | None:
    """Share that is right over confidence, before and after, and the line where the two are equal."""
    lines = [
        ("as they come", "second", found.bins),
        (f"T = {found.temperature:.3g}", "main", found.bins_after),
    ]
    shown: list[tuple[str, str, Points]] = [("right as often as said", "level", ((0.0, 0.0), (1.0, 1.0)))]
    for name, kind, bins in lines:
        least = FEW * sum(count for count, *_ in bins)
        points = tuple((mean, share) for count, mean, share in bins if count > least)
        if points:
            shown.append((name, kind, points))
    if len(shown) == 1:
        return None
    after = "" if found.ece_after is None else f", {found.ece_after:.4f} with T = {found.temperature:.3g}"
    marks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    return Chart(
        title="Right, by confidence",
        summary=f"expected calibration error {found.ece:.4f} as they come{after}",
        lines=tuple(
            (name, kind, *drawn([position(*point) for point in points])) for name, kind, points in shown
        ),
        x_ticks=tuple(Tick(position(mark, 0)[0], f"{mark:g}") for mark in marks[:-1]),
        y_ticks=tuple(Tick(position(0, mark)[1], f"{mark:g}") for mark in marks),
        log=False,
        over="confidence",
    )
