"""`skipway check`: pair, look at every pixel, judge, propose a split, and never raise for what the data hold."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skipway.data.check import Checked, Examined, examine
from skipway.data.duplicates import spelled_alike
from skipway.data.layouts import Pairs, find_pairs
from skipway.data.scan import Scan, patient
from skipway.data.splits import Split, split
from skipway.data.suspicions import Suspicion, near_copies
from skipway.doctor.findings import Findings, Groups
from skipway.errors import DataError, Problem, UsageError
from skipway.tasks import TASKS

Event = Callable[[Mapping[str, Any]], None]


def check(
    images: Path | str,
    masks: Path | str | None = None,
    *,
    task: str | None = None,
    val: Path | str | None = None,
    suffix: str | None = None,
    ignore: int | None = None,
    deep: bool = False,
    isolate: bool | None = None,
    event: Event = lambda _: None,
) -> Findings:
    """Say what is in a data set, what is odd and what is wrong; nothing is written.

    Args:
        images: As for `skipway.train`.
        masks: As for `skipway.train`.
        task: "classes" or "objects"; read from the masks by default.
        val: Validation data; the last fifth of the names by default.
        suffix: What a mask's name has that its image's has not.
        ignore: Mask value of pixels that nobody annotated.
        deep: Also try to learn the masks from the images, for about a minute.
        isolate: Decode in child processes, always or never; from 200 pairs on by default.
        event: Told of the progress.

    Returns:
        What was found; `Findings.ok` says whether it can train.

    Raises:
        UsageError: a path that does not exist, or a task that there is not.
    """
    began = time.perf_counter()
    if task is not None and task not in TASKS:
        raise UsageError(Problem(f"found {task!r}", "--task", " or ".join(TASKS)))
    try:
        pairs = find_pairs(Path(images), None if masks is None else Path(masks), suffix=suffix)
    except DataError as error:
        return Findings(None, (), None, Groups({}, "none"), None, (), error.problems)
    found = examine(
        pairs,
        task,
        ignore=ignore,
        progress=patient(event, "pairs checked"),
        how=Scan(isolate=isolate),
    )
    findings = _judged(found, val, suffix)
    if deep and findings.ok and found.labels is not None:
        from skipway.doctor.deep import learnable

        verdict = learnable(pairs.pairs, found.labels)
        odd = (Suspicion("E38", verdict.text),) if verdict.suspicious else ()
        findings = replace(findings, deep=verdict.text, suspicions=(*findings.suspicions, *odd))
    return replace(findings, seconds=time.perf_counter() - began)


def groups_of(pairs: Pairs) -> Groups:
    """Which images belong together, and how that is known."""
    stated = pairs.stated.groups
    if not stated:
        return Groups({}, "none stated")
    return Groups(dict(stated), f"{len(set(stated.values()))} groups, as the data set says")


def _judged(found: Examined, val: Path | str | None, suffix: str | None) -> Findings:
    groups = groups_of(found.pairs)
    odd = [Suspicion("A34" if "case" in note else "A13", note) for note in found.pairs.notes]
    odd += found.suspicions
    odd += [
        Suspicion("L04", f"groups that a person would call one: {', '.join(map(repr, alike))}")
        for alike in spelled_alike(list(groups.of.values()))
    ]
    problems, proposed = list(found.problems), None
    if not problems and found.labels is not None:
        checked = Checked(found.pairs, found.labels, found.records)
        try:
            proposed = split(checked, val=None if val is None else Path(val), suffix=suffix)
        except DataError as error:
            problems += error.problems
        else:
            odd += [Suspicion(_code(text), text) for text in proposed.warnings]
            odd += across(checked, proposed)
    return Findings(found.pairs, found.records, found.labels, groups, proposed, tuple(odd), tuple(problems))


def across(checked: Checked, proposed: Split) -> tuple[Suspicion, ...]:
    """Near copies with one half on either side of the split."""
    if proposed.train == proposed.val:
        return ()
    by_name = {pair.name: pair for pair in checked.pairs.pairs}
    return tuple(near_copies(by_name, checked.records, (proposed.train, proposed.val)))


def _code(text: str) -> str:
    if text.startswith("one image only"):
        return "A29"
    return "E22" if "validation images" in text else "L00"
