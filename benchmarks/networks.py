"""Forward pass and training step of `unet`, `unet_plus_plus` and `unet_3_plus` against peers of equal width.

    uv run --group bench python benchmarks/networks.py [--side 256 --networks "UNet++" --measured prediction]

Eager float32, one thread, width 32, depth 5, one image. The networks "by hand" are ours wired as anyone would
write them, those of the parity tests among them: the ratio to them is the price of describing a network as a graph.
MONAI's classes get the widths, the norm and the activation of ours. "forward" is a plain call, ours also by
`model.frugal`; "prediction" is what `predict` runs, which is frugal, with all peers in channels-last as it is, and
ours also packed. Rows of what is not asked for stay in the results.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common  # before torch: it settles how threads wait

# isort: split
import torch
from torch import Tensor, nn

from series import keep, origin, replaced, rows_of
from skipway.models import unet, unet_3_plus, unet_plus_plus
from skipway.nn.graph import SkipGraph
from skipway.nn.operations import count_parameters
from skipway.nn.packing import packed

sys.path.append(str(Path(__file__).parents[1] / "tests" / "parity"))
import twins

WIDTHS = (32, 64, 128, 256, 512)
CHANNELS = {"U-Net": 1, "UNet++": 1, "UNet 3+": 3}
OURS, FRUGAL, BY_HAND = "skipway", "skipway, frugal", "by hand"
PACKED = "skipway, packed"
KINDS = ("forward", "prediction", "training step")
WAYS = {"forward": (FRUGAL,), "prediction": (PACKED,)}
"""Other ways of running ours."""
KEYS = ("network", "measured", "side", "peer")
FIGURES = common.RESULTS / "networks.json"


class PlainUNet(nn.Module):
    """The U-Net as tutorials write it: two convolutions a level, batch norm, transposed up-sampling."""

    def __init__(self) -> None:
        super().__init__()
        narrow = (1, *WIDTHS[:-1])
        self.down = nn.ModuleList(map(_pair, narrow, WIDTHS))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in WIDTHS[:-1])
        self.merge = nn.ModuleList(_pair(2 * w, w) for w in WIDTHS[:-1])
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of images (B, 1, H, W) with sides that 16 divides."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([skips.pop(), self.up[level](x)], 1))
        return self.head(x)


def _pair(inputs: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def makers(family: str) -> dict[str, Callable[[], nn.Module]]:
    """Builds ours, the same by hand, and MONAI's where it has one."""
    if family == "U-Net":
        return {
            OURS: lambda: unet(1, 1, width=WIDTHS[0]),
            BY_HAND: PlainUNet,
            "MONAI BasicUNet": lambda: monai("BasicUNet", norm="batch"),
        }
    if family == "UNet++":
        return {
            OURS: lambda: unet_plus_plus(1, 1, width=WIDTHS[0], dropout=0.0, supervised=True),
            BY_HAND: lambda: twins.UNetPlusPlus(WIDTHS[0]),
            "MONAI BasicUNetPlusPlus": lambda: monai("BasicUNetPlusPlus", norm=None, deep_supervision=True),
        }
    return {
        OURS: lambda: unet_3_plus(3, 1, width=WIDTHS[0], supervised=True),
        BY_HAND: lambda: twins.UNet3Plus(WIDTHS[0]),
    }


def monai(name: str, **options: Any) -> nn.Module:
    from monai.networks import nets  # here, so that the memory of the others is measured without it

    relu = ("relu", {"inplace": True})
    made: nn.Module = getattr(nets, name)(2, 1, 1, (*WIDTHS, WIDTHS[0]), act=relu, **options)
    return made


def forward(run: Callable[[Tensor], object], model: nn.Module, image: Tensor) -> Callable[[], object]:
    def call() -> object:
        model.eval()
        with torch.inference_mode():
            return run(image)

    return call


def training_step(model: nn.Module, image: Tensor) -> Callable[[], object]:
    """Cross-entropy of every output, backward, SGD."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.99)
    target = (image[:, :1] > 0).float()

    def call() -> Tensor:
        found = model.train()(image)
        outputs = [found] if isinstance(found, Tensor) else found
        losses = [nn.functional.binary_cross_entropy_with_logits(one, target) for one in outputs]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return call


def peers(family: str, kind: str) -> list[str]:
    """What is compared, by name."""
    return [*makers(family), *WAYS.get(kind, ())]


def prepare(family: str, kind: str, side: int, name: str) -> Callable[[], object]:
    """The call to measure, by the name of the peer."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    image = torch.randn(1, CHANNELS[family], side, side)
    model = makers(family)[network_of(name)]()
    if kind == "training step":
        return training_step(model, image)
    if name == PACKED:
        model = packed(model.eval())
    if kind == "prediction" and name != PACKED:
        image = image.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    frugal = kind == "prediction" or name == FRUGAL
    return forward(model.frugal if frugal and isinstance(model, SkipGraph) else model, model, image)


def network_of(name: str) -> str:
    return OURS if name in (FRUGAL, PACKED) else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="+", choices=CHANNELS, default=list(CHANNELS))
    parser.add_argument("--measured", nargs="+", choices=KINDS, default=list(KINDS))
    wanted = parser.parse_args()
    rows = rows_of(FIGURES)
    for family, kind in itertools.product(wanted.networks, wanted.measured):
        names = peers(family, kind)
        calls = {name: prepare(family, kind, wanted.side, name) for name in names}
        timings = common.rotate(calls, rounds=wanted.rounds)
        del calls
        for name in names:
            model = makers(family)[network_of(name)]()
            facts = {"network": family, "measured": kind, "side": wanted.side}
            facts |= {"parameters": count_parameters(model), "again": common.noise(timings)}
            peak = common.peak_mebibytes(prepare, family, kind, wanted.side, name)
            row = common.row(name, timings[name], timings[BY_HAND], **facts, peak_mib=peak)
            print(row, flush=True)
            rows = replaced(rows, {**row, "machine": origin("torch", "monai")}, KEYS)
        keep(FIGURES, rows)


if __name__ == "__main__":
    main()
