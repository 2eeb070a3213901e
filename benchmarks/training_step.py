"""CPU seconds of one training step, against the step that users write: eager, fp32, contiguous maps.

    OMP_NUM_THREADS=1 uv run python benchmarks/training_step.py [--nets "unet 16" …] [--rounds 5]

A step is forward, loss (cross-entropy and Dice of every output), backward, clipped gradient, AdamW, averaged weights;
the same network, weights and batch for all. Each way of running it has a process of its own, since the kept heap
holds for a process; steps are timed in rotation A B C A B C. In the usual step instance norm is torch's module.
MONAI's networks have the same widths, norm and activation, and the same step around them.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import common  # before torch: it settles how threads wait

# isort: split
import torch
from torch import Tensor, nn

from skipway import devices
from skipway.data.sampling import Batch
from skipway.losses import LOSSES, supervised
from skipway.models import build
from skipway.nn.layout import channels_last
from skipway.nn.norms import GroupNorm
from skipway.synthetic import draw_cells
from skipway.training.average import start_average, update_average
from skipway.training.step import learn, optimiser_of, placed

PAGE = Path(__file__).parents[1] / "docs" / "results" / "training-step.md"


class Net(NamedTuple):
    """A network and its batch: builder, its arguments, patches, side, axes; and MONAI's of the same kind."""

    model: str
    width: int
    depth: int
    batch: int
    side: int
    ndim: int = 2
    peer: str = ""


NETS = {
    "unet 16": Net("unet", 16, 5, 4, 256, peer="BasicUNet"),
    "unet 32": Net("unet", 32, 5, 1, 256),
    "unet 64 (31 M)": Net("unet", 64, 5, 1, 256),
    "unet_plus_plus 16": Net("unet_plus_plus", 16, 5, 2, 256),
    "nnunet 16, 2-D": Net("nnunet", 16, 5, 2, 256, peer="DynUNet"),
    "unet 16, 3-D": Net("unet", 16, 4, 1, 64, 3),
    "nnunet 16, 3-D": Net("nnunet", 16, 4, 1, 64, 3, peer="DynUNet"),
}
USUAL, LAST, MIXED, OURS = "usual step", "channels-last", "bf16, channels-last", "skipway"
KEPT = ", kept heap"
GOAL = 0.40
"""Share of the CPU time of the usual step, to stay below."""
WAYS = (USUAL, USUAL + common.AGAIN, USUAL + KEPT, LAST, MIXED, OURS, OURS + KEPT)


class Plan(NamedTuple):
    """What `training.step` reads of a plan."""

    ndim: int
    precision: str = "bf16"
    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    clip: float = 5.0
    supervision: str = "equal"
    micro: int | None = None


def network(net: Net) -> nn.Module:
    torch.manual_seed(0)
    more: dict[str, Any] = {"supervised": True} if net.model != "unet" else {}
    if net.model == "unet_plus_plus":
        more |= {"norm": "batch", "dropout": 0.0}
    return build(net.model, in_channels=1, classes=2, width=net.width, depth=net.depth, ndim=net.ndim, **more)


def as_torch_has_it(model: nn.Module, ndim: int) -> nn.Module:
    """The same network with torch's own instance norm."""
    for name, child in list(model.named_children()):
        if isinstance(child, GroupNorm) and child.groups == child.weight.numel():
            theirs = (nn.InstanceNorm2d, nn.InstanceNorm3d)[ndim - 2](child.groups, child.eps, affine=True)
            setattr(model, name, theirs)
        else:
            as_torch_has_it(child, ndim)
    return model


def monai(net: Net) -> nn.Module:
    from monai.networks import nets

    widths = [net.width * 2**level for level in range(net.depth)]
    if net.peer == "BasicUNet":
        relu = ("relu", {"inplace": True})
        return nets.BasicUNet(net.ndim, 1, 2, (*widths, net.width), act=relu, norm="batch")
    strides = [1] + [2] * (net.depth - 1)
    return nets.DynUNet(
        *(net.ndim, 1, 2, [3] * net.depth, strides, strides[1:]),
        filters=widths,
        deep_supervision=True,
        deep_supr_num=net.depth - 2,
    )


def usual(net: Net, model: nn.Module, layout: torch.memory_format, *, mixed: bool) -> Callable[[], object]:
    image, target = batch(net)
    model, image = model.to(memory_format=layout).train(), image.contiguous(memory_format=layout)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    average, loss = start_average(model), LOSSES["ce-dice"].function

    def step() -> float:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found = model(image)
        if isinstance(found, Tensor):  # MONAI stacks the outputs of its supervision
            found = found.unbind(1) if found.ndim == image.ndim + 1 else (found,)
        value = supervised(loss, tuple(found), target, None)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        update_average(average, model, 1, 0.998)
        return value.item()

    return step


def skipways(net: Net, model: Any) -> Callable[[], object]:
    image, target = batch(net)
    plan: Any = Plan(net.ndim)
    cpu = torch.device("cpu")
    model = placed(model, plan, cpu)
    optimiser, average = optimiser_of(plan, model), start_average(model)
    given = Batch(image, target, None, tuple(range(net.batch)))

    def step() -> float:
        learnt = learn(plan, model, optimiser, LOSSES["ce-dice"].function, given, 1e-3, cpu)
        update_average(average, model, 1, 0.998)
        return learnt.loss

    return step


def batch(net: Net) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(net.batch, 1, *(net.side,) * net.ndim, generator=generator)
    return image, (image[:, 0] > 0).long()


def prepare(net: Net, way: str) -> Callable[[], object]:
    if way.startswith("MONAI"):
        return usual(net, monai(net), torch.contiguous_format, mixed=False)
    model = network(net)
    if way.startswith(OURS):
        return skipways(net, model)
    model = as_torch_has_it(model, net.ndim)
    layout = channels_last(net.ndim) if way in (LAST, MIXED) else torch.contiguous_format
    return usual(net, model, layout, mixed=way == MIXED)


def child(net: Net, way: str, line: Connection) -> None:
    """Times a step whenever it is asked to; then says by how much its memory grew."""
    torch.set_num_threads(1)
    if way.endswith(KEPT):
        devices.keep_heap()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = prepare(net, way)
    losses = [step(), step()]
    line.send(losses)
    while line.recv():
        start = time.process_time()
        step()
        line.send(time.process_time() - start)
    line.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def measure(net: Net, rounds: int) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    ways = [*WAYS, *([f"MONAI {net.peer}"] if net.peer else [])]
    lines: dict[str, Connection] = {}
    losses = {}
    for way in ways:
        lines[way], theirs = context.Pipe()
        context.Process(target=child, args=(net, way, theirs), daemon=True).start()
        losses[way] = lines[way].recv()
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, line in lines.items():
            line.send(True)
            taken[way].append(line.recv())
    rows = []
    for way, line in lines.items():
        line.send(False)
        low, middle, high = statistics.quantiles(taken[way], n=4)
        base = statistics.median(taken[USUAL] + taken[USUAL + common.AGAIN])
        facts = {"cpu": middle, "spread": (high - low) / middle, "of_usual": middle / base}
        rows.append({"way": way, **facts, "peak_mib": line.recv(), "losses": losses[way]})
    return rows


HEAD = """# One training step on a CPU

CPU time of a step (forward, loss, backward, clipped gradient, AdamW, averaged weights) over that of the usual
step of the same network, weights and batch: eager, fp32, contiguous maps, torch's instance norm. One thread, a
process for each way, in rotation, median of {rounds} rounds; *again* is the usual step against itself, the noise. In
brackets peak memory over that of the usual step. MONAI's BasicUNet (batch norm) and DynUNet (instance norm) have
the same widths. {processor}, two shared cores, torch {torch}. Written by `benchmarks/training_step.py`.

| network, batch | usual, CPU s | again | its kept heap | channels-last | bf16, channels-last | skipway | {last} |
|---|---|---|---|---|---|---|---|---|
"""


def page(found: dict[str, Any]) -> str:
    """The table of `docs/results/training-step.md`."""
    shown = [USUAL + common.AGAIN, USUAL + KEPT, LAST, MIXED, OURS, OURS + KEPT, "MONAI"]
    text = HEAD.format(**found["machine"], rounds=found["rounds"], last="skipway, kept heap | MONAI")
    for name, net in NETS.items():
        rows = {_column(row["way"]): row for row in found["rows"] if row["net"] == name}
        if not rows:
            continue
        peak = rows[USUAL]["peak_mib"]
        cells = [
            f"{rows[way]['of_usual']:.2f} ({rows[way]['peak_mib'] / peak:.2f})" if way in rows else ""
            for way in shown
        ]
        size = f"{net.batch} × {net.side}{'²³'[net.ndim - 2]}"
        text += f"| {name}, {size} | {rows[USUAL]['cpu']:.2f} | {' | '.join(cells)} |\n"
    reached = [row["net"] for row in found["rows"] if row["way"] == OURS + KEPT and row["of_usual"] <= GOAL]
    where = ", ".join(reached) or "nowhere"
    text += f"\nGoal of skipway with kept heap: {GOAL:.2f} of the usual step. Reached: {where}.\n"
    if found.get("scores"):
        text += "\n| mean Dice of 8 images, unet 8 | fp32 | bf16 |\n|---|---|---|\n"
        for row in found["scores"]:
            text += f"| seed {row['seed']} | {row['fp32']:.4f} | {row['bf16']:.4f} |\n"
        gaps = [row["bf16"] - row["fp32"] for row in found["scores"]]
        spread = statistics.stdev(row["fp32"] for row in found["scores"])
        text += (
            f"\n{STEPS} steps on drawn cells: bf16 less fp32 {statistics.mean(gaps):+.4f} in the mean "
            f"({min(gaps):+.4f} to {max(gaps):+.4f}); between seeds in fp32 the standard deviation is {spread:.4f}.\n"
        )
    return text


def _column(way: str) -> str:
    return "MONAI" if way.startswith("MONAI") else way


STEPS = 80


def scores(seeds: range) -> list[dict[str, float]]:
    """Mean Dice on 8 drawn images after a short training in either precision."""
    torch.set_num_threads(1)
    return [{"seed": seed, **{name: trained(seed, name) for name in ("fp32", "bf16")}} for seed in seeds]


def trained(seed: int, precision: str) -> float:
    torch.manual_seed(seed)
    plan: Any = Plan(2, precision, learning_rate=2e-3)
    cpu = torch.device("cpu")
    model = placed(build("unet", in_channels=1, classes=2, width=8, depth=4), plan, cpu)
    optimiser, average = optimiser_of(plan, model), start_average(model)
    images, truths = drawn(range(1000 * seed, 1000 * seed + 16))
    for step in range(STEPS):
        some = [(4 * step + k) % len(images) for k in range(4)]
        rate = 2e-3 * (1 - step / STEPS)
        given = Batch(images[some], truths[some], None, tuple(some))
        learn(plan, model, optimiser, LOSSES["ce-dice"].function, given, rate, cpu)
        update_average(average, model, step, 0.95)
    images, truths = drawn(range(10**6, 10**6 + 8))
    with torch.inference_mode():
        found = average(images)[-1].argmax(1)
    dice = [2 * (f * t).sum() / (f + t).sum() for f, t in zip(found, truths, strict=True)]
    return torch.stack(dice).mean().item()


def drawn(seeds: range) -> tuple[Tensor, Tensor]:
    """Noisy cells (N, 1, 96, 96) and what is cell (N, 96, 96)."""
    pairs = [draw_cells(96, seed=seed) for seed in seeds]
    images = torch.stack([torch.from_numpy(image.astype("float32")) for image, _ in pairs])[:, None]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seeds[0]))
    images = (images - images.mean()) / images.std() + 1.5 * noise
    return images, torch.stack([torch.from_numpy((labels > 0).astype("int64")) for _, labels in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="keep the rows of other networks")
    wanted = parser.parse_args()
    stored = common.RESULTS / "training_step.json"
    before = json.loads(stored.read_text(encoding="utf-8")) if wanted.add and stored.exists() else {}
    rows = [row for row in before.get("rows", []) if row["net"] not in wanted.nets]
    for name in wanted.nets:
        load = common.machine()["load"]
        rows += [{"net": name, **row, "load": load} for row in measure(NETS[name], wanted.rounds)]
    facts = {"rounds": wanted.rounds, "machine": common.machine("torch", "monai") | {"threads": 1}}
    common.save("training_step", rows, **facts, scores=before.get("scores") or scores(range(3)))
    PAGE.write_text(page(json.loads(stored.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
