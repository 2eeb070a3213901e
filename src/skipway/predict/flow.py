"""Predicts one file region by region: read, run, keep, in bounded memory; and writes it when all regions are there.

Reading, the network and keeping overlap. What is finished lies in a journal (`journal.py`), so that a killed prediction
goes on where it was; the file is made of the journal alone, so that it does not depend on how often that happened.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skipway.data.fingerprint import Constants
from skipway.disk import cannot_write
from skipway.errors import DataError, EnvironmentFault, NumericalError, Problem, UsageError
from skipway.images import ImageFile, shown
from skipway.parts import Part
from skipway.predict.ahead import Behind
from skipway.predict.certificate import Certificate
from skipway.predict.journal import Journal, about_of, differences, settled
from skipway.predict.logits import Outputs
from skipway.predict.looking import Looking
from skipway.predict.making import Arrays, Making, Quantity
from skipway.predict.parts import journal_of, journals_of_parts
from skipway.predict.predictor import Predictor
from skipway.predict.review import Reviews
from skipway.predict.room import STORED, Room, sides_of
from skipway.predict.shards import Shards
from skipway.predict.stream import Engine, evaluating
from skipway.regions import Regions, region_list, strip_list
from skipway.tiles import round_tile

Event = Callable[[Mapping[str, Any]], None]


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
        shards: Where the labels are kept; None in the journal.
    """

    predictor: Predictor
    image: ImageFile
    journal: Journal
    regions: Regions
    outputs: Outputs
    quantity: Quantity
    looking: Looking = field(default_factory=Looking)
    shards: Shards | None = None
    _constants: dict[int, Constants] = field(default_factory=dict)

    @property
    def units(self) -> tuple[range, ...]:
        """Pages that are predicted at once."""
        return self.predictor.units(self.image)

    @property
    def count(self) -> int:
        """Regions of all units; those of unit u begin at u · len(regions)."""
        return len(self.units) * len(self.regions)

    def run(self, event: Event, part: range | None = None, *, reviewed: bool = False) -> Certificate | None:
        """Make the regions that are not there yet.

        Args:
            event: Told of every region.
            part: Those of them that are wanted; None for all.
            reviewed: Whether to keep what `reviews` needs.

        Returns:
            The certificate with the largest difference; None where the network saw nothing.

        Raises:
            DataError: an image that cannot be read.
            NumericalError: logits that are not finite.
            EnvironmentFault: the disk is full.
        """
        count = self.count if part is None else len(part)
        clock = Clock(self.image.path.name, count, len(self.journal.done), event)
        found = [
            self._unit(unit, left, clock, reviewed)
            for unit in range(len(self.units))
            if (left := self.left(unit, part))
        ]
        return max((one for one in found if one is not None), key=rank, default=None)

    def reviews(self) -> Reviews:
        """What was seen of every unit, by whoever made its regions; empty where some were made without a look.

        Raises:
            DataError: a region was damaged on the disk.
        """
        found = []
        for unit, pages in enumerate(self.units):
            making, first = self.making(unit), unit * len(self.regions)
            review = self.predictor.review(self.outputs)
            review.look(making.pixels, making.constants)
            for number in self.regions:
                try:
                    taken = self.journal.read(first + number, "review")
                except KeyError:
                    return ()
                labels = self.classes(first + number)
                review.add(taken, self.regions.window(number), labels)
            found.append((pages.start if len(self.units) > 1 else None, review))
        return tuple(found)

    def classes(self, number: int, rows: slice = slice(None)) -> NDArray[Any]:
        """Class indices, or sets, of some rows of a finished region; those of unit u begin at u · len(regions).

        Raises:
            DataError: it was damaged on the disk.
            EnvironmentFault: it cannot be read.
        """
        if self.shards is None:
            return self.journal.read(number, "labels", rows)
        return self.shards.classes(number)[rows]

    def left(self, unit: int, part: range | None = None) -> list[int]:
        """Regions of a unit, counted from its first, that are wanted and not there yet."""
        first, done = unit * len(self.regions), self.journal.done
        return [n for n in self.regions if first + n not in done and (part is None or first + n in part)]

    def making(self, unit: int) -> Making:
        """How the regions of a unit are made; for its constants all of it is read, once."""
        parts = {"regions": self.regions, "outputs": self.outputs, "quantity": self.quantity}
        pages = self.units[unit]
        known = self._constants.get(unit)
        found = Making.of(self.predictor, self.image, pages, known, **parts, looking=self.looking)
        self._constants[unit] = found.constants
        return found

    def _unit(self, unit: int, left: list[int], clock: "Clock", reviewed: bool) -> Certificate | None:
        making, first = self.making(unit), unit * len(self.regions)
        wanted = []
        for number in left:
            if making.nothing(number):
                self._keep(first + number, making.background(number, reviewed=reviewed), clock)
            else:
                wanted.append(number)
        if not wanted:
            return None
        witness = making.witness()
        with evaluating(making.network):
            with Behind() as kept:
                for number, arrays in making.made(wanted, witness.see, reviewed=reviewed):
                    kept.do(partial(self._keep, first + number, arrays, clock))
            return making.certified(witness, frozenset(wanted))

    def _keep(self, number: int, arrays: Arrays, clock: "Clock") -> None:
        self.journal.add(number, arrays if self.shards is None else self.shards.keep(number, arrays))
        clock.tick()


def opened(
    predictor: Predictor,
    image: ImageFile,
    path: Path,
    about: Mapping[str, Any],
    room: Room,
    event: Event,
    *,
    tile: int | None = None,
    engine: Engine | None = None,
    quantity: Quantity = "",
    part: Part | None = None,
    looking: Looking | None = None,
    goal: Path | None = None,
) -> Flow:
    """The regions of an image and the journal that keeps them, one of before where it is of the same prediction.

    Args:
        predictor: Whose network runs.
        image: The file, open.
        path: Of the journal.
        about: What the labels depend on.
        room: Finds the tile.
        event: Told what is gone on with, or why nothing is.
        tile: A side that the user chose; of strips, their rows.
        engine: "strips" or "tiles".
        quantity: What is kept beside the labels.
        part: Which of several parts of the regions this process makes; None gathers those that others made.
        looking: What is background without the network.
        goal: A Zarr folder that regions are written to as they are made; None keeps labels in the journal.

    Raises:
        UsageError: no tile fits the memory, another process writes this journal, or parts were made differently.
        EnvironmentFault: the journal cannot be written.
    """
    known = about_of(path)
    differs = [] if known is None else differences(known, about)
    if differs and (part or any(journals_of_parts(path))):
        found = f"parts of {image.path.name} were predicted with another {' and '.join(differs)}"
        fix = "the same options for all parts and for the command that gathers them, or another -o"
        raise UsageError(Problem(found, shown(path.parent), fix=fix))
    begun = known is not None and not differs
    if not begun:
        if differs:
            text = f"{image.path.name}: begun anew, for another {' and '.join(differs)}"
            event({"event": "line", "name": "resume", "text": text})
        regions = _regions(predictor, image, room, tile, engine, parts=1 if part is None else part.of)
        _said(event, image, predictor, regions)
        known = {**about, "regions": regions.to_json()}
        known = settled(path, known) if part else known
    regions = Regions.from_json(known["regions"])
    journal, damaged = _journal(path, part, known), 0
    shards = None
    try:
        if goal is not None:
            back = goal if begun and part is None else None
            shards = Shards.begin(path, back, known, regions, predictor.task.labels, image)
            damaged = 0 if part else shards.forget_damaged(journal)
    except BaseException:
        journal.close()
        raise
    damaged += journal.damaged
    if journal.done or damaged:
        count = len(predictor.units(image)) * len(regions)
        wanted = f"{len(part.share(count))} regions of part {part}" if part else f"{count} regions"
        text = f"{image.path.name}: {len(journal.done)} of {wanted} are there"
        text += f", {damaged} damaged" if damaged else ""
        event({"event": "line", "name": "resume", "text": text})
    return Flow(predictor, image, journal, regions, room.outputs, quantity, looking or Looking(), shards)


def _journal(path: Path, part: Part | None, about: Mapping[str, Any]) -> Journal:
    """The journal of a part, or the one that gathers those of all parts.

    Raises:
        UsageError: another process is still at its part.
    """
    if part is not None:
        return Journal(journal_of(part, path), about)
    journal = Journal(path, about)
    try:
        for other in journals_of_parts(path):
            with Journal(other, about) as made:
                journal.absorb(made)
    except BaseException:
        journal.close()
        raise
    return journal


def _regions(
    predictor: Predictor, image: ImageFile, room: Room, tile: int | None, engine: Engine | None, *, parts: int
) -> Regions:
    """The regions of an image: the largest that fit, and smaller ones where there would be none for some part."""
    size = (image.pages, *image.size) if predictor.ndim == 3 else image.size
    chunk = STORED[predictor.ndim]
    image.read(0, (slice(0, 1), slice(0, 1)))  # what is decoded as a whole is in memory now, and counted
    if engine == "strips":
        return strip_list(size, room.rows(size, tile), chunk, predictor.model.geometry.halo[0])
    step = room.step(size, tile)
    found = region_list(size, step, (chunk,) * predictor.ndim)
    while tile is None and len(found) * len(predictor.units(image)) < parts and max(found.block) > chunk:
        half = max(found.block) // 2
        step = round_tile([min(side, half) for side in found.step], predictor.model.geometry)
        smaller = region_list(size, step, (chunk,) * predictor.ndim)
        if smaller == found:
            break
        found = smaller
    return found


def _said(event: Event, image: ImageFile, predictor: Predictor, regions: Regions) -> None:
    units = len(predictor.units(image))
    pixels = regions.computed(predictor.model.geometry)
    count = units * len(regions)
    text = (
        f"{image.path.name}: {count} region{'s' if count > 1 else ''} of {sides_of(regions.block)}, "
        f"{'strips' if regions.stretch else 'passes'} of {sides_of(regions.step)}, "
        f"{pixels:.2f} × its pixels computed"
    )
    event({"event": "line", "name": "stream", "text": text})


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


class Clock:
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
