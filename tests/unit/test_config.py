"""What a builder may be told: nonsense is refused in one line, before anything is built."""

import time

import pytest

from members import FLAT, small
from skipway import models
from skipway.errors import CheckpointError
from skipway.models import BUILDERS, arguments, build, sketch
from skipway.models.config import check_config
from skipway.runs import Run, write_tensors
from skipway.weights import FILE, load_model


def floats(config):
    """Whether there is a number that JSON cannot say."""
    return any(isinstance(value, float) for value in config.values())


NONSENSE = [
    ("unet", {"depth": 0}, "depth cannot be 0; its numbers go from 1 to 10"),
    ("unet", {"depth": 1000}, "depth cannot be 1000"),
    ("unet", {"depth": True}, "depth cannot be True; it is a whole number"),
    ("unet", {"width": 0}, "width cannot be 0"),
    ("unet", {"width": float("nan")}, "width cannot be nan; it is a whole number"),
    ("unet", {"width": [1]}, r"width cannot be \[1\]"),
    ("unet", {"classes": 0}, "classes cannot be 0"),
    ("unet", {"in_channels": 0}, "in_channels cannot be 0"),
    ("unet", {"gate": "maybe"}, "gate cannot be 'maybe'; it is true or false"),
    ("unet", {"bias": "x"}, "bias cannot be 'x'; it is true or false or nothing"),
    ("unet", {"dropout": "x"}, "dropout cannot be 'x'; it is a number"),
    ("unet", {"dropout": float("inf")}, "dropout cannot be inf"),
    ("unet", {"norm": {}}, "norm cannot be {}; it is a word"),
    ("unet", {"backbone": 3}, "backbone cannot be 3; it is a word or nothing"),
    ("unet", {"pools": 3}, "pools cannot be 3; it is a list, each a list, each a whole number or nothing"),
    ("unet", {"pools": [[0, 0]] * 4}, "pools cannot be"),
    ("unet", {"pools": [[60000, 60000]] * 4}, "1024 or less together"),
    ("unet_plus_plus", {"supervised": "no"}, "supervised cannot be 'no'"),
    ("nnunet_residual", {"blocks": [10**9, 1, 1, 1, 1, 1]}, "blocks cannot be"),
    ("nnunet_residual", {"blocks": [1] * 10**5}, "blocks cannot be"),
    ("trans_unet", {"layers": 10**9}, "layers cannot be 1000000000; its numbers go from 1 to 256"),
    ("trans_unet", {"layers": -1}, "layers cannot be -1"),
    ("trans_unet", {"heads": 0}, "heads cannot be 0"),
    ("trans_unet", {"units": [0, 0, 0]}, "units cannot be"),
    ("r2_unet", {"recurrences": 10**9}, "recurrences cannot be 1000000000; its numbers go from 0 to 256"),
    ("vnet", {"convs": [], "depth": 2}, "convs needs 2 numbers"),
    ("fcn_8s", {"hidden": 0}, "hidden cannot be 0"),
    ("unet", {"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
    ("unet", {"name": "x"}, "argument 'name'"),
]


@pytest.mark.parametrize(("name", "config", "says"), NONSENSE)
def test_nonsense_is_refused_at_once(name, config, says):
    began = time.perf_counter()
    with pytest.raises(ValueError, match=says):
        sketch(name, **config)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("name", BUILDERS)
def test_published_arguments_can_be_said(name):
    check_config(BUILDERS[name], {key: v for key, v in arguments(name).items() if v is not None})


@pytest.mark.parametrize("name", FLAT)
def test_json_says_the_same_as_python(name):
    config = small(name)
    if "pools" in arguments(name):
        ndim = arguments(name).get("ndim") or 2
        config["pools"] = [[2] * ndim, [2] * ndim]
    lists, tuples = (build(name, **config), build(name, **tupled(config)))
    assert lists.geometry == tuples.geometry


def tupled(config):
    return {k: tuple(map(tuple, v)) if isinstance(v, list) else v for k, v in config.items()}


@pytest.mark.parametrize(
    "config",
    [config for name, config, _ in NONSENSE if name == "unet" and not floats(config)]
    + [{"depth": 10**9}, {"level": 10**9}, {"backbone": "hf-hub:someone/something"}, {"backbone": "../x"}],
)
def test_a_run_folder_with_a_hostile_config_is_refused_at_once(tmp_path, config):
    pytest.importorskip("timm")
    run = Run(tmp_path)
    write_tensors(tmp_path / FILE, {}, {"model": "unet", "config": config, "step": 0})
    began = time.perf_counter()
    with pytest.raises(CheckpointError):
        load_model(run, "cpu")
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", ["unet", "wide_unet"])
@pytest.mark.parametrize("up", ["nearest", "bilinear", "bilinear_aligned"])
def test_a_decoder_that_cannot_change_widths_by_upsampling_halves_them(name, up):
    model = build(name, width=8, depth=3, up=up)
    assert model.encoder.widths == (8, 16, 16)
    assert [model.nodes[key].width for key in ("x1_1", "x0_2")] == [8, 8]


@pytest.mark.parametrize("name", ["unet", "wide_unet"])
@pytest.mark.parametrize("up", ["transposed", "nearest_conv"])
def test_a_decoder_with_weights_in_its_upsampling_halves_nothing_else(name, up):
    model = build(name, width=8, depth=3, up=up)
    assert model.encoder.widths == (8, 16, 32)
    assert [model.nodes[key].width for key in ("x1_1", "x0_2")] == [16, 8]


@pytest.mark.parametrize("name", ["r2_unet", "r2_attention_unet"])
def test_recurrent_members_take_no_other_block(name):
    assert build(name, width=2, depth=2, block="recurrent").in_channels == 3
    with pytest.raises(ValueError, match="blocks of r2.* are recurrent"):
        build(name, width=2, depth=2, block="plain")


def test_a_stem_with_nothing_to_stand_in_for_is_refused():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="nothing for a stem to stand in for"):
        sketch("unet", backbone="vgg11", stem=True)


EFFECTS = {
    "width": 6,
    "depth": 4,
    "up": "nearest_conv",
    "norm": "instance",
    "activation": "prelu",
    "bias": True,
    "padding": "valid",
    "dropout": 0.2,
    "block": "residual",
    "merge": "sum",
    "gate": True,
    "stem": True,
    "ndim": 3,
    "pools": [[4, 4], [2, 2]],
}
"""An option -> a value that is no member's default."""

CONFLICTS = {
    None: {"stem"},
    "resnet18": {"ndim", "pools"},
    "r2": {"padding"},
}
"""Options that are refused: without a backbone, with one, in recurrent members."""


@pytest.mark.parametrize("backbone", [None, "resnet18"])
@pytest.mark.parametrize("name", [name for name in BUILDERS if "backbone" in arguments(name)])
def test_every_option_changes_the_network_or_is_refused(name, backbone):
    if backbone:
        pytest.importorskip("timm")
    recurrent = name.startswith("r2")
    values = EFFECTS | ({"block": "recurrent"} if recurrent else {})
    values |= {"up": "nearest"} if name == "unet_3_plus" else {}
    before = {"width": 4, "depth": 3, "backbone": backbone, "norm": "batch"}
    if "gate" in arguments(name):
        before |= {"up": "transposed", "dropout": 0.0, "bias": None, "gate": False}
    plain = repr(sketch(name, **before))
    for key in values.keys() & arguments(name).keys():
        asked = before | {key: values[key]}
        if key in CONFLICTS[backbone] | (CONFLICTS["r2"] if recurrent else set()):
            with pytest.raises(ValueError, match=r"stem|axes|pools|padding"):
                sketch(name, **asked)
        else:
            assert repr(sketch(name, **asked)) != plain, key


def test_sizes_of_a_network_are_known_without_its_weights():
    assert all(parameter.is_meta for parameter in sketch("unet", width=4).parameters())
    assert models.sketch("unet").encoder.widths[0] == 64
