"""The U-Net family on equal terms: same steps, batches, patches, loss, schedule and seeds; only the network differs.

    SKIPWAY_DATA=… uv run python benchmarks/family.py --out OUT               half an hour of CPU time
    SKIPWAY_DATA=… uv run python benchmarks/family.py --out OUT --quick       does it run?
    SKIPWAY_DATA=… uv run python benchmarks/family.py --out OUT --published   width 32, for a GPU

Every network gets one sigmoid channel, batch norm and no dropout, so that the skips are all that is compared.
The plan and the loop are those of `skipway train`, the predictions those of `skipway predict`; no test image is
looked at before the end. A run that is in the results is not repeated, one that was stopped goes on. Figures go
to `benchmarks/results/family.json`, tables to `docs/results/family.md`; with `--quick` both stay in OUT.
"""

import argparse
import csv
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import common  # before torch: it settles how threads wait

# isort: split
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from skipway.data.check import Checked
from skipway.devices import resolve_device
from skipway.images import open_image, open_mask, write_labels
from skipway.metrics.baseline import otsu_mask, otsu_polarity
from skipway.metrics.pixel import confusion, mean_defined, scores
from skipway.models import build
from skipway.nn.operations import count_macs, count_parameters, peak_bytes
from skipway.predict.predictor import Predictor
from skipway.predict.stream import evaluating
from skipway.request import Request
from skipway.runs import Run
from skipway.training.order import Order
from skipway.training.prepare import check_data, prepare
from skipway.training.session import run_training

SETS = {"dsb2018": "nuclei", "isbi2012-em": "cell interior"}
"""Data sets and their class 1."""

NETS = {
    "U-Net": ("unet", None),
    "wide U-Net": ("unet", None),
    "U-Net^e": ("unet_e", None),
    "UNet+": ("unet_plus", False),
    "UNet++": ("unet_plus_plus", False),
    "UNet++, supervised": ("unet_plus_plus", True),
    "UNet 3+": ("unet_3_plus", False),
}
"""Builder, and whether it has an output at every column (U-Net^e always does)."""

REFERENCE, PRUNABLE = "U-Net", "UNet++, supervised"
SIDE = 256
"""Side of the image that costs are given for."""


@dataclass(frozen=True)
class Setting:
    """What all networks share."""

    width: int
    steps: int
    batch: int
    patch: int = 96
    depth: int = 5


SETTINGS = {
    "family": Setting(width=8, steps=200, batch=4),
    "family_quick": Setting(width=2, steps=2, batch=2),
    "family_published": Setting(width=32, steps=6000, batch=16),
}

PAGE = Path(__file__).parents[1] / "docs" / "results" / "family.md"
MARK = "<!-- figures: written by benchmarks/family.py -->"

Ious = list[list[float | None]]
"""For each test image in the order of names, the IoU of class 0 and of class 1."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="small maps: a second costs more than it does")
    parser.add_argument("--report", action="store_true", help="train nothing, report what is there")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const="family_quick", dest="name")
    size.add_argument("--published", action="store_const", const="family_published", dest="name")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    name = wanted.name or "family"
    setting = SETTINGS[name]
    results = (wanted.out if wanted.name == "family_quick" else common.RESULTS) / f"{name}.json"
    source = Path(os.environ["SKIPWAY_DATA"])
    data = {which: select(which, source / which, wanted.out / "data" / which) for which in SETS}
    checked = {which: check_data(order_of(folder, wanted.out, Request())) for which, folder in data.items()}
    found = results_of(results, setting)
    found["baselines"] = {which: baselines(folder) for which, folder in data.items()}
    # Seeds outermost: stopped early, all networks have the same ones.
    for seed in range(0 if wanted.report else wanted.seeds):
        for which, folder in data.items():
            for net in NETS:
                if not any((r["set"], r["net"], r["seed"]) == (which, net, seed) for r in found["runs"]):
                    place = wanted.out / name / which / net.replace(" ", "-") / str(seed)
                    found["runs"].append(train(net, seed, setting, which, folder, checked[which], place))
                    write(results, found)
    found |= {"costs": costs(setting), "machine": common.machine("skipway", "torch", "numpy", "scipy")}
    write(results, found)
    text = f"{origin(setting, found)}\n{tables(found)}\n"
    if name == "family":
        PAGE.write_text(PAGE.read_text().partition(MARK)[0] + f"{MARK}\n\n{text}")
    print(text)


def select(name: str, source: Path, target: Path) -> Path:
    """Links images and writes masks of two values into train/, watched/ and test/.

    `watched` is what the curve of a training shows. It is taken off the training images, and decides nothing.
    """
    if name == "dsb2018":  # the set's own split, of which the first two training images are watched
        with (source / "index.csv").open() as table:
            rows = [row for row in csv.DictReader(table) if row["kind"] == "fluorescence"]
        train, test = ([f"{r['id']}.png" for r in rows if r["split"] == part] for part in ("train", "val"))
        parts = {"train": train[2:], "watched": train[:2], "test": test}
    else:  # consecutive sections: a gap keeps the test from its neighbours
        parts = {"train": slices(0, 12), "watched": slices(13, 14), "test": slices(16, 20)}
    for part, files in parts.items():
        for file in files:
            image, label = target / part / "images" / file, target / part / "labels" / file
            if not label.exists():
                image.parent.mkdir(parents=True, exist_ok=True)
                label.parent.mkdir(parents=True, exist_ok=True)
                image.unlink(missing_ok=True)
                image.symlink_to((source / "images" / file).resolve())
                write_labels(label, np.where(mask_of(source / "labels" / file), np.uint8(255), np.uint8(0)))
    return target


def slices(start: int, stop: int) -> list[str]:
    return [f"{k:02d}.png" for k in range(start, stop)]


def mask_of(path: Path) -> NDArray[np.bool_]:
    with open_mask(path) as file:
        return file.read()[0] > 0


def width_of(net: str, setting: Setting) -> int:
    """35 channels for 32, as published; rounded up."""
    return -(-35 * setting.width // 32) if net == "wide U-Net" else setting.width


def order_of(data: Path, place: Path, request: Request) -> Order:
    """What trains on a set that `select` wrote."""
    parts = data / "train/images", data / "train/labels"
    return Order(*parts, place, request, task="classes", val=data / "watched")


def train(
    net: str, seed: int, setting: Setting, which: str, data: Path, checked: Checked, place: Path
) -> dict[str, Any]:
    """One training with its scores on the test images."""
    device = resolve_device(None)
    place.mkdir(parents=True, exist_ok=True)
    model, supervised = NETS[net]
    shared = {**asdict(setting), "width": width_of(net, setting)}
    request = Request(model=model, supervised=supervised, seed=seed, **shared)
    prepared = prepare(order_of(data, place, request), checked, device)
    one_channel = {**prepared.plan.config, "classes": 1}  # a sigmoid, whatever was published
    prepared = replace(prepared, plan=replace(prepared.plan, config=one_channel))
    before, began = time.process_time(), time.perf_counter()
    network = run_training(prepared, Run(place), device, lambda _: None, lambda: False)
    spent, wall = time.process_time() - before, time.perf_counter() - began
    predictor = Predictor(network, prepared.task, prepared.normalisation, device, net)
    row: dict[str, Any] = {
        "set": which,
        "net": net,
        "seed": seed,
        "train": len(prepared.split.train),
        "precision": prepared.plan.precision,
        "learning_rate": prepared.plan.learning_rate,
        "loss": prepared.plan.loss,
        "cpu_seconds": round(spent),
        "wall_seconds": round(wall),
        "load": round(os.getloadavg()[0], 1),
        "device": str(device),
        "torch": torch.__version__,
        "iou": tested(predictor.using(), data),
    }
    if net == PRUNABLE:
        columns = [node.column for node in network.topology.outputs]
        row["levels"] = {f"L{k}": tested(predictor.using(level=k), data) for k in columns[:-1]}
        row["levels"] |= {f"L{columns[-1]}": row["iou"], "mean": tested(predictor, data, outputs="mean")}
    (place / "state.safetensors").unlink(missing_ok=True)
    print(f"{which}, {net}, seed {seed}: IoU {mean_iou(row['iou']):.4f}, {spent:.0f} CPU s", flush=True)
    return row


def tested(predictor: Predictor, data: Path, **options: Any) -> Ious:
    """IoU of both classes on every test image."""

    def predict(path: Path) -> NDArray[Any]:
        with open_image(path) as image:
            return predictor.predict_pages(image, range(1), **options).labels

    return compared(predict, data)


def baselines(data: Path) -> dict[str, Ious]:
    """What needs no network: Otsu's threshold, its side judged on training images, and class 1 everywhere."""
    judges = [(pixels(image), mask_of(label)) for image, label in pairs(data / "train")][:8]
    side = otsu_polarity(*zip(*judges, strict=True))
    return {
        f"Otsu, {side} side": compared(lambda path: otsu_mask(pixels(path), foreground=side), data),
        "class 1 everywhere": compared(lambda path: np.ones(pixels(path).shape[-2:], bool), data),
    }


def compared(predict: Callable[[Path], NDArray[Any]], data: Path) -> Ious:
    found = []
    for image, label in pairs(data / "test"):
        table = confusion(mask_of(label), predict(image).astype(bool), 2)
        found.append([one.iou for one in scores(table)])
    return found


def pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    for image in sorted((folder / "images").iterdir()):
        yield image, folder / "labels" / image.name


def pixels(path: Path) -> NDArray[Any]:
    with open_image(path) as image:
        return image.read()


def costs(setting: Setting) -> dict[str, dict[str, float]]:
    """Parameters, GMAC, CPU ms (one thread, float32) and peak of feature maps of all networks and levels."""
    nets = {}
    for net, (model, supervised) in NETS.items():
        config: dict[str, Any] = {} if supervised is None else {"supervised": supervised}
        config |= {} if model == "unet_3_plus" else {"norm": "batch", "dropout": 0.0}
        config |= {"width": width_of(net, setting), "depth": setting.depth}
        whole = build(model, in_channels=1, classes=1, **config).to(memory_format=torch.channels_last).eval()
        columns = [node.column for node in whole.topology.outputs]
        nets[net] = whole.pruned(columns[-1])  # what `predict` runs
        if net == PRUNABLE:
            nets |= {f"L{k}": whole.pruned(k).eval() for k in columns}
    image = torch.randn(1, 1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(1)

    def forward(net: Any) -> Callable[[], object]:
        def call() -> object:
            with evaluating(net):
                return net.frugal(image)

        return call

    timings = common.rotate({name: forward(net) for name, net in nets.items()}, rounds=15)
    return {
        name: {
            "parameters": count_parameters(net),
            "gmac": count_macs(net, (SIDE, SIDE)) / 1e9,
            "cpu_ms": 1000 * timings[name].cpu,
            "feature_mib": peak_bytes(net.frugal, image) / 2**20,
        }
        for name, net in nets.items()
    } | {"noise": {"a_over_a": common.noise(timings)}}


def mean_iou(ious: Ious, kind: int = 1) -> float:
    """Mean over the images that have the class in truth or prediction."""
    return mean_defined(one[kind] for one in ious)[0] or 0.0


def tables(found: Mapping[str, Any]) -> str:
    """Markdown: all networks on each set, tests against the U-Net, and the levels of UNet++."""
    lines = []
    for which, name in SETS.items():
        runs = whole_seeds([row for row in found["runs"] if row["set"] == which])
        if not runs:
            continue
        n = len(next(iter(found["baselines"][which].values())))
        seeds = len({row["seed"] for row in runs})
        lines += ["", f"## {which}: IoU of {name}", ""]
        lines += [f"{runs[0]['train']} images train, {n} test; {seeds} seed{'s' * (seeds > 1)}.", ""]
        lines += table(
            "", "IoU, %", "other class", "against U-Net", "p over seeds (t)", "p over images (Wilcoxon)"
        )
        for title, ious in found["baselines"][which].items():
            lines.append(f"| {title} | {100 * mean_iou(ious):.2f} | {100 * mean_iou(ious, 0):.2f} | | | |")
        tests = compare(runs)
        for net in NETS:
            one, other = (
                spread([100 * mean_iou(row["iou"], kind) for row in runs if row["net"] == net])
                for kind in (1, 0)
            )
            test = tests.get(net)
            p = f"{test['gain']:+.2f} | {said(test['t'])} | {said(test['wilcoxon'])}" if test else "| |"
            lines.append(f"| {net} | {one} | {other} | {p} |")
        lines += ["", *table("level", "IoU, %", "against L4", "parameters", "GMAC", "CPU ms", "feature MiB")]
        rows = [row["levels"] for row in runs if row["net"] == PRUNABLE]
        for level in rows[0]:
            ours = [100 * mean_iou(row[level]) for row in rows]
            last = [100 * mean_iou(row["L4"]) for row in rows]
            gain = statistics.fmean(ours) - statistics.fmean(last)
            lines.append(f"| {level} | {spread(ours)} | {gain:+.2f} | {cost(found['costs'].get(level))} |")
    lines += ["", "## Costs", ""]
    lines += table(f"one image of {SIDE}²", "parameters", "GMAC", "CPU ms", "feature MiB")
    lines += [f"| {net} | {cost(found['costs'][net])} |" for net in NETS]
    return "\n".join(lines)


def origin(setting: Setting, found: Mapping[str, Any]) -> str:
    """Where the figures come from, in a line."""
    asked = ", ".join(f"{key} {value}" for key, value in asdict(setting).items())
    row = found["runs"][0]
    spent = sum(one["cpu_seconds"] for one in found["runs"]) / 60
    noise = found["costs"]["noise"]["a_over_a"]
    return (
        f"These runs: {asked}, {row['precision']}, {row['device']}, {found['machine']['processor']}, "
        f"{len(found['runs'])} runs in {spent:.0f} CPU minutes; A/A of the times {noise:.2f}."
    )


def whole_seeds(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of the seeds that every network has."""
    seeds = set.intersection(*({row["seed"] for row in runs if row["net"] == net} for net in NETS))
    return [row for row in runs if row["seed"] in seeds]


def said(p: float) -> str:
    return "n/a" if np.isnan(p) else f"{p:.2g}"


def table(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def compare(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each network against the U-Net: gain in points and p of two tests, corrected for their number (Holm).

    The t-test pairs seeds (mean IoU of a run), Wilcoxon's pairs images (mean IoU over the seeds).
    """
    scored = {
        net: 100 * np.array([[one[1] for one in row["iou"]] for row in runs if row["net"] == net], float)
        for net in NETS
    }
    base = scored.pop(REFERENCE)
    t = [math.nan] * len(scored)
    if len(base) > 1:
        t = holm([stats.ttest_rel(s.mean(1), base.mean(1)).pvalue for s in scored.values()])
    w = holm([stats.wilcoxon(s.mean(0), base.mean(0)).pvalue for s in scored.values()])
    return {
        net: {"gain": float(s.mean() - base.mean()), "t": t[k], "wilcoxon": w[k]}
        for k, (net, s) in enumerate(scored.items())
    }


def holm(values: list[float]) -> list[float]:
    """Holm's correction: the k-th smallest of m times (m - k), never falling, never above 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    least, out = 0.0, [0.0] * len(values)
    for k, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - k) * values[index]))
        out[index] = least
    return out


def spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def cost(one: Mapping[str, float] | None) -> str:
    if one is None:
        return " | | | "
    return f"{one['parameters']:,} | {one['gmac']:.2f} | {one['cpu_ms']:.1f} | {one['feature_mib']:.1f}"


def results_of(path: Path, setting: Setting) -> dict[str, Any]:
    """Results so far; those of another setting are not mixed with these."""
    if not path.is_file():
        return {"setting": asdict(setting), "runs": []}
    found: dict[str, Any] = json.loads(path.read_text())
    if found["setting"] != asdict(setting):
        raise SystemExit(f"{path} holds runs of another setting: {found['setting']}")
    return found


def write(path: Path, found: Mapping[str, Any]) -> None:
    """One run a line, four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.6g}"))
    parts = [f'"{key}": {json.dumps(value)}' for key, value in rounded.items() if key != "runs"]
    runs = ",\n".join(json.dumps(row) for row in rounded["runs"])
    path.write_text("{\n" + ",\n".join([*parts, f'"runs": [\n{runs}\n]']) + "\n}\n")


if __name__ == "__main__":
    main()
