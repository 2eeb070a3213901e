"""NIfTI-1 and NIfTI-2 in one file, plain or in gzip: the header through nibabel, the voxels here.

The voxel order of the file is kept: its third axis counts pages, its second rows, its first columns. Nothing is
turned to a common orientation; the affine says where it lies, and is written back as it was.
"""

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Stored, decoding, refused
from .geometry import Geometry
from .lps import as_affine
from .voxels import Layout, needed, volume

SUFFIXES = (".nii", ".nii.gz")

_GZIP = b"\x1f\x8b"
_HEAD = 544
_UNITS = {"unknown": "", "meter": "m", "mm": "mm", "micron": "µm"}
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def is_nifti(path: Path, head: bytes) -> bool:
    """Whether a file begins like NIfTI, packed or not."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, _HEAD)
        except zlib.error:
            return False
    return _version(head) > 0


def _version(head: bytes) -> int:
    """1 or 2 by the size of the header and its magic, 0 for anything else."""
    size = {head[:4], head[:4][::-1]}
    if (348).to_bytes(4, "little") in size and head[344:347] == b"n+1":
        return 1
    return 2 if (540).to_bytes(4, "little") in size and head[4:7] == b"n+2" else 0


def open_nifti(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """A NIfTI file, its voxels not read yet.

    Args:
        path: The file.
        max_pixels: Limit, see `voxels.within_file`.
        mask: Whether it holds labels, which have no fourth axis.

    Raises:
        DataError: a damaged header, voxels the file does not have, axes that mean no image.
        EnvironmentFault: nibabel is missing.
    """
    packed = _is_packed(path)
    with decoding(path):
        head = _beginning(path, packed)
        header = _header(head)
        shape = tuple(int(n) for n in header.get_data_shape())
        offset = int(header["vox_offset"])
        dtype = header.get_data_dtype()
        slope, intercept = _scale(header)
    channels, size = _axes(path, shape, mask=mask)
    coloured = dtype == _RGB
    if coloured and channels > 1:
        raise refused(path, "colours along a fourth axis", "one picture", "save each volume alone", "B17")
    if offset < len(head):
        found = f"voxels that begin at byte {offset}, inside the header"
        raise refused(path, found, f"{len(head)} or more", "export the file again", "F11")
    layout = Layout(
        path,
        offset,
        np.dtype(np.uint8) if coloured else dtype,
        (3 if coloured else channels, *size),
        inner=coloured,
        packing="gzip" if packed else "",
    )
    notes = (f"its fourth axis of {channels} is read as channels",) if channels > 1 else ()
    return volume(
        "NIfTI", layout, max_pixels, mask=mask, geometry=_geometry(path, header, len(shape)), slope=slope,
        intercept=intercept, notes=notes,
    )  # fmt: skip


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _beginning(path: Path, packed: bool) -> bytes:
    with path.open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if packed else file
        head = stream.read(348)
        return head + stream.read(540 - 348) if _version(head) == 2 else head


def _header(head: bytes) -> Any:
    """The header through nibabel, which would mend and log what it finds odd if it were asked to check."""
    try:
        from nibabel import Nifti1Header, Nifti2Header
    except ImportError as error:
        raise needed("nibabel", "medical", "NIfTI") from error
    kind = Nifti2Header if _version(head) == 2 else Nifti1Header
    if len(head) < kind.sizeof_hdr:
        raise ValueError(f"ends inside its header of {kind.sizeof_hdr} bytes")
    return kind(binaryblock=head, check=False)


def _scale(header: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise ValueError(f"an intercept of {intercept}")
    return slope, intercept


def _axes(path: Path, shape: tuple[int, ...], *, mask: bool) -> tuple[int, tuple[int, int, int]]:
    """Channels, and (Z, Y, X), of axes (X, Y, Z, time, vector); those of length 1 count for nothing."""
    if len(shape) < 2 or len(shape) > 7:
        raise refused(path, f"{len(shape)} axes", "2 to 4 axes", "export the volume alone", "B17")
    x, y, z = (*shape, 1)[:3]
    further = [n for n in shape[3:] if n != 1]
    if not further:
        return 1, (z, y, x)
    times = " × ".join(map(str, shape))
    if mask:
        fix = "save one volume a file; overlapping classes go in as one mask a class"
        raise refused(path, f"a mask of four axes ({times})", "three axes", fix, "G06")
    if len(further) > 1:
        raise refused(path, f"axes of {times}", "2 to 4 axes", "save each volume alone", "B17")
    return further[0], (z, y, x)


def _geometry(path: Path, header: Any, axes: int) -> Geometry:
    """Spacing and affine; both transforms stay in `header`, since tools differ in which they read."""
    used = min(axes, 3)
    zooms = np.array(header["pixdim"][1 : 1 + used], np.float64)
    if not np.isfinite(zooms).all() or (zooms <= 0).any():
        raise refused(
            path,
            f"a spacing of {' × '.join(f'{z:g}' for z in zooms)} mm (x, y, z)",
            "sizes above 0",
            "set the voxel size (pixdim) in the header, or export the file again",
            "G07",
        )
    with decoding(path):
        forms = {"sform": header.get_sform(coded=True)[0], "qform": header.get_qform(coded=True)[0]}
        unit = _UNITS.get(header.get_xyzt_units()[0], "")
    known = {name: matrix for name, matrix in forms.items() if matrix is not None}
    affine = next(iter(known.values()), None)
    if affine is not None:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12 * lengths.prod():
            name = next(iter(known))
            fix = "set the transform of the header again, or export the file again"
            raise refused(path, f"a {name} without volume", "three axes that span the world", fix, "G07")
        zooms = lengths[:used]
    return Geometry(
        tuple(float(z) for z in zooms[::-1]),
        unit,
        None if affine is None else as_affine(affine),
        {"nifti": header.binaryblock, "axes": axes, **{n: as_affine(m) for n, m in known.items()}},
    )


def save_nifti(
    to: Path, labels: NDArray[Any], palette: NDArray[Any] | None, geometry: Geometry | None
) -> None:
    """A NIfTI file of labels; the place is that of the image to the bit where that was NIfTI."""
    _image(_narrow(labels), geometry).to_filename(to)


def write_nifti(
    to: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    slabs: Iterable[NDArray[Any]],
    geometry: Geometry | None,
) -> None:
    """The file of `save_nifti`, its voxels taken from slabs in the order of the file.

    Args:
        to: Packed where it ends in `.gz`.
        shape: (H, W) or (P, H, W).
        dtype: Of the labels.
        slabs: Rows from the first of the first page to the last of the last.
        geometry: Where they lie.
    """
    header = _image(np.broadcast_to(np.zeros((), dtype), shape), geometry).header
    offset = 544 if len(header.binaryblock) == 540 else 352
    header["vox_offset"] = offset
    header["magic"] = header.single_magic
    stored = np.dtype(dtype).newbyteorder(header.endianness)
    with gzip.open(to, "wb", 1) if to.name.lower().endswith(".gz") else to.open("wb") as file:
        file.write(header.binaryblock.ljust(offset, b"\0"))
        for slab in slabs:
            file.write(slab.astype(stored).tobytes())


def _image(stored: NDArray[Any], geometry: Geometry | None) -> Any:
    """Labels (H, W) or (P, H, W) with the header that puts them where the image was."""
    try:
        from nibabel import Nifti1Header, Nifti1Image, Nifti2Header, Nifti2Image
    except ImportError as error:
        raise needed("nibabel", "medical", "NIfTI") from error
    voxels = np.asarray(stored[None] if stored.ndim == 2 else stored).transpose(2, 1, 0)
    kept = geometry.header if geometry is not None else {}
    second = len(kept.get("nifti", b"")) == Nifti2Header.sizeof_hdr
    make_header, make_image = (Nifti2Header, Nifti2Image) if second else (Nifti1Header, Nifti1Image)
    if "nifti" in kept:
        header = make_header(binaryblock=kept["nifti"], check=False)
        header["vox_offset"] = 0
        affine = None
        if kept["axes"] == 2:
            voxels = voxels[:, :, 0]
    else:
        header = make_header()
        affine = _affine_of(geometry)
        header.set_xyzt_units("mm")
    zooms = np.array(header["pixdim"])
    header.set_data_dtype(stored.dtype)
    image = make_image(voxels, affine, header, dtype=stored.dtype)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"] = image.header["cal_max"] = 0  # the display range of the image, not of labels
    image.header["intent_code"] = 0
    image.header.extensions.clear()
    if affine is None:
        image.header["pixdim"][:4] = zooms[:4]
    else:
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
    return image


def _narrow(labels: NDArray[Any]) -> NDArray[Any]:
    """64-bit labels in 32 bits where they fit: most tools read no wider ones."""
    if labels.dtype.itemsize < 8:
        return labels
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    for narrow in (np.int32, np.uint32):
        if np.iinfo(narrow).min <= low and high <= np.iinfo(narrow).max:
            return labels.astype(narrow)
    return labels


def _affine_of(geometry: Geometry | None) -> NDArray[np.float64]:
    """The affine, or one made of the spacing alone where there is no world."""
    if geometry is not None and geometry.affine is not None:
        return np.array(geometry.affine)
    spacing = (*(geometry.spacing if geometry is not None else ())[::-1], 1.0, 1.0, 1.0)[:3]
    return np.diag([*spacing, 1.0])
