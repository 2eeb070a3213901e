"""What every layout gives: images with masks by name, page by page, and what the data set says of itself."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from skipway.data.sources import Source, page_name
from skipway.errors import DataError, Problem, SkipwayError
from skipway.images import format_of

DRAWN = ("objects", "coco", "labelme", "geojson")
"""Kinds of masks that are put together when they are opened, always of one page."""

GROUPINGS = (
    *("group", "patient", "patient_id", "subject", "subject_id", "donor", "animal", "slide", "slide_id"),
    *("case", "case_id", "sequence", "movie", "video", "volume", "stack"),
)
"""Headings of a column of groups in tables, best first."""

SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Folders and lists that say which side of the split their images are on."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask under one name, such as `site1/a` or `train-volume#003`."""

    name: str
    image: Source
    mask: Source


@dataclass(frozen=True)
class Volume:
    """What a network sees at once: one page, or for three axes consecutive pages of one file.

    Attributes:
        pairs: One for each page, in order.
    """

    pairs: tuple[Pair, ...]

    @property
    def name(self) -> str:
        """Name of the page, or of the first and the number of the last: `stack#000…024`."""
        first, last = self.pairs[0].name, self.pairs[-1].name
        return first if len(self.pairs) == 1 else f"{first}…{last.rpartition('#')[2]}"

    @property
    def image(self) -> Source:
        """Where the images are, all pages of it."""
        return self.pairs[0].image.whole

    @property
    def mask(self) -> Source:
        """Where the masks are, all pages of it."""
        return self.pairs[0].mask.whole

    @property
    def pages(self) -> range:
        """Pages of both files."""
        first = self.pairs[0].image.page or 0
        return range(first, first + len(self.pairs))


@dataclass(frozen=True)
class Stated:
    """What a data set says of itself, in a table or by the layout it comes in.

    Attributes:
        task: What its masks are, "classes", "objects" or "multilabel"; None where they must tell.
        names: What mask values are called.
        ignore: Mask value of pixels that nobody annotated.
        groups: By name of a pair: the patient, slide or movie it comes from.
        sides: By name of a pair: "train" or "val".
    """

    task: str | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    ignore: int | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """All pairs of a data set.

    Attributes:
        pairs: In natural order of their names (`a2` before `a10`).
        rule: How they were paired, for people.
        images_root: Folder or file of the images.
        masks_root: Folder or file of the masks.
        notes: What was left aside, for people.
        stated: What the data set says of itself.
        unannotated: Images that the layout leaves without mask, under their names.
    """

    pairs: tuple[Pair, ...]
    rule: str
    images_root: Path
    masks_root: Path
    notes: tuple[str, ...] = ()
    stated: Stated = field(default_factory=Stated)
    unannotated: tuple[tuple[str, Source], ...] = ()

    @property
    def where(self) -> str:
        """Where they lie, for people."""
        if self.images_root == self.masks_root:
            return f"in {self.images_root}"
        return f"of {self.images_root} and {self.masks_root}"


@dataclass(frozen=True)
class Reading:
    """How the user wants a folder to be read; left out, it is looked at.

    Attributes:
        layout: A name of `LAYOUTS`.
        suffix: Mark of masks in a shared folder, such as `_mask` (after the name) or `mask_` (before it).
        pairs: Table of images and masks.
        colours: Table of the colours of masks.
        task: "classes", "objects" or "multilabel", where masks of several parts could be read as either.
        colour: What all images are read as, a key of `images.CHANNELS`.
    """

    layout: str | None = None
    suffix: str | None = None
    pairs: Path | None = None
    colours: Path | None = None
    task: str | None = None
    colour: str | None = None

    def elsewhere(self) -> "Reading":
        """The same for another folder, which has tables of its own."""
        return replace(self, pairs=None)


def volumes(pairs: Iterable[Pair], ndim: int) -> tuple[Volume, ...]:
    """What a network of `ndim` axes sees at once of these pairs, in their order.

    A network of two axes sees each page alone. One of three sees pages that follow each other here and in their
    file as one volume; a file of one page is a volume of one slice.
    """
    found: list[list[Pair]] = []
    for pair in pairs:
        if ndim == 3 and found and _follows(pair, found[-1][-1]):
            found[-1].append(pair)
        else:
            found.append([pair])
    return tuple(Volume(tuple(pages)) for pages in found)


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorting key under which numbers count as numbers.

    >>> sorted(["a10", "a2", "b1"], key=natural)
    ['a2', 'a10', 'b1']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)


def finished(
    found: Mapping[str, tuple[Source, Source]],
    rule: str,
    images: Path,
    masks: Path,
    *,
    notes: Iterable[str] = (),
    stated: Stated | None = None,
    unannotated: Iterable[tuple[str, Source]] = (),
) -> Pairs:
    """Pairs of whole pictures as pairs of pages; groups and sides are those of the pictures."""
    pairs: list[Pair] = []
    problems: list[Problem] = []
    pages_of: dict[str, list[str]] = {}
    for name, (image, mask) in sorted(found.items(), key=lambda item: natural(item[0])):
        pages, mask_pages = (1, 1) if image.page is not None else _page_counts(image, mask)
        if pages != mask_pages:
            problems.append(
                Problem(
                    f"{pages} pages, and {mask_pages} in its mask {mask}",
                    str(image),
                    "as many pages in both",
                    "save the stacks with equal page counts, or each page as its own file",
                    "B15",
                )
            )
        elif pages == 1:
            pairs.append(Pair(name, image, mask))
            pages_of[name] = [name]
        else:
            made = [
                Pair(page_name(name, page, pages), replace(image, page=page), replace(mask, page=page))
                for page in range(pages)
            ]
            pairs += made
            pages_of[name] = [pair.name for pair in made]
    if problems:
        raise DataError(*problems)
    stacks = sum(len(pages) > 1 for pages in pages_of.values())
    if stacks:
        rule += f"; {stacks} multi-page stack{'s' if stacks > 1 else ''}, page k with page k"
    stated = stated or Stated()
    groups, sides = (
        {page: said[name] for name, pages in pages_of.items() if name in said for page in pages}
        for said in (stated.groups, stated.sides)
    )
    stated = replace(stated, groups=groups, sides=sides)
    aside = tuple(sorted(unannotated, key=lambda item: natural(item[0])))
    return Pairs(tuple(pairs), rule, images, masks, tuple(notes), stated, aside)


def by_side(
    found: Mapping[str, tuple[Source, Source]],
) -> tuple[dict[str, tuple[Source, Source]], dict[str, str], tuple[str, ...]]:
    """Pairs whose folders are called train, val and test: those that train or validate, their sides, and a note.

    Where the folders are called otherwise, all of them and no sides.
    """
    sides = {name: SIDES.get(name.partition("/")[0].casefold(), "") for name in found}
    if not {"train", "val"} <= set(sides.values()) or "" in sides.values():
        return dict(found), {}, ()
    kept = {name: both for name, both in found.items() if sides[name] != "test"}
    held = len(found) - len(kept)
    note = (f"{held} pairs of the test folder are left aside: evaluate on them",) if held else ()
    return kept, {name: sides[name] for name in kept}, note


def _page_counts(image: Source, mask: Source) -> tuple[int, int]:
    """Pages of a pair; a file that cannot be opened counts as one, and the check says what is wrong."""
    forms = [format_of(path) for path in (image.path, *image.files, mask.path, *mask.files)]
    if all(form is not None and form.single for form in forms):
        return 1, 1
    try:
        with image.open_image() as opened:
            pages = opened.pages
        if mask.kind in DRAWN:
            return pages, 1
        with mask.open_mask() as opened:
            return pages, opened.pages
    except SkipwayError:
        return 1, 1


def _follows(pair: Pair, before: Pair) -> bool:
    """Whether a pair is the next page of the files of another."""
    sides = ((pair.image, before.image), (pair.mask, before.mask))
    return all(old.page is not None and new == replace(old, page=old.page + 1) for new, old in sides)
