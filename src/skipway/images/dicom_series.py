"""A DICOM series: a folder of files of one picture each, read as one volume in the order of their places."""

from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import CACHE_BYTES, Box, Stored, decoding, refused, shown
from .dicom import SUFFIXES, open_dicom, place, read_header, stacked


def slices_in(folder: Path) -> list[Path]:
    """DICOM files right in a folder, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def is_series(folder: Path) -> bool:
    """Whether a folder is one volume: two or more DICOM files, some of them of one series.

    Where every file is a series of its own, as with radiographs, each is an image of its own.

    Raises:
        EnvironmentFault: pydicom is missing.
    """
    if len(slices_in(folder)) < 2 or any(entry.is_dir() for entry in folder.iterdir()):
        return False
    groups = _groups(folder)
    return len(groups) < sum(map(len, groups.values()))


def open_series(folder: Path, max_pixels: int, *, mask: bool) -> Stored:
    """The slices of a folder as pages, from the first place along their normal to the last.

    Raises:
        DataError: several series (each is named), slices of several sizes, at one place, or with a gap.
    """
    groups = _groups(folder)
    if len(groups) != 1:
        listed = "; ".join(_words(uid, files) for uid, files in sorted(groups.items()))
        fix = "move each series into a folder of its own"
        raise refused(folder, f"{len(groups)} DICOM series in one folder: {listed}", "one", fix, "B17")
    (files,) = groups.values()
    with decoding(folder):
        ordered, geometry = _in_order(folder, files)
    slices: list[Stored] = []
    try:
        for path in ordered:
            slices.append(open_dicom(path, max_pixels, mask=mask))
            _refuse_unlike(path, slices[-1], ordered[0], slices[0])
    except BaseException:
        for one in slices:
            one.close()
        raise
    first = slices[0]
    most = max(1, CACHE_BYTES // max(1, first.size[0] * first.size[1] * first.channels * 4))
    kept: OrderedDict[int, None] = OrderedDict()

    def decode(page: int, box: Box) -> NDArray[Any]:
        pixels = slices[page].decode(0, box)
        kept[page] = None
        kept.move_to_end(page)
        while len(kept) > most:
            slices[kept.popitem(last=False)[0]].close()  # which forgets its pixels, and decodes them again
        return pixels

    def close() -> None:
        for one in slices:
            one.close()

    return Stored(
        "DICOM series", len(slices), first.channels, first.size, first.dtype, first.colour, first.bits, decode,
        close, palette=first.palette, notes=first.notes, geometry=geometry,
    )  # fmt: skip


def _groups(folder: Path) -> dict[str, list[tuple[Path, Any]]]:
    """Files with pixels by their series."""
    groups: defaultdict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path in slices_in(folder):
        header = read_header(path)
        if "Rows" in header:
            groups[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    return dict(groups)


def _words(uid: str, files: list[tuple[Path, Any]]) -> str:
    path, header = files[0]
    name = str(header.get("SeriesDescription") or header.get("SeriesNumber") or uid)
    return f"{shown(name)} ({len(files)} files such as {shown(path.name)})"


def _in_order(folder: Path, files: list[tuple[Path, Any]]) -> tuple[list[Path], Any]:
    """Files along the normal of their planes, and where they lie; by number where they have no place."""
    places = [(path, header, place(header, 0)) for path, header in files]
    if any(found is None for _, _, found in places):
        numbered = sorted(files, key=lambda item: int(item[1].get("InstanceNumber") or 0))
        return [path for path, _ in numbered], None
    known = [(path, header, found) for path, header, found in places if found is not None]
    x, y = known[0][2][1]
    normal = np.cross(x, y)
    known.sort(key=lambda item: float(normal @ item[2][0]))
    along = np.array([float(normal @ found[0]) for _, _, found in known])
    steps = np.diff(along)
    if (steps < 1e-4).any():
        where = int(np.argmax(steps < 1e-4))
        found = f"{known[where][0].name} and {known[where + 1][0].name} at one place"
        fix = "keep one time point or echo a folder"
        raise refused(folder, found, "one slice a place", fix, "B17")
    spacing = known[0][1].get("PixelSpacing") or (1.0, 1.0)
    in_plane = (float(spacing[1]), float(spacing[0]))
    geometry = stacked(folder, in_plane, [found for _, _, found in known], 0.0)
    if geometry is None:
        gap = int(np.argmax(steps))
        found = f"slices {np.median(steps):g} mm apart, but {steps[gap]:g} after {known[gap][0].name}"
        fix = "add the slices that are missing, or convert the series to NIfTI"
        raise refused(folder, found, "parallel slices at one distance", fix, "G02")
    return [path for path, _, _ in known], geometry


def _refuse_unlike(path: Path, one: Stored, first_path: Path, first: Stored) -> None:
    if (one.pages, one.size, one.channels, one.dtype) != (1, first.size, first.channels, first.dtype):
        found = f"{one.pages} × {one.size[0]} × {one.size[1]} pixels of {one.dtype}"
        expected = f"1 × {first.size[0]} × {first.size[1]} of {first.dtype} like {first_path.name}"
        raise refused(path, found, expected, "take it out of the series", "B17")
