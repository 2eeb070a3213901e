"""Overlapping classes as files: a folder for each class, 255 where it is and 0 elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.class_folders import folder_name
from skipway.data.labels import has
from skipway.images import Geometry, write_labels


def class_files(root: Path, file: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Where the mask of each class goes.

    >>> [path.as_posix() for path in class_files(Path("out"), Path("site1/a.png"), ("heart", "lung"))]
    ['out/heart/site1/a.png', 'out/lung/site1/a.png']
    """
    return tuple(root / folder_name(name) / file for name in names)


def write_sets(
    paths: Sequence[Path], sets: NDArray[Any], geometry: Geometry | None = None
) -> tuple[Path, ...]:
    """Writes the mask of each class.

    Args:
        paths: One a class, see `write_labels`.
        sets: Sets of class indices, Σ 2^k; (H, W), or (P, H, W) for pages.
        geometry: Where the image lies.

    Returns:
        What was written.

    Raises:
        EnvironmentFault: the disk refused.
    """
    return tuple(
        write_labels(path, np.where(has(sets, k), np.uint8(255), np.uint8(0)), geometry=geometry)
        for k, path in enumerate(paths)
    )
