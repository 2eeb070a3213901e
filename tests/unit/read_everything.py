"""Reads every fixture in 3 GiB of address space and compares its pixels with a second reader; prints a tally as JSON.

A file is read equal, or refused in one typed line; anything else is a fault.
"""

import csv
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
import tifffile
import zarr
from PIL import Image, ImageOps

from skipway.errors import SkipwayError
from skipway.images import CONVERTED, open_image, open_mask

SLOW = 10  # seconds


def main(root: Path) -> None:
    """Reads all that the index names, as image and as mask."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    Image.MAX_IMAGE_PIXELS = None
    with (root / "index.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file)]
    tally = {"files": len(names), "read equal": 0, "refused typed": 0, "wrong": [], "untyped": [], "slow": []}
    tally |= {
        "read, not compared": 0,
        "no second reader": [],
    }  # of formats without a reference, or where that fails
    tally |= {"masks read": 0, "masks refused": 0, "formats": {}}
    for name in names:
        start = time.monotonic()
        image(name, root / name, tally)
        mask(name, root / name, tally)
        if time.monotonic() - start > SLOW:
            tally["slow"].append(name)
    print(json.dumps(tally))


def image(name: str, path: Path, tally: dict) -> None:
    try:
        with open_image(path) as file:
            pixels = np.stack([file.read(page) for page in range(file.pages)])
    except SkipwayError as error:
        tally["refused typed"] += 1
        if "\n" in str(error):
            tally["untyped"].append(f"{name}: more than one line")
        return
    except Exception as error:  # what this test looks for
        tally["untyped"].append(f"{name}: {error!r}")
        return
    tally["formats"][file.format] = tally["formats"].get(file.format, 0) + 1
    if file.format not in REFERENCE:
        tally["read, not compared"] += 1
        return
    try:
        with warnings.catch_warnings():  # pydicom warns of values that break a rule
            warnings.simplefilter("ignore")
            expected = REFERENCE[file.format](path)
    except Exception as error:  # no second opinion
        tally["no second reader"].append(f"{name}: {error!r}"[:120])
        return
    if file.format in CONVERTED:  # physical values, which references give in double precision
        expected = expected.astype(pixels.dtype)
    if pixels.dtype == np.uint16 and expected.dtype == np.uint8:  # Pillow narrows 16-bit colour
        pixels = (pixels >> 8).astype(np.uint8)
    if expected.shape[1] == pixels.shape[1] + 1 and (expected[:, -1] == expected[:, -1].max()).all():
        expected = expected[:, :-1]  # opaque alpha
    if np.array_equal(pixels, expected, equal_nan=pixels.dtype.kind == "f"):
        tally["read equal"] += 1
    else:
        tally["wrong"].append(f"{name}: {pixels.shape} {pixels.dtype}, {expected.shape} {expected.dtype}")


def mask(name: str, path: Path, tally: dict) -> None:
    try:
        with open_mask(path) as file:
            for page in range(file.pages):
                file.read(page)
        tally["masks read"] += 1
    except SkipwayError:
        tally["masks refused"] += 1
    except Exception as error:
        tally["untyped"].append(f"{name}: {error!r}")


def by_pillow(path: Path) -> np.ndarray:
    """(1, C, H, W)."""
    picture = ImageOps.exif_transpose(Image.open(path))
    array = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    array = array.astype(np.uint8) if array.dtype == bool else array
    return np.moveaxis(np.atleast_3d(array), -1, 0)[None]


def by_tifffile(path: Path) -> np.ndarray:
    """(P, C, H, W), the first series."""
    with tifffile.TiffFile(path) as file:
        series, keyframe = file.series[0], file.series[0].keyframe
        array, axes = series.asarray(), series.axes
        if int(keyframe.photometric) == 3:
            table = keyframe.colormap >> 8
            array, axes = np.moveaxis(table[:, array.astype(int)], 0, -1).astype(np.uint8), axes + "S"
        array = four_axes(array.astype(np.uint8) if array.dtype == bool else array, axes)
        code = keyframe.tags.valueof(274, 1)
    turned = {3: lambda a: np.rot90(a, 2, (2, 3)), 6: lambda a: np.rot90(a, -1, (2, 3))}
    turned |= {8: lambda a: np.rot90(a, 1, (2, 3)), 2: lambda a: a[..., ::-1], 4: lambda a: a[:, :, ::-1]}
    turned |= {5: lambda a: a.swapaxes(2, 3), 7: lambda a: np.rot90(a, 2, (2, 3)).swapaxes(2, 3)}
    return turned.get(code, lambda a: a)(array)


def by_zarr(path: Path) -> np.ndarray:
    """(P, C, H, W), the first array in the order of names, by the axes written at the top."""
    node = zarr.open_group(str(path), mode="r")["0"]
    array = np.asarray(node["0"] if isinstance(node, zarr.Group) else node)
    axes = {2: "YX", 5: "TCZYX"}.get(array.ndim, "CYX" if "cyx" in path.name else "ZYX")
    return four_axes(array, axes)


def by_nibabel(path: Path) -> np.ndarray:
    """(P, C, H, W) in physical values; the fourth axis is channels."""
    values = nibabel.load(path).get_fdata(dtype=np.float64)
    return values.reshape(*values.shape, *(1,) * (4 - values.ndim)).transpose(2, 3, 1, 0)


def by_pydicom(path: Path) -> np.ndarray:
    """(P, C, H, W) in physical values."""
    found = pydicom.dcmread(path)
    pixels = found.pixel_array
    if found.PhotometricInterpretation == "PALETTE COLOR":
        pixels = pydicom.pixels.apply_color_lut(pixels, found)
    pages = int(found.get("NumberOfFrames") or 1)
    pixels = np.moveaxis(pixels.reshape(pages, found.Rows, found.Columns, -1), -1, 1)
    if found.PhotometricInterpretation == "MONOCHROME1":
        pixels = (1 << found.BitsStored) - 1 - pixels.astype(np.int64)
    return pixels * float(found.get("RescaleSlope") or 1) + float(found.get("RescaleIntercept") or 0)


def by_itk(path: Path) -> np.ndarray:
    """(P, C, H, W); ITK has the decoders of three kinds of JPEG that pydicom has not."""
    image = sitk.ReadImage(path)
    array = sitk.GetArrayFromImage(image)
    return four_axes(
        array, "ZYX"[-image.GetDimension() :] + "S" * (image.GetNumberOfComponentsPerPixel() > 1)
    )


def by_dicom(path: Path) -> np.ndarray:
    """What pydicom says, or ITK where that says nothing."""
    try:
        return by_pydicom(path)
    except (NotImplementedError, RuntimeError, AttributeError, ValueError):
        return by_itk(path)


def four_axes(array: np.ndarray, axes: str) -> np.ndarray:
    """Axes in the order pages, channels, rows, columns."""
    channels = [k for k, a in enumerate(axes) if a in "CS"]
    plane = [axes.index("Y"), axes.index("X")]
    pages = [k for k in range(array.ndim) if k not in (*channels, *plane)]
    array = array.transpose([*pages, *channels, *plane])
    pages_of = int(np.prod(array.shape[: len(pages)]))
    return array.reshape(pages_of, -1, *array.shape[-2:])


REFERENCE = {
    **dict.fromkeys(("PNG", "JPEG", "BMP", "GIF", "WebP", "PNM"), by_pillow),
    "TIFF": by_tifffile,
    "Zarr": by_zarr,
    "NIfTI": by_nibabel,
    "DICOM": by_dicom,
    **dict.fromkeys(("NRRD", "MetaImage"), by_itk),
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
