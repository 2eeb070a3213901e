"""What becomes one image or one mask: a file, several files read as one, or shapes written down in a list.

Whatever it is, opening it gives an `ImageFile`, so that nothing else needs to know. A new kind is a function here
and a row of `IMAGES` or `MASKS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import DataError, Problem
from skipway.images import ImageFile, composed, open_image, open_mask, shown

MOST_SETS = 62
"""Classes that may overlap in one mask: a set of them is a number of 64 bits that leaves room for "unknown"."""

ABSENT = Path()
"""Stands for the file of a class that an image has none of."""


@dataclass(frozen=True)
class Source:
    """One picture.

    Attributes:
        path: The file that a user would name: the only one, or the first of several.
        page: Its page where the file is a stack.
        kind: How it is read, a key of `IMAGES` or `MASKS`.
        parts: All files in order, where there are several; for "classes" `ABSENT` where there is none.
        names: What the parts, colours or shapes are called, where that means something.
        colours: (r, g, b) of each name.
        key: Which entry of a list of shapes.
    """

    path: Path
    page: int | None = None
    kind: str = "file"
    parts: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    key: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(part for part in self.parts if part != ABSENT) or (self.path,)

    @property
    def whole(self) -> "Source":
        """The same without a page."""
        return replace(self, page=None)

    def open_image(self) -> ImageFile:
        """The image, open.

        Raises:
            DataError: see `skipway.images.open_image`.
        """
        return IMAGES[self.kind](self)

    def open_mask(self) -> ImageFile:
        """The mask, open.

        Raises:
            DataError: see `skipway.images.open_mask`.
        """
        return MASKS[self.kind](self)

    def __str__(self) -> str:
        """For messages: the path, its entry, its page."""
        key = f" ({self.key})" if self.key else ""
        return shown(self.path) + key + ("" if self.page is None else f" page {self.page}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, those that say something."""
        plain = {**asdict(self), "path": str(self.path), "parts": [str(part) for part in self.parts]}
        return {key: value for key, value in plain.items() if value not in (None, "", [], (), "file")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Source":
        """A source out of a run folder.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        known = {
            **value,
            "path": Path(value["path"]),
            "parts": tuple(Path(part) for part in value.get("parts", ())),
            "names": tuple(map(str, value.get("names", ()))),
            "colours": tuple((int(r), int(g), int(b)) for r, g, b in value.get("colours", ())),
        }
        return cls(**known)


def _channels(source: Source) -> ImageFile:
    """Files of one channel each, or more, as the channels of one image; all of one size, type and page count."""
    files = [open_image(part) for part in source.parts]
    first = files[0]
    for file in files[1:]:
        same = (file.pages, file.size, file.dtype) == (first.pages, first.size, first.dtype)
        if not same:
            for one in files:
                one.close()
            raise DataError(
                Problem(
                    f"{file.kind}, {file.pages} × {file.size[0]} × {file.size[1]}",
                    shown(file.path),
                    f"{first.kind}, {first.pages} × {first.size[0]} × {first.size[1]} like {first.path.name}",
                    "channels of one image have one size and one type: export them again",
                    "D01",
                )
            )

    def decode(page: int, window: tuple[slice, slice]) -> NDArray[Any]:
        return np.concatenate([file.read(page, window) for file in files])

    return composed(files, decode, sum(file.channels for file in files), first.dtype)


def _classes(source: Source) -> ImageFile:
    """One mask a class as sets of classes: Σ 2^k over the parts k that are not 0 at a pixel, 0 for none.

    Raises:
        DataError: more classes than a set holds, no file at all, or files of different sizes or page counts.
    """
    if len(source.parts) > MOST_SETS or not any(part != ABSENT for part in source.parts):
        found = f"masks of {len(source.parts)} classes" if source.parts[MOST_SETS:] else "a mask of no class"
        expected, fix = f"1 to {MOST_SETS} classes, one file each", "leave out the classes you do not need"
        raise DataError(Problem(found, shown(source.path), expected, fix, "E27"))
    files = {k: open_mask(part) for k, part in enumerate(source.parts) if part != ABSENT}
    first = next(iter(files.values()))
    for file in files.values():
        if (file.pages, file.size) != (first.pages, first.size):
            for one in files.values():
                one.close()
            raise DataError(
                Problem(
                    f"{file.pages} × {file.size[0]} × {file.size[1]} (pages, rows, columns)",
                    shown(file.path),
                    f"{first.pages} × {first.size[0]} × {first.size[1]} like {shown(first.path)}",
                    "the masks of one image have one size: export them again",
                    "B04",
                )
            )
    dtype = set_type(len(source.parts))

    def decode(page: int, window: tuple[slice, slice]) -> NDArray[Any]:
        present = ((k, file.read(page, window) != 0) for k, file in files.items())
        return np.bitwise_or.reduce([inside.astype(dtype) << dtype.type(k) for k, inside in present])

    return composed(list(files.values()), decode, 1, dtype)


def set_type(classes: int) -> np.dtype[Any]:
    """The smallest unsigned type whose bits name sets of so many classes.

    >>> set_type(4).name, set_type(9).name, set_type(62).name
    ('uint8', 'uint16', 'uint64')
    """
    return np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if classes <= 8 * size))


IMAGES: Mapping[str, Callable[[Source], ImageFile]] = {
    "file": lambda source: open_image(source.path),
    "channels": _channels,
}

MASKS: Mapping[str, Callable[[Source], ImageFile]] = {
    "file": lambda source: open_mask(source.path),
    "classes": _classes,
}
