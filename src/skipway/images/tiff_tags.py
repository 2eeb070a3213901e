"""Where the pixels of a TIFF lie: read from its tags, ImageJ and OME metadata, and written again."""

import math
from typing import Any
from xml.etree import ElementTree

from numpy.typing import NDArray

from .axes import Axes
from .geometry import Geometry, unit_of

_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _NODATA = 282, 283, 296, 42113
_CENTIMETRE = 3
_PLACE = (33550, 33922, 34264, 34735, 34736, 34737)
"""GeoTIFF: pixel scale, tie points, transformation, and the three of the reference system."""

_IN_CENTIMETRES = {"nm": 1e-7, "µm": 1e-4, "mm": 0.1, "cm": 1.0, "m": 100.0, "Å": 1e-8, "inch": 2.54}
_IMAGEJ_UNITS = {"µm": "um", "Å": "angstrom"}
_OME_UNITS = {"inch": "in"}
_IMAGEJ_TYPES = ("uint8", "uint16")
_OME_TYPES = (*_IMAGEJ_TYPES, "int8", "int16", "int32", "uint32")
_IMAGEJ_MOST = 1 << 31


def geometry_of(file: Any, keyframe: Any, axes: Axes) -> Geometry | None:
    """Size and unit of a pixel, and the GeoTIFF tags as they are; None where the file says nothing.

    A resolution in dots an inch is that of a printer, so it says nothing.
    """
    tags = keyframe.tags
    place = tuple(
        (code, int(tags[code].dtype), tags[code].count, tags[code].value) for code in _PLACE if code in tags
    )
    if place:
        scale = tags.valueof(33550, (1.0, 1.0, 1.0))
        return Geometry((float(scale[1]), float(scale[0])), header={"geotiff": place})
    found = _ome(file) if file.is_ome else _imagej(file, keyframe) if file.is_imagej else _plain(keyframe)
    if found is None:
        return None
    spacing, unit = found
    spacing = spacing if axes.page == "Z" and spacing[0] else spacing[1:]
    return Geometry(spacing, unit) if all(n > 0 and math.isfinite(n) for n in spacing) else None


def nodata_of(keyframe: Any) -> float | None:
    """The value of pixels that were never measured, as GDAL's tag says it."""
    text = keyframe.tags.valueof(_NODATA)
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None


def _ome(file: Any) -> tuple[tuple[float, ...], str] | None:
    root = ElementTree.fromstring(file.ome_metadata)
    pixels = next((node for node in root.iter() if node.tag.rsplit("}", 1)[-1] == "Pixels"), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib or "PhysicalSizeY" not in pixels.attrib:
        return None
    sizes = tuple(float(pixels.get(f"PhysicalSize{axis}") or 0) for axis in "ZYX")
    return sizes, unit_of(pixels.get("PhysicalSizeXUnit") or "µm")


def _imagej(file: Any, keyframe: Any) -> tuple[tuple[float, ...], str] | None:
    stated = file.imagej_metadata or {}
    unit = unit_of(str(stated.get("unit") or ""))
    spacing = _per_pixel(keyframe)
    if not unit or spacing is None:
        return None
    depth = stated.get("spacing")
    return (abs(float(depth)) if isinstance(depth, int | float) else 0.0, *spacing), unit


def _plain(keyframe: Any) -> tuple[tuple[float, ...], str] | None:
    spacing = _per_pixel(keyframe)
    if spacing is None or int(keyframe.tags.valueof(_RESOLUTION_UNIT, 2)) != _CENTIMETRE:
        return None
    return (0.0, *(size * 1e4 for size in spacing)), "µm"


def _per_pixel(keyframe: Any) -> tuple[float, float] | None:
    """(Y, X) of a pixel in the file's unit."""
    rates = [keyframe.tags.valueof(code) for code in (_Y_RESOLUTION, _X_RESOLUTION)]
    if any(rate is None or not rate[0] or not rate[1] for rate in rates):
        return None
    return rates[0][1] / rates[0][0], rates[1][1] / rates[1][0]


def placed(geometry: Geometry | None, labels: NDArray[Any], *, ome: bool) -> dict[str, Any]:
    """Arguments of `tifffile.imwrite` that put the geometry into a file of labels (H, W) or (Z, H, W).

    GeoTIFF tags as they were; else ImageJ's metadata where its types hold the labels, else OME's.
    """
    axes = "ZYX"[-labels.ndim :]
    kind, small = str(labels.dtype), labels.nbytes < _IMAGEJ_MOST
    spacing, unit = (geometry.spacing, geometry.unit) if geometry else ((), "")
    sizes = dict(zip("XYZ", reversed(spacing), strict=False)) if unit in _IN_CENTIMETRES else {}
    if geometry and geometry.header.get("geotiff"):
        return located(geometry, axes)
    if not ome and sizes and small and kind in _IMAGEJ_TYPES:
        told: dict[str, Any] = {"axes": axes, "unit": _IMAGEJ_UNITS.get(unit, unit)}
        if "Z" in axes and "Z" in sizes:
            told["spacing"] = sizes["Z"]
        return {"imagej": True, "resolution": (1 / sizes["X"], 1 / sizes["Y"]), "metadata": told}
    if (ome or sizes) and kind in _OME_TYPES:
        told = {"axes": axes}
        for axis, size in sizes.items():
            told |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": _OME_UNITS.get(unit, unit)}
        return {"ome": True, "metadata": told}
    return located(geometry, axes)


def located(geometry: Geometry | None, axes: str) -> dict[str, Any]:
    """The same with nothing but tags, for any type and axes: GeoTIFF, or pixels a centimetre."""
    result: dict[str, Any] = {"metadata": {"axes": axes}, "ome": False}
    if geometry is None:
        return result
    if place := geometry.header.get("geotiff"):
        result["extratags"] = [(*tag, True) for tag in place]
    elif factor := _IN_CENTIMETRES.get(geometry.unit):
        y, x = geometry.spacing[-2:]
        result |= {"resolution": (1 / (x * factor), 1 / (y * factor)), "resolutionunit": _CENTIMETRE}
    return result
