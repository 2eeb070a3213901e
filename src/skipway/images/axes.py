"""Which axis of an array means what: by its name where the file gives names, else by its lengths, never by a guess."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Box, Stored, refused, sized, within_budget
from .geometry import Geometry

MOST_CHANNELS = 4
"""Of an array whose axes have no names."""


@dataclass(frozen=True)
class Axes:
    """Axes of an array.

    Attributes:
        names: One letter an axis, such as "ZCYX".
        shape: Length of each.
        page: Letter of the axis that counts pages, "" for one page.
        channel: Letter of the channel axis, "" for one channel.
    """

    names: str
    shape: tuple[int, ...]
    page: str
    channel: str

    def length(self, name: str) -> int:
        """Pixels along an axis; 1 along one that is not there."""
        return self.shape[self.names.index(name)] if name else 1

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.length("Y"), self.length("X")

    def pick(self, array: Any, page: int, box: Box) -> NDArray[Any]:
        """One page of an array with all axes, as (C, h, w)."""
        window: dict[str, Any] = {"Y": slice(*box[0]), "X": slice(*box[1]), self.page: page}
        window[self.channel] = slice(None)
        part = np.asarray(array[tuple(window.get(name, 0) for name in self.names)])
        kept = [name for name in self.names if name in ("Y", "X") or (name == self.channel and name)]
        part = part.transpose([kept.index(name) for name in (self.channel, "Y", "X") if name])
        return part if self.channel else part[None]


def named(path: Path, names: str, shape: Sequence[int]) -> Axes:
    """Axes with names: Y and X; C or S are channels; one further axis longer than 1 counts pages.

    Raises:
        DataError: Y or X is missing, channels along two axes, or more than one axis of pages.
    """
    text = f"axes {names} of {' × '.join(map(str, shape))}"
    if len(set(names)) < len(names) or "Y" not in names or "X" not in names:
        raise refused(path, text, "Y, X and each axis once", "save it again with its axes named", "B17")
    lengths = dict(zip(names, shape, strict=True))
    channel = [a for a in names if a in "CS" and lengths[a] > 1]
    page = [a for a in names if a not in "CSYX" and lengths[a] > 1]
    if len(channel) > 1:
        raise refused(path, f"{text}: channels twice", "C or S", "save it with one channel axis", "B16")
    if len(page) > 1:
        raise refused(
            path, text, "one axis beside Y, X and channels", "save one position of the others", "B18"
        )
    return Axes(names, tuple(shape), page[0] if page else "", channel[0] if channel else "")


def nameless(path: Path, shape: Sequence[int], *, mask: bool) -> Axes:
    """Axes without names: (H, W), (H, W, C) or (Z, H, W, C) of at most 4 channels, (Z, H, W).

    A mask has no channels in front, so (3, H, W) is three pages of it.

    >>> nameless(Path("a.npy"), (64, 80, 3), mask=False).names, nameless(Path("a.npy"), (30, 64, 80), mask=False).names
    ('YXC', 'ZYX')

    Raises:
        DataError: lengths that could mean two things, such as (4, 4, 4) or an image of (3, H, W).
    """
    few = [1 <= n <= MOST_CHANNELS for n in shape]
    last = bool(few) and few[-1] and not any(few[:-1])
    if len(shape) == 2:
        names = "YX"
    elif len(shape) == 3 and (last or shape[-1] == 1):
        names = "YXC"
    elif len(shape) == 3 and not few[1] and not few[2] and (mask or not few[0] or shape[0] == 1):
        names = "ZYX"
    elif len(shape) == 4 and last:
        names = "ZYXC"
    else:
        text = " × ".join(map(str, shape))
        raise refused(
            path,
            f"an array of {text} without names of its axes: which count pages, rows, columns or channels?",
            f"(H, W), (H, W, C) with at most {MOST_CHANNELS} channels, or (Z, H, W)",
            "move channels to the end (np.moveaxis), or save it as a TIFF with metadata={'axes': 'ZYX'} or 'CYX'",
            "B17",
        )
    return named(path, names, shape)


@dataclass(frozen=True)
class Array:
    """An array in a file, not read yet.

    Attributes:
        format: Name in `formats.FORMATS`.
        pixels: Takes an index of whole numbers and slices, gives an array.
        shape: Of it.
        dtype: Of it.
        close: Frees the file.
    """

    format: str
    pixels: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    close: Callable[[], None] = lambda: None


def checked_type(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuses whatever is not a whole number or a float of at most 64 bits.

    Raises:
        DataError: another type.
    """
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise refused(path, f"{dtype} pixels", "integers or floats", "save the magnitude", "C06")


def stored_array(
    path: Path,
    array: Array,
    axes: Axes,
    max_pixels: int,
    *,
    geometry: Geometry | None = None,
    notes: tuple[str, ...] = (),
) -> Stored:
    """An array as what a codec found in a file."""
    channels = axes.length(axes.channel)
    if min(array.shape) < 1:
        raise refused(path, f"an array of {array.shape}", "at least one pixel", "export it again", "F08")
    within_budget(path, (1, 1), channels, max_pixels, "")
    dtype = np.dtype(np.uint8) if array.dtype == bool else array.dtype.newbyteorder("=")

    def decode(page: int, box: Box) -> NDArray[Any]:
        (top, bottom), (left, right) = box
        asked = (bottom - top) * (right - left) * channels
        with sized(path) if asked <= max_pixels else nullcontext():  # so few pixels find room everywhere
            return axes.pick(array.pixels, page, box).astype(dtype)

    return Stored(
        format=array.format,
        pages=math.prod(axes.shape) // math.prod((*axes.size, channels)),
        channels=channels,
        size=axes.size,
        dtype=dtype,
        colour={1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel"),
        bits=1 if array.dtype == bool else dtype.itemsize * 8,
        decode=decode,
        close=array.close,
        geometry=geometry,
        notes=notes,
    )
