"""Whether the masks can be learnt from the images: a short fit on the true pairs, and the same on shuffled ones.

Both networks see the same images, sketches of at most 128 pixels, and differ only in which mask belongs to which. Both
are judged on pairs that neither saw. Where the true pairs teach no more than the shuffled ones, the masks do not belong
to these images.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skipway.data.labels import IGNORE, LabelMap
from skipway.data.layouts import Pair
from skipway.data.sketch import SIDE, sketch, step_of, thinned, unit

MOST = 32
"""Pairs that take part."""

GAIN = 0.05
"""Share of the loss that the true pairs must save."""


@dataclass(frozen=True)
class Verdict:
    """What the fit says, for people, and whether it is a warning."""

    text: str
    suspicious: bool


def learnable(pairs: Sequence[Pair], labels: LabelMap, *, seconds: float = 50.0, seed: int = 0) -> Verdict:
    """Fits twice and compares.

    Args:
        pairs: Of the data set.
        labels: What the masks mean.
        seconds: For everything, about.
        seed: Of weights and order.
    """
    chosen = pairs[:: max(1, len(pairs) // MOST)][:MOST]
    if len(chosen) < 6:
        return Verdict(f"{len(chosen)} pairs are too few to tell", False)
    images, masks = _tensors(chosen, labels)
    held = max(2, len(chosen) // 4)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(chosen), generator=generator)
    train, test = order[held:], order[:held]
    began = time.perf_counter()
    true = _loss(images, masks, masks[train], train, test, seconds=seconds / 2, steps=None, seed=seed)
    shuffled = _loss(
        images, masks, masks[train.roll(1)], train, test, seconds=seconds, steps=true[1], seed=seed
    )
    gain = 1 - true[0] / max(shuffled[0], 1e-9)
    spent = time.perf_counter() - began
    if gain < GAIN:
        text = f"{true[1]} steps on the true pairs teach no more than on shuffled ones (loss {gain:+.0%})"
        return Verdict(f"{text}: masks and images do not seem to belong together", True)
    text = f"the masks can be learnt: {gain:.0%} less loss on unseen pairs than with shuffled masks"
    return Verdict(f"{text} ({true[1]} steps, {spent:.0f} s)", False)


def _tensors(pairs: Sequence[Pair], labels: LabelMap) -> tuple[Tensor, Tensor]:
    """Images (N, 1, S, S) and foreground (N, S, S), `IGNORE` outside and where nothing is annotated."""
    images = np.zeros((len(pairs), 1, SIDE, SIDE), np.float32)
    masks = np.full((len(pairs), SIDE, SIDE), IGNORE, np.int64)
    for number, pair in enumerate(pairs):
        with pair.image.open_image() as image, pair.mask.open_mask() as mask:
            grey = sketch(image, pair.image.page or 0)
            values = thinned(mask.read(pair.mask.page or 0)[0], step_of(image.size), grey.shape)
        height, width = grey.shape
        images[number, 0, :height, :width] = unit(grey) * np.sqrt(grey.size)
        target = (values != labels.background).astype(np.int64)
        if labels.ignore is not None:
            target[values == labels.ignore] = IGNORE
        masks[number, :height, :width] = target
    return torch.from_numpy(images), torch.from_numpy(masks)


def _loss(
    images: Tensor,
    masks: Tensor,
    taught: Tensor,
    train: Tensor,
    test: Tensor,
    *,
    seconds: float,
    steps: int | None,
    seed: int,
) -> tuple[float, int]:
    """Cross-entropy on the test pairs after training on `taught`, and the steps that were made."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    began, step = time.perf_counter(), 0
    while step < (steps or 200) and (steps is not None or time.perf_counter() - began < seconds):
        some = torch.randint(len(train), (4,), generator=generator)
        loss = F.cross_entropy(network(images[train[some]]), taught[some], ignore_index=IGNORE)
        optimiser.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            optimiser.step()
        step += 1
    network.eval()
    with torch.no_grad():
        return float(F.cross_entropy(network(images[test]), masks[test], ignore_index=IGNORE)), step


def _network() -> nn.Sequential:
    """Seven convolutions that see 63 pixels: enough for edges, texture and blobs."""
    layers: list[nn.Module] = []
    channels = 1
    for dilation in (1, 1, 2, 4, 8, 15):
        layers += [
            nn.Conv2d(channels, 12, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        ]
        channels = 12
    return nn.Sequential(*layers, nn.Conv2d(channels, 2, 1))
