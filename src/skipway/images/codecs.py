"""What all codecs share: the stored form of a file, and the checks that come before any decoding."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import DataError, Problem, SkipwayError

from .geometry import Geometry

MAX_PIXELS = 100_000_000
"""Pixels that may have to be decoded at once: a whole PNG or JPEG, one strip or tile of a TIFF."""

CACHE_BYTES = 64 * 1024**2
"""Decoded strips, tiles or slices of a file that are kept for the next window."""

MAX_CHANNELS = 1024

Rows = tuple[int, int]
Box = tuple[Rows, Rows]
"""(top, bottom), (left, right) in stored orientation, end exclusive."""


@dataclass(frozen=True)
class Stored:
    """What a codec found in a file, before any policy.

    Attributes:
        format: Its name in `formats.FORMATS`.
        pages: Images in the file.
        channels: Samples a pixel, alpha included.
        size: (rows, columns) as stored, before orientation.
        dtype: Native byte order.
        colour: "grey", "RGB", "palette" or "N-channel".
        bits: Bits a sample in the file.
        decode: `decode(page, box)` gives (channels, h, w).
        close: Frees file and cache.
        alpha: Channel of the opacity.
        orientation: EXIF code 1…8.
        palette: (N, 3) colours of a palette file.
        level: Factor by which the decoder spread grey values of 2 or 4 bits.
        notes: What a user should hear.
        geometry: Where the pixels lie, where the file says so.
        nodata: Value of pixels that were never measured, where the file says so.
    """

    format: str
    pages: int
    channels: int
    size: tuple[int, int]
    dtype: np.dtype[Any]
    colour: str
    bits: int
    decode: Callable[[int, Box], NDArray[Any]]
    close: Callable[[], None]
    alpha: int | None = None
    orientation: int = 1
    palette: NDArray[Any] | None = None
    level: int = 1
    notes: tuple[str, ...] = ()
    geometry: Geometry | None = None
    nodata: float | None = None


def shown(path: os.PathLike[str] | str) -> str:
    r"""A path as one printable line, whatever bytes its name holds.

    >>> print(shown("a" + chr(10) + "b.png"))
    a\nb.png
    """
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refused(path: Path, found: str, expected: str, fix: str, code: str) -> DataError:
    """The error for one file."""
    return DataError(Problem(found, shown(path), expected, fix, code))


def lossy_mask(path: Path, name: str) -> DataError:
    """The error for a mask in a format that changes values."""
    found = f"a mask stored as {name}, which changes label values"
    return refused(path, found, "a lossless PNG or TIFF", "export the masks again as PNG", "E09")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises on damaged bytes into one `DataError`."""
    try:
        yield
    except (SkipwayError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # decoders raise anything at all on damaged bytes: TypeError, ZeroDivisionError, …
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise refused(
            path,
            f"damaged or truncated: {reason}",
            "a complete file",
            "copy or export the file again, or remove it",
            "F01",
        ) from error


@contextmanager
def sized(path: Path) -> Iterator[None]:
    """Turns the memory that a length in a damaged file asks for into a refusal."""
    try:
        yield
    except MemoryError as error:
        found = "a length that asks for more memory than there is"
        raise refused(path, found, "a complete file", "copy or export it again", "F08") from error


def within_budget(path: Path, size: tuple[int, int], channels: int, max_pixels: int, what: str) -> None:
    """Refuses a size that a header claims before memory is taken for it."""
    if channels > MAX_CHANNELS:
        raise refused(
            path, f"{channels} channels", f"at most {MAX_CHANNELS}", "export the channels you need", "F07"
        )
    height, width = size
    if height < 1 or width < 1:
        raise refused(
            path, f"a size of {height} × {width}", "at least one pixel", "export the file again", "F08"
        )
    if height * width * max(1, channels // 4) > max_pixels:
        raise refused(
            path,
            f"{what} of {height} × {width} pixels that must be decoded at once",
            f"at most {max_pixels // 1_000_000} million pixels",
            "save it as a tiled TIFF, which is read piece by piece",
            "F08",
        )


def file_bytes(path: Path) -> bytes:
    """The whole file."""
    with decoding(path):
        return path.read_bytes()
