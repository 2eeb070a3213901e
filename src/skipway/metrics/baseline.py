"""The simple method every network has to beat: a global threshold."""

from collections.abc import Iterable, Sequence
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


def class_sides(tables: Sequence[NDArray[np.int64]]) -> tuple[int, int]:
    """What to call the dark and the bright side of Otsu's threshold, of several classes that exclude each other.

    All pairs are tried, those of one class on both sides among them; the best is that with the highest mean over
    the images of the mean Dice over the classes other than background that occur in truth or prediction.

    Args:
        tables: Of each image the pixels of each class on the dark and on the bright side, (2, K); class 0 is
            background.

    Returns:
        Class of the dark side and of the bright side; the first of equals.

    >>> class_sides([np.array([[8, 0, 2], [0, 3, 1]])])  # 2 where it is dark, 1 where it is bright
    (2, 1)
    >>> class_sides([np.array([[1, 9, 0], [0, 9, 1]])])
    (1, 1)
    """
    means = [_dice_of_sides(table) for table in tables]
    known = np.sum([~np.isnan(mean) for mean in means], axis=0)
    total = np.sum([np.nan_to_num(mean) for mean in means], axis=0)
    best = int(np.argmax(total / np.maximum(known, 1)))
    dark, bright = divmod(best, tables[0].shape[1])
    return dark, bright


def _dice_of_sides(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean Dice of one image for each class of the dark side (row) and of the bright side (column); NaN without any."""
    truth, sides = table.sum(axis=0), table.sum(axis=1)
    front = np.arange(len(truth)) > 0  # background is not averaged
    dark, bright = (2 * table[k] / np.maximum(sides[k] + truth, 1) * front for k in (0, 1))
    false = [front & (truth == 0) & (side > 0) for side in sides]  # predicted classes that are not there
    total = dark[:, None] + bright[None, :]
    count = np.count_nonzero(truth[1:]) + false[0][:, None].astype(int) + false[1][None, :]
    one = np.diag_indices(len(truth))  # one class on both sides
    total[one] = 2 * truth / np.maximum(sides.sum() + truth, 1) * front
    count[one] = np.count_nonzero(truth[1:]) + (front & (truth == 0) & (sides.sum() > 0))
    found: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def by_rule(image: NDArray[Any], rule: Literal["everywhere", "bright", "dark"]) -> NDArray[np.bool_]:
    """The mask of one image by a rule of `simplest_rule`, bool (H, W)."""
    if rule == "everywhere":
        return np.ones(image.shape[-2:], bool)
    return otsu_mask(image, foreground=rule)


def _dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float | None:
    return scores(confusion(truth, prediction, 2))[1].dice
