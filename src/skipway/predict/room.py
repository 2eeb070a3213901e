"""The largest tile that fits a budget of memory, by passes of the network that are weighed on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from skipway import memory
from skipway.errors import Problem, UsageError
from skipway.images.codecs import CACHE_BYTES
from skipway.predict.logits import Outputs, decided
from skipway.predict.opinions import agreed, heard
from skipway.predict.predictor import Predictor
from skipway.predict.stream import evaluating
from skipway.tiles import Tile, round_tile, tile_around

SIDES = {2: (64, 128, 256, 512, 1024, 1536, 2048), 3: (16, 32, 48, 64, 96, 128, 192, 256)}
"""Sides of a tile that are thought of, by axes of the network; beyond them there is little left to gain."""

HEADROOM = 0.1
"""What is added to a weighed pass: kernels and allocators differ from pass to pass."""

_WRITING = 48 << 20
"""Bytes for packing regions, and for writing the file when all are there."""


@dataclass(frozen=True)
class _Cost:
    """Bytes of a pass beside those held before it, on the host and on the device, and the pixels that it read."""

    host: int
    device: int
    pixels: int


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
        self._require(self._cost(size, least), least)
        best = 0
        for number in range(1, len(steps)):
            if self._over(self._guessed(size, steps[number]), steps[number]) is not None:
                break
            best = number
            if number <= 2 and self._over(self._cost(size, steps[number]), steps[number]) is not None:
                best = number - 1
                break
        while best > 0 and self._over(self._cost(size, steps[best]), steps[best]) is not None:
            best -= 1
        return steps[best]

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
        if not self._known:
            self._weighed(tile, reads)  # the first pass loads and compiles, once
        if reads not in self._known:
            self._known[reads] = self._weighed(tile, reads)
        return self._known[reads]

    def _weighed(self, tile: Tile, reads: tuple[int, ...]) -> _Cost:
        device, host = self.predictor.device, torch.device("cpu")
        model, sets = self.predictor.model, self.predictor.task.labels.overlapping
        memory.forget_peak(host)
        before = memory.in_use(host)
        on_gpu = device.type == "cuda"
        if on_gpu:
            memory.forget_peak(device)
        held = memory.in_use(device) if on_gpu else 0
        first = tuple(part.start for part in tile.region)
        with evaluating(model):
            weight = next(model.parameters())
            nothing = torch.zeros(1, model.in_channels, *reads, dtype=weight.dtype, device=device)
            said = heard(model, nothing, first, self.outputs, tile.crop)
            logits = agreed(said, overlapping=sets, apart=True)[0][0][:, *tile.crop]
            decided(logits, overlapping=sets).cpu()
            del nothing, logits
        used = max(0, memory.peak(host) - before)
        there = max(0, memory.peak(device) - held) if on_gpu else 0
        memory.forget_peak(host)
        return _Cost(used, there, prod(reads))

    def _guessed(self, size: Sequence[int], step: tuple[int, ...]) -> _Cost:
        """By the pixels, from the largest pass that was weighed."""
        pixels = prod(len(part) for part in _middle(size, step, self.predictor).region)
        known = max(self._known.values(), key=lambda cost: cost.pixels)
        share = pixels / known.pixels
        return _Cost(int(known.host * share), int(known.device * share), pixels)

    def _totals(self, cost: _Cost, step: tuple[int, ...]) -> list[tuple[str, float, int | None]]:
        """Option, bytes that would be held, and bytes that may be."""
        host, device = torch.device("cpu"), self.predictor.device
        waiting = 4 * 3 * cost.pixels * self.predictor.model.in_channels
        kept = 3 * self.item * max(prod(step), 512**2 if len(step) == 2 else 0)
        most = 1 + HEADROOM
        used = memory.in_use(host) + most * (cost.host + waiting + kept) + CACHE_BYTES + _WRITING + self.held
        found: list[tuple[str, float, int | None]] = [("--ram", used, memory.budget(host, self.ram))]
        if device.type == "cuda":
            there = memory.in_use(device) + most * cost.device
            found.append(("--vram", there, memory.budget(device, self.vram)))
        return found

    def _over(self, cost: _Cost, step: tuple[int, ...]) -> tuple[str, float, int] | None:
        for option, used, most in self._totals(cost, step):
            if most is not None and used > most:
                return option, used, most
        return None

    def _require(self, cost: _Cost, step: tuple[int, ...]) -> None:
        over = self._over(cost, step)
        if over is None:
            return
        option, least, most = over
        sides = "×".join(map(str, step))
        enough = f"{option} {1 + int(1.02 * least) // 2**20}M"
        found = f"{memory.said(most)}, too little for a tile of {sides}"
        raise UsageError(Problem(found, option, f"{memory.said(1.02 * least)} at least", enough))


def _middle(size: Sequence[int], step: Sequence[int], predictor: Predictor) -> Tile:
    """The tile of a step that lies in the middle of an image, where it reads most."""
    geometry = predictor.model.geometry
    window = []
    for side, length, stride in zip(size, step, geometry.stride, strict=True):
        start = max(0, side - length) // 2 // stride * stride
        window.append(slice(start, min(start + length, side)))
    return tile_around(size, window, geometry)
