"""What the doctor found, as a page of text and as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from skipway.data.groups import Groups
from skipway.data.labels import LabelMap
from skipway.data.layouts import Pairs
from skipway.data.records import FileRecord
from skipway.data.splits import Split
from skipway.data.suspicions import Suspicion
from skipway.errors import DataError, Problem, SecurityError, folded, refusal

ROWS = 40
"""Classes listed on the page."""


@dataclass(frozen=True)
class Kind:
    """Images of one kind.

    Attributes:
        name: Such as "8-bit grey".
        format: Of the files.
        images: How many.
        smallest: (H, W), each the smallest that occurs.
        largest: (H, W), each the largest.
        channels: Of each.
        dtype: Of the pixels.
    """

    name: str
    format: str
    images: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    channels: int
    dtype: str


@dataclass(frozen=True)
class LabelRow:
    """One class over all masks.

    Attributes:
        value: In the masks.
        name: What it is called.
        share: Of the annotated pixels, in [0, 1].
        objects: Connected regions; None for classes that overlap, whose regions are not counted.
        files: Masks that hold it.
    """

    value: int
    name: str
    share: float
    objects: int | None
    files: int


@dataclass(frozen=True)
class Findings:
    """All that a check found.

    Attributes:
        pairs: None where images and masks could not be paired.
        records: Of the pairs that could be read.
        labels: None where the masks could not be understood.
        groups: Which images belong together; None where nothing says so.
        split: The proposed one; None while there are problems.
        suspicions: What is odd.
        problems: What must be mended before training.
        deep: What the short fit said; None where it was not asked for.
        seconds: It took.
    """

    pairs: Pairs | None
    records: tuple[FileRecord, ...]
    labels: LabelMap | None
    groups: Groups | None
    split: Split | None
    suspicions: tuple[Suspicion, ...]
    problems: tuple[Problem, ...]
    deep: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether these data can train."""
        return not self.problems

    @property
    def error(self) -> DataError | SecurityError:
        """All problems as one error (exit 3, or 6 where one of the files would be unsafe to trust)."""
        return refusal(*self.problems)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of images, the most frequent first."""
        counts = Counter((r.kind, r.format, r.channels, r.dtype) for r in self.records)
        return tuple(
            Kind(name, form, number, *_sizes(self.records, (name, form)), channels, dtype)
            for (name, form, channels, dtype), number in counts.most_common()
        )

    @property
    def label_rows(self) -> tuple[LabelRow, ...]:
        """The classes, in order; for objects background and all objects as one."""
        return () if self.labels is None else tuple(_label_rows(self.labels, self.records))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        pairs, split = self.pairs, self.split
        return {
            "ok": self.ok,
            "images": str(pairs.images_root) if pairs else None,
            "masks": str(pairs.masks_root) if pairs else None,
            "pairs": len(pairs.pairs) if pairs else 0,
            "rule": pairs.rule if pairs else None,
            "kinds": [asdict(kind) for kind in self.kinds],
            "task": self.labels.task if self.labels else None,
            "ignore": self.labels.ignore if self.labels else None,
            "labels": [asdict(row) for row in self.label_rows],
            "groups": self.groups
            and {
                "rule": self.groups.rule,
                "number": len(self.groups.members),
                "of": dict(self.groups.of),
            },
            "split": split and {"rule": split.rule, "train": list(split.train), "validate": list(split.val)},
            "deep": self.deep,
            "warnings": [asdict(s) for s in self.suspicions],
            "refusals": [asdict(p) for p in self.problems],
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        """The page."""
        return "\n".join(_page(self))


def _sizes(records: Sequence[FileRecord], key: tuple[str, str]) -> tuple[tuple[int, int], tuple[int, int]]:
    heights, widths = zip(*(r.size for r in records if (r.kind, r.format) == key), strict=True)
    return (min(heights), min(widths)), (max(heights), max(widths))


def _label_rows(labels: LabelMap, records: Sequence[FileRecord]) -> Iterator[LabelRow]:
    pixels: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    files: Counter[int] = Counter()
    for record in records:
        values = record.values
        for place, (value, count) in enumerate(zip(values.values, values.counts, strict=True)):
            pixels[value] += count
            files[value] += 1
            objects[value] += values.objects[place] if place < len(values.objects) else 0
    total = sum(count for value, count in pixels.items() if value != labels.ignore) or 1
    background = labels.background
    if labels.overlapping:
        for bit, name in zip(labels.values, labels.names, strict=True):
            holding = [value for value in pixels if value != labels.ignore and value & bit]
            masks = sum(any(value in holding for value in record.values.values) for record in records)
            yield LabelRow(bit, name, sum(pixels[v] for v in holding) / total, None, masks)
        return
    if labels.task != "objects":
        for value, name in zip(labels.values, labels.names, strict=True):
            yield LabelRow(value, name, pixels[value] / total, objects[value], files[value])
        return
    inside = [value for value in pixels if value not in (background, labels.ignore)]
    holders = sum(any(v in r.values.values for v in inside) for r in records) if len(inside) < 50 else sum(
        len(set(r.values.values) - {background, labels.ignore}) > 0 for r in records
    )  # fmt: skip
    yield LabelRow(background, labels.names[0], pixels[background] / total, 0, files[background])
    number = sum(record.values.ids if labels.ids else record.values.regions for record in records)
    yield LabelRow(labels.values[1], labels.names[1], sum(pixels[v] for v in inside) / total, number, holders)


def _page(found: Findings) -> Iterator[str]:
    pairs = found.pairs
    if pairs is not None:
        yield f"{'found':<10} {len(pairs.pairs)} pairs {pairs.where}"
        yield f"{'paired':<10} {pairs.rule}"
        for kind in found.kinds:
            low, high = ("×".join(map(str, size)) for size in (kind.smallest, kind.largest))
            size = low if low == high else f"{low} to {high}"
            yield f"{'images':<10} {kind.images} {kind.format}, {kind.name}, {size} pixels"
    if found.labels is not None:
        yield f"{'labels':<10} {_task(found.labels)}"
        yield from _table(found.label_rows, len(found.records))
    if pairs is not None:
        known = found.groups
        words = f"{len(known.members)}, {known.rule}" if known else "none: each image stands alone"
        yield f"{'groups':<10} {words} [--groups]"
    if found.split is not None:
        train, val = len(found.split.train), len(found.split.val)
        yield f"{'split':<10} {train} train, {val} validate: {found.split.rule} [--val, --fold]"
    if found.deep is not None:
        yield f"{'deep':<10} {found.deep}"
    later = " so far; what needs all files to be readable is looked for when the refusals are mended"
    yield f"{'warnings':<10} {len(found.suspicions) or 'none'}{later if found.problems else ''}"
    yield from (f"  {s.code:<4} {s.text}" for s in found.suspicions)
    verdict = "none: these data can train" if found.ok else f"{len(found.problems)}, to be mended first"
    yield f"{'refusals':<10} {verdict}"
    yield from (f"  {p.code:<4} {p}" for p in folded(found.problems))


def _task(labels: LabelMap) -> str:
    ignored = "" if labels.ignore is None else f", {labels.ignore} is not annotated"
    if labels.task != "objects":
        return f"{labels.task}{ignored} [--task]"
    how = "every value is one" if labels.ids else "connected regions"
    return f"objects ({how}){ignored} [--task]"


def _table(rows: Sequence[LabelRow], masks: int) -> Iterator[str]:
    width = max([4, *(len(row.name) for row in rows[:ROWS])])
    yield f"  {'value':>7}  {'name':<{width}}  {'share':>7}  {'objects':>8}  in masks"
    for row in rows[:ROWS]:
        count = f"{row.files} of {masks}"
        objects = "-" if row.objects is None else row.objects
        yield f"  {row.value:>7}  {row.name:<{width}}  {row.share:>7.2%}  {objects:>8}  {count}"
    if len(rows) > ROWS:
        yield f"  … and {len(rows) - ROWS} more"
