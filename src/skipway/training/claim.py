"""Which run a command means: a new one, or the one that the same command started."""

import datetime
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skipway import __version__
from skipway.errors import CheckpointError, Problem, UsageError
from skipway.request import Request
from skipway.runs import FORMAT, MARK, Run
from skipway.training.extend import LENGTH
from skipway.training.prepare import LAST, Prepared

FLAGS = {"seconds": "--time", "learning_rate": "--lr", "start": "--from"}
"""Options whose name differs from the field that holds them."""


def _said(value: Any) -> str:
    return "not given" if value is None else str(value)


def claim(output: Path, asked: Mapping[str, Any]) -> Run:
    """The run of this very command, or a folder that is free for it; nothing is written.

    Raises:
        UsageError: the folder holds another run; the message names what differs.
    """
    run = Run(output)
    if not run.exists:
        run.require_free()
        return run
    record = Run.open(output).read("run")
    before = record.get("asked")
    if not isinstance(before, dict):
        raise CheckpointError(
            Problem("does not say how it was started", str(output / MARK), fix="train into a new folder")
        )
    free = LENGTH if record.get("finished") and record.get("lengths") else ()  # it may be asked to go on
    differs = [name for name in asked if before.get(name) != asked[name] and name not in free]
    if differs:
        shown = ", ".join(
            f"{FLAGS.get(name, name)} {_said(before.get(name))} (now {_said(asked[name])})"
            for name in differs[:3]
        )
        raise UsageError(
            Problem(
                f"the folder holds another run: {shown}",
                str(output),
                "the same command, to go on with it",
                "give another folder with -o",
            )
        )
    return run


def require_outside(output: Path, *data: Path | None) -> None:
    """Refuse a run folder among the images: the next start would take its files for data."""
    for folder in data:
        if folder is not None and folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                Problem(
                    "the run folder lies inside the data", str(output), fix="give a folder beside it with -o"
                )
            )


def stands(run: Run) -> bool:
    """Whether all parts of a run are there."""
    return (run.path / LAST).is_file()


def stored(
    run: Run,
    prepared: Prepared,
    asked: Mapping[str, Any],
    device: torch.device,
    processes: int = 1,
    *,
    beside: Mapping[str, Any] | None = None,
) -> tuple[Prepared, tuple[str, ...]]:
    """Write a new run's parts; of a run that stands, its own, if the data are still the same.

    Args:
        run: The folder.
        prepared: The parts.
        asked: What the user named.
        device: Where it trains.
        processes: How many train together.
        beside: What else a new run holds from its beginning, by name.

    Returns:
        The parts, and what differs from the machine that the run was started on.
    """
    here = {**versions(), "device": str(device)}
    alone = {"processes": "1"}
    here |= {} if processes == 1 else {"processes": str(processes)}
    if stands(run):
        before = Prepared.read(run)
        then, now = (
            {*parts.split.hashes.items(), *parts.split.mask_hashes.items()} for parts in (before, prepared)
        )
        if then != now:
            names = sorted({name for name, _ in then ^ now})
            raise UsageError(
                Problem(
                    f"{len(names)} images or masks differ from those the run was started with, the first {names[0]}",
                    str(run.path),
                    "the same images, to go on with it",
                    "give another folder with -o",
                )
            )
        there, now_here = alone | run.read("versions"), alone | here
        differs = (name for name in now_here if there.get(name) != now_here[name])
        return before, tuple(f"{name} {there.get(name)} (now {now_here[name]})" for name in differs)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run.write(
        MARK.removesuffix(".json"),
        {
            "format": FORMAT,
            "created": created,
            "finished": False,
            "asked": dict(asked),
            **({"start": dict(prepared.start.facts)} if prepared.start else {}),
        },
    )
    if prepared.start:
        prepared.start.write(run)
    prepared.write(run)
    for name, value in (beside or {}).items():
        run.write(name, value)
    run.write("versions", here)
    return prepared, ()


def versions() -> dict[str, str]:
    """What the result depends on besides the data and the plan."""
    return {
        "skipway": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "threads": str(torch.get_num_threads()),
    }


def processor() -> str:
    """Name of the processor and the widest instructions that torch uses on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # a system without it
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(named, None) or platform.processor()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def command_of(run: Run, device: str | None = None) -> str:
    """What to type to repeat the run.

    Args:
        run: The run.
        device: Where to, as the user named it; it is none of what makes two commands the same.
    """
    asked = run.read("run")["asked"]
    masks = [asked["masks"]] if asked["masks"] else []
    words = ["skipway", "train", asked["images"], *masks, "-o", str(run.path)]
    for key, value in asked.get("options", {}).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    defaults = asdict(Request())
    for name, value in asked.items():
        if name in ("images", "masks", "options") or value is None or value == defaults.get(name):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [FLAGS.get(name, f"--{name}"), f"{value:g}s" if name == "seconds" else str(value)]
    words += ["--device", device] if device else []
    return shlex.join(words)
