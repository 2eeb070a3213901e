"""A command as a process of its own, and what it took: none profits from what another left in memory."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SKIPWAY = (sys.executable, "-m", "skipway")


@dataclass(frozen=True)
class Spent:
    """What a command took.

    Attributes:
        seconds: Wall clock, from its start to its exit.
        cpu: CPU seconds of the process and of those that it waited for.
        peak: Resident memory of the largest of them, MiB.
        load: Of the machine, mean of the last minute, when it ended.
    """

    seconds: float
    cpu: float
    peak: float
    load: float


def spend(words: Sequence[str | Path], log: Path, settings: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end; one that fails ends the benchmark with the last lines that it wrote.

    The peak is no lower than that of the caller, whose pages a new process has until it becomes the command: a
    benchmark that reports peaks imports no torch.

    Args:
        words: The command.
        log: File for everything that it writes.
        settings: Environment on top of this process's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, words)),
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(settings or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        text = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(map(str, words))}: exit {process.returncode}\n{text}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Spent(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / unit, os.getloadavg()[0])
