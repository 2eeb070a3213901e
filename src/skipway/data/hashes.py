"""What an image is, whatever its file: a hash of its pixels."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.images import ImageFile


class PixelHash:
    """SHA-256 of the size, the type and the pixels of one page, fed in bands from the top.

    Args:
        image: The file, open.
    """

    def __init__(self, image: ImageFile) -> None:
        self._digest = hashlib.sha256(repr((image.size, image.channels, str(image.dtype))).encode())

    def add(self, band: NDArray[Any]) -> None:
        """The next rows, (C, h, W); the hash does not depend on how many."""
        self._digest.update(np.ascontiguousarray(np.moveaxis(band, 0, -1)).data)

    def hex(self) -> str:
        """The hash of what was added."""
        return self._digest.hexdigest()


def pixel_hash(image: ImageFile, page: int = 0) -> str:
    """The hash of one page, in hexadecimal.

    Raises:
        DataError: damaged pixels.
    """
    digest = PixelHash(image)
    for _, band in image.bands(page):
        digest.add(band)
    return digest.hex()
