"""Where an image lies in the world, so that what is written of it lies there too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Affine = tuple[tuple[float, float, float, float], ...]
"""Four rows of four."""


@dataclass(frozen=True)
class Geometry:
    """Size of a pixel, and its place.

    Attributes:
        spacing: Size of a pixel along (Z, Y, X), or (Y, X) of a picture without a third axis.
        unit: Of the spacing, such as "mm" or "µm"; empty where the file does not say.
        affine: Voxel (x, y, z, 1) to world (right, anterior, superior, 1) in mm; None where the file has no world.
        header: What the format needs to write the same place again; its own business.
    """

    spacing: tuple[float, ...]
    unit: str = ""
    affine: Affine | None = None
    header: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


_UNITS = {
    "µm": ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"),
    "nm": ("nm", "nanometer", "nanometre"),
    "mm": ("mm", "millimeter", "millimetre"),
    "cm": ("cm", "centimeter", "centimetre"),
    "m": ("m", "meter", "metre"),
    "Å": ("å", "angstrom"),
    "inch": ("in", "inch"),
}


def unit_of(text: str) -> str:
    """The unit a file means, in one spelling; "" for pixels and for what is no length.

    >>> unit_of("micron"), unit_of("Millimeter"), unit_of("pixel")
    ('µm', 'mm', '')
    """
    word = text.strip().strip("\0").casefold()
    return next((unit for unit, words in _UNITS.items() if word in words), "")
