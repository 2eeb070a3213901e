"""From a prepared run to its end: train, judge the new weights by those before, evaluate, report."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from skipway.errors import Interrupted, Problem
from skipway.plan import Plan
from skipway.predict.predictor import Predictor
from skipway.report.validation import ending, validate_run
from skipway.runs import Run
from skipway.training.claim import versions
from skipway.training.extend import extended, length, without_last_leg
from skipway.training.prepare import Prepared
from skipway.training.ranks import ALONE, Ranks
from skipway.training.session import first_weights, full_score, run_training
from skipway.weights import save_model

Event = Callable[[Mapping[str, Any]], None]


def train_and_report(
    run: Run,
    prepared: Prepared,
    device: torch.device,
    event: Event,
    stopped: Callable[[], bool],
    facts: Mapping[str, str],
    warnings: Sequence[str],
    spent: float,
    workers: int = 1,
    ranks: Ranks = ALONE,
) -> None:
    """Train, keep the better weights where there were some before, evaluate, report, and note the end.

    Args:
        run: The folder.
        prepared: Data and plan.
        device: Where the arithmetic happens.
        event: Told of what happens.
        stopped: Asked after every step whether to save and stop.
        facts: See `validate_run`.
        warnings: What the reader of the report must know.
        spent: Seconds of a time budget that went before.
        workers: See `run_training`.
        ranks: See `run_training`.

    Raises:
        Interrupted: a stop was asked for; the same call goes on.
    """
    judged, before = _before(run, prepared, device, event)
    after = ending(prepared)
    average = run_training(
        prepared,
        run,
        device,
        noting(run, event),
        stopped,
        spent,
        after,
        workers=workers,
        provisional=judged,
        ranks=ranks,
    )
    warnings = (*warnings, *noted(run))
    ended, kept, facts = time.perf_counter(), True, dict(facts)
    prepared = replace(prepared, plan=Plan.from_json(run.read("plan")))
    record, compared = run.read("run"), {}
    if judged:
        score = full_score(prepared, average, device)
        kept = score is None or before is None or score >= before
        compared = {"start": {"score": before, "trained": score, "kept": kept}}
        facts["start"] = f"score {_figure(before)} before, {_figure(score)} after this training"
        event({"event": "line", "name": "start", "text": facts["start"]})
    if judged and kept:
        save_model(run, average, prepared.plan.model, prepared.plan.config, prepared.plan.steps or 0)
    elif judged:
        text = f"training made it worse ({facts['start']}): the old weights stay"
        event({"event": "warning", "text": text})
        warnings = (*warnings, text)
        if extended(run) and len(prepared.plan.legs) > 1:
            seconds_then = record["lengths"][-1]["asked"]["seconds"]
            prepared = replace(prepared, plan=without_last_leg(prepared.plan, seconds_then))
            run.write("plan", prepared.plan.to_json())
    predictor = Predictor.load(run.path, str(device)).using()
    validate_run(run, prepared, predictor, facts, warnings, versions(), _stopping(event, stopped))
    figures = {**run.read("evaluation"), **compared}
    run.write("evaluation", figures)
    entry = {**length(run, time.perf_counter() - ended), "score": figures["score"], "kept": kept}
    run.write("run", {**record, "lengths": [*record.get("lengths", []), entry], "finished": True})


def _stopping(event: Event, stopped: Callable[[], bool]) -> Event:
    """As `event`; a stop that is asked for after the last step is kept as well, for the state stands until the end."""

    def told(what: Mapping[str, Any]) -> None:
        event(what)
        if stopped():
            raise Interrupted(
                Problem("stopped before the report was written", fix="type the same command to go on")
            )

    return told


def noting(run: Run, event: Event) -> Event:
    """As `event`; warnings are kept in the run folder, too, for the report, whichever start they came in."""

    def told(what: Mapping[str, Any]) -> None:
        if what["event"] == "warning" and what["text"] not in (before := noted(run)):
            run.write("warnings", [*before, what["text"]])
        event(what)

    return told


def noted(run: Run) -> Sequence[str]:
    """Warnings of the training so far."""
    return run.read("warnings") if (run.path / "warnings.json").is_file() else ()


def _before(run: Run, prepared: Prepared, device: torch.device, event: Event) -> tuple[bool, float | None]:
    """Whether new weights are judged by others that were there before, and the score of those."""
    record = run.read("run")
    if extended(run):
        return True, run.read("evaluation")["score"]
    start = record.get("start")
    if not start or not start["whole"]:
        return False, None
    if "score" not in start:
        model = first_weights(prepared.plan, run.path).to(device).eval()
        save_model(run, model, prepared.plan.model, prepared.plan.config, 0)
        start = {**start, "score": full_score(prepared, model, device)}
        run.write("run", {**record, "start": start})
    text = f"score {_figure(start['score'])} on the validation images before the first step"
    event({"event": "line", "name": "start", "text": text})
    return True, start["score"]


def _figure(score: float | None) -> str:
    return "n/a" if score is None else f"{score:.4f}"
