"""The simple method every network has to beat: a global threshold."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skipway.metrics.pixel import confusion, mean_defined, scores


def otsu_threshold(image: NDArray[Any]) -> float:
    """Grey value that splits the histogram into two classes with the largest variance between them.

    Maximises w0(t) · w1(t) · (μ0(t) - μ1(t))² over t, with the weights w and means μ of the values ≤ t
    and > t. Integer images use one bin per grey value, all others 256 equal bins between minimum and maximum.

    Args:
        image: Grey values, any shape, finite.

    Returns:
        The threshold t; foreground is what lies above it. The only value for a constant image.

    Raises:
        ValueError: The image is empty or holds NaN or Inf.

    Source: Otsu 1979, eq. 18.

    >>> otsu_threshold(np.array([1, 2, 1, 9, 8]))
    2.0
    """
    values = image.reshape(-1)
    if not values.size or not np.isfinite(values).all():
        raise ValueError("an Otsu threshold needs at least one pixel and finite values only")
    if values.min() == values.max():
        return float(values[0])
    centres, counts = _histogram(values)
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)
    above = counts.sum() - below
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    return float(centres[np.argmax(below * above * difference**2)])


def _histogram(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey values and how often each occurs, both float64; the first and last count are positive."""
    if np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_:
        centres, counts = np.unique(values, return_counts=True)
        return centres.astype(np.float64), counts.astype(np.float64)
    counts, edges = np.histogram(values.astype(np.float64), bins=256)
    return (edges[:-1] + edges[1:]) / 2, counts.astype(np.float64)


def otsu_mask(image: NDArray[Any], *, foreground: str = "bright") -> NDArray[np.bool_]:
    """Mask of one image by Otsu's threshold; channels are averaged first.

    Args:
        image: Grey values (H, W) or channel first (C, H, W).
        foreground: `bright` (as in fluorescence, the default rule) or `dark` (as in transmitted light).

    Returns:
        Mask, bool (H, W); nothing is foreground in a constant image.

    Raises:
        ValueError: `foreground` is neither word, or the image is not 2-D or channel-first.

    >>> otsu_mask(np.array([[1, 9], [2, 8]])).tolist()
    [[False, True], [False, True]]
    """
    if foreground not in ("bright", "dark"):
        raise ValueError(f"foreground must be 'bright' or 'dark', not {foreground!r}")
    if image.ndim not in (2, 3):
        raise ValueError(f"need an image (H, W) or (C, H, W), not shape {image.shape}")
    grey = image if image.ndim == 2 else image[0] if image.shape[0] == 1 else image.mean(axis=0)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, bool)
    bright = grey > otsu_threshold(grey)
    return bright if foreground == "bright" else ~bright


def otsu_polarity(
    images: Iterable[NDArray[Any]], masks: Iterable[NDArray[np.bool_]]
) -> Literal["bright", "dark"]:
    """The side of Otsu's threshold that agrees better with the masks, by the mean Dice over the images.

    Decided on training images, it makes the baseline fair where the foreground is dark.

    Args:
        images: Grey values, each (H, W) or channel first (C, H, W).
        masks: True on the foreground, each (H, W).

    Returns:
        What `otsu_mask` takes as `foreground`; `bright` where the two agree equally well.

    Raises:
        ValueError: As for `otsu_mask`, or other numbers or sizes of images and masks.

    >>> otsu_polarity([np.array([[1, 9, 9]])], [np.array([[True, False, False]])])
    'dark'
    """
    bright: list[float | None] = []
    dark: list[float | None] = []
    for image, mask in zip(images, masks, strict=True):
        bright.append(_dice(mask, otsu_mask(image)))
        dark.append(_dice(mask, otsu_mask(image, foreground="dark")))
    means = [mean_defined(values)[0] or 0.0 for values in (bright, dark)]
    return "dark" if means[1] > means[0] else "bright"


def simplest_rule(
    images: Iterable[NDArray[Any]], masks: Iterable[NDArray[np.bool_]]
) -> Literal["everywhere", "bright", "dark"]:
    """What agrees best with the masks of one class, by the mean Dice: everything, or a side of Otsu's threshold.

    Args:
        images: Grey values, each (H, W) or channel first (C, H, W).
        masks: True where the class is, each (H, W).

    Returns:
        What `by_rule` takes; the first of equals.

    >>> simplest_rule([np.array([[1, 9, 9]])], [np.array([[True, True, True]])])
    'everywhere'
    """
    rules: tuple[Literal["everywhere", "bright", "dark"], ...] = ("everywhere", "bright", "dark")
    pairs = list(zip(images, masks, strict=True))
    means = [
        mean_defined(_dice(mask, by_rule(image, rule)) for image, mask in pairs)[0] or 0.0 for rule in rules
    ]
    return rules[int(np.argmax(means))]


def by_rule(image: NDArray[Any], rule: Literal["everywhere", "bright", "dark"]) -> NDArray[np.bool_]:
    """The mask of one image by a rule of `simplest_rule`, bool (H, W)."""
    if rule == "everywhere":
        return np.ones(image.shape[-2:], bool)
    return otsu_mask(image, foreground=rule)


def _dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float | None:
    return scores(confusion(truth, prediction, 2))[1].dice
