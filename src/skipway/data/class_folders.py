"""One folder a class, as overlapping masks are kept: `heart/a.png`, `lung/a.png`."""

import re
from collections.abc import Sequence
from pathlib import Path

from skipway.data.layouts import list_files, natural
from skipway.data.sources import ABSENT, Source
from skipway.images import is_image


def folder_name(name: str) -> str:
    """A class name as the name of a folder, whatever it holds.

    >>> folder_name("left lung"), folder_name("a/b"), folder_name("..")
    ('left lung', 'a_b', '_')
    """
    return re.sub(r'[/\\:*?"<>|]|[^ -\uffff]|^\.+|[. ]+$', "_", name) or "_"


def has_class_folders(root: Path, names: Sequence[str]) -> bool:
    """Whether there is a folder for each of these classes."""
    return root.is_dir() and all((root / folder_name(name)).is_dir() for name in names)


def class_masks(root: Path, names: Sequence[str]) -> tuple[tuple[str, Source], ...]:
    """Masks of overlapping classes, each read as sets of the classes in the order of `names`.

    Args:
        root: Folder with a folder for each class.
        names: Classes.

    Returns:
        (name, source) in natural order, one for every name that any of the folders holds.

    Raises:
        DataError: no mask in any of them, or two files of one name in one folder.
    """
    found: list[dict[str, Path]] = []
    for name in names:
        folder = root / folder_name(name)
        empty = not any(is_image(path) for path in folder.rglob("*"))
        found.append({} if empty else {key: source.path for key, source in list_files(folder)})
    every = sorted({key for files in found for key in files}, key=natural)
    if not every:
        list_files(root)  # says what is there instead
    return tuple((key, _source([files.get(key, ABSENT) for files in found], names)) for key in every)


def _source(parts: Sequence[Path], names: Sequence[str]) -> Source:
    first = next(part for part in parts if part != ABSENT)
    return Source(first, kind="classes", parts=tuple(parts), names=tuple(names))
