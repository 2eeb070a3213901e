"""TIFF: axes from the metadata, pixels strip by strip or tile by tile, as they are asked for."""

import logging
import math
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .axes import Axes, named
from .codecs import CACHE_BYTES, MAX_CHANNELS, Box, Stored, decoding, refused, within_budget
from .mapped import Mapped
from .tiff_tags import geometry_of, nodata_of

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _YCBCR = 0, 1, 2, 3, 4, 6
_JPEG_COMPRESSIONS = frozenset((6, 7, 33007, 34892))
_ORIENTATION_TAG = 274
_SILENT = logging.NullHandler()


def open_tiff(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """A TIFF file, its pixels not decoded yet.

    Args:
        path: The file.
        max_pixels: Limit for one strip or tile.
        mask: Masks have no channels, so an axis without a name counts pages.

    Raises:
        DataError: damaged, axes that could be read in two ways, unsupported colour, or too large.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(
        _SILENT
    )  # its warnings would go to the terminal; ours say the same
    with decoding(path):
        _walk(path)
        file = tifffile.TiffFile(path)
    try:
        with decoding(path):
            series = _first_series(path, file)
            keyframe = series.keyframe
            _supported(path, keyframe)
            axes = _axes(path, series.axes, series.shape, mask=mask)
            return _stored(path, file, series, axes, max_pixels)
    except BaseException:
        file.close()
        raise


def _walk(path: Path) -> None:
    """Follows the pages from head to end; a chain that returns or leaves the file would never end elsewhere."""
    with path.open("rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        big = head[2:4] in (b"+\0", b"\0+")
        entry, counter, pointer = (20, 8, 8) if big else (12, 2, 4)
        position = int.from_bytes(head[8:16] if big else head[4:8], order)
        end, seen = file.seek(0, 2), set[int]()
        while position:
            if position in seen or position + counter > end:
                raise ValueError(
                    f"TIFF page {len(seen)} at byte {position} was met before or lies outside it"
                )
            seen.add(position)
            file.seek(position)
            tags = int.from_bytes(file.read(counter), order)
            after = position + counter + tags * entry
            if not tags or after > end:
                raise ValueError(f"TIFF page {len(seen) - 1} at byte {position} with {tags} tags")
            file.seek(after)
            position = int.from_bytes(file.read(pointer), order)


def _first_series(path: Path, file: Any) -> Any:
    """The image; smaller ones beside it are thumbnails, the levels of a pyramid are part of it."""
    everything = file.series
    first = everything[0]
    if first.dtype is None or "Y" not in first.axes or "X" not in first.axes:
        raise ValueError("no picture with rows and columns in it")
    largest = max(_pixels(series) for series in everything)
    if _pixels(first) < largest:
        sizes = ", ".join("×".join(map(str, series.shape)) for series in everything[:4])
        raise refused(
            path,
            f"pages of different sizes ({sizes})",
            "pages of one size",
            "save each size as its own file",
            "B15",
        )
    return first


def _pixels(series: Any) -> int:
    return math.prod(n for n, a in zip(series.shape, series.axes, strict=True) if a in "YX")


def _supported(path: Path, keyframe: Any) -> None:
    photometric = int(keyframe.photometric)
    known = photometric in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK)
    if not known and not (photometric == _YCBCR and int(keyframe.compression) in _JPEG_COMPRESSIONS):
        name = getattr(keyframe.photometric, "name", str(photometric))
        raise refused(path, f"{name} colours", "grey, RGB or palette", "convert it to RGB", "D07")
    if keyframe.imagedepth != 1:
        raise refused(path, "volume tiles", "one plane a page", "save it as a plain stack", "B18")
    if np.dtype(keyframe.dtype).kind not in "buif":
        raise refused(path, f"{keyframe.dtype} pixels", "integers or floats", "save the magnitude", "C06")


def _axes(path: Path, names: str, shape: tuple[int, ...], *, mask: bool) -> Axes:
    """Reads the axes; whatever could mean two things is refused.

    Raises:
        DataError: channels along two axes, more than one page axis, or a short axis without a name.
    """
    axes = named(path, names, shape)
    text = f"axes {names} of {' × '.join(map(str, shape))}"
    again = (
        "save it again with its axes named (tifffile: metadata={'axes': 'ZYX'} or 'CYX'; Fiji: a hyperstack)"
    )
    unnamed = axes.length("Q") if "Q" in names else 0
    if not mask and not axes.channel and 2 <= unnamed <= 4:
        raise refused(
            path, f"{text}: {unnamed} pages or {unnamed} channels", "axes with a name", again, "B16"
        )
    if unnamed >= 16 and axes.length("X") <= 4:
        raise refused(path, f"{text}: columns or channels last", "axes with a name", again, "B16")
    return axes


def _stored(path: Path, file: Any, series: Any, axes: Axes, max_pixels: int) -> Stored:
    keyframe = series.keyframe
    channels = axes.length(axes.channel)
    if channels > MAX_CHANNELS:
        within_budget(path, (1, 1), channels, max_pixels, "")
    dtype = np.dtype(np.uint8) if series.dtype == bool else np.dtype(series.dtype).newbyteorder("=")
    photometric = int(keyframe.photometric)
    colour = "palette" if photometric == _PALETTE and channels == 1 else _colour(channels)
    palette = _palette(keyframe) if colour == "palette" else None
    geometry, nodata = geometry_of(file, keyframe, axes), nodata_of(keyframe)
    alpha, orientation = _alpha(keyframe, axes), _orientation(keyframe)
    pixels = _source(path, file, series, axes, max_pixels)  # last: it may close the file
    notes = []
    if photometric == _MINISWHITE:
        notes.append("white is stored as 0 (MINISWHITE); values are used as stored")
    if nodata is not None:
        notes.append(f"states {nodata:g} for pixels without data")
    if len(file.series) > 1:
        notes.append(f"holds {len(file.series)} pictures; only the first, {series.shape}, is read")
    return Stored(
        format="TIFF",
        pages=axes.length(axes.page),
        channels=channels,
        size=axes.size,
        dtype=dtype,
        colour=colour,
        bits=1 if series.dtype == bool else dtype.itemsize * 8,
        decode=pixels.decode,
        close=pixels.close,
        alpha=alpha,
        orientation=orientation,
        palette=palette,
        notes=tuple(notes),
        geometry=geometry,
        nodata=nodata,
    )


def _colour(channels: int) -> str:
    return {1: "grey", 3: "RGB", 4: "4-channel"}.get(channels, f"{channels}-channel")


def _alpha(keyframe: Any, axes: Axes) -> int | None:
    if axes.channel != "S":
        return None
    extra = [int(kind) for kind in keyframe.extrasamples]
    for index, kind in enumerate(extra):
        if kind in (1, 2):
            return axes.length("S") - len(extra) + index
    return None


def _orientation(keyframe: Any) -> int:
    code = keyframe.tags.valueof(_ORIENTATION_TAG, 1)
    return int(code) if isinstance(code, int) and 1 <= code <= 8 else 1


def _palette(keyframe: Any) -> NDArray[Any]:
    """(N, 3) colours; 8-bit where the 16-bit table only repeats or pads 8 bits."""
    table = np.asarray(keyframe.colormap).T
    low, high = table & 255, table >> 8
    eight_bit = np.all(low == 0) or np.all(low == high)
    return high.astype(np.uint8) if eight_bit else table


def _source(
    path: Path, file: Any, series: Any, axes: Axes, max_pixels: int
) -> "_Mapped | _Segments | _Whole":
    keyframe = series.keyframe
    if any(page is not None and page.parent is not file for page in series.pages):
        raise refused(
            path, "pages in other files", "one file with all its pages", "save it as one file", "B18"
        )
    if series.dataoffset is not None and keyframe.is_final:
        return _Mapped(path, file, series, axes)
    inner = keyframe.axes
    outer = math.prod(series.shape) // max(1, math.prod(keyframe.shape))
    if axes.names.endswith(inner) and outer == len(series.pages) and None not in list(series.pages):
        return _Segments(path, file, series, axes, max_pixels)
    return _Whole(path, file, series, axes, max_pixels)


class _Mapped:
    """Uncompressed pixels in one run of bytes, mapped read by read."""

    def __init__(self, path: Path, file: Any, series: Any, axes: Axes) -> None:
        dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        have, need = path.stat().st_size, series.dataoffset + math.prod(series.shape) * dtype.itemsize
        if need > have:
            raise ValueError(f"TIFF ends at byte {have}, its pixels at {need}")
        self._map = Mapped(path, dtype, series.dataoffset, tuple(series.shape))
        self._axes = axes
        file.close()

    def decode(self, page: int, box: Box) -> NDArray[Any]:
        part = self._axes.pick(self._map, page, box)
        return part.astype(part.dtype.newbyteorder("="))

    def close(self) -> None:
        """Nothing is open between reads."""


class _Whole:
    """Layouts that cannot be cut page by page: decoded once, within the budget."""

    def __init__(self, path: Path, file: Any, series: Any, axes: Axes, max_pixels: int) -> None:
        within_budget(path, (math.prod(series.shape), 1), 1, max_pixels, "a stack")
        self._file, self._series, self._axes, self._lock = file, series, axes, Lock()
        self._pixels: NDArray[Any] | None = None

    def decode(self, page: int, box: Box) -> NDArray[Any]:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._series.asarray()
        part = self._axes.pick(self._pixels, page, box)
        return part.astype(np.uint8) if part.dtype == bool else part

    def close(self) -> None:
        self._pixels = None
        self._file.close()


class _Segments:
    """Strips or tiles, decoded when a window touches them, the last ones kept."""

    def __init__(self, path: Path, file: Any, series: Any, axes: Axes, max_pixels: int) -> None:
        keyframe = series.keyframe
        self._height, self._width = axes.size
        self._tiled = bool(keyframe.is_tiled)
        rows = keyframe.rowsperstrip or self._height
        self._step = (
            (keyframe.tilelength, keyframe.tilewidth)
            if self._tiled
            else (min(rows, self._height), self._width)
        )
        self._across = -(-self._width // self._step[1])
        self._down = -(-self._height // self._step[0])
        self._planes = keyframe.samplesperpixel if int(keyframe.planarconfig) == 2 else 1
        self._samples = keyframe.samplesperpixel
        within_budget(path, self._step, self._samples // self._planes, max_pixels, "a strip or tile")
        pieces, needed = len(keyframe.dataoffsets), self._planes * self._down * self._across
        if pieces < needed:  # a size that the header invents is found here, before memory is taken for it
            raise ValueError(f"TIFF holds {pieces} of {needed} strips or tiles")
        self._file, self._pages, self._keyframe, self._axes = file, series.pages, keyframe, axes
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._kept_bytes, self._lock = 0, Lock()
        self._outer = axes.names[: axes.names.index(keyframe.axes[0])] if keyframe.axes in axes.names else ""
        self._outer_shape = tuple(axes.length(name) for name in self._outer)

    def decode(self, page: int, box: Box) -> NDArray[Any]:
        inside = self._axes.channel and self._axes.channel not in self._outer
        channels = 1 if inside else self._axes.length(self._axes.channel)
        planes = []
        for channel in range(channels):
            position = {self._axes.page: page, self._axes.channel: 0 if inside else channel}
            index = [position.get(name, 0) for name in self._outer]
            number = int(np.ravel_multi_index(index, self._outer_shape)) if index else 0
            planes.append(self._plane(number, box))
        return np.concatenate(planes) if len(planes) > 1 else planes[0]

    def close(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._file.close()

    def _plane(self, number: int, box: Box) -> NDArray[Any]:
        """All samples of one TIFF page inside the box, (samples, h, w)."""
        (top, bottom), (left, right) = box
        dtype = np.dtype(np.uint8) if self._keyframe.dtype == bool else self._keyframe.dtype
        result = np.zeros((self._samples, bottom - top, right - left), dtype)
        for plane in range(self._planes):
            samples = slice(plane, plane + 1) if self._planes > 1 else slice(None)
            for row in range(top // self._step[0], -(-bottom // self._step[0])):
                for column in range(left // self._step[1], -(-right // self._step[1])):
                    index = (plane * self._down + row) * self._across + column
                    segment = self._segment(number, index)
                    y, x = row * self._step[0], column * self._step[1]
                    above, below = max(top, y), min(bottom, y + segment.shape[0])
                    first, last = max(left, x), min(right, x + segment.shape[1])
                    part = segment[above - y : below - y, first - x : last - x]
                    result[samples, above - top : below - top, first - left : last - left] = np.moveaxis(
                        part, -1, 0
                    )
        return result

    def _segment(self, number: int, index: int) -> NDArray[Any]:
        """One decoded strip or tile, (rows, columns, samples)."""
        with self._lock:
            key = (number, index)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            segment = self._decoded(number, index)
            self._kept[key] = segment
            self._kept_bytes += segment.nbytes
            while self._kept_bytes > CACHE_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return segment

    def _decoded(self, number: int, index: int) -> NDArray[Any]:
        page = self._pages[number]
        if index >= len(page.dataoffsets) or index >= len(page.databytecounts):
            raise ValueError(f"TIFF page {number} misses strip or tile {index}")
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = None
        if count:
            handle = page.parent.filehandle
            if offset + count > handle.size:
                raise ValueError(
                    f"TIFF ends at byte {handle.size}, strip or tile {index} at {offset + count}"
                )
            handle.seek(offset)
            data = handle.read(count)
        segment, _, shape = self._keyframe.decode(data, index, jpegtables=page.jpegtables)
        if segment is None:  # a sparse file: this piece was never written
            samples = self._samples // self._planes
            return np.full((*shape[1:3], samples), self._keyframe.nodata, self._keyframe.dtype)
        return segment[0, : shape[1], : shape[2]]
