"""A page in small: what is kept of its pixels to compare it with its mask and with other pages."""

from collections.abc import Iterable
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skipway.images import ImageFile

SIDE = 128
"""Longest side of a sketch, pixels."""

CELLS = 16
"""Sides of the thumbnail that is stored."""

Grey = NDArray[np.float32]
Labels = NDArray[np.int64]


def step_of(size: tuple[int, int]) -> int:
    """Pixels of the page that make one of its sketch."""
    return max(1, ceil(max(size) / SIDE))


class Sketcher:
    """Collects the grey sketch of a page while its bands pass by: means of squares of `step` pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.step = step_of(size)
        self._columns = size[1] // self.step * self.step or size[1]
        self._rows: list[Grey] = []

    def add(self, band: NDArray[Any]) -> None:
        """One band (C, h, W), from top to bottom."""
        with np.errstate(over="ignore", invalid="ignore"):  # the check refuses what is not finite
            grey = band.mean(axis=0, dtype=np.float32)[:, : self._columns]
        if self.step > 1 and grey.shape[1] >= self.step:
            grey = grey.reshape(len(grey), -1, self.step).mean(axis=2)
        self._rows.append(np.asarray(grey, np.float32))

    def grey(self) -> Grey:
        """The sketch (h, w)."""
        rows = np.concatenate(self._rows)
        high = len(rows) // self.step * self.step
        if self.step == 1 or not high:
            return rows
        return np.asarray(rows[:high].reshape(-1, self.step, rows.shape[1]).mean(axis=1), np.float32)


def sketch(image: ImageFile, page: int = 0) -> Grey:
    """The grey sketch of a page of an open image."""
    collected = Sketcher(image.size)
    for _, band in image.bands(page):
        collected.add(band)
    return collected.grey()


def thinned(mask: NDArray[Any], step: int, shape: tuple[int, int]) -> Labels:
    """The labels in the middle of the squares of a sketch, (h, w)."""
    return mask[step // 2 :: step, step // 2 :: step][: shape[0], : shape[1]].astype(np.int64)


def thumbnail(grey: Grey) -> str:
    """Means over 16 × 16 cells, from the darkest as 0 to the brightest as 255, as hexadecimal text.

    >>> thumbnail(np.zeros((4, 4), np.float32))
    ''
    """
    if min(grey.shape) < CELLS or not np.isfinite(grey).all():
        return ""
    cells = grey
    for axis in (0, 1):
        starts = np.linspace(0, grey.shape[axis], CELLS, endpoint=False).astype(int)
        lengths = np.diff([*starts, grey.shape[axis]])
        cells = np.add.reduceat(cells, starts, axis=axis) / np.expand_dims(lengths, 1 - axis)
    span = float(np.ptp(cells.astype(np.float64)))
    if span <= 1e-6 * max(1.0, float(np.abs(cells).max())):
        return ""
    return np.rint(255 * (cells - cells.min()) / span).astype(np.uint8).tobytes().hex()


def detail(grey: Grey) -> Grey:
    """The sketch without slow changes of brightness, mean 0 and length 1."""
    grey = calm(grey)
    return unit(grey - ndimage.gaussian_filter(grey, 6, mode="nearest"))


def calm(grey: Grey) -> Grey:
    """Held between its 0.2th and 99.8th percentile and brought to 0…1, so that single values cannot outweigh all."""
    low, high = np.percentile(grey.astype(np.float64), (0.2, 99.8))
    span = high - low if high > low else 1.0
    return np.asarray((np.clip(grey, low, high) - low) / span, np.float32)


def unit(values: NDArray[Any]) -> Grey:
    """Mean 0 and length 1; zeros where all values are equal."""
    centred: Grey = np.asarray(values, np.float32) - np.float32(values.mean())
    length = float(np.linalg.norm(centred))
    return centred / np.float32(length) if length > 0 else np.zeros_like(centred)


def matrix(thumbnails: Iterable[str]) -> Grey:
    """Thumbnails as rows (n, 256) of mean 0 and length 1."""
    rows = [unit(np.frombuffer(bytes.fromhex(text), np.uint8)) for text in thumbnails]
    return np.array(rows, np.float32).reshape(len(rows), CELLS * CELLS)
