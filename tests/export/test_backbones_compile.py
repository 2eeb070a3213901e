"""Networks over a backbone become one graph too, and keep any legal size where the backbone's own code does."""

import pytest
import torch
from torch.export import Dim

from skipway import models

NAMES = ["resnet10t", "mobilenetv3_small_050"]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", NAMES)
def test_compiles_into_one_graph_and_exports_with_any_legal_size(name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = models.unet(backbone=name, width=2, stem=True, depth=4).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    sides = {2: 8 * Dim("rows", min=1, max=500), 3: 8 * Dim("columns", min=1, max=500)}
    example = torch.randn(2, 1, 24, 32)
    program = torch.export.export(
        model, (example,), dynamic_shapes={"x": {0: Dim("batch"), **sides}}
    ).module()
    with torch.no_grad():
        for image in (example, torch.randn(1, 1, 48, 40)):
            wanted = model(image)[0]
            assert torch.allclose(compiled(image)[0], wanted, atol=1e-5)
            assert torch.allclose(program(image)[0], wanted, atol=1e-5)
