"""Backends compute what the network computes; the fastest is chosen by measuring; what loses too much is refused."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.io import imread
from torch import nn
from toys import draw, skipway, start

from skipway import api
from skipway.devices import fast_bf16
from skipway.errors import DataError, EnvironmentFault, TopologyError, UsageError
from skipway.models import build
from skipway.predict import backends, predict_array
from skipway.predict.backends import BACKENDS, Backend, built, chosen, fastest
from skipway.predict.ensemble import Ensemble
from skipway.predict.parity import Parity, compared
from skipway.predict.pixels import ArrayPixels
from skipway.predict.runtimes import Exported, onnx_of, onnxruntime_session, quantised
from skipway.predict.samples import SIDE, sampled

bf16 = pytest.mark.skipif(not fast_bf16(torch.device("cpu")), reason="no bfloat16 here")


@pytest.fixture(autouse=True)
def no_trace(monkeypatch):
    """Pytest would keep every record of the compiler's own trace."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that has learned something, and new images."""
    folder = tmp_path_factory.mktemp("backends")
    draw(folder / "data", count=5)
    draw(folder / "new", count=3, size=96, first=40)
    start(folder / "data", folder / "run", steps=80, width=8, depth=3)
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return api.load(folder / "run", device="cpu")


def masks(folder, predictor, out, **options):
    """Masks of the new images, one array, and what was said."""
    said = []
    api.predict_files(predictor, folder / "new" / "images", out, api.FileOptions(**options), said.append)
    files = sorted(out.glob("*.tif"))
    assert len(files) == 3
    return np.stack([imread(file) for file in files]), said


@pytest.fixture(scope="module")
def wanted(folder, predictor, tmp_path_factory):
    found, said = masks(folder, predictor, tmp_path_factory.mktemp("wanted"), tile=32)
    assert not [event for event in said if event.get("name") == "backend"]
    assert 0.05 < (found > 0).mean() < 0.95
    return found


UNHELD = [name for name, backend in BACKENDS.items() if not backend.held]


@pytest.mark.parametrize("name", UNHELD)
def test_every_backend_writes_the_masks_of_the_network(folder, predictor, wanted, tmp_path, name):
    found, said = masks(folder, predictor, tmp_path, backend=name, tile=32)
    assert np.array_equal(found, wanted)
    lines = [event["text"] for event in said if event.get("name") == "backend"]
    assert lines == ([] if name == "torch" else [f"{name}, fp32"])
    assert "WARNING" not in said[-1]["certificate"]


@bf16
@pytest.mark.parametrize("name", ["torch", "packed", pytest.param("openvino", marks=pytest.mark.slow)])
def test_bfloat16_is_near_and_its_tiles_are(folder, predictor, wanted, tmp_path, name):
    found, said = masks(folder, predictor, tmp_path, backend=name, precision="bf16", tile=32)
    assert ((found > 0) != (wanted > 0)).mean() < 0.005
    assert "WARNING" not in said[-1]["certificate"]


@pytest.mark.slow
def test_auto_measures_all_and_says_what_it_took(folder, predictor, wanted, tmp_path):
    found, said = masks(folder, predictor, tmp_path, backend="auto")
    assert np.array_equal(found, wanted)
    (line,) = [event["text"] for event in said if event.get("name") == "backend"]
    assert line.split(",")[0] in BACKENDS
    assert all(f"{name} " in line for name in UNHELD)
    assert "compile" not in line
    assert "refused" not in line


@pytest.mark.slow
def test_eight_bits_that_lose_too_much_are_refused_before_anything_is_written(folder, predictor, tmp_path):
    """A few wrong pixels along the edges of such small cells are more than half a point."""
    with pytest.raises(
        DataError, match=r"in int8 [\d.]+ points are lost on 6 tiles \([\d.]+ % of labels differ, Dice 0.9"
    ):
        masks(folder, predictor, tmp_path / "out", backend="openvino", precision="int8")
    assert not (tmp_path / "out").exists()


def test_eight_bits_are_calibrated_on_the_images_and_held_against_fp32(
    folder, predictor, wanted, tmp_path, monkeypatch
):
    monkeypatch.setattr(backends, "POINTS", 3.0)
    found, said = masks(folder, predictor, tmp_path, backend="openvino", precision="int8")
    (line,) = [event["text"] for event in said if event.get("name") == "backend"]
    assert line.startswith(
        "openvino, int8: calibrated on 6 tiles; on 6 others "
    )  # a quarter of an image each
    changed = ((found > 0) != (wanted > 0)).mean()
    assert 0 < changed < 0.02  # not the network itself, and near it


def test_eight_bits_of_the_wrong_range_are_refused_with_figures(predictor):
    rng = np.random.default_rng(0)
    tiles = [torch.from_numpy(rng.normal(size=(1, 1, 32, 32)).astype(np.float32)) for _ in range(6)]
    dark = [tile * (0.01 if number % 2 == 0 else 1) for number, tile in enumerate(tiles)]
    with pytest.raises(
        DataError, match=r"in int8 [\d.e+]+ points are lost on 3 tiles .* expected at most 0.5"
    ) as caught:
        chosen(predictor.model, "openvino", "int8", dark)
    assert "Fix: --precision bf16 or fp32" in str(caught.value)


class Slow(nn.Module):
    """The network, with an offset on one class, that takes so many seconds of a clock of its own."""

    def __init__(self, model, clock, seconds, offset=0.0):
        super().__init__()
        self.model, self.clock, self.seconds, self.offset = model, clock, seconds, offset

    def forward(self, x):
        self.clock[0] += self.seconds
        logits = self.model(x)[-1].clone()
        logits[:, 0] += self.offset
        return (logits,)


def planted(monkeypatch, clock, **rows):
    """A table of backends of known speed; the numbers are seconds and an offset."""
    table = {
        name: Backend(lambda model, *_, row=row: Slow(model, clock, *row), backends.PRECISIONS)
        for name, row in rows.items()
    }
    monkeypatch.setattr(backends, "BACKENDS", table)


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = build("unet", in_channels=1, classes=3, width=4, depth=2).eval()
    head = model.heads["x0_1"].layers.conv
    torch.nn.init.normal_(head.weight)
    head.bias.data.zero_()
    return model


def some(count=4, side=32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 1, side, side, generator=generator) for _ in range(count)]


def test_the_fastest_that_agrees_is_taken(monkeypatch, network):
    clock = [0.0]
    planted(monkeypatch, clock, slow=(3.0,), fast=(1.0,), wrong=(0.5, 0.2))
    choice = fastest(network, "fp32", some(), clock=lambda: clock[0])
    assert choice.name == "fast"
    assert choice.said.startswith("fast, fp32: fast 1 s, slow 3 s for 32 × 32 pixels; wrong refused, ")
    planted(monkeypatch, clock, slow=(3.0,), fast=(1.0,), right=(0.5, 0.0))  # its clean twin
    assert fastest(network, "fp32", some(), clock=lambda: clock[0]).name == "right"


def test_what_nobody_computes_right_is_refused(monkeypatch, network):
    planted(monkeypatch, [0.0], wrong=(1.0, 0.2), broken=("not a number",))
    with pytest.raises(DataError, match=r"wrong: .* % of labels differ.*; broken: it cannot compute"):
        fastest(network, "fp32", some())


def test_parity_is_counted_over_all_tiles():
    class Fixed(nn.Module):
        def __init__(self, *classes):
            super().__init__()
            self.zero = nn.Parameter(torch.zeros(1))
            self.classes = classes

        def forward(self, x):
            labels = torch.tensor(self.classes[int(x[0, 0, 0, 0])])
            return (nn.functional.one_hot(labels, 3).movedim(-1, 0)[None, :, None].float(),)

    tiles = [torch.full((1, 1, 1, 4), float(number)) for number in range(2)]
    reference, model = Fixed([0, 1, 1, 1], [0, 0, 2, 2]), Fixed([0, 1, 1, 0], [0, 0, 2, 2])
    found = compared(model, reference, tiles)
    assert found.changed == 1 / 8
    assert found.dice == pytest.approx((2 * 2 / 5 + 1) / 2)
    assert found.difference == 1.0
    assert found.lost == pytest.approx(100 * 0.125)
    assert compared(reference, reference, tiles) == Parity(0.0, 0.0, 1.0)


def test_each_precision_has_its_bound():
    assert Parity(9e-5, 0.0, 1.0).holds("fp32")
    assert not Parity(2e-4, 0.0, 1.0).holds("fp32")
    assert not Parity(0.0, 1e-9, 1.0).holds("fp32")
    for precision in ("bf16", "int8"):
        assert Parity(1.0, 0.0049, 0.9951).holds(precision)
        assert not Parity(0.0, 0.0051, 1.0).holds(precision)
        assert not Parity(0.0, 0.0, 0.9949).holds(precision)


@pytest.mark.parametrize("name", ["packed", pytest.param("openvino", marks=pytest.mark.slow)])
def test_several_networks_are_handed_over_one_by_one(network, name):
    torch.manual_seed(1)
    other = build("unet", in_channels=1, classes=3, width=4, depth=2).eval()
    both = Ensemble([network, other]).eval()
    found = compared(built(both, name, "fp32"), both, some(2))
    assert found.holds("fp32")
    assert compared(built(network, name, "fp32"), both, some(2)).difference > 0.01


@pytest.mark.slow
def test_a_handed_over_network_gives_its_last_output_alone_or_all():
    torch.manual_seed(0)
    model = build("unet_plus_plus", in_channels=1, classes=2, width=4, depth=3, supervised=True).eval()
    made = built(model, "onnxruntime", "fp32")
    x = some(1)[0]
    with torch.no_grad():
        wanted = model(x)
    assert isinstance(made, Exported)
    assert [a.shape for a in made(x)] == [b.shape for b in wanted]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(made(x), wanted, strict=True))
    (alone,) = made.pruned(2)(x)
    assert torch.allclose(alone, wanted[-1], atol=1e-5)
    with pytest.raises(TopologyError, match="choose before"):
        made.pruned(1)


def test_what_is_not_installed_is_named_with_the_command(monkeypatch, network):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        EnvironmentFault, match=r"openvino is not installed. Fix: `uv sync --extra openvino`, or"
    ):
        built(network, "openvino", "fp32")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(EnvironmentFault, match="onnxscript is not installed"):
        built(network, "onnxruntime", "fp32")


REPORTS = """
import sys, torch
from onnx import TensorProto, helper
from skipway.predict.runtimes import openvino_session
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in ("x", "y")]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
run = openvino_session(model.SerializeToString())
print(run(torch.tensor([[-1.0, 2.0]]).numpy())[0].tolist(), "openvino_telemetry" in sys.modules)
"""


def test_openvino_is_kept_from_reporting(tmp_path):
    """Imported as it is, its package writes an identity into the home folder and sends it away."""
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    command, home = [sys.executable, "-c", REPORTS], {**clean, "HOME": str(tmp_path)}
    done = subprocess.run(command, env=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[0.0, 2.0]] False"
    assert not (tmp_path / "intel").exists()


@pytest.mark.slow
def test_eight_bits_are_in_the_file():
    from onnx import load_from_string

    torch.manual_seed(0)
    model = build("unet", in_channels=1, classes=2, width=4, depth=2).eval()
    file = quantised(onnx_of(model), some(2))
    graph = load_from_string(file).graph
    kinds = [node.op_type for node in graph.node]
    assert "QuantizeLinear" in kinds
    weights = [tensor for tensor in graph.initializer if tensor.data_type == 3 and len(tensor.dims) == 4]
    assert len(weights) == len([k for k in kinds if "Conv" in k]) - 2  # all but the first and the head's
    assert len(onnxruntime_session(file)(some(1)[0].numpy())) == 1


def test_tiles_are_windows_of_the_image():
    model = build("unet", in_channels=1, classes=2, width=2, depth=3)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 70, 1300)).astype(np.float32)
    tiles = sampled(ArrayPixels(image), None, model.geometry, 99)
    assert len(tiles) == 2 * 3  # cells of half of 70 by 512
    assert len({tile.numpy().tobytes() for tile in tiles}) == 6
    step, halo = model.geometry.stride[1], model.geometry.halo[1]
    for tile in tiles:
        assert tile.shape[3] <= SIDE[2] + 2 * (halo + step)
        row = tile[0, 0, tile.shape[2] // 2]
        inside = np.lib.stride_tricks.sliding_window_view(image[0], 64, axis=1)
        assert (inside == row[200:264].numpy()).all(-1).any()
    again = sampled(ArrayPixels(image), None, model.geometry, 99)
    assert all(torch.equal(a, b) for a, b in zip(tiles, again, strict=True))
    offset = np.array([1.0], np.float32), np.array([2.0], np.float32)
    scaled = sampled(ArrayPixels(image), offset, model.geometry, 1)
    assert torch.allclose(scaled[0], (tiles[0] - 1) / 2, atol=1e-6)


def test_python_measures_on_arrays(folder, predictor, monkeypatch):
    image = imread(folder / "new" / "images" / "c0.tif")
    monkeypatch.delitem(backends.BACKENDS, "onnxruntime")
    monkeypatch.delitem(backends.BACKENDS, "openvino")
    fast = predictor.running("auto", images=[image])
    assert fast.backend.split(",")[0] in ("torch", "packed")
    assert np.array_equal(fast.predict(image), predictor.predict(image))
    assert predictor.running("torch") is predictor
    packed = api.load(folder / "run", device="cpu", backend="packed")
    assert np.array_equal(packed.predict(image), predictor.predict(image))
    with pytest.raises(UsageError, match="measured on images, and there are none"):
        predictor.running("auto")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--backend", "tensorflow"), 2, "found 'tensorflow', expected one of auto, torch, packed"),
        (("--precision", "fp8"), 2, "found 'fp8', expected one of fp32, bf16, int8"),
        (
            ("--backend", "packed", "--precision", "int8"),
            2,
            "packed has no int8, expected fp32 or bf16. Fix: --backend auto,",
        ),
    ],
)
def test_the_command_line_refuses_what_is_not_there(folder, tmp_path, words, code, text):
    found, _, err = skipway(
        "predict", folder / "run", folder / "new" / "images", "-o", tmp_path / "out", *words
    )
    assert (found, text in err) == (code, True), err
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_which(folder, wanted, tmp_path):
    code, out, err = skipway(
        "predict", folder / "run", folder / "new" / "images", "-o", tmp_path, "--backend", "packed", "--json",
    )  # fmt: skip
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert {"event": "line", "name": "backend", "text": "packed, fp32"} in events
    assert np.array_equal(np.stack([imread(f) for f in sorted(tmp_path.glob("*.tif"))]), wanted)


@bf16
def test_bfloat16_that_the_processor_lacks_is_refused(monkeypatch, network):
    monkeypatch.setattr(backends, "fast_bf16", lambda device: False)
    with pytest.raises(EnvironmentFault, match="cpu has no bfloat16 arithmetic"):
        built(network, "packed", "bf16")


@bf16
def test_tiles_of_bfloat16_are_judged_by_its_rounding():
    torch.manual_seed(0)
    model = build("unet", in_channels=1, classes=2, width=8, depth=3).eval()
    array = np.random.default_rng(0).normal(size=(1, 150, 170)).astype(np.float32)
    found = predict_array(built(model, "packed", "bf16"), array, tile=48).certificate
    assert found.holds
    assert found.rounding == backends.ROUNDING_BF16
    assert predict_array(model, array, tile=48).certificate.rounding == 1e-4


@pytest.mark.slow
def test_a_compiled_network_is_held_against_itself_on_tiles(folder, predictor, wanted, tmp_path):
    found, said = masks(folder, predictor, tmp_path, backend="compile", tile=32)
    assert np.array_equal(found, wanted)
    (line,) = [event["text"] for event in said if event.get("name") == "backend"]
    assert line.startswith("compile, fp32: on 4 tiles 0 % of labels differ, Dice 1.0000")
    assert "WARNING" not in said[-1]["certificate"]
    with pytest.raises(UsageError, match="backend compile.* is measured on images, and there are none"):
        predictor.running("compile")


@pytest.mark.slow
def test_a_compiled_network_computes_the_same(network):
    choice = chosen(network, "compile", "fp32", some(2))
    assert choice.said.startswith("compile, fp32: on 2 tiles 0 % of labels differ, Dice 1.0000")
    assert not torch.equal(choice.model(some(1)[0])[-1], network(some(1)[0])[-1])  # in another order
    with pytest.raises(UsageError, match="handed to a runtime already"):
        built(choice.model, "packed", "fp32")


def test_what_a_compiler_gets_wrong_is_refused(monkeypatch, network):
    row = Backend(lambda model, *_: Slow(model, [0.0], 0.0, 0.2), ("fp32",), held=True)
    monkeypatch.setattr(backends, "BACKENDS", {"compile": row})
    with pytest.raises(DataError, match=r"in fp32 [\d.]+ points are lost on 4 tiles.*Fix: --backend torch"):
        chosen(network, "compile", "fp32", some())


def test_no_compiler_is_one_line(network):
    from torch._inductor import config

    torch._dynamo.reset()  # networks of one kind share their code
    nowhere = config.patch({"cpp.cxx": (None, "/nowhere/g++"), "fx_graph_cache": False})
    with nowhere, pytest.raises(EnvironmentFault) as caught:
        chosen(network, "compile", "fp32", some(1))
    (line,) = caught.value.lines
    assert "torch cannot compile here" in line
    assert "No working C++ compiler found" in line
    assert line.endswith("Fix: install a C++ compiler such as g++, or --backend packed")
    assert len(line) < 500
