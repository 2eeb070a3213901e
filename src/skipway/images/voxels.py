"""The numbers of a volume: mapped from the file where they lie plain, unpacked once where they are packed.

A volume's header says how many bytes of numbers follow. They are compared with the file before memory is taken:
plain numbers must be there, and packed ones must be possible, since deflate makes nothing smaller than 1 : 1032.
"""

import bz2
import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import EnvironmentFault, Problem, extra

from .codecs import MAX_CHANNELS, Box, Stored, decoding, refused
from .geometry import Geometry
from .mapped import Mapped

VOLUME = 5
"""Voxels of a packed volume that may be unpacked at once, in `max_pixels`: 512 × 512 × 1900 of a CT."""

CONVERTED = frozenset(("NIfTI", "NRRD", "MetaImage", "DICOM", "DICOM series"))
"""Formats whose grey images become float32 whatever they are stored in; see `scaled`."""

_DENSEST = 1032
"""Bytes that one byte of deflate can become at most."""

_CHUNK = 1 << 24


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a volume are.

    Attributes:
        path: File that holds them.
        offset: Bytes before them, unpacked.
        dtype: Of one number, with its byte order.
        shape: (C, Z, Y, X).
        inner: Whether the channels of a voxel lie side by side, so that the file holds (Z, Y, X, C).
        packing: "" for plain, "gzip", "zlib" or "bzip2".
        start: Bytes before the packed stream.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, int, int, int]
    inner: bool = False
    packing: str = ""
    start: int = 0

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape in the file."""
        return (*self.shape[1:], self.shape[0]) if self.inner else self.shape

    @property
    def bytes(self) -> int:
        """Of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


class Voxels:
    """The numbers of one file: packed ones unpacked when first asked for and kept, plain ones mapped read by read."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._array: NDArray[Any] | None = None
        self._lock = Lock()

    def page(self, page: int, box: Box) -> NDArray[Any]:
        """A window of one slice, (C, h, w), as stored."""
        if not self._layout.packing:
            return self._mapped(page, box)
        with self._lock:
            if self._array is None:
                self._array = self._all()
        (top, bottom), (left, right) = box
        return self._array[:, page, top:bottom, left:right]

    def _mapped(self, page: int, box: Box) -> NDArray[Any]:
        found, (rows, columns) = self._layout, (slice(*box[0]), slice(*box[1]))
        with decoding(found.path):
            numbers = Mapped(found.path, found.dtype, found.offset, found.stored)
            if found.inner:
                return np.moveaxis(numbers[page, rows, columns], -1, 0)
            return numbers[:, page, rows, columns]

    def close(self) -> None:
        """Forgets them."""
        self._array = None

    def _all(self) -> NDArray[Any]:
        found = self._layout
        with decoding(found.path):
            array = np.frombuffer(_unpacked(found), found.dtype).reshape(found.stored)
        return np.moveaxis(array, -1, 0) if found.inner else array


def within_file(layout: Layout, max_pixels: int) -> None:
    """Refuses a volume that its file cannot hold, or that is too large to unpack.

    Raises:
        DataError: no voxels, too many channels, or more voxels than the file has or the limit allows.
    """
    path, (channels, *size) = layout.path, layout.shape
    sides = " × ".join(map(str, reversed(size)))
    if min(layout.shape) < 1 or channels > MAX_CHANNELS or max(size) > 1 << 20:
        found = f"a volume of {sides} voxels" + (f" with {channels} numbers each" if channels > 1 else "")
        raise refused(path, found, "at least one voxel on each axis", "export the file again", "F11")
    held = path.stat().st_size - (layout.start if layout.packing else layout.offset)
    most = held * _DENSEST if layout.packing in ("gzip", "zlib") else held
    needed = layout.bytes + (layout.offset if layout.packing else 0)
    if layout.packing != "bzip2" and most < needed:
        found = f"a header of {sides} voxels, {needed} bytes, in a file that holds {max(most, 0)} at most"
        raise refused(path, found, "as many voxels as its header says", "copy or export it again", "F11")
    if layout.packing and math.prod(size) * max(1, channels // 4) > VOLUME * max_pixels:
        raise refused(
            path,
            f"a packed volume of {sides} voxels that must be unpacked at once",
            f"at most {VOLUME * max_pixels // 1_000_000} million voxels",
            "save it without compression (.nii, or raw encoding), which is read slice by slice",
            "F10",
        )


def _unpacked(layout: Layout) -> bytearray:
    """The numbers of a packed file: no byte more than the header promises is ever held."""
    with layout.path.open("rb") as file:
        file.seek(layout.start)
        stream = _stream(file, layout.packing)
        _skip(stream, layout.offset)
        data = bytearray()
        while len(data) < layout.bytes:
            chunk = stream.read(min(_CHUNK, layout.bytes - len(data)))
            if not chunk:
                raise ValueError(f"ends after {len(data)} of {layout.bytes} bytes of voxels")
            data += chunk
        stream.read(1)  # where the stream ends here, this compares its checksum
        return data


def _stream(file: IO[bytes], packing: str) -> Any:
    if packing == "bzip2":
        return bz2.BZ2File(file)
    return gzip.GzipFile(fileobj=file) if packing == "gzip" else _Zlib(file)


def _skip(stream: Any, count: int) -> None:
    while count > 0:
        chunk = stream.read(min(_CHUNK, count))
        if not chunk:
            raise ValueError("ends before its voxels")
        count -= len(chunk)


class _Zlib:
    """A zlib stream as a file; MetaImage packs its voxels so."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._unpack = file, zlib.decompressobj(47)  # 47: with a zlib or a gzip head

    def read(self, count: int) -> bytes:
        """At most `count` bytes, none at the end."""
        while not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or self._file.read(1 << 16)
            found = self._unpack.decompress(packed, count)
            if found:
                return found
            if not packed:
                raise ValueError("a packed stream that is cut short")
        return b""


def scaled(
    slope: float, intercept: float, dtype: np.dtype[Any], *, mask: bool
) -> tuple[np.dtype[Any], Callable[[NDArray[Any]], NDArray[Any]]]:
    """What `read` gives of stored numbers, x · slope + intercept: its type, and the function.

    An image becomes float32, whatever it is stored in, so that one that a tool saved in 8 bits and one in 32 go
    together; a mask keeps its type, or is what the formula gives.

    Args:
        slope: Not 0.
        intercept: Added after.
        dtype: Of the stored numbers.
        mask: Whether they are labels.
    """
    plain = (slope, intercept) == (1, 0)
    native = dtype.newbyteorder("=")
    if mask and plain:
        return native, lambda pixels: pixels
    if plain:
        return np.dtype(np.float32), lambda pixels: pixels.astype(np.float32)
    wide = np.dtype(np.float64 if mask else np.float32)
    return wide, lambda pixels: (pixels.astype(np.float64) * slope + intercept).astype(wide)


def volume(
    format: str,
    layout: Layout,
    max_pixels: int,
    *,
    mask: bool,
    geometry: Geometry | None,
    slope: float = 1.0,
    intercept: float = 0.0,
    notes: tuple[str, ...] = (),
) -> Stored:
    """A volume whose header has been read, its slices as pages.

    Args:
        format: Its name in `formats.FORMATS`.
        layout: Where its numbers are.
        max_pixels: Limit, see `within_file`.
        mask: Whether it holds labels.
        geometry: Where it lies.
        slope: See `scaled`.
        intercept: See `scaled`.
        notes: What a user should hear.

    Raises:
        DataError: see `within_file`; numbers of a kind that no image has.
    """
    channels, depth, height, width = layout.shape
    if layout.dtype.kind not in "iuf" or layout.dtype.itemsize > 8:
        found = f"voxels of type {layout.dtype.name}"
        raise refused(
            layout.path, found, "whole numbers or floats", "export it as numbers of one kind", "C06"
        )
    within_file(layout, max_pixels)
    voxels = Voxels(layout)
    if layout.inner:
        dtype, finish = layout.dtype.newbyteorder("="), lambda pixels: pixels
    else:
        dtype, finish = scaled(slope, intercept, layout.dtype, mask=mask)
    return Stored(
        format,
        depth,
        channels,
        (height, width),
        dtype,
        "RGB" if layout.inner else "grey" if channels == 1 else "N-channel",
        dtype.itemsize * 8,
        lambda page, box: finish(voxels.page(page, box)),
        voxels.close,
        notes=notes,
        geometry=geometry,
    )


def needed(library: str, part: str, what: str) -> EnvironmentFault:
    """The error for an optional library that is missing."""
    return EnvironmentFault(
        Problem(
            f"{library} is not installed",
            what,
            f"the package that reads {what} files",
            extra(part),
            "F21",
        )
    )
