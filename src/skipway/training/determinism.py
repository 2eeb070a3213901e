"""What a run may promise about its bits: the same ones again, or only alike.

Arithmetic on floats depends on the order of sums, so on the processor, the number of threads and the release of
torch. Where all are those that the run was started with, a stop and start changes no bit; elsewhere it does, and
from then on nothing that the run does is exact again.
"""

from collections.abc import Sequence

import torch

from skipway.runs import MARK, Run

EXACT, STATISTICAL = "exact", "statistical"

_MEANS = {
    EXACT: "the same command, or a stop and start, ends in the same bits",
    STATISTICAL: "the same command, or a stop and start, ends alike, not in the same bits",
}


def level(device: torch.device) -> str:
    """The level of a run that starts here.

    >>> level(torch.device("cuda")) if not torch.are_deterministic_algorithms_enabled() else ""
    'statistical (cuda without deterministic algorithms)'
    """
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{EXACT} (cpu, {threads} thread{'' if threads == 1 else 's'})"
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        return f"{EXACT} (gpu)"
    return f"{STATISTICAL} ({device.type} without deterministic algorithms)"


def going_on(before: str | None, here: str, changed: Sequence[str]) -> str:
    """The level of a run that goes on: never better than it was.

    Args:
        before: Its level so far.
        here: What a run would have that starts here.
        changed: What differs from where it was started, each in a few words.

    >>> going_on("exact (cpu, 2 threads)", "exact (cpu, 1 thread)", ["threads 2 (now 1)"])
    'statistical resume (threads 2 (now 1))'
    >>> going_on("statistical resume (threads 2 (now 1))", "exact (cpu, 2 threads)", [])
    'statistical resume (threads 2 (now 1))'
    """
    if changed:
        return f"{STATISTICAL} resume ({', '.join(changed)})"
    return before if before is not None and before.startswith(STATISTICAL) else here


def state_level(run: Run, device: torch.device, changed: Sequence[str]) -> str:
    """The level of a run whose folder is claimed, stored there; a finished run keeps the one it has."""
    name = MARK.removesuffix(".json")
    facts = run.read(name)
    before = facts.get("level")
    if facts["finished"] and before is not None:
        return str(before)
    now = going_on(before, level(device), changed)
    if now != before:
        run.write(name, {**facts, "level": now})
    return now


def in_words(found: str) -> str:
    """A level with what it means, as the first lines of a training say it."""
    return f"{found}: {_MEANS[found.split()[0]]}"
