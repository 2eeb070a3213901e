"""What one network cannot take together: channels, types and ranges that differ, masks that are the images."""

from collections.abc import Iterable, Sequence

import numpy as np

from skipway.data.layouts import Pair
from skipway.data.records import FileRecord, groups, some_of
from skipway.errors import Problem
from skipway.images import CHANNELS, shown


def unequal(records: Sequence[FileRecord]) -> list[Problem]:
    """Files that one network cannot take together, as groups."""
    problems = []
    channels = groups(records, lambda r: r.channels)
    if len(channels) > 1:
        text = "; ".join(
            f"{len(g)} with {n} channel{'s' if n != 1 else ''}, such as {shown(g[0].name)}"
            for n, g in channels.items()
        )
        problems.append(
            Problem(
                f"images of different channels ({text})",
                expected="one number of channels",
                fix=either(channels),
                code="D01",
            )
        )
    types = groups(records, lambda r: r.dtype)
    if len(types) > 1:
        text = "; ".join(f"{kind}: {some_of(group)}" for kind, group in types.items())
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


def either(channels: Iterable[int]) -> str:
    """What to do about images of these numbers of channels."""
    if set(channels) == set(CHANNELS.values()):
        return "--colour grey to read all as grey, or --colour rgb to read all as RGB"
    return "export all with the same channels, or train the groups apart"


def _unequal_ranges(records: Sequence[FileRecord]) -> list[Problem]:
    """Float images of which some end near 1 and the others near 255 or 65535."""
    unit = [r for r in records if 0 < r.high <= 1.5 and r.low >= -1.5]
    large = [r for r in records if r.high > 32 and bulk(r) > 1]
    if not unit or not large or len(unit) + len(large) < len(records):
        return []
    return [
        Problem(
            f"float images of different ranges (up to 1: {some_of(unit)}; "
            f"up to {max(r.high for r in large):g}: {some_of(large)})",
            expected="one range",
            fix="divide the second group, so that all images have one scale",
            code="C07",
        )
    ]


def bulk(record: FileRecord) -> float:
    """Mean without the largest value."""
    return record.mean - record.high / (record.channels * record.size[0] * record.size[1])


def copied_masks(matched: Sequence[tuple[Pair, FileRecord]]) -> list[Problem]:
    """Masks that are the images themselves: the network would learn to copy."""
    same = [
        pair
        for pair, record in matched
        if record.channels == 1 and record.dtype.startswith("uint") and _equal_pixels(pair, record)
    ]
    if not same or len(same) < len(matched):
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
