"""Grey or colour, where the user wants all images to be one of them: a rule for pixels, applied as they are read."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import DataError, Problem

from .codecs import shown
from .reading import ImageFile, Window, composed

CHANNELS = {"grey": 1, "rgb": 3}
"""What an image can be read as, and its channels then."""

REC_601 = (299, 587, 114)
"""Thousandths of red, green and blue in the luma Y' of Rec. ITU-R BT.601; whole numbers keep the sums exact."""


def recoloured(pixels: NDArray[Any], colour: str) -> NDArray[Any]:
    """Pixels of one or three channels as grey or as RGB.

    Grey is Y' = 0.299 R + 0.587 G + 0.114 B of the stored values, computed in 64 bits and not rounded to whole
    numbers; where R = G = B it is that number, as in an image of one channel. RGB is three channels, of
    grey three times the same.

    Args:
        pixels: (C, *S), C 1 or 3, any real type.
        colour: A key of `CHANNELS`.

    Returns:
        (1, *S) in the float type that holds the values, or (3, *S) in the type of the pixels.

    >>> recoloured(np.array([[10], [20], [30]], np.uint8), "grey")
    array([[18.15]], dtype=float32)
    >>> recoloured(np.array([[7]], np.uint8), "rgb").tolist()
    [[7], [7], [7]]
    """
    if colour == "rgb":
        return np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    if len(pixels) == 1:
        return pixels.astype(_float(pixels.dtype))
    grey = np.zeros(pixels.shape[1:], np.float64)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what is not finite stays so, and the check refuses it
        for share, channel in zip(REC_601, pixels, strict=True):
            grey += share * channel.astype(np.float64)
        grey /= sum(REC_601)
        return grey[None].astype(_float(pixels.dtype))


def in_colour(image: ImageFile, colour: str) -> ImageFile:
    """An open image that reads as grey or as RGB, window by window; closing it closes the other.

    Args:
        image: Of one or three channels.
        colour: A key of `CHANNELS`.

    Raises:
        DataError: another number of channels, which has no grey and no colour (D01).
    """
    if image.channels not in CHANNELS.values():
        image.close()
        found, fix = (
            f"{image.channels} channels",
            f"leave out --colour {colour}, or export grey or RGB images",
        )
        raise DataError(
            Problem(found, shown(image.path), "1 (grey) or 3 (RGB), where --colour is given", fix, "D01")
        )
    if colour == "rgb" and image.channels == 3:
        return image

    def decode(page: int, window: Window) -> NDArray[Any]:
        return recoloured(image.read(page, window), colour)

    dtype = _float(image.dtype) if colour == "grey" else image.dtype
    whole = composed([image], decode, CHANNELS[colour], dtype)
    name = {"grey": "grey", "rgb": "RGB"}[colour]
    kind = image.kind if image.channels == whole.channels else f"{image.kind} as {name}"
    return replace(whole, kind=kind, recast_from=image.own_dtype)


def _float(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.result_type(dtype, np.float32)
