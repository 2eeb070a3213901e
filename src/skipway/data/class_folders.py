"""One folder a class, as overlapping masks are kept: `heart/a.png`, `lung/a.png`."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from skipway.data.layouts import list_files, natural
from skipway.data.sources import Source
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
    found: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for name in names:
        folder = root / folder_name(name)
        if any(is_image(path) for path in folder.rglob("*")):
            for key, source in list_files(folder):
                found[key][name] = source.path
    if not found:
        list_files(root)  # says what is there instead
    return tuple((key, class_mask(found[key], names)) for key in sorted(found, key=natural))


def files_by_class(mask: Source) -> dict[str, Path]:
    """The file of each class of a mask of overlapping classes, those that it has."""
    places = mask.numbers or range(len(mask.parts))
    return {mask.names[place]: file for place, file in zip(places, mask.parts, strict=True)}


def class_mask(files: Mapping[str, Path], names: Sequence[str]) -> Source:
    """A mask of overlapping classes out of the files of those that an image has.

    Args:
        files: By class; at least one.
        names: All classes, in order.
    """
    there = tuple(k for k, name in enumerate(names) if name in files)
    parts = tuple(files[names[k]] for k in there)
    numbers = () if len(there) == len(names) else there
    return Source(parts[0], kind="classes", parts=parts, names=tuple(names), numbers=numbers)
