"""The certificate: after an image was predicted in tiles, a window of it is predicted again without them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skipway.predict.logits import decided
from skipway.shapes import Geometry
from skipway.tiles import round_tile, seams, tile_around

LARGEST = {1: 4096, 2: 256, 3: 48}


@dataclass(frozen=True)
class Certificate:
    """How far tiles changed the result, measured where it can be seen: across the seams.

    Attributes:
        window: Pixels that were predicted twice, in tiles and in one pass with more context around.
        max_difference: Largest absolute difference of the logits.
        changed_labels: Pixels of the window whose class, or set of classes, differs.
        largest_logit: Largest absolute logit of the window, to judge the difference by.
        tiles: Tiles the image was cut into; with 1 there is no seam and nothing was predicted twice.
        tile_exact: Whether the network promises equality (no statistics over the tile, as instance norm
            takes them).
        rounding: Of the largest logit, what rounding alone may change.
    """

    window: tuple[slice, ...]
    max_difference: float
    changed_labels: int
    largest_logit: float
    tiles: int
    tile_exact: bool
    rounding: float = 1e-4

    @property
    def pixels(self) -> int:
        """Number of pixels in the window."""
        return int(np.prod([w.stop - w.start for w in self.window]))

    @property
    def holds(self) -> bool:
        """Whether the difference is no more than rounding, in float32 1e-4 of the largest logit."""
        return self.max_difference <= self.rounding * max(1.0, self.largest_logit)

    def __str__(self) -> str:
        """One line."""
        if self.tiles == 1:
            return "tiled = whole: predicted in one pass, no tiles to compare"
        place = ", ".join(f"{w.start}:{w.stop}" for w in self.window)
        line = (
            f"tiled = whole: window [{place}] predicted again without tiles, largest difference of logits "
            f"{self.max_difference:.1e} (largest logit {self.largest_logit:.1e}), "
            f"{self.changed_labels} of {self.pixels} labels changed"
        )
        if not self.tile_exact:
            return f"{line}; WARNING: the norm takes its statistics over the tile, so tiles change the result"
        return line if self.holds else f"{line}; WARNING: more than rounding"


class Witness:
    """Keeps the tiled logits of one window while the tiles pass by, then compares them with one pass.

    The window is drawn at random, across a seam wherever there is one, from a generator seeded by `seed`.
    """

    def __init__(
        self,
        size: Sequence[int],
        tile: int | Sequence[int],
        geometry: Geometry,
        seed: object,
        cuts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Draw the window.

        Args:
            size: Of the image.
            tile: Step between tiles.
            geometry: Of the network.
            seed: Anything that stands for the image.
            cuts: First pixels of all tiles but the first, along each axis; those of `plan_tiles` by default.
        """
        steps = round_tile(tile, geometry)
        rng = np.random.default_rng(zlib.crc32(repr((tuple(size), seed)).encode()))
        axes = zip(size, steps, seams(size, tile, geometry) if cuts is None else cuts, strict=True)
        self.window = tuple(
            _across(side, min(side, LARGEST[len(size)], max(1, step // 2)), cuts, rng)
            for side, step, cuts in axes
        )
        # The check reads up to twice the halo, as far as the memory of a tile allows, so that a halo which is
        # too small shows.
        room = zip(steps, self.window, geometry.stride, geometry.halo, strict=True)
        extra = [
            max(0, min(halo, (step - (w.stop - w.start) - s) // 2 // s * s)) for step, w, s, halo in room
        ]
        self.tile = tile_around(size, self.window, geometry, extra=extra)
        self._logits: Tensor | None = None

    def sees(self, region: tuple[slice, ...]) -> bool:
        """Whether a pixel of the window lies in a region."""
        both = (_overlap(w, seen) for w, seen in zip(region, self.window, strict=True))
        return all(o.start < o.stop for o in both)

    def see(self, region: tuple[slice, ...], logits: Tensor) -> None:
        """Remember what was decided of the window; `logits` has shape (K, *region)."""
        if not self.sees(region):
            return
        both = [_overlap(w, seen) for w, seen in zip(region, self.window, strict=True)]
        if self._logits is None:
            self._logits = logits.new_empty(
                (len(logits), *(w.stop - w.start for w in self.window)), device="cpu"
            )
        here = [slice(o.start - w.start, o.stop - w.start) for o, w in zip(both, self.window, strict=True)]
        there = [slice(o.start - w.start, o.stop - w.start) for o, w in zip(both, region, strict=True)]
        self._logits[:, *here] = logits[:, *there].cpu()

    def compare(
        self,
        whole: Tensor,
        tiles: int,
        *,
        tile_exact: bool,
        overlapping: bool = False,
        rounding: float = 1e-4,
    ) -> Certificate:
        """Hold `whole`, the logits of one pass over the window, shape (K, *window), against what was seen."""
        if self._logits is None:
            raise ValueError("nothing has been seen yet")
        whole = whole.cpu()
        before, after = (decided(logits, overlapping=overlapping) for logits in (self._logits, whole))
        changed = torch.count_nonzero(before != after)
        return Certificate(
            window=self.window,
            max_difference=float((self._logits - whole).abs().max()),
            changed_labels=int(changed),
            largest_logit=float(whole.abs().max()),
            tiles=tiles,
            tile_exact=tile_exact,
            rounding=rounding,
        )


def _across(side: int, width: int, cuts: Sequence[int], rng: np.random.Generator) -> slice:
    """A random stretch of `width` pixels; across a random one of `cuts` where there are any."""
    if not cuts:
        start = int(rng.integers(0, side - width, endpoint=True))
    elif width == 1:
        start = int(rng.choice(cuts))
    else:
        cut = int(rng.choice(cuts))
        start = int(np.clip(cut - rng.integers(1, width), 0, side - width))
    return slice(start, start + width)


def _overlap(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))
