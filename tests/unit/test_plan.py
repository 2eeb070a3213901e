"""The rules of a plan: what the data decide, what the user decides, and that every network takes the result."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import one_thread

from members import FLAT, small
from skipway.data.fingerprint import Fingerprint
from skipway.data.labels import LabelMap
from skipway.data.length import FEWEST, MOST, length
from skipway.errors import CheckpointError, UsageError
from skipway.losses import cross_entropy_dice, supervised
from skipway.models import arguments, build, published_classes
from skipway.nn.norms import norm_of
from skipway.plan import WARMUP, Plan, make_plan
from skipway.request import Request
from skipway.synthetic import draw_cells

OBJECTS = LabelMap("objects", (0, 1), ("background", "object"), ids=True)
CLASSES = LabelMap("classes", (0, 1, 2), ("background", "a", "b"))


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


def looks(**change):
    size = {"smallest": (512, 512), "median": (512, 512), "largest": (512, 512)}
    values = {
        "channels": 1,
        "dtype": "uint8",
        "class_shares": (0.8, 0.2),
        "low": 0.0,
        "high": 255.0,
        "mean": 90.0,
    }
    objects = {"objects": 300, "diameter": 24.0, "touching": 0.5}
    return Fingerprint(**{"n": 10, **size, **values, **objects, **change})


def sized(side, **change):
    side = side if isinstance(side, tuple) else (side, side)
    return looks(smallest=side, median=side, largest=side, **change)


def planned(request=None, data=None, labels=OBJECTS, *, on_cpu=True, fast_bf16=False):
    return make_plan(request or Request(), data or looks(), labels, on_cpu=on_cpu, fast_bf16=fast_bf16)


def geometry(plan):
    with torch.device("meta"):
        return build(plan.model, **plan.config).geometry


def test_defaults():
    plan = planned()
    assert (plan.model, plan.loss, plan.optimiser) == ("unet", "weighted-ce-dice", "adamw")
    assert plan.config == {
        "in_channels": 1,
        "classes": 2,
        "width": 16,
        "depth": 5,
        "norm": "batch",
        "dropout": 0.0,
    }
    assert (plan.patch, plan.batch) == ((256, 256), 4)
    assert (plan.steps, plan.seconds, plan.warmup) == (1250, None, WARMUP)  # 10 of 512²: 200 · √40
    assert (plan.learning_rate, plan.weight_decay, plan.precision) == (2e-3, 1e-2, "fp32")
    assert plan.class_weights == (1.0, 1.0)
    assert plan.weighted
    assert plan.min_area == int(0.05 * np.pi / 4 * 24**2) == 22


def test_a_gpu_gets_a_wider_net_and_larger_batches():
    plan = planned(on_cpu=False, fast_bf16=True)
    assert (plan.config["width"], plan.batch, plan.precision) == (64, 16, "bf16")


def test_classes_have_no_border_weights_and_no_smallest_object():
    plan = planned(data=looks(class_shares=(0.5, 0.3, 0.2), channels=3), labels=CLASSES)
    assert (plan.loss, plan.weighted, plan.min_area) == ("ce-dice", False, 0)
    assert (plan.config["classes"], plan.config["in_channels"]) == (3, 3)
    assert plan.class_weights == (1.0, 1.0, 1.0)


def test_the_preset_of_2015():
    plan = planned(Request(preset="2015"))
    assert (plan.model, plan.optimiser, plan.momentum) == ("unet_2015", "sgd", 0.99)
    assert (plan.loss, plan.weighted, plan.batch) == ("weighted-ce", True, 1)
    assert (plan.config["width"], plan.config["depth"]) == (64, 5)
    # 512 + 2 · 92 = 696 would be the whole image with its margin; the one large tile is 572 → 388.
    assert plan.patch == (572, 572)
    assert geometry(plan).output_size(plan.patch) == (388, 388)
    assert plan.class_weights == pytest.approx((1 / (2 * 0.8), 1 / (2 * 0.2)))
    assert plan.foreground_share == 0.0
    assert plan.weight_decay == 0.0


def test_the_2015_tile_of_a_small_image_is_the_image_with_its_margin():
    plan = planned(Request(preset="2015"), sized((120, 200)))
    # 120 + 184 = 304 and 200 + 184 = 384, up to the next sides ≡ 12 (mod 16).
    assert plan.patch == (316, 396)


def test_balanced_weights_make_classes_count_alike():
    shares = (0.7, 0.25, 0.05)
    plan = planned(Request(loss="weighted-ce"), looks(class_shares=shares), CLASSES)
    assert np.multiply(plan.class_weights, shares) == pytest.approx([1 / 3] * 3)


NAMED = {
    "model": ("unet_plus_plus", lambda p: p.model),
    "width": (8, lambda p: p.config["width"]),
    "depth": (3, lambda p: p.config["depth"]),
    "loss": ("ce", lambda p: p.loss),
    "optimiser": ("sgd", lambda p: p.optimiser),
    "learning_rate": (0.03, lambda p: p.learning_rate),
    "batch": (7, lambda p: p.batch),
    "patch": (64, lambda p: p.patch[0]),
    "steps": (123, lambda p: p.steps),
    "seconds": (77.0, lambda p: p.seconds),
    "seed": (5, lambda p: p.seed),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("preset", ["default", "2015"])
def test_what_the_user_names_wins(name, preset):
    value, of = NAMED[name]
    if name == "optimiser" and preset == "2015":
        value = "adamw"
    before, after = planned(Request(preset=preset)), planned(Request(preset=preset, **{name: value}))
    assert of(before) != value
    if name == "patch" and preset == "2015":
        value = 188  # 64 is no legal input; the smallest is 188 → 4
    assert of(after) == value


def test_the_length_follows_from_the_images():
    # 200 · √P, P patches of 256² in all images: 4 times the images, twice the steps.
    assert [length(looks(n=n), (256, 256))[0] for n in (10, 40, 160)] == [1250, 2550, 5000]
    assert length(looks(n=1), (256, 256))[0] == FEWEST
    assert length(looks(n=1000), (256, 256))[0] == MOST
    assert length(sized(100, n=25), (112, 112)) == (1000, "25 training images that 25 patches would cover")
    stacks = looks(n=60, slices=20, median=(128, 128))  # 3 volumes, 2 · 2 patches wide
    assert length(stacks, (32, 64, 64)) == (700, "3 training volumes that 12 patches would cover")
    plan = planned(data=looks(n=40))
    assert plan.steps == 2550
    assert "40 training images that 160 patches" in plan.reasons["steps"]
    assert "steps" not in planned(Request(steps=7)).reasons
    assert "steps" not in planned(Request(seconds=7.0)).reasons


def test_small_images_get_shallower_networks():
    for side, depth in ((16, 3), (20, 3), (33, 4), (48, 4), (49, 5), (64, 5), (200, 5)):
        plan = planned(data=sized(side))
        assert plan.config["depth"] == depth, side
        coarsest = geometry(plan).levels[-1]
        assert min(grid.size(n) for grid, n in zip(coarsest, plan.patch, strict=True)) >= 4
        assert ("depth" in plan.reasons) == (depth < 5)
    assert planned(Request(depth=5), sized(16)).config["depth"] == 5
    assert planned(Request(patch=32)).config["depth"] == 4
    assert planned(data=sized((40, 700))).config["depth"] == 4


def test_thin_volumes_keep_their_short_axis():
    def cut(size, **asked):
        found = planned(Request(options={"ndim": 3}, **asked), looks(slices=size[0], median=size[1:]))
        return found.config.get("pools"), found.config["depth"], found.patch

    assert cut((12, 256, 256)) == ([[2, 2, 2], *[[1, 2, 2]] * 3], 5, (12, 144, 144))
    assert cut((36, 50, 35)) == (None, 4, (40, 56, 40))
    assert cut((3, 256, 256))[0] == [[1, 2, 2]] * 4
    assert cut((12, 256, 256), depth=3)[0] is None, "a depth that is named is as published"


def test_time_leaves_the_steps_open():
    plan = planned(Request(seconds=60.0))
    assert (plan.steps, plan.seconds, plan.warmup) == (None, 60.0, WARMUP)


def test_short_trainings_warm_up_for_a_tenth():
    assert [planned(Request(steps=n)).warmup for n in (1, 50, 399, 5000)] == [1, 5, 39, WARMUP]


@pytest.mark.parametrize("preset", ["default", "2015"])
@pytest.mark.parametrize("model", [None, *FLAT])
@pytest.mark.parametrize("side", [1, 20, 97, (33, 700), 2000])
def test_the_patch_is_legal_and_no_larger_than_needed(preset, model, side):
    plan = planned(Request(preset=preset, model=model, options=small(model or "unet")), sized(side))
    shape = geometry(plan)
    assert shape.legal(plan.patch)
    assert min(shape.output_size(plan.patch)) >= 1
    limit = 572 if preset == "2015" else 256
    need = [min(image + 2 * m, limit) for image, m in zip(sized(side).median, shape.margin, strict=True)]
    least = [2 * m + s for m, s in zip(shape.margin, shape.stride, strict=True)]
    for have, want, low, step in zip(plan.patch, need, least, shape.stride, strict=True):
        assert max(want, low) <= have < max(want, low) + 2 * step


def test_batches_hold_about_as_many_pixels_whatever_the_patch():
    found = {side: planned(data=sized(side)).batch for side in (2000, 256, 128, 64, 8)}
    assert found == {2000: 4, 256: 4, 128: 16, 64: 32, 8: 32}
    assert planned(Request(patch=512)).batch == 2


@pytest.mark.parametrize(
    "request_", [Request(), Request(preset="2015", seed=3), Request(seconds=90.0, model="unet_3_plus")]
)
def test_json_round_trip(request_):
    plan = planned(request_)
    back = Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)))
    assert back == plan
    assert isinstance(back.patch, tuple)
    assert hash(back.class_weights)


def test_a_plan_with_an_unknown_or_missing_key_is_refused():
    value = planned().to_json()
    with pytest.raises(CheckpointError, match="epocs") as caught:
        Plan.from_json({**value, "epocs": 3})
    assert caught.value.exit_code == 3
    with pytest.raises(CheckpointError, match="patch"):
        Plan.from_json({key: item for key, item in value.items() if key != "patch"})


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"steps": 0}, "--steps"),
        ({"steps": -3}, "--steps"),
        ({"seconds": 0.0}, "--time"),
        ({"seconds": float("nan")}, "--time"),
        ({"seconds": float("inf")}, "--time"),
        ({"learning_rate": 0.0}, "--lr"),
        ({"batch": 0}, "--batch"),
        ({"patch": -1}, "--patch"),
        ({"width": 0}, "--width"),
        ({"depth": 1}, "--depth"),
        ({"depth": 8}, "--depth"),
        ({"model": "unet2"}, "--model"),
        ({"loss": "mse"}, "--loss"),
        ({"optimiser": "adam"}, "--optimiser"),
        ({"preset": "2016"}, "--preset"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**64}, "--seed"),
        ({"steps": 5, "seconds": 5.0}, "--time"),
        ({"width": 8, "options": {"width": 16}}, "--width, --set width: width is named twice"),
        ({"options": {"wdith": 16}}, "Fix: use width"),
        ({"model": "unet_2015", "backbone": "resnet18"}, "--backbone"),
        ({"options": {"classes": 3}}, "--set classes"),
    ],
)
def test_a_request_that_cannot_be_is_refused(change, flag):
    with pytest.raises(UsageError) as caught:
        Request(**change)
    assert caught.value.exit_code == 2
    assert flag in str(caught.value)


def test_all_problems_of_a_request_come_at_once():
    with pytest.raises(UsageError) as caught:
        Request(steps=0, model="unet2", depth=9)
    assert len(caught.value.problems) == 3


def drawn(patch, crop):
    """One normalised batch of drawn cells with its target, cut to what the network decides."""
    images, targets = [], []
    for seed in (0, 1):
        image, labels = draw_cells(patch, n=6, seed=seed)
        images.append((image.astype(np.float32) - 200) / 800)
        targets.append(labels > 0)
    assert crop == 0 or patch[0] > 2 * crop
    return torch.from_numpy(np.stack(images)[:, None]), torch.from_numpy(np.stack(targets)).long()


def overfitted(name, steps):
    """Losses of `steps` steps of the planned optimiser on one fixed batch."""
    options = {key: value for key, value in (small(name) | {"width": 6}).items() if key in arguments(name)}
    plan = planned(Request(model=name, options=options, patch=48))
    torch.manual_seed(0)
    model = build(plan.model, **plan.config).train()
    plan = replace(plan, learning_rate=2e-2 if norm_of(model) == "batch" else 2e-3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate)
    image, target = drawn(plan.patch, model.geometry.margin[0])
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = model(image)
        channels = min(2, published_classes(name))
        assert [tuple(o.shape[:2]) for o in outputs] == [(2, channels)] * len(outputs)
        loss = supervised(cross_entropy_dice, outputs, target, None)
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", FLAT)
def test_every_network_trains_as_planned(name):
    losses = overfitted(name, 6)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_a_network_of_volumes_takes_the_axes_that_the_data_have():
    for model in ("unet_3d_2016", "vnet", "nnunet"):
        assert planned(Request(model=model)).ndim == 2
        stack = looks(slices=40)
        assert planned(Request(model=model), stack).ndim == 3
        assert planned(Request(model=model, options={"ndim": 2}), stack).ndim == 2
    assert planned(Request(model="unet"), looks(slices=40)).ndim == 2  # pages, unless volumes are asked for


def test_on_a_cpu_a_width_of_16_is_narrowed_only_in_volumes():
    assert planned(Request(model="trans_unet_small")).config["width"] == 16
    assert planned(Request(model="trans_unet")).config["width"] == 16
    assert planned(Request(model="vnet")).config["width"] == 16
    assert planned(Request(model="vnet"), looks(slices=40)).config["width"] == 8


def test_unet_overfits_one_batch():
    losses = overfitted("unet", 25)
    assert losses[-1] < 0.35 * losses[0]


def test_a_plan_cannot_be_changed():
    plan = planned()
    with pytest.raises(AttributeError):
        plan.batch = 3
    assert replace(plan, batch=3).batch == 3


@pytest.mark.parametrize(
    "named", [{"backbone": "resnet18"}, {"width": 6}, {"model": "unet_plus_plus", "supervised": False}]
)
def test_a_flag_and_set_say_the_same(named):
    pytest.importorskip("timm")
    model = {"model": named["model"]} if "model" in named else {}
    options = {key: value for key, value in named.items() if key != "model"}
    assert planned(Request(**named)) == planned(Request(**model, options=options))
