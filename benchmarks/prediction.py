"""Class map of large images with a light U-Net (width 16): strips and tiles of skipway, MONAI and nnU-Net.

    uv run --group bench --with nnunetv2 python benchmarks/prediction.py                    4096², 8192², 256³
    uv run --group bench python benchmarks/prediction.py --cases "1024², 2 classes"         a first look

All run the same network with the same weights, one window or strip at a time, and end in a uint8 class map. MONAI's
fastest setting is the base: constant weight, overlap .25; nnU-Net's predictor goes in half steps without mirroring.
In bf16 the peers' network runs under autocast. Each case is a process of its own, and each measure of memory too. How
many labels differ from the whole-image answer is counted at a size that fits one pass. A row that is in the results
is not measured again; `--kept-heap` measures all of it with the heap switch of `skipway predict --keep-heap`.
*Convolutions alone* is what their arithmetic takes, every pixel once, at the rate of the best convolution of this
machine: no way of running this network, exact or not, is below it in that precision.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import common  # before torch: it settles how threads wait

# isort: split
import numpy as np
import torch
from torch import Tensor, nn

from series import Row, fill, found, keep, machines, origin, page_of, replaced, rows_of, table
from skipway import devices
from skipway.models import build
from skipway.nn.packing import packed
from skipway.predict import predict_array

KEYS = ("case", "peer", "heap")


class Case(NamedTuple):
    """An image of so many pixels a side, axes and classes; the side at which one pass is possible; rounds."""

    side: int
    ndim: int
    classes: int
    exact: int
    rounds: int


CASES = {
    "1024², 2 classes": Case(1024, 2, 2, 768, 2),
    "4096², 2 classes": Case(4096, 2, 2, 1536, 3),
    "8192², 2 classes": Case(8192, 2, 2, 1536, 1),
    "4096², 20 classes": Case(4096, 2, 20, 1536, 1),
    "8192², 20 classes": Case(8192, 2, 20, 1536, 1),
    "256³, 2 classes": Case(256, 3, 2, 160, 1),
}
USUAL = tuple(list(CASES)[1:])
WINDOW = {2: 512, 3: 96}
BASE, BASE16 = "MONAI, constant .25", "MONAI, constant .25, bf16"
GAUSS, HALF = "MONAI, gaussian .5", "nnU-Net, half steps"
TILES, STRIPS, PACKED, PACKED16 = (
    "skipway, tiles",
    "skipway, strips",
    "skipway, packed strips",
    "skipway, packed strips, bf16",
)
PEERS = (BASE, BASE16, GAUSS, HALF, TILES, STRIPS, PACKED, PACKED16)
GOALS = {PACKED: (0.40, 0.20), PACKED16: (0.20, 0.10)}
"""Shares of the CPU time of `BASE` and of `HALF` to stay below."""

OPENING = """
# Prediction of large images

CPU time, memory and exactness of the same network with the same weights. Figures are kept in
`benchmarks/results/prediction.json` by

    uv run --group bench --with nnunetv2 python benchmarks/prediction.py
"""


def network(case: Case) -> nn.Module:
    """A light U-Net whose batch norms have seen data and whose biases are not zero."""
    torch.manual_seed(0)
    model = build("unet", in_channels=1, classes=case.classes, width=16, ndim=case.ndim, depth=7 - case.ndim)
    norm = nn.BatchNorm2d if case.ndim == 2 else nn.BatchNorm3d
    for module in model.modules():
        if isinstance(module, norm):
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        for _ in range(4):
            model.train()(torch.randn(2, 1, *(64,) * case.ndim))
    model.eval()
    return model.to(memory_format=torch.channels_last) if case.ndim == 2 else model


def image(side: int, ndim: int) -> np.ndarray:
    """Noise and waves, shape (1, side, …)."""
    found = np.random.default_rng(0).standard_normal((side,) * ndim, dtype=np.float32)
    for axis in range(ndim):
        wave = np.sin(np.arange(side, dtype=np.float32) / (30 + 10 * axis))
        found += wave.reshape([-1 if a == axis else 1 for a in range(ndim)])
    return found[None]


def caller(peer: str, case: Case) -> Callable[[np.ndarray], np.ndarray]:
    """From pixels (1, *S) to the class map of a peer."""
    model = network(case)
    if peer in (BASE, BASE16, GAUSS):
        return lambda pixels: monai(model, pixels, peer, case)
    if peer == HALF:
        predictor = nnunet(model, case)
        return lambda pixels: classes(predictor(pixels))
    if peer in (PACKED, PACKED16):
        model = packed(model, torch.bfloat16 if peer == PACKED16 else torch.float32)
    engine = "tiles" if peer == TILES else "strips"
    return lambda pixels: predict_array(model, pixels, engine=engine).labels


def monai(model: nn.Module, pixels: np.ndarray, peer: str, case: Case) -> np.ndarray:
    """MONAI's sliding window."""
    from monai.inferers import sliding_window_inference

    mode, overlap = ("gaussian", 0.5) if peer == GAUSS else ("constant", 0.25)
    window = (WINDOW[case.ndim],) * case.ndim
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=peer == BASE16):
        x = torch.from_numpy(pixels)[None]
        return classes(
            sliding_window_inference(
                x, window, 1, lambda w: model(w)[-1].float(), overlap=overlap, mode=mode
            )[0]
        )


def nnunet(model: nn.Module, case: Case) -> Callable[[np.ndarray], Tensor]:
    """nnU-Net's own predictor around the network: Gaussian weights, half steps, no mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)[-1]

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=False, perform_everything_on_device=False,
        device=torch.device("cpu"), verbose=False, allow_tqdm=False,
    )  # fmt: skip
    predictor.network = Last().eval()
    predictor.configuration_manager = SimpleNamespace(patch_size=[WINDOW[case.ndim]] * case.ndim)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=case.classes)
    predictor.allowed_mirroring_axes = None

    def run(pixels: np.ndarray) -> Tensor:
        volume = torch.from_numpy(pixels if case.ndim == 3 else pixels[:, None])
        logits = predictor.predict_sliding_window_return_logits(volume)
        return logits if case.ndim == 3 else logits[:, 0]

    return run


def classes(logits: Tensor) -> np.ndarray:
    """The class map as peers make it, uint8."""
    return logits.argmax(0).to(torch.uint8).numpy()


def whole(case: Case) -> np.ndarray:
    """What one pass over the smaller image says, fp32."""
    with torch.inference_mode():
        return classes(network(case)(torch.from_numpy(image(case.exact, case.ndim))[None])[-1][0])


def convolutions(case: Case, dtype: torch.dtype) -> float:
    """CPU seconds of the network's convolutions over the image, at the best rate that one is found to have here."""
    from torch.utils.flop_counter import FlopCounterMode

    model, side = network(case), 2 * WINDOW[case.ndim] // 3 // 32 * 32
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        model(torch.zeros(1, 1, *(side,) * case.ndim))
    work = counted.get_total_flops() * (case.side / side) ** case.ndim
    return work / max(rate(case.ndim, channels, dtype) for channels in (16, 64, 128, 256))


def rate(ndim: int, channels: int, dtype: torch.dtype) -> float:
    """Operations a second of one 3 × 3 (× 3) convolution whose maps fit the cache."""
    conv = (nn.Conv2d, nn.Conv3d)[ndim - 2](channels, channels, 3, padding=1).to(dtype)
    layout = (torch.channels_last, torch.channels_last_3d)[ndim - 2]
    side = int((2**19 / channels) ** (1 / ndim))
    x = torch.zeros(1, channels, *(side,) * ndim, dtype=dtype).contiguous(memory_format=layout)
    conv = conv.to(memory_format=layout)
    with torch.inference_mode():
        timings = common.rotate({"conv": lambda: conv(x)}, rounds=9, warmup=2)
    return 2 * 3**ndim * channels**2 * side**ndim / timings["conv"].cpu


def timed(name: str, peers: tuple[str, ...], heap: bool) -> list[dict[str, Any]]:
    """CPU seconds and labels that differ, all peers of a case in rotation. Runs in a child."""
    if heap:
        devices.keep_heap()
    case = CASES[name]
    calls, small, answer = (
        {peer: caller(peer, case) for peer in peers},
        image(case.exact, case.ndim),
        whole(case),
    )
    changed = {peer: int((call(small) != answer).sum()) for peer, call in calls.items()}  # warms up, too
    pixels = image(case.side, case.ndim)
    run = {peer: lambda call=call: call(pixels) for peer, call in calls.items()}
    timings = common.rotate(run, rounds=case.rounds, warmup=0, cap=900)
    alone = {
        peer: convolutions(case, torch.bfloat16 if peer in (BASE16, PACKED16) else torch.float32)
        for peer in peers
    }
    return [
        {
            "peer": peer,
            "cpu": timings[peer].cpu,
            "spread": timings[peer].spread,
            "noise": common.noise(timings),
            "alone": alone[peer],
            "differ": changed[peer],
            "of": answer.size,
        }
        for peer in peers
    ]


def prepare(name: str, peer: str) -> Callable[[], object]:
    """The call whose memory is measured, its imports and caches warmed on a small image. Runs in a child."""
    case = CASES[name]
    call, pixels = caller(peer, case), image(case.side, case.ndim)
    call(image(WINDOW[case.ndim] + 32, case.ndim))
    return lambda: call(pixels)


def measured(name: str, peers: tuple[str, ...], heap: bool) -> Iterable[dict[str, Any]]:
    """The rows of a case."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows = pool.apply(timed, (name, peers, heap))
    for row in rows:
        memory = None if heap else common.peak_mebibytes(prepare, name, row["peer"], warmup=0)
        yield {"case": name, "heap": heap, **row, "peak": memory}


def main() -> None:
    wanted = arguments()
    figures = wanted.results / "prediction.json"
    rows: list[Row] = rows_of(figures)
    there = tuple(p for p in wanted.peers if p != HALF or find_spec("nnunetv2"))
    for name in () if wanted.report else wanted.cases:
        peers = tuple(p for p in there if not found(rows, case=name, peer=p, heap=wanted.kept_heap))
        if not peers:
            continue
        base = () if BASE in peers else (BASE,)  # ratios are of one run
        for row in measured(name, (*base, *peers), wanted.kept_heap):
            print(json.dumps(row, ensure_ascii=False), flush=True)
            rows = replaced(rows, {**row, "machine": origin("skipway", "torch", "monai")}, KEYS)
            keep(figures, rows)
    if not rows:
        raise SystemExit(f"{figures} holds no figures yet")
    fill(page_of(wanted.results, "prediction"), "prediction", report(rows), OPENING)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(USUAL))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--kept-heap", action="store_true", help="freed memory stays in the process")
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder for figures")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page")
    return parser.parse_args()


def report(rows: Iterable[Row]) -> str:
    """The written part of the page."""
    rows = list(rows)
    parts = [
        f"{machines(rows)} One window or strip at a time. *again* is the base against itself, the noise."
    ]
    for name in CASES:
        for heap in (False, True):
            if here := found(rows, case=name, heap=heap):
                parts += [f"## {name}" + (", kept heap" if heap else ""), section(here)]
    return "\n\n".join(parts)


def section(rows: list[Row]) -> str:
    """One case: a table, and whether the goals are met."""
    cpu = {row["peer"]: row["cpu"] for row in rows}
    cells = [
        [
            row["peer"],
            f"{row['cpu']:.1f}",
            f"{row['cpu'] / cpu[BASE]:.2f}",
            f"{row['cpu'] / cpu[HALF]:.2f}" if HALF in cpu else "",
            "" if row["peak"] is None else f"{row['peak']:.0f}",
            f"{row['differ']:,} of {row['of']:,}",
        ]
        for row in sorted(rows, key=lambda row: PEERS.index(row["peer"]))
    ]
    columns = ["", "CPU s", "of MONAI .25", "of nnU-Net", "peak MiB", "labels that differ from one pass"]
    parts = [f"Again {rows[0]['noise']:.2f}.", *goals(cpu), *limits(rows, cpu)]
    return f"{table(columns, cells)}\n\n{' '.join(parts)}"


def limits(rows: list[Row], cpu: dict[str, float]) -> Iterable[str]:
    """How near the arithmetic the packed strips are."""
    for row in rows:
        if row["peer"] in GOALS and "alone" in row:
            alone, kind = row["alone"], "bf16" if row["peer"] == PACKED16 else "fp32"
            share = f"{alone / cpu[BASE]:.2f} of {BASE}"
            yield f"The convolutions alone take {alone:.1f} s in {kind}, {share}."


def goals(cpu: dict[str, float]) -> Iterable[str]:
    """Each goal and what was found.

    >>> list(goals({BASE: 10.0, PACKED: 3.0}))
    ['skipway, packed strips: 0.30 of MONAI, constant .25 (goal 0.4: met).']
    """
    for peer, shares in GOALS.items():
        for base, share in zip((BASE, HALF), shares, strict=True):
            if peer in cpu and base in cpu:
                ratio = cpu[peer] / cpu[base]
                met = "met" if ratio <= share else "missed"
                yield f"{peer}: {ratio:.2f} of {base} (goal {share:g}: {met})."


if __name__ == "__main__":
    main()
