"""Blocks, gates and strided encoders: the arithmetic against what torch does, tiles against the whole."""

import pytest
import torch
from test_geometry import check_field, randomise, tile_error

from skipway import models
from skipway.nn.style import BLOCKS

STRIDED = ["residual_unet", "vnet", "nnunet", "nnunet_residual"]
SUPERVISED = {"nnunet": {"supervised": True}, "nnunet_residual": {"supervised": True}}


def build(name, **options):
    if name.startswith("nnunet"):
        options = {"norm": "batch"} | options  # instance norm sees everything
    return models.build(name, **({"in_channels": 1, "width": 2} | options)).double().eval()


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("depth", [2, 4])
def test_a_size_is_legal_exactly_when_torch_can_run_it_and_the_output_has_the_size_said(name, depth):
    model = build(name, depth=depth, ndim=1)
    model._check = lambda x: None  # let torch decide
    for side in range(1, 50):
        image = torch.zeros(1, 1, side, dtype=torch.double)
        if model.geometry.legal((side,)):
            assert all(logits.shape[2:] == (side,) for logits in model(image))
        else:
            with pytest.raises(RuntimeError):
                model(image)


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        *[("unet", {"block": block, "depth": 3}, 256) for block in BLOCKS],
        ("unet", {"block": "recurrent", "depth": 2, "up": "bilinear"}, 256),
        ("unet", {"block": "residual_each", "padding": "valid", "depth": 3}, 252),
        ("unet", {"block": "preactivation", "padding": "valid", "depth": 3}, 252),
        ("residual_unet", {}, 256),
        ("residual_unet", {"up": "transposed", "depth": 3}, 256),
        ("attention_unet", {"depth": 4}, 512),
        ("r2_attention_unet", {"depth": 3, "recurrences": 1}, 512),
        ("vnet", {}, 1024),
        ("nnunet", {"depth": 4, "supervised": False}, 256),
        ("nnunet_residual", {"depth": 3, "supervised": False}, 512),
    ],
    ids=str,
)
def test_receptive_field_and_halo_equal_those_measured_by_gradients(name, options, side):
    check_field(build(name, ndim=1, **options), (side,))


@pytest.mark.parametrize(("axis", "size"), [(0, (48, 8, 16)), (2, (4, 8, 96))])
def test_receptive_field_holds_on_every_axis_of_uneven_strides_and_kernels(axis, size):
    model = build(
        "nnunet",
        depth=3,
        pools=[(1, 2, 2), (2, 2, 2)],
        kernels=[(1, 3, 3), (1, 3, 5), (3, 3, 3)],
        supervised=False,
    )
    assert model.geometry.stride == (2, 4, 4)
    check_field(model, size, axis)


TILES = [
    *[("unet", {"depth": 2, "block": block}, 96, 8) for block in BLOCKS],
    ("unet_plus_plus", {"depth": 3, "gate": True, "supervised": True, "dropout": 0.0}, 96, 8),
    ("residual_unet", {"depth": 3}, 96, 8),
    ("attention_unet", {"depth": 3}, 112, 8),
    ("attention_unet", {"depth": 2, "ndim": 3}, 40, 4),
    ("r2_attention_unet", {"depth": 2}, 160, 8),
    ("vnet", {"depth": 3, "ndim": 2}, 160, 8),
    ("vnet", {"depth": 2, "ndim": 3, "convs": [1, 1], "up_convs": [1]}, 32, 4),
    ("nnunet", {"depth": 3, "ndim": 2}, 96, 8),
    ("nnunet_residual", {"depth": 2, "ndim": 2}, 112, 8),
]


@pytest.mark.parametrize(("name", "options", "side", "core"), TILES, ids=str)
def test_a_crop_with_its_halo_gives_what_the_whole_image_gives(name, options, side, core):
    model = randomise(build(name, **options), seed=0)
    assert model.geometry.tile_exact
    halo = model.geometry.halo[0]
    assert halo + core < side // 2 + halo < side  # or the tile would be the image
    assert tile_error(model, side, core, halo) <= 1e-12


@pytest.mark.parametrize("name", ["residual_unet", "attention_unet", "vnet"])
def test_one_stride_less_of_halo_is_not_enough(name):
    model = randomise(build(name, depth=3, ndim=2), seed=0)
    shape = model.geometry
    assert tile_error(model, 160, 8, shape.halo[0] - shape.stride[0]) > 1e-10


def test_the_published_norm_of_nnunet_is_not_tile_exact():
    model = randomise(build("nnunet", depth=3, ndim=2, norm="instance"), seed=0)
    assert not model.geometry.tile_exact
    assert tile_error(model, 96, 8, model.geometry.halo[0]) > 1e-3
