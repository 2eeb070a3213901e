"""OME-Zarr and Zarr of versions 2 and 3: a folder that is one image, read chunk by chunk."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skipway.errors import DataError, EnvironmentFault, Problem, SecurityError, extra

from .axes import Array, Axes, checked_type, named, nameless, stored_array
from .codecs import Stored, decoding, refused, shown, within_budget
from .geometry import Geometry, unit_of

_SIGNS = ("zarr.json", ".zarray", ".zgroup")
_LARGEST_METADATA = 4 * 1024**2
_TYPE = re.compile(r"[<>|][buif][1248]|bool|u?int(8|16|32|64)|float(16|32|64)")
_SQUEEZERS = ("blosc", "bz2", "gzip", "lz4", "lzma", "packbits", "zlib", "zstd")
_ARRANGERS = ("bytes", "crc32", "crc32c", "delta", "sharding_indexed", "shuffle", "transpose")
_CODECS = frozenset((*_SQUEEZERS, *_ARRANGERS))
"""Those that do nothing but numbers: the usual library also knows one that unpickles objects."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return path.is_dir() and any((path / sign).is_file() for sign in _SIGNS)


def open_zarr(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """Level 0 of an OME-Zarr image, or a plain array; a mask is its one label image where there is one.

    Raises:
        DataError: damaged, several images, axes that could be read in two ways, or chunks beyond the budget.
        SecurityError: pixels outside its folder, or a codec that is not one of numbers.
        EnvironmentFault: zarr is not installed.
    """
    try:
        import zarr

        from .zarr_store import Guarded
    except ImportError as error:
        fix = extra("zarr")
        raise EnvironmentFault(Problem("Zarr folders need zarr", shown(path), fix=fix)) from error
    with decoding(path):
        folder, scales = _image(path, mask=mask)
        datasets = scales.get("datasets")
        if datasets:
            folder = _inside(path, folder / str(datasets[0]["path"]))
        described = _metadata(folder)
        _only_numbers(path, described)
        store = Guarded(path, folder)
        array = zarr.open_array(store, mode="r")
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        if len(shape) < 2 or min(shape) < 1:
            raise ValueError(f"an array of {shape}")
    checked_type(path, dtype)
    with decoding(path):
        chunk = math.prod(getattr(array, "shards", None) or array.chunks)
        within_budget(path, (chunk, 1), 1, max_pixels, "a chunk")
        store.limit(frozenset(_codec_names(described)), chunk * dtype.itemsize)
        axes = _axes(path, scales, described, shape, mask=mask)
        _has_pixels(path, array, max_pixels)
        geometry = _geometry(scales, axes)
        return stored_array(path, Array("Zarr", array, shape, dtype), axes, max_pixels, geometry=geometry)


def _metadata(folder: Path) -> dict[str, Any]:
    """What the folder says of itself, attributes under "attributes" for both versions."""
    for name in (*_SIGNS, ".zattrs"):
        file = folder / name
        if file.is_file() and file.stat().st_size > _LARGEST_METADATA:
            raise ValueError(f"{name} of {file.stat().st_size} bytes")
    if (folder / "zarr.json").is_file():
        return _object(folder / "zarr.json")
    kind = next((name for name in _SIGNS[1:] if (folder / name).is_file()), None)
    if kind is None:
        raise ValueError(f"no Zarr array or group at {folder.name}")
    attributes = _object(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
    described = _object(folder / kind)
    return described | {"attributes": attributes, "node_type": "array" if kind == ".zarray" else "group"}


def _object(file: Path) -> dict[str, Any]:
    value = json.loads(file.read_text("utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return value


def _inside(path: Path, folder: Path) -> Path:
    """The folder, if it lies in the image."""
    if not folder.resolve().is_relative_to(path.resolve()):
        found = f"its pixels are said to lie at {shown(folder)}"
        raise SecurityError(Problem(found, shown(path), "a path inside the folder", "copy it again", "F16"))
    return folder


def _image(path: Path, *, mask: bool) -> tuple[Path, Mapping[str, Any]]:
    """Folder of the image or label image, and its `multiscales` entry ({} for a plain array)."""
    folder, described = path, _metadata(path)
    attributes = _ome(described)
    if "bioformats2raw.layout" in attributes and not attributes.get("multiscales"):
        folder = _only(path, folder, _numbered(folder), "images")
        attributes = _ome(_metadata(folder))
    labels = folder / "labels"
    if mask and is_zarr(labels):
        names = [str(name) for name in _ome(_metadata(labels)).get("labels") or ()]
        if names:
            folder = _only(path, labels, names, "label images")
            attributes = _ome(_metadata(folder))
    scales = attributes.get("multiscales") or []
    if len(scales) > 1:
        raise refused(path, f"{len(scales)} images", "one", "save each in a folder of its own", "B17")
    if scales:
        return folder, scales[0]
    if _metadata(folder)["node_type"] == "array":
        return folder, {}
    arrays = [p.name for p in sorted(folder.iterdir()) if is_zarr(p) and _metadata(p)["node_type"] == "array"]
    return _only(path, folder, arrays, "arrays"), {}


def _ome(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes; those of OME-Zarr 0.5 lie one step deeper."""
    attributes = described.get("attributes") or {}
    return attributes.get("ome") or attributes


def _numbered(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.isdigit() and is_zarr(p))


def _only(path: Path, folder: Path, names: list[str], what: str) -> Path:
    if len(names) == 1:
        return _inside(path, folder / names[0])
    found = f"{len(names)} {what}: {', '.join(names[:6])}" if names else f"no {what}"
    raise refused(path, found, "one", "name or save the one that is meant as its own .zarr folder", "B17")


def _only_numbers(path: Path, described: Mapping[str, Any]) -> None:
    """Refuses types and codecs that are more than numbers, before any library looks at them."""
    kind = described.get("data_type", described.get("dtype"))
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise refused(path, f"{kind} pixels", "integers or floats", "save it as numbers", "C06")
    names = set(_codec_names(described))
    if names - _CODECS:
        found = f"the codec {', '.join(sorted(names - _CODECS))}"
        expected = f"one of {', '.join(sorted(_CODECS))}"
        raise SecurityError(Problem(found, shown(path), expected, "save it again with zstd", "F16"))


def _codec_names(described: Mapping[str, Any]) -> list[str]:
    listed = [
        described.get("compressor"),
        *(described.get("filters") or ()),
        *(described.get("codecs") or ()),
    ]
    names = []
    for codec in filter(None, listed):
        names.append(str(codec.get("id", codec.get("name"))))
        inner = codec.get("configuration") or {}
        names += _codec_names({"codecs": [*(inner.get("codecs") or ()), *(inner.get("index_codecs") or ())]})
    return names


def _axes(
    path: Path, scales: Mapping[str, Any], described: Mapping[str, Any], shape: tuple[int, ...], *, mask: bool
) -> Axes:
    given = scales.get("axes") or described.get("dimension_names")
    given = given or described.get("attributes", {}).get("_ARRAY_DIMENSIONS")
    if given is None and scales and len(shape) == 5:  # OME-Zarr before 0.3 had these five
        given = "tczyx"
    names = [axis.get("name") if isinstance(axis, dict) else axis for axis in given or ()]
    if not all(names) or not names:
        return nameless(path, shape, mask=mask)
    letters = [str(name).upper()[:1] for name in names]
    if len(letters) != len(shape):
        raise ValueError(f"{len(letters)} names for {len(shape)} axes")
    return named(path, "".join(letters), shape)


def _has_pixels(path: Path, array: Any, max_pixels: int) -> None:
    """Refuses a size that next to no chunk stands behind: reading it would fill memory with nothing."""
    if math.prod(array.shape) <= max_pixels:
        return
    there = array.nchunks_initialized
    if there * 1000 < array.nchunks:
        raise _hollow(path, array.shape, there)


def _hollow(path: Path, shape: tuple[int, ...], there: int) -> DataError:
    text = " × ".join(map(str, shape))
    found = f"a size of {text} of which {there} chunks were written"
    return refused(path, found, "pixels behind its size", "copy the folder again", "F09")


def _geometry(scales: Mapping[str, Any], axes: Axes) -> Geometry | None:
    """Scale of level 0 along Z, Y and X, times that of the whole image."""
    spacing = dict.fromkeys(axes.names, 1.0)
    stated = [*(scales.get("coordinateTransformations") or ())]
    stated += (scales.get("datasets") or [{}])[0].get("coordinateTransformations") or ()
    for transform in stated:
        if transform.get("type") == "scale":
            for name, factor in zip(axes.names, transform.get("scale") or (), strict=False):
                spacing[name] *= float(factor)
    described = scales.get("axes") or [{}]
    unit = unit_of(str(described[-1].get("unit") or "")) if isinstance(described[-1], dict) else ""
    sizes = tuple(spacing[name] for name in axes.names if name in "ZYX")
    stated_at_all = unit or any(size != 1 for size in sizes)
    if not stated_at_all or not all(size > 0 and math.isfinite(size) for size in sizes):
        return None
    return Geometry(sizes, unit)
