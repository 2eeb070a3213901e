"""G: volumes whose header says where they lie, written by hand as NIfTI-1."""

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.testing.cases import Case, case, picture, scene

UPRIGHT = ((0.5, 0, 0, 3), (0, 0.5, 0, 5), (0, 0, 2, 7))


def nifti(
    path: Path,
    volume: NDArray[Any],
    affine: Sequence[Sequence[float]] = UPRIGHT,
    *,
    spacing: Sequence[float] | None = None,
    qform: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
    offset: float = 352.0,
) -> None:
    """A volume (Z, Y, X) as NIfTI-1, compressed where the name says so.

    Args:
        path: Ends in .nii or .nii.gz.
        volume: uint8, int16 or float32.
        affine: Three rows of the sform.
        spacing: In the header; that of the affine without it.
        qform: Quaternion (b, c, d) and offset (x, y, z), for a header with both forms.
        shape: What the header claims, axes X, Y, Z, …
        offset: Where the header says that the pixels begin.
    """
    kind, bits = {"uint8": (2, 8), "int16": (4, 16), "float32": (16, 32)}[volume.dtype.name]
    steps = spacing or [float(np.linalg.norm([row[k] for row in affine])) for k in range(3)]
    sides = list(shape or volume.shape[::-1])
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(sides), *(sides + [1] * 7)[:7])
    struct.pack_into("<2h", header, 70, kind, bits)
    struct.pack_into("<8f", header, 76, 1, *steps, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, offset, 1, 0)
    struct.pack_into("<2h", header, 252, 1 if qform else 0, 1)
    struct.pack_into("<6f", header, 256, *(qform or (0,) * 6))
    struct.pack_into("<12f", header, 280, *(value for row in affine for value in row))
    header[344:348] = b"n+1\0"
    header[123] = 2
    data = bytes(header) + np.ascontiguousarray(volume).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def volumes(root: Path, seed: int) -> None:
    """Four volumes of six slices with masks."""
    for k in range(4):
        rng = np.random.default_rng([seed, k])
        labels = scene(rng, (32, 40), 4)
        image = np.stack([picture(rng, labels) for _ in range(6)])
        nifti(root / f"images/v{k}.nii.gz", image)
        nifti(root / f"masks/v{k}.nii.gz", np.stack([(labels > 0).astype(np.uint8)] * 6))


def _again(name: str, **others: Any) -> Any:
    """One file written again with another header."""

    def spoil(root: Path) -> None:
        path = root / name
        data = gzip.decompress(path.read_bytes())
        nifti(path, np.frombuffer(data, np.uint8, offset=352).reshape(6, 32, 40), **others)

    return spoil


def _moved(row: int, by: float) -> list[list[float]]:
    rows = [list(map(float, line)) for line in UPRIGHT]
    rows[row][3] += by
    return rows


def _fourth(root: Path) -> None:
    for k in range(4):
        for folder in ("images", "masks"):
            _again(f"{folder}/v{k}.nii.gz", shape=(40, 32, 6, 1))(root)


def _all(**others: Any) -> Any:
    def spoil(root: Path) -> None:
        for k in range(4):
            for folder in ("images", "masks"):
                _again(f"{folder}/v{k}.nii.gz", **others)(root)

    return spoil


def _squeezed(root: Path) -> None:
    """Zeros that unpack to a thousand times their size, as many as the header says."""
    path = root / "images/v2.nii.gz"
    nifti(path, np.zeros((1, 1, 1), np.uint8), shape=(1000, 1000, 600))
    head = gzip.decompress(path.read_bytes())[:352]
    zeros = gzip.compress(bytes(10_000_000), mtime=0)
    path.write_bytes(gzip.compress(head, mtime=0) + 61 * zeros)


def _dicom(root: Path) -> None:
    """A file of DICOM with a transfer syntax that nobody decodes."""
    name = b"1.2.840.10008.1.2.4.999\0"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(name)) + name
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    numbers = {0x02: 1, 0x10: 32, 0x11: 40, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}  # samples, sides, bits
    image = b"".join(struct.pack("<HH2sHH", 0x28, tag, b"US", 2, value) for tag, value in numbers.items())
    kind = struct.pack("<HH2sH", 0x28, 4, b"CS", 12) + b"MONOCHROME2 "
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    packed = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 8) + bytes(8)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    body = image[:10] + kind + image[10:] + pixels + packed + end
    (root / "images/v2.dcm").write_bytes(bytes(128) + b"DICM" + group + meta + body)
    (root / "images/v2.nii.gz").unlink()


SLANTED = ((0.4, -0.3, 0, 3), (0.3, 0.4, 0, 5), (0, 0, 2, 7))


def _read(found: Any) -> bool:
    return len({p.image.path for p in found.pairs.pairs}) == 4 and all(
        r.size == (32, 40) for r in found.records
    )


CASES: tuple[Case, ...] = (
    case("F10", "zeros that unpack a thousandfold", "E", _squeezed, volumes, says=("v2",)),
    case(
        "F11",
        "sides of 30000 that are not there",
        "E",
        _again("images/v2.nii.gz", shape=(30000, 30000, 30000)),
        volumes,
        says=("v2",),
    ),
    case(
        "F21", "DICOM of an unknown coding", "E", _dicom, volumes, says=("v2.dcm", "1.2.840.10008.1.2.4.999")
    ),
    case(
        "G01",
        "an origin that differs",
        "E",
        _again("masks/v2.nii.gz", affine=_moved(0, 4)),
        volumes,
        says=("v2",),
    ),
    case(
        "G02",
        "a spacing that differs",
        "E",
        _again("masks/v2.nii.gz", affine=((0.5, 0, 0, 3), (0, 0.5, 0, 5), (0, 0, 3, 7))),
        volumes,
        says=("v2",),
    ),
    case(
        "G03",
        "a mask that runs from right to left",
        "E",
        _again("masks/v2.nii.gz", affine=((-0.5, 0, 0, 22.5), (0, 0.5, 0, 5), (0, 0, 2, 7))),
        volumes,
        says=("v2",),
    ),
    case(
        "G04",
        "a direction that differs by 1e-8",
        "R",
        _again("masks/v2.nii.gz", affine=_moved(1, 1e-8)),
        volumes,
        holds=_read,
    ),
    case(
        "G05",
        "two forms that differ",
        "E",
        _again("images/v2.nii.gz", qform=(0, 0, 0, -30, 9, 9)),
        volumes,
        says=("v2",),
    ),
    case("G06", "a fourth axis of one", "R", _fourth, volumes, holds=_read),
    case(
        "G07",
        "a spacing of 0",
        "E",
        _again("images/v2.nii.gz", affine=((0, 0, 0, 3), (0, 0.5, 0, 5), (0, 0, 2, 7)), spacing=(0, 0.5, 2)),
        volumes,
        says=("v2",),
    ),
    case(
        "G08",
        "0.5 × 0.5 × 5 mm",
        "R",
        _all(affine=((0.5, 0, 0, 3), (0, 0.5, 0, 5), (0, 0, 5, 7))),
        volumes,
        holds=_read,
    ),
    case("G09", "slanted axes", "R", _all(affine=SLANTED), volumes, holds=_read),
)
