"""From two folders to everything a training needs: check, split, fingerprint, plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from skipway.data.check import Checked, inspect
from skipway.data.fingerprint import Fingerprint, Normalisation, fingerprint
from skipway.data.labels import LabelMap
from skipway.data.layouts import Volume, find_pairs, natural, volumes
from skipway.data.lists import some
from skipway.data.scan import Scan
from skipway.data.splits import Split, split
from skipway.data.suspicions import near_copies
from skipway.devices import fast_bf16
from skipway.losses import LOSSES, Loss, each_class
from skipway.plan import Plan, make_plan
from skipway.runs import Run
from skipway.tasks import Task, make_task
from skipway.training.budget import described_fit
from skipway.training.order import Order
from skipway.training.repeat import read_plan, repeated
from skipway.training.start import Origin, Start

LAST = "versions.json"
"""The part of a new run that is written last: where it is, all are there."""

FLAT = (
    "most volumes are one slice, which has no third axis to learn: save the slices of a volume as one "
    "multi-page TIFF, or train a network of two axes"
)


PARTS: Mapping[str, Any] = {
    "labels": LabelMap,
    "split": Split,
    "fingerprint": Fingerprint,
    "normalisation": Normalisation,
    "plan": Plan,
}
"""Each part's name in the run folder, in the order in which they are written, and what it is."""


@dataclass(frozen=True)
class Prepared:
    """What was understood and decided, each part as it is stored in the run folder."""

    labels: LabelMap
    split: Split
    fingerprint: Fingerprint
    normalisation: Normalisation
    plan: Plan
    start: Start | None = None

    @property
    def task(self) -> Task:
        """What the network learns."""
        return make_task(self.labels, self.plan.class_weights, self.plan.min_area)

    @property
    def loss(self) -> Loss:
        """What a step makes small; class by class where classes overlap."""
        function = LOSSES[self.plan.loss].function
        return each_class(function) if self.labels.overlapping else function

    @property
    def train_volumes(self) -> tuple[Volume, ...]:
        """What trains, as the network sees it: page by page, or as volumes."""
        return volumes(self.split.train_pairs, self.plan.ndim)

    @property
    def val_volumes(self) -> tuple[Volume, ...]:
        """What validates, in the same way."""
        return volumes(self.split.val_pairs, self.plan.ndim)

    def to_json(self) -> dict[str, Any]:
        """Every part by its name in the run folder."""
        return {name: getattr(self, name).to_json() for name in PARTS}

    def write(self, run: Run) -> None:
        """Store every part as JSON."""
        for name, value in self.to_json().items():
            run.write(name, value)

    @classmethod
    def read(cls, run: Run) -> "Prepared":
        """Read every part back.

        Raises:
            DataError: a part is missing or damaged.
        """
        return cls.from_json({name: run.read(name) for name in PARTS})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Prepared":
        """Every part out of what `to_json` gave.

        Raises:
            DataError: a part is damaged.
        """
        return cls(**{name: kind.from_json(value[name]) for name, kind in PARTS.items()})


def check_data(
    order: Order,
    *,
    progress: Callable[[int, int], None] | None = None,
    before: Mapping[str, Any] | None = None,
) -> Checked:
    """Pair and check the user's files.

    Args:
        order: Where they are and how they are read.
        progress: See `inspect`.
        before: What an earlier check of them saw.

    Raises:
        DataError: everything that is wrong, at once.
    """
    pairs = find_pairs(order.images, order.masks, replace(order.reading, task=order.task))
    return inspect(pairs, order.task, ignore=order.ignore, progress=progress, how=Scan(before=before or {}))


def prepare(
    order: Order,
    checked: Checked,
    device: torch.device,
    *,
    divided: Split | None = None,
    plan: Plan | None = None,
) -> Prepared:
    """Split checked data and choose every number of the training.

    Args:
        order: How they are divided, and what the user named of the plan.
        checked: From `check_data`.
        device: Where the training will run.
        divided: The split; left out, it is made here.
        plan: Decides everything but the length, as `--plan` does.
    """
    request = order.request
    fixed = plan or (None if request.plan is None else read_plan(Path(request.plan)))
    divided = divided or divide(order, checked, request.seed if fixed is None else fixed.seed)
    if divided.train != divided.val:
        by_name = {pair.name: pair for pair in checked.pairs.pairs}
        leaks = near_copies(by_name, checked.records, (divided.train, divided.val))
        divided = replace(divided, warnings=(*divided.warnings, *map(str, leaks)))
    described = fingerprint(checked, divided.train)
    plan, start = _planned(order, fixed, described, checked.labels, device)
    if start is not None:
        divided = replace(divided, warnings=(*divided.warnings, *start.known(divided)))
    if plan.ndim == 3 and described.slices == 1:
        divided = replace(divided, warnings=(*divided.warnings, FLAT))
    normalisation = Normalisation(colour=order.reading.colour or "")
    return Prepared(checked.labels, divided, described, normalisation, plan, start)


def _planned(
    order: Order, fixed: Plan | None, data: Fingerprint, labels: LabelMap, device: torch.device
) -> tuple[Plan, Start | None]:
    """The plan, and the first weights where they come from another run."""
    request = order.request
    if fixed is not None:
        place = Path(str(request.plan))
        folder = place if place.is_dir() else place.parent
        return repeated(fixed, request, data, labels), Start.copied(folder) if fixed.start else None
    if request.start and (order.output / LAST).is_file():  # it has its own copy, and needs that run no more
        return Plan.from_json(Run(order.output).read("plan")), None
    origin = Origin.read(Path(request.start)) if request.start else None
    asked = origin.request(request) if origin else request
    plan = make_plan(asked, data, labels, on_cpu=device.type == "cpu", fast_bf16=fast_bf16(device))
    return origin.begin(plan, request, data, labels) if origin else (plan, None)


def divide(order: Order, checked: Checked, seed: int) -> Split:
    """Who trains and who validates.

    Args:
        order: How they are divided.
        checked: From `check_data`.
        seed: Of the lots.

    Raises:
        SkipwayError: see `skipway.data.splits.split`.
    """
    reading = replace(order.reading, task=checked.labels.task)
    return split(checked, val=order.val, reading=reading, groups=order.groups, fold=order.fold, seed=seed)


def described(
    checked: Checked, prepared: Prepared, parameters: int, device: torch.device
) -> Mapping[str, str]:
    """The first lines of a training: what was understood, and the flag that mends a line that is wrong."""
    plan, data, split_ = prepared.plan, prepared.fingerprint, prepared.split
    kinds = ", ".join(sorted({record.kind for record in checked.records}))
    low, high = ("×".join(map(str, size)) for size in (data.smallest, data.largest))
    sizes = low if low == high else f"{low} to {high}"
    why = f": {plan.reasons['steps']}" if "steps" in plan.reasons else ""
    length = (
        f"{plan.steps} steps{why}"
        if plan.steps
        else f"{plan.seconds:.0f} s; steps follow when they are measured"
    )
    small = (
        f"; objects of less than {plan.min_area} pixels in area are not written" if plan.min_area > 1 else ""
    )
    regions = (
        f"{data.objects} in the training masks, median diameter {data.diameter:.0f} px, "
        f"{100 * data.touching:.0f} % touch another{small}"
    )
    config = ", ".join(
        f"{key} {value}" for key, value in plan.config.items() if key not in ("in_channels", "classes")
    )
    trained = "" if plan.pretrained is None else f", encoder trained before: {plan.pretrained}"
    eta = f" on all outputs, {plan.supervision} weights" if plan.config.get("supervised") else ""
    return {
        "data": f"{len(checked.records)} pairs {checked.pairs.where}: {checked.pairs.rule}",
        "images": f"{kinds}, {sizes} pixels" + (" [--colour]" if prepared.normalisation.colour else ""),
        **_volumes(prepared),
        "labels": f"{prepared.labels} [--task]",
        **({} if prepared.labels.overlapping else {"regions": regions}),
        "split": f"{len(split_.train)} train, {len(split_.val)} validate: {split_.rule} [--val, --fold]",
        **_groups(split_),
        "model": f"{plan.model} ({config}), {parameters:,} parameters{trained} [--model]",
        "loss": f"{plan.loss}{eta}, {plan.optimiser} at {plan.learning_rate:g}, averaged weights",
        "patches": f"{plan.batch} of {'×'.join(map(str, plan.patch))} a step, {plan.precision}",
        **_held_back(prepared),
        **described_fit(plan, on_gpu=device.type == "cuda"),
        "length": f"{length} [--steps, --time]",
        "device": f"{device}, {torch.get_num_threads()} threads",
    }


def _held_back(prepared: Prepared) -> dict[str, str]:
    """What is not done to the images, and why."""
    if not prepared.plan.augmentation:
        return {}
    turn = prepared.plan.augmentation["rotation"]
    return {"moved": f"not mirrored, turned by {turn:g}° at most: class names tell left from right"}


def _groups(divided: Split) -> dict[str, str]:
    """Which images were kept together, where any were."""
    if not divided.groups:
        return {}
    names = sorted(set(divided.groups.values()), key=natural)
    return {"groups": f"{len(names)}, {divided.grouping}: {some(names, 4)} [--groups]"}


def _volumes(prepared: Prepared) -> dict[str, str]:
    """For a network of three axes: which volumes it sees."""
    if prepared.plan.ndim == 2:
        return {}
    sides = []
    for found in (prepared.train_volumes, prepared.val_volumes):
        low, high = (pick(len(volume.pages) for volume in found) for pick in (min, max))
        sides.append(f"{len(found)} of {low if low == high else f'{low} to {high}'}")
    train, val = sides
    return {
        "volumes": f"{train} slices train, {val} validate: consecutive pages of one file [--model, --val]"
    }
