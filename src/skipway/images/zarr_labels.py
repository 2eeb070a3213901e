"""Labels as OME-Zarr 0.5: `NAME.zarr/labels/prediction`, as the NGFF lays label images beside their image."""

from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import EnvironmentFault, Problem

from .codecs import shown
from .geometry import Geometry
from .paged import TILE, Paged, Read, levels
from .writing import hidden_for, told

NAME = "prediction"
"""Of the label image."""

_SHARD = 4 * TILE
_VERSION = "0.5"
_UNITS = {"nm": "nanometer", "µm": "micrometer", "mm": "millimeter", "cm": "centimeter", "m": "meter"}


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
    try:
        import zarr
    except ImportError as error:
        fix = "pip install 'skipway[zarr]'"
        raise EnvironmentFault(Problem("Zarr folders need zarr", shown(path), fix=fix)) from error
    to, old = hidden_for(path), hidden_for(path.with_name(f"{path.name}.old.zarr"))
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for stray in (to, old):
                rmtree(stray, ignore_errors=True)
            root = zarr.open_group(to, mode="w", zarr_format=3)
            group = root.create_group("labels")
            group.attrs["ome"] = {"version": _VERSION, "labels": [NAME]}
            image = group.create_group(NAME)
            _fill(image, labels, path)
            image.attrs["ome"] = _described(labels, geometry)
            if path.exists():
                path.rename(old)
            to.rename(path)
    finally:
        for stray in (to, old):
            rmtree(stray, ignore_errors=True)
    return path


def _fill(image: Any, labels: Paged, path: Path) -> None:
    """Level by level, each made of the one before; the finest is compared with the labels after it was written."""
    read: Read = labels.read
    for level in range(levels(*labels.shape[1:]) + 1):
        every = 1 << level
        shape = (labels.shape[0], *(-(-side // every) for side in labels.shape[1:]))
        kept = _spatial(shape)
        array = image.create_array(
            str(level),
            shape=kept,
            dtype=labels.dtype,
            chunks=(1, TILE, TILE)[-len(kept) :],
            shards=(1, _SHARD, _SHARD)[-len(kept) :],
            dimension_names=["z", "y", "x"][-len(kept) :],
        )
        for page in range(shape[0]):
            for top in range(0, shape[1], _SHARD):
                for left in range(0, shape[2], _SHARD):
                    rows = slice(top, min(top + _SHARD, shape[1]))
                    columns = slice(left, min(left + _SHARD, shape[2]))
                    window = (page, rows, columns)[-len(kept) :]
                    values = read(page, rows, columns)
                    array[window] = values
                    if not np.array_equal(array[window], values):
                        found = "the folder read back differs from what was written"
                        raise EnvironmentFault(Problem(found, shown(path), "equal labels", "check the disk"))
        read = partial(_halved, array)


def _halved(above: Any, page: int, rows: slice, columns: slice) -> NDArray[Any]:
    """The first of every two rows and columns of the level above."""
    window = (page, *(slice(2 * part.start, 2 * part.stop) for part in (rows, columns)))
    part: NDArray[Any] = np.asarray(above[window[-above.ndim :]])
    return part[::2, ::2]


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape[0] == 1 else shape


def _described(labels: Paged, geometry: Geometry | None) -> dict[str, Any]:
    kept = len(_spatial(labels.shape))
    spacing = (1.0, 1.0, 1.0) if geometry is None else (1.0, 1.0, 1.0, *geometry.spacing)[-3:]
    unit = _UNITS.get(geometry.unit) if geometry is not None else None
    axes = [
        {"name": name, "type": "space", **({"unit": unit} if unit else {})}
        for name in ("z", "y", "x")[-kept:]
    ]
    datasets = []
    for level in range(levels(*labels.shape[1:]) + 1):
        every = float(1 << level)
        scale = [spacing[0], spacing[1] * every, spacing[2] * every][-kept:]
        stated = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": stated})
    return {
        "version": _VERSION,
        "multiscales": [{"name": NAME, "axes": axes, "datasets": datasets}],
        "image-label": {"source": {"image": "../../"}},
    }
