"""Image files and arrays: one reading policy for all formats, one way to write labels.

What an image file means here (masks differ where said):

- Format: told by the first bytes, never by the name; those of `FORMATS`.
- Values: as stored, in the file's own type; 16-bit colour stays 16-bit. White-is-zero TIFFs are not inverted.
- Palette: an image is expanded to its colours; a mask keeps its indices. A GIF mask counts by its grey values.
- Grey of 1, 2 or 4 bits: an image is spread over 0…255 (1 bit: 0 and 1); a mask keeps the stored number.
- Alpha: fully opaque is dropped; alpha that varies is refused. A transparency key is ignored.
- Orientation (EXIF, TIFF): applied to images and masks alike, and said in `ImageFile.notes`.
- CMYK, Lab, LogLuv, sub-sampled YCbCr without JPEG, animations: refused.
- Axes: Y and X; S or C are channels; one further axis (Z, T, pages) counts pages; more is refused. Arrays without names
  are (H, W), (H, W, C) or (Z, H, W, C) of at most 4 channels, or (Z, H, W); what could be two of these is refused.
- Nodata: said in `ImageFile.nodata`; in an image it stays a value, in a mask it is not annotated (but 0 is a label).
- Masks: integers; floats that are whole numbers; colour only where R=G=B or only red is used; never lossy.
- Place: pixel size, unit and GeoTIFF tags go into `ImageFile.geometry`, and `write_labels` writes them again.
- Size: whatever must be decoded at once is limited to `MAX_PIXELS`; strips, tiles and chunks are read as needed.

Anything else is a `DataError` of one line, before memory is taken.
"""

from .codecs import MAX_PIXELS, refused, shown
from .colour import CHANNELS, in_colour, recoloured
from .dicom_series import is_series
from .formats import (
    FORMATS,
    IMAGE_SUFFIXES,
    format_of,
    is_image,
    is_unread_image,
    labels_suffix,
    stem_of,
    suffix_of,
)
from .geometry import Geometry
from .paged import write_paged, write_planes
from .reading import ImageFile, Window, composed, in_memory, open_image, open_mask
from .voxels import CONVERTED
from .writing import open_probabilities, output_name, write_labels
from .zarr_labels import GrowingZarr, marked, write_zarr

__all__ = [
    "CHANNELS",
    "CONVERTED",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Geometry",
    "GrowingZarr",
    "ImageFile",
    "Window",
    "composed",
    "format_of",
    "in_colour",
    "in_memory",
    "is_image",
    "is_series",
    "is_unread_image",
    "labels_suffix",
    "marked",
    "open_image",
    "open_mask",
    "open_probabilities",
    "output_name",
    "recoloured",
    "refused",
    "shown",
    "stem_of",
    "suffix_of",
    "write_labels",
    "write_paged",
    "write_planes",
    "write_zarr",
]
