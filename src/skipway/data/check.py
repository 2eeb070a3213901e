"""Looks at every file before training, in full, and says everything that is wrong at once.

One pass decodes each image and mask completely, in bands, several files at a time. What would make a wrong
result is an error; what is only odd is a warning. Files are read, never written.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from skipway.data.labels import LabelMap, infer_labels
from skipway.data.layouts import Pair, Pairs
from skipway.data.values import MaskValues, coding_problems, summarise
from skipway.errors import DataError, Problem
from skipway.images import ImageFile, shown

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class FileRecord:
    """What the check saw of one pair.

    Attributes:
        name: Of the pair.
        size: (H, W).
        channels: Of the image.
        dtype: Of the image, such as "uint16".
        kind: For people, such as "16-bit grey".
        sha256: Of the image's pixels (size, type and values): equal for one picture saved in two formats.
        mask_sha256: Of the mask's pixels.
        low: Smallest image value.
        high: Largest.
        mean: Mean over pixels and channels.
        constant: Channels of one value only.
        values: Of the mask.
        notes: What the reading policy did.
    """

    name: str
    size: tuple[int, int]
    channels: int
    dtype: str
    kind: str
    sha256: str
    mask_sha256: str
    low: float
    high: float
    mean: float
    constant: int
    values: MaskValues
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """Data that passed the check.

    Attributes:
        pairs: All of them.
        labels: The label map of all masks.
        records: One for each pair, in the same order.
        warnings: Lines for people.
    """

    pairs: Pairs
    labels: LabelMap
    records: tuple[FileRecord, ...]
    warnings: tuple[str, ...] = ()


@dataclass
class _Found:
    """What one pair gave: a record, or problems."""

    record: FileRecord | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What one pass over the pixels of one page gave."""

    sha256: str
    low: float
    high: float
    mean: float
    constant: int
    problem: Problem | None


def inspect(
    pairs: Pairs,
    task: str | None = None,
    *,
    ignore: int | None = None,
    labels: LabelMap | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Checks a data set.

    Args:
        pairs: From `find_pairs`.
        task: "classes", "objects", "multilabel", or None for what the data set states, or else the masks tell.
        ignore: Mask value of pixels without annotation; None for what the data set states.
        labels: The map of earlier training; masks must fit it and each other, and `task` and `ignore` are not
            looked at.
        progress: Called with (pairs done, pairs in all).

    Raises:
        DataError: all problems of all files at once.
    """
    stated = pairs.stated
    task = stated.task if task is None else task
    ignore = (stated.ignore if ignore is None else ignore) if labels is None else labels.ignore
    found = _look_at_all(pairs.pairs, ignore, progress)
    records = [f.record for f in found if f.record is not None]
    problems = [problem for f in found for problem in f.problems]
    problems += _unequal(records)
    problems += _copied_masks(pairs.pairs, records)
    masks = {str(pair.mask): r.values for pair, r in _matched(pairs.pairs, records)}
    if labels is not None:
        problems += _foreign(masks, labels) or (
            coding_problems(masks, ignore, labels.values if labels.task == "classes" else ())
            if not labels.overlapping
            else []
        )
    elif masks:
        try:
            labels = infer_labels(masks, task, ignore, names=stated.names)
        except DataError as error:
            problems += error.problems
    if problems or labels is None:
        raise DataError(*(problems or [Problem("nothing to train on", shown(pairs.images_root))]))
    return Checked(pairs, labels, tuple(records), tuple(_warnings(pairs, records, labels)))


def _foreign(masks: Mapping[str, MaskValues], labels: LabelMap) -> list[Problem]:
    """Values that the label map does not know, file by file."""
    if labels.task == "objects":
        return []
    known, every = {*labels.values, labels.ignore}, sum(labels.values)
    strange = {
        name: sorted(
            v for v in mask.values if v not in known and not (labels.overlapping and 0 <= v & every == v)
        )
        for name, mask in masks.items()
    }
    return [
        Problem(
            f"mask values {values[:8]} that the training masks did not have",
            name,
            f"values among {list(labels.values[:12])}",
            "use masks of the same coding",
            "E01",
        )
        for name, values in strange.items()
        if values
    ]


def _matched(pairs: Sequence[Pair], records: Sequence[FileRecord]) -> list[tuple[Pair, FileRecord]]:
    by_name = {record.name: record for record in records}
    return [(pair, by_name[pair.name]) for pair in pairs if pair.name in by_name]


def _look_at_all(
    pairs: Sequence[Pair], ignore: int | None, progress: Callable[[int, int], None] | None
) -> list[_Found]:
    """One task for each pair of files, so that a stack is opened once."""
    jobs = [list(group) for _, group in groupby(pairs, key=lambda p: (p.image.whole, p.mask.whole))]
    found: list[_Found] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for part in pool.map(partial(_look_at, ignore=ignore), jobs):
            found += part
            if progress is not None:
                progress(len(found), len(pairs))
    return found


def _look_at(pairs: Sequence[Pair], ignore: int | None) -> list[_Found]:
    """The pages of one image file and its mask file; problems of both files are found, not only the first."""
    opened: list[ImageFile | None] = []
    problems: list[Problem] = []
    for opener in (pairs[0].image.whole.open_image, pairs[0].mask.whole.open_mask):
        try:
            opened.append(opener())
        except DataError as error:
            opened.append(None)
            problems += error.problems
    image, mask = opened
    try:
        if image is None or mask is None:
            for half in (image, mask):
                problems += [] if half is None else _unreadable(half)
            return [_Found(problems=problems)]
        return [_record(pair, image, mask, ignore) for pair in pairs]
    finally:
        for half in (image, mask):
            if half is not None:
                half.close()


def _unreadable(file: ImageFile) -> tuple[Problem, ...]:
    """Problems in the pixels of a file whose partner could not be opened."""
    try:
        for page in range(file.pages):
            for _ in file.bands(page):
                pass
    except DataError as error:
        return error.problems
    return ()


def _record(pair: Pair, image: ImageFile, mask: ImageFile, ignore: int | None) -> _Found:
    """One page: pixels read once, hashed, measured, compared in size."""
    found = _Found()
    seen = values = None
    digest = ""
    try:
        seen = _measure(image, pair.image.page or 0)
        found.problems += [seen.problem] if seen.problem else []
    except DataError as error:
        found.problems += error.problems
    try:
        labels = mask.read(pair.mask.page or 0)[0]
        digest = hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()
        values = summarise(labels, mask.dtype.itemsize * 8, mask.palette, ignore=ignore)
    except DataError as error:
        found.problems += error.problems
    if image.size != mask.size:
        found.problems.append(_size_problem(pair, image, mask))
    if seen is None or values is None or found.problems:
        return found
    notes = [f"{shown(file.path)}: {note}" for file in (image, mask) for note in file.notes]
    found.record = FileRecord(
        pair.name,
        image.size,
        image.channels,
        str(image.dtype),
        image.kind,
        seen.sha256,
        digest,
        seen.low,
        seen.high,
        seen.mean,
        seen.constant,
        values,
        tuple(notes) if not pair.image.page else (),
    )
    return found


def _measure(image: ImageFile, page: int) -> _Seen:
    """Hash, range and finiteness of one page, band by band."""
    digest = hashlib.sha256(repr((image.size, image.channels, str(image.dtype))).encode())
    low = np.full(image.channels, np.inf)
    high = np.full(image.channels, -np.inf)
    total, broken, first = 0.0, 0, None
    for rows, band in image.bands(page):
        digest.update(np.ascontiguousarray(np.moveaxis(band, 0, -1)).data)  # row by row, whatever the band
        if band.dtype.kind == "f":
            strange = ~np.isfinite(band).all(axis=0)
            if strange.any():
                y, x = np.argwhere(strange)[0]
                first = first or (rows.start + int(y), int(x))
                broken += int(strange.sum())
                continue
        low = np.minimum(low, band.min(axis=(1, 2)))
        high = np.maximum(high, band.max(axis=(1, 2)))
        total += float(band.sum(dtype=np.float64))
    problem = _not_finite(image, page, broken, first) if first else None
    constant = int(np.count_nonzero(low == high))
    pixels = image.channels * image.size[0] * image.size[1]
    return _Seen(digest.hexdigest(), float(low.min()), float(high.max()), total / pixels, constant, problem)


def _not_finite(image: ImageFile, page: int, count: int, first: tuple[int, int]) -> Problem:
    where = f" on page {page}" if image.pages > 1 else ""
    return Problem(
        f"{count} pixels that are NaN or infinite{where}, the first {first[0]} down and {first[1]} right",
        shown(image.path),
        "finite numbers",
        "replace them (for example by the median of the image), or leave the image out",
        "C09",
    )


def _size_problem(pair: Pair, image: ImageFile, mask: ImageFile) -> Problem:
    (h, w), (mask_h, mask_w) = image.size, mask.size
    if (mask_h, mask_w) == (w, h):
        fix, code = "rows and columns look exchanged: transpose the mask", "B02"
    elif h * mask_w == w * mask_h:
        fix, code = "the mask has another resolution: resize it with nearest neighbour, never smoothly", "B04"
    else:
        fix, code = "check that these two belong together", "B04"
    return Problem(
        f"mask of {mask_h} × {mask_w}",
        str(pair.mask),
        f"{h} × {w} like its image {pair.image}",
        fix,
        code,
    )


def _unequal(records: Sequence[FileRecord]) -> list[Problem]:
    """Files that one network cannot take together, as groups."""
    problems = []
    channels = _groups(records, lambda r: r.channels)
    if len(channels) > 1:
        text = "; ".join(f"{n} channel{'s' if n != 1 else ''}: {_some(g)}" for n, g in channels.items())
        problems.append(
            Problem(
                f"images of different channels ({text})",
                expected="one number of channels",
                fix="convert all to grey or all to RGB, or train the groups apart",
                code="D01",
            )
        )
    types = _groups(records, lambda r: r.dtype)
    if len(types) > 1:
        text = "; ".join(f"{kind}: {_some(group)}" for kind, group in types.items())
        problems.append(
            Problem(
                f"images of different pixel types ({text})",
                expected="one type",
                fix="export all images with one bit depth, or train the groups apart",
                code="C07",
            )
        )
    elif records and records[0].dtype.startswith("float"):
        problems += _unequal_ranges(records)
    return problems


def _unequal_ranges(records: Sequence[FileRecord]) -> list[Problem]:
    """Float images of which some end near 1 and the others near 255 or 65535."""
    unit = [r for r in records if 0 < r.high <= 1.5 and r.low >= -1.5]
    large = [r for r in records if r.high > 32 and _bulk(r) > 1]
    if not unit or not large or len(unit) + len(large) < len(records):
        return []
    return [
        Problem(
            f"float images of different ranges (up to 1: {_some(unit)}; "
            f"up to {max(r.high for r in large):g}: {_some(large)})",
            expected="one range",
            fix="divide the second group, so that all images have one scale",
            code="C07",
        )
    ]


def _bulk(record: FileRecord) -> float:
    """Mean without the largest value."""
    return record.mean - record.high / (record.channels * record.size[0] * record.size[1])


def _copied_masks(pairs: Sequence[Pair], records: Sequence[FileRecord]) -> list[Problem]:
    """Masks that are the images themselves: the network would learn to copy."""
    same = [
        pair
        for pair, record in _matched(pairs, records)
        if record.channels == 1 and record.dtype.startswith("uint") and _equal_pixels(pair, record)
    ]
    if not same or len(same) < len(records):
        return []
    return [
        Problem(
            "every mask equals its image",
            shown(same[0].mask.path),
            "masks",
            "name the folder of the masks as second path",
            "A31",
        )
    ]


def _equal_pixels(pair: Pair, record: FileRecord) -> bool:
    if (record.values.values[0], record.values.values[-1]) != (record.low, record.high):
        return False
    with pair.image.open_image() as image, pair.mask.open_mask() as mask:
        return np.array_equal(image.read(pair.image.page or 0), mask.read(pair.mask.page or 0))


def _warnings(pairs: Pairs, records: Sequence[FileRecord], labels: LabelMap) -> Iterable[str]:
    yield from pairs.notes
    yield from _counted_notes(records)
    constant = [r for r in records if r.constant]
    if constant:
        yield f"constant image or channel: {_some(constant)}"
    background = labels.background
    empty = [r for r in records if r.values.values == (background,)]
    if empty:
        yield f"{len(empty)} of {len(records)} masks hold background only: {_some(empty)}"
    if labels.ignore is not None:
        blank = [r for r in records if r.values.values == (labels.ignore,)]
        if blank:
            yield f"{len(blank)} masks are not annotated at all: {_some(blank)}"
    copies = [g for g in _groups(records, lambda r: r.sha256).values() if len(g) > 1 and not g[0].constant]
    for group in copies[:5]:
        yield f"the same image {len(group)} times: {_some(group)}"
    filled = [r for r in records if len(r.values.values) > 1]
    alike = [g for g in _groups(filled, lambda r: r.mask_sha256).values() if len(g) > 1]
    for group in alike[:5]:
        yield f"the same mask for {len(group)} images: {_some(group)}"
    if not labels.overlapping:
        yield from _inverted(records, background)
    else:
        yield from _lacking(records, labels)
    wild = [r for r in records if r.high > 1e6 * max(1, abs(_bulk(r)))]
    if wild:
        yield f"single values far beyond all others: {_some(wild)}"


def _counted_notes(records: Sequence[FileRecord]) -> Iterable[str]:
    """Notes of the reading policy, one line for each kind of note."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            file, _, text = note.partition(": ")
            files[text].append(Path(file).name)
    for text, names in files.items():
        yield f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {text}"


def _inverted(records: Sequence[FileRecord], background: int) -> Iterable[str]:
    """Few masks whose background share is what the others have as foreground."""
    if len(records) < 5:
        return
    shares = [record.values.share(background) for record in records]
    usual = median(shares)
    odd = [
        r
        for r, share in zip(records, shares, strict=True)
        if abs(usual - 0.5) > 0.2 and abs(share - (1 - usual)) < 0.1
    ]
    if odd and len(odd) <= len(records) // 5:
        yield f"background and foreground look exchanged: {_some(odd)} ({1 - usual:.0%} foreground elsewhere)"


def _lacking(records: Sequence[FileRecord], labels: LabelMap) -> Iterable[str]:
    """Overlapping classes that no mask holds."""
    seen = {value for record in records for value in record.values.values if value != labels.ignore}
    empty = [
        name
        for bit, name in zip(labels.values, labels.names, strict=True)
        if not any(value & bit for value in seen)
    ]
    if empty:
        yield f"no mask holds {', '.join(empty)}: it cannot be learnt"


def _groups(records: Iterable[FileRecord], key: Callable[[FileRecord], K]) -> dict[K, list[FileRecord]]:
    groups: dict[K, list[FileRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def _some(records: Sequence[FileRecord], limit: int = 5) -> str:
    names = [shown(record.name) for record in records]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
