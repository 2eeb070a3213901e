"""BMP and PNM: pixels in plain rows, mapped from the file.

Both are read here and not by a library, because the usual one spreads the values of a PNM whose largest is not 255
and reads an 8-bit BMP of two colours as 1 bit.
"""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Box, Stored, decoding, refused, within_budget

_RGB, _BITFIELDS = 0, 3
_BGRA_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF)
_BLACK_WHITE = [[0, 0, 0], [255, 255, 255]]
_PNM_HEADER = re.compile(rb"P([56])" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3 + rb"\s")


class _Rows:
    """Rows of equal length in a memory map; `unpack` turns some of them into (h, w, C)."""

    def __init__(self, path: Path, offset: int, rows: int, stride: int) -> None:
        have = path.stat().st_size
        if offset + rows * stride > have:
            raise ValueError(f"it ends at byte {have}, its pixels at {offset + rows * stride}")
        self.map = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(rows, stride))


def open_bmp(path: Path, max_pixels: int) -> Stored:
    """A BMP file of 1, 4, 8, 24 or 32 bits without compression.

    Raises:
        DataError: damaged, another kind, or too large.
    """
    with decoding(path):
        with path.open("rb") as file:
            head = file.read(14 + 124 + 4 * 256)
        start, size, width, height = struct.unpack_from("<IIii", head, 10)
        bits, packing, _, _, _, used = struct.unpack_from("<HIIiiI", head, 28)
    if size < 40 or bits not in (1, 4, 8, 24, 32) or not _plain(head, size, bits, packing):
        found = f"a BMP of {bits} bits with packing {packing} and a header of {size} bytes"
        raise refused(path, found, "a plain BMP of 1, 4, 8, 24 or 32 bits", "save it as PNG", "A15")
    down, rows = height > 0, abs(height)  # the usual BMP begins with its last row
    within_budget(path, (rows, width), 4, max_pixels, "an image")
    with decoding(path):
        stored = _Rows(path, start, rows, (width * bits + 31) // 32 * 4).map
        palette = _bmp_palette(head, size, used or 1 << bits, start) if bits <= 8 else None
    grey = palette is not None and (_ramp(palette) or (bits == 1 and palette.tolist() == _BLACK_WHITE))
    alpha = bits == 32 and packing == _BITFIELDS and size >= 56 and _alpha_mask(head) == 0xFF000000

    def decode(page: int, box: Box) -> NDArray[Any]:
        (top, bottom), (left, right) = box
        part = stored[rows - bottom : rows - top][::-1] if down else stored[top:bottom]
        if bits >= 24:
            pixels = part[:, : width * bits // 8].reshape(len(part), width, bits // 8)[:, left:right]
            return np.moveaxis(pixels[..., (2, 1, 0, 3) if alpha else (2, 1, 0)], -1, 0)
        return _unpacked(part, bits)[None, :, left:right]

    channels = 1 if bits <= 8 else 4 if alpha else 3
    return Stored(
        format="BMP",
        pages=1,
        channels=channels,
        size=(rows, width),
        dtype=np.dtype(np.uint8),
        colour="RGB" if bits > 8 else "grey" if grey else "palette",
        bits=min(bits, 8),
        decode=decode,
        close=lambda: None,
        alpha=3 if alpha else None,
        palette=None if grey else palette,
    )


def _plain(head: bytes, size: int, bits: int, packing: int) -> bool:
    if packing == _BITFIELDS and bits == 32:
        return struct.unpack_from("<III", head, 54) == _BGRA_MASKS
    return packing == _RGB


def _alpha_mask(head: bytes) -> int:
    return int(struct.unpack_from("<I", head, 66)[0])


def _bmp_palette(head: bytes, size: int, count: int, start: int) -> NDArray[np.uint8]:
    """(N, 3) colours between header and pixels."""
    count = min(count, 256, (start - 14 - size) // 4)
    if count < 1:
        raise ValueError("BMP without its colours")
    return np.frombuffer(head, np.uint8, 4 * count, 14 + size).reshape(-1, 4)[:, 2::-1]


def _ramp(palette: NDArray[np.uint8]) -> bool:
    """Whether the colours are the grey values themselves."""
    return bool(np.all(palette == np.arange(len(palette))[:, None]))


def _unpacked(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Numbers of 1, 4 or 8 bits, the first in the high bits; longer than the row by its padding."""
    if bits == 8:
        return rows
    if bits == 1:
        return np.unpackbits(rows, axis=1)
    return np.stack((rows >> 4, rows & 15), axis=-1).reshape(len(rows), -1)


def open_pnm(path: Path, max_pixels: int) -> Stored:
    """A binary PGM or PPM of 8 or 16 bits, its values as stored.

    Raises:
        DataError: damaged, or too large.
    """
    with decoding(path):
        with path.open("rb") as file:
            match = _PNM_HEADER.match(file.read(4096))
        if match is None:
            raise ValueError("no such PGM or PPM header")
        width, height, top_value = map(int, match.groups()[1:])
        if not 1 <= top_value <= 65535:
            raise ValueError(f"a largest value of {top_value}")
    channels = 3 if match[1] == b"6" else 1
    within_budget(path, (height, width), channels, max_pixels, "an image")
    dtype = np.dtype(np.uint8 if top_value < 256 else ">u2")
    with decoding(path):
        stored = _Rows(path, match.end(), height, width * channels * dtype.itemsize).map
    pixels = stored.view(dtype).reshape(height, width, channels)

    def decode(page: int, box: Box) -> NDArray[Any]:
        part = pixels[slice(*box[0]), slice(*box[1])]
        return np.moveaxis(part, -1, 0).astype(dtype.newbyteorder("="))

    return Stored(
        format="PNM",
        pages=1,
        channels=channels,
        size=(height, width),
        dtype=dtype.newbyteorder("="),
        colour="RGB" if channels == 3 else "grey",
        bits=dtype.itemsize * 8,
        decode=decode,
        close=lambda: None,
    )
