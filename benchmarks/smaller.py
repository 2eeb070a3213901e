"""A data set at a fraction of its size: images by the mean of each block of pixels, masks by its middle one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def smaller_copy(source: Path, target: Path, factor: int) -> Path:
    """Copy a data set of lists (train.txt, val.txt, classes.csv), each side of each picture divided by `factor`.

    A copy that is whole is left as it is.

    Args:
        source: Folder with the lists, whose lines name an image and its mask.
        target: Where the same names are written.
        factor: What both sides of every picture can be divided by.

    Raises:
        ValueError: a side that cannot.
    """
    last = target / "val.txt"  # copied when all else is there
    if last.is_file():
        return target
    for name in ("train.txt", "val.txt"):
        for line in (source / name).read_text(encoding="utf-8").splitlines():
            image, mask = line.split()
            _write(target / image, block_means(_read(source / image), factor))
            _write(target / mask, block_middles(_read(source / mask), factor))
    for name in ("classes.csv", "train.txt", "val.txt"):
        shutil.copyfile(source / name, target / name)
    return target


def block_means(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The mean of each block of `factor`² pixels, halves rounded up; (H, W) or (H, W, C).

    >>> block_means(np.array([[0, 1, 8, 8], [2, 3, 8, 8]], np.uint8), 2).tolist()
    [[2, 8]]
    """
    height, width = _sides(image, factor)
    blocks = image.reshape(height, factor, width, factor, *image.shape[2:])
    total = blocks.sum(axis=(1, 3), dtype=np.uint32)
    return ((2 * total + factor**2) // (2 * factor**2)).astype(np.uint8)


def block_middles(mask: NDArray[Any], factor: int) -> NDArray[Any]:
    """The pixel in the middle of each block, below and right of it in even ones: no value that was not there.

    >>> block_middles(np.array([[7, 7, 7], [7, 2, 7], [7, 7, 7]]), 3).tolist()
    [[2]]
    """
    _sides(mask, factor)
    return mask[factor // 2 :: factor, factor // 2 :: factor]


def _sides(image: NDArray[Any], factor: int) -> tuple[int, int]:
    height, width = image.shape[:2]
    if height % factor or width % factor:
        raise ValueError(f"{width} × {height} pixels cannot be divided by {factor}")
    return height // factor, width // factor


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
