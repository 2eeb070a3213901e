"""Looks at every file before training, in full, and says everything that is wrong at once.

One pass decodes each image and mask completely, in bands, several files at a time. What would make a wrong
result is an error; what is only odd is a warning. Files are read, never written.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from skipway.data import exchanged
from skipway.data.agreement import copied_masks, unequal
from skipway.data.alignment import fit
from skipway.data.hashes import PixelHash
from skipway.data.labels import LabelMap, infer_labels
from skipway.data.layouts import Pair, Pairs
from skipway.data.nodata import stated_ignore, unlike_others
from skipway.data.places import place_problems
from skipway.data.polarity import polarity
from skipway.data.records import FileRecord
from skipway.data.scan import Found, Scan, scan
from skipway.data.sketch import Grey, Sketcher, step_of, thinned, thumbnail
from skipway.data.suspicions import LEVELS, Suspicion, suspicions
from skipway.data.values import MaskValues, coding_problems, seams, summarise
from skipway.errors import OF_A_FILE, DataError, Problem, refusal
from skipway.images import CONVERTED, ImageFile, shown


@dataclass(frozen=True)
class Checked:
    """Data that passed the check.

    Attributes:
        pairs: All of them.
        labels: The label map of all masks.
        records: One for each pair, in the same order.
        warnings: Lines for people.
        suspicions: Those of the warnings that look at pixels, with code and names.
        seen: What a later check of the same files can start from, see `scan.Scan`.
    """

    pairs: Pairs
    labels: LabelMap
    records: tuple[FileRecord, ...]
    warnings: tuple[str, ...] = ()
    suspicions: tuple[Suspicion, ...] = ()
    seen: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Examined:
    """What was found in a data set, whether it can be used or not.

    Attributes:
        pairs: All of them.
        labels: The label map of all masks; None where none explains them.
        records: Of the pairs that could be read.
        problems: What must be mended first.
        suspicions: What is odd; empty while there are problems.
        seen: See `Checked`.
    """

    pairs: Pairs
    labels: LabelMap | None
    records: tuple[FileRecord, ...]
    problems: tuple[Problem, ...]
    suspicions: tuple[Suspicion, ...]
    seen: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class _Seen:
    """What one pass over the pixels of one page gave."""

    sha256: str
    low: float
    high: float
    mean: float
    constant: int
    levels: int
    grey: Grey
    problem: Problem | None


def inspect(
    pairs: Pairs,
    task: str | None = None,
    *,
    ignore: int | None = None,
    labels: LabelMap | None = None,
    progress: Callable[[int, int], None] | None = None,
    how: Scan | None = None,
) -> Checked:
    """Checks a data set.

    Args:
        pairs: From `find_pairs`.
        task: "classes", "objects", "multilabel", or None for what the data set states, or else the masks tell.
        ignore: Mask value of pixels without annotation; None for what the data set or the masks state, if any.
        labels: The map of earlier training; masks must fit it and each other, and `task` and `ignore` are not
            looked at.
        progress: Called with (pairs done, pairs in all).
        how: In children or not, and what was seen before.

    Raises:
        DataError: all problems of all files at once.
        SecurityError: the same, where one of the files would be unsafe to trust.
    """
    found = examine(pairs, task, ignore=ignore, labels=labels, progress=progress, how=how)
    if found.problems or found.labels is None:
        raise refusal(*found.problems)
    warnings = (*pairs.notes, *map(str, found.suspicions))
    return Checked(pairs, found.labels, found.records, warnings, found.suspicions, found.seen)


def examine(
    pairs: Pairs,
    task: str | None = None,
    *,
    ignore: int | None = None,
    labels: LabelMap | None = None,
    progress: Callable[[int, int], None] | None = None,
    how: Scan | None = None,
) -> Examined:
    """As `inspect`, with the problems returned instead of raised."""
    stated = pairs.stated
    task = stated.task if task is None else task
    if labels is not None:
        ignore = labels.ignore
    elif ignore is None:
        ignore = stated_ignore(pairs) if stated.ignore is None else stated.ignore
    jobs = [list(group) for _, group in groupby(pairs.pairs, key=lambda p: (p.image.whole, p.mask.whole))]
    found, seen = scan(jobs, look_at, how or Scan(), ignore, progress)
    records = [f.record for f in found if f.record is not None]
    if not any(p.code == "F20" for f in found for p in f.problems) and _exchanged(pairs, records):
        wrong = exchanged.refusal(pairs.images_root, pairs.masks_root)
        return Examined(pairs, None, tuple(records), (wrong,), (), seen)
    problems = [problem for f in found for problem in f.problems]
    problems += unequal(records)
    problems += copied_masks(_matched(pairs.pairs, records))
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
    if not problems and labels is None:
        problems.append(Problem("nothing to train on", shown(pairs.images_root)))
    odd = tuple(suspicions(pairs.pairs, records, labels)) if labels is not None and not problems else ()
    return Examined(pairs, labels, tuple(records), tuple(problems), odd, seen)


def _exchanged(pairs: Pairs, records: Sequence[FileRecord]) -> bool:
    by_name = {record.name: record for record in records}
    sides = [pair.image for pair in pairs.pairs], [pair.mask for pair in pairs.pairs]
    return exchanged.in_pairs(*sides, [by_name.get(pair.name) for pair in pairs.pairs])


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


def look_at(pairs: Sequence[Pair], ignore: int | None) -> list[Found]:
    """The pages of one image file and its mask file; problems of both files are found, not only the first."""
    opened: list[ImageFile | None] = []
    problems: list[Problem] = []
    for opener in (pairs[0].image.whole.open_image, pairs[0].mask.whole.open_mask):
        try:
            opened.append(opener())
        except OF_A_FILE as error:
            opened.append(None)
            problems += error.problems
    image, mask = opened
    try:
        if image is None or mask is None:
            for half in (image, mask):
                problems += [] if half is None else _unreadable(half)
            return [Found(problems=problems)]
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
    except OF_A_FILE as error:
        return error.problems
    return ()


def _record(pair: Pair, image: ImageFile, mask: ImageFile, ignore: int | None) -> Found:
    """One page: pixels read once, hashed, measured, compared in size."""
    found = Found()
    seen = values = labels = None
    digest, rings = "", tuple[int, ...]()
    try:
        seen = _measure(image, pair.image.page or 0)
        found.problems += [seen.problem] if seen.problem else []
    except OF_A_FILE as error:
        found.problems += error.problems
    try:
        labels = mask.read(pair.mask.page or 0)[0]
        digest = hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()
        values = summarise(labels, mask.dtype.itemsize * 8, mask.palette, ignore=ignore)
        strange = unlike_others(mask, values.values, ignore)
        found.problems += [strange] if strange else []
        rings = seams(labels, values.values)
    except OF_A_FILE as error:
        found.problems += error.problems
    if image.size != mask.size:
        found.problems.append(_size_problem(pair, image, mask))
    elif not pair.image.page:  # once a file
        found.problems += place_problems(
            str(pair.image.whole), image.geometry, str(pair.mask.whole), mask.geometry
        )
    if seen is None or values is None or labels is None or found.problems:
        return found
    step = step_of(image.size)
    small = thinned(labels, step, seen.grey.shape)
    notes = [f"{shown(file.path)}: {note}" for file in (image, mask) for note in file.notes]
    found.record = FileRecord(
        pair.name,
        image.size,
        image.channels,
        str(image.own_dtype),
        image.kind,
        seen.sha256,
        digest,
        seen.low,
        seen.high,
        seen.mean,
        seen.constant,
        values,
        tuple(notes) if not pair.image.page else (),
        image.format,
        seen.levels,
        thumbnail(seen.grey),
        fit(seen.grey, small, step, ignore),
        rings,
        image.geometry.spacing if image.geometry is not None else (),
        polarity(seen.grey, small, ignore),
    )
    return found


def _measure(image: ImageFile, page: int) -> _Seen:
    """Hash, range and finiteness of one page, band by band."""
    digest = PixelHash(image)
    low = np.full(image.channels, np.inf)
    high = np.full(image.channels, -np.inf)
    total, broken, first = 0.0, 0, None
    small = Sketcher(image.size)
    levels: set[float] = set()
    for rows, band in image.bands(page):
        small.add(band)
        digest.add(band)
        if band.dtype.kind == "f":
            strange = ~np.isfinite(band).all(axis=0)
            if strange.any():
                y, x = np.argwhere(strange)[0]
                first = first or (rows.start + int(y), int(x))
                broken += int(strange.sum())
                continue
            if image.own_dtype.kind == "f" and len(levels) <= LEVELS and image.format not in CONVERTED:
                levels.update(np.unique(band[:, :: small.step, :: small.step])[: LEVELS + 1].tolist())
        low = np.minimum(low, band.min(axis=(1, 2)))
        high = np.maximum(high, band.max(axis=(1, 2)))
        total += float(band.sum(dtype=np.float64))
    problem = _not_finite(image, page, broken, first) if first else None
    constant = int(np.count_nonzero(low == high))
    pixels = image.channels * image.size[0] * image.size[1]
    return _Seen(
        digest.hex(),
        float(low.min()),
        float(high.max()),
        total / pixels,
        constant,
        len(levels),
        small.grey(),
        problem,
    )


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
