"""A network in a run folder: its weights as safetensors, its construction as a builder's name and arguments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skipway.errors import CheckpointError, NumericalError, Problem, UsageError
from skipway.models import BUILDERS, build, sketch
from skipway.nn.graph import SkipGraph
from skipway.nn.layout import for_prediction
from skipway.runs import Run, read_tensors, write_tensors

FILE = "model.safetensors"


def save_model(run: Run, model: SkipGraph, name: str, config: Mapping[str, Any], step: int) -> None:
    """Write the weights with what is needed to build the net around them.

    Raises:
        NumericalError: a weight is not finite; the file that stood before stays.
    """
    tensors = {key: np.asarray(value.detach().cpu()) for key, value in model.state_dict().items()}
    for key, value in tensors.items():
        if not np.isfinite(value).all():
            raise NumericalError(
                Problem(f"{key} is not finite at step {step}; not saved", str(run.path / FILE))
            )
    write_tensors(run.path / FILE, tensors, {"model": name, "config": dict(config), "step": step})


def load_model(run: Run, device: torch.device) -> SkipGraph:
    """Build the network of a run and load its weights, in evaluation mode.

    The sizes in the file are compared with the net on the meta device first, so that a file cannot ask for memory
    that it does not fill.

    Raises:
        UsageError: the run is one of folds.
        SecurityError: the file is not safetensors.
        CheckpointError: the file is damaged or does not fit the net that it names.
    """
    path = run.path / FILE
    if not path.is_file() and (folds := run.folds):
        raise UsageError(
            Problem(
                f"a run of {len(folds)} folds, which has no weights of its own",
                str(run.path),
                "a run of one network",
                f"name one of them, such as {folds[0].path}",
            )
        )
    if not path.is_file():
        raise CheckpointError(
            Problem(
                "holds no weights yet",
                str(run.path),
                fix="let `skipway train` run; it saves at the first interval",
            )
        )
    tensors, facts = read_tensors(path)
    name, config = str(facts.get("model")), facts.get("config")
    if name not in BUILDERS or not isinstance(config, dict):
        raise CheckpointError(
            Problem(f"names the model {name!r}", str(path), "one of " + ", ".join(BUILDERS))
        )
    try:
        sketched = sketch(name, **config)
    except (ValueError, UsageError) as error:
        raise CheckpointError(Problem(f"{name} cannot be built as it says ({error})", str(path))) from error
    wanted = {key: tuple(value.shape) for key, value in sketched.state_dict().items()}
    _compare(path, name, wanted, {key: value.shape for key, value in tensors.items()})
    model = build(name, **config)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
    return for_prediction(model, model.ndim).to(device).eval()


def _compare(path: Path, name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    differs = sorted(key for key in wanted.keys() & found.keys() if tuple(wanted[key]) != tuple(found[key]))
    if missing or unexpected or differs:
        shapes = [f"{key} ({list(found[key])}→{list(wanted[key])})" for key in differs]
        parts = [
            f"missing: {_some(missing)}",
            f"unexpected: {_some(unexpected)}",
            f"shape differs: {_some(shapes)}",
        ]
        raise CheckpointError(
            Problem(
                f"does not fit {name}: " + "; ".join(parts), str(path), fix="use the run folder it came from"
            )
        )


def _some(names: list[str]) -> str:
    return (
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
    )
