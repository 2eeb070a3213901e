"""Where pixels come from: anything with a shape and a window to read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from skipway.data.fingerprint import Constants, Normalisation

if TYPE_CHECKING:
    from skipway.images import ImageFile


class Pixels(Protocol):
    """An image that is read in windows, so that it need not fit into memory.

    Attributes:
        shape: (C, *S), channels first.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S), channels first."""
        ...

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """Pixels of one window, shape (C, *window), in the image's own dtype."""
        ...


@dataclass(frozen=True)
class ArrayPixels:
    """An array in memory or a memory map, shape (C, *S); read, never written."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S), channels first."""
        return self.array.shape

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """A view of one window."""
        return self.array[:, *window]


@dataclass(frozen=True)
class PagePixels:
    """One page of an image file."""

    image: "ImageFile"
    page: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (self.image.channels, *self.image.size)

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """One window, read from the file now."""
        rows, columns = window
        return self.image.read(self.page, (rows, columns))


@dataclass(frozen=True)
class StackPixels:
    """Pages of an image file as one volume; a window reads no more than its part of its pages."""

    image: "ImageFile"
    pages: range

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Z, H, W)."""
        return (self.image.channels, len(self.pages), *self.image.size)

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """One window, read from the file now."""
        slices, rows, columns = window
        return np.stack([self.image.read(page, (rows, columns)) for page in self.pages[slices]], axis=1)


def seen(
    image: "ImageFile", pages: range, ndim: int, normalisation: Normalisation
) -> tuple[Pixels, Constants]:
    """Pages of a file as a network of `ndim` axes sees them, in training and in prediction.

    Two axes see one page, in the range of that page. Three axes see the pages as a volume, in the range of the
    whole file: whether a stack is predicted whole, or trained on in one part and validated on in another, the
    same voxels become the same numbers.

    Args:
        image: The file, open.
        pages: Consecutive pages; one of them for two axes.
        ndim: Spatial axes of the network.
        normalisation: Finds the constants.

    Returns:
        The pixels, and (offset, scale) that bring them to the common range.
    """
    pixels = pixels_of(image, pages, ndim)
    which = range(image.pages) if ndim == 3 else pages.start
    return pixels, normalisation.constants(image, which)


def pixels_of(image: "ImageFile", pages: range, ndim: int) -> Pixels:
    """The pixels alone; see `seen`."""
    if ndim == 3:
        return StackPixels(image, pages)
    (page,) = pages
    return PagePixels(image, page)


def by_page(labels: np.ndarray) -> np.ndarray:
    """Labels of a page (H, W) or a volume (Z, H, W), page by page: (P, H, W)."""
    return labels.reshape(-1, *labels.shape[-2:])
