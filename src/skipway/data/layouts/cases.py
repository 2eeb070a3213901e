"""Several files for one mask: one for each object, or one for each class."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from skipway.data.folders import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    data_error,
    images_in,
    some,
    subfolders,
    twins,
    walk,
)
from skipway.data.layouts.marked import MARKERS
from skipway.data.layouts.matching import keyed
from skipway.data.layouts.pairs import Pairs, Reading, Stated, finished, natural
from skipway.data.names import key_of
from skipway.data.sources import Source
from skipway.errors import DataError, Problem
from skipway.images import shown, stem_of

MOST_CLASSES = 64
"""Bits of the largest whole number that a mask may hold."""


def is_objects(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether every folder in the folder holds one image and a folder of masks with other names."""
    if masks is not None or not root.is_dir():
        return False
    cases = _cases(root)
    singles = [(images_in(images), images_in(labels)) for images, labels in cases.values()]
    if not singles or any(len(images) != 1 for images, _ in singles):
        return False
    return any(len(labels) > 1 for _, labels in singles)


def objects(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """One folder per case with one image and one mask file per object (Data Science Bowl 2018)."""
    found: dict[str, tuple[Source, Source]] = {}
    problems: list[Problem] = []
    coding = "classes" if reading.task == "classes" else ""
    total = 0
    for case, (images, labels) in _cases(root).items():
        pictures, parts = images_in(images), sorted(images_in(labels), key=lambda file: natural(file.name))
        if len(pictures) != 1 or not parts:
            problems.append(
                Problem(
                    f"{len(pictures)} images and {len(parts)} masks",
                    shown(case),
                    "one image and a mask for each of its objects",
                    "complete this folder, or move it away",
                    "A03",
                )
            )
            continue
        total += len(parts)
        mask = Source(parts[0], kind="objects", parts=tuple(parts), coding=coding)
        found[case.name] = (Source(pictures[0]), mask)
    if problems:
        raise DataError(*problems)
    if not found:
        raise data_error(
            "no folders that hold an image and masks/", root, "one for each case", "check the path", "A01"
        )
    other = [folder for folder in subfolders(root) if folder.name not in found]
    notes = [f"folders without images and masks are left aside: {some(other)}"] if other else []
    rule = f"one folder per case, one mask file per object: {len(found)} cases, {total} objects"
    stated = Stated("classes", {0: "background", 1: "object"}) if coding else Stated("objects")
    return finished(found, rule, root, root, notes=notes, stated=stated)


def _cases(root: Path) -> dict[Path, tuple[Path, Path]]:
    """Folders with the folder of images and of masks in each; that of images may be the folder itself."""
    found = {}
    for case in subfolders(root):
        inside = subfolders(case)
        images = [folder for folder in inside if folder.name.casefold() in IMAGE_FOLDERS]
        labels = [folder for folder in inside if folder.name.casefold() in MASK_FOLDERS]
        if len(images) == len(labels) == 1:
            found[case] = (images[0], labels[0])
        elif not images and len(labels) == 1 and images_in(case):
            found[case] = (case, labels[0])  # the image lies beside its masks
    return found


def is_classes(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether masks lie in folders called by class, or end in the name of a class."""
    both = _sides(images, masks)
    return both is not None and (len(_folders(*both)) > 1 or len(_suffixes(*both)[1]) > 1)


def classes(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """One mask per class: `masks/lung/a.png` and `masks/heart/a.png`, or `a_lung.png` and `a_heart.png`.

    The mask of an image holds bit k where the mask of class k is set, so that classes may overlap; with the task
    "classes" it holds k + 1, and overlap is refused.
    """
    both = _sides(images, masks)
    if both is None:
        raise data_error("no folder of masks", images, "images/ and masks/", "name the masks folder", "A09")
    folders = _folders(*both)
    if folders:
        names, how = tuple(folders), "folders"
        parts_of: Mapping[str, Mapping[str, Path]] = _by_image(folders)
        by_image = keyed(walk(both[0], without=both[1])[0], both[0])
    else:
        parts_of, names, by_image = _suffixes(*both)
        how = "the ends of names"
    if not names:
        wanted = "masks/CLASS/NAME.png, or NAME_CLASS.png"
        raise data_error(
            "no folders or endings that name classes", both[1], wanted, "rename the masks", "A09"
        )
    _refuse(parts_of, names, by_image, both)
    coding = "classes" if reading.task == "classes" else ""
    found = {
        name: (Source(file), _class_mask(parts_of[name], names, coding)) for name, file in by_image.items()
    }
    return finished(
        found,
        f"one mask per class, {how} name them: {', '.join(names)}; "
        + ("one class a pixel" if coding else "classes may overlap (--task classes: one class a pixel)"),
        *both,
        notes=_absences(parts_of, names),
        stated=Stated("classes", {0: "background", **{k + 1: name for k, name in enumerate(names)}})
        if coding
        else Stated("multilabel", {1 << k: name for k, name in enumerate(names)}),
    )


def _class_mask(parts: Mapping[str, Path], names: tuple[str, ...], coding: str) -> Source:
    """The files of one image; the place of each in `names` only where a class has none."""
    there = tuple(k for k, name in enumerate(names) if name in parts)
    files = tuple(parts[names[k]] for k in there)
    numbers = () if len(there) == len(names) else there
    return Source(files[0], kind="classes", parts=files, names=names, coding=coding, numbers=numbers)


def _absences(parts_of: Mapping[str, Mapping[str, Path]], names: Iterable[str]) -> list[str]:
    counts = Counter(name for parts in parts_of.values() for name in parts)
    total = len(parts_of)
    return [
        f"class {name}: no file for {total - counts[name]} of {total} images, read as absent there"
        for name in names
        if counts[name] < total
    ]


def _refuse(
    parts_of: Mapping[str, Mapping[str, Path]],
    names: tuple[str, ...],
    by_image: Mapping[str, Path],
    both: tuple[Path, Path],
) -> None:
    """Images without any mask, masks without image, and more classes than a number has bits."""
    problems = []
    if len(names) > MOST_CLASSES:
        found, where = f"{len(names)} classes", shown(both[1])
        problems.append(Problem(found, where, f"at most {MOST_CLASSES}", "leave some out", "E27"))
    for lonely, what, root in (
        ([by_image[name] for name in by_image if name not in parts_of], "images without mask", both[0]),
        (
            [file for name, parts in parts_of.items() if name not in by_image for file in parts.values()],
            "masks without image",
            both[1],
        ),
    ):
        if lonely:
            problems.append(
                Problem(
                    f"{len(lonely)} {what}: {some(lonely)}",
                    shown(root),
                    "the same names in images and in at least one class",
                    "add the others, or move these out of the folder",
                    "A03",
                )
            )
    if problems:
        raise DataError(*problems)


def _sides(images: Path, masks: Path | None) -> tuple[Path, Path] | None:
    """The folder of the images and that of the masks; the same one where all lie together."""
    if not images.is_dir() or (masks is not None and not masks.is_dir()):
        return None
    if masks is not None:
        return images, masks
    try:
        return twins(images) or (images, images)
    except DataError:  # several folders of masks: a question that the plain layouts ask
        return None


def _folders(images: Path, masks: Path) -> dict[str, list[Path]]:
    """Files by the name of the folder of their class, at least some of which are called as images are."""
    if images == masks or images_in(masks):
        return {}
    inside = [folder for folder in subfolders(masks) if images_in(folder)]
    if {folder.name for folder in subfolders(images)} & {folder.name for folder in inside}:
        return {}  # sites, with the same folders on both sides
    names = {stem_of(file) for file in images_in(images)}
    found = {folder.name: images_in(folder) for folder in sorted(inside, key=lambda f: natural(f.name))}
    fits = len(found) > 1 and all(names & {stem_of(file) for file in files} for files in found.values())
    return found if fits else {}


def _by_image(folders: Mapping[str, list[Path]]) -> dict[str, dict[str, Path]]:
    parts: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for name, files in folders.items():
        for key, file in keyed(files, files[0].parent).items():
            parts[key][name] = file
    return dict(parts)


def _suffixes(
    images: Path, masks: Path
) -> tuple[dict[str, dict[str, Path]], tuple[str, ...], dict[str, Path]]:
    """Masks `a_lung`, `a_heart` of the image `a`: files by image and class, the classes, and the images.

    Nothing where a mask is called as no image is, or where an ending is a mark, a number, or seen once only, or
    where most images have none.
    """
    nothing: tuple[dict[str, dict[str, Path]], tuple[str, ...], dict[str, Path]] = ({}, (), {})
    labels = {key_of(f, masks): f for f in walk(masks, without=images)[0]}
    together = images == masks
    pictures = labels if together else {key_of(f, images): f for f in walk(images, without=masks)[0]}
    split = {key: _cut(key, pictures) for key in labels}
    bases = {key for key in labels if split[key] is None}
    if (not together and bases) or not labels:
        return nothing
    parts: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for key, cut in split.items():
        if cut is not None:
            parts[cut[0]][cut[1]] = labels[key]
    counts = Counter(name for found in parts.values() for name in found)
    plain = {mark.strip("_-") for mark in MARKERS}
    own = all(not re.fullmatch(r"\d+", name) and name.casefold() not in plain for name in counts)
    often = all(count > 1 or len(parts) == 1 for count in counts.values())
    kept = {key: file for key, file in pictures.items() if key in bases or not together}
    most = 2 * len(parts) >= len(kept)  # of a heap of pictures a few may be called like this
    if not (own and often and most) or len(counts) < 2:
        return nothing
    return dict(parts), tuple(sorted(counts, key=natural)), kept


def _cut(key: str, images: Mapping[str, Path]) -> tuple[str, str] | None:
    """The image of a mask and what stands behind: `a_lung` of image `a` is (`a`, `lung`)."""
    for match in reversed(list(re.finditer(r"[_\-]", key))):
        if key[: match.start()] in images and match.end() < len(key):
            return key[: match.start()], key[match.end() :]
    return None
