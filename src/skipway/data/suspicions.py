"""What is odd about data that can still be used: each with its code, a line for people, and the pairs it concerns."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

from skipway.data import alignment, backwards, duplicates, polarity, strays
from skipway.data.agreement import bulk
from skipway.data.labels import LabelMap
from skipway.data.layouts import Pair
from skipway.data.places import mixed_spacing
from skipway.data.records import FileRecord, groups, some_of
from skipway.data.sketch import Grey, sketch, step_of, thinned
from skipway.errors import NAMED
from skipway.images import shown

T = TypeVar("T")

Units = Mapping[str, Sequence[FileRecord]]

JUDGES = 24
"""Pairs of one size whose masks are tried on each other's images."""

NEAR = 3
"""Slices of a stack so many apart show much the same."""

LEVELS = 256
"""Different values that 8 bits can hold."""


@dataclass(frozen=True)
class Suspicion:
    """One thing that is odd.

    Attributes:
        code: Of `docs/check.md`.
        text: The line, names included.
        names: Of the pairs to look at.
    """

    code: str
    text: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


def suspicions(pairs: Sequence[Pair], records: Sequence[FileRecord], labels: LabelMap) -> Iterator[Suspicion]:
    """Everything odd about data that passed, in the order of the check.

    Args:
        pairs: Of the data set.
        records: Of the same pairs.
        labels: What the masks mean.
    """
    background = labels.background
    by_name = {pair.name: pair for pair in pairs}
    whole = units(by_name, records)
    yield from _reading(records)
    yield from _sizes(records)
    yield from _values(records, whole)
    yield from _empty(whole, background, labels.ignore)
    yield from _copies(whole)
    if labels.overlapping:
        yield from _lacking(records, labels)
    else:
        yield from _inverted(whole, labels)
    for code, text, holders in (*strays.seams(records, labels), *strays.specks(whole, labels)):
        yield _named(code, text, holders)
    yield from near_copies(by_name, records)
    yield from _misplaced(by_name, records, labels.ignore)


def volume_of(pair: Pair) -> str:
    """The stack that a pair is a slice of, as a name for people; the name of a pair that is no slice."""
    return pair.name if pair.image.page is None else pair.name.rpartition("#")[0]


def units(pairs: Mapping[str, Pair], records: Sequence[FileRecord]) -> Units:
    """What stands for itself: single images, and stacks with all their slices, by name."""
    return groups(records, lambda r: volume_of(pairs[r.name]) if r.name in pairs else r.name)


def _whole(code: str, text: str, found: Units) -> Suspicion:
    return Suspicion(code, f"{text}: {_some(list(found))}", tuple(r.name for g in found.values() for r in g))


def _named(code: str, text: str, records: Sequence[FileRecord], more: str = "") -> Suspicion:
    return Suspicion(code, f"{text}: {some_of(records)}{more}", tuple(r.name for r in records))


_NOTES = (
    ("is named", "A16"),
    ("orientation", "B22"),
    ("R=G=B", "E07"),
    ("only red", "E07"),
    ("further pictures", "F22"),
)


def _reading(records: Sequence[FileRecord]) -> Iterator[Suspicion]:
    """Notes of the reading policy, one line for each kind of note; what they count is added up."""
    files: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            file, _, text = note.partition(": ")
            number, _, rest = text.partition(" ")
            text, count = (f"# {rest}", int(number)) if number.isdecimal() else (text, 0)
            files[text].append((Path(file).name, record.name, count))
    for text, seen in files.items():
        more = f" and {len(seen) - NAMED} more" if len(seen) > NAMED else ""
        code = next((code for words, code in _NOTES if words in text), "B00")
        said = text.replace("#", str(sum(count for *_, count in seen)), 1) if text.startswith("# ") else text
        line = f"{', '.join(file for file, *_ in seen[:NAMED])}{more}: {said}"
        yield Suspicion(code, line, tuple(name for _, name, _ in seen))


def _sizes(records: Sequence[FileRecord]) -> Iterator[Suspicion]:
    """Volumes whose voxels differ in size."""
    text = mixed_spacing([record.spacing for record in records])
    if text is not None:
        yield Suspicion("G08", text, ())


def _values(records: Sequence[FileRecord], whole: Units) -> Iterator[Suspicion]:
    constant = {name: group for name, group in whole.items() if all(r.constant for r in group)}
    if constant:  # the ends of a stack may be blank
        yield _whole("C11", "constant image or channel", constant)
    wild = [r for r in records if r.high > 1e6 * max(1, abs(bulk(r)))]
    if wild:
        yield _named("C13", "single values far beyond all others", wild)
    coarse = [r for r in records if 2 < r.levels <= LEVELS]
    if coarse:
        yield _named(
            "C24", f"at most {LEVELS} different values in float files, as if saved through 8 bits", coarse
        )


def _empty(whole: Units, background: int, ignore: int | None) -> Iterator[Suspicion]:
    """Masks without anything; slices without anything belong to a stack that has something elsewhere."""
    empty = _only(whole, background)
    if empty:
        yield _whole("E20", f"{len(empty)} of {len(whole)} masks hold background only", empty)
    blank = _only(whole, ignore) if ignore is not None else {}
    if blank:
        yield _whole("E19", f"{len(blank)} masks are not annotated at all", blank)


def _only(whole: Units, value: int) -> Units:
    return {name: group for name, group in whole.items() if all(r.values.values == (value,) for r in group)}


def _copies(whole: Units) -> Iterator[Suspicion]:
    """The same pixels twice: images, and masks that hold something.

    Slices of one stack may be equal. A slice that two stacks share is a copy; a mask of a few pixels that two stacks
    share is chance, so of stacks all masks must agree.
    """
    found: defaultdict[str, dict[str, list[FileRecord]]] = defaultdict(dict)
    for name, group in whole.items():
        for record in group:
            if not record.constant:
                found[record.sha256].setdefault(name, []).append(record)
    copies: defaultdict[tuple[str, ...], list[FileRecord]] = defaultdict(list)
    for same in found.values():
        if len(same) > 1:
            copies[tuple(same)] += [record for records in same.values() for record in records]
    for names, records in list(copies.items())[:5]:
        yield Suspicion(
            "A25", f"the same image {len(names)} times: {_some(names)}", tuple(r.name for r in records)
        )
    filled = {name: group for name, group in whole.items() if any(len(r.values.values) > 1 for r in group)}
    masks: defaultdict[tuple[str, ...], dict[str, Sequence[FileRecord]]] = defaultdict(dict)
    for name, group in filled.items():
        masks[tuple(r.mask_sha256 for r in group)][name] = group
    alike = [twins for twins in masks.values() if len(twins) > 1]
    for twins in alike[:5]:
        yield _whole("E37", f"the same mask for {len(twins)} images", twins)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _inverted(whole: Units, labels: LabelMap) -> Iterator[Suspicion]:
    """Few masks whose background share is what the others have as foreground, or that are the reverse of the others."""
    if len(whole) < strays.FEW:
        return
    shares = {name: _share(group, labels.background) for name, group in whole.items()}
    usual = median(shares.values())
    odd = {
        name: whole[name]
        for name, share in shares.items()
        if abs(usual - 0.5) > 0.2 and abs(share - (1 - usual)) < 0.1
    }
    if len(odd) > len(whole) // 5:
        odd = {}
    if labels.task == "objects" or len(labels.values) == 2:
        found = {name: polarity.together([r.polarity for r in group]) for name, group in whole.items()}
        known = {name: seen for name, seen in found.items() if seen is not None}
        odd |= {name: whole[name] for name in polarity.reversed_ones(known)}
        if not odd and labels.task == "objects" and _in_one_piece(whole, known):
            text = "objects cover most of the image in one piece, with background in spots: if these are the objects"
            yield Suspicion("E03", f"in most masks {text}, background and foreground are exchanged")
    if odd:
        line = _whole("E03", "background and foreground look exchanged", odd)
        yield replace(line, text=f"{line.text} ({1 - usual:.0%} foreground elsewhere)")


def _in_one_piece(whole: Units, known: Mapping[str, polarity.Polarity]) -> bool:
    """Whether in most masks of objects all is one object but for spots."""
    inverted = [
        seen.marked > 0.5 and seen.pieces > 2 and all(r.values.regions <= 2 for r in whole[name])
        for name, seen in known.items()
    ]
    return 2 * sum(inverted) > len(whole)


def _share(group: Sequence[FileRecord], value: int) -> float:
    """Share of a value among all pixels of a stack."""
    pixels = [r.size[0] * r.size[1] for r in group]
    return sum(n * r.values.share(value) for n, r in zip(pixels, group, strict=True)) / sum(pixels)


def _lacking(records: Sequence[FileRecord], labels: LabelMap) -> Iterator[Suspicion]:
    """Overlapping classes that no mask holds."""
    seen = {value for record in records for value in record.values.values if value != labels.ignore}
    empty = [
        name
        for bit, name in zip(labels.values, labels.names, strict=True)
        if not any(value & bit for value in seen)
    ]
    if empty:
        yield Suspicion("E22", f"no mask holds {', '.join(empty)}: it cannot be learnt", ())


def near_copies(
    pairs: Mapping[str, Pair],
    records: Sequence[FileRecord],
    between: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Iterator[Suspicion]:
    """Pictures that show the same thing without being equal.

    Args:
        pairs: By name.
        records: Of these pairs.
        between: Names that train and names that validate, to look for copies across the split only.
    """
    by_name = {record.name: record for record in records}
    thumbnails = {r.name: r.thumbnail for r in records if r.thumbnail and r.name in pairs}
    found = duplicates.near_copies(
        thumbnails, lambda name: _grey(pairs[name]), volume=lambda name: volume_of(pairs[name])
    )
    found = [(a, b) for a, b in found if by_name[a].sha256 != by_name[b].sha256]
    where = ""
    if between is not None:
        train, val = map(frozenset, between)
        found = [(a, b) for a, b in found if (a in train and b in val) or (b in train and a in val)]
        held = {name for pair in found for name in pair} & val
        where = f" across the split ({len(held)} of {len(val)} validation images)"
    if found:
        text = ", ".join(f"{shown(a)} with {shown(b)}" for a, b in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        names = tuple(dict.fromkeys(name for pair in found for name in pair))
        yield Suspicion("L03", f"nearly the same picture{where}: {text}{more}", names)


def _grey(pair: Pair) -> Grey:
    with pair.image.open_image() as image:
        return sketch(image, pair.image.page or 0)


def _maps(pair: Pair, ignore: int | None) -> tuple[Grey, Grey] | None:
    grey = _grey(pair)
    with pair.mask.open_mask() as mask:
        labels = thinned(mask.read(pair.mask.page or 0)[0], step_of(mask.size), grey.shape)
    return alignment.edge_maps(grey, labels, ignore)


def _misplaced(
    pairs: Mapping[str, Pair], records: Sequence[FileRecord], ignore: int | None
) -> Iterator[Suspicion]:
    """Masks that do not lie on their images, by edges."""
    fits = {r.name: r.fit for r in records if r.fit is not None and r.name in pairs}
    stacks = units(pairs, [r for r in records if r.name in fits])
    behind = {name: group for name, group in stacks.items() if _backwards(group, pairs, ignore)}
    if behind:
        text = f"in {len(behind)} of {len(stacks)} stacks masks fit their images better in reversed order"
        yield _whole("B03", text, behind)
        held = {record.name for group in behind.values() for record in group}
        fits = {name: seen for name, seen in fits.items() if name not in held}
    steps = {r.name: step_of(r.size) for r in records}
    for way, names in alignment.turned_wrong(fits).items():
        yield _list("B03", f"masks {_better(len(names))} {way}", names, len(records))
    away = alignment.shifted_away(fits, steps)
    if away:
        down, right = (round(median(shift[axis] for shift in away.values())) for axis in (0, 1))
        move = f"about {abs(down)} px {'down' if down > 0 else 'up'} and {abs(right)} px "
        move += "to the right" if right > 0 else "to the left"
        yield _list("B03", f"masks {_better(len(away))} {move}", list(away), len(records))
    lost = [name for name, seen in fits.items() if seen.here < 0.5 * alignment.CLEAR and name not in away]
    if lost and (median(seen.here for seen in fits.values()) >= alignment.CLEAR or len(lost) > 5):
        swaps = _table(pairs, lost, ignore, alignment.exchanged)
        swaps = [(a, b) for a, b in swaps or () if not _next_to(pairs[a], pairs[b])]
        pairs_of = [f"{shown(a)} with the mask of {shown(b)}" for a, b in swaps]
        if pairs_of:
            line = f"images fit another's mask, not their own: {', '.join(pairs_of[:5])}"
            yield Suspicion("E38", line, tuple(a for a, _ in swaps))
    apart = {volume_of(pairs[name]): name for name in fits}  # slices of one stack fit each other's masks
    every = max(1, len(apart) // JUDGES)
    if _table(pairs, list(apart.values())[::every], ignore, lambda _, scores: alignment.unrelated(scores)):
        yield Suspicion(
            "E38",
            "masks fit their own images no better than the other images: are they in the right order? "
            "`skipway check --deep` tries to learn them",
        )


def _backwards(group: Sequence[FileRecord], pairs: Mapping[str, Pair], ignore: int | None) -> bool:
    """Whether the masks of a stack lie in the opposite order of their images; one that fits well is not tried."""
    own = [record.fit.here for record in group if record.fit is not None]
    if len(own) < backwards.FEWEST or median(own) >= 0.5 * alignment.CLEAR:
        return False
    return backwards.reversed_better([pairs[record.name] for record in group], ignore)


def _better(count: int) -> str:
    return "fits its image better" if count == 1 else "fit their images better"


def _next_to(one: Pair, other: Pair) -> bool:
    """Whether two slices of one stack lie so close that they look alike."""
    if one.image.page is None or other.image.page is None or volume_of(one) != volume_of(other):
        return False
    return abs(one.image.page - other.image.page) <= NEAR


def _list(code: str, text: str, names: Sequence[str], of: int) -> Suspicion:
    first = ", ".join(map(shown, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return Suspicion(code, f"{len(names)} of {of} {text}: {first}", tuple(names))


def _table(
    pairs: Mapping[str, Pair],
    names: Sequence[str],
    ignore: int | None,
    judge: Callable[..., T],
) -> T | None:
    """A judgement on the scores of each image with each mask, over the most frequent size."""
    sizes: defaultdict[tuple[int, ...], list[tuple[str, tuple[Grey, Grey]]]] = defaultdict(list)
    for name in names[: 2 * JUDGES]:
        maps = _maps(pairs[name], ignore)
        if maps is not None:
            sizes[maps[0].shape].append((name, maps))
    if not sizes:
        return None
    alike = max(sizes.values(), key=len)
    if len(alike) < 2:
        return None
    return judge([name for name, _ in alike], alignment.table([maps for _, maps in alike]))
