"""Frames of a movie and slices of a volume: validation images whose neighbours train."""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from skipway.data.layouts import Pair

_WORD = r"(?:^|[_\-. /])(?:frame|slice|time|plane|page|t|f|z)[_\-]?"

FRAME_WORD = re.compile(rf"{_WORD}$", re.I)
"""What stands before the number of a frame or slice."""

_FRAME = re.compile(rf"(?P<id>.*?){_WORD}(?P<number>\d+)", re.I)


def neighbours(train: Sequence[Pair], val: Sequence[Pair]) -> tuple[str, ...]:
    """A warning where frames that validate lie scattered among frames that train, rather than in one block.

    Only pages of a stack and names that say frame, slice, t, f or z count; plain numbers may be anything.

    Returns:
        No line or one.
    """
    sequences: defaultdict[str, dict[int, bool]] = defaultdict(dict)
    for held, pairs in ((False, train), (True, val)):
        for pair in pairs:
            place = _place(pair)
            if place is not None:
                sequences[place[0]][place[1]] = held
    close = frames = pieces = 0
    for sides in sequences.values():
        order = [sides[number] for number in sorted(sides)]
        close += sum(held and False in order[max(0, i - 1) : i + 2] for i, held in enumerate(order))
        frames += sum(order)
        pieces += max(0, sum(held and not before for before, held in pairwise([False, *order])) - 1)
    if not pieces or close < 0.2 * frames:
        return ()
    return (
        f"{close} of {frames} frames or slices that validate are next to one that trains, which looks the same: "
        "the score will be too good [L03]; hold out one end of each sequence, or whole sequences, with --val",
    )


def _place(pair: Pair) -> tuple[str, int] | None:
    """Sequence and number of a frame."""
    if pair.image.page is not None:
        return str(pair.image.path), pair.image.page
    found = _FRAME.fullmatch(pair.name)
    return (found["id"], int(found["number"])) if found else None
