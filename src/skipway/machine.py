"""What this process may use of the machine: containers and job queues give out less than there is."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Processors that this process may keep busy, at least 1.

    The least of three: those there are, those it is bound to (`taskset`, SLURM), and the time that its control groups
    grant (`docker --cpus 2`, the limits of Kubernetes). With more threads than that, all of them wait for each other.

    Args:
        root: Folder that holds `proc` and `sys`.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(math.ceil, _granted(root))]))


def control_groups(kind: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Version and folder of each control group of this process, from its own to the outermost.

    Args:
        kind: Of what version 1 groups by: "memory", "cpu".
        root: Folder that holds `proc` and `sys`.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and kind not in kinds.split(","):
            continue
        base = root / "sys/fs/cgroup" / (kind if kinds else "")
        place = Path(path.lstrip("/"))
        for group in (place, *place.parents):
            yield 1 if kinds else 2, base / group


def _granted(root: Path) -> Iterator[float]:
    """Seconds of a processor each second, of every control group that limits them."""
    for version, group in control_groups("cpu", root):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        try:
            words = [word for name in names for word in (group / name).read_text(encoding="ascii").split()]
        except OSError:
            continue
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():  # "max" and -1 are no limit
            yield int(words[0]) / max(1, int(words[1]))
