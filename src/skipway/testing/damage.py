"""F: files that are damaged, or that lie about their size."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skipway.testing.cases import Case, case, load, pairs_of, tiffs


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Any:
    def spoil(root: Path) -> None:
        path = root / "images" / name
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _flip(data: bytes) -> bytes:
    """One bit in the middle of the compressed pixels."""
    place = data.index(b"IDAT") + 40
    return data[:place] + bytes((data[place] ^ 8,)) + data[place + 1 :]


def _jpegs(root: Path, seed: int) -> None:
    pairs_of(root, seed, suffix=".jpg")


def _flip_late(data: bytes) -> bytes:
    place = len(data) * 3 // 4
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(size: tuple[int, int], pixels: bytes) -> bytes:
    """An 8-bit grey PNG that says it is of `size`, around compressed rows."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _zeros(side: int) -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    return b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])


def _claims(root: Path) -> None:
    (root / "images/c2.png").write_bytes(png((60_000, 60_000), zlib.compress(bytes(900))))


def _bomb(root: Path) -> None:
    (root / "images/c2.png").write_bytes(png((13_000, 13_000), _zeros(13_000)))


def _tag(data: bytes, code: int, value: int) -> bytes:
    """Another value in the first directory of a little-endian TIFF."""
    start = struct.unpack_from("<I", data, 4)[0]
    changed = bytearray(data)
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        place = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, place)[0] == code:
            struct.pack_into("<I", changed, place + 8, value)
    return bytes(changed)


def _circle(data: bytes) -> bytes:
    """The first directory says that it is also the next."""
    start = struct.unpack_from("<I", data, 4)[0]
    place = start + 2 + 12 * struct.unpack_from("<H", data, start)[0]
    return data[:place] + struct.pack("<I", start) + data[place + 4 :]


def _unreadable(root: Path) -> None:
    (root / "images/c2.png").chmod(0)


def _icon(root: Path) -> None:
    from PIL import Image

    path = root / "images/c2.png"
    Image.fromarray(load(path)).save(path.with_suffix(".ico"), sizes=[(48, 48)])
    path.with_suffix(".ico").rename(path)


def _pictures(root: Path) -> None:
    """Two JPEGs in one file, as stereo cameras write them."""
    from PIL import Image

    first, second = (Image.fromarray(load(root / f"images/c{k}.png")) for k in (1, 2))
    first.save(root / "images/c1.mpo", format="MPO", save_all=True, append_images=[second])
    (root / "images/c1.mpo").rename(root / "images/c1.jpg")
    (root / "images/c1.png").unlink()


def _huge_array(root: Path) -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    text = header.ljust(117) + "\n"
    (root / "images/c1.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
    (root / "images/c1.png").unlink()


CASES: tuple[Case, ...] = (
    case(
        "F01", "a PNG cut in the middle", "E", _bytes("c2.png", lambda d: d[: len(d) // 2]), says=("c2.png",)
    ),
    case("F01-empty", "0 bytes", "E", _bytes("c2.png", lambda d: b""), code="F01", says=("c2.png", "empty")),
    case(
        "F02",
        "a JPEG cut in the middle",
        "E",
        _bytes("c2.jpg", lambda d: d[: len(d) // 2]),
        _jpegs,
        code="F01",
        says=("c2.jpg",),
    ),
    case("F03", "a PNG with one bit flipped", "E", _bytes("c2.png", _flip), code="F01", says=("c2.png",)),
    case(
        "F04",
        "a JPEG with one bit flipped",
        "R",
        _bytes("c2.jpg", _flip_late),
        _jpegs,
        holds=lambda f: len(f.records) == 6,
    ),
    case(
        "F06", "a TIFF that never ends", "E", _bytes("c2.tif", _circle), tiffs, code="F01", says=("c2.tif",)
    ),
    case(
        "F07",
        "65529 samples a pixel",
        "E",
        _bytes("c2.tif", lambda d: _tag(d, 277, 65_529)),
        tiffs,
        says=("c2.tif",),
    ),
    case("F08", "60 000 × 60 000 in 1 kB", "E", _claims, says=("c2.png", "60000")),
    case("F09", "169 million zeros in 164 kB", "E", _bomb, code="F08", says=("c2.png",)),
    case("F13", "an array of 8 TB in its header", "E", _huge_array, code="F01", says=("c1.npy",)),
    case("F17", "a file that may not be read", "E", _unreadable, says=("c2.png",), root_sees_it=False),
    case(
        "F19",
        "a PNG with a zip archive behind it",
        "R",
        _bytes("c2.png", lambda d: d + b"PK\5\6" + bytes(18)),
        holds=lambda f: len(f.records) == 6,
    ),
    case("F22", "two pictures in one JPEG", "W", _pictures, says=("c1.jpg",)),
    case("F22-icon", "an icon named .png", "E", _icon, code="A15", says=("c2.png",)),
)
