"""Overlapping discs in one folder a class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from skipway.data.layouts import Pairs, Stated, find_pairs

DISCS = ("green", "red")


def draw_discs(seed: int, size: int = 48) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A green disc and a red one that overlap in RGB, and where each is: their grey tells only where either is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    cy, cx = rng.uniform(0.35, 0.65, 2) * size
    angle = rng.uniform(0, 2 * np.pi)
    shift = 0.2 * size
    centres = ((cy, cx), (cy + shift * np.sin(angle), cx + shift * np.cos(angle)))
    masks = tuple(np.hypot(y - b, x - a) < 0.22 * size for b, a in centres)
    image = rng.normal(60, 6, (size, size, 3))
    for channel, mask in zip((1, 0), masks, strict=True):
        image[..., channel] += 90 * mask
    return np.clip(image, 0, 255).astype(np.uint8), (masks[0], masks[1])


def save_discs(root: Path, count: int, first: int = 0) -> Path:
    """`images/`, and `masks/<class>/` with 0 and 255; the first image has no file of the second class."""
    for k in range(first, first + count):
        image, masks = draw_discs(k)
        folders = ("images", *(f"masks/{name}" for name in DISCS))
        for folder, array in zip(folders, (image, *(255 * m.astype(np.uint8) for m in masks)), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            if not (k == 0 and folder.endswith(DISCS[1])):
                Image.fromarray(array).save(root / folder / f"d{k:02d}.png")
    return root


def pairs_of(root: Path, *more: str) -> Pairs:
    """The pairs of `root`, with classes that no mask holds after its own."""
    pairs = find_pairs(root)
    return replace(pairs, stated=Stated("multilabel", dict(zip((1, 2, 4), (*DISCS, *more), strict=False))))
