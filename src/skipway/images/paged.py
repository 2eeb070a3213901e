"""Label maps that are written from windows: tiled TIFF with pyramid levels, NIfTI by slabs, NumPy, OME-Zarr.

What is small enough goes through `write_labels`, so that a file does not depend on how its labels were made.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import EnvironmentFault, Problem

from .codecs import shown
from .formats import suffix_of
from .geometry import Geometry
from .nifti import write_nifti
from .reading import open_mask
from .tiff_tags import located, placed
from .writers import colours_of
from .writing import hidden_for, publish, told, write_labels

SMALL = 1 << 22
"""Pixels up to which a label map is written as a whole."""

TILE = 512
"""Side of a tile of a TIFF, and of a chunk of a Zarr."""

_SLAB = 1 << 22
_COARSEST = 1024
_LARGEST_TIFF = (1 << 32) - (1 << 27)

Read = Callable[[int, slice, slice], NDArray[Any]]


@dataclass(frozen=True)
class Paged:
    """Labels that are read window by window.

    Attributes:
        shape: (P, H, W).
        dtype: Whole numbers.
        read: `read(page, rows, columns)` gives (h, w).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Read

    @property
    def pixels(self) -> int:
        """Of all pages."""
        return math.prod(self.shape)

    def slabs(self) -> Iterator[NDArray[Any]]:
        """All pages from top to bottom, in bands of full width."""
        pages, height, width = self.shape
        step = max(1, _SLAB // max(1, width * self.dtype.itemsize))
        for page in range(pages):
            for top in range(0, height, step):
                rows = slice(top, min(top + step, height))
                yield self.read(page, rows, slice(0, width)).astype(self.dtype, copy=False)

    def whole(self) -> NDArray[Any]:
        """(H, W) of a single page, else (P, H, W)."""
        found = np.concatenate([*self.slabs()]).reshape(self.shape) if self.pixels else np.empty(self.shape)
        return found[0] if self.shape[0] == 1 else found


def write_paged(
    path: Path, labels: Paged, *, palette: NDArray[Any] | None = None, geometry: Geometry | None = None
) -> Path:
    """Writes labels that may be larger than memory; the file is there complete, or not at all, and reads back equal.

    Args:
        path: As for `write_labels`. PNG, NRRD and MetaImage are made in memory.
        labels: What to write.
        palette: See `write_labels`.
        geometry: See `write_labels`.

    Returns:
        The path written.

    Raises:
        EnvironmentFault: the disk refused, or gave back other values than were written.
    """
    save = WRITERS.get(suffix_of(path).lower())
    if save is None or labels.pixels <= SMALL:
        return write_labels(path, labels.whole(), palette=palette, geometry=geometry)
    to = hidden_for(path)
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            to.unlink(missing_ok=True)
            save(to, labels, palette, geometry)
            _compare(to, path, labels)
            publish(to, path)
    finally:
        to.unlink(missing_ok=True)
    return path


def write_planes(
    path: Path,
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
    read: Callable[[int, int, slice, slice], NDArray[Any]],
    *,
    geometry: Geometry | None = None,
) -> Path:
    """Writes a tiled, compressed TIFF of several numbers a pixel; there complete, or not at all.

    Args:
        path: `.tif` or `.tiff`.
        shape: (P, K, H, W), stored with axes ZCYX, or CYX for one page.
        dtype: Of the numbers.
        read: `read(page, k, rows, columns)` gives (h, w).
        geometry: Where the pixels lie, kept as far as tags can.

    Raises:
        EnvironmentFault: the disk refused.
    """
    import tifffile

    pages, planes, height, width = shape

    def plane(number: int, rows: slice, columns: slice) -> NDArray[Any]:
        return read(number // planes, number % planes, rows, columns)

    kept = shape[1:] if pages == 1 else shape
    extra = located(geometry, "ZCYX"[-len(kept) :])
    ome, tile = extra.pop("ome"), tile_of(height, width)
    large = math.prod(shape) * dtype.itemsize > _LARGEST_TIFF
    to = hidden_for(path)
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            to.unlink(missing_ok=True)
            with tifffile.TiffWriter(to, bigtiff=large, ome=ome) as file:
                file.write(
                    _tiles(Paged((pages * planes, height, width), dtype, plane), 1, tile), shape=kept,
                    dtype=dtype, photometric="minisblack", planarconfig=None, tile=tile, compression="zlib",
                    maxworkers=1, **extra,
                )  # fmt: skip
            publish(to, path)
    finally:
        to.unlink(missing_ok=True)
    return path


def _compare(to: Path, path: Path, labels: Paged) -> None:
    """Reads back what was written, in bands of tiles."""
    with open_mask(to) as file:
        equal = (file.pages, *file.size) == labels.shape
        for page in range(labels.shape[0] if equal else 0):
            for top in range(0, labels.shape[1], TILE):
                for left in range(0, labels.shape[2], 8 * TILE):
                    rows = slice(top, min(top + TILE, labels.shape[1]))
                    columns = slice(left, min(left + 8 * TILE, labels.shape[2]))
                    there = file.read(page, (rows, columns))[0]
                    equal = equal and np.array_equal(there, labels.read(page, rows, columns))
    if not equal:
        found = "the file read back differs from what was written"
        raise EnvironmentFault(Problem(found, shown(path), "equal labels", "check the disk"))


def levels(height: int, width: int) -> int:
    """Coarser levels of a pyramid, each half as large, until a side of 1024 pixels is met.

    >>> levels(1000, 1000), levels(5000, 300)
    (0, 3)
    """
    return max(0, math.ceil(math.log2(max(height, width) / _COARSEST)))


def tile_of(height: int, width: int) -> tuple[int, int]:
    """Sides of a tile of a TIFF, multiples of 16 as the format wants them; no larger than a page needs."""
    return min(TILE, -(-height // 16) * 16), min(TILE, -(-width // 16) * 16)


def _tiles(labels: Paged, every: int, tile: tuple[int, int]) -> Iterator[NDArray[Any]]:
    """Tiles of a level, padded to full size: of every so many pixels the first, since labels have no mean."""
    pages, height, width = labels.shape
    down, across = tile[0] * every, tile[1] * every
    for page in range(pages):
        for top in range(0, height, down):
            for left in range(0, width, across):
                ends = min(top + down, height), min(left + across, width)
                part = _thin(labels, page, (top, ends[0]), (left, ends[1]), every)
                full = np.zeros(tile, labels.dtype)
                full[: part.shape[0], : part.shape[1]] = part
                yield full


def _thin(
    labels: Paged, page: int, rows: tuple[int, int], columns: tuple[int, int], every: int
) -> NDArray[Any]:
    """A window with only every so-manieth row and column, read in bands of a tile."""
    bands = []
    step = max(every, TILE // every * every)
    for top in range(*rows, step):
        parts = []
        for left in range(*columns, 8 * step):
            window = slice(top, min(top + step, rows[1])), slice(left, min(left + 8 * step, columns[1]))
            parts.append(labels.read(page, *window)[::every, ::every])
        bands.append(np.concatenate(parts, axis=1))
    return np.concatenate(bands)


def _save_tiff(to: Path, labels: Paged, palette: NDArray[Any] | None, geometry: Geometry | None) -> None:
    """A tiled, compressed TIFF with pyramid levels as SubIFDs; OME where the name or the geometry asks for it."""
    import tifffile

    pages, height, width = labels.shape
    shape = (height, width) if pages == 1 else labels.shape
    coloured = palette is not None and labels.dtype == np.uint8
    like = np.broadcast_to(np.zeros((), labels.dtype), shape)
    extra = (
        placed(geometry, like, ome=True) if _is_ome(to) or geometry else located(None, "ZYX"[-like.ndim :])
    )
    ome = extra.pop("ome", False)
    told_once = {"metadata": extra.pop("metadata", None), **extra}
    tile = tile_of(height, width)
    common: dict[str, Any] = {
        "dtype": labels.dtype,
        "photometric": "palette" if coloured else "minisblack",
        "planarconfig": None,
        "tile": tile,
        "compression": "zlib",
        "maxworkers": 1,
    }
    if coloured and palette is not None:
        common["colormap"] = colours_of(palette).T.astype(np.uint16) * 257
    coarser = levels(height, width)
    large = labels.pixels * labels.dtype.itemsize * 3 // 2 > _LARGEST_TIFF
    with tifffile.TiffWriter(to, bigtiff=large, ome=ome) as file:
        file.write(_tiles(labels, 1, tile), shape=shape, subifds=coarser, **common, **told_once)
        for level in range(1, coarser + 1):
            every = 1 << level
            small = (*shape[:-2], -(-height // every), -(-width // every))
            # tifffile takes a level that tells no shape, below one that does, for damaged; of a stack it needs that.
            shaped: dict[str, Any] | None = None if ome or len(shape) > 2 else {}
            file.write(_tiles(labels, every, tile), shape=small, subfiletype=1, metadata=shaped, **common)


def _is_ome(to: Path) -> bool:
    return to.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _save_nifti(to: Path, labels: Paged, palette: NDArray[Any] | None, geometry: Geometry | None) -> None:
    shape = labels.shape[1:] if labels.shape[0] == 1 else labels.shape
    write_nifti(to, shape, labels.dtype, labels.slabs(), geometry)


def _save_npy(to: Path, labels: Paged, palette: NDArray[Any] | None, geometry: Geometry | None) -> None:
    shape = labels.shape[1:] if labels.shape[0] == 1 else labels.shape
    told_of = {"descr": np.lib.format.dtype_to_descr(labels.dtype), "fortran_order": False, "shape": shape}
    with to.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, told_of)
        for slab in labels.slabs():
            file.write(slab.tobytes())


WRITERS: dict[str, Callable[[Path, Paged, NDArray[Any] | None, Geometry | None], None]] = {
    ".tif": _save_tiff,
    ".tiff": _save_tiff,
    ".ome.tif": _save_tiff,
    ".ome.tiff": _save_tiff,
    ".nii": _save_nifti,
    ".nii.gz": _save_nifti,
    ".npy": _save_npy,
}
"""Suffix of a label map that is written from windows, in lower case."""
