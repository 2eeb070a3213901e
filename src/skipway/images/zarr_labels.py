"""Labels as OME-Zarr 0.5: `NAME.zarr/labels/prediction`, as the NGFF lays label images beside their image."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from itertools import product
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import EnvironmentFault, Problem, extra

from .codecs import shown
from .geometry import Geometry
from .paged import TILE, Paged, levels
from .writing import hidden_for, told

NAME = "prediction"
"""Of the label image."""

_SHARD = 4 * TILE
_VERSION = "0.5"
_HALF = "*.partial"
"""What zarr calls a file before it is whole; a killed writer leaves it."""

_UNITS = {"nm": "nanometer", "µm": "micrometer", "mm": "millimeter", "cm": "centimeter", "m": "meter"}

Block = tuple[slice, slice, slice]
"""Pages, rows and columns of a label image."""


def write_zarr(path: Path, labels: Paged, *, geometry: Geometry | None = None) -> Path:
    """Writes labels and their pyramid; the folder is there complete, or not at all, and reads back equal.

    Args:
        path: A folder that ends in `.zarr`; one that is there is replaced.
        labels: What to write.
        geometry: Where the pixels lie; spacing and unit are kept.

    Returns:
        The path written.

    Raises:
        EnvironmentFault: zarr is not installed, the disk refused, or it gave back other values.
    """
    to, side = hidden_for(path), (1, _SHARD, _SHARD)
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for stray in (to, *path.parent.glob(f"{escape(to.stem)}.*.part.zarr")):
            rmtree(stray, ignore_errors=True)
    try:
        growing = GrowingZarr.begin(to, labels.shape, labels.dtype, side, geometry=geometry)
        for block in _blocks(labels.shape, side):
            growing.put(block, labels.read(block[0].start, *block[1:])[None])
        return growing.finish(path)
    finally:
        rmtree(to, ignore_errors=True)


@dataclass(frozen=True)
class GrowingZarr:
    """Labels that are written block by block, in any order; several processes may, each its own blocks.

    Attributes:
        folder: Where they lie until they are finished.
    """

    folder: Path

    @classmethod
    def begin(
        cls,
        folder: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        block: tuple[int, int, int],
        *,
        geometry: Geometry | None = None,
        mark: str = "",
    ) -> "GrowingZarr":
        """Lay out the folder; of several processes the first does, and one that is there is taken.

        Args:
            folder: Not there, or of a `begin` with the same arguments.
            shape: (P, H, W).
            dtype: Whole numbers.
            block: Sides of a block. Each is a shard, one file: two processes that write into one would lose data.
            geometry: Where the pixels lie.
            mark: Kept in the attributes, see `marked`.

        Raises:
            EnvironmentFault: zarr is not installed, or the disk refused.
        """
        zarr = _library(folder)
        if folder.is_dir():
            return cls(folder)
        fresh = folder.with_name(f"{folder.stem}.{uuid.uuid4().hex[:8]}.part.zarr")
        try:
            with told(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                root = zarr.open_group(fresh, mode="w", zarr_format=3)
                if mark:
                    root.attrs["skipway"] = {"mark": mark}
                group = root.create_group("labels")
                group.attrs["ome"] = {"version": _VERSION, "labels": [NAME]}
                image = group.create_group(NAME)
                image.attrs["ome"] = _described(shape, geometry)
                _create(image, 0, shape, dtype, block)
                try:
                    fresh.rename(folder)
                except OSError:  # another was faster
                    if not folder.is_dir():
                        raise
        finally:
            rmtree(fresh, ignore_errors=True)
        return cls(folder)

    def put(self, block: Block, values: NDArray[Any]) -> None:
        """Write a block, (p, h, w), whatever lies there, and read it back.

        Raises:
            EnvironmentFault: the folder is not there, the disk refused, or it gave back other values.
        """
        with told(self.folder):
            finest = self._finest("r+")
            # At the end of an axis zarr would read the shard and fill it up; a damaged one cannot be read.
            places = (
                side.start // step for side, step in zip(block[-finest.ndim :], finest.shards, strict=True)
            )
            self._level0.joinpath("c", *map(str, places)).unlink(missing_ok=True)
            _put(finest, block, values, self.folder)

    def read(self, block: Block) -> NDArray[Any]:
        """The values of a block, (p, h, w); 0 where nothing was written.

        Raises:
            EnvironmentFault: the folder is not there, or cannot be read.
        """
        with told(self.folder):
            return _read(self._finest("r"), block)

    def finish(self, path: Path) -> Path:
        """Write the coarser levels, each made of the one before, and give the folder its name; what had it is replaced.

        Raises:
            EnvironmentFault: the disk refused, or gave back other values.
        """
        old = hidden_for(path.with_name(f"{path.name}.old.zarr"))
        try:
            with told(path):
                image = _library(path).open_group(self.folder, mode="r+")[f"labels/{NAME}"]
                above = image["0"]
                pages, height, width = (1, *above.shape)[-3:]
                for level in range(1, levels(height, width) + 1):
                    every = 1 << level
                    shape = (pages, -(-height // every), -(-width // every))
                    array = _create(image, level, shape, above.dtype, (1, _SHARD, _SHARD))
                    for block in _blocks(shape, (1, _SHARD, _SHARD)):
                        page, rows, columns = block
                        wide = page, _twice(rows), _twice(columns)
                        _put(array, block, _read(above, wide)[:, ::2, ::2], path)
                    above = array
                for half in self.folder.rglob(_HALF):
                    half.unlink()
                rmtree(old, ignore_errors=True)
                if path.exists():
                    path.rename(old)
                self.folder.rename(path)
        finally:
            rmtree(old, ignore_errors=True)
        return path

    @property
    def _level0(self) -> Path:
        return self.folder / "labels" / NAME / "0"

    def _finest(self, mode: str) -> Any:
        return _library(self.folder).open_array(self._level0, mode=mode)


def marked(path: Path, mark: str) -> bool:
    """Whether a finished folder was begun with this mark."""
    if not (path / "zarr.json").is_file():
        return False
    attributes = _library(path).open_group(path, mode="r").attrs.asdict()
    return bool(attributes.get("skipway") == {"mark": mark})


def _library(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        fix = extra("zarr")
        raise EnvironmentFault(Problem("Zarr folders need zarr", shown(path), fix=fix)) from error
    return zarr


def _create(
    image: Any, level: int, shape: tuple[int, int, int], dtype: np.dtype[Any], block: Sequence[int]
) -> Any:
    """An array of zeros, stored in shards of a block, which hold chunks; a single page has no axis of its own."""
    kept = 2 if shape[0] == 1 else 3
    # A block that reaches to the end of its axis may end beyond it, where chunks are of the usual size.
    whole = [max(b, -(-s // TILE) * TILE) if b >= s > TILE else b for s, b in zip(shape, block, strict=True)]
    plane = [_divisor(side, 2 * TILE) if side % TILE else TILE for side in whole[1:]]
    chunk = (_divisor(whole[0], max(1, TILE * TILE // (plane[0] * plane[1]))), *plane)
    return image.create_array(
        str(level),
        shape=shape[-kept:],
        dtype=dtype,
        chunks=chunk[-kept:],
        shards=tuple(whole[-kept:]),
        chunk_key_encoding={"name": "default", "separator": "/"},
        dimension_names=["z", "y", "x"][-kept:],
        overwrite=True,
    )


def _divisor(side: int, most: int) -> int:
    """The largest number of at most so many that a side is a multiple of.

    >>> _divisor(480, 1024), _divisor(1500, 1024), _divisor(96, 28)
    (480, 750, 24)
    """
    return next(number for number in range(min(side, most), 0, -1) if side % number == 0)


def _twice(side: slice) -> slice:
    return slice(2 * side.start, 2 * side.stop)


def _blocks(shape: tuple[int, int, int], side: Sequence[int]) -> Iterator[Block]:
    axes = (
        [slice(at, min(at + step, length)) for at in range(0, length, step)]
        for length, step in zip(shape, side, strict=True)
    )
    return product(*axes)


def _put(array: Any, block: Block, values: NDArray[Any], path: Path) -> None:
    array[block[-array.ndim :]] = values.reshape(values.shape[-array.ndim :])
    if not np.array_equal(_read(array, block), values):
        found = "the folder read back differs from what was written"
        raise EnvironmentFault(Problem(found, shown(path), "equal labels", "check the disk"))


def _read(array: Any, block: Block) -> NDArray[Any]:
    found = np.asarray(array[block[-array.ndim :]])
    return found.reshape((1, *found.shape)[-3:])


def _described(shape: tuple[int, int, int], geometry: Geometry | None) -> dict[str, Any]:
    kept = 2 if shape[0] == 1 else 3
    spacing = (1.0, 1.0, 1.0) if geometry is None else (1.0, 1.0, 1.0, *geometry.spacing)[-3:]
    unit = _UNITS.get(geometry.unit) if geometry is not None else None
    axes = [
        {"name": name, "type": "space", **({"unit": unit} if unit else {})}
        for name in ("z", "y", "x")[-kept:]
    ]
    datasets = []
    for level in range(levels(*shape[1:]) + 1):
        every = float(1 << level)
        scale = [spacing[0], spacing[1] * every, spacing[2] * every][-kept:]
        stated = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": stated})
    return {
        "version": _VERSION,
        "multiscales": [{"name": NAME, "axes": axes, "datasets": datasets}],
        "image-label": {"source": {"image": "../../"}},
    }
