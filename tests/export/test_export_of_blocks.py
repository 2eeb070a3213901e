"""Every kind of block, gates and strided encoders: one graph without breaks, any batch, any legal size."""

import pytest
import torch
from test_compile_and_export import assert_equal, images
from torch.export import Dim

from skipway import models
from skipway.nn.style import BLOCKS

ROWS = {
    **{block: ("unet", {"block": block, "depth": 2}) for block in BLOCKS[1:]},
    "gate": ("unet_plus_plus", {"gate": True, "supervised": True, "depth": 3}),
    "residual_unet": ("residual_unet", {"depth": 3}),
    "attention_unet": ("attention_unet", {"depth": 3}),
    "r2_attention_unet": ("r2_attention_unet", {"depth": 2}),
    "vnet": ("vnet", {"depth": 3}),
    "vnet 2-D": ("vnet", {"depth": 3, "ndim": 2}),
    "nnunet": ("nnunet", {"depth": 3, "ndim": 2}),
    "nnunet anisotropic": (
        "nnunet",
        {"depth": 3, "pools": [(1, 2, 2), (2, 2, 2)], "kernels": [(1, 3, 3), (1, 3, 3), (3, 3, 3)]},
    ),
    "nnunet_residual": ("nnunet_residual", {"depth": 3, "ndim": 2}),
}
FAST = {"residual_unet", "r2_attention_unet"}  # the compiler takes seconds a network


@pytest.fixture(params=[row if row in FAST else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def model(request):
    name, options = ROWS[request.param]
    torch.manual_seed(0)
    return models.build(name, in_channels=1, width=2, **options).eval()


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
    sides = {
        2 + i: s * Dim(f"n{i}", min=1, max=500) if s > 1 else Dim(f"n{i}", min=1)
        for i, s in enumerate(shape.stride)
    }
    example = images(model, 2, 3)
    program = torch.export.export(model, (example,), dynamic_shapes={"x": {0: Dim("batch"), **sides}})
    with torch.no_grad():
        for batch, periods in ((2, 3), (1, 6)):
            x = images(model, batch, periods)
            assert_equal(program.module()(x), model(x))
