"""Networks whose outputs are cropped, and those of volumes, as one graph for any batch and any legal size."""

import pytest
import torch
from test_compile_and_export import assert_equal, images
from torch.export import Dim

from skipway import models

ROWS = {
    "fcn_8s": {"hidden": 4},
    "fcn_16s": {"hidden": 4, "learned_up": True},
    "fcn": {"depth": 3, "stop": 1},
    "unet_two_level": {},
    "unet_3d_2016": {"depth": 2, "padding": "same"},
}


@pytest.fixture(
    params=["fcn_8s", *(pytest.param(row, marks=pytest.mark.slow) for row in ROWS if row != "fcn_8s")]
)
def model(request):
    torch.manual_seed(0)
    model = models.build(request.param, in_channels=1, width=2, **ROWS[request.param]).eval()
    for key, parameter in model.named_parameters():
        if ".score." in key:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiles_into_one_graph(model):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for batch, periods in ((1, 2), (3, 4)):
            x = images(model, batch, periods)
            assert_equal(compiled(x), model(x))


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_exports_with_any_batch_and_any_legal_size(model):
    shape = model.geometry
    sides = {
        2 + axis: stride * Dim(f"n{axis}", min=least // stride, max=500) + least % stride
        for axis, (least, stride) in enumerate(zip(shape.smallest, shape.stride, strict=True))
    }
    example = images(model, 2, 3)
    program = torch.export.export(model, (example,), dynamic_shapes={"x": {0: Dim("batch"), **sides}})
    with torch.no_grad():
        for batch, periods in ((2, 3), (1, 5)):
            x = images(model, batch, periods)
            assert_equal(program.module()(x), model(x))
