"""NRRD: `.nrrd` with its voxels, or `.nhdr` with a file of voxels beside it; the header through pynrrd."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Stored, decoding, refused
from .geometry import Geometry
from .lps import from_lps, to_lps
from .metaimage import beside
from .voxels import Layout, needed, volume

SUFFIXES = (".nrrd", ".nhdr")

_PACKINGS = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_SPATIAL = ("domain", "space", "none", "???")
_BYTES = {
    "char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "longlong": 8, "long": 8, "int64": 8,
    "float": 4, "double": 8,
}  # fmt: skip
_HEADER_BYTES = 1 << 16


def open_nrrd(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """An NRRD file, its voxels not read yet.

    Raises:
        DataError: a damaged header, an encoding or axes not read here, or voxels that are not there.
        EnvironmentFault: pynrrd is missing.
    """
    with decoding(path):
        header, end = _header(path)
        packing = _PACKINGS.get(header["encoding"].lower())
        if packing is None:
            fix = "export it with raw or gzip encoding"
            raise refused(path, f"voxels in {header['encoding']!r} encoding", "raw or gzip", fix, "F21")
        source, start = path, end
        named = header.get("data file", header.get("datafile"))
        if named is not None:
            source, start = beside(path, named), 0
        if any(header.get(key, header.get(key.replace(" ", ""), 0)) for key in ("line skip", "byte skip")):
            raise refused(path, "bytes to skip", "voxels right after the header", "export it again", "F21")
        sizes = [int(n) for n in header["sizes"]]
        channels, size, inner = _axes(path, sizes, header, mask=mask)
        layout = Layout(
            source, 0 if packing else start, _dtype(header), (channels, *size), inner, packing, start
        )
        geometry = _geometry(path, header, len(sizes) - (channels > 1), inner=inner)
    return volume("NRRD", layout, max_pixels, mask=mask, geometry=geometry)


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """The header, and where it ends."""
    try:
        import nrrd
    except ImportError as error:
        raise needed("pynrrd", "medical", "NRRD") from error
    with path.open("rb") as file:
        lines = _lines(file)
        return nrrd.read_header(iter(lines)), file.tell()


def _lines(file: IO[bytes]) -> list[bytes]:
    """Lines up to the empty one, or to the end of a header that stands alone."""
    lines = []
    while (line := file.readline(_HEADER_BYTES)).strip():
        lines.append(line)
        if file.tell() > _HEADER_BYTES:
            raise ValueError("its header does not end")
    return lines


def _dtype(header: Mapping[str, Any]) -> np.dtype[Any]:
    """Of `unsigned short int`, `ushort`, `uint16_t` and all other names of a type."""
    words = str(header["type"]).lower().removesuffix("_t").split()
    unsigned = "unsigned" in words or words[0].startswith("u")
    plain = [word.removeprefix("u") for word in words if word not in ("signed", "unsigned")]
    name = next((word for word in plain if word in _BYTES), "int")
    size = 8 if plain[:2] == ["long", "long"] else _BYTES[name]
    kind = "f" if name in ("float", "double") else "u" if unsigned else "i"
    if name == "int" and plain not in ([], ["int"]):
        raise ValueError(f"numbers of type {header['type']!r}")
    return np.dtype(f"{kind}{size}").newbyteorder(">" if header.get("endian") == "big" else "<")


def _axes(
    path: Path, sizes: list[int], header: Mapping[str, Any], *, mask: bool
) -> tuple[int, tuple[int, int, int], bool]:
    """Channels, (Z, Y, X), and whether the channels of a voxel lie side by side; the first axis is the fastest."""
    kinds = [kind.lower() for kind in header.get("kinds", ())] or ["domain"] * len(sizes)
    strange = [i for i, kind in enumerate(kinds) if kind not in _SPATIAL]
    inner = strange == [0] and len(sizes) in (3, 4)
    outer = len(sizes) == 4 and (strange in ([3], []))
    if inner:
        channels, spatial = sizes[0], sizes[1:]
    elif outer:
        channels, spatial = sizes[3], sizes[:3]
    elif not strange and len(sizes) in (2, 3):
        channels, spatial = 1, sizes
    else:
        found = f"axes of {' × '.join(map(str, sizes))} ({' '.join(kinds)})"
        raise refused(path, found, "2 or 3 axes, or one more for channels", "save each volume alone", "B17")
    if mask and channels > 1:
        fix = "save one volume a file; overlapping classes go in as one mask a class"
        raise refused(path, f"a mask of {channels} numbers a voxel", "one number", fix, "G06")
    x, y, z = (*spatial, 1)[:3]
    return channels, (z, y, x), inner and channels > 1


def _geometry(path: Path, header: Mapping[str, Any], axes: int, *, inner: bool) -> Geometry | None:
    """Spacing and affine from `space directions`, or the spacing alone from `spacings`."""
    first = int(inner)
    if "space directions" not in header:
        if "spacings" not in header:
            return None
        spacing = np.asarray(header["spacings"], np.float64)[first : first + axes]
        return None if np.isnan(spacing).all() else from_lps(path, spacing, np.eye(axes), (), world=False)
    vectors = np.array([row for row in header["space directions"] if row is not None], np.float64)
    vectors = vectors[~np.isnan(vectors).any(axis=1)]
    lengths = np.linalg.norm(vectors, axis=1)
    signs = _TO_LPS.get(str(header.get("space", "")).lower())
    if signs is None or vectors.shape != (3, 3):
        return from_lps(path, lengths[:axes], np.eye(len(lengths[:axes])), (), world=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        directions = (vectors / lengths[:, None] * signs).T
    origin = np.asarray(header.get("space origin", (0, 0, 0)), np.float64) * signs
    return from_lps(path, lengths, directions, origin)


def save_nrrd(
    to: Path, labels: NDArray[Any], palette: NDArray[Any] | None, geometry: Geometry | None
) -> None:
    """A packed `.nrrd` of labels where the image was."""
    try:
        import nrrd
    except ImportError as error:
        raise needed("pynrrd", "medical", "NRRD") from error
    labels = labels[None] if labels.ndim == 2 and geometry is not None and geometry.affine else labels
    spacing, directions, origin = to_lps(geometry, labels.ndim)
    header: dict[str, Any] = {"encoding": "gzip", "kinds": ["domain"] * labels.ndim}
    if geometry is not None and geometry.affine is not None and labels.ndim == 3:
        header |= {
            "space": "left-posterior-superior",
            "space directions": (directions * spacing).T,
            "space origin": origin,
        }
    elif geometry is not None:
        header["spacings"] = spacing
    with to.open("wb") as file:
        nrrd.write(file, np.ascontiguousarray(labels), header, index_order="C", compression_level=6)
