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

from skipway.data import composites, drawn
from skipway.errors import DataError, Problem
from skipway.images import ImageFile, composed, in_colour, open_image, open_mask, shown


def page_name(name: str, page: int, pages: int) -> str:
    """What a page of a stack is called, here and in every list that is written.

    >>> page_name("stack", 7, 30)
    'stack#007'
    """
    return f"{name}#{page:0{max(3, len(str(pages - 1)))}d}"


@dataclass(frozen=True)
class Source:
    """One picture.

    Attributes:
        path: The file that a user would name: the only one, or the first of several.
        page: Its page where the file is a stack.
        kind: How it is read, a key of `IMAGES` or `MASKS`.
        parts: All files in order, where there are several.
        names: What the parts, colours or shapes are called, where that means something.
        colours: (r, g, b) of each name.
        key: Which entry of a list of shapes.
        coding: What part, colour or shape number k is written as, where a kind knows several ways: "ids" 1…n for
            each object, "classes" k + 1, "bits" 2^k; empty for the way that the kind has anyway.
        numbers: The k of each part, where it is not its place.
        colour: What the image is read as, a key of `images.CHANNELS`; empty for as it is stored.
    """

    path: Path
    page: int | None = None
    kind: str = "file"
    parts: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    key: str = ""
    coding: str = ""
    numbers: tuple[int, ...] = ()
    colour: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return self.parts or (self.path,)

    @property
    def whole(self) -> "Source":
        """The same without a page."""
        return replace(self, page=None)

    def absolute(self) -> "Source":
        """The same for a process that works in another folder."""
        return replace(self, path=self.path.absolute(), parts=tuple(part.absolute() for part in self.parts))

    def open_image(self) -> ImageFile:
        """The image, open.

        Raises:
            DataError: see `skipway.images.open_image`.
        """
        image = IMAGES[self.kind](self)
        return in_colour(image, self.colour) if self.colour else image

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
            "numbers": tuple(map(int, value.get("numbers", ()))),
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


IMAGES: Mapping[str, Callable[[Source], ImageFile]] = {
    "file": lambda source: open_image(source.path),
    "channels": _channels,
}

MASKS: Mapping[str, Callable[[Source], ImageFile]] = {
    "file": lambda source: open_mask(source.path),
    "objects": composites.objects,
    "classes": composites.classes,
    "colours": composites.colours,
    "mat": composites.matlab,
    "coco": drawn.coco,
    "labelme": drawn.labelme,
    "geojson": drawn.geojson,
}
