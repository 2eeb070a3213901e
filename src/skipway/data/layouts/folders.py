"""Images in one folder and masks in another, once, per site, or per side of the split."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skipway.data.folders import data_error, empty, some, subfolders, twins, walk
from skipway.data.layouts.matching import collisions, left_aside, matched
from skipway.data.layouts.pairs import SIDES, Pairs, Reading, Stated, by_side, finished
from skipway.data.sources import Source
from skipway.errors import DataError, Problem, UsageError
from skipway.images import shown, stem_of

_TWIN = re.compile(r"[_\- ]?(annot|annotations?|labels?|masks?|gt|seg|segmentations?)$", re.I)
"""What a mask folder's name has that its image folder's has not: `train` and `trainannot`."""


def is_files(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether two files are named."""
    return masks is not None and not images.is_dir() and not masks.is_dir()


def two_files(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """An image and its mask, or two stacks."""
    if masks is None:
        raise UsageError(Problem("one image file without masks", shown(images), fix="name the masks as well"))
    return finished({stem_of(images): (Source(images), Source(masks))}, "two files", images, masks)


def is_folders(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether two folders are named, or lie where they are looked for."""
    return masks is not None or (not reading.suffix and images.is_dir() and twins(images) is not None)


def folders(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """The same name in both folders."""
    return _two_folders(*named(images, masks), partly=False)


def partly(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """The same, where images without mask are left aside; only ever because the user says so."""
    return _two_folders(*named(images, masks), partly=True)


def named(images: Path, masks: Path | None) -> tuple[Path, Path]:
    """Both folders, the second looked for where it is not named.

    Raises:
        DataError: there is no second, or one of the two is a file.
    """
    found = (images, masks) if masks is not None else twins(images) if images.is_dir() else None
    if found is None or found[1] is None:
        raise data_error(
            "no folder of masks", images, "images/ and masks/ inside it", "name the masks folder", "A09"
        )
    if found[0].is_dir() != found[1].is_dir():
        raise data_error(
            "a file and a folder", images, "two folders or two files", "name two of a kind", "A05"
        )
    return found[0], found[1]


@dataclass(frozen=True)
class _Found:
    """Pairs of two folders, before pages are counted."""

    files: Mapping[str, tuple[Source, Source]]
    rule: str
    notes: tuple[str, ...]
    aside: Mapping[str, Path]


def _paired(images: Path, masks: Path, *, partly: bool = False) -> _Found:
    image_files, other_images = walk(images, without=masks)
    mask_files, other_masks = walk(masks, without=images)
    for root, files, what in ((images, image_files, "images"), (masks, mask_files, "masks")):
        if not files:
            raise empty(root, what)
    paired, rule, aside = matched(image_files, mask_files, images, masks, partly=partly)
    names = {key: image for key, (image, _) in paired.items()}
    notes = [*left_aside(images, other_images), *left_aside(masks, other_masks), *collisions(names)]
    if aside:
        notes.append(f"{len(aside)} images without mask are left aside: {some(aside.values())}")
        rule += ", images without mask left aside"
    found = {key: (Source(image), Source(mask)) for key, (image, mask) in paired.items()}
    return _Found(found, rule, tuple(notes), aside)


def _two_folders(images: Path, masks: Path, *, partly: bool) -> Pairs:
    part = _paired(images, masks, partly=partly)
    found, sides, held = by_side(part.files)
    return finished(
        found,
        part.rule,
        images,
        masks,
        notes=(*part.notes, *held),
        stated=Stated(sides=sides),
        unannotated=[(key, Source(file)) for key, file in part.aside.items()],
    )


def is_sites(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether folders lie in the folder that hold an image and a mask folder each."""
    return masks is None and root.is_dir() and bool(_sites(root))


def sites(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """Twin folders in each of several folders: one for a site, a patient, or a side of the split."""
    places = _sites(root)
    if not places:
        raise data_error(
            "no folders that hold images/ and masks/", root, "one for each site", "add them", "A09"
        )
    found, rules, notes = _together(places)
    found, sides, held = by_side(found)
    other = [folder for folder in subfolders(root) if folder not in places]
    if other:
        notes.append(f"folders without both images and masks are left aside: {some(other)}")
    groups = {} if sides or len(places) < 3 else {name: name.partition("/")[0] for name in found}
    rule = f"{len(places)} folders with one image and one mask folder each, {', '.join(rules)}"
    return finished(found, rule, root, root, notes=(*notes, *held), stated=Stated(groups=groups, sides=sides))


def _together(
    places: Mapping[Path, tuple[Path, Path]],
) -> tuple[dict[str, tuple[Source, Source]], list[str], list[str]]:
    """The pairs of several places under their names, the rules, and the notes; all problems at once."""
    found: dict[str, tuple[Source, Source]] = {}
    problems: list[Problem] = []
    rules: list[str] = []
    notes: list[str] = []
    for place, (images, labels) in places.items():
        try:
            part = _paired(images, labels)
        except DataError as error:
            problems += error.problems
            continue
        rules.append(part.rule)
        notes += part.notes
        found |= {f"{place.name}/{name}": both for name, both in part.files.items()}
    if problems:
        raise DataError(*problems)
    return found, list(dict.fromkeys(rules)), notes


def _sites(root: Path) -> dict[Path, tuple[Path, Path]]:
    if twins(root, beside=False) is not None:
        return {}
    found = {folder: twins(folder, beside=False) for folder in subfolders(root)}
    return {folder: both for folder, both in found.items() if both is not None}


def is_splits(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether folders called train and the like have a folder of masks of nearly the same name."""
    return masks is None and root.is_dir() and bool(_splits(root))


def splits(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`train/` with `trainannot/`, `val/` with `valannot/`."""
    places = _splits(root)
    if not places:
        raise data_error("no folders such as train/ and trainannot/", root, "both", "rename them", "A09")
    found, rules, notes = _together({images: (images, labels) for images, labels in places.items()})
    found, sides, held = by_side(found)
    rule = ", ".join((*(f"{images.name}/ with {labels.name}/" for images, labels in places.items()), *rules))
    return finished(found, rule, root, root, notes=(*notes, *held), stated=Stated(sides=sides))


def _splits(root: Path) -> dict[Path, Path]:
    """Image folders with their mask folder."""
    inside = {folder.name.casefold(): folder for folder in subfolders(root)}
    found = {}
    for name, folder in inside.items():
        base = _TWIN.sub("", name)
        if base != name and base in inside and base in SIDES:
            found[inside[base]] = folder
    return found
