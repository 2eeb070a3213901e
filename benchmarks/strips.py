"""Class map of a large image with a light U-Net (width 16): strips against exact tiles and MONAI's sliding window.

    uv run --group bench python benchmarks/strips.py                  4096², 20 classes in the memory run
    uv run --group bench python benchmarks/strips.py --size 1024      a first look

The same network, weights and memory format for all, one window or strip at a time, a uint8 class map at the end.
Peers that are not installed are left out. Memory is also taken at four times the height: strips need no more.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec

from common import (
    machine,
    noise,
    peak_mebibytes,
    rotate,
    row,
    save,
)  # before torch: it settles how threads wait

# isort: split
import numpy as np
import torch
from torch import nn

from skipway.models import unet
from skipway.predict import predict_array
from tiled_prediction import blended, image, network

MONAI = "MONAI, constant, overlap .25"
PEERS = (*([MONAI] if find_spec("monai") else []), "skipway, exact tiles", "skipway, strips")


def classes(name: str, model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """The class map, uint8 (H, W)."""
    if name == MONAI:
        return blended(model, pixels, "constant", 0.25).argmax(1)[0].to(torch.uint8).numpy()
    if name == "skipway, strips":
        return predict_array(model, pixels, engine="strips").labels
    return predict_array(model, pixels, tile=512).labels


def prepare(name: str, height: int, width: int, many: int) -> Callable[[], object]:
    """The call whose memory is measured, warmed on a small image, for `many` classes. Runs in a child."""
    torch.manual_seed(0)
    model = unet(1, many, width=16).eval().to(memory_format=torch.channels_last)
    pixels = np.zeros((1, height, width), np.float32)
    classes(name, model, pixels[:, :600, :600].copy())
    return lambda: classes(name, model, pixels)


def main() -> None:
    """Time, memory at one and four heights, redundancy and exactness of all peers."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--size", type=int, default=4096, help="side of the image, in pixels")
    options.add_argument("--exact-size", type=int, default=1536, help="side of the image for one pass, × 16")
    options.add_argument("--classes", type=int, default=20, help="classes in the measure of memory")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    model, pixels, small = network(), image(asked.size), image(asked.exact_size)
    with torch.inference_mode():
        whole = model(torch.from_numpy(small)[None])[-1][0].argmax(0).to(torch.uint8).numpy()
    changed = {name: int((classes(name, model, small) != whole).sum()) for name in PEERS}  # warms up, too
    timings = rotate(
        {name: lambda name=name: classes(name, model, pixels) for name in PEERS},
        rounds=asked.rounds,
        warmup=0,
        cap=600,
    )
    side, rows = asked.size, []
    for name in PEERS:
        memory = {
            f"peak_mib_{times}": peak_mebibytes(prepare, name, times * side, side, asked.classes, warmup=0)
            for times in (1, 4)
        }
        rows.append(row(name, timings[name], timings[PEERS[0]], changed_labels=changed[name], **memory))
    packages = ("torch", "numpy", *(["monai"] if find_spec("monai") else []))
    save(
        "strips",
        rows,
        size=asked.size,
        exact_size=asked.exact_size,
        classes=asked.classes,
        noise=noise(timings),
        machine=machine(*packages),
    )


if __name__ == "__main__":
    main()
