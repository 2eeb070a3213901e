"""Where pixels come from: anything with a shape and a window to read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

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
