"""MetaImage: `.mha` with its voxels, or `.mhd` with a file of voxels beside it.

The header is lines of `Key = value` up to `ElementDataFile`; directions and origin are those of DICOM (left,
posterior, superior) and become RAS here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Stored, decoding, refused
from .geometry import Geometry
from .lps import from_lps, to_lps
from .voxels import Layout, volume

SUFFIXES = (".mha", ".mhd")

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LINE = re.compile(rb"\s*(\w+)\s*=\s*(.*?)\s*$")
_BEGINS = re.compile(rb"\s*(ObjectType\s*=\s*Image|NDims\s*=\s*\d)", re.I)
_HEADER_BYTES = 1 << 16


def is_metaimage(path: Path, head: bytes) -> bool:
    """Whether a file begins like MetaImage."""
    return _BEGINS.match(head) is not None


def open_metaimage(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """A MetaImage file, its voxels not read yet.

    Raises:
        DataError: a damaged header, voxels that are not there, or a file of voxels outside the folder.
    """
    with decoding(path):
        fields, end = _fields(path)
        axes = int(fields["NDims"])
        if axes not in (2, 3):
            raise refused(path, f"{axes} axes", "2 or 3 axes", "save each volume alone", "B17")
        size = (*_numbers(fields, "DimSize", axes, int), 1)[:3]
        channels = int(fields.get("ElementNumberOfChannels", "1"))
        big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
        dtype = np.dtype(_TYPES[fields["ElementType"].removesuffix("_ARRAY")]).newbyteorder(
            ">" if big else "<"
        )
        if not (_true(fields, "BinaryData", "True")):
            raise refused(path, "voxels as text", "binary voxels", "export it again as .mha", "F21")
        geometry = _geometry(path, fields, axes)
        source, start = _source(path, fields["ElementDataFile"], end)
        packed = _true(fields, "CompressedData")
    layout = Layout(
        source,
        0 if packed else start,
        dtype,
        (channels, *(size[::-1])),
        inner=channels > 1,
        packing="zlib" if packed else "",
        start=start,
    )
    return volume("MetaImage", layout, max_pixels, mask=mask, geometry=geometry)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header, and where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(_HEADER_BYTES)
            found = _LINE.match(line)
            if not line or file.tell() > _HEADER_BYTES:
                raise ValueError("its header has no ElementDataFile")
            if found:
                fields[found[1].decode("ascii")] = found[2].decode("utf-8")
        return fields, file.tell()


def _numbers(fields: Mapping[str, str], key: str, count: int, kind: type = float) -> tuple[Any, ...]:
    values = tuple(kind(word) for word in fields[key].split())
    if len(values) != count:
        raise ValueError(f"{key} has {len(values)} numbers, not {count}")
    return values


def _true(fields: Mapping[str, str], key: str, default: str = "False") -> bool:
    return fields.get(key, default).strip().lower() in ("true", "1")


def _source(path: Path, named: str, end: int) -> tuple[Path, int]:
    """File of the voxels and where they begin."""
    if named.upper() == "LOCAL":
        return path, end
    if named.split()[0].upper() == "LIST" or "%" in named:
        raise refused(path, "a list of slice files", "one file of voxels", "export it again as .mha", "F21")
    return beside(path, named), 0


def beside(path: Path, named: str) -> Path:
    """A file of voxels that a header names; only one that lies beside the header is opened.

    Raises:
        DataError: it lies elsewhere, or nowhere.
    """
    other = path.with_name(Path(named).name)
    if named not in (other.name, f"./{other.name}") or not other.is_file():
        found = f"voxels in {named!r}, which is not a file beside it"
        raise refused(path, found, "header and voxels in one folder", "copy both, or export one file", "F17")
    return other


def _geometry(path: Path, fields: Mapping[str, str], axes: int) -> Geometry:
    """Spacing, and the affine where there are three axes."""
    key = next((k for k in ("ElementSpacing", "ElementSize") if k in fields), None)
    spacing = _numbers(fields, key, axes) if key else (1.0,) * axes
    origin_key = next((k for k in ("Offset", "Position", "Origin") if k in fields), None)
    turn_key = next((k for k in ("TransformMatrix", "Orientation", "Rotation") if k in fields), None)
    origin = _numbers(fields, origin_key, axes) if origin_key else (0.0,) * axes
    turn = _numbers(fields, turn_key, axes * axes) if turn_key else tuple(np.eye(axes).ravel())
    world = axes == 3 and (origin_key is not None or turn_key is not None)
    return from_lps(
        path, spacing, np.reshape(turn, (axes, axes)).T, origin, world=world, known=key is not None
    )


def save_metaimage(
    to: Path, labels: NDArray[Any], palette: NDArray[Any] | None, geometry: Geometry | None
) -> None:
    """A packed `.mha` of labels where the image was."""
    import zlib

    labels = labels[None] if labels.ndim == 2 and geometry is not None and geometry.affine else labels
    spacing, directions, origin = to_lps(geometry, labels.ndim)
    stored = np.ascontiguousarray(labels).astype(labels.dtype.newbyteorder("<"))
    kind = next(name for name, code in _TYPES.items() if np.dtype(code) == labels.dtype.newbyteorder("="))
    kind = {"MET_LONG": "MET_INT", "MET_ULONG": "MET_UINT"}.get(kind, kind)
    packed = zlib.compress(stored.tobytes())
    lines = {
        "ObjectType": "Image",
        "NDims": labels.ndim,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": len(packed),
        "TransformMatrix": _words(directions.T.ravel()),
        "Offset": _words(origin),
        "ElementSpacing": _words(spacing),
        "DimSize": " ".join(map(str, reversed(labels.shape))),
        "ElementType": kind,
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    to.write_bytes(text.encode("ascii") + packed)


def _words(numbers: Any) -> str:
    return " ".join(repr(float(n)) for n in numbers)
