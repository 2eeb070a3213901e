"""Overlapping discs in one folder a class, and a run trained on pairs of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skipway.data.check import inspect
from skipway.data.class_folders import class_masks
from skipway.data.layouts import Pair, Pairs, Stated, list_files
from skipway.plan import Request
from skipway.predict.predictor import Predictor
from skipway.report.validation import validate_run
from skipway.runs import FORMAT, MARK, Run
from skipway.training.prepare import Prepared, prepare
from skipway.training.session import run_training

CPU = torch.device("cpu")
DISCS = ("red", "green")


def draw_discs(seed: int, size: int = 48) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A red disc and a green one that overlap in RGB, and where each is: their grey tells only where either is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    cy, cx = rng.uniform(0.35, 0.65, 2) * size
    angle = rng.uniform(0, 2 * np.pi)
    shift = 0.2 * size
    centres = ((cy, cx), (cy + shift * np.sin(angle), cx + shift * np.cos(angle)))
    masks = tuple(np.hypot(y - b, x - a) < 0.22 * size for b, a in centres)
    image = rng.normal(60, 12, (size, size, 3))
    for channel, mask in enumerate(masks):
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


def pairs_of(root: Path, names: Sequence[str]) -> Pairs:
    """Images and masks under `root` as overlapping classes."""
    images = dict(list_files(root / "images"))
    masks = class_masks(root / "masks", names)
    stated = Stated("multilabel", {1 << k: name for k, name in enumerate(names)})
    pairs = tuple(Pair(name, images[name], mask) for name, mask in masks)
    return Pairs(pairs, "one folder a class", root / "images", root / "masks", stated=stated)


def train_on(pairs: Pairs, output: Path, **choices: object) -> tuple[Prepared, Run]:
    """What `skipway train` does from the pairs on."""
    checked = inspect(pairs)
    prepared = prepare(checked, Request(**choices), val=None, device=CPU)
    run = Run.create(output)
    run.write(MARK.removesuffix(".json"), {"format": FORMAT, "finished": True, "asked": {}})
    prepared.write(run)
    run_training(prepared, run, CPU, lambda _: None, lambda: False)
    predictor = Predictor.load(output, "cpu").using()
    validate_run(run, prepared, predictor, {"command": "test"}, checked.warnings, {}, lambda _: None)
    return prepared, run
