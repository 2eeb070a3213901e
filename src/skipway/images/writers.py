"""How label maps become files: one function a format, found by suffix in `WRITERS`. A new one is a row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Geometry
from .metaimage import save_metaimage
from .nifti import save_nifti
from .nrrd import save_nrrd
from .tiff_tags import placed

_TILED_FROM = 1 << 24

Writer = Callable[[Path, NDArray[Any], NDArray[Any] | None, Geometry | None], None]
"""`write(path, labels, palette, geometry)`: labels of shape (H, W) or (P, H, W), whole numbers, not bool."""


def fits_png(labels: NDArray[Any]) -> bool:
    """Whether PNG can hold the labels: one page, 16 bits, no sign."""
    if labels.ndim != 2:
        return False
    if labels.dtype in (np.uint8, np.uint16) or not labels.size:
        return True
    return int(labels.min()) >= 0 and int(labels.max()) <= 65535


def save_png(to: Path, labels: NDArray[Any], palette: NDArray[Any] | None, geometry: Geometry | None) -> None:
    """A PNG of 8 bits, or of 16 for any wider type; it has no place for a geometry."""
    from PIL import Image

    image = Image.fromarray(labels if labels.dtype == np.uint8 else labels.astype(np.uint16))
    if palette is not None and labels.dtype == np.uint8:
        image.putpalette(colours_of(palette).tobytes())
    image.save(to, "PNG")


def save_tiff(
    to: Path, labels: NDArray[Any], palette: NDArray[Any] | None, geometry: Geometry | None
) -> None:
    """A compressed TIFF, tiled where it is large; `.ome.tif` makes it an OME-TIFF."""
    import tifffile

    coloured = palette is not None and labels.dtype == np.uint8
    ome = to.name.lower().endswith((".ome.tif", ".ome.tiff"))
    extra = placed(geometry, labels, ome=ome)
    if coloured and palette is not None:
        extra["colormap"] = colours_of(palette).T.astype(np.uint16) * 257
    if labels.shape[-1] * labels.shape[-2] > _TILED_FROM:
        extra["tile"] = (512, 512)
    tifffile.imwrite(
        to,
        labels,
        photometric="palette" if coloured else "minisblack",
        planarconfig=None,
        compression="zlib",
        **extra,
    )


def save_npy(to: Path, labels: NDArray[Any], palette: NDArray[Any] | None, geometry: Geometry | None) -> None:
    """A NumPy array; it has no place for colours or a geometry."""
    np.save(to, labels, allow_pickle=False)


def colours_of(palette: NDArray[Any]) -> NDArray[np.uint8]:
    """256 colours of 8 bits; a palette with any number above 255 is one of 16 bits."""
    table = np.zeros((256, 3), np.uint8)
    used = np.asarray(palette)[:256]
    table[: len(used)] = used >> 8 if used.max(initial=0) > 255 else used
    return table


WRITERS: dict[str, Writer] = {
    ".png": save_png,
    ".tif": save_tiff,
    ".tiff": save_tiff,
    ".ome.tif": save_tiff,
    ".ome.tiff": save_tiff,
    ".npy": save_npy,
    ".nii": save_nifti,
    ".nii.gz": save_nifti,
    ".nrrd": save_nrrd,
    ".mha": save_metaimage,
}
"""Suffix of a label map, in lower case, and what writes it."""
