"""`--folds N`: N trainings one after the other in one run folder, so that every image validates exactly once.

RUN/run.json, split.json, plan.json …   of the whole: all images train, all validate, one plan for all folds
RUN/fold-1 … RUN/fold-N                 run folders of their own, as `--fold 1/N` makes them
RUN/evaluation.json, report.html        what the folds found on the images that they did not see, together
RUN/folds.json                          seconds that the finished folds used of a time budget
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from skipway.data.check import Checked
from skipway.data.layouts import natural
from skipway.errors import Problem, UsageError
from skipway.report.folds import report_folds
from skipway.request import Request
from skipway.runs import Run
from skipway.single import Host, checked_by, train_single
from skipway.training.claim import claim, command_of, require_outside, stands, stored, versions
from skipway.training.determinism import STATISTICAL, state_level
from skipway.training.measure import measured
from skipway.training.order import Order
from skipway.training.prepare import Prepared, divide, prepare
from skipway.training.repeat import read_plan
from skipway.training.session import first_weights

Event = Callable[[Mapping[str, Any]], None]

CLOSING = 0.01
"""Share of a time budget kept for the report of the whole; the folds keep the time for their own."""

LEAST = 1.0
"""Seconds that a fold is given at least, whatever is left of a budget."""


def train_folds(order: Order, host: Host) -> tuple[Run, Prepared]:
    """Train every fold that is not finished, then score them together.

    Args:
        order: The whole command; `order.folds` says how many.
        host: Where it runs.

    Returns:
        The run folder of the whole, and what it was made of.

    Raises:
        UsageError: the folds cannot be made, or the folder holds another run.
        DataError: the data cannot be used.
        Interrupted: a stop was asked for; the same call goes on.
    """
    refuse(order)
    asked, device = order.asked, host.device
    run = claim(order.output, asked)
    require_outside(order.output, order.images, order.masks)
    run.require_writable()
    checked = checked_by(order, host)(run)
    whole = _whole(order, checked, device)
    if whole.plan.pretrained is not None and not run.exists:
        first_weights(whole.plan)  # a file that does not fit is refused before the folder is made
    host.ranks.require_work(whole.plan.batch)
    run = run if run.exists else Run.create(order.output)
    with run.locked():
        claim(order.output, asked)  # again: somebody may have been here since
        run.sweep()
        if order.request.plan is None and not stands(run):
            whole = measured(whole, _shared(order), device, processes=host.ranks.world)
        whole, changed = stored(run, whole, asked, device, host.ranks.world)
        run.write("check", dict(checked.seen))
        host = replace(host, event=_news(host.event))
        level = state_level(run, device, changed)
        elsewhere = (level,) if changed and level.startswith(STATISTICAL) else ()
        warnings = (*checked.warnings, *whole.split.warnings, *elsewhere)
        lines = _lines(whole, order)
        for name, text in lines.items():
            host.event({"event": "line", "name": name, "text": text})
        if not run.finished:
            _each(run, order, checked, whole, host)
            facts = {**lines, "command": command_of(run, order.device)}
            report_folds(run, whole, facts, warnings, versions(), host.event)
            run.write("run", {**run.read("run"), "finished": True})
        else:
            host.event({"event": "line", "name": "run", "text": "finished already; its figures follow"})
    return run, whole


def refuse(order: Order) -> None:
    """Refuse what folds cannot be.

    Raises:
        UsageError: fewer than two, or another choice of who validates beside them.
    """
    problems = []
    if order.folds is not None and order.folds < 2:
        fix = "leave it out to train one network"
        problems.append(Problem(f"found {order.folds}", "--folds", "2 or more", fix))
    for flag, value in (("--fold", order.fold), ("--val", order.val)):
        if value is not None:
            fix = "--folds trains all of them, --fold K/N one" if flag == "--fold" else "leave one out"
            problems.append(Problem(f"both --folds and {flag} are given", "train", "one of them", fix))
    if problems:
        raise UsageError(*problems)


def _whole(order: Order, checked: Checked, device: torch.device) -> Prepared:
    """All folds as one: every image trains and validates, and one plan is made for all folds.

    A plan looks at sizes, classes and the diameter of objects; made once, it gives all folds one network, whose
    probabilities can be averaged.
    """
    request, count = order.request, order.folds or 0
    seed = request.seed if request.plan is None else read_plan(Path(request.plan)).seed
    try:
        parts = [
            divide(replace(order, fold=f"{number}/{count}"), checked, seed) for number in range(1, count + 1)
        ]
    except UsageError as error:
        raise UsageError(
            *(replace(p, where=p.where.replace("--fold", "--folds")) for p in error.problems)
        ) from error
    names = tuple(sorted(chain.from_iterable(part.val for part in parts), key=natural))
    if names != tuple(sorted((record.name for record in checked.records), key=natural)):
        raise ValueError("folds must hold every image once")
    first = parts[0]
    divided = replace(
        first,
        train=names,
        val=names,
        rule=f"{count} folds, every image validates once; {first.rule}",
        warnings=tuple(dict.fromkeys(chain.from_iterable(part.warnings for part in parts))),
        fold=None,
        folds=tuple(part.val for part in parts),
    )
    return prepare(order, checked, device, divided=divided)


def _shared(order: Order) -> Request:
    """What a single fold is asked for: its part of the time, all of the rest."""
    seconds = order.request.seconds
    return replace(order.request, seconds=None if seconds is None else seconds / (order.folds or 1))


def _lines(whole: Prepared, order: Order) -> dict[str, str]:
    count, plan = len(whole.split.folds), whole.plan
    sizes = sorted({len(names) for names in whole.split.folds})
    each = " or ".join(map(str, sizes))
    seconds = order.request.seconds
    length = f"{seconds:.0f} s for all" if seconds else f"{plan.steps} steps each"
    return {
        "folds": f"{count}, one after the other; {each} of {len(whole.split.val)} images validate in each; {length}"
    }


@dataclass
class _Budget:
    """What is left of a time budget; None where steps rule.

    Attributes:
        seconds: Of the whole command.
        earlier: Seconds by fold that it used in earlier starts.
        began: When this start began.
    """

    seconds: float | None
    earlier: dict[str, float]
    began: float

    def share(self, folds_left: int) -> float | None:
        """Seconds for the next fold: an equal part of what is left."""
        if self.seconds is None:
            return None
        left = self.seconds * (1 - CLOSING) - sum(self.earlier.values()) - (time.perf_counter() - self.began)
        return max(LEAST, left / folds_left)


def _each(run: Run, order: Order, checked: Checked, whole: Prepared, host: Host) -> None:
    """Train the folds that are not finished, in order."""
    request, folds = order.request, run.folds
    used = dict(run.read("folds")) if (run.path / "folds.json").is_file() else {}
    budget = _Budget(request.seconds, dict(used), host.began)
    for number, fold in enumerate(folds, start=1):
        name, given = fold.path.name, _given(fold)
        if fold.finished:
            budget.earlier.setdefault(name, given or 0.0)
            host.event(
                {"event": "line", "name": "fold", "text": f"{number} of {len(folds)}, finished already"}
            )
            continue
        host.event({"event": "line", "name": "fold", "text": f"{number} of {len(folds)}"})
        share = given or budget.share(len(folds) - number + 1)
        one = replace(
            order,
            output=fold.path,
            fold=f"{number}/{len(folds)}",
            folds=None,
            request=replace(request, seconds=share),
        )
        started = time.perf_counter()
        train_single(one, replace(host, began=started), lambda _: checked, whole.plan)
        here = time.perf_counter() - started
        budget.earlier[name] = 0.0 if given is None else max(0.0, given - here)  # a start that was stopped
        used[name] = here + budget.earlier[name]
        run.write("folds", used)


def _given(fold: Run) -> float | None:
    """Seconds of the budget of a fold that was started."""
    asked = fold.read("run").get("asked", {}) if fold.exists else {}
    return asked.get("seconds")


def _news(event: Event) -> Event:
    """Passes lines and warnings on once: most of what the folds say is the same."""
    said: set[tuple[str, str]] = set()

    def told(one: Mapping[str, Any]) -> None:
        if one["event"] in ("line", "warning"):
            line = (one.get("name", ""), one["text"])
            if line in said:
                return
            said.add(line)
        event(one)

    return told
