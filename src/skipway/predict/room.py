"""The largest tile or strip that fits a budget of memory, by what is weighed on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch

from skipway import memory
from skipway.errors import Problem, UsageError
from skipway.images.codecs import CACHE_BYTES
from skipway.predict.logits import Outputs, decided
from skipway.predict.opinions import agreed, heard
from skipway.predict.pixels import ArrayPixels
from skipway.predict.predictor import Predictor
from skipway.predict.stream import evaluating, predict_strips, strips_of
from skipway.regions import strip_block
from skipway.tiles import Tile, round_tile, tile_around

SIDES = {2: (64, 128, 256, 512, 1024, 1536, 2048), 3: (16, 32, 48, 64, 96, 128, 192, 256)}
"""Sides of a tile that are thought of, by axes of the network; beyond them there is little left to gain."""

STORED = {2: 512, 3: 1}
"""Rows, and columns of a plane, that files are stored by, by axes of the network."""

NARROW = {2: 512, 3: 64}
"""Sides across the flow at which strips are weighed, by axes of the network; their memory is linear in each."""

HEADROOM = 0.1
"""What is added to a weighed pass: kernels and allocators differ from pass to pass."""

_WRITING = 48 << 20
"""Bytes for packing regions, and for writing the file when all are there."""


@dataclass(frozen=True)
class _Cost:
    """Of a tile or strip.

    Attributes:
        host: Bytes beside those held before it.
        device: The same on the device.
        pixels: That it reads.
        region: Pixels of the region that it is part of.
    """

    host: int
    device: int
    pixels: int
    region: int


@dataclass
class Room:
    """Budgets, and what passes were found to take.

    Attributes:
        predictor: Whose network runs.
        outputs: "last" or "mean".
        ram: Bytes that the process may hold; 80 % of what is free where nothing is said.
        vram: The same of the device.
        item: Bytes of a pixel of a region that is kept until it is written.
        held: Bytes for what is made of the image in hand when all regions are there.
    """

    predictor: Predictor
    outputs: Outputs = "last"
    ram: int | None = None
    vram: int | None = None
    item: int = 1
    held: int = 0
    _known: dict[tuple[int, ...], _Cost] = field(default_factory=dict)
    _warm: bool = False

    def __post_init__(self) -> None:
        if self.vram is not None and self.predictor.device.type != "cuda":
            found = f"the network runs on {self.predictor.device}"
            raise UsageError(Problem(found, "--vram", "a CUDA device", "leave it out, or --device cuda"))

    def step(self, size: Sequence[int], tile: int | None = None) -> tuple[int, ...]:
        """The largest step between tiles that the budgets allow.

        Args:
            size: Of the image, one number an axis.
            tile: A side that the user chose; it is weighed, not changed.

        Raises:
            UsageError: no tile fits; the smallest budget that would do is named.
        """
        steps = self._steps(size) if tile is None else [round_tile(tile, self.predictor.model.geometry)]
        least = steps[0]
        self._require(self._cost(size, least), f"a tile of {sides_of(least)}")
        best = 0
        for number in range(1, len(steps)):
            if self._over(self._guessed(size, steps[number])) is not None:
                break
            best = number
            if number <= 2 and self._over(self._cost(size, steps[number])) is not None:
                best = number - 1
                break
        while best > 0 and self._over(self._cost(size, steps[best])) is not None:
            best -= 1
        return steps[best]

    def rows(self, size: Sequence[int], rows: int | None = None) -> int:
        """Rows of a strip: as many as are usual, or as the budgets allow.

        Args:
            size: Of the image, one number an axis.
            rows: That the user chose; they are weighed, not changed.

        Raises:
            UsageError: the network is not local, or not even the strips of one stride fit.
        """
        model = self.predictor.model
        found = rows or strips_of(model, size, outputs=self.outputs, axis=0).rows
        least = found if rows else model.geometry.stride[0]
        while True:
            cost = self._flowing(size, found)
            if found <= least or self._over(cost) is None:
                break
            found = max(least, found // 2 // least * least)
        self._require(cost, f"strips of {sides_of((found, *size[1:]))}")
        return found

    def _flowing(self, size: Sequence[int], rows: int) -> _Cost:
        """Weighs strips over nothing, across a part of the image."""
        model, geometry = self.predictor.model, self.predictor.model.geometry
        narrow = tuple(min(side, NARROW[geometry.ndim]) for side in size[1:])
        length = min(size[0], 2 * (geometry.halo[0] + geometry.margin[0]) + 4 * rows)
        pixels = ArrayPixels(np.broadcast_to(np.float32(0), (model.in_channels, length, *narrow)))

        def flow() -> None:
            for _, logits in predict_strips(
                model, pixels, None, slice(0, length), rows, outputs=self.outputs, overlapping=self._sets
            ):
                decided(logits, overlapping=self._sets).cpu()

        self._warm_up(flow)
        plane = prod(size[1:])
        host, device = (int(used * plane / prod(narrow)) for used in self._weigh(flow))
        block = strip_block(rows, STORED[geometry.ndim])
        return _Cost(host, device, rows * plane, block * plane)

    @property
    def _sets(self) -> bool:
        return self.predictor.task.labels.overlapping

    def _steps(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        geometry = self.predictor.model.geometry
        found = []
        for side in SIDES[geometry.ndim]:
            step = round_tile(side, geometry)
            whole = (-(-n // s) * s for n, s in zip(size, geometry.stride, strict=True))
            found.append(tuple(min(one, most) for one, most in zip(step, whole, strict=True)))
        return list(dict.fromkeys(found))

    def _cost(self, size: Sequence[int], step: tuple[int, ...]) -> _Cost:
        """Weighs a pass over nothing, in the middle of the image."""
        tile = _middle(size, step, self.predictor)
        reads = tuple(len(part) for part in tile.region)
        model = self.predictor.model

        def once() -> None:
            weight, first = next(model.parameters()), tuple(part.start for part in tile.region)
            nothing = torch.zeros(
                1, model.in_channels, *reads, dtype=weight.dtype, device=self.predictor.device
            )
            said = heard(model, nothing, first, self.outputs, tile.crop)
            logits = agreed(said, overlapping=self._sets, apart=True)[0][0][:, *tile.crop]
            decided(logits, overlapping=self._sets).cpu()

        self._warm_up(once)
        if reads not in self._known:
            self._known[reads] = _Cost(*self._weigh(once), prod(reads), _region(step))
        return self._known[reads]

    def _warm_up(self, run: Callable[[], None]) -> None:
        """The first pass loads and compiles."""
        if not self._warm:
            self._weigh(run)
            self._warm = True

    def _weigh(self, run: Callable[[], None]) -> tuple[int, int]:
        """Bytes that are held at most while something runs, beside those held before; on the device, too."""
        device, host = self.predictor.device, torch.device("cpu")
        memory.forget_peak(host)
        before = memory.in_use(host)
        on_gpu = device.type == "cuda"
        if on_gpu:
            memory.forget_peak(device)
        held = memory.in_use(device) if on_gpu else 0
        with evaluating(self.predictor.model):
            run()
        used = max(0, memory.peak(host) - before)
        there = max(0, memory.peak(device) - held) if on_gpu else 0
        memory.forget_peak(host)
        return used, there

    def _guessed(self, size: Sequence[int], step: tuple[int, ...]) -> _Cost:
        """By the pixels, from the largest pass that was weighed."""
        pixels = prod(len(part) for part in _middle(size, step, self.predictor).region)
        known = max(self._known.values(), key=lambda cost: cost.pixels)
        share = pixels / known.pixels
        return _Cost(int(known.host * share), int(known.device * share), pixels, _region(step))

    def _totals(self, cost: _Cost) -> list[tuple[str, float, int | None]]:
        """Option, bytes that would be held, and bytes that may be."""
        host, device = torch.device("cpu"), self.predictor.device
        waiting = 4 * 3 * cost.pixels * self.predictor.model.in_channels
        kept = 3 * self.item * cost.region
        most = 1 + HEADROOM
        used = memory.in_use(host) + most * (cost.host + waiting + kept) + CACHE_BYTES + _WRITING + self.held
        found: list[tuple[str, float, int | None]] = [("--ram", used, memory.budget(host, self.ram))]
        if device.type == "cuda":
            there = memory.in_use(device) + most * cost.device
            found.append(("--vram", there, memory.budget(device, self.vram)))
        return found

    def _over(self, cost: _Cost) -> tuple[str, float, int] | None:
        for option, used, most in self._totals(cost):
            if most is not None and used > most:
                return option, used, most
        return None

    def _require(self, cost: _Cost, what: str) -> None:
        over = self._over(cost)
        if over is None:
            return
        option, least, most = over
        enough = f"{option} {1 + int(1.02 * least) // 2**20}M"
        found = f"{memory.said(most)}, too little for {what}"
        raise UsageError(Problem(found, option, f"{memory.said(1.02 * least)} at least", enough))


def sides_of(sides: Sequence[int]) -> str:
    """For people.

    >>> sides_of((512, 300))
    '512×300'
    """
    return "×".join(map(str, sides))


def _region(step: Sequence[int]) -> int:
    """Pixels of the region of a tile."""
    return max(prod(step), STORED[len(step)] ** len(step))


def _middle(size: Sequence[int], step: Sequence[int], predictor: Predictor) -> Tile:
    """The tile of a step that lies in the middle of an image, where it reads most."""
    geometry = predictor.model.geometry
    window = []
    for side, length, stride in zip(size, step, geometry.stride, strict=True):
        start = max(0, side - length) // 2 // stride * stride
        window.append(slice(start, min(start + length, side)))
    return tile_around(size, window, geometry)
