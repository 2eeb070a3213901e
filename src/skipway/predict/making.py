"""Makes the regions of one page or volume: passes through the network, and what is kept of their logits."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipway.data.composites import set_type
from skipway.data.fingerprint import Constants
from skipway.images import ImageFile
from skipway.predict.certificate import Certificate, Witness
from skipway.predict.logits import Outputs, decided, probabilities
from skipway.predict.looking import Looking, blank
from skipway.predict.pixels import Pixels, pixels_of, seen
from skipway.predict.predictor import Predictor
from skipway.predict.review import Review
from skipway.predict.stream import OnMap, Options, Piece, predict_strips, predict_tiles
from skipway.regions import Regions, Window
from skipway.shapes import Geometry
from skipway.tiles import Tile, round_tile

Arrays = dict[str, NDArray[Any]]
"""What is kept of a region: "labels" (*S); where it is asked "classes", with the classes third from the end, and
"review", the sums of `Review.taken`."""

Quantity = Literal["", "float32", "uint16", "uint8", "logits"]
"""What is written of the classes beside the labels: nothing, probabilities in a type, or logits as float32."""

_CHECKED = {2: 256, 3: 32}
"""Side of the tile that strips are held against, by axes of the network."""

_SCALES = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Making:
    """How the regions of one page or volume are made, inside `evaluating(network)`; nothing of them is kept here.

    Attributes:
        predictor: Whose network runs.
        pixels: The page or volume.
        constants: (offset, scale) of its grey values.
        page: Its first page.
        regions: All of its regions.
        outputs: "last" or "mean".
        quantity: What is kept beside the labels.
        looking: What is background without the network.
    """

    predictor: Predictor
    pixels: Pixels
    constants: Constants
    page: int
    regions: Regions
    outputs: Outputs = "last"
    quantity: Quantity = ""
    looking: Looking = field(default_factory=Looking)

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        image: ImageFile,
        pages: range,
        constants: Constants | None = None,
        **rest: Any,
    ) -> "Making":
        """Of some pages of a file.

        Args:
            predictor: Whose network runs.
            image: The file, open.
            pages: See `Predictor.units`.
            constants: Of these pages; without them all of their pixels are read once.
            **rest: The other attributes.
        """
        if constants is None:
            pixels, constants = seen(image, pages, predictor.ndim, predictor.normalisation)
        else:
            pixels = pixels_of(image, pages, predictor.ndim)
        return cls(predictor, pixels, constants, pages.start, **rest)

    @cached_property
    def network(self) -> nn.Module:
        """What predicts this image."""
        return self.predictor.network_for(self.pixels, self.constants)

    @property
    def geometry(self) -> Geometry:
        """Of the network."""
        return self.network.geometry  # type: ignore[return-value]

    def nothing(self, number: int) -> bool:
        """Whether the network need not look at a region."""
        if self.looking.everything:
            return False
        window = self.regions.window(number)
        outside = self.looking.outside(window, self.page)
        return self.looking.nothing(self.pixels, self.constants, window, outside)

    def background(self, number: int, *, reviewed: bool = False) -> Arrays:
        """A region that nobody looks at."""
        arrays = self._room(self.regions.window(number), self.predictor.model.classes)
        blank(arrays, ..., overlapping=self._overlapping)
        if reviewed:
            arrays["review"] = self.review().taken()
        return arrays

    def made(
        self, numbers: Sequence[int], see: OnMap | None = None, *, reviewed: bool = False
    ) -> Iterator[tuple[int, Arrays]]:
        """Regions with their arrays, each as soon as its last pass is through the network.

        Args:
            numbers: Which, in this order.
            see: Told of each pass or strip and its logits (K, *region).
            reviewed: Whether to keep what `Review` sees.
        """
        review = self.review() if reviewed else None
        now, room = -1, Arrays()
        apart: list[tuple[Window, Tensor]] = []
        asked = None if review is None else lambda *one: apart.append(one)
        for number, (window, logits) in self._said(numbers, asked):
            if number != now:
                if room:
                    yield now, self._finished(now, room, review)
                now, room = number, self._room(self.regions.window(number), len(logits))
            self._fill(room, self.regions.window(number), window, logits)
            if review is not None:
                for place, spread in apart:
                    review.apart(place, spread, self.looking.outside(place, self.page))
                apart.clear()
                review.see(window, logits, self.looking.outside(window, self.page))
            if see is not None:
                see(window, logits)
        if room:
            yield now, self._finished(now, room, review)

    def review(self) -> Review:
        """What sees this page or volume being predicted; it has not looked at it yet."""
        found = self.predictor.review(self.outputs)
        found.begin(self.regions.size)
        return found

    def witness(self) -> Witness:
        """Keeps the logits of one window of this image."""
        content = tuple(number for values in self.constants for number in np.asarray(values).tolist())
        cuts, step = self.regions.cuts(self.geometry), self.regions.step
        if self.regions.stretch:
            step = round_tile(_CHECKED[len(step)], self.geometry)
        return Witness(self.regions.size, step, self.geometry, content, cuts)

    def certified(self, witness: Witness, made: frozenset[int] = frozenset()) -> Certificate:
        """The window of a witness in one pass, against the passes of the regions.

        Args:
            witness: Has seen the regions `made`; what it has not seen is computed again.
            made: Their numbers.
        """
        tiles = int(np.prod([len(cut) + 1 for cut in self.regions.cuts(self.geometry)]))
        if tiles == 1:
            window = tuple(slice(0, side) for side in self.regions.size)
            return Certificate(window, 0.0, 0, 0.0, 1, self.geometry.tile_exact)
        unseen = [number for number in self.regions.touching(witness.window) if number not in made]
        for _, (window, logits) in self._said(unseen, beside=witness):
            witness.see(window, logits)
        ((_, whole),) = self._passes(iter([witness.tile]))
        return witness.compare(
            whole,
            tiles,
            tile_exact=self.geometry.tile_exact,
            overlapping=self._overlapping,
            rounding=getattr(self.network, "rounding", 1e-4),
        )

    @property
    def _overlapping(self) -> bool:
        return self.predictor.task.labels.overlapping

    def _said(
        self, numbers: Sequence[int], on_spread: OnMap | None = None, *, beside: Witness | None = None
    ) -> Iterator[tuple[int, Piece]]:
        """Regions and their logits, piece by piece; of passes only those that a witness sees, where there is one."""
        if self.regions.stretch:
            yield from self._flowing(numbers, on_spread)
            return
        plan = deque[int]()

        def tiles() -> Iterator[Tile]:
            for number in numbers:
                for tile in self.regions.passes(number, self.geometry):
                    if beside is None or beside.sees(tile.write):
                        plan.append(number)
                        yield tile

        for tile, logits in self._passes(tiles(), on_spread):
            yield plan.popleft(), (tile.write, logits)

    def _passes(self, tiles: Iterator[Tile], on_spread: OnMap | None = None) -> Iterator[tuple[Tile, Tensor]]:
        return predict_tiles(*self._given, tiles, **self._options(on_spread))

    def _flowing(self, numbers: Sequence[int], on_spread: OnMap | None) -> Iterator[tuple[int, Piece]]:
        """Regions in strips. A stretch flows from its first row, whatever is wanted of it, so its bits are the same."""
        block, rows = self.regions.block[0], self.regions.step[0]
        for stretch, wanted in self.regions.flows(numbers):
            for piece in predict_strips(*self._given, stretch, rows, **self._options(on_spread)):
                number = piece[0][0].start // block
                if number in wanted:
                    yield number, piece
                if piece[0][0].stop >= self.regions.window(wanted[-1])[0].stop:
                    break

    @property
    def _given(self) -> tuple[nn.Module, Pixels, Constants]:
        return self.network, self.pixels, self.constants

    def _options(self, on_spread: OnMap | None) -> Options:
        return {
            "outputs": self.outputs,
            "overlapping": self._overlapping,
            "device": self.predictor.device,
            "on_spread": on_spread,
        }

    def _finished(self, number: int, arrays: Arrays, review: Review | None) -> Arrays:
        """The arrays with background where nobody looks, and what was seen."""
        outside = self.looking.outside(self.regions.window(number), self.page)
        if outside is not None:
            blank(arrays, outside, overlapping=self._overlapping)
        if review is not None:
            arrays["review"] = review.taken()
        return arrays

    def _room(self, window: Window, classes: int) -> Arrays:
        """The arrays of a region, to be filled."""
        shape = tuple(part.stop - part.start for part in window)
        kind = set_type(classes) if self._overlapping else np.dtype(np.uint8)
        found: Arrays = {"labels": np.empty(shape, kind)}
        if self.quantity:
            found["classes"] = np.empty((*shape[:-2], classes, *shape[-2:]), stored_as(self.quantity))
        return found

    def _fill(self, room: Arrays, window: Window, region: Window, logits: Tensor) -> None:
        here = tuple(
            slice(w.start - part.start, w.stop - part.start) for w, part in zip(region, window, strict=True)
        )
        room["labels"][here] = decided(logits, overlapping=self._overlapping).cpu().numpy()
        if self.quantity:
            values = logits.float()
            if self.quantity != "logits":
                t = self.predictor.temperature(self.outputs)
                values = probabilities(values, overlapping=self._overlapping, temperature=t)
                values = quantised(values, self.quantity)
            into = np.moveaxis(room["classes"], -3, 0)
            into[:, *here] = values.cpu().numpy()


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
