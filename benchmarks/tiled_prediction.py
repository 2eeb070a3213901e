"""Class map of a large image with a light U-Net (width 16): exact tiles against MONAI's sliding window.

    uv run --group bench python benchmarks/tiled_prediction.py                  4096², about 15 minutes
    uv run --group bench python benchmarks/tiled_prediction.py --size 1024      a first look

All peers run the same network with the same weights in the same memory format, one window at a time, and end
in a uint8 class map. MONAI blends overlapping windows, by a constant or a Gaussian weight, at its own default
overlap (.25) and at the one nnU-Net made common (.5). Pixels are counted where the network sees them, the
window that certifies a prediction included. Exactness is measured at a size that fits one pass.
"""

import argparse
from collections.abc import Callable

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
from torch import Tensor, nn

from skipway.models import unet
from skipway.predict import predict_array

WINDOW = 512
BASE = "MONAI, constant, overlap .25"
OURS = "skipway, exact tiles"
PEERS = {BASE: ("constant", 0.25), "MONAI, gaussian, overlap .5": ("gaussian", 0.5), OURS: None}


def network() -> nn.Module:
    """A light U-Net whose batch norms have seen data and whose biases are not zero."""
    torch.manual_seed(0)
    model = unet(1, 2, width=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        for _ in range(4):
            model.train()(torch.randn(1, 1, 256, 256))
    return model.eval().to(memory_format=torch.channels_last)


def image(size: int) -> np.ndarray:
    """Noise and waves, shape (1, size, size)."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / 40
    waves = (
        np.sin(x) + np.cos(1.3 * y) + np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    )
    return waves[None].astype(np.float32)


def probabilities(name: str, model: nn.Module, pixels: np.ndarray) -> Tensor:
    """What a peer says about every pixel, (2, H, W), for the comparison with one pass."""
    if (setting := PEERS[name]) is not None:
        return torch.softmax(blended(model, pixels, *setting), 1)[0]
    volume = np.empty((2, *pixels.shape[1:]), np.float32)

    def keep(region: tuple[slice, ...], values: np.ndarray) -> None:
        volume[:, *region] = values

    predict_array(model, pixels, tile=WINDOW, on_probabilities=keep)
    return torch.from_numpy(volume)


def blended(model: nn.Module, pixels: np.ndarray, mode: str, overlap: float) -> Tensor:
    """Logits of MONAI's sliding window, (1, 2, H, W)."""
    from monai.inferers import sliding_window_inference

    x = torch.from_numpy(pixels)[None]
    with torch.inference_mode():
        return sliding_window_inference(
            x, (WINDOW, WINDOW), 1, lambda window: model(window)[-1], overlap=overlap, mode=mode
        )


def classes(name: str, model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """The class map, uint8 (H, W)."""
    if (setting := PEERS[name]) is not None:
        return blended(model, pixels, *setting).argmax(1)[0].to(torch.uint8).numpy()
    return predict_array(model, pixels, tile=WINDOW).labels


def prepare(name: str, size: int) -> Callable[[], object]:
    """The call whose memory is measured, its imports and caches warmed on a small image. Runs in a child."""
    model, pixels = network(), image(size)
    classes(name, model, pixels[:, :600, :600].copy())
    return lambda: classes(name, model, pixels)


def count_pixels(name: str, model: nn.Module, pixels: np.ndarray) -> float:
    """Pixels the network is asked for over pixels of the image."""
    seen: list[int] = []
    counting = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    classes(name, model, pixels)
    counting.remove()
    return sum(seen) / pixels[0].size


def differences(name: str, model: nn.Module, pixels: np.ndarray) -> dict[str, object]:
    """Largest difference of probabilities and number of other labels, against one pass over the image."""
    with torch.inference_mode():
        whole = torch.softmax(model(torch.from_numpy(pixels)[None])[-1], 1)[0]
    found = probabilities(name, model, pixels)
    return {
        "max_difference": float((found - whole).abs().max()),
        "changed_labels": int((found.argmax(0) != whole.argmax(0)).sum()),
    }


def main() -> None:
    """Time, memory, redundancy and exactness of all peers."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--size", type=int, default=4096, help="side of the image, in pixels")
    options.add_argument("--exact-size", type=int, default=1536, help="side of the image for one pass, × 16")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    model, pixels, small = network(), image(asked.size), image(asked.exact_size)
    facts = {name: differences(name, model, small) for name in PEERS}
    counts = {name: count_pixels(name, model, pixels) for name in PEERS}  # also the warm-up of the clock
    timings = rotate(
        {name: lambda name=name: classes(name, model, pixels) for name in PEERS},
        rounds=asked.rounds,
        warmup=0,
        cap=600,
    )
    rows = []
    for name, timing in timings.items():
        if name in PEERS:
            memory = peak_mebibytes(prepare, name, asked.size, warmup=0)
            rows.append(
                row(name, timing, timings[BASE], pixels_ratio=counts[name], peak_mib=memory, **facts[name])
            )
    save(
        "tiled_prediction",
        rows,
        size=asked.size,
        exact_size=asked.exact_size,
        window=WINDOW,
        noise=noise(timings),
        machine=machine("torch", "monai", "numpy"),
    )


if __name__ == "__main__":
    main()
