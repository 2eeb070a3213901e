"""Memory: how much there is, how much was used at most, and what it is when there is too little."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from skipway.errors import OUT_OF_MEMORY, Problem, UsageError
from skipway.machine import control_groups

SHARE = 0.8
"""Share of the free memory that is taken where no amount is given: the rest is for others."""

_GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""By version of control groups: the limit, what is used, and the line of memory.stat for what can be given back."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def amount(text: str | int, flag: str = "--ram") -> int:
    """Bytes: a whole number of them, or text such as 512M, 4G or 1.5GiB; a unit is 1024 of the one before.

    Args:
        text: What was given.
        flag: The option it was given to, for the message.

    Raises:
        UsageError: it is none.

    >>> amount("4G") == 4 * 1024**3, amount("1.5 MiB"), amount(4096)
    (True, 1572864, 4096)
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:i?B)?", str(text).strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise UsageError(
            Problem(
                f"found {str(text)!r}", flag, "an amount of memory such as 512M, 4G or 1.5G", f"{flag} 4G"
            )
        )
    return size


def said(size: float) -> str:
    """Bytes for people.

    >>> said(1.25 * 2**30), said(300 * 2**20), said(10)
    ('1.2 GiB', '300 MiB', '1 MiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MiB"


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice: torch's own, Python's, or that of the CPU allocator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def in_use(device: torch.device) -> int:
    """Bytes that this process holds now: on the device, or resident on the CPU (0 where nothing tells)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") or peak(device)


def peak(device: torch.device) -> int:
    """Most bytes that this process held since `forget_peak`, or since its start; 0 where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if known := _status("VmHWM"):
        return known
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak(device: torch.device) -> None:
    """Give back what the allocator kept of freed memory, and let the next peak start from what is held now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return  # a peak of before stays: what is measured is then too large, never too small


def free(device: torch.device) -> int | None:
    """Bytes that the machine, its control groups and the device have free; None where nothing tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    known = [size for size in (_available(), *cgroup_rooms()) if size is not None]
    return min(known) if known else None


def budget(device: torch.device, asked: int | None) -> int | None:
    """Bytes that may be held at most: those asked for, else what is held now and `SHARE` of what is free."""
    if asked is not None:
        return asked
    left = free(device)
    return None if left is None else in_use(device) + int(SHARE * left)


def cgroup_rooms(root: Path = Path("/")) -> Iterator[int]:
    """Bytes left in each control group of this process that has a limit, versions 1 and 2.

    Args:
        root: Folder that holds `proc` and `sys`.
    """
    for version, group in control_groups("memory", root):
        most, now, cached = _GROUP_FILES[version]
        limit, used = _number(group / most), _number(group / now)
        if limit is not None and used is not None and limit < 2**60:
            yield max(0, limit - used + _of(group / "memory.stat", cached))


def _available() -> int | None:
    """Bytes that new work can have: without those of other programs; all there are where the system tells no more."""
    if size := 1024 * _of(Path("/proc/meminfo"), "MemAvailable:"):
        return size
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _status(name: str) -> int:
    return 1024 * _of(Path("/proc/self/status"), f"{name}:")


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _of(path: Path, name: str) -> int:
    """The number behind a name, in a file of a name and a number a line; 0 where it is not there."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(words[1]) for words in map(str.split, lines) if words and words[0] == name), 0)
