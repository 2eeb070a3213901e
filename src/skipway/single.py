"""One network, from its data to its report: what `skipway train` does, and `--folds` does several times."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from skipway.data.check import Checked
from skipway.data.scan import patient
from skipway.errors import SkipwayError
from skipway.models import build
from skipway.plan import Plan
from skipway.report.finish import train_and_report
from skipway.runs import Run
from skipway.training import selftest
from skipway.training.claim import claim, command_of, require_outside, stands, stored
from skipway.training.determinism import STATISTICAL, in_words, level, state_level
from skipway.training.extend import extend, longer, under_way
from skipway.training.measure import measured
from skipway.training.order import Order
from skipway.training.prepare import Prepared, check_data, described, prepare
from skipway.training.ranks import ALONE, Ranks
from skipway.training.session import first_weights, run_training
from skipway.training.start import said
from skipway.training.state import forget_states
from skipway.training.stopping import stop_signals

Event = Callable[[Mapping[str, Any]], None]
Check = Callable[[Run], Checked]


@dataclass(frozen=True)
class Host:
    """Where a command runs, and who listens.

    Attributes:
        device: Where the arithmetic happens.
        event: Told of what happens.
        left: Whether nobody reads what is told any more, which asks for a stop.
        began: When the command began, by `time.perf_counter`.
        ranks: The processes that train together. The first does all of it and tells what happens; the others take
            their part in the steps, see `follow`.
    """

    device: torch.device
    event: Event
    left: Callable[[], bool]
    began: float
    ranks: Ranks = ALONE


def checked_by(order: Order, host: Host) -> Check:
    """Reads and checks the data of a command, with what an earlier start saw of them."""
    progress = patient(host.event, "pairs checked")
    return lambda run: check_data(order, progress=progress, before=_seen(run))


def train_single(order: Order, host: Host, check: Check, plan: Plan | None = None) -> tuple[Run, Prepared]:
    """Claim the folder, check, split, plan, train, evaluate, report.

    Args:
        order: Data, run folder and what the user named.
        host: Where it runs.
        check: Gives the checked data.
        plan: Decides everything but the length; None chooses.

    Returns:
        The finished run, and what it was made of.

    Raises:
        UsageError: the folder holds another run, or something else.
        DataError: the data cannot be used.
        Interrupted: a stop was asked for; the same call goes on.
    """
    asked, output, where, event = order.asked, order.output, host.device, host.event
    ranks = host.ranks
    require_outside(output, order.images, order.masks)
    run = claim(output, asked)
    run.require_writable()
    checked = check(run)
    prepared = prepare(order, checked, where, plan=plan)
    if prepared.plan.pretrained is not None and not run.exists:
        first_weights(prepared.plan)  # a file that does not fit is refused before the folder is made
    ranks.require_work(prepared.plan.batch)
    run = run if run.exists else Run.create(output)
    with run.locked():
        claim(output, asked)  # again: somebody may have been here since
        run.sweep()
        fresh, new = prepared.split.warnings, not stands(run)
        changed: tuple[str, ...] = ()
        if not new:
            prepared, changed = stored(run, prepared, asked, where, ranks.world)
        elif plan is None and order.request.plan is None:
            spent = time.perf_counter() - host.began
            prepared = measured(prepared, order.request, where, spent, ranks.world)
        promised = level(where) if new else state_level(run, where, changed)
        lines = {
            **described(checked, prepared, _parameters(prepared), where),
            **ranks.described(prepared.plan.batch),
            "repeats": in_words(promised),
        }
        elsewhere = (promised,) if changed and promised.startswith(STATISTICAL) else ()
        warnings = (*checked.warnings, *fresh, *elsewhere)
        _tell(event, lines, warnings)
        if new:  # tested before anything is written: a refusal leaves the folder free for the mended data
            found = _self_test(order, prepared, host, checked)
            tested = {selftest.FILE: found.to_json()}
            prepared, _ = stored(run, prepared, asked, where, ranks.world, beside=tested)
            state_level(run, where, ())
        verdict = selftest.Verdict.read(run)
        run.write("check", dict(checked.seen))
        if facts := run.read("run").get("start"):
            _tell(event, started := {"start": said(facts)})
            lines |= started
        if run.read("run")["finished"] and longer(run.read("run"), order.request):
            extend(run, prepared.plan, order.request, asked)
        if not run.read("run")["finished"]:
            prepared = replace(prepared, plan=under_way(run, prepared.plan, order.request))
            spent = time.perf_counter() - host.began
            facts = {**lines, **verdict.lines, "command": command_of(run, order.device)}
            warnings = (*warnings, *verdict.warnings)
            ranks.share({"folder": str(run.path), "prepared": prepared.to_json(), "workers": order.workers})
            with stop_signals() as signalled:

                def stopped() -> bool:
                    return signalled() or host.left()

                hooks = (event, stopped)
                train_and_report(run, prepared, where, *hooks, facts, warnings, spent, order.workers, ranks)
        else:
            hint = "finished already; its figures follow. To go on, name a longer --steps or --time"
            event({"event": "line", "name": "run", "text": hint})
        forget_states(run.path)
    return run, prepared


def follow(host: Host) -> None:
    """Take part in the steps of every training that the first process leads."""
    while (training := host.ranks.share()) is not None:
        prepared, run = Prepared.from_json(training["prepared"]), Run(Path(training["folder"]))
        with stop_signals() as stopped:
            run_training(
                prepared,
                run,
                host.device,
                lambda _: None,
                stopped,
                workers=training["workers"],
                ranks=host.ranks,
            )


def _self_test(order: Order, prepared: Prepared, host: Host, checked: Checked) -> selftest.Verdict:
    """The self-test of a new run, told."""
    if not order.self_test:
        found = selftest.skipped()
    else:
        found = selftest.self_test(prepared, host.device, odd=checked.suspicions)
    _tell(host.event, found.lines, found.warnings)
    return found


def _tell(event: Event, lines: Mapping[str, str], warnings: Sequence[str] = ()) -> None:
    for name, text in lines.items():
        event({"event": "line", "name": name, "text": text})
    for text in warnings:
        event({"event": "warning", "text": text})


def _seen(run: Run) -> Mapping[str, Any]:
    """What the check of an earlier start saw; it only saves time, so a damaged file counts as none."""
    try:
        seen = run.read("check")
    except SkipwayError:
        return {}
    return seen if isinstance(seen, dict) else {}


def _parameters(prepared: Prepared) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(prepared.plan.model, **prepared.plan.config).parameters())
