"""Forward pass and training step of `unet` at 512² against MONAI BasicUNet and a plain U-Net.

    uv run --group bench python benchmarks/networks.py

Eager float32; all three have widths 32 to 512, one input channel, two classes, batch 1. `PlainUNet` below
is the same network as ours, wired by hand, so the ratio to it is the price of describing the network as a
graph.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

import common
from skipway.models import unet

WIDTHS = (32, 64, 128, 256, 512)


class PlainUNet(nn.Module):
    """The U-Net as tutorials write it: two convolutions a level, batch norm, transposed up-sampling."""

    def __init__(self) -> None:
        super().__init__()
        narrow = (1, *WIDTHS[:-1])
        self.down = nn.ModuleList(map(_pair, narrow, WIDTHS))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in WIDTHS[:-1])
        self.merge = nn.ModuleList(_pair(2 * w, w) for w in WIDTHS[:-1])
        self.head = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 2, H, W) of images (B, 1, H, W) with sides that 16 divides."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([skips.pop(), self.up[level](x)], 1))
        return self.head(x)


def _pair(inputs: int, width: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, width):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def models() -> dict[str, nn.Module]:
    from monai.networks.nets import BasicUNet

    torch.manual_seed(0)
    return {
        "skipway unet": unet(1, 2, width=WIDTHS[0], depth=len(WIDTHS)),
        "plain U-Net by hand": PlainUNet(),
        "MONAI BasicUNet": BasicUNet(2, 1, 2, features=(*WIDTHS, WIDTHS[0])),
    }


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    out = model(image)
    return out[-1] if isinstance(out, tuple) else out


def forward(model: nn.Module, image: Tensor) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.inference_mode():
            return _logits(model.eval(), image)

    return call


def training_step(model: nn.Module, image: Tensor) -> Callable[[], object]:
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.99)
    target = (image[:, 0] > 0).long()

    def call() -> Tensor:
        loss = nn.functional.cross_entropy(_logits(model.train(), image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return call


PASSES = {"forward": forward, "training step": training_step}


def prepare(name: str, kind: str, side: int) -> Callable[[], object]:
    """The call of one model, for the memory measurement in a child."""
    return PASSES[kind](models()[name], torch.randn(1, 1, side, side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    image = torch.randn(1, 1, wanted.side, wanted.side, generator=torch.Generator().manual_seed(0))
    nets, rows, noise = models(), [], {}
    for kind, make in PASSES.items():
        calls = {name: make(model, image) for name, model in nets.items()}
        timings = common.rotate(calls, rounds=wanted.rounds)
        noise[kind] = common.noise(timings)
        for name, model in nets.items():
            count = sum(p.numel() for p in model.parameters())
            peak = common.peak_mebibytes(prepare, name, kind, wanted.side)
            base = timings["MONAI BasicUNet"]
            rows.append(common.row(name, timings[name], base, measured=kind, parameters=count, peak_mib=peak))
    facts = common.machine("torch", "monai") | {"threads": torch.get_num_threads()}
    common.save("networks", rows, side=wanted.side, a_over_a=noise, machine=facts)


if __name__ == "__main__":
    main()
