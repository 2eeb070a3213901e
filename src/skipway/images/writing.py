"""Writing label maps and probabilities: whole files or nothing, and never fewer bits than the values need.

A file is made under a hidden name beside its goal and then renamed; two processes must not write one file.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import EnvironmentFault, Problem

from .codecs import shown
from .formats import labels_suffix, stem_of, suffix_of
from .geometry import Geometry
from .reading import open_mask
from .tiff_tags import located
from .writers import WRITERS, fits_png


def output_name(path: Path) -> str:
    """File name of the labels of an image: the same, with the suffix its format says for labels.

    >>> output_name(Path("in/a.jpg")), output_name(Path("in/b.tif"))
    ('a.png', 'b.tif')
    """
    return stem_of(path) + labels_suffix(path)


def write_labels(
    path: Path,
    labels: NDArray[Any],
    *,
    palette: NDArray[Any] | None = None,
    geometry: Geometry | None = None,
) -> Path:
    """Writes a label map; the file is there complete, or not at all, and reads back equal.

    PNG holds up to 16 bits without sign and one page; labels that need more are written as TIFF instead.

    Args:
        path: Its suffix is one of `writers.WRITERS`.
        labels: Whole numbers of shape (H, W), or (P, H, W) for pages.
        palette: (N, 3) colours of 8 or 16 bits for 8-bit labels; the stored numbers stay the labels.
        geometry: Where the pixels lie, kept as far as the format can.

    Returns:
        The path written: `path`, or the same with suffix `.tif`.

    Raises:
        TypeError: `labels` is not an array of whole numbers.
        ValueError: another shape, or a suffix that is none of these.
        EnvironmentFault: the disk refused, or gave back other values than were written.
    """
    if labels.dtype.kind not in "bui":
        raise TypeError(f"labels are whole numbers, not {labels.dtype}")
    if labels.ndim not in (2, 3):
        raise ValueError(f"labels have shape (H, W) or (P, H, W), not {labels.shape}")
    suffix = suffix_of(path).lower()
    if suffix not in WRITERS:
        raise ValueError(f"labels are written as {', '.join(WRITERS)}, not {suffix!r}")
    array = labels.astype(np.uint8) if labels.dtype == bool else labels
    if suffix == ".png" and not fits_png(array):
        path, suffix = path.with_suffix(".tif"), ".tif"
    return _write(path, array, lambda to: WRITERS[suffix](to, array, palette, geometry))


@contextmanager
def open_probabilities(
    path: Path, shape: Sequence[int], *, geometry: Geometry | None = None
) -> Iterator[NDArray[np.float32]]:
    """A float32 TIFF to be filled region by region, so that memory never holds all of it.

    The file appears under its name when the block ends, and not at all when it ends in an error.

    Args:
        path: `.tif` or `.tiff`.
        shape: (K, H, W), or (P, K, H, W) for the pages of a stack; stored with axes CYX and ZCYX.
        geometry: Where the pixels lie, kept as far as tags can.

    Yields:
        The pixels, mapped from the file. Shape `shape`, zeros to begin with; not to be used after the block.

    Raises:
        ValueError: another number of axes.
        EnvironmentFault: the disk refused.
    """
    if len(shape) not in (3, 4):
        raise ValueError(f"probabilities have shape (K, H, W) or (P, K, H, W), not {tuple(shape)}")
    hidden = hidden_for(path)
    try:
        with told(path):
            array = _mapped(path, hidden, tuple(shape), geometry)
        yield array
        with told(path):
            array.flush()
            publish(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def _mapped(
    path: Path, hidden: Path, shape: tuple[int, ...], geometry: Geometry | None
) -> "np.memmap[Any, np.dtype[np.float32]]":
    """A TIFF of zeros, mapped for writing."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    hidden.unlink(missing_ok=True)
    where = located(geometry, "ZCYX"[-len(shape) :])
    array = tifffile.memmap(
        hidden, shape=shape, dtype=np.float32, photometric="minisblack", planarconfig=None, **where
    )
    _reserve(hidden)
    return array


def _reserve(path: Path) -> None:
    """Takes the room for a sparse file: a full disk is an error here, and would kill the process in a map."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot reserve
                raise


def _write(path: Path, expected: NDArray[Any], save: Callable[[Path], None]) -> Path:
    """Saves beside the goal under a hidden name, reads back, then renames: nobody sees half a file."""
    hidden = hidden_for(path)
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            hidden.unlink(missing_ok=True)
            save(hidden)
            if not _reads_back(hidden, expected):
                raise EnvironmentFault(
                    Problem(
                        "the file read back differs from what was written",
                        shown(path),
                        "equal labels",
                        "check the disk",
                    )
                )
            publish(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    return path


def hidden_for(path: Path) -> Path:
    """Where a file is made: one place for each goal, so that the next write clears what a killed one left."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return path.with_name(f".{stem_of(path)[:40]}.{digest}.part{suffix_of(path)}")


def publish(hidden: Path, path: Path) -> None:
    """Gives a file that is safe on the disk its name."""
    with hidden.open("rb+") as file:
        os.fsync(file.fileno())
    hidden.replace(path)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns what the system says into an error of ours."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnvironmentFault(
            Problem(
                f"cannot be written: {reason}",
                shown(path),
                "room and permission",
                "free space or choose another -o",
            )
        ) from error


def _reads_back(path: Path, expected: NDArray[Any]) -> bool:
    pages = expected[None] if expected.ndim == 2 else expected
    with open_mask(path, max_pixels=max(1, expected.size)) as file:
        if (file.pages, *file.size) != pages.shape:
            return False
        return all(
            np.array_equal(band[0], pages[page, rows])
            for page in range(file.pages)
            for rows, band in file.bands(page)
        )
