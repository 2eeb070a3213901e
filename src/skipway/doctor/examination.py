"""`skipway check`: pair, look at every pixel, judge, propose a split, and never raise for what the data hold."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skipway.data.check import Checked, Examined, examine
from skipway.data.groups import find_groups
from skipway.data.layouts import Reading, find_pairs
from skipway.data.scan import Scan, patient
from skipway.data.splits import Split, split
from skipway.data.suspicions import Suspicion, near_copies
from skipway.doctor.findings import Findings
from skipway.errors import OF_A_FILE, DataError, Problem, UsageError
from skipway.tasks import TASKS

Event = Callable[[Mapping[str, Any]], None]


def check(
    images: Path | str,
    masks: Path | str | None = None,
    *,
    layout: str | None = None,
    suffix: str | None = None,
    pairs: Path | str | None = None,
    colours: Path | str | None = None,
    colour: str | None = None,
    **choices: Any,
) -> Findings:
    """Say what is in a data set, what is odd and what is wrong; nothing is written.

    Args:
        images: As for `skipway.train`.
        masks: As for `skipway.train`.
        layout: As for `skipway.train`.
        suffix: As for `skipway.train`.
        pairs: As for `skipway.train`.
        colours: As for `skipway.train`.
        colour: As for `skipway.train`.
        **choices: The other arguments of `examine_data`: task, val, ignore, groups, fold, deep, isolate, event.

    Returns:
        What was found; `Findings.ok` says whether it can train.

    Raises:
        UsageError: a path that does not exist, or a task or layout that there is not.
    """
    reading = Reading(
        layout,
        suffix,
        None if pairs is None else Path(pairs),
        None if colours is None else Path(colours),
        colour=colour,
    )
    return examine_data(Path(images), None if masks is None else Path(masks), reading, **choices)


def examine_data(
    images: Path,
    masks: Path | None,
    reading: Reading,
    *,
    task: str | None = None,
    val: Path | str | None = None,
    ignore: int | None = None,
    groups: Path | str | None = None,
    fold: str | None = None,
    deep: bool = False,
    isolate: bool | None = None,
    event: Event = lambda _: None,
) -> Findings:
    """What `check` does.

    Args:
        images: As for `skipway.train`.
        masks: As for `skipway.train`.
        reading: What the user says about the layout.
        task: As for `skipway.train`.
        val: As for `skipway.train`.
        ignore: As for `skipway.train`.
        groups: As for `skipway.train`.
        fold: As for `skipway.train`.
        deep: Also try to learn the masks from the images, for about a minute.
        isolate: Decode in child processes, always or never; from 200 pairs on by default.
        event: Told of the progress.
    """
    began = time.perf_counter()
    if task is not None and task not in TASKS:
        raise UsageError(Problem(f"found {task!r}", "--task", ", ".join(TASKS)))
    try:
        pairs = find_pairs(images, masks, replace(reading, task=task))
    except OF_A_FILE as error:
        return Findings(None, (), None, None, None, (), error.problems)
    found = examine(
        pairs,
        task,
        ignore=ignore,
        progress=patient(event, "pairs checked"),
        how=Scan(isolate=isolate),
    )
    findings = _judged(
        found,
        lambda checked: split(
            checked,
            val=None if val is None else Path(val),
            reading=replace(reading, task=checked.labels.task),
            groups=groups,
            fold=fold,
        ),
        groups,
    )
    if deep and findings.ok and found.labels is not None:
        from skipway.doctor.deep import learnable

        verdict = learnable(pairs.pairs, found.labels)
        odd = (Suspicion("E38", verdict.text),) if verdict.suspicious else ()
        findings = replace(findings, deep=verdict.text, suspicions=(*findings.suspicions, *odd))
    return replace(findings, seconds=time.perf_counter() - began)


_CODE = re.compile(r" \[([A-Z]\d\d)\]")
"""The code in a line that `train` prints as it is."""


def _judged(found: Examined, divide: Callable[[Checked], Split], table: Path | str | None) -> Findings:
    odd = [Suspicion("A34" if "case" in note else "A13", note) for note in found.pairs.notes]
    odd += found.suspicions
    problems, proposed, groups = list(found.problems), None, None
    try:
        groups = find_groups(found.pairs, table)
    except DataError as error:
        problems += error.problems
    if not problems and found.labels is not None:
        checked = Checked(found.pairs, found.labels, found.records)
        try:
            proposed = divide(checked)
        except DataError as error:
            problems += error.problems
        else:
            odd += [Suspicion(_code(text), _CODE.sub("", text)) for text in proposed.warnings]
            odd += across(checked, proposed)
    return Findings(found.pairs, found.records, found.labels, groups, proposed, tuple(odd), tuple(problems))


def across(checked: Checked, proposed: Split) -> tuple[Suspicion, ...]:
    """Near copies with one half on either side of the split."""
    if proposed.train == proposed.val:
        return ()
    by_name = {pair.name: pair for pair in checked.pairs.pairs}
    return tuple(near_copies(by_name, checked.records, (proposed.train, proposed.val)))


def _code(text: str) -> str:
    if stated := _CODE.search(text):
        return stated[1]
    if text.startswith("one image only"):
        return "A29"
    return "E22" if "validation images" in text else "L00"
