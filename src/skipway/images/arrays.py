"""NumPy and HDF5 files: arrays that name no axes, mapped or read in parts."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from skipway.errors import EnvironmentFault, Problem, SecurityError, extra

from .axes import Array, checked_type, named, nameless, stored_array
from .codecs import Stored, decoding, refused, shown, within_budget
from .geometry import Geometry
from .mapped import Mapped

_NPY_HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=][a-zA-Z]\d*)', 'fortran_order': (?P<order>True|False), "
    r"'shape': \((?P<shape>(?:\d+, ?)*\d*)\),? ?\}\s*"
)
_LONGEST_HEADER = 10_000
_IMAGE_NAMES = frozenset(("image", "raw", "data"))
_MASK_NAMES = frozenset(("label", "labels", "mask", "masks"))
_MOST_DATA_SETS = 1000


def open_npy(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """A `.npy` file, mapped: its header is read as text, its objects never.

    Raises:
        DataError: damaged, shorter than its header says, or axes that could be read in two ways.
        SecurityError: it holds pickled objects.
    """
    with decoding(path):
        with path.open("rb") as file:
            head = file.read(_LONGEST_HEADER)
        long = head[6] > 1
        start = 12 if long else 10
        end = start + int.from_bytes(head[8:start], "little")
        text = head[start:end].decode("latin1")
    if re.search(r"'descr': (?:'\|?O|\[)", text):
        raise _pickled(path)
    with decoding(path):
        match = _NPY_HEADER.fullmatch(text)
        if match is None:
            raise ValueError("no header of one array of numbers")
        dtype = np.dtype(match["type"])
        shape = tuple(int(n) for n in match["shape"].split(",") if n.strip())
        have, need = path.stat().st_size, end + math.prod(shape) * dtype.itemsize
        if need > have:
            raise ValueError(f"NumPy file ends at byte {have} of {need}")
    checked_type(path, dtype)
    axes = nameless(path, shape, mask=mask)
    if min(shape) < 1:
        within_budget(path, (0, 0), 1, max_pixels, "")
    with decoding(path):
        pixels = Mapped(path, dtype, end, shape, "F" if match["order"] == "True" else "C")
    return stored_array(path, Array("NumPy", pixels, shape, dtype), axes, max_pixels)


def _pickled(path: Path) -> SecurityError:
    return SecurityError(
        Problem(
            "Python objects in a NumPy file, which could run code when opened",
            shown(path),
            "an array of numbers",
            "save it again: np.save(path, array.astype(...), allow_pickle=False)",
            "I03",
        )
    )


def open_hdf5(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """The one data set of an HDF5 file, or the one called image, raw or data (a mask: label or mask).

    Raises:
        DataError: damaged, no such data set or several, chunks beyond the budget, or unclear axes.
        SecurityError: its pixels lie in other files.
        EnvironmentFault: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        fix = extra("hdf5")
        raise EnvironmentFault(Problem("HDF5 files need h5py", shown(path), fix=fix)) from error
    with decoding(path):
        file = h5py.File(path, "r", locking=False)
    try:
        with decoding(path):
            data = _data_set(path, file, mask=mask)
            if data.external or data.is_virtual:
                found = f"data set {data.name} keeps its pixels in other files"
                raise SecurityError(Problem(found, shown(path), "one file", "save a plain copy", "F16"))
            checked_type(path, data.dtype)
            chunk = data.chunks or (1,)
            within_budget(path, (math.prod(chunk), 1), 1, max_pixels, "a chunk")
            names = "".join(str(axis.label) for axis in data.dims).upper()
            known = len(names) == data.ndim and set(names) <= set("TCZYX")
            axes = named(path, names, data.shape) if known else nameless(path, data.shape, mask=mask)
            missing = data.id.get_storage_size() == 0 and math.prod(data.shape) > max_pixels
            if missing:
                raise ValueError("its pixels were never written")
            array = Array("HDF5", data, data.shape, data.dtype, file.close)
            return stored_array(path, array, axes, max_pixels, geometry=_geometry(data))
    except BaseException:
        file.close()
        raise


def _data_set(path: Path, file: Any, *, mask: bool) -> Any:
    """The data set that is meant; links to other files are not followed."""
    import h5py

    found: list[Any] = []
    seen = 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "buif":
            found.append(item)
        return True if seen > _MOST_DATA_SETS else None

    file.visititems(visit)
    wanted = _MASK_NAMES if mask else _IMAGE_NAMES
    called = [item for item in found if item.name.rsplit("/", 1)[-1].casefold() in wanted]
    if len(found) == 1:
        return found[0]
    if len(called) == 1:
        return called[0]
    names = ", ".join(f"{item.name} {'×'.join(map(str, item.shape))}" for item in found[:6])
    raise refused(
        path,
        f"{len(found)} data sets that could be the {'mask' if mask else 'image'}: {names}"
        if found
        else "no data set of numbers with rows and columns",
        f"one, or one called {' or '.join(sorted(wanted))}",
        "save the one that is meant in a file of its own",
        "B17",
    )


def _geometry(data: Any) -> Geometry | None:
    """Of the attribute `element_size_um`, which Fiji's and ilastik's writers leave: (Z, Y, X) in µm."""
    size = data.attrs.get("element_size_um")
    if size is None:
        return None
    spacing = tuple(float(n) for n in np.ravel(size))
    usable = len(spacing) in (2, 3) and all(n > 0 and math.isfinite(n) for n in spacing)
    return Geometry(spacing, "µm") if usable else None
