"""PNG and JPEG: decoded at once, kept while the file is open."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Box, Stored, decoding, file_bytes, refused, within_budget

_ORIENTATION = 0x0112
_PNG_KINDS = {0: ("grey", 1), 2: ("RGB", 3), 3: ("palette", 1), 4: ("grey", 2), 6: ("RGB", 4)}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


class Cached:
    """Pixels of a file that decodes only as a whole; one decoding while it is open.

    Args:
        path: The file, for errors.
        load: Gives its pixels, (H, W) or (H, W, C).
    """

    def __init__(self, path: Path, load: Callable[[], NDArray[Any]]) -> None:
        self._path, self._load = path, load
        self._pixels: NDArray[Any] | None = None
        self._lock = Lock()

    def decode(self, page: int, box: Box) -> NDArray[Any]:
        """The pixels of a box, (C, h, w)."""
        with self._lock:
            if self._pixels is None:
                self._pixels = self._whole()
        (top, bottom), (left, right) = box
        return self._pixels[:, top:bottom, left:right]

    def close(self) -> None:
        """Frees the pixels."""
        self._pixels = None

    def _whole(self) -> NDArray[Any]:
        with decoding(self._path):
            array = self._load()
        if array.dtype == bool:
            array = array.astype(np.uint8)
        return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _png_pixels(data: bytes, deep: bool) -> NDArray[Any]:
    if deep:
        import imagecodecs  # Pillow narrows 16-bit colour to 8 bits without a word

        return np.asarray(imagecodecs.png_decode(data))
    from PIL import PngImagePlugin

    return loaded(PngImagePlugin.PngImageFile(io.BytesIO(data)))


def loaded(image: Any) -> NDArray[Any]:
    """Pixels of an open Pillow image: made by the one plug-in that is meant, without `Image.open` guessing."""
    image.load()
    return np.asarray(image)


def open_png(path: Path, max_pixels: int) -> Stored:
    """A PNG file, its checksums verified, its pixels not decoded yet.

    Raises:
        DataError: truncated, damaged, animated, or too large.
    """
    data = file_bytes(path)
    chunks = _png_chunks(path, data)
    with decoding(path):
        width, height, depth, kind, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
        if depth not in _PNG_DEPTHS.get(kind, ()) or interlace > 1:
            raise ValueError(f"no such PNG: colour type {kind} with {depth} bits")
    colour, channels = _PNG_KINDS[kind]
    within_budget(path, (height, width), channels, max_pixels, "an image")
    if b"acTL" in chunks and chunks[b"acTL"][:4] > b"\0\0\0\1":
        raise refused(path, "an animated PNG", "one picture a file", "save its frames as a TIFF stack", "C22")
    pixels = Cached(path, lambda: _png_pixels(data, deep=depth == 16))
    return Stored(
        format="PNG",
        pages=1,
        channels=channels,
        size=(height, width),
        dtype=np.dtype(np.uint16 if depth == 16 else np.uint8),
        colour=colour,
        bits=depth,
        decode=lambda page, box: pixels.decode(page, box)[:channels],  # a transparency key adds a channel
        close=pixels.close,
        alpha=channels - 1 if kind in (4, 6) else None,
        orientation=_png_orientation(path, chunks),
        palette=_png_palette(path, chunks) if kind == 3 else None,
        level=255 // (2**depth - 1) if kind == 0 and depth in (2, 4) else 1,
        notes=("its transparency key is not used",) if b"tRNS" in chunks else (),
    )


def _png_chunks(path: Path, data: bytes) -> dict[bytes, bytes]:
    """Header chunks by name; every checksum of a chunk that matters is verified up to the end mark."""
    found: dict[bytes, bytes] = {}
    position = 8
    with decoding(path):
        while b"IEND" not in found:
            if position + 12 > len(data):
                raise ValueError(f"PNG ends at byte {len(data)} before its end mark")
            length, name = struct.unpack_from(">I4s", data, position)
            end = position + 8 + length
            if end + 4 > len(data):
                raise ValueError(f"PNG ends at byte {len(data)}, inside a block of {length} bytes")
            wanted = name in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"IEND")
            if name[:1].isupper() or wanted:
                checksum = zlib.crc32(memoryview(data)[position + 4 : end])
                if checksum != struct.unpack_from(">I", data, end)[0]:
                    raise ValueError(
                        f"PNG block {name.decode('latin1')} at byte {position} fails its checksum"
                    )
            if name == b"IDAT" or wanted:
                found.setdefault(name, data[position + 8 : end] if wanted else b"")
            position = end + 4
        if b"IHDR" not in found or b"IDAT" not in found:
            raise ValueError("PNG without header or without pixels")
    return found


def _png_orientation(path: Path, chunks: dict[bytes, bytes]) -> int:
    if b"eXIf" not in chunks:
        return 1
    from PIL import Image

    with decoding(path):
        exif = Image.Exif()
        exif.load(b"Exif\0\0" + chunks[b"eXIf"])
        return exif_orientation(exif)


def _png_palette(path: Path, chunks: dict[bytes, bytes]) -> NDArray[np.uint8]:
    with decoding(path):
        return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)


def open_jpeg(path: Path, max_pixels: int) -> Stored:
    """A JPEG file, its pixels not decoded yet.

    Raises:
        DataError: damaged header, CMYK, or too large.
    """
    from PIL import JpegImagePlugin

    data = file_bytes(path)
    with decoding(path):
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        width, height = image.size
        orientation = exif_orientation(image.getexif())
    channels = {"L": 1, "RGB": 3}.get(image.mode)
    if channels is None:
        raise refused(path, f"{image.mode} colours", "grey or RGB", "convert it to RGB", "D07")
    within_budget(path, (height, width), channels, max_pixels, "an image")
    pixels = Cached(path, lambda: loaded(JpegImagePlugin.JpegImageFile(io.BytesIO(data))))
    return Stored(
        format="JPEG",
        pages=1,
        channels=channels,
        size=(height, width),
        dtype=np.dtype(np.uint8),
        colour="grey" if channels == 1 else "RGB",
        bits=8,
        decode=pixels.decode,
        close=pixels.close,
        orientation=orientation,
        notes=("holds further pictures; the first is read",) if "mp" in image.info else (),
    )


def exif_orientation(exif: Any) -> int:
    """EXIF code 1…8; anything else means upright."""
    code = exif.get(_ORIENTATION, 1)
    return int(code) if isinstance(code, int) and 1 <= code <= 8 else 1
