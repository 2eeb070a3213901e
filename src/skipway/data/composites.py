"""Masks put together when they are opened: of a file for each object or class, of colours, of a MATLAB file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import DataError
from skipway.images import (
    FORMATS,
    ImageFile,
    Window,
    composed,
    format_of,
    in_memory,
    open_image,
    open_mask,
    refused,
)

if TYPE_CHECKING:
    from skipway.data.sources import Source

MAT_BYTES = 1 << 30
"""Largest MATLAB file that is read."""

MOST_SETS = 62
"""Classes that may overlap in one mask: a set of them is a number of 64 bits that leaves room for "unknown"."""

_MAT_NAMES = ("groundtruth", "segmentation", "mask", "masks", "label", "labels", "gt", "seg", "inst_map")


def smallest(highest: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds a number.

    >>> smallest(255), smallest(256)
    (dtype('uint8'), dtype('uint16'))
    """
    return np.min_scalar_type(highest)


def set_type(classes: int) -> np.dtype[Any]:
    """The smallest unsigned type whose bits name sets of so many classes.

    >>> set_type(4).name, set_type(9).name, set_type(62).name
    ('uint8', 'uint16', 'uint64')
    """
    return smallest((1 << classes) - 1)


def counted(count: int, first: NDArray[np.bool_]) -> str:
    """`3 pixels, the first 4 down and 5 right`."""
    y, x = np.argwhere(first)[0]
    return f"{count} pixels, the first {y} down and {x} right"


def objects(source: "Source") -> ImageFile:
    """A file for each object: object k in order is number k; where two overlap, the later wins, and it is said.

    With the coding "classes" every object is 1.
    """
    union = source.coding == "classes"
    numbers: NDArray[Any] | None = None
    overlap = 0
    for k, path in enumerate(source.parts, start=1):
        with open_mask(path) as part:
            if part.pages != 1:
                raise refused(
                    path, f"{part.pages} pages", "one page for one object", "save them apart", "B15"
                )
            inside = present(part.read()[0], path)
        if numbers is None:
            numbers = np.zeros(inside.shape, smallest(1 if union else len(source.parts)))
        _same_size(path, inside.shape, numbers.shape, source.parts[0])
        overlap += 0 if union else int(np.count_nonzero(numbers[inside]))
        numbers[inside] = 1 if union else k
    assert numbers is not None, "a source of objects has parts"
    notes = [f"{overlap} pixels lie in two objects; the later file has them"] if overlap else []
    return in_memory(source.path, numbers[None, None], _form(source.parts[0]), notes)


def classes(source: "Source") -> ImageFile:
    """A file for each class: bit k is set where class k is, so that classes may overlap.

    With the coding "classes" it is k + 1, and overlap is refused.
    """
    places = source.numbers or tuple(range(len(source.parts)))
    exclusive = source.coding == "classes"
    if not exclusive and len(source.names) > MOST_SETS:
        found, expected = f"{len(source.names)} classes that overlap", f"at most {MOST_SETS}"
        raise refused(source.path, found, expected, "leave out those that you do not need", "E27")
    kind = smallest(len(source.names)) if exclusive else set_type(len(source.names))
    files: list[ImageFile] = []
    try:
        for path in source.parts:
            files.append(open_mask(path))
            same = (files[-1].pages, *files[-1].size), (files[0].pages, *files[0].size)
            _same_size(path, *same, source.parts[0])
    except BaseException:
        for file in files:
            file.close()
        raise

    def decode(page: int, window: Window) -> NDArray[Any]:
        values: NDArray[Any] | None = None
        for place, file in zip(places, files, strict=True):
            inside = present(file.read(page, window)[0], file.path)
            if values is None:
                values = np.zeros(inside.shape, kind)
            both = inside & (values > 0)
            if exclusive and both.any():
                raise refused(
                    file.path,
                    f"class {source.names[place]} overlaps another on {counted(int(both.sum()), both)}",
                    "one class a pixel",
                    "--task multilabel keeps all of them",
                    "E30",
                )
            values[inside] |= np.asarray(place + 1 if exclusive else 1 << place, kind)
        assert values is not None, "a source of classes has parts"
        return values[None]

    return composed(files, decode, 1, kind)


def present(values: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    """Where a mask of one class or object is set.

    Raises:
        DataError: more than one value besides 0.
    """
    found = np.unique(values)
    if np.count_nonzero(found) > 1:
        raise refused(
            path,
            f"values {', '.join(map(str, found[:6].tolist()))}{', …' if len(found) > 6 else ''}",
            "0 and one other value in the mask of one class or object",
            "export it again without smoothing, or as a mask of classes",
            "E11",
        )
    return values != 0


def colours(source: "Source") -> ImageFile:
    """A colour mask by its table: the number of the row that has the colour. Grey and palette masks as ever."""
    plain = _not_coloured(source.path)
    if plain is not None:
        return plain
    file = open_image(source.path)
    table = np.asarray(source.colours, np.int64)
    packed = table @ (1 << 16, 1 << 8, 1)
    order = np.argsort(packed)
    known = packed[order]

    def decode(page: int, window: Window) -> NDArray[Any]:
        red, green, blue = file.read(page, window).astype(np.int64)
        pixels = (red << 16) + (green << 8) + blue
        rows = np.minimum(np.searchsorted(known, pixels), len(known) - 1)
        strange = known[rows] != pixels
        if strange.any():
            where = strange.ravel().argmax()
            colour = tuple(int(plane.ravel()[where]) for plane in (red, green, blue))
            raise refused(
                source.path,
                f"colour {colour} that the table does not have, among {counted(int(strange.sum()), strange)}",
                f"the {len(known)} colours of the table",
                "add it to the table; many strange colours are traces of JPEG or smoothing",
                "E07",
            )
        return order[rows][None].astype(kind)

    kind = smallest(max(1, len(table) - 1))
    return composed([file], decode, 1, kind)


def _not_coloured(path: Path) -> ImageFile | None:
    """A palette or grey mask, open; None of one in three channels."""
    try:
        mask = open_mask(path)
    except DataError as error:
        if all(problem.code == "E07" for problem in error.problems):
            return None
        raise
    if mask.palette is None:
        with open_image(path) as image:
            coloured = image.channels == 3
        if (
            coloured
        ):  # of few colours: black and red alone are read as numbers without a table, never with one
            mask.close()
            return None
    return mask


def matlab(source: "Source") -> ImageFile:
    """The label map in a MATLAB file up to version 7: a field Segmentation, a known name, or the only picture."""
    from scipy.io import loadmat  # reads numbers and never runs what is in the file

    path = source.path
    if path.stat().st_size > MAT_BYTES:
        raise refused(path, "more than 1 GiB", "a smaller file", "save the mask as TIFF", "F08")
    try:
        held = loadmat(str(path), variable_names=None)
    except NotImplementedError as error:
        raise refused(
            path, "MATLAB version 7.3", "version 7 or older", "save(file, 'mask', '-v7') in MATLAB", "A15"
        ) from error
    except Exception as error:  # damaged bytes raise anything at all: zlib.error, TypeError, …
        raise refused(
            path, f"damaged: {str(error)[:80]}", "a MATLAB file", "copy or export it again", "F01"
        ) from error
    maps = _maps({name: value for name, value in held.items() if not name.startswith("__")})
    chosen = [maps[name] for name in _MAT_NAMES if name in maps] or list(maps.values())
    if not chosen or (len(chosen) > 1 and not any(name in maps for name in _MAT_NAMES)):
        raise refused(
            path,
            f"{len(maps)} pictures in it ({', '.join(maps) or 'none'})",
            "one, or one called mask, label or groundTruth",
            "save the mask alone",
            "E25",
        )
    pixels = chosen[0]
    if pixels.dtype.kind == "f":
        if not np.array_equal(pixels, np.rint(pixels)):
            raise refused(path, "fractions", "whole numbers", "export label numbers", "E25")
        pixels = pixels.astype(np.int64)
    return in_memory(path, pixels[None, None].astype(pixels.dtype.newbyteorder("=")), "MATLAB")


def _maps(held: Mapping[str, Any], depth: int = 0) -> dict[str, NDArray[Any]]:
    """Two-axis number arrays of more than one row and column, by name in lower case; fields of structs too."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in held.items():
        array = np.asarray(value)
        if array.dtype.names and array.size == 1 and depth < 3:
            fields = array.ravel()[0]
            found |= _maps({field: fields[field] for field in array.dtype.names}, depth + 1)
        elif array.dtype.kind in "biuf" and array.ndim == 2 and min(array.shape) > 1:
            found[name.casefold()] = array.astype(np.uint8) if array.dtype.kind == "b" else array
    return found


def _same_size(path: Path, size: tuple[int, ...], wanted: tuple[int, ...], first: Path) -> None:
    if size != wanted:
        found, expected = (" × ".join(map(str, shape)) for shape in (size, wanted))
        raise refused(path, found, f"{expected} like {first.name}", "export it again in that size", "B04")


def _form(path: Path) -> str:
    """The format that the name of a part says, of which the whole takes its own."""
    return (format_of(path) or FORMATS[0]).name
