"""Plain numbers of a file, mapped anew for each read: what was touched does not stay in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mapped:
    """An array that lies plain in a file.

    A map that stays open holds every page of the file that was ever touched, so that memory would grow with the image.

    Attributes:
        path: The file.
        dtype: Of one number, with its byte order.
        offset: Bytes before them.
        shape: Of the array.
        order: Which axis is the fastest, the last ("C") or the first ("F").
    """

    path: Path
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """A copy of a part."""
        whole = np.memmap(
            self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape, order=self.order
        )
        return np.array(whole[index])
