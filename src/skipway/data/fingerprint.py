"""What the training data look like in a few numbers, and what brings an image to a common range."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.check import Checked, FileRecord
from skipway.data.labels import LabelMap
from skipway.data.layouts import volumes
from skipway.data.ranks import order_statistics
from skipway.errors import DataError, Problem
from skipway.images import CHANNELS, ImageFile, shown

_BAND_BYTES = 4 * 1024**2

MEASURED = 32
"""Items of which the percentiles of the channels are measured."""

_WINDOW = 2048

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
        intensity: Of each channel the 1 %, 50 % and 99 % percentiles of the image values: medians over at most
            `MEASURED` items spread evenly over all.
        annotated: Share of the pixels that somebody annotated, in [0, 1].
        present: Items in which each class occurs, in the order of `class_shares`.
        areas: Pixels of the small (5 %), median and large (95 %) objects of an item, medians over the items that
            have any; empty without any.
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
    intensity: tuple[tuple[float, float, float], ...] = ()
    annotated: float = 1.0
    present: tuple[int, ...] = ()
    areas: tuple[float, ...] = ()

    def size(self, ndim: int) -> tuple[int, ...]:
        """Median size of what a network of `ndim` axes sees: (H, W) or (Z, H, W)."""
        return (self.slices, *self.median)[-ndim:]

    def __str__(self) -> str:
        """One line a subject, for people."""
        sizes = " / ".join("×".join(map(str, size)) for size in (self.smallest, self.median, self.largest))
        levels = "; ".join(f"{low:g} {middle:g} {high:g}" for low, middle, high in self.intensity)
        present = ", ".join(map(str, self.present))
        areas = " / ".join(f"{area:g}" for area in self.areas) or "none"
        lines = {
            "items": f"{self.n}, {self.channels} channel{'s' if self.channels != 1 else ''} of {self.dtype}",
            "sizes": f"{sizes} (smallest / median / largest)",
            **({"spacing": " × ".join(f"{step:g}" for step in self.spacing)} if self.spacing else {}),
            "values": f"{self.low:g} to {self.high:g}; 1 %, 50 %, 99 % of each channel: {levels or 'not measured'}",
            "classes": f"shares {', '.join(f'{share:.3g}' for share in self.class_shares)}"
            + (f"; in {present} items" if present else ""),
            "annotated": f"{100 * self.annotated:.3g} % of the pixels",
            "objects": f"{self.objects}, area {areas} pixels (5 / 50 / 95 %), "
            f"{100 * self.touching:.0f} % touch another",
        }
        return "\n".join(f"{name:<10} {text}" for name, text in lines.items())

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
            return cls(**{key: _frozen(part) for key, part in value.items()})
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
        class_shares=_shares(checked.labels, records),
        objects=objects,
        diameter=2 * math.sqrt(median(areas) / math.pi) if areas else 0.0,
        touching=sum(r.values.touching for r in records) / objects if objects else 0.0,
        low=min(r.low for r in records),
        high=max(r.high for r in records),
        mean=sum(r.mean for r in records) / len(records),
        slices=slices,
        spacing=spacing,
        volumes=slices > 1 and spacing is not None and len(spacing) == 3,
        intensity=_intensity(checked, [r.name for r in records]),
        annotated=_annotated(records, checked.labels.ignore),
        present=tuple(
            sum(column) for column in zip(*(_present(r, checked.labels) for r in records), strict=True)
        ),
        areas=tuple(
            median(column)
            for column in zip(*(r.values.areas for r in records if r.values.areas), strict=True)
        ),
    )


def _spacing(known: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """The median along each axis, where all images have a size along the same axes."""
    axes = {len(spacing) for spacing in known}
    if len(axes) != 1 or axes == {0}:
        return None
    return tuple(float(median(sizes)) for sizes in zip(*known, strict=True))


def _frozen(value: Any) -> Any:
    """Lists as tuples, whatever their depth."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


def _shares(labels: LabelMap, records: Sequence[FileRecord]) -> tuple[float, ...]:
    """Share of each class among the annotated pixels; of classes that overlap they need not sum to 1."""
    counts = np.sum([_counts(record, labels) for record in records], axis=0)
    total = sum(
        count
        for record in records
        for value, count in zip(record.values.values, record.values.counts, strict=True)
        if value != labels.ignore
    )
    return tuple((counts / max(total, 1)).tolist())


def _present(record: FileRecord, labels: LabelMap) -> list[bool]:
    """Which classes occur in a mask."""
    return [count > 0 for count in _counts(record, labels)]


def _counts(record: FileRecord, labels: LabelMap) -> list[int]:
    """Pixels of each class of a mask; of objects, background and the rest."""
    counts = [0] * len(labels.values)
    for value, count in zip(record.values.values, record.values.counts, strict=True):
        if value == labels.ignore:
            continue
        if labels.overlapping:
            for k, bit in enumerate(labels.values):
                counts[k] += count * bool(value & bit)
        elif labels.task == "objects":
            counts[int(value != labels.values[0])] += count
        else:
            counts[labels.values.index(value)] += count
    return counts


def _annotated(records: Sequence[FileRecord], ignore: int | None) -> float:
    pixels = [sum(record.values.counts) for record in records]
    ignored = [0.0 if ignore is None else record.values.share(ignore) for record in records]
    return 1 - sum(n * share for n, share in zip(pixels, ignored, strict=True)) / max(sum(pixels), 1)


def _intensity(checked: Checked, names: Sequence[str]) -> tuple[tuple[float, float, float], ...]:
    """Percentiles of each channel: medians over items spread evenly, of large ones the middle."""
    step = math.ceil(len(names) / MEASURED)
    chosen = set(names[::step])
    found = []
    for pair in checked.pairs.pairs:
        if pair.name not in chosen:
            continue
        with pair.image.open_image() as image:
            window = tuple(
                slice(start := max(0, (side - _WINDOW) // 2), start + min(side, _WINDOW))
                for side in image.size
            )
            pixels = image.read(pair.image.page or 0, (window[0], window[1]))
        found.append(order_statistics([pixels], (0.01, 0.5, 0.99), shown(pair.image.path)))
    low, middle, high = np.median(np.array(found, np.float64), axis=0).T.tolist()
    return tuple(zip(low, middle, high, strict=True))


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
        colour: What every image was read as before, a key of `images.CHANNELS`; empty for as it is stored.
    """

    kind: str = "percentile"
    low: float = 1.0
    high: float = 99.8
    colour: str = ""

    def __post_init__(self) -> None:
        if self.kind != "percentile" or not 0 <= self.low < self.high <= 100:
            raise DataError(Problem(f"no such normalisation: {self.kind} {self.low}…{self.high}"))
        if self.colour not in ("", *CHANNELS):
            raise DataError(Problem(f"no such colour: {self.colour}", "normalisation", "grey or rgb"))

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
            low, high = float(value["low"]), float(value["high"])
            return cls(str(value["kind"]), low, high, str(value.get("colour", "")))
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
