"""Mask pixels that the file itself calls empty: they carry no annotation."""

from skipway.data.layouts import Pairs
from skipway.errors import OF_A_FILE, Problem
from skipway.images import ImageFile, shown


def stated_ignore(pairs: Pairs) -> int | None:
    """The nodata value of the masks, if the first of them states one.

    0 is not taken: many programs write it into every mask, where it is the background. A mask that cannot be
    opened states nothing here; the check says what is wrong with it.
    """
    if not pairs.pairs:
        return None
    try:
        with pairs.pairs[0].mask.whole.open_mask() as mask:
            return value_of(mask)
    except OF_A_FILE:
        return None


def value_of(mask: ImageFile) -> int | None:
    """The nodata value a mask states, where that is a whole number other than 0."""
    value = mask.nodata
    return int(value) if value and value == value // 1 else None


def unlike_others(mask: ImageFile, values: tuple[int, ...], ignore: int | None) -> Problem | None:
    """The problem of a mask with empty pixels of another value than is ignored."""
    stated = value_of(mask)
    if stated is None or stated == ignore or stated not in values:
        return None
    others = "no such value in the first mask" if ignore is None else f"{ignore} for them, as in the others"
    fix = "write one nodata value into all masks, or give --ignore"
    return Problem(f"pixels of {stated}, which it calls empty", shown(mask.path), others, fix, "E06")
