"""Where to look: regions without anything in them, and pixels outside a mask, are background without the network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.fingerprint import Constants
from skipway.errors import DataError, Problem, UsageError
from skipway.images import ImageFile, is_image, open_mask, shown, stem_of
from skipway.predict.pixels import Pixels
from skipway.regions import Window

FLAT = 0.05
"""A region is empty where, in every channel, 99 % of its pixels lie within this share of the image's own range."""

_TAILS = (0.5, 99.5)


@dataclass(frozen=True)
class Looking:
    """What is left out of a prediction.

    Attributes:
        skip_empty: Whether regions that are empty are background; see `FLAT`.
        only: Mask of the image, open: 0 where nobody looks, there is background.
    """

    skip_empty: bool = False
    only: ImageFile | None = field(default=None, compare=False)

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not self.skip_empty and self.only is None

    def nothing(self, pixels: Pixels, constants: Constants, window: Window, outside: Any) -> bool:
        """Whether the network need not look at a region.

        Args:
            pixels: The image.
            constants: (offset, scale) of it; the scale is its range without the outliers.
            window: Of the region.
            outside: Of `outside`.
        """
        if outside is not None and bool(outside.all()):
            return True
        return self.skip_empty and flat(pixels.read(window), np.asarray(constants[1]))

    def outside(self, window: Window, page: int) -> NDArray[np.bool_] | None:
        """Pixels of a window where nobody looks; None where there is no mask.

        Args:
            window: (rows, columns), or (pages, rows, columns) of a volume.
            page: First page of the unit.
        """
        if self.only is None:
            return None
        *deep, rows, columns = window
        if not deep:
            return self.only.read(page, (rows, columns))[0] == 0
        pages = range(page + deep[0].start, page + deep[0].stop)
        return np.stack([self.only.read(one, (rows, columns))[0] == 0 for one in pages])


def flat(region: NDArray[Any], scale: NDArray[Any]) -> bool:
    """Whether a region (C, *S) has nothing in it, see `FLAT`.

    >>> flat(np.array([[[200, 201, 199]]]), np.array([100.0])), flat(np.array([[[200, 90, 199]]]), np.array([100.0]))
    (True, False)
    """
    low, high = np.percentile(region.reshape(len(region), -1), _TAILS, axis=1, method="nearest")
    return bool((high.astype(np.float64) - low <= FLAT * scale).all())


def blank(arrays: dict[str, NDArray[Any]], where: Any, *, overlapping: bool) -> None:
    """Makes pixels of a region background: class 0 with probability 1, or none of the classes that overlap.

    Args:
        arrays: "labels" (*S), and "classes" with its classes third from the end.
        where: (*S), or ... for all.
        overlapping: Whether classes overlap.
    """
    arrays["labels"][where] = 0
    if "classes" in arrays:
        shares = np.moveaxis(arrays["classes"], -3, 0)
        full = 1 if shares.dtype.kind == "f" else np.iinfo(shares.dtype).max
        for k, share in enumerate(shares):
            share[where] = 0 if k or overlapping or len(shares) == 1 else full


def mask_of(masks: Path, image: Path) -> Path:
    """The mask that says where to look in an image: the file itself, or the one of its stem in a folder.

    Raises:
        UsageError: no such file.
    """
    if masks.is_file():
        return masks
    stem = stem_of(image)
    found = [p for p in sorted(masks.glob("*")) if is_image(p, folder=p.is_dir()) and stem_of(p) == stem]
    if len(found) != 1:
        text = f"{len(found)} masks for {image.name}"
        raise UsageError(Problem(text, f"--only {shown(masks)}", f"one, called {stem}", "a mask an image"))
    return found[0]


def open_only(path: Path, image: ImageFile) -> ImageFile:
    """A mask that fits an image.

    Raises:
        DataError: another size or number of pages.
    """
    mask = open_mask(path)
    if (mask.pages, mask.size) != (image.pages, image.size):
        mask.close()
        sides = f"{mask.pages} × {mask.size[0]} × {mask.size[1]}"
        wanted = f"{image.pages} × {image.size[0]} × {image.size[1]} like {image.path.name}"
        raise DataError(Problem(f"a mask of {sides}", shown(path), wanted, "a mask of the size of the image"))
    return mask
