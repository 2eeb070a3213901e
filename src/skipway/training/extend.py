"""Going on after the end: a longer training from the averaged weights of a finished one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from skipway.legs import Leg
from skipway.plan import Plan
from skipway.request import Request
from skipway.runs import Run, read_tensors
from skipway.training.average import start_average
from skipway.training.state import STATE, Parts, Progress, save_state, seed_all
from skipway.training.step import optimiser_of
from skipway.weights import FILE, load_model

LENGTH = ("steps", "seconds")
"""Fields of a request that may differ from those of a finished run."""


def longer(record: Mapping[str, Any], request: Request) -> bool:
    """Whether a finished run is asked to go on.

    Args:
        record: Its run.json.
        request: What is asked now; its lengths are those of the whole training.
    """
    lengths = record.get("lengths", [])
    if not lengths or all(record["asked"].get(name) == getattr(request, name) for name in LENGTH):
        return False
    if request.seconds is not None:
        return bool(request.seconds > max(lengths[-1]["seconds"], record["asked"].get("seconds") or 0))
    return bool((request.steps or 0) > max(part["steps"] for part in lengths))


def extend(run: Run, plan: Plan, request: Request, asked: Mapping[str, Any]) -> None:
    """Make a finished run one that is under way; the state is written first, so any kill leaves one or the other.

    Args:
        run: The run; its weights for prediction stay as they are until better ones are found.
        plan: Its plan.
        request: Names the length of the whole training.
        asked: The command, for run.json.
    """
    record, model = run.read("run"), load_model(run, torch.device("cpu"))
    begin = int(read_tensors(run.path / FILE)[1]["step"])
    spent = float(record["lengths"][-1]["seconds"])
    steps = None if request.seconds else request.steps
    share = begin / steps if steps else spent / (request.seconds or spent)
    leg = Leg(begin, share, () if steps is None else ((begin, steps),))
    before = plan.legs or (Leg.of(plan.steps),)
    legs = (*before, leg) if begin else (Leg.of(steps),)  # none where fine-tuning had only made it worse
    progress = Progress(begin, steps, spent, skipped=record["lengths"][-1]["skipped"], legs=legs)
    progress.leg = len(legs) - 1
    model.requires_grad_(True)
    seed_all(plan.seed + begin)
    save_state(run.path / STATE, Parts(model, start_average(model), optimiser_of(plan, model)), progress)
    run.write("run", {**record, "asked": dict(asked), "finished": False})


def under_way(run: Run, plan: Plan, request: Request) -> Plan:
    """The plan of a run that is being extended: the budget is what is asked now."""
    return replace(plan, seconds=request.seconds) if extended(run) else plan


def extended(run: Run) -> bool:
    """Whether a run has finished before."""
    return bool(run.read("run").get("lengths"))


def without_last_leg(plan: Plan, seconds: float | None) -> Plan:
    """The plan of the weights that an extension started from.

    Args:
        plan: Of the extended run.
        seconds: The budget that was asked for then.
    """
    legs = plan.legs[:-1]
    steps = legs[-1].total
    return replace(plan, steps=steps, seconds=seconds, legs=() if legs == (Leg.of(steps),) else legs)


def length(run: Run, after: float) -> dict[str, Any]:
    """What is noted of a training that has ended, before its state goes.

    Args:
        run: Its folder.
        after: Seconds since its last step.
    """
    progress = read_tensors(run.path / STATE)[1]["progress"]
    return {
        "asked": {name: run.read("run")["asked"].get(name) for name in LENGTH},
        "steps": progress["step"],
        "seconds": round(progress["seconds"] + after, 1),
        "skipped": progress["skipped"],
    }
