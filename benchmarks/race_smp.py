"""The plain recipe: `smp.Unet` with a resnet34 from scratch, random crops and flips, Adam, cross-entropy + Dice.

    python benchmarks/race_smp.py JOB [--cosine]

Batches of 8 crops of 160 pixels a side are those of the package's own example for a CPU
(examples/binary_segmentation_intro_cpu.py; images that are smaller make smaller crops). The rate of 1e-3 is Adam's own
default. With --cosine it is that of the package's examples: 2e-4, in half a cosine down to 1e-5 at the end of the time.
"""

import argparse
import math

import common  # noqa: F401  before torch: it settles how threads wait

# isort: split
import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import nn

from race_data import Clock, Job

BATCH, CROP, STRIDE = 8, 160, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job")
    parser.add_argument("--cosine", action="store_true")
    wanted = parser.parse_args()
    job = Job.read(wanted.job)
    torch.manual_seed(job.seed)
    rng = np.random.default_rng(job.seed)
    clock = Clock(job.seconds)
    pairs = [(job.image(image), job.target(mask)) for _, image, mask in job.train]
    stacked = np.concatenate([image.reshape(job.channels, -1) for image, _ in pairs], axis=1)
    mean, std = (
        part[:, None, None].astype(np.float32) for part in (stacked.mean(axis=1), stacked.std(axis=1))
    )
    del stacked
    side = min(CROP, -(-max(max(mask.shape) for _, mask in pairs) // STRIDE) * STRIDE)
    pairs = [(padded((image - mean) / std, side), padded(mask[None], side)[0]) for image, mask in pairs]
    model = smp.Unet("resnet34", encoder_weights=None, in_channels=job.channels, classes=job.classes)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    entropy, dice = nn.CrossEntropyLoss(), smp.losses.DiceLoss("multiclass")
    order: list[int] = []
    model.train()
    for gone in clock.ticks():
        if wanted.cosine:
            optimiser.param_groups[0]["lr"] = 1e-5 + (2e-4 - 1e-5) * (1 + math.cos(math.pi * gone)) / 2
        if len(order) < BATCH:
            order += rng.permutation(len(pairs)).tolist()
        crops = [moved(*pairs[order.pop(0)], side, rng) for _ in range(BATCH)]
        image, target = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        logits = model(image)
        loss = entropy(logits, target.long()) + dice(logits, target.long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        for name, path, _ in job.val:
            image = (job.image(path) - mean) / std
            height, width = image.shape[1:]
            whole = padded(image, STRIDE, multiple=True)
            found = model(torch.from_numpy(whole[None]))[0, :, :height, :width]
            job.keep(name, found.argmax(0).numpy())
    job.finish(clock)


def padded(image: NDArray, side: int, *, multiple: bool = False) -> NDArray:
    """(C, H, W), mirrored below and to the right to `side` at least, or to its next multiple."""
    wanted = (-(-n // side) * side if multiple else max(n, side) for n in image.shape[1:])
    room = [(0, 0), *((0, new - n) for new, n in zip(wanted, image.shape[1:], strict=True))]
    return np.pad(image, room, mode="reflect")


def moved(image: NDArray, mask: NDArray, side: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """A random crop of both, mirrored at random."""
    top, left = (int(rng.integers(n - side + 1)) for n in mask.shape)
    rows, columns = (rng.choice([1, -1], 2)).tolist()
    image = image[:, top : top + side, left : left + side][:, ::rows, ::columns]
    mask = mask[top : top + side, left : left + side][::rows, ::columns]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


if __name__ == "__main__":
    main()
