"""From what the data is and what the user asked to every number of the training: one frozen, printable plan.

Each rule is one line here, so that a plan can be read back to its reason. What the user names wins over
every rule.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from skipway.data.fingerprint import Fingerprint
from skipway.data.labels import LabelMap
from skipway.data.length import length
from skipway.errors import CheckpointError, Problem, UsageError
from skipway.legs import Leg
from skipway.losses import LOSSES
from skipway.models import arguments, published_classes, sketch
from skipway.models.anisotropy import LEAST, settled
from skipway.models.assemble import ON_BACKBONE, PLAIN
from skipway.request import Request
from skipway.shapes import Geometry
from skipway.weight_maps import balance

SHALLOWEST = 2
"""Levels that a small image leaves a network at least."""

KEPT = 2 * 1024**3
"""Bytes of decoded images that are kept; others are decoded each time they are needed."""

MAX_PATCH = 256
"""Side of a training patch: large enough for the context of five levels, small enough for several a batch."""

TILE_2015 = 572
"""Side of the one large tile of the 2015 paper."""

WARMUP = 40
"""Steps of linear warm-up at most; more than are measured before a time budget becomes a number of steps."""

CLIP = 5.0
"""Largest gradient norm; only a run that is about to diverge meets it."""

SMALL_OBJECT = 0.05
"""Components smaller than this share of the median object's area are taken for noise."""

SIDED = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
"""A class name that says a side."""

TILT = 20.0
"""Largest rotation, in degrees, of images that have a left and a right."""


@dataclass(frozen=True)
class Plan:
    """Every number of one training.

    Attributes:
        model: Name of the builder in `skipway.models`.
        config: Its keyword arguments.
        loss: One of `losses.LOSSES`.
        patch: Input side of a training patch per axis, pixels.
        batch: Patches a step.
        steps: Optimiser steps; None until they are measured from `seconds`, and then written down.
        seconds: Wall-clock budget of the whole command; None where steps rule.
        optimiser: "adamw" or "sgd".
        learning_rate: Its highest value, after the warm-up.
        momentum: Of sgd.
        weight_decay: Decoupled for adamw.
        warmup: Steps of linear warm-up; a cosine to zero follows and ends with `steps`.
        clip: Largest gradient norm.
        ema: Decay of the averaged weights that are saved for prediction.
        precision: "fp32" or "bf16" for the training step; prediction is fp32.
        foreground_share: Share of patches centred on a pixel other than background.
        class_weights: w_c of each class, mean 1 over the training pixels.
        min_area: Objects smaller than this many pixels are not written.
        augmentation: Ranges that differ from the defaults of `skipway.data.augment.Augmentation`.
        supervision: One of `losses.ETAS`: how the loss weighs the outputs.
        pretrained: Where the first weights of the backbone come from; None draws them.
        seed: Of everything random.
        micro: Patches computed at once; the gradients of a step are gathered over all parts of its batch. None: all.
        cache: Bytes of decoded images kept in memory; changes the speed and no bit.
        reasons: Why a number is what it is, by its name, where that is not a rule of docs/training.md alone.
        measured: What steps on this machine took: `seconds` a step, peak `bytes` of memory, and the `limit` for them.
        legs: How the length came about where `steps` alone does not say it, see `skipway.legs`: the number of steps
            changed on the way to meet a time budget, or a finished training was extended.
        start: File in the run folder with all first weights, where they come from another run; None otherwise.
    """

    model: str
    config: Mapping[str, Any]
    loss: str
    patch: tuple[int, ...]
    batch: int
    steps: int | None
    seconds: float | None
    optimiser: str
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup: int
    clip: float
    ema: float
    precision: str
    foreground_share: float
    class_weights: tuple[float, ...]
    min_area: int
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    supervision: str = "equal"
    pretrained: str | None = None
    seed: int = 0
    micro: int | None = None
    cache: int = KEPT
    reasons: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    legs: tuple[Leg, ...] = ()
    start: str | None = None

    @property
    def ndim(self) -> int:
        """Spatial axes of the network: 2 sees pages, 3 sees volumes."""
        return len(self.patch)

    @property
    def weighted(self) -> bool:
        """Whether the loss uses the 2015 weight map."""
        return LOSSES[self.loss].weighted

    def to_json(self) -> dict[str, Any]:
        """Plain values for plan.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Plan":
        """A plan out of plan.json.

        Raises:
            CheckpointError: a key is unknown or missing, or a value is of another kind.
        """
        try:
            plan = cls(**value)
            legs = tuple(map(Leg.from_json, value.get("legs", ())))
            return replace(plan, patch=tuple(plan.patch), class_weights=tuple(plan.class_weights), legs=legs)
        except (TypeError, AttributeError) as error:
            found = f"does not fit this version ({error})"
            raise CheckpointError(Problem(found, "plan.json", fix="train again")) from error


def make_plan(
    request: Request, data: Fingerprint, labels: LabelMap, *, on_cpu: bool, fast_bf16: bool
) -> Plan:
    """Choose every number that the user did not name.

    Args:
        request: What the user named.
        data: What the training images look like.
        labels: Their classes.
        on_cpu: Whether the training runs on a CPU (narrow nets, small batches).
        fast_bf16: Whether the device computes bfloat16 natively.
    """
    published = request.preset == "2015"
    model = request.model or ("unet_2015" if published else "unet")
    config = _config(model, request, data, labels, narrow=on_cpu and not published)
    loss = request.loss or (
        "weighted-ce" if published else "weighted-ce-dice" if labels.task == "objects" else "ce-dice"
    )
    if labels.overlapping:
        refuse_one_class_a_pixel(loss, config, published=published)
    room = _room(on_cpu=on_cpu)
    reasons: dict[str, str] = {}
    patch = _patch(request, data, geometry_of(model, config), room, published=published)
    while not published and _too_deep(model, request, config, patch):
        reasons["depth"] = f"{config['depth']} levels would leave fewer than {LEAST} pixels at the coarsest"
        config = _config(model, request, data, labels, narrow=on_cpu, depth=config["depth"] - 1)
        patch = _patch(request, data, geometry_of(model, config), room, published=published)
    steps = request.steps
    if steps is None and request.seconds is None:
        steps, reasons["steps"] = length(data, patch)
    optimiser = request.optimiser or ("sgd" if published else "adamw")
    return Plan(
        model=model,
        config=config,
        loss=loss,
        supervision=request.supervision,
        pretrained=request.pretrained,
        patch=patch,
        batch=request.batch or (1 if published else _batch(patch, room)),
        steps=steps,
        seconds=request.seconds,
        optimiser=optimiser,
        learning_rate=request.learning_rate
        or (2e-3 if optimiser == "adamw" else 1e-3 if published else 1e-2),
        momentum=0.99 if published else 0.9,
        weight_decay=1e-2 if optimiser == "adamw" else 0.0,
        warmup=WARMUP if steps is None else warmup(steps),
        clip=CLIP,
        ema=0.998,
        precision="bf16" if fast_bf16 else "fp32",
        foreground_share=0.0 if published else 0.33,
        class_weights=_class_weights(loss, data),
        min_area=_min_area(data, labels),
        augmentation=_augmentation(labels),
        seed=request.seed,
        reasons=reasons,
    )


def warmup(steps: int, longest: int = WARMUP) -> int:
    """Steps of warm-up of a training of so many."""
    return min(longest, max(1, steps // 10))


def refuse_one_class_a_pixel(loss: str, config: Mapping[str, Any], *, published: bool) -> None:
    """What only makes sense where every pixel has one class.

    Raises:
        UsageError: a loss with the border weights, or a network that empties images by their background.
    """
    problems = []
    if LOSSES[loss].weighted:
        where = "--preset 2015" if published else f"--loss {loss}"
        found = "border weights, which overlapping classes do not have"
        fix = f"--loss {loss.removeprefix('weighted-')}"
        problems.append(Problem(found, where, "a loss without them", fix))
    if config.get("guided"):
        found = "a gate that makes an image background, which overlapping classes do not have"
        problems.append(Problem(found, "--set guided", fix="leave it out"))
    if problems:
        raise UsageError(*problems)


def _too_deep(model: str, request: Request, config: Mapping[str, Any], patch: tuple[int, ...]) -> bool:
    """Whether the coarsest level is left too few pixels along an axis, and nobody asked for its depth."""
    if "depth" not in config or request.asked.keys() & {"depth", "pools"} or config["depth"] <= SHALLOWEST:
        return False
    if "pools" in config and max(config["pools"][-1]) == 1:
        return True  # every axis is as short as it gets
    coarsest = geometry_of(model, config).levels[-1]
    return any(g.stride > 1 and g.size(side) < LEAST for g, side in zip(coarsest, patch, strict=True))


def _config(
    model: str,
    request: Request,
    data: Fingerprint,
    labels: LabelMap,
    *,
    narrow: bool,
    depth: int | None = None,
) -> dict[str, Any]:
    """Arguments of the builder: the published ones, but for what the data, the machine and the user ask.

    Two classes get the head that the network was published with, one sigmoid channel or two softmax ones;
    overlapping ones one sigmoid channel each. A network of volumes takes two axes where the data are no stacks, and
    one that takes either takes three where the images have a third axis in space; thick slices change its strides,
    see `models.anisotropy`.
    """
    known, asked, classes = arguments(model), request.asked, len(labels.values)
    if classes == 2 and not labels.overlapping and published_classes(model) == 1:
        classes = 1
    config: dict[str, Any] = {"in_channels": data.channels, "classes": classes}
    if known.get("ndim") == 3 and data.slices == 1:
        config["ndim"] = 2
    if "ndim" in known and data.volumes and not asked.get("backbone"):
        config["ndim"] = 3
    flat = {**known, **config, **asked}.get("ndim", 2) == 2
    if "width" in known and "width" not in asked:
        config["width"] = (
            ON_BACKBONE["width"] if asked.get("backbone") else _width(model, narrow=narrow, flat=flat)
        )
    if "depth" in known and not asked.get("backbone"):  # else all levels that it has
        config["depth"] = depth or known["depth"] or PLAIN["depth"]
    if known.get("norm", "") is None:  # plain nodes: what trains on small batches without a rate to tune
        config |= {"norm": "batch", "dropout": 0.0}
    if "supervised" in known:
        config["supervised"] = True
    config |= asked
    spacing = data.spacing if data.volumes else None
    seen = None if "depth" in asked else [min(n, request.patch or MAX_PATCH) for n in data.size(3)]
    by_size = config | settled(known, config, spacing, seen)
    if "pools" in by_size and any(geometry_of(model, by_size).margin):  # a valid net sees more than the image
        return config | settled(known, config, spacing)
    return by_size


def _width(model: str, *, narrow: bool, flat: bool) -> int:
    """The published width; on a CPU half of it, a quarter where that is 64, and in images all of it where that is 16.

    Half of 16 would leave TransUNet's finest level two channels, and whole trainings ended with both of them dead.
    """
    width = published_width(model)
    if not narrow or (flat and width <= 16):
        return width
    return width // 4 if width >= 64 else -(-width // 2)


def published_width(model: str) -> int:
    """Features at the finest level of a network as it was published."""
    width: int = arguments(model)["width"] or sketch(model).encoder.widths[0]
    return width


def geometry_of(model: str, config: Mapping[str, Any]) -> Geometry:
    """Size arithmetic of a network, without memory for its weights.

    Raises:
        UsageError: The builder refuses its arguments.
    """
    try:
        return sketch(model, **config).geometry
    except ValueError as error:
        raise UsageError(Problem(str(error), f"--model {model}", fix="see `skipway models`")) from error


def _room(*, on_cpu: bool) -> int:
    """Pixels or voxels of a batch, four (CPU) or sixteen (GPU) times the largest patch of an image: 64³ or 101³."""
    return (4 if on_cpu else 16) * MAX_PATCH**2


def _patch(
    request: Request, data: Fingerprint, geometry: Geometry, room: int, *, published: bool
) -> tuple[int, ...]:
    """Input side per axis: the image as far as memory goes, rounded up to what the network takes.

    A volume's patch is cut down from its longest sides until it fits into the room of a batch, so thin volumes get
    wide patches. A valid net gets its margin on top, since it decides only the centre; in a volume that centre is
    no narrower than the margin (132 -> 44 in the 3-D U-Net), or nearly all that is computed would be context.
    """
    if request.patch:
        return geometry.next_legal([request.patch] * geometry.ndim)
    volume = geometry.ndim == 3
    axes = list(zip(data.size(geometry.ndim), geometry.margin, geometry.stride, strict=True))
    floor = [2 * m + (max(s, min(n, m)) if volume else s) for n, m, s in axes]
    limits = range(MAX_PATCH, 0, -1) if volume else [TILE_2015 if published else MAX_PATCH]
    for limit in limits:
        wanted = (max(min(n + 2 * m, limit), least) for (n, m, _), least in zip(axes, floor, strict=True))
        patch = geometry.next_legal(list(wanted))
        if math.prod(patch) <= room:
            break
    return patch


def _batch(patch: tuple[int, ...], room: int) -> int:
    """As many patches as there is room for, from 2 to 32; of volumes that exceed it, one."""
    least = 1 if len(patch) == 3 and math.prod(patch) > room else 2
    return min(32, max(least, room // math.prod(patch)))


def _class_weights(loss: str, data: Fingerprint) -> tuple[float, ...]:
    """w_c of the 2015 loss; 1 where Dice balances the classes already."""
    if loss == "weighted-ce":
        return tuple(float(w) for w in balance(data.class_shares))
    return (1.0,) * len(data.class_shares)


def _augmentation(labels: LabelMap) -> dict[str, Any]:
    """Where class names tell left from right, a mirror image or an upside-down one would have them wrong."""
    return {"flips": False, "rotation": TILT} if any(map(SIDED.search, labels.names)) else {}


def _min_area(data: Fingerprint, labels: LabelMap) -> int:
    if labels.task != "objects" or not data.diameter:
        return 0
    return int(SMALL_OBJECT * math.pi / 4 * data.diameter**2)
