"""Opening images and masks: the policy of `skipway.images` on top of the codecs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import UsageError

from .codecs import MAX_PIXELS, Box, Stored, decoding, lossy_mask, refused
from .formats import FORMATS, identify, suffix_of
from .geometry import Geometry

BAND_BYTES = 16 * 1024**2

Window = tuple[slice, slice]
_Finish = Callable[[NDArray[Any]], NDArray[Any]]

# EXIF code: (rows and columns exchanged, then rows reversed, then columns reversed)
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class ImageFile:
    """An open image or mask file. A context manager; `read` takes what is asked for and no more where it can.

    Attributes:
        path: The file.
        pages: Images in it.
        channels: 1 for grey and masks, 3 for RGB.
        size: (H, W) after orientation.
        dtype: Type of the pixels `read` returns.
        kind: For people, such as "8-bit grey".
        format: Its name in `formats.FORMATS`.
        palette: (N, 3) colours of a palette mask, else None.
        notes: What the policy did that a user should hear.
        geometry: Where the pixels lie, where the file says so.
        nodata: Value of pixels that were never measured, where the file says so.
        recast_from: Type of the pixels before a choice of colour changed it, see `colour.in_colour`.
    """

    path: Path
    pages: int
    channels: int
    size: tuple[int, int]
    dtype: np.dtype[Any]
    kind: str
    format: str
    palette: NDArray[Any] | None = field(default=None, compare=False)
    notes: tuple[str, ...] = ()
    geometry: Geometry | None = field(default=None, compare=False)
    nodata: float | None = None
    recast_from: np.dtype[Any] | None = None
    _stored: Stored = field(repr=False, compare=False, kw_only=True)
    _finish: _Finish = field(repr=False, compare=False, kw_only=True)

    @property
    def own_dtype(self) -> np.dtype[Any]:
        """Type of the image's own pixels, whatever was chosen to be read of them."""
        return self.dtype if self.recast_from is None else self.recast_from

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the file and what was decoded."""
        self._stored.close()

    def read(self, page: int = 0, window: Window | None = None) -> NDArray[Any]:
        """Pixels of one page.

        Args:
            page: Counted from 0.
            window: (rows, columns) as slices of step 1; the whole page without it.

        Returns:
            (C, h, w) in `dtype`; an array of its own that may be written to.

        Raises:
            UsageError: no such page, or a window with steps.
            DataError: damaged pixels; a mask that is not made of whole numbers.
        """
        if not 0 <= page < self.pages:
            raise UsageError(f"page {page} of {self.path.name} was asked for; it has {self.pages}")
        box = _box(window or (slice(None), slice(None)), self.size)
        pixels = _decode(self.path, self._stored, page, box, self.size)
        with decoding(self.path):
            return np.array(self._finish(pixels), dtype=self.dtype, order="C")

    def bands(self, page: int = 0, limit: int = BAND_BYTES) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The page in bands of full width from top to bottom, each of about `limit` bytes.

        Yields:
            Rows of the band, and its pixels (C, h, W).
        """
        height, width = self.size
        step = max(1, limit // max(1, self.channels * width * self.dtype.itemsize))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            yield rows, self.read(page, (rows, slice(None)))


def open_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Opens an image; see `skipway.images` for the policy.

    Args:
        path: A file of any of `formats.FORMATS`.
        max_pixels: Limit for what must be decoded at once.

    Raises:
        DataError: not an image, damaged where it shows in the header, too large, or one the policy refuses.
    """
    stored = identify(path).open(path, max_pixels, False)
    try:
        notes = _notes(path, stored)
        channels, dtype = stored.channels, stored.dtype
        finish: _Finish = _as_stored
        if stored.palette is not None:
            finish, channels, dtype = _expansion(path, stored.palette), 3, stored.palette.dtype
        elif stored.alpha is not None:
            _refuse_alpha(path, stored)
            finish, channels = _without(stored.alpha), channels - 1
        return _file(path, stored, channels, dtype, finish, notes, None)
    except BaseException:
        stored.close()
        raise


def open_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Opens a mask: `read` gives whole numbers, shape (1, h, w).

    Args:
        path: A file of any of `formats.FORMATS` that keeps every value.
        max_pixels: Limit for what must be decoded at once.

    Raises:
        DataError: as `open_image`; a lossy format; colours; later, in `read`, values that are not whole numbers.
    """
    form = identify(path)
    if form.lossy:
        raise lossy_mask(path, form.name)
    stored = form.open(path, max_pixels, True)
    try:
        notes = _notes(path, stored)
        finish: _Finish = _as_stored
        if stored.alpha is not None:
            _refuse_alpha(path, stored)
            finish = _without(stored.alpha)
        if stored.channels - (stored.alpha is not None) > 1:
            notes.append(_colour_rule(path, stored))
            finish = _first
        if stored.level > 1:
            finish = _unspread(stored.level)
        dtype = stored.dtype
        if dtype.kind == "f":
            finish, dtype = _whole_numbers(path, finish), np.dtype(np.int64)
        return _file(path, stored, 1, dtype, finish, notes, stored.palette)
    except BaseException:
        stored.close()
        raise


def composed(
    files: Sequence[ImageFile],
    decode: Callable[[int, Window], NDArray[Any]],
    channels: int,
    dtype: np.dtype[Any],
    *,
    size: tuple[int, int] | None = None,
    notes: Sequence[str] = (),
) -> ImageFile:
    """One image made of open files; closing it closes them.

    Args:
        files: At least one; the first gives path, pages, size, format and geometry.
        decode: `decode(page, (rows, columns))` gives (channels, h, w).
        channels: Of the result.
        dtype: Of the result.
        size: (H, W) where it is not that of the first file.
        notes: What a user should hear besides the notes of the files.
    """
    first = files[0]

    def close() -> None:
        for file in files:
            file.close()

    def stored(page: int, box: Box) -> NDArray[Any]:
        return decode(page, (slice(*box[0]), slice(*box[1])))

    said = tuple(dict.fromkeys((*(note for file in files for note in file.notes), *notes)))
    whole = Stored(
        first.format, first.pages, channels, size or first.size, dtype, "", dtype.itemsize * 8, stored, close,
        geometry=first.geometry, nodata=first.nodata,
    )  # fmt: skip
    return _file(first.path, whole, channels, dtype, _as_stored, list(said), None)


def in_memory(path: Path, pixels: NDArray[Any], form: str, notes: Sequence[str] = ()) -> ImageFile:
    """An image that is decoded or drawn already.

    Args:
        path: The file that a user would name.
        pixels: (P, C, H, W).
        form: Name of the format.
        notes: What a user should hear.
    """
    pages, channels, height, width = pixels.shape

    def decode(page: int, box: Box) -> NDArray[Any]:
        part: NDArray[Any] = pixels[page, :, slice(*box[0]), slice(*box[1])]
        return part

    bits = pixels.dtype.itemsize * 8
    stored = Stored(form, pages, channels, (height, width), pixels.dtype, "", bits, decode, lambda: None)
    return _file(path, stored, channels, pixels.dtype, _as_stored, list(notes), None)


def _file(
    path: Path,
    stored: Stored,
    channels: int,
    dtype: np.dtype[Any],
    finish: _Finish,
    notes: list[str],
    palette: NDArray[Any] | None,
) -> ImageFile:
    height, width = stored.size
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
    number = "float " if dtype.kind == "f" else "signed " if dtype.kind == "i" else ""
    bits = stored.bits if stored.palette is None else dtype.itemsize * 8
    return ImageFile(
        path,
        stored.pages,
        channels,
        (width, height) if _TURNS[stored.orientation][0] else (height, width),
        dtype,
        f"{bits}-bit {number}{colour}",
        stored.format,
        palette,
        tuple(notes),
        _upright(stored),
        stored.nodata,
        _stored=stored,
        _finish=finish,
    )


def _upright(stored: Stored) -> Geometry | None:
    """The geometry after orientation; a place on the earth does not survive a turn."""
    if stored.geometry is None or stored.orientation == 1:
        return stored.geometry
    spacing = stored.geometry.spacing
    if _TURNS[stored.orientation][0]:
        spacing = (*spacing[:-2], spacing[-1], spacing[-2])
    return Geometry(spacing, stored.geometry.unit)


def _notes(path: Path, stored: Stored) -> list[str]:
    notes = list(stored.notes)
    usual = next(form.suffixes for form in FORMATS if form.name == stored.format)
    if usual and suffix_of(path).lower() not in usual:
        notes.append(f"is named {suffix_of(path) or 'without suffix'} but holds {stored.format}")
    if stored.orientation != 1:
        notes.append(f"turned as its orientation tag {stored.orientation} says")
    return notes


def _box(window: Window, size: tuple[int, int]) -> Box:
    limits = [part.indices(length) for part, length in zip(window, size, strict=True)]
    if any(step != 1 for _, _, step in limits):
        raise UsageError("a window takes slices of step 1")
    (top, bottom, _), (left, right, _) = limits
    return (top, max(top, bottom)), (left, max(left, right))


def _decode(path: Path, stored: Stored, page: int, box: Box, size: tuple[int, int]) -> NDArray[Any]:
    """Pixels of a box of the turned image: turn the box back, decode, turn the pixels."""
    swapped, up, mirrored = _TURNS[stored.orientation]
    rows, columns = box
    if up:
        rows = (size[0] - rows[1], size[0] - rows[0])
    if mirrored:
        columns = (size[1] - columns[1], size[1] - columns[0])
    with decoding(path):
        pixels = stored.decode(page, (columns, rows) if swapped else (rows, columns))
    if swapped:
        pixels = pixels.swapaxes(1, 2)
    return pixels[:, :: -1 if up else 1, :: -1 if mirrored else 1]


def _as_stored(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels


def _first(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[:1]


def _without(channel: int) -> _Finish:
    return lambda pixels: np.delete(pixels, channel, axis=0)


def _unspread(level: int) -> _Finish:
    return lambda pixels: pixels // level


def _expansion(path: Path, palette: NDArray[Any]) -> _Finish:
    def expand(indices: NDArray[Any]) -> NDArray[Any]:
        if indices.size and int(indices.max()) >= len(palette):
            raise refused(
                path,
                f"colour {int(indices.max())} of a palette of {len(palette)}",
                "colours of the palette",
                "export the file again",
                "F01",
            )
        return np.moveaxis(palette[indices[0]], -1, 0)

    return expand


def _whole_numbers(path: Path, before: _Finish) -> _Finish:
    def check(pixels: NDArray[Any]) -> NDArray[Any]:
        values = before(pixels)
        finite = np.isfinite(values)
        if not finite.all():
            _, y, x = np.argwhere(~finite)[0]
            count = int(finite.size - finite.sum())
            raise refused(
                path,
                f"{count} mask pixels that are NaN or infinite, the first {y} down and {x} right",
                "whole numbers",
                "export the mask as integers",
                "E26",
            )
        broken = values != np.rint(values)
        if broken.any() or (values.size and float(np.abs(values).max()) > 2**53):
            example = values[broken].ravel()[:1].tolist() or [float(np.abs(values).max())]
            raise refused(
                path,
                f"mask value {example[0]:g}",
                "whole numbers",
                "export label numbers, not probabilities (threshold them first)",
                "E25",
            )
        return values

    return check


def _pages_and_bands(stored: Stored) -> Iterator[tuple[int, Box]]:
    height, width = stored.size
    step = max(1, BAND_BYTES // max(1, stored.channels * width * stored.dtype.itemsize))
    for page in range(stored.pages):
        for top in range(0, height, step):
            yield page, ((top, min(top + step, height)), (0, width))


def _refuse_alpha(path: Path, stored: Stored) -> None:
    """Opaque alpha carries nothing; alpha that varies hides or adds information, so the user decides."""
    if stored.alpha is None:
        return
    opaque = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1.0
    for page, box in _pages_and_bands(stored):
        with decoding(path):
            alpha = stored.decode(page, box)[stored.alpha]
        if np.any(alpha != opaque):
            raise refused(
                path,
                "an alpha channel that varies",
                "no alpha, or fully opaque",
                "flatten the picture (Fiji: Image > Type > RGB Color) and save it without alpha",
                "D03",
            )


def _colour_rule(path: Path, stored: Stored) -> str:
    """Colour masks are read where the colour says nothing: R=G=B everywhere, or only red used."""
    grey = red = stored.channels - (stored.alpha is not None) == 3
    for page, box in _pages_and_bands(stored):
        if not (grey or red):
            break
        with decoding(path):
            r, g, b = stored.decode(page, box)[:3]
        grey = grey and bool(np.array_equal(r, g) and np.array_equal(r, b))
        red = red and not g.any() and not b.any()
    if grey:
        return "a colour file with R=G=B; the grey value is used"
    if red:
        return "a colour file of which only red is used; the red value is used"
    raise refused(
        path,
        f"a mask in {stored.channels}-channel colours",
        "one number a pixel",
        "put a table name,r,g,b beside the masks (class_dict.csv) or name it with --colours; "
        "or save it as a palette PNG",
        "E07",
    )
