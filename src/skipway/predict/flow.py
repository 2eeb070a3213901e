"""Predicts one file region by region: read, run, keep, in bounded memory; and writes it when all regions are there.

Reading, the network and keeping overlap. What is finished lies in a journal (`journal.py`), so that a killed prediction
goes on where it was; the file is made of the journal alone, so that it does not depend on how often that happened.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipway.data.composites import set_type
from skipway.data.fingerprint import Constants
from skipway.disk import cannot_write
from skipway.errors import DataError, EnvironmentFault, NumericalError, Problem
from skipway.images import ImageFile, shown
from skipway.predict.ahead import Behind
from skipway.predict.certificate import Certificate, Witness
from skipway.predict.journal import Journal, about_of, differences
from skipway.predict.logits import Outputs, decided, probabilities
from skipway.predict.looking import Looking, blank
from skipway.predict.pixels import Pixels, seen
from skipway.predict.predictor import Predictor
from skipway.predict.room import Room
from skipway.predict.stream import evaluating, predict_tiles
from skipway.regions import Regions, Window, region_list
from skipway.tiles import Tile

Event = Callable[[Mapping[str, Any]], None]
Quantity = Literal["", "float32", "uint16", "uint8", "logits"]
"""What is written of the classes beside the labels: nothing, probabilities in a type, or logits as float32."""

_CHUNK = 512
_SCALES = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Flow:
    """One image on its way.

    Attributes:
        predictor: Whose network runs.
        image: The file, open.
        journal: Where its regions are kept.
        regions: Those of one unit, a page or the volume.
        outputs: "last" or "mean".
        quantity: What is kept beside the labels.
        looking: What is background without the network.
    """

    predictor: Predictor
    image: ImageFile
    journal: Journal
    regions: Regions
    outputs: Outputs
    quantity: Quantity
    looking: Looking = field(default_factory=Looking)

    @property
    def units(self) -> tuple[range, ...]:
        """Pages that are predicted at once."""
        return self.predictor.units(self.image)

    @property
    def count(self) -> int:
        """Regions of all units; those of unit u begin at u · len(regions)."""
        return len(self.units) * len(self.regions)

    def run(self, event: Event) -> Certificate | None:
        """Make the regions that are not there yet.

        Args:
            event: Told of every region.

        Returns:
            The certificate with the largest difference; None where every region was there.

        Raises:
            DataError: an image that cannot be read.
            NumericalError: logits that are not finite.
            EnvironmentFault: the disk is full.
        """
        clock = _Clock(self.image.path.name, self.count, len(self.journal.done), event)
        found = []
        for unit, pages in enumerate(self.units):
            left = [n for n in self.regions if unit * len(self.regions) + n not in self.journal.done]
            if left:
                found.append(self._unit(unit, pages, left, clock))
        return max((one for one in found if one is not None), key=rank, default=None)

    def _unit(self, unit: int, pages: range, left: list[int], clock: "_Clock") -> Certificate | None:
        predictor, geometry = self.predictor, self.predictor.model.geometry
        pixels, constants = seen(self.image, pages, predictor.ndim, predictor.normalisation)
        left = self._looked_at(unit, pages, left, pixels, constants, clock)
        if not left:
            return None
        content = tuple(number for values in constants for number in np.asarray(values).tolist())
        cuts = self.regions.cuts(geometry)
        witness = Witness(self.regions.size, self.regions.step, geometry, content, cuts)
        tiles = int(np.prod([len(cut) + 1 for cut in cuts]))
        sets = predictor.task.labels.overlapping
        run = partial(
            predict_tiles, predictor.model, pixels, constants,
            outputs=self.outputs, overlapping=sets, device=predictor.device,
        )  # fmt: skip
        with evaluating(predictor.model):
            with Behind() as kept:
                for number, arrays in self._made(left, run, witness):
                    self._cover(arrays, self.looking.outside(self.regions.window(number), pages.start))
                    kept.do(partial(self._keep, unit * len(self.regions) + number, arrays, clock))
            if tiles == 1:
                window = tuple(slice(0, side) for side in self.regions.size)
                return Certificate(window, 0.0, 0, 0.0, 1, geometry.tile_exact)
            for tile, logits in run(self._unseen(witness, frozenset(left))):
                witness.see(tile, logits)
            ((_, whole),) = run([witness.tile])
            return witness.compare(whole, tiles, tile_exact=geometry.tile_exact, overlapping=sets)

    def _looked_at(
        self, unit: int, pages: range, left: list[int], pixels: Pixels, constants: Constants, clock: "_Clock"
    ) -> list[int]:
        """Those regions that the network must see; the others are kept as background."""
        if self.looking == Looking() and self.looking.only is None:
            return left
        seen_by_network = []
        for number in left:
            window = self.regions.window(number)
            outside = self.looking.outside(window, pages.start)
            if self.looking.nothing(pixels, constants, window, outside):
                arrays = self._room(window, self.predictor.model.classes)
                self._cover(arrays, ...)
                self._keep(unit * len(self.regions) + number, arrays, clock)
            else:
                seen_by_network.append(number)
        return seen_by_network

    def _cover(self, arrays: dict[str, NDArray[Any]], where: Any) -> None:
        if where is not None:
            blank(arrays, where, overlapping=self.predictor.task.labels.overlapping)

    def _made(
        self, left: list[int], run: Callable[..., Iterator[tuple[Tile, Tensor]]], witness: Witness
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Regions with their arrays, each as soon as its last pass is through the network."""
        geometry = self.predictor.model.geometry
        owner = ((number, tile) for number in left for tile in self.regions.passes(number, geometry))
        plan: list[int] = []

        def tiles() -> Iterator[Tile]:
            for number, tile in owner:
                plan.append(number)
                yield tile

        now, room = -1, dict[str, NDArray[Any]]()
        for tile, logits in run(tiles()):
            number = plan.pop(0)
            if number != now:
                if room:
                    yield now, room
                now, room = number, self._room(self.regions.window(number), len(logits))
            self._fill(room, self.regions.window(number), tile, logits)
            witness.see(tile, logits)
        if room:
            yield now, room

    def _unseen(self, witness: Witness, made: frozenset[int]) -> Iterator[Tile]:
        """Passes across the window of the certificate whose regions were there already."""
        geometry = self.predictor.model.geometry
        for number in self.regions.touching(witness.window):
            if number not in made:
                yield from (tile for tile in self.regions.passes(number, geometry) if witness.sees(tile))

    def _room(self, window: Window, classes: int) -> dict[str, NDArray[Any]]:
        """The arrays of a region, to be filled; those of the classes with pages in front."""
        shape = tuple(part.stop - part.start for part in window)
        labels = self.predictor.task.labels
        kind = set_type(classes) if labels.overlapping else np.dtype(np.uint8)
        found: dict[str, NDArray[Any]] = {"labels": np.empty(shape, kind)}
        if self.quantity:
            found["classes"] = np.empty((*shape[:-2], classes, *shape[-2:]), stored_as(self.quantity))
        return found

    def _fill(self, room: dict[str, NDArray[Any]], window: Window, tile: Tile, logits: Tensor) -> None:
        labels = self.predictor.task.labels
        here = tuple(
            slice(w.start - part.start, w.stop - part.start)
            for w, part in zip(tile.write, window, strict=True)
        )
        room["labels"][here] = decided(logits, overlapping=labels.overlapping).cpu().numpy()
        if self.quantity:
            values = logits.float()
            if self.quantity != "logits":
                t = self.predictor.temperature(self.outputs)
                values = probabilities(values, overlapping=labels.overlapping, temperature=t)
                values = quantised(values, self.quantity)
            into = np.moveaxis(room["classes"], -3, 0)
            into[:, *here] = values.cpu().numpy()

    def _keep(self, number: int, arrays: dict[str, NDArray[Any]], clock: "_Clock") -> None:
        self.journal.add(number, arrays)
        clock.tick()


def stored_as(quantity: Quantity) -> np.dtype[Any]:
    """Type of the numbers of a quantity."""
    return np.dtype(quantity if quantity in _SCALES else np.float32)


def quantised(values: Tensor, quantity: Quantity) -> Tensor:
    """Probabilities as whole numbers: round(p · 255) or round(p · 65535); as they are for float32.

    >>> quantised(torch.tensor([0.0, 0.5, 1.0]), "uint8").tolist()
    [0, 128, 255]
    """
    scale = _SCALES.get(quantity)
    if scale is None:
        return values
    return (values * scale + 0.5).floor_().to(torch.uint8 if scale == 255 else torch.int32)


def opened(
    predictor: Predictor,
    image: ImageFile,
    path: Path,
    about: Mapping[str, Any],
    room: Room,
    event: Event,
    *,
    tile: int | None = None,
    quantity: Quantity = "",
    looking: Looking | None = None,
) -> Flow:
    """The regions of an image and the journal that keeps them, one of before where it is of the same prediction.

    Args:
        predictor: Whose network runs.
        image: The file, open.
        path: Of the journal.
        about: What the labels depend on.
        room: Finds the tile.
        event: Told what is gone on with, or why nothing is.
        tile: A side that the user chose.
        quantity: What is kept beside the labels.
        looking: What is background without the network.

    Raises:
        UsageError: no tile fits the memory.
        EnvironmentFault: the journal cannot be written.
    """
    known = about_of(path)
    if known is not None and not (differs := differences(known, about)):
        regions = Regions.from_json(known["regions"])
        journal = Journal(path, known)
        damaged = f", {journal.damaged} damaged" if journal.damaged else ""
        done = f"{len(journal.done)} of {len(predictor.units(image)) * len(regions)}"
        text = f"{image.path.name}: {done} regions are there{damaged}"
        event({"event": "line", "name": "resume", "text": text})
    else:
        if known is not None:
            text = f"{image.path.name}: begun anew, for another {' and '.join(differs)}"
            event({"event": "line", "name": "resume", "text": text})
        pages = image.pages if predictor.ndim == 3 else None
        size = image.size if pages is None else (pages, *image.size)
        chunk = (_CHUNK,) * 2 if predictor.ndim == 2 else (1,) * 3
        image.read(0, (slice(0, 1), slice(0, 1)))  # what is decoded as a whole is in memory now, and counted
        regions = region_list(size, room.step(size, tile), chunk)
        journal = Journal(path, {**about, "regions": regions.to_json()}, fresh=True)
        _said(event, image, predictor, regions)
    return Flow(predictor, image, journal, regions, room.outputs, quantity, looking or Looking())


def _said(event: Event, image: ImageFile, predictor: Predictor, regions: Regions) -> None:
    units = len(predictor.units(image))
    pixels = regions.computed(predictor.model.geometry)
    count = units * len(regions)
    text = (
        f"{image.path.name}: {count} region{'s' if count > 1 else ''} of {_sides(regions.block)}, passes of "
        f"{_sides(regions.step)}, {pixels:.2f} × its pixels computed"
    )
    event({"event": "line", "name": "stream", "text": text})


def _sides(sides: tuple[int, ...]) -> str:
    return "×".join(map(str, sides))


def require_room(folder: Path, needed: int, image: Path) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: Where files will be written; it exists.
        needed: Bytes that are expected.
        image: For the message.

    Raises:
        EnvironmentFault: fewer bytes are free.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise cannot_write(folder, error) from error
    if free < needed:
        found = f"{needed:,} bytes are needed for {image.name} and {free:,} are free"
        fix = "free space or choose another folder with -o"
        raise EnvironmentFault(Problem(found, shown(folder), "room for the output", fix))


def kept_for_later(error: Exception, journal: Journal, count: int) -> Exception:
    """The error of a prediction that stopped midway, with what is kept of it."""
    done = len(journal.done)
    if not done or not isinstance(error, DataError | NumericalError | EnvironmentFault):
        return error
    said = f"{done} of {count} regions are kept in {shown(journal.path.parent)}; the same command goes on"
    return type(error)(*(Problem(f"{problem}; {said}") for problem in error.problems))


def rank(certificate: Certificate) -> tuple[bool, float]:
    """Certificates that saw a seam come before those of one pass."""
    return certificate.tiles > 1, certificate.max_difference


class _Clock:
    """Counts regions and says how many are left, and how long they will take."""

    def __init__(self, name: str, count: int, done: int, event: Event) -> None:
        self._name, self._count, self._done, self._event = name, count, done, event
        self._first, self._began = done, time.monotonic()

    def tick(self) -> None:
        """One more is finished."""
        self._done += 1
        each = (time.monotonic() - self._began) / (self._done - self._first)
        left = each * (self._count - self._done)
        facts = {"name": self._name, "done": self._done, "of": self._count, "left": round(left, 1)}
        self._event({"event": "region", **facts})
