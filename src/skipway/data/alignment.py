"""Whether a mask lies on its image, told from edges: outlines of masks run along edges of images.

The score of a pair is the correlation of two maps of its sketch, the strength of the image's edges and the outlines
of the mask, in units of the spread of that correlation over all shifts. A pair that fits scores 5 to 50 and nothing
else scores more; a mask that was turned, shifted or exchanged scores about 0 where it lies and more elsewhere.
Masks are never moved for it: this only says where to look.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from skipway.data.sketch import Grey, Labels, calm, unit

TURNS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "mirrored left to right": lambda a: a[:, ::-1],
    "mirrored upside down": lambda a: a[::-1],
    "turned by half": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "turned a quarter to the left": lambda a: np.rot90(a, 1),
    "turned a quarter to the right": lambda a: np.rot90(a, -1),
    "transposed about the other diagonal": lambda a: a[::-1, ::-1].T,
}
"""Ways in which a mask can lie wrong, by what would put it right; the last four for squares only."""

CLEAR = 6.0
"""Score that chance does not reach."""


@dataclass(frozen=True)
class Fit:
    """How well a mask fits its image.

    Attributes:
        here: Score where it lies.
        turn: The way of `TURNS` that scores most.
        turned: Its score.
        shift: (down, right) in pixels of the page, by which the mask should move to score most.
        shifted: The score there.
    """

    here: float
    turn: str
    turned: float
    shift: tuple[int, int]
    shifted: float


def edge_maps(grey: Grey, labels: Labels, ignore: int | None = None) -> tuple[Grey, Grey] | None:
    """Edges of the image and outlines of the mask, each (h, w) of mean 0 and length 1; None where one has none."""
    if min(grey.shape) < 16 or grey.shape != labels.shape or not np.isfinite(grey).all():
        return None
    strength = np.sqrt(ndimage.gaussian_gradient_magnitude(calm(grey), 1.0, mode="nearest"))
    strength = np.minimum(strength, np.percentile(strength, 99))
    outline = np.zeros(labels.shape, np.float32)
    for axis in (0, 1):
        first, second = (np.take(labels, np.arange(a, labels.shape[axis] - 1 + a), axis=axis) for a in (0, 1))
        differs = first != second
        if ignore is not None:
            differs &= (first != ignore) & (second != ignore)
        for side in (slice(None, -1), slice(1, None)):
            outline[(side, slice(None)) if axis == 0 else (slice(None), side)] += differs
    maps = unit(strength), unit(ndimage.gaussian_filter(outline, 0.7, mode="constant"))
    return maps if all(part.any() for part in maps) else None


def score(edges: Grey, outline: Grey) -> float:
    """How well maps of `edge_maps` agree where they lie, in units of the spread over all shifts."""
    everywhere = fft.irfft2(fft.rfft2(edges) * np.conj(fft.rfft2(outline)), edges.shape)
    return float(np.vdot(edges, outline)) / (float(everywhere.std()) or 1.0)


def fit(grey: Grey, labels: Labels, step: int, ignore: int | None = None) -> Fit | None:
    """The fit of one pair.

    Args:
        grey: Sketch of the image (h, w).
        labels: The mask at the same places.
        step: Pixels of the page for one of the sketch.
        ignore: Value of pixels without annotation.

    Returns:
        None where image or mask has no edge, or is too small to tell.
    """
    maps = edge_maps(grey, labels, ignore)
    if maps is None:
        return None
    edges, outline = maps
    everywhere = fft.irfft2(fft.rfft2(edges) * np.conj(fft.rfft2(outline)), edges.shape)
    spread = float(everywhere.std()) or 1.0
    square = edges.shape[0] == edges.shape[1]
    ways = list(TURNS)[: None if square else 3]
    turned = {way: float(np.vdot(edges, TURNS[way](outline))) / spread for way in ways}
    best = max(turned, key=turned.__getitem__)
    reach = [max(1, side // 4) for side in edges.shape]
    near = np.roll(everywhere, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    down, right = np.unravel_index(int(np.argmax(near)), near.shape)
    shift = (int(down - reach[0]) * step, int(right - reach[1]) * step)
    scores = float(everywhere[0, 0]) / spread, turned[best], float(near.max()) / spread
    here, of_turn, of_shift = (round(score, 2) for score in scores)
    return Fit(here, best, of_turn, shift, of_shift)


def table(maps: Sequence[tuple[Grey, Grey]]) -> NDArray[np.float64]:
    """Score of every image (row) with every mask (column), all of one size."""
    edges = np.array([e.ravel() for e, _ in maps])
    outlines = np.array([o.ravel() for _, o in maps])
    spreads = [float(fft.irfft2(fft.rfft2(e) * np.conj(fft.rfft2(o)), e.shape).std()) or 1.0 for e, o in maps]
    return np.asarray(edges @ outlines.T, np.float64) / np.array(spreads)[:, None]


def turned_wrong(fits: Mapping[str, Fit]) -> dict[str, list[str]]:
    """Names of the pairs whose masks fit much better when turned, by the way that helps."""
    found: dict[str, list[str]] = {}
    for name, seen in fits.items():
        rival = max(seen.shifted, seen.here)
        if seen.turned > CLEAR and seen.turned > 1.25 * rival:
            found.setdefault(seen.turn, []).append(name)
    return found


def shifted_away(fits: Mapping[str, Fit], steps: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Names of the pairs whose masks fit much better elsewhere, and by how much they should move.

    Beside those that are clear by themselves, those that ask for the very move of one that is clear.
    """
    better = {
        name: seen
        for name, seen in fits.items()
        if max(map(abs, seen.shift)) >= max(4, 2 * steps[name])
        and seen.shifted > 1.6 * max(seen.here, 1.0)
        and seen.shifted > 0.9 * seen.turned
    }
    clear = {seen.shift for seen in better.values() if seen.shifted > 1.2 * CLEAR}

    def asked(name: str, seen: Fit) -> bool:
        near = max(2, steps[name])
        return any(max(abs(a - b) for a, b in zip(seen.shift, move, strict=True)) <= near for move in clear)

    return {
        name: seen.shift
        for name, seen in better.items()
        if seen.shifted > 1.2 * CLEAR or (seen.shifted > 0.7 * CLEAR and asked(name, seen))
    }


def exchanged(names: Sequence[str], scores: NDArray[np.float64]) -> list[tuple[str, str]]:
    """(image, mask) of pairs that fit another's mask clearly and their own not at all.

    Where one image has the mask of another, less is asked for to say that the other has the mask of the one.
    """
    found = []
    for row in range(len(names)):
        column = int(np.argmax(scores[row]))
        own, best = float(scores[row, row]), float(scores[row, column])
        if column != row and best > CLEAR and best > 2 * max(own, 1.0) + 2:
            found.append((row, column))
    for row, column in list(found):
        back, own = float(scores[column, row]), float(scores[column, column])
        if column not in {image for image, _ in found} and back > max(0.5 * CLEAR, 1.5 * own):
            found.append((column, row))
    return [(names[image], names[mask]) for image, mask in sorted(found)]


def unrelated(scores: NDArray[np.float64]) -> bool:
    """Whether masks fit their own images no better than they fit the others (paired, one-sided)."""
    n = len(scores)
    if n < 6:
        return False
    own = np.diag(scores)
    others = (scores.sum(axis=1) - own) / (n - 1)
    gain = own - others
    error = float(gain.std(ddof=1)) / n**0.5
    return float(gain.mean()) < 1.645 * error and median(own) < CLEAR
