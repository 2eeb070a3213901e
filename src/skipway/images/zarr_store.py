"""Chunks of a Zarr folder, refused where they would become more than a chunk.

Blosc, Zstandard and LZ4 write the size at the beginning, and libraries take that much memory because it says so. The
other codecs state none; what they hold is unfolded once as far as the limit. Only imported where zarr is installed.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore, WrapperStore

from .codecs import refused

_METADATA = (".json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_ZSTD = b"\x28\xb5\x2f\xfd"
_SPARE = 1 << 16
_UNSTATED: tuple[tuple[str, bytes, Callable[[], Any]], ...] = (
    ("gzip", b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    ("zlib", b"\x78", zlib.decompressobj),
    ("bz2", b"BZh", bz2.BZ2Decompressor),
    ("lzma", b"\xfd7zXZ", lzma.LZMADecompressor),
)
"""Codec, how its data begin, and what unfolds them piece by piece."""


class Guarded(WrapperStore[LocalStore]):
    """A folder whose chunks are looked at before anybody unfolds them.

    Args:
        path: The image, for messages.
        folder: The array.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(LocalStore(folder, read_only=True))
        self._path = path
        self._codecs: frozenset[str] = frozenset()
        self._limit = 1 << 62

    def limit(self, codecs: frozenset[str], chunk: int) -> None:
        """From now on refuse what becomes more than a chunk of so many bytes."""
        self._codecs, self._limit = codecs, 2 * chunk + _SPARE

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """The bytes of a key, as the store has them.

        Raises:
            DataError: they become more than a chunk, or say so.
        """
        value = await super().get(key, prototype, byte_range)
        if value is None or key.endswith(_METADATA):
            return value
        data = value.to_bytes()
        size = max(claimed(data, self._codecs), unfolded(data, self._codecs, self._limit))
        if size > self._limit:
            raise refused(
                self._path,
                f"a chunk {key} of {size} bytes or more",
                f"at most {self._limit}",
                "copy or save the folder again",
                "F08",
            )
        return value


def claimed(data: bytes, codecs: frozenset[str]) -> int:
    """Bytes that squeezed data say they become, 0 where they do not say.

    >>> claimed((1 << 30).to_bytes(4, "little") + bytes(9), frozenset({"lz4"}))
    1073741824
    """
    if "zstd" in codecs and data[:4] == _ZSTD and len(data) > 5:
        return _zstd(data)
    whole = int.from_bytes(data[12:16], "little") == len(data)
    if "blosc" in codecs and len(data) >= 16 and whole:
        return int.from_bytes(data[4:8], "little")
    return int.from_bytes(data[:4], "little") if "lz4" in codecs else 0


def unfolded(data: bytes, codecs: frozenset[str], limit: int) -> int:
    """Bytes that squeezed data of no stated size become, counted no further than one beyond the limit.

    >>> unfolded(zlib.compress(bytes(5000)), frozenset({"zlib"}), 100)
    101
    """
    for codec, start, unpacker in _UNSTATED:
        if codec in codecs and data.startswith(start):
            size = 0
            try:
                while data and size <= limit:
                    unpack = unpacker()
                    size += len(unpack.decompress(data, limit + 1 - size))
                    data = unpack.unused_data
            except (zlib.error, OSError, lzma.LZMAError):
                break  # damaged; reading says so
            return size
    return 0


def _zstd(data: bytes) -> int:
    """The frame content size of RFC 8878, 3.1.1.1."""
    head = data[4]
    flag, single = head >> 6, head >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[head & 3]
    length = (single, 2, 4, 8)[flag]
    return int.from_bytes(data[at : at + length], "little") + (256 if flag == 1 else 0)
