"""How every benchmark here is measured: CPU seconds, peers in rotation, the noise printed beside the figure.

Wall time on a shared machine says more about the neighbours than about the code, so figures are CPU seconds
of the process, all threads together. Peers run A B C A B C in one process, so that a slow minute hits them
alike, and the first peer runs twice under two names: the ratio of the two (A/A) is the noise that any other
ratio must clear. Peak memory is taken in a fresh child process, over its level just before the call.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

# Threads that wait must sleep: a spinning OpenMP worker would count as CPU time of whoever is measured.
# Read by the runtime at its start, so a benchmark imports this module before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

RESULTS = Path(__file__).parent / "results"
AGAIN = " (again)"


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one peer.

    Attributes:
        cpu: Median of the rounds, seconds.
        spread: Distance of the quartiles over the median; 0 below three rounds.
        rounds: How often it was timed.
    """

    cpu: float
    spread: float
    rounds: int


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of all threads of this process during one call, its result freed outside the clock."""
    start = time.process_time()
    result = call()
    used = time.process_time() - start
    del result
    return used


def rotate(
    peers: Mapping[str, Callable[[], object]], *, rounds: int = 5, warmup: int = 1, cap: float = 60.0
) -> dict[str, Timing]:
    """Time peers in rotation in this process; the first one twice, the second time under `NAME (again)`.

    Args:
        peers: Name to a call without arguments.
        rounds: Timings of each peer.
        warmup: Calls before the clock starts (compilation, caches, settled allocator).
        cap: CPU seconds after which a slow peer is not timed again; it keeps the timings it has.
    """
    first = next(iter(peers))
    calls = dict(peers) | {first + AGAIN: peers[first]}
    for call in peers.values():
        for _ in range(warmup):
            call()
    gc.collect()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if sum(taken[name]) < cap:
                taken[name].append(cpu_seconds(call))
    return {name: _summary(seconds) for name, seconds in taken.items()}


def noise(timings: Mapping[str, Timing]) -> float:
    """A/A: the peer that ran under two names, second over first. Ratios closer to 1 than this are ties."""
    again = next(name for name in timings if name.endswith(AGAIN))
    return timings[again].cpu / timings[again.removesuffix(AGAIN)].cpu


def peak_mebibytes(prepare: Callable[..., Callable[[], object]], *arguments: Any, warmup: int = 1) -> float:
    """Memory that one call adds at its peak, MiB, in a process of its own.

    Args:
        prepare: Importable function that builds the inputs in the child and returns the call to measure.
        arguments: What `prepare` gets; plain data.
        warmup: Calls before the measured one (compilation and imports are not the call's own memory).
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (prepare, arguments, warmup))


def machine(*packages: str) -> dict[str, Any]:
    """What the figures depend on: processor, cores, load, Python and the versions of `packages`."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def row(name: str, timing: Timing, base: Timing, **more: Any) -> dict[str, Any]:
    """One line of the table: figures of a peer, and how many times faster than `base` it is."""
    return {"peer": name, **asdict(timing), "times_faster": base.cpu / timing.cpu, **more}


def save(name: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> Path:
    """Print `rows` as a table and write them with `facts` to `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    rounded = _rounded({"command": " ".join(["python", *sys.argv]), **facts, "rows": list(rows)})
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    columns = list(dict.fromkeys(key for line in rounded["rows"] for key in line))
    table = [columns, *([str(line.get(key, "")) for key in columns] for line in rounded["rows"])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return path


def _summary(seconds: list[float]) -> Timing:
    middle = statistics.median(seconds)
    if len(seconds) < 3:
        return Timing(middle, 0.0, len(seconds))
    low, _, high = statistics.quantiles(seconds, n=4)
    return Timing(middle, (high - low) / middle, len(seconds))


def _peak_here(
    prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], warmup: int
) -> float:
    call = prepare(*arguments)
    for _ in range(warmup):
        call()
    gc.collect()
    if sys.platform != "linux":
        return _peak_by_rusage(call)
    ctypes.CDLL("libc.so.6").malloc_trim(
        0
    )  # free blocks kept from the warm-up would hide what the call needs
    base = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present level
    result = call()
    peak = _status("VmHWM")
    del result
    return max(0.0, (peak - base) / 1024)


def _peak_by_rusage(call: Callable[[], object]) -> float:
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del result
    return (peak - base) / unit


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _rounded(value: Any) -> Any:
    """Six significant digits: the rest is noise that only makes diffs."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
