"""GIF and WebP: one picture a file, an animation is refused."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Stored, decoding, file_bytes, lossy_mask, refused, within_budget
from .raster import Cached, exif_orientation, loaded

_ANIMATED, _HAS_ALPHA = 0x02, 0x10


def _moving(path: Path, name: str) -> Exception:
    return refused(
        path, f"an animated {name}", "one picture a file", "save its frames as a TIFF stack", "C22"
    )


def open_gif(path: Path, max_pixels: int) -> Stored:
    """A GIF file of one picture that fills it.

    Raises:
        DataError: damaged, animated, or too large.
    """
    from PIL import GifImagePlugin

    data = file_bytes(path)
    with decoding(path):
        width, height = struct.unpack_from("<HH", data, 6)
        within_budget(path, (height, width), 1, max_pixels, "an image")
        image = GifImagePlugin.GifImageFile(io.BytesIO(data))
        if image.is_animated:
            raise _moving(path, "GIF")
        if image.size != (width, height) or image.tile[0][1] != (0, 0, width, height):
            raise ValueError("its picture does not fill it")
        palette = _gif_palette(image)
    pixels = Cached(path, lambda: loaded(GifImagePlugin.GifImageFile(io.BytesIO(data))))
    return Stored(
        format="GIF",
        pages=1,
        channels=1,
        size=(height, width),
        dtype=np.dtype(np.uint8),
        colour="grey" if palette is None else "palette",
        bits=8,
        decode=pixels.decode,
        close=pixels.close,
        palette=palette,
        notes=("its transparency key is not used",) if "transparency" in image.info else (),
    )


def _gif_palette(image: Any) -> NDArray[np.uint8] | None:
    """(N, 3) colours, or None where they are the grey values themselves."""
    if image.mode == "L":
        return None
    if image.mode != "P":
        raise ValueError(f"a GIF of mode {image.mode}")
    return np.asarray(image.getpalette(), np.uint8).reshape(-1, 3)


def open_webp(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """A WebP file; only the lossless kind is a mask.

    Raises:
        DataError: damaged, animated, too large, or lossy where a mask is wanted.
    """
    from PIL import WebPImagePlugin

    data = file_bytes(path)
    with decoding(path):
        chunks = _webp_chunks(data)
        if chunks.get(b"VP8X", b"\0")[0] & _ANIMATED or b"ANIM" in chunks:
            raise _moving(path, "WebP")
        sizes, alpha = _webp_sizes(chunks)
        for size in sizes:
            within_budget(path, size, 4, max_pixels, "an image")
    if mask and b"VP8L" not in chunks:
        raise lossy_mask(path, "lossy WebP")
    with decoding(path):
        image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
        orientation = exif_orientation(image.getexif())
        if (image.size[1], image.size[0]) not in sizes:
            raise ValueError("sizes that differ")
        alpha = alpha and image.mode == "RGBA"
    pixels = Cached(path, lambda: loaded(WebPImagePlugin.WebPImageFile(io.BytesIO(data))))
    channels = 4 if alpha else 3
    return Stored(
        format="WebP",
        pages=1,
        channels=channels,
        size=(image.size[1], image.size[0]),
        dtype=np.dtype(np.uint8),
        colour="RGB",
        bits=8,
        decode=lambda page, box: pixels.decode(page, box)[:channels],
        close=pixels.close,
        alpha=3 if alpha else None,
        orientation=orientation,
    )


def _webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """The first 16 bytes of each block by name; the file must hold all of what it says."""
    length = struct.unpack_from("<I", data, 4)[0] + 8
    if length > len(data):
        raise ValueError(f"WebP ends at byte {len(data)} of {length}")
    found: dict[bytes, bytes] = {}
    position = 12
    while position + 8 <= length:
        name, size = struct.unpack_from("<4sI", data, position)
        if position + 8 + size > length:
            raise ValueError(f"WebP ends at byte {length}, inside a block of {size} bytes")
        found.setdefault(name, data[position + 8 : position + 24])
        position += 8 + size + (size & 1)
    return found


def _webp_sizes(chunks: dict[bytes, bytes]) -> tuple[list[tuple[int, int]], bool]:
    """Every (rows, columns) that the file states, and whether its pixels have opacity."""
    sizes, alpha = [], False
    if b"VP8X" in chunks:
        head = chunks[b"VP8X"]
        sizes.append((int.from_bytes(head[7:10], "little") + 1, int.from_bytes(head[4:7], "little") + 1))
        alpha = bool(head[0] & _HAS_ALPHA)
    if b"VP8 " in chunks:
        width, height = struct.unpack_from("<HH", chunks[b"VP8 "], 6)
        sizes.append((height & 0x3FFF, width & 0x3FFF))
    elif b"VP8L" in chunks:
        word = int.from_bytes(chunks[b"VP8L"][1:5], "little")
        sizes.append(((word >> 14 & 0x3FFF) + 1, (word & 0x3FFF) + 1))
        alpha = alpha or bool(word >> 28 & 1)
    else:
        raise ValueError("WebP without pixels")
    return sizes, alpha
