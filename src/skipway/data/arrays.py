"""Images and masks that lie in memory, kept as files so that a run can go on from them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import DataError, Problem, UsageError
from skipway.images import shown

FOLDER = "data"
"""Where in a run folder they are kept."""

FACTS = "arrays.json"
"""Written last: says that the arrays are complete, and which they are."""


def saved(images: Any, masks: Any, output: Path) -> tuple[Path, Path]:
    """Writes arrays below a run folder as TIFF files, or finds the same ones there.

    Args:
        images: One array of shape (N, *S) or (N, *S, C), or a sequence of N arrays (*S), (*S, C) or (C, *S);
            S is (H, W), or (Z, H, W) for volumes.
        masks: Whole numbers, one array of shape (N, *S) or a sequence of N arrays (*S).
        output: Run folder.

    Returns:
        The folders of the images and of the masks.

    Raises:
        DataError: as many of one as of the other are not there, or shapes do not fit.
        UsageError: the folder keeps other arrays, or is no folder for a new run.
    """
    pairs = _paired(images, masks)
    names = [f"{k:0{len(str(len(pairs) - 1))}d}" for k in range(len(pairs))]
    facts = {name: [_digest(image), _digest(mask)] for name, (image, mask) in zip(names, pairs, strict=True)}
    root = output / FOLDER
    path = root / FACTS
    if not path.is_file():
        _write(root, dict(zip(names, pairs, strict=True)))
        path.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != facts:
        raise UsageError(
            Problem(
                "keeps other arrays", shown(root), "the same ones, to go on", "give another folder as output"
            )
        )
    return root / "images", root / "masks"


def _paired(images: Any, masks: Any) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Channels first where there are any."""
    if masks is None or isinstance(masks, str | Path) or isinstance(images, str | Path):
        raise UsageError(Problem("arrays and files mixed", "train", "images and masks of one kind"))
    pictures, labels = [np.asarray(image) for image in images], [np.asarray(mask) for mask in masks]
    if len(pictures) != len(labels) or not pictures:
        raise DataError(
            Problem(f"{len(pictures)} images and {len(labels)} masks", "train", "as many of both", "", "A03")
        )
    found = []
    for k, (image, mask) in enumerate(zip(pictures, labels, strict=True)):
        if mask.ndim not in (2, 3) or mask.dtype.kind not in "bui":
            what = f"mask {k} of shape {mask.shape} and type {mask.dtype}"
            raise DataError(Problem(what, "train", "whole numbers of shape (H, W) or (Z, H, W)", "", "B16"))
        if image.shape[:-1] == mask.shape:
            image = np.moveaxis(image, -1, 0)
        elif image.shape[1:] != mask.shape and image.shape != mask.shape:
            what = f"image {k} of shape {image.shape}, mask of shape {mask.shape}"
            raise DataError(Problem(what, "train", "the same, channels first or last apart", "", "B04"))
        if image.ndim > mask.ndim and len(image) == 1:
            image = image[0]
        found.append((image, mask.astype(np.uint8) if mask.dtype.kind == "b" else mask))
    return found


def _write(root: Path, pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
    import tifffile

    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, both in pairs.items():
        for folder, array in zip(("images", "masks"), both, strict=True):
            axes = {0: "", 1: "C"}[array.ndim - both[1].ndim] + ("YX" if both[1].ndim == 2 else "ZYX")
            if axes == "CZYX":  # pages come first in a file
                array, axes = np.moveaxis(array, 0, 1), "ZCYX"
            path = root / folder / f"{name}.tif"
            tifffile.imwrite(
                path,
                np.ascontiguousarray(array),
                photometric="minisblack",
                planarconfig="separate" if "C" in axes else None,
                compression="zlib",
                metadata={"axes": axes},
            )


def _digest(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def are_arrays(images: Any) -> bool:
    """Whether images are arrays and no path."""
    return isinstance(images, np.ndarray | Sequence) and not isinstance(images, str)
