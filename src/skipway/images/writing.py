"""Writing label maps and probabilities: whole files or nothing, and never fewer bits than the values need."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import EnvironmentFault, Problem

from .codecs import shown
from .reading import open_mask

_TIFF_SUFFIXES = (".tif", ".tiff")
_TILED_FROM = 1 << 24


def output_name(path: Path) -> str:
    """File name of the labels of an image: the same, with JPEG become PNG because labels must not be lossy.

    >>> output_name(Path("in/a.jpg")), output_name(Path("in/b.tif"))
    ('a.png', 'b.tif')
    """
    return path.stem + ".png" if path.suffix.lower() in (".jpg", ".jpeg") else path.name


def write_labels(path: Path, labels: NDArray[Any], *, palette: NDArray[Any] | None = None) -> Path:
    """Writes a label map; the file is there complete, or not at all, and reads back equal.

    PNG holds up to 16 bits without sign and one page; labels that need more are written as TIFF instead.

    Args:
        path: `.png`, `.tif` or `.tiff`.
        labels: Whole numbers of shape (H, W), or (P, H, W) for pages.
        palette: (N, 3) colours for 8-bit labels; the stored numbers stay the labels.

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
    suffix = path.suffix.lower()
    if suffix not in (".png", *_TIFF_SUFFIXES):
        raise ValueError(f"labels are written as .png or .tif, not {path.suffix!r}")
    stored = _png_form(labels) if suffix == ".png" else None
    if stored is not None:
        return _write(path, stored, lambda to: _save_png(to, stored, palette))
    if suffix == ".png":
        path = path.with_suffix(".tif")
    array = labels.astype(np.uint8) if labels.dtype == bool else labels
    return _write(path, array, lambda to: _save_tiff(to, array, "ZYX", palette))


def write_probabilities(path: Path, probabilities: NDArray[Any]) -> Path:
    """Writes class probabilities as a float TIFF with axes CYX.

    Args:
        path: Its suffix becomes `.tif` unless it is one of TIFF.
        probabilities: (K, H, W), float16 or float32; kept as they are.

    Returns:
        The path written.

    Raises:
        EnvironmentFault: the disk refused.
    """
    if path.suffix.lower() not in _TIFF_SUFFIXES:
        path = path.with_suffix(".tif")
    return _write(path, None, lambda to: _save_tiff(to, probabilities, "CYX", None))


def _png_form(labels: NDArray[Any]) -> NDArray[Any] | None:
    """The labels as PNG can hold them, or None. 16 bits stay 16 bits even where 8 would do."""
    if labels.ndim != 2:
        return None
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype in (np.uint8, np.uint16):
        return labels
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) > 65535):
        return None
    return labels.astype(np.uint16)


def _save_png(to: Path, labels: NDArray[Any], palette: NDArray[Any] | None) -> None:
    from PIL import Image

    image = Image.fromarray(labels)
    if palette is not None and labels.dtype == np.uint8:
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(palette)] = palette
        image.putpalette(colours.tobytes())
    image.save(to, "PNG")


def _save_tiff(to: Path, array: NDArray[Any], axes: str, palette: NDArray[Any] | None) -> None:
    import tifffile

    coloured = palette is not None and array.dtype == np.uint8
    extra: dict[str, Any] = {}
    if coloured and palette is not None:
        table = np.zeros((3, 256), np.uint16)
        table[:, : len(palette)] = palette.astype(np.uint16).T * 257
        extra["colormap"] = table
    if array.shape[-1] * array.shape[-2] > _TILED_FROM:
        extra["tile"] = (512, 512)
    tifffile.imwrite(
        to,
        array,
        photometric="palette" if coloured else "minisblack",
        planarconfig=None,
        compression="zlib",
        metadata={"axes": axes[-array.ndim :]},
        **extra,
    )


def _write(path: Path, expected: NDArray[Any] | None, save: Callable[[Path], None]) -> Path:
    """Saves beside the goal under a hidden name, reads back, then renames: nobody sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.stem[:100]}.{os.getpid()}.part{path.suffix}")
    try:
        save(hidden)
        if expected is not None and not _reads_back(hidden, expected):
            raise EnvironmentFault(
                Problem(
                    "the file read back differs from what was written",
                    shown(path),
                    "equal labels",
                    "check the disk",
                )
            )
        with hidden.open("rb+") as file:
            os.fsync(file.fileno())
        hidden.replace(path)
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
    finally:
        hidden.unlink(missing_ok=True)
    return path


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
