"""What may compute a network: a table of backends, how far each may differ, and the fastest that does not."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import cast

import torch
from torch import Tensor

from skipway.devices import fast_bf16
from skipway.errors import DataError, EnvironmentFault, Problem, SkipwayError, UsageError, extra
from skipway.nn.folding import folded
from skipway.nn.graph import ROUNDING, SkipGraph
from skipway.nn.layout import for_prediction
from skipway.nn.packing import ROUNDING_BF16, packed, rounded
from skipway.predict.compiled import Compiled
from skipway.predict.ensemble import Ensemble
from skipway.predict.parity import POINTS, compared, logits_of
from skipway.predict.runtimes import Exported, onnx_of, onnxruntime_session, openvino_session, quantised

Model = SkipGraph | Ensemble | Exported | Compiled
Build = Callable[[SkipGraph, str, Sequence[Tensor]], SkipGraph | Exported | Compiled]
"""From a network, a precision and the tiles to calibrate with to what computes it."""

PRECISIONS = ("fp32", "bf16", "int8")
TILES = {"fp32": 4, "bf16": 8, "int8": 32}
"""Tiles of the user's images that are measured on; in int8 half of them calibrate."""
ROUNDS = 3
_BETTER = {"fp32": "--backend torch", "bf16": "--precision fp32", "int8": "--precision bf16 or fp32"}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Backend:
    """One way to compute a network.

    Attributes:
        build: Makes it.
        precisions: Those that it has.
        packages: What must be installed.
        cpu: Whether it computes on the CPU only.
        held: Whether it takes so long that "auto" leaves it out; asked for, it is held against the network first.
    """

    build: Build
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()
    cpu: bool = False
    held: bool = False

    @property
    def installed(self) -> bool:
        """Whether its packages are there; nothing is imported."""
        return all(find_spec(package) for package in self.packages)


def _torch(model: SkipGraph, precision: str, tiles: Sequence[Tensor]) -> SkipGraph:
    if precision == "fp32":
        return model
    return for_prediction(rounded(deepcopy(model), _DTYPES[precision]), model.ndim)


def _packed(model: SkipGraph, precision: str, tiles: Sequence[Tensor]) -> SkipGraph:
    return packed(model, _DTYPES[precision])


def _onnxruntime(model: SkipGraph, precision: str, tiles: Sequence[Tensor]) -> Exported:
    file = onnx_of(model)
    return Exported(model, onnxruntime_session(quantised(file, tiles) if precision == "int8" else file))


def _openvino(model: SkipGraph, precision: str, tiles: Sequence[Tensor]) -> Exported:
    file = onnx_of(model)
    if precision == "int8":
        file = quantised(file, tiles)
    made = Exported(model, openvino_session(file, "bf16" if precision == "bf16" else "f32"))
    if precision == "bf16":
        made.rounding = ROUNDING_BF16
    return made


def _compile(model: SkipGraph, precision: str, tiles: Sequence[Tensor]) -> Compiled:
    return Compiled(for_prediction(rounded(folded(model), _DTYPES[precision]), model.ndim))


BACKENDS: Mapping[str, Backend] = {
    "torch": Backend(_torch, ("fp32", "bf16")),
    "packed": Backend(_packed, ("fp32", "bf16")),
    "onnxruntime": Backend(_onnxruntime, ("fp32", "int8"), ("onnx", "onnxruntime", "onnxscript"), cpu=True),
    "openvino": Backend(_openvino, PRECISIONS, ("onnx", "onnxruntime", "onnxscript", "openvino"), cpu=True),
    "compile": Backend(_compile, ("fp32", "bf16"), held=True),
}
NAMES = ("auto", *BACKENDS)


def built(model: Model, name: str, precision: str, tiles: Sequence[Tensor] = ()) -> Model:
    """The network as a backend computes it; of several networks each.

    Args:
        model: Network, or several as one; not changed.
        name: A key of `BACKENDS`.
        precision: One of `PRECISIONS`.
        tiles: To calibrate 8 bits with.

    Raises:
        UsageError: no such backend or precision, or a device that it does not compute on.
        EnvironmentFault: a package is missing, or the processor has no bfloat16.
    """
    _check(model, name, precision)
    if isinstance(model, Ensemble):
        members = [built(member, name, precision, tiles) for member in model.networks]
        return Ensemble(cast("list[SkipGraph]", members), overlapping=model.overlapping).eval()
    if isinstance(model, Exported | Compiled):
        raise UsageError(
            Problem("the network was handed to a runtime already", "backend", fix="load it again")
        )
    try:
        return BACKENDS[name].build(model, precision, tiles).eval()
    except SkipwayError:
        raise
    except Exception as error:
        if not BACKENDS[name].packages:
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        found, fix = f"{name} cannot compute {model.name}: {why}", "--backend packed"
        raise EnvironmentFault(Problem(found, "--backend", fix=fix)) from error


def _check(model: Model, name: str, precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(Problem(f"found {precision!r}", "--precision", "one of " + ", ".join(PRECISIONS)))
    if name == "auto":
        name = "openvino" if precision == "int8" else "torch"
    if name not in BACKENDS:
        raise UsageError(Problem(f"found {name!r}", "--backend", "one of " + ", ".join(NAMES)))
    backend, device = BACKENDS[name], next(model.parameters()).device
    if precision not in backend.precisions:
        able = [other for other, row in BACKENDS.items() if precision in row.precisions]
        found, fix = f"{name} has no {precision}", "--backend auto, " + " or ".join(able)
        raise UsageError(Problem(found, "--precision", " or ".join(backend.precisions), fix))
    if backend.cpu and device.type != "cpu":
        found = f"{name} computes on the CPU, the network is on {device}"
        raise UsageError(Problem(found, "--backend", fix="--device cpu, or --backend packed"))
    if precision == "bf16" and not fast_bf16(device):
        found = f"{device} has no bfloat16 arithmetic, and without it is slower than in fp32"
        raise EnvironmentFault(Problem(found, "--precision", "fp32"))


def wants_tiles(name: str, precision: str) -> bool:
    """Whether a choice is measured, on tiles of the user's images; all others cost nothing."""
    return name == "auto" or precision == "int8" or (name in BACKENDS and BACKENDS[name].held)


@dataclass(frozen=True)
class Choice:
    """The backend that was chosen.

    Attributes:
        model: The network as it computes it.
        name: Of the backend.
        said: Why, in a line; empty where there was no choice.
    """

    model: Model
    name: str
    said: str = ""


def chosen(
    model: Model, name: str, precision: str, tiles: Sequence[Tensor] = (), *, overlapping: bool = False
) -> Choice:
    """The network as a backend computes it, by name or by measuring.

    Args:
        model: Network as torch computes it in fp32.
        name: A key of `BACKENDS`, or "auto".
        precision: One of `PRECISIONS`.
        tiles: Of the user's images, where `wants_tiles` says so.
        overlapping: Whether labels are sets of classes.

    Raises:
        UsageError: as for `built`, or tiles are wanted and missing.
        DataError: too much is lost.
        EnvironmentFault: as for `built`.
    """
    _check(model, name, precision)
    if not wants_tiles(name, precision):
        return Choice(built(model, name, precision), name, f"{name}, {precision}")
    if not tiles:
        what = f"backend {name}, precision {precision}"
        fix = "load(run).running(backend, precision, images=[an array, …])"
        raise UsageError(Problem(f"{what} is measured on images, and there are none", "backend", fix=fix))
    if name == "auto":
        return fastest(model, precision, tiles, overlapping=overlapping)
    return held(model, name, precision, tiles, overlapping=overlapping)


def fastest(
    model: Model,
    precision: str,
    tiles: Sequence[Tensor],
    *,
    overlapping: bool = False,
    clock: Callable[[], float] = perf_counter,
) -> Choice:
    """Measure every backend that is there on real tiles, once; keep the fastest that computes the same.

    Args:
        model: Network as torch computes it in fp32.
        precision: One of `PRECISIONS`; only backends that have it are measured.
        tiles: Each (1, C, *S), normalised. The first is timed, the best of three rounds in turns. In int8 the
            even ones calibrate, the odd ones are compared.
        overlapping: Whether labels are sets of classes.
        clock: Seconds.

    Raises:
        DataError: none of them computes the same; the figures are in the message.
        EnvironmentFault: no backend of that precision is installed.
    """
    device = next(model.parameters()).device
    known = {
        name: backend
        for name, backend in BACKENDS.items()
        if backend.installed
        and not backend.held
        and precision in backend.precisions
        and not (backend.cpu and device.type != "cpu")
    }
    if not known:
        fix = extra("openvino")
        raise EnvironmentFault(Problem(f"no backend computes {precision} here", "--precision", fix=fix))
    used, shown = halves(tiles) if precision == "int8" else (tiles, tiles)
    models, failed = {}, {}
    for name in known:
        try:
            made = built(model, name, precision, used)
            parity = compared(made, model, shown, overlapping=overlapping)
        except Exception as error:  # runtimes raise what they like, and one that cannot is none to choose
            failed[name] = f"it cannot compute this network ({type(error).__name__})"
            continue
        if parity.holds(precision, POINTS):
            models[name] = made
        else:
            failed[name] = str(parity)
    if not models:
        figures = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise DataError(
            Problem(
                f"in {precision} too much is lost: {figures}",
                "--precision",
                _bound(precision),
                "--precision fp32",
            )
        )
    times = _timed(models, tiles[0], clock)
    best = min(times, key=lambda name: times[name])
    parts = [f"{name} {seconds:.3g} s" for name, seconds in sorted(times.items(), key=lambda item: item[1])]
    refused = [f"{name} refused, {why}" for name, why in failed.items()]
    sides = " × ".join(str(side) for side in tiles[0].shape[2:])
    said = f"{best}, {precision}: {', '.join(parts)} for {sides} pixels"
    return Choice(models[best], best, "; ".join([said, *refused]))


def held(
    model: Model, name: str, precision: str, tiles: Sequence[Tensor], *, overlapping: bool = False
) -> Choice:
    """The network as a backend computes it, held against fp32; in 8 bits even tiles calibrate it, odd ones tell.

    Raises:
        DataError: more is lost than that precision may lose; the figures are in the message.
        EnvironmentFault: it cannot be computed here.
    """
    used, shown = halves(tiles) if precision == "int8" else ((), tiles)
    made = built(model, name, precision, used)
    try:
        parity = compared(made, model, shown, overlapping=overlapping)
    except Exception as error:
        if not BACKENDS[name].held:
            raise
        raise _cannot_compile(name, error) from error
    if not parity.holds(precision, POINTS):
        lost = f"{parity.lost:.2g} points are lost on {len(shown)} tiles"
        found, fix = f"in {precision} {lost} ({parity})", _BETTER[precision]
        raise DataError(Problem(found, "--precision", _bound(precision), fix))
    used_for = (
        f"calibrated on {len(used)} tiles; on {len(shown)} others" if used else f"on {len(shown)} tiles"
    )
    return Choice(made, name, f"{name}, {precision}: {used_for} {parity}")


def _cannot_compile(name: str, error: Exception) -> EnvironmentFault:
    """In one line; the compilers' own are many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = next((line for line in lines if "compiler" in line.lower()), (lines or [""])[0])
    found = f"torch cannot compile here ({type(error).__name__}): {why}"[:300]
    fix = "install a C++ compiler such as g++, or --backend packed"
    return EnvironmentFault(Problem(found, f"--backend {name}", fix=fix))


def halves(tiles: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Even and odd ones; of a single tile both are that one."""
    return tiles[::2], tiles[1::2] or tiles


def _bound(precision: str) -> str:
    if precision == "fp32":
        return f"no label that differs, and logits by {ROUNDING:.0e} of the largest at most"
    return f"at most {POINTS} points"


def _timed(models: Mapping[str, Model], tile: Tensor, clock: Callable[[], float]) -> dict[str, float]:
    """Best seconds of each, in turns, so that a slow moment hits all."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = clock()
            logits_of(model, tile)
            taken[name].append(clock() - start)
    return {name: min(seconds) for name, seconds in taken.items()}
