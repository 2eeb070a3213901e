"""Image files and arrays: one reading policy for PNG, TIFF and JPEG, one way to write labels.

What an image file means here (masks differ where said):

- Format: told by the first bytes, never by the name. PNG 1-16 bit, TIFF of 1-64 bit integers or floats, JPEG.
- Values: as stored, in the file's own type; 16-bit colour stays 16-bit. White-is-zero TIFFs are not inverted.
- Palette: an image is expanded to its colours; a mask keeps its indices.
- Grey of 1, 2 or 4 bits: an image is spread over 0…255 (1 bit: 0 and 1); a mask keeps the stored number.
- Alpha: fully opaque is dropped; alpha that varies is refused. A PNG transparency key is ignored.
- Orientation (EXIF, TIFF): applied to images and masks alike, and said in `ImageFile.notes`.
- CMYK, Lab, LogLuv, sub-sampled YCbCr without JPEG: refused.
- Axes of a TIFF: Y and X; S or C are channels; one further axis (Z, T, pages) counts pages; more is refused.
- Masks: integers; floats that are whole numbers; colour only where R=G=B or only red is used; never JPEG.
- Size: whatever must be decoded at once is limited to `MAX_PIXELS`; TIFF strips and tiles are read as needed.

Anything else is a `DataError` of one line, before memory is taken.
"""

from .codecs import MAX_PIXELS, shown
from .formats import FORMATS, IMAGE_SUFFIXES, is_image, stem_of, suffix_of
from .geometry import Geometry
from .reading import ImageFile, Window, composed, in_memory, open_image, open_mask
from .writing import open_probabilities, output_name, write_labels

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Geometry",
    "ImageFile",
    "Window",
    "composed",
    "in_memory",
    "is_image",
    "open_image",
    "open_mask",
    "open_probabilities",
    "output_name",
    "shown",
    "stem_of",
    "suffix_of",
    "write_labels",
]
