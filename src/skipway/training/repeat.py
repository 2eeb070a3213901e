"""Training again by the plan of another run: every number out of its `plan.json`, none chosen."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from skipway.data.augment import Augmentation
from skipway.data.fingerprint import Fingerprint
from skipway.data.labels import LabelMap
from skipway.errors import CheckpointError, Problem, SkipwayError, UsageError
from skipway.models import sketch
from skipway.plan import Plan, refuse_one_class_a_pixel, warmup
from skipway.request import Request

FILE = "plan.json"

_PRECISIONS = ("fp32", "bf16")


def read_plan(place: Path) -> Plan:
    """The plan in a file, or in a run folder.

    Raises:
        UsageError: there is none, or a value in it cannot be.
        CheckpointError: it is damaged, or of another version.
    """
    file = place / FILE if place.is_dir() else place
    try:
        plan = Plan.from_json(json.loads(file.read_text(encoding="utf-8")))
        problems = list(_problems(plan))
    except OSError as error:
        raise UsageError(
            Problem("no such plan", str(file), "plan.json of a run, or its run folder", "check --plan")
        ) from error
    except SkipwayError as error:
        problems = list(error.problems)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            Problem(f"a damaged plan ({error})", str(file), "plan.json as a run wrote it", "copy it again")
        ) from error
    if problems:
        raise UsageError(*(replace(p, where=f"{file}: {p.where.removeprefix('--')}") for p in problems))
    return plan


def repeated(plan: Plan, request: Request, data: Fingerprint, labels: LabelMap) -> Plan:
    """The plan of another run for these data, its length as asked if it is.

    Args:
        plan: From `read_plan`.
        request: Names at most a length.
        data: What the training images look like.
        labels: Their classes.

    Raises:
        UsageError: it was made for other channels or classes.
    """
    channels, classes, here = plan.config["in_channels"], plan.config["classes"], len(labels.values)
    problems = []
    if channels != data.channels:
        problems.append(_unlike(f"{channels} channels", f"images of {data.channels}"))
    single = (
        classes == 1 and here == 2 and not labels.overlapping
    )  # one sigmoid channel tells two classes apart
    if len(plan.class_weights) != here or (classes != here and not single):
        problems.append(_unlike(f"{len(plan.class_weights)} classes", f"masks of {here}"))
    if problems:
        raise UsageError(*problems)
    if labels.overlapping:
        refuse_one_class_a_pixel(plan.loss, plan.config, published=False)
    if request.steps:
        return replace(
            plan, steps=request.steps, seconds=None, warmup=warmup(request.steps, plan.warmup), legs=()
        )
    if request.seconds:
        return replace(plan, steps=None, seconds=request.seconds, legs=())
    return replace(plan, seconds=None) if plan.steps else plan  # the steps that the time of that run became


def _unlike(planned: str, found: str) -> Problem:
    return Problem(
        f"a plan for {planned}", "--plan", found, "leave --plan out, or give data like those of that run"
    )


def _problems(plan: Plan) -> Iterator[Problem]:
    """What cannot be in a plan that somebody edited; names and numbers that have a flag are judged as it is."""
    if missing := {"in_channels", "classes"} - plan.config.keys():
        yield Problem(
            f"no {', '.join(sorted(missing))}", "config", "the numbers of channels that go in and come out"
        )
        return
    own = {key: value for key, value in plan.config.items() if key not in ("in_channels", "classes")}
    Request(
        model=plan.model,
        loss=plan.loss,
        optimiser=plan.optimiser,
        learning_rate=plan.learning_rate,
        batch=plan.batch,
        steps=plan.steps,
        supervision=plan.supervision,
        seed=plan.seed,
        options=own,
    )
    Augmentation(**plan.augmentation)
    if plan.legs and plan.legs[-1].total != plan.steps:
        yield Problem("not the number of steps", "legs", "the last leg to end with `steps`, or no legs")
    if plan.steps is None and plan.seconds is None:
        yield Problem("neither is there", "steps, seconds", "one of them")
    geometry = sketch(plan.model, **plan.config).geometry
    if (legal := geometry.next_legal(list(plan.patch))) != plan.patch:
        sides, wanted = ("×".join(map(str, patch)) for patch in (plan.patch, legal))
        yield Problem(f"found {sides}", "patch", f"a size the network takes, such as {wanted}")
    if plan.precision not in _PRECISIONS:
        yield Problem(f"found {plan.precision!r}", "precision", " or ".join(_PRECISIONS))
    for name, value, low, high in (
        ("momentum", plan.momentum, 0, 1),
        ("ema", plan.ema, 0, 1),
        ("foreground_share", plan.foreground_share, 0, 1),
        ("weight_decay", plan.weight_decay, 0, 100),
        ("clip", plan.clip, 0, float("inf")),
        ("warmup", plan.warmup, 1, 1_000_000),
        ("micro", plan.micro or 1, 1, 1_000_000),
        ("cache", plan.cache, 0, 2**60),
    ):
        if not low <= value <= high:
            yield Problem(f"found {value}", name, f"a number from {low} to {high:g}")
