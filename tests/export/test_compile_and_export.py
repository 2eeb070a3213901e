"""One graph without breaks, and one that keeps any batch and any legal size."""

import pytest
import torch
from torch.export import Dim

from skipway import models

ROWS = {
    "unet_2015": ("unet_2015", {}),
    "unet": ("unet", {}),
    "unet bilinear": ("unet", {"up": "bilinear", "depth": 2}),
    "unet nearest": ("unet", {"up": "nearest", "norm": "channel_layer", "depth": 2}),
    "unet valid sum residual": (
        "unet",
        {"padding": "valid", "merge": "sum", "block": "residual", "depth": 2},
    ),
    "unet instance": ("unet", {"norm": "instance", "depth": 2}),
    "unet 3-D": ("unet", {"ndim": 3, "pools": [(1, 2, 2)], "depth": 2}),
    "unet_e": ("unet_e", {}),
    "unet_plus": ("unet_plus", {"supervised": True}),
    "unet_plus_plus": ("unet_plus_plus", {"supervised": True}),
    "unet_plus_plus valid": ("unet_plus_plus", {"supervised": True, "padding": "valid"}),
    "unet_3_plus": ("unet_3_plus", {"supervised": True}),
}


FAST = {"unet_2015", "unet", "unet_plus_plus valid"}  # the compiler takes seconds a network


@pytest.fixture(params=[row if row in FAST else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def model(request):
    name, options = ROWS[request.param]
    torch.manual_seed(0)
    return models.build(name, in_channels=1, width=2, **({"depth": 3} | options)).eval()


def images(model, batch, periods):
    shape = model.geometry
    size = [least + (k + axis) * s for axis, (least, s, k) in enumerate(
        zip(shape.smallest, shape.stride, [periods] * shape.ndim, strict=True))]  # fmt: skip
    return torch.randn(batch, 1, *size)


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiles_into_one_graph(model):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for batch, periods in ((1, 2), (3, 5)):
            x = images(model, batch, periods)
            assert_equal(compiled(x), model(x))


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_exports_with_any_batch_and_any_legal_size(model):
    shape = model.geometry
    sides = {}
    for axis, (least, stride) in enumerate(zip(shape.smallest, shape.stride, strict=True)):
        rest = least % stride
        sides[2 + axis] = (
            stride * Dim(f"n{axis}", min=least // stride, max=500) + rest
            if stride > 1
            else Dim(f"n{axis}", min=least)
        )
    example = images(model, 2, 3)
    program = torch.export.export(model, (example,), dynamic_shapes={"x": {0: Dim("batch"), **sides}})
    with torch.no_grad():
        for batch, periods in ((2, 3), (1, 6)):
            x = images(model, batch, periods)
            assert_equal(program.module()(x), model(x))
