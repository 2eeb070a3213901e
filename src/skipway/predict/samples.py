"""Tiles of the user's own images, to measure and to calibrate with."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skipway.data.fingerprint import Constants, normalised
from skipway.data.sources import Source
from skipway.errors import OF_A_FILE, SkipwayError
from skipway.predict.pixels import Pixels, seen
from skipway.shapes import Geometry
from skipway.tiles import tile_around

if TYPE_CHECKING:
    from skipway.predict.predictor import Predictor

SIDE = {1: 2**16, 2: 512, 3: 64}
"""Largest side of a tile by number of axes, pixels."""
_MANY = 10**6
"""Places of which no list is made."""


def sampled(
    pixels: Pixels, constants: Constants | None, geometry: Geometry, count: int, seed: int = 0
) -> list[Tensor]:
    """Tiles of one image at places drawn by lot, in the order of the lot; no two of the same place.

    Args:
        pixels: The image.
        constants: (offset, scale) that bring it to the range that the network sees.
        geometry: Of the network; tiles are of a legal size, up to `SIDE` and half of the image an axis.
        count: How many at most.
        seed: Of the lot.

    Returns:
        Tiles (1, C, *S), float32.
    """
    size = pixels.shape[1:]
    steps = [
        min(SIDE[geometry.ndim], max(s, -(-side // 2))) for side, s in zip(size, geometry.stride, strict=True)
    ]
    cells = [-(-side // step) for side, step in zip(size, steps, strict=True)]
    places = int(np.prod(cells))
    lot = np.random.default_rng(seed)
    chosen = lot.permutation(places) if places < _MANY else np.unique(lot.integers(0, places, count))
    where = (np.unravel_index(int(place), cells) for place in chosen[:count])
    return [_tile(pixels, constants, geometry, steps, cell) for cell in where]


def sampled_files(
    predictor: "Predictor", sources: Sequence[Source], count: int, seed: int = 0
) -> list[Tensor]:
    """Tiles of files, from as many files as there are tiles where there are so many, in turns.

    Args:
        predictor: Says what of a file is predicted at once, and how it is normalised.
        sources: The files; those that cannot be read are passed over.
        count: How many tiles at most.
        seed: Of the lot.

    Raises:
        SkipwayError: none of them can be read; the first one's error.
    """
    lot = np.random.default_rng(seed)
    chosen = [sources[i] for i in lot.permutation(len(sources))[:count]]
    each = -(-count // max(1, len(chosen)))
    found: list[list[Tensor]] = []
    first: SkipwayError | None = None
    for source in chosen:
        try:
            with replace(source, colour=predictor.normalisation.colour).open_image() as image:
                predictor.check(image)
                units = predictor.units(image)
                unit = units[int(lot.integers(len(units)))]
                pixels, constants = seen(image, unit, predictor.ndim, predictor.normalisation)
                found.append(sampled(pixels, constants, predictor.model.geometry, each, seed))
        except OF_A_FILE as error:
            first = first or error
    if not found and first is not None:
        raise first
    rounds = max(map(len, found), default=0)
    return [tiles[i] for i in range(rounds) for tiles in found if i < len(tiles)][:count]


def _tile(
    pixels: Pixels,
    constants: Constants | None,
    geometry: Geometry,
    steps: Sequence[int],
    cell: Iterable[np.intp],
) -> Tensor:
    """The tile that decides one cell of a grid; the last of an axis is moved in, so that all are of one size."""
    size = pixels.shape[1:]
    starts = [
        min(int(c) * step, max(0, side - step)) for c, step, side in zip(cell, steps, size, strict=True)
    ]
    window = [slice(a, min(a + step, side)) for a, step, side in zip(starts, steps, size, strict=True)]
    tile = tile_around(size, window, geometry)
    read = tile.take(pixels.read(tile.read))
    seen = read.astype(np.float32) if constants is None else normalised(read, constants, np.float32)
    return torch.from_numpy(np.ascontiguousarray(seen))[None]
