"""Whether images and masks were named in the wrong order, told from how pixels hang together.

A mask is made of areas of one value, a photograph of grains: neighbours are hardly ever equal, so that its regions of
equal value are a few pixels large. Counting values does not tell them apart (numbered objects have hundreds, a dim
photograph thirty), the mean area of a region does: 200 pixels and more against 1 to 5 in all data we know.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from skipway.data.records import FileRecord
from skipway.data.sources import Source
from skipway.data.values import regions
from skipway.errors import DataError, Problem
from skipway.images import open_image, shown

PICTURES = ("file", "colours")
"""Kinds of masks that are a picture each."""

T = TypeVar("T")

SAMPLE = 9
"""Files of a side that are looked at."""

SIDE = 512
"""Pixels a side of what is looked at of each, in its middle."""

FEW = 12
"""Values that a photograph of anything exceeds."""

GRAINY, SMOOTH = 1 / 33, 1 / 50
"""Regions for a pixel: at least in a photograph, at most in a mask."""

APART = 5.0
"""How much grainier the one side must be than the other."""


@dataclass(frozen=True)
class Grain:
    """What one picture looks like.

    Attributes:
        values: Different ones, of the channel that has most.
        regions: Connected regions of equal value or colour.
        pixels: In all.
    """

    values: int
    regions: int
    pixels: int

    @property
    def share(self) -> float:
        """Regions for a pixel, in (0, 1]."""
        return self.regions / max(1, self.pixels)

    @property
    def photograph(self) -> bool:
        """Whether this cannot be a mask: many values, each in many places."""
        several = self.regions > 3 * self.values or self.share > 0.3  # numbered objects lie in one place each
        return self.values > FEW and self.share >= GRAINY and several

    @property
    def mask(self) -> bool:
        """Whether this could be a mask."""
        return self.share <= SMOOTH


def exchanged(images: Sequence[Grain], masks: Sequence[Grain]) -> bool:
    """Whether all that is named as images could be masks, and nearly all that is named as masks cannot."""
    if not images or not masks or not all(grain.mask for grain in images):
        return False
    if sum(grain.photograph for grain in masks) < 0.8 * len(masks):
        return False
    return median(g.share for g in masks) >= APART * median(g.share for g in images)


def in_pairs(images: Sequence[Source], masks: Sequence[Source], records: Sequence[FileRecord | None]) -> bool:
    """Whether the two sides of these pairs are exchanged; files are opened only where a record leaves room for it.

    Args:
        images: Of each pair.
        masks: Of each pair.
        records: What the check saw of each pair, None where it could not be read.
    """
    chosen = _spread(list(zip(images, masks, records, strict=True)))
    if any(mask.kind not in PICTURES for _, mask, _ in chosen):
        return False
    if sum(record is None or _noisy(record) for *_, record in chosen) < 0.8 * len(chosen):
        return False
    return _look([image for image, *_ in chosen], [mask for _, mask, _ in chosen])


def in_folders(images: Sequence[Source], masks: Sequence[Source]) -> bool:
    """The same of two folders whose names do not pair."""
    return _look(_spread(images), _spread(masks))


def _spread(items: Sequence[T]) -> Sequence[T]:
    """A few of them, from all over."""
    step = max(1, len(items) // SAMPLE)
    return items[step // 2 :: step][:SAMPLE]


def _look(images: Sequence[Source], masks: Sequence[Source]) -> bool:
    smooth = _grains(images)
    return all(seen.mask for seen in smooth) and exchanged(smooth, _grains(masks))


def refusal(images: Path, masks: Path) -> Problem:
    """What to say of it."""
    right = shlex.join(["skipway", "train", str(masks), str(images), "-o", "run"])
    fix = f"did you swap the folders? type: {right}" if images != masks else "exchange images and masks"
    return Problem(
        "the images look like masks, and the masks like photographs",
        f"{shown(images)}, {shown(masks)}" if images != masks else shown(images),
        "images first, then their masks",
        fix,
        "A35",
    )


def _noisy(record: FileRecord) -> bool:
    """Whether the mask of a record could be a photograph."""
    seen = record.values
    return len(seen.values) > FEW and seen.regions >= 0.5 * GRAINY * min(sum(seen.counts), 4096**2)


def _grains(sources: Sequence[Source]) -> list[Grain]:
    """Of those that can be read as pictures."""
    found = []
    for source in sources:
        try:
            found.append(grain(source))
        except DataError:  # the check says what is wrong with it
            continue
    return found


def grain(source: Source) -> Grain:
    """How the middle of a picture looks, read as an image whatever it is named as.

    Raises:
        DataError: it cannot be read.
    """
    with open_image(source.path) if source.kind in PICTURES else source.open_image() as image:
        window = tuple(slice(s := max(0, (side - SIDE) // 2), s + min(side, SIDE)) for side in image.size)
        page = image.pages // 2 if source.page is None else source.page
        pixels = image.read(min(page, image.pages - 1), (window[0], window[1]))
    values, colours = 0, np.zeros(pixels.shape[1:], np.int64)
    for channel in pixels:
        known, numbers = np.unique(channel, return_inverse=True)
        values = max(values, len(known))
        joined = colours * len(known) + numbers.reshape(channel.shape)
        colours = np.unique(joined, return_inverse=True)[1].reshape(channel.shape)
    areas = regions(colours, -1, diagonals=False)
    return Grain(values, int(areas.max(initial=0)), areas.size)
