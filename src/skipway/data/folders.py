"""What lies in a folder: image files, twin folders, and what is left aside."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from skipway.errors import DataError, Problem
from skipway.images import IMAGE_SUFFIXES, is_image, is_series, is_unread_image, shown, suffix_of

IMAGE_FOLDERS = frozenset(("image", "images", "img", "imgs", "raw", "input", "inputs", "frames", "x"))
MASK_FOLDERS = frozenset(
    (
        *(
            "mask",
            "masks",
            "label",
            "labels",
            "annotation",
            "annotations",
            "gt",
            "groundtruth",
            "ground_truth",
        ),
        *("ground-truth", "seg", "segs", "segmentation", "segmentations", "target", "targets", "truth", "y"),
    )
)

_JUNK = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


def twins(root: Path, *, beside: bool = True) -> tuple[Path, Path] | None:
    """The image and the mask folder inside `root`, or, where `root` is an image folder, the one beside it."""
    inside = subfolders(root)
    images = [folder for folder in inside if folder.name.casefold() in IMAGE_FOLDERS]
    masks = _mask_folders(inside)
    if images and masks and len(images) + len(masks) > 2:
        found = f"more than one folder of a kind: {some([*images, *masks])}"
        typed = shlex.join(["skipway", "train", str(images[0]), str(masks[0]), "-o", "run"])
        fix = f"name both folders, such as: {typed}"
        raise data_error(found, root, "one image and one mask folder", fix, "A09")
    if images and masks:
        return images[0], masks[0]
    if beside and not masks and root.resolve().name.casefold() in IMAGE_FOLDERS:
        siblings = _mask_folders(subfolders(root.resolve().parent))
        if len(siblings) == 1:
            return root, siblings[0]
    return None


def _mask_folders(folders: list[Path]) -> list[Path]:
    """Folders called as folders of masks are; where there is none, those with a word behind: `labels_gold`."""
    exact = [folder for folder in folders if folder.name.casefold() in MASK_FOLDERS]
    known = MASK_FOLDERS - {"x", "y"}
    return exact or [f for f in folders if re.split(r"[_\- ]", f.name.casefold())[0] in known]


def subfolders(root: Path) -> list[Path]:
    """Folders in a folder that hold something of the user's, by name; those that are one image are none."""
    with os.scandir(root) as entries:
        found = [entry.name for entry in entries if not _ignored(entry.name) and _is_folder(entry)]
    return [root / name for name in sorted(found) if not is_image(Path(name), folder=True)]


def files_in(root: Path) -> list[Path]:
    """Files directly in a folder, by name, without what systems leave there; none where there is no folder."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        found = [entry.name for entry in entries if not _ignored(entry.name) and not _is_folder(entry)]
    return [root / name for name in sorted(found)]


def images_in(root: Path) -> list[Path]:
    """Images directly in a folder, by name: files, and folders whose name says that they are one."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        found = [(entry.name, _is_folder(entry)) for entry in entries if not _ignored(entry.name)]
    return [root / name for name, folder in sorted(found) if is_image(Path(name), folder=folder)]


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK


def walk(root: Path, *, without: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Image files below a folder, and files that are images of a kind not read here."""
    files, others, seen = [], [], set()
    excluded = without.resolve() if without is not None and without.resolve() != root.resolve() else None
    todo = [root]
    while todo:
        folder = todo.pop()
        real = folder.resolve()
        if real in seen or real == excluded:
            continue
        seen.add(real)
        for entry in os.scandir(folder):
            if _ignored(entry.name):
                continue
            path = folder / entry.name
            inside = _is_folder(entry)
            if is_image(path, folder=inside) or (inside and is_series(path)):
                files.append(path)
            elif inside:
                todo.append(path)
            elif is_unread_image(path):
                others.append(path)
    return sorted(files), sorted(others)


def is_one(path: Path) -> bool:
    """Whether a path is one image or one mask: a file, or a folder that counts as one."""
    return not path.is_dir() or is_image(path, folder=True) or is_series(path)


def is_there(path: Path) -> bool:
    """Whether a path is one image or mask, and exists."""
    return path.exists() and is_one(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself; opening it says so
        return False


def some(paths: Iterable[Path], limit: int = 8) -> str:
    """The first names, and how many more."""
    names = [shown(path.name) for path in paths]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def empty(root: Path, what: str) -> DataError:
    """The error for a folder without images, naming what is in it instead."""
    present = Counter(suffix_of(p).lower() or "no suffix" for p in root.rglob("*") if p.is_file())
    seen = ", ".join(f"{count} {suffix}" for suffix, count in present.most_common(4)) or "nothing"
    return data_error(
        f"no {what} found (in it: {seen})",
        root,
        f"files ending in {' '.join(s for s in IMAGE_SUFFIXES if s.count('.') == 1)}",
        f"name the folder that holds the {what}",
        "A01" if what == "images" else "A02",
    )


def data_error(found: str, where: Path, expected: str, fix: str, code: str) -> DataError:
    """One problem as an error."""
    return DataError(Problem(found, shown(where), expected, fix, code))
