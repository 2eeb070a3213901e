"""Every member, in the plane and in space, as one graph, as an exported program and as a file of ONNX.

They keep any batch and any legal size: what they give at one that the exporter never saw is what the network itself
gives. The smallest size is the exception: where its deepest map is a single pixel, a program of `torch.export` refuses
it by a guard of torch's own ("x.size()[2] // 4 != 1"). ONNX takes it.
"""

import logging

import onnxruntime
import pytest
import torch
from torch.export import Dim

from members import MEMBERS, made
from skipway.models import arguments

FAST = {
    ("unet", 2),
    ("unet_3_plus", 2),
    ("attention_unet", 2),
    ("vnet", 3),
}  # the exporters take seconds a network
EXAMPLE = (2, {2: 3, 3: 1})  # a batch of one would become a constant
OTHERS = ((1, {2: 1, 3: 2}), (3, {2: 5, 3: 3}))
SMALLEST = (1, {2: 0, 3: 0})


def legal(model, batch, periods):
    """Images whose sides are `periods` strides above the smallest, one more for each axis after the first."""
    shape = model.geometry
    sides = [
        least + (periods[model.ndim] + axis) * stride
        for axis, (least, stride) in enumerate(zip(shape.smallest, shape.stride, strict=True))
    ]
    return torch.randn(batch, 1, *sides)


def any_legal_size(model):
    """Batch and sides as the exporters want them: stride * n + rest, with n from the smallest size on."""
    sides = {}
    for axis, (least, stride) in enumerate(zip(model.geometry.smallest, model.geometry.stride, strict=True)):
        number = Dim(f"n{axis}", min=least // stride, max=1000)
        sides[2 + axis] = stride * number + least % stride if stride > 1 else number
    return {"x": {0: Dim("batch"), **sides}}


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert float(b.std()) > 1e-3  # two dead networks would agree as well
        assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


@pytest.fixture(autouse=True)
def no_trace(monkeypatch):
    """Pytest would keep every record of the compiler's own trace."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


@pytest.mark.filterwarnings("ignore")  # the compiler's and the exporters' own
@pytest.mark.parametrize(
    ("name", "ndim"),
    [case if case in FAST else pytest.param(*case, marks=pytest.mark.slow) for case in MEMBERS],
)
def test_compiled_and_exported_gives_the_same_at_sizes_never_seen(name, ndim):
    model = made(name, ndim, **({"width": 4} if "width" in arguments(name) else {}))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    program = torch.export.export(model, (legal(model, *EXAMPLE),), dynamic_shapes=any_legal_size(model))
    onnx = torch.onnx.export(program, dynamo=True, verbose=False).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    program = program.module()
    with torch.no_grad():
        for batch, periods in (*OTHERS, SMALLEST):
            images = legal(model, batch, periods)
            wanted = model(images)
            assert_same([torch.from_numpy(a) for a in session.run(None, {"x": images.numpy()})], wanted)
            if periods is not SMALLEST[1]:
                assert_same(compiled(images), wanted)
                assert_same(program(images), wanted)
