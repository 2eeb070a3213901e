"""Which mask belongs to which image: by name, never by order, by a rule that is said.

Three layouts are found: two folders (also as sub-folders of one, under any common name), one folder in which
masks carry a marker (`cell1.png`, `cell1_mask.png`), and multi-page stacks, of which every page is one item.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from skipway.data.folders import data_error, empty, is_one, some, twins, walk
from skipway.data.names import best_rule, key_of
from skipway.data.sources import Source
from skipway.errors import DataError, Problem, SkipwayError, UsageError
from skipway.images import open_image, open_mask, output_name, shown, stem_of, suffix_of

MARKERS = (
    *(
        "_mask",
        "_masks",
        "-mask",
        "_label",
        "_labels",
        "-label",
        "_seg",
        "_segmentation",
        "_gt",
        "_groundtruth",
    ),
    *("_cp_masks", "_annotation", "_manual1", "_target"),
    *("mask_", "label_", "labels_", "seg_", "gt_"),
)
"""Marks of a mask beside its image; one that ends with `_` stands before the name, the others after it."""

FLAT = (".png", ".jpg", ".jpeg")
"""Formats of one page, which need not be opened to count them."""


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
    """

    pairs: tuple[Pair, ...]
    rule: str
    images_root: Path
    masks_root: Path
    notes: tuple[str, ...] = ()
    stated: Stated = field(default_factory=Stated)


def find_pairs(images: Path, masks: Path | None = None, *, suffix: str | None = None) -> Pairs:
    """Pairs images with masks.

    Args:
        images: A folder of images, a folder that holds an image and a mask folder, or a stack.
        masks: A folder of masks or a stack; left out, it is looked for inside and beside `images`.
        suffix: Marker of masks in a shared folder, such as `_mask` (after the name) or `mask_` (before it).

    Raises:
        DataError: nothing to pair, names without partner (all of them listed), names that are not unique, or
            stacks of different page counts.
        UsageError: a path that does not exist, or `suffix` together with `masks`.
    """
    images, masks = Path(images), Path(masks) if masks is not None else None
    for path in filter(None, (images, masks)):
        if not path.exists():
            raise UsageError(Problem("no such file or folder", shown(path), fix="check the path"))
    if masks is not None and suffix is not None:
        raise UsageError("--suffix is for images and masks in one folder; leave out either it or MASKS")
    if masks is not None and images.resolve() == masks.resolve():
        raise data_error("images and masks are the same path", images, "two places", "name the masks", "A31")
    if masks is None:
        if not images.is_dir():
            raise UsageError(
                Problem("one image file without masks", shown(images), fix="name the masks as well")
            )
        found = None if suffix else twins(images)
        if found is None:
            return _shared(images, suffix)
        images, masks = found
    if is_one(images) and is_one(masks):
        return _finish({stem_of(images): (images, masks)}, "two files", images, masks, ())
    if images.is_dir() != masks.is_dir():
        raise data_error(
            "a file and a folder", images, "two folders or two files", "name two of a kind", "A05"
        )
    return _two_folders(images, masks)


def find_images(path: Path) -> tuple[tuple[str, Source], ...]:
    """Images to predict: a file, or all images in a folder and below.

    Args:
        path: File or folder. Of a folder that holds an image and a mask folder, the images.

    Returns:
        (name, source) in natural order; the name is the path from the folder, without suffix.

    Raises:
        DataError: no image, or two images whose labels would get one file name.
        UsageError: no such path.
    """
    path = Path(path)
    found = twins(path, beside=False) if path.is_dir() else None
    return list_files(found[0] if found else path)


def find_masks(path: Path) -> tuple[tuple[str, Source], ...]:
    """Masks to compare with: as `find_images`, and of a folder with an image and a mask folder, the masks."""
    path = Path(path)
    found = twins(path, beside=False) if path.is_dir() else None
    return list_files(found[1] if found else path)


def list_files(root: Path) -> tuple[tuple[str, Source], ...]:
    """One file, or every image file in a folder and below, whatever its sub-folders are called.

    Returns and raises as `find_images`.
    """
    root = Path(root)
    if not root.exists():
        raise UsageError(Problem("no such file or folder", shown(root), fix="check the path"))
    if is_one(root):
        return ((stem_of(root), Source(root)),)
    files, _ = walk(root)
    if not files:
        raise empty(root, "images")
    goals = Counter(str(file.relative_to(root).with_name(output_name(file))).casefold() for file in files)
    clashes = [f for f in files if goals[str(f.relative_to(root).with_name(output_name(f))).casefold()] > 1]
    if clashes:
        raise data_error(
            f"{some(clashes)} would be written under one name",
            root,
            "names that differ",
            "rename one of them",
            "A08",
        )
    named = [((file.relative_to(root).parent / stem_of(file)).as_posix(), Source(file)) for file in files]
    return tuple(sorted(named, key=lambda item: natural(item[0])))


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


def _two_folders(images: Path, masks: Path) -> Pairs:
    """Pairs by exact stem; where no stem matches at all, by a constant affix."""
    image_files, other_images = walk(images, without=masks)
    mask_files, other_masks = walk(masks, without=images)
    for root, files, what in ((images, image_files, "images"), (masks, mask_files, "masks")):
        if not files:
            raise empty(root, what)
    by_image, by_mask = _keyed(image_files, images), _keyed(mask_files, masks)
    rule = "same name in both folders"
    core_of = {key: key for key in by_image}
    if not by_image.keys() & by_mask.keys():
        affix = best_rule(tuple(by_image), tuple(by_mask))
        if affix is not None:
            core_of = {key: affix.image_core(key) for key in by_image}
            by_mask = {affix.mask_core(key): file for key, file in by_mask.items()}
            rule = f"by name, {affix}"
    _refuse_unmatched({core_of[key]: by_image[key] for key in by_image}, by_mask, images, masks, rule)
    paired = {key: (by_image[key], by_mask[core_of[key]]) for key in by_image}
    notes = (*_left_aside(images, other_images), *_left_aside(masks, other_masks), *_collisions(by_image))
    return _finish(paired, rule, images, masks, notes)


def _shared(root: Path, suffix: str | None) -> Pairs:
    """Images and masks in one folder, told apart by a marker in the mask's name."""
    files, others = walk(root)
    if not files:
        raise empty(root, "images")
    keyed = _keyed(files, root)
    candidates = [suffix] if suffix else [m for m in MARKERS if any(_core(k, m) in keyed for k in keyed)]
    candidates = _longest(candidates, keyed)
    if len(candidates) != 1:
        marks = f"several marks of masks ({', '.join(candidates)})" if candidates else "images without masks"
        raise data_error(
            f"{marks} among {len(files)} files",
            root,
            "images/ and masks/ inside it, or masks with a mark such as `_mask`",
            "name the masks folder as second path, or the mark with --suffix",
            "A09",
        )
    marker = candidates[0]
    by_mask = {core: file for key, file in keyed.items() if (core := _core(key, marker)) is not None}
    by_image = {key: file for key, file in keyed.items() if _core(key, marker) is None}
    if not by_mask:
        raise data_error(
            f"no file with the mark {marker!r}", root, "masks with that mark", "check --suffix", "A09"
        )
    pattern = f"{marker}X" if _leads(marker) else f"X{marker}"
    rule = f"one folder, mask of X is {pattern}"
    _refuse_unmatched(by_image, by_mask, root, root, rule)
    paired = {key: (by_image[key], by_mask[key]) for key in by_image}
    return _finish(paired, rule, root, root, (*_left_aside(root, others), *_collisions(by_image)))


def _leads(marker: str) -> bool:
    return marker.endswith(("_", "-")) and not marker.startswith(("_", "-"))


def _core(key: str, marker: str) -> str | None:
    """The image's key for a mask's key, None where the key carries no such mark."""
    folder, slash, name = key.rpartition("/")
    core = name.removeprefix(marker) if _leads(marker) else name.removesuffix(marker)
    return f"{folder}{slash}{core}" if core and core != name else None


def _longest(markers: Sequence[str], keyed: Mapping[str, Path]) -> list[str]:
    """Drops a marker whose masks are all masks of a longer one (`_masks` of `_cp_masks`)."""
    masks = {m: {k for k in keyed if _core(k, m) is not None} for m in markers}
    return [m for m in markers if not any(m != o and o.endswith(m) and masks[m] <= masks[o] for o in markers)]


def _keyed(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """Files by their path from the root without suffix, refused where two share one."""
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        groups[key_of(file.relative_to(root))].append(file)
    clashes = [group for group in groups.values() if len(group) > 1]
    if clashes:
        raise DataError(
            *(
                Problem(
                    f"two files of one name: {some(group)}",
                    shown(root),
                    "one file a name",
                    "remove or rename one of them",
                    "A08",
                )
                for group in clashes
            )
        )
    return {key: group[0] for key, group in groups.items()}


def _refuse_unmatched(
    images: Mapping[str, Path], masks: Mapping[str, Path], image_root: Path, mask_root: Path, rule: str
) -> None:
    """Lists every name without partner, both ways, in one error."""
    lonely_images = sorted(images.keys() - masks.keys(), key=natural)
    lonely_masks = sorted(masks.keys() - images.keys(), key=natural)
    folded = {key.casefold(): key for key in lonely_masks}
    cases = [key for key in lonely_images if key.casefold() in folded]
    problems = [
        Problem(
            f"{shown(masks[folded[key.casefold()]])} differs only in case",
            shown(images[key]),
            "the same upper and lower case",
            "rename one of the two",
            "A10",
        )
        for key in cases
    ]
    lonely_images = [key for key in lonely_images if key not in cases]
    lonely_masks = [key for key in lonely_masks if key.casefold() not in {c.casefold() for c in cases}]
    sides = (
        (lonely_images, images, image_root, "image", "mask"),
        (lonely_masks, masks, mask_root, "mask", "image"),
    )
    for lonely, files, root, what, other in sides:
        if lonely:
            names = some(files[key] for key in lonely)
            problems.append(
                Problem(
                    f"{len(lonely)} of {len(files)} {what}s without {other}: {names}",
                    shown(root),
                    f"a {other} for every {what} ({rule})",
                    f"add the {other}s, or move these {what}s out of the folder",
                    "A03" if len(lonely) < len(files) else "A05",
                )
            )
    if problems:
        raise DataError(*problems)


def _finish(
    files: Mapping[str, tuple[Path, Path]], rule: str, images: Path, masks: Path, notes: Iterable[str]
) -> Pairs:
    """Pairs of files as pairs of pages."""
    pairs: list[Pair] = []
    problems: list[Problem] = []
    stacks = 0
    for name, (image, mask) in sorted(files.items(), key=lambda item: natural(item[0])):
        pages, mask_pages = _page_counts(image, mask)
        if pages != mask_pages:
            problems.append(
                Problem(
                    f"{pages} pages, and {mask_pages} in its mask {shown(mask)}",
                    shown(image),
                    "as many pages in both",
                    "save the stacks with equal page counts, or each page as its own file",
                    "B15",
                )
            )
        elif pages == 1:
            pairs.append(Pair(name, Source(image), Source(mask)))
        else:
            stacks += 1
            digits = max(3, len(str(pages - 1)))
            pairs += [
                Pair(f"{name}#{page:0{digits}d}", Source(image, page), Source(mask, page))
                for page in range(pages)
            ]
    if problems:
        raise DataError(*problems)
    if stacks:
        rule += f"; {stacks} multi-page stack{'s' if stacks > 1 else ''}, page k with page k"
    return Pairs(tuple(pairs), rule, images, masks, tuple(notes))


def _page_counts(image: Path, mask: Path) -> tuple[int, int]:
    """Pages of a pair; a file that cannot be opened counts as one, and the check says what is wrong."""
    if all(suffix_of(path).lower() in FLAT for path in (image, mask)):
        return 1, 1
    try:
        with open_image(image) as opened:
            pages = opened.pages
        with open_mask(mask) as opened:
            return pages, opened.pages
    except SkipwayError:
        return 1, 1


def _follows(pair: Pair, before: Pair) -> bool:
    """Whether a pair is the next page of the files of another."""
    sides = ((pair.image, before.image), (pair.mask, before.mask))
    return all(old.page is not None and new == replace(old, page=old.page + 1) for new, old in sides)


def _left_aside(root: Path, others: Sequence[Path]) -> tuple[str, ...]:
    if not others:
        return ()
    return (f"{shown(root)}: {len(others)} files of formats not read here are left aside: {some(others)}",)


def _collisions(keyed: Mapping[str, Path]) -> tuple[str, ...]:
    counts = Counter(key.casefold() for key in keyed)
    same = [keyed[key] for key in keyed if counts[key.casefold()] > 1]
    return (f"names that differ only in case are one file on other systems: {some(same)}",) if same else ()
