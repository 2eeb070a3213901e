"""TransUNet becomes one graph, at one size and at any."""

import pytest
import torch
from torch.export import Dim

from skipway import models


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.trans_unet(width=2, units=(1, 1, 1), layers=1, heads=2, size=32).eval()


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiles_into_one_graph(model):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for shape in ((1, 1, 32, 48), (3, 1, 64, 32)):
            image = torch.randn(shape)
            assert torch.allclose(compiled(image)[0], model(image)[0], atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_exports_with_any_batch_and_any_legal_size(model):
    sides = {2: 16 * Dim("rows", min=1, max=100), 3: 16 * Dim("columns", min=1, max=100)}
    example = torch.randn(2, 1, 48, 64)
    program = torch.export.export(model, (example,), dynamic_shapes={"x": {0: Dim("batch"), **sides}})
    with torch.no_grad():
        for image in (example, torch.randn(1, 1, 80, 32)):
            assert torch.allclose(program.module()(image)[0], model(image)[0], atol=1e-5)
