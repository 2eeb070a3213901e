"""Class values that damage made: seams of smooth resizing, and specks that one mask alone holds."""

from collections.abc import Iterator, Mapping, Sequence

from skipway.data.labels import LabelMap, unnamed
from skipway.data.records import FileRecord
from skipway.data.values import MaskValues

SLIVER = 16
"""Pixels from which a class that is a seam in some masks only is named."""

SPECK = 9
"""Pixels of a region, on average, up to which a value that one mask alone holds looks like a slip."""

FEW = 5
"""Masks below which nothing is usual among them."""

Line = tuple[str, str, Sequence[FileRecord]]
"""Code, what is said, and of whom."""


def seams(records: Sequence[FileRecord], labels: LabelMap) -> Iterator[Line]:
    """Classes that are nowhere, or in some masks nowhere, more than a seam: what smooth resizing makes of an edge."""
    for value in labels.values if labels.task == "classes" else ():
        holders = [r for r in records if value in r.values.values]
        thin = [r for r in holders if value in r.rings]
        only = "only"
        if len(thin) < len(holders):  # a class elsewhere: a sliver of it may well lie between two others
            thin = [r for r in thin if r.values.count(value) >= SLIVER]
            only = f"in {len(thin)} of {len(holders)} masks only"
        if thin:
            text = f"value {value} is {only} a seam of one pixel between lower and higher values, as smooth "
            yield "E13", f"{text}resizing of masks makes it", thin


def specks(whole: Mapping[str, Sequence[FileRecord]], labels: LabelMap) -> Iterator[Line]:
    """Values that a single mask holds, in specks: what JPEG or a slip of the brush leaves among class numbers.

    Args:
        whole: Masks and stacks of masks by name.
        labels: What they mean; a value that has a name is no slip.
    """
    if labels.task != "classes" or len(whole) < FEW:
        return
    for value, called in zip(labels.values, labels.names, strict=True):
        holders = [group for group in whole.values() if any(value in r.values.values for r in group)]
        if len(holders) != 1 or called != unnamed(value):
            continue
        group = [record for record in holders[0] if value in record.values.values]
        pixels = sum(record.values.count(value) for record in group)
        if pixels <= SPECK * sum(_regions(record.values, value) for record in group):
            yield (
                "E12",
                f"value {value} is in 1 of {len(whole)} masks, {pixels} pixels: a stray value?",
                group,
            )


def _regions(values: MaskValues, value: int) -> int:
    return dict(zip(values.values, values.objects, strict=False)).get(value, 0)
