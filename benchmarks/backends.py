"""Forward pass of the U-Net of 31 M parameters on a CPU: torch as it comes, packed, ONNX Runtime, OpenVINO.

    uv run --group bench python benchmarks/backends.py
    uv run --group bench python benchmarks/backends.py --keep-heap

CPU seconds, one image of 512², one thread unless `--threads` says otherwise. "eager" is what anyone gets who calls
the network; "torch" is what `skipway predict` runs without options: channels-last, nodes in bands. Weights are drawn,
so labels that differ say how the arithmetic differs, not what a trained network loses. Goals are ratios to eager, or
to OpenVINO of the same precision.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import common  # before torch: it settles how threads wait

# isort: split
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from skipway.devices import fast_bf16, keep_heap
from skipway.models import unet
from skipway.nn.graph import SkipGraph
from skipway.nn.layout import for_prediction
from skipway.nn.operations import count_parameters
from skipway.predict.backends import BACKENDS, built
from skipway.predict.parity import compared

EAGER = "eager, fp32"
GOALS = {
    "packed, fp32": {EAGER: 0.60, "openvino, fp32": 1.10},
    "packed, bf16": {EAGER: 0.28, "openvino, bf16": 1.10},
    "openvino, int8": {EAGER: 0.15},
}
"""Peer -> by which share of another's time it is to stay below."""


def network(width: int, depth: int) -> SkipGraph:
    """The U-Net with norms that have seen something, so that no map is dead and none explodes."""
    torch.manual_seed(0)
    model = unet(1, 2, width=width, depth=depth).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.cat(images(2, 16 * 2**depth)))
    return model.eval()


def images(count: int, side: int) -> list[Tensor]:
    """Smooth noise with grain, mean 0, spread 1."""
    found = []
    for seed in range(count):
        drawn = torch.randn(2, side, side, generator=torch.Generator().manual_seed(seed)).numpy()
        image = torch.from_numpy(8 * gaussian_filter(drawn[0], 4) + 0.3 * drawn[1])[None, None]
        found.append((image - image.mean()) / image.std())
    return found


def peers(model: SkipGraph, tiles: list[Tensor]) -> dict[str, nn.Module]:
    """Every backend in every precision that runs here, by name; the network itself first."""
    found: dict[str, nn.Module] = {EAGER: model}
    for name, backend in BACKENDS.items():
        for precision in backend.precisions if backend.installed else ():
            if precision != "bf16" or fast_bf16(torch.device("cpu")):
                source = for_prediction(network_copy(model), 2) if name == "torch" else model
                found[f"{name}, {precision}"] = built(source, name, precision, tiles)
    return found


def network_copy(model: SkipGraph) -> SkipGraph:
    """A network with the same weights and a memory of its own."""
    twin = unet(1, 2, width=model.encoder.widths[0], depth=len(model.encoder.widths))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def forward(name: str, model: nn.Module, image: Tensor) -> Callable[[], object]:
    """The call to measure, with the image in the type that the peer computes in."""
    run = model if name == EAGER else getattr(model, "frugal", model)
    image = image.to(next(model.parameters()).dtype)

    def call() -> object:
        with torch.inference_mode():
            return run(image)

    return call


def goals(timings: Mapping[str, common.Timing]) -> list[dict[str, Any]]:
    """What was aimed at, what came, and whether it was reached; goals of peers that ran."""
    found = []
    for name, aims in GOALS.items():
        for other, aim in aims.items():
            if name in timings and other in timings:
                share = timings[name].cpu / timings[other].cpu
                found.append(
                    {"goal": f"{name} over {other}", "aim": aim, "found": share, "reached": share <= aim}
                )
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep-heap", action="store_true", help="as `skipway predict --keep-heap`")
    wanted = parser.parse_args(words)
    torch.set_num_threads(wanted.threads)
    if wanted.keep_heap:
        keep_heap()
    model, tiles = network(wanted.width, wanted.depth), images(5, wanted.side)
    models = peers(model, tiles[:4])
    calls = {name: forward(name, made, tiles[4]) for name, made in models.items()}
    timings = common.rotate(calls, rounds=wanted.rounds)
    rows = [
        common.row(
            name,
            timings[name],
            timings[EAGER],
            share_of_eager=timings[name].cpu / timings[EAGER].cpu,
            labels_that_differ=compared(made, model, tiles[4:]).changed,
        )
        for name, made in models.items()
    ]
    packages = [name for name in ("onnxruntime", "openvino") if BACKENDS[name].installed]
    facts = {
        "parameters": count_parameters(model),
        "side": wanted.side,
        "kept_heap": wanted.keep_heap,
        "a_over_a": common.noise(timings),
        "goals": goals(timings),
        "machine": common.machine("torch", *packages) | {"threads": wanted.threads},
    }
    common.save("backends-kept-heap" if wanted.keep_heap else "backends", rows, **facts)
    for goal in facts["goals"]:
        print(f"{goal['goal']}: {goal['found']:.3f}, goal {goal['aim']:.2f}")


if __name__ == "__main__":
    main()
