"""A network run by ONNX Runtime or OpenVINO, which are optional packages, behind the surface of a `SkipGraph`.

Nothing here talks to a network. OpenVINO would: its package sends usage data when it is imported and when it
converts a model, and so does its quantiser, so that one is imported without its reporter, models go to it as ONNX,
and 8-bit networks are calibrated by ONNX Runtime.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipway.errors import EnvironmentFault, Problem, TopologyError, extra
from skipway.nn.folding import folded
from skipway.nn.graph import SkipGraph

Session = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""From images (B, C, *S) to all outputs of a network."""

_REPORTER = "openvino_telemetry"
_PERIODS = {2: 3, 3: 1}
"""Strides above the smallest size of the example that is exported; at the smallest itself torch refuses others."""


class Exported(nn.Module):
    """A network that another runtime computes on the CPU; to predict with, like the graph it was made of.

    Args:
        model: The graph; its geometry and channels are taken over, its weights are not.
        session: Computes all of its outputs.
    """

    def __init__(self, model: SkipGraph, session: Session) -> None:
        super().__init__()
        self.name = model.name
        self.topology = model.topology
        self.geometry = model.geometry
        self.ndim = model.ndim
        self.in_channels = model.in_channels
        self.classes = model.classes
        self.rounding: float = model.rounding
        self._session = session
        self._last_alone = False
        width = len(next(model.parameters()))
        self.like = nn.Parameter(torch.zeros(width), requires_grad=False)  # tells device, type and width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits as of `SkipGraph.forward`, for images (B, in_channels, *S) of float32 on the CPU."""
        found = [torch.from_numpy(output) for output in self._session(x.contiguous().numpy())]
        return (found[-1],) if self._last_alone else tuple(found)

    def frugal(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, ...]:
        """The same; memory is a matter of the runtime."""
        return self(x)

    def pruned(self, level: int) -> "Exported":
        """The same with the last output alone; the runtime computes the others too.

        Raises:
            TopologyError: another level is asked for; of it a network is made before it is handed to a runtime.
        """
        last = self.topology.outputs[-1]
        if level != last.column:
            raise TopologyError(
                f"{self.name} was handed to a runtime with output L{last.column}; choose before"
            )
        alone = copy(self)
        alone.topology, alone._last_alone = self.topology.pruned(last), True
        return alone


def onnx_of(model: SkipGraph) -> bytes:
    """A network as a file of ONNX that takes any batch and any legal size; its input is called `x`.

    Raises:
        EnvironmentFault: the packages that write ONNX are not installed.
    """
    for package in ("onnx", "onnxscript"):
        needed(package, "onnxruntime")
    from torch.export import Dim  # loads torch's compiler

    shape, start = model.geometry, _PERIODS.get(model.ndim, 1)
    sides: dict[int, Any] = {0: Dim("batch")}
    example = [2, model.in_channels]  # a batch of one would become a constant
    for axis, (least, stride) in enumerate(zip(shape.smallest, shape.stride, strict=True)):
        count = Dim(f"n{axis}", min=least // stride, max=2**20)
        sides[2 + axis] = stride * count + least % stride if stride > 1 else count
        example.append(least + (start + axis) * stride)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporters' own
        program = torch.export.export(
            folded(model).cpu().float(), (torch.zeros(example),), dynamic_shapes={"x": sides}
        )
        made: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    written: bytes = made.model_proto.SerializeToString()
    return written


def onnxruntime_session(file: bytes) -> Session:
    """Run a file of ONNX with ONNX Runtime.

    Raises:
        EnvironmentFault: it is not installed.
    """
    runtime = needed("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})


def openvino_session(file: bytes, precision: str = "f32") -> Session:
    """Run a file of ONNX with OpenVINO.

    Args:
        file: The file.
        precision: "f32" or "bf16", that of the arithmetic; 8-bit parts stay in 8 bits.

    Raises:
        EnvironmentFault: it is not installed.
    """
    with _without(_REPORTER):
        runtime = needed("openvino", "openvino")
    core = runtime.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # it would take bfloat16 unasked
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(file), "CPU", settings)
    request = compiled.create_infer_request()
    # What comes out lies in the request's own memory, which the next call overwrites.
    return lambda x: [np.array(output) for output in request.infer({0: x}).values()]


def quantised(file: bytes, tiles: Sequence[Tensor]) -> bytes:
    """A network with weights and maps of 8 bits, their ranges taken from what it makes of real tiles.

    Weights have a scale for each channel; the first convolution and those that give the logits stay in float32.

    Args:
        file: The network as ONNX.
        tiles: What it sees, each (B, C, *S), normalised.

    Raises:
        EnvironmentFault: ONNX Runtime is not installed.
    """
    needed("onnxruntime", "openvino")
    onnx = needed("onnx", "openvino")
    tools = import_module("onnxruntime.quantization")
    prepare = import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    with TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder) / name for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        plain.write_bytes(file)
        prepare(str(plain), str(ready), skip_symbolic_shape=True)
        graph = onnx.load(str(ready)).graph
        outputs = {output.name for output in graph.output}
        ends = [node.name for node in graph.node if outputs & set(node.output) or "x" in node.input]
        tools.quantize_static(
            str(ready),
            str(small),
            _Reader(tiles),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            nodes_to_exclude=ends,
        )
        return small.read_bytes()


class _Reader:
    """Tiles as the calibration asks for them, one a call, then None."""

    def __init__(self, tiles: Sequence[Tensor]) -> None:
        self._tiles = iter(tiles)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next tile."""
        tile = next(self._tiles, None)
        return None if tile is None else {"x": tile.float().numpy()}


def needed(package: str, backend: str) -> Any:
    """An optional package.

    Raises:
        EnvironmentFault: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise EnvironmentFault(
            Problem(f"{package} is not installed", f"--backend {backend}", fix=extra(backend))
        ) from error


@contextmanager
def _without(package: str) -> Iterator[None]:
    """As if a package were not installed, for imports inside; those who have it already keep it."""
    there = package in sys.modules
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if there and before is not None:
            sys.modules[package] = before
