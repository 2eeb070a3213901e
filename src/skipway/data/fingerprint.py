"""What the training data look like in a few numbers, and what brings an image to a common range."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.check import Checked
from skipway.data.layouts import volumes
from skipway.errors import DataError, Problem
from skipway.images import ImageFile, shown

_BAND_BYTES = 4 * 1024**2

Constants = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(offset, scale), each of shape (C,): the network sees (x - offset) / scale."""


@dataclass(frozen=True)
class Fingerprint:
    """The numbers a plan is made from, over the training items only.

    Attributes:
        n: Items.
        smallest: (H, W), each the smallest that occurs.
        median: (H, W), each the median.
        largest: (H, W), each the largest.
        channels: Of the images.
        dtype: Of the images.
        class_shares: Share of the annotated pixels of each class, in [0, 1]; they add up to 1 unless classes overlap.
        objects: Connected regions other than background, in all items.
        diameter: Median over the items of 2 · sqrt(A / π), with A the median area of a region; pixels.
        touching: Share of the objects that touch another one.
        low: Smallest image value.
        high: Largest image value.
        mean: Mean of the items' means.
        slices: Pages of the median volume, consecutive pages of one file; 1 for single images.
        spacing: Median size of a pixel along (Z, Y, X) or (Y, X); None where the images do not say, or some do not.
        volumes: Whether the images have a third axis in space: more than one slice, and a size along it.
    """

    n: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    channels: int
    dtype: str
    class_shares: tuple[float, ...]
    objects: int
    diameter: float
    touching: float
    low: float
    high: float
    mean: float
    slices: int = 1
    spacing: tuple[float, ...] | None = None
    volumes: bool = False

    def size(self, ndim: int) -> tuple[int, ...]:
        """Median size of what a network of `ndim` axes sees: (H, W) or (Z, H, W)."""
        return (self.slices, *self.median)[-ndim:]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fingerprint":
        """A fingerprint out of a run folder.

        Raises:
            DataError: it is damaged.
        """
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            return cls(**fields)
        except TypeError as error:
            raise DataError(
                Problem(f"the fingerprint of the run is damaged ({error})", fix="train again")
            ) from error


def fingerprint(checked: Checked, names: Sequence[str] | None = None) -> Fingerprint:
    """Describes checked data.

    Args:
        checked: From `inspect`.
        names: Items that count, those that train; all without it.

    Raises:
        ValueError: no item is left.
    """
    wanted = None if names is None else set(names)
    records = [r for r in checked.records if wanted is None or r.name in wanted]
    if not records:
        raise ValueError("no item to describe")
    heights, widths = zip(*(r.size for r in records), strict=True)
    objects = sum(r.values.regions for r in records)
    areas = [r.values.median_area for r in records if r.values.regions]
    stacks = volumes((p for p in checked.pairs.pairs if wanted is None or p.name in wanted), 3)
    spacing = _spacing([r.spacing for r in records])
    slices = int(median(len(stack.pages) for stack in stacks))
    return Fingerprint(
        n=len(records),
        smallest=(min(heights), min(widths)),
        median=(int(median(heights)), int(median(widths))),
        largest=(max(heights), max(widths)),
        channels=records[0].channels,
        dtype=records[0].dtype,
        class_shares=_shares(checked, [r.name for r in records]),
        objects=objects,
        diameter=2 * math.sqrt(median(areas) / math.pi) if areas else 0.0,
        touching=sum(r.values.touching for r in records) / objects if objects else 0.0,
        low=min(r.low for r in records),
        high=max(r.high for r in records),
        mean=sum(r.mean for r in records) / len(records),
        slices=slices,
        spacing=spacing,
        volumes=slices > 1 and spacing is not None and len(spacing) == 3,
    )


def _spacing(known: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """The median along each axis, where all images have a size along the same axes."""
    axes = {len(spacing) for spacing in known}
    if len(axes) != 1 or axes == {0}:
        return None
    return tuple(float(median(sizes)) for sizes in zip(*known, strict=True))


def _shares(checked: Checked, names: Sequence[str]) -> tuple[float, ...]:
    labels, wanted = checked.labels, set(names)
    counts = [0] * len(labels.values)
    total = 0
    for record in checked.records:
        if record.name not in wanted:
            continue
        for value, count in zip(record.values.values, record.values.counts, strict=True):
            if value == labels.ignore:
                continue
            total += count
            if labels.overlapping:
                for k, bit in enumerate(labels.values):
                    counts[k] += count * bool(value & bit)
            elif labels.task == "objects":
                counts[int(value != labels.values[0])] += count
            else:
                counts[labels.values.index(value)] += count
    return tuple(count / total if total else 0.0 for count in counts)


@dataclass(frozen=True)
class Normalisation:
    """Brings each image and channel to a common range by two of its own percentiles.

    offset = the low percentile, scale = high - low: the network sees 0 at the low and 1 at the high one.
    The percentiles are exact order statistics of the whole page, or of all pages that make a volume (the
    smallest value v with at least q % of the pixels ≤ v), so every tile of it gets the same constants. Where
    the two coincide, minimum and maximum take their place; where these coincide too, the scale is 1 and the
    image becomes 0.

    Attributes:
        kind: "percentile".
        low: In percent.
        high: In percent.
    """

    kind: str = "percentile"
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        if self.kind != "percentile" or not 0 <= self.low < self.high <= 100:
            raise DataError(Problem(f"no such normalisation: {self.kind} {self.low}…{self.high}"))

    def constants(self, image: ImageFile | NDArray[Any], page: int | range = 0) -> Constants:
        """Offset and scale of one page, or of several as one volume, in memory of one band however large they are.

        Args:
            image: An open file, or an array of shape (C, *S).
            page: Page of a file, or a range of pages.

        Returns:
            (offset, scale), float64, each of shape (C,): use (x - offset) / scale.

        Raises:
            DataError: pixels that are NaN or infinite.

        >>> offset, scale = Normalisation(low=0, high=100).constants(np.array([[10, 20, 30]], np.uint8))
        >>> offset.tolist(), scale.tolist()
        ([10.0], [20.0])
        """
        name = shown(image.path) if isinstance(image, ImageFile) else "the image"
        shares = (self.low / 100, self.high / 100, 0.0, 1.0)
        found = np.array(order_statistics(_Bands(image, page), shares, name), np.float64).T
        low, high, minimum, maximum = found
        low, high = np.where(high > low, (low, high), (minimum, maximum))
        scale = high - low
        return low, np.where(scale > 0, scale, 1.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Normalisation":
        """A normalisation out of a run folder.

        Raises:
            DataError: it is damaged.
        """
        try:
            return cls(str(value["kind"]), float(value["low"]), float(value["high"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                Problem(f"the normalisation of the run is damaged ({error})", fix="train again")
            ) from error


LIMIT = 20.0
"""Largest value either way that the network sees: one hot pixel must not outweigh all others, or overflow."""


def normalised(
    pixels: NDArray[Any], constants: Constants, dtype: type[np.floating] = np.float32
) -> NDArray[Any]:
    """(x - offset) / scale, held within ±`LIMIT`: what the network sees, in training and in prediction.

    Args:
        pixels: (C, *S), any real type; not changed.
        constants: Offset and scale, each of shape (C,).
        dtype: Of the result, and of the arithmetic.

    Returns:
        Array of shape (C, *S).

    >>> normalised(np.array([[30, 1000]]), (np.array([10.0]), np.array([20.0]))).tolist()
    [[1.0, 20.0]]
    """
    column = (-1, *(1,) * (pixels.ndim - 1))
    offset, scale = (np.asarray(value).astype(dtype).reshape(column) for value in constants)
    values = pixels.astype(dtype)
    values -= offset
    values /= scale
    return np.clip(values, -LIMIT, LIMIT, out=values)


class _Bands:
    """Bands (C, h, W) of an image, as often as they are asked for."""

    def __init__(self, image: ImageFile | NDArray[Any], page: int | range) -> None:
        self._image, self._pages = image, (page,) if isinstance(page, int) else page

    def __iter__(self) -> Iterator[NDArray[Any]]:
        if isinstance(self._image, ImageFile):
            for page in self._pages:
                for _, band in self._image.bands(page, limit=_BAND_BYTES):
                    yield band
        else:
            yield self._image


def order_statistics(bands: Iterable[NDArray[Any]], shares: Sequence[float], name: str) -> list[list[float]]:
    """Exact order statistics of each channel without sorting or holding the image.

    Values become unsigned keys of the same order; each pass over the bands decides 16 bits of the key by a
    histogram, so 8- and 16-bit images take one pass, 32-bit ones two, 64-bit ones four.

    Args:
        bands: (C, …) arrays of one type; iterated once for each pass.
        shares: In [0, 1]; share q picks the ceil(q · n)-th smallest value, at least the first.
        name: For messages.

    Returns:
        One list for each channel, values in the order of `shares`.

    Raises:
        DataError: NaN or infinite values.
    """
    first = next(iter(bands))
    dtype = first.dtype
    passes = max(1, dtype.itemsize // 2)
    channels = first.shape[0]
    prefixes = [[0] * len(shares) for _ in range(channels)]
    ranks: list[list[int]] = []
    for step in range(passes):
        tables = _histograms(bands, prefixes, passes - step, dtype, name)
        if not ranks:
            total = int(tables[0][0].sum())
            ranks = [[max(1, math.ceil(q * total)) for q in shares] for _ in range(channels)]
        for channel in range(channels):
            for index, prefix in enumerate(prefixes[channel]):
                running = np.cumsum(tables[channel][prefix])
                digit = int(np.searchsorted(running, ranks[channel][index]))
                ranks[channel][index] -= int(running[digit - 1]) if digit else 0
                prefixes[channel][index] = (prefix << 16) | digit
    keys = np.array(prefixes, np.uint64)
    return [[float(_value(key, dtype)) for key in row] for row in keys]


def _histograms(
    bands: Iterable[NDArray[Any]],
    prefixes: Sequence[Sequence[int]],
    left: int,
    dtype: np.dtype[Any],
    name: str,
) -> list[dict[int, NDArray[np.int64]]]:
    """Counts of the next 16 key bits, among the values whose decided bits equal a prefix."""
    tables = [{prefix: np.zeros(1 << 16, np.int64) for prefix in set(row)} for row in prefixes]
    whole = left * 16 >= dtype.itemsize * 8
    for band in bands:
        if dtype.kind == "f" and not np.isfinite(band).all():
            raise DataError(
                Problem(
                    f"{int(np.sum(~np.isfinite(band)))} values that are NaN or infinite",
                    name,
                    "finite numbers",
                    "replace them, or leave the image out",
                    "C09",
                )
            )
        for channel, table in enumerate(tables):
            keys = _keys(np.ascontiguousarray(band[channel]).ravel())
            digits = keys if whole and left == 1 else (keys >> keys.dtype.type(16 * (left - 1))) & 0xFFFF
            for prefix, counts in table.items():
                chosen = digits if whole else digits[keys >> keys.dtype.type(16 * left) == prefix]
                counts += np.bincount(chosen.astype(np.int64), minlength=1 << 16)
    return tables


def _keys(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers in the order of the values: the sign bit turned, negative floats complemented."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits = values.view(unsigned)
    if values.dtype.kind == "u":
        return bits
    sign = unsigned.type(1 << (values.dtype.itemsize * 8 - 1))
    if values.dtype.kind == "i":
        return bits ^ sign
    return np.where(bits & sign, ~bits, bits | sign)


def _value(key: np.uint64, dtype: np.dtype[Any]) -> Any:
    """The value of a key."""
    if dtype.kind == "b":
        return int(key)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    bits = np.array([key]).astype(unsigned)
    sign = unsigned.type(1 << (dtype.itemsize * 8 - 1))
    if dtype.kind == "i":
        bits = bits ^ sign
    elif dtype.kind == "f":
        bits = np.where(bits & sign, bits ^ sign, ~bits)
    return bits.view(dtype)[0]
