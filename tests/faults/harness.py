"""What the fault tests share: lives, looks at a run folder, and the tally of the rows."""

import csv
import hashlib
import json
import platform
import shutil
from dataclasses import dataclass, field
from importlib import metadata

import numpy as np
import tifffile
from rows import NOT_HERE, ROWS
from toys import TINY

from skipway.runs import read_tensors

STEPS = 16
INTERVAL = 2
"""Steps from one validation, which saves, to the next."""


def words(data, run, *more, steps=STEPS):
    """The command of a toy training."""
    tiny = [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
    plain = ["train", str(data / "images"), str(data / "masks"), "-o", str(run), "--task", "objects"]
    return [*plain, *tiny, "--steps", str(steps), "--device", "cpu", "--json", *map(str, more)]


@dataclass
class Tally:
    rows: dict = field(default_factory=dict)
    failed: set = field(default_factory=set)
    corrupt: int = 0
    wrong: int = 0
    hung: int = 0

    def note(self, name, done, n, figure, fired, seconds):
        facts = {"done": done, "n": n, "figure": figure, "fired": fired, "seconds": round(seconds, 1)}
        self.rows.setdefault(name, []).append(facts)

    @property
    def line(self):
        run = {*self.rows, *self.failed}
        fired = sum(one["fired"] for found in self.rows.values() for one in found)
        return (
            f"X01–X33: {len(run - self.failed)}/{len(run)}, {fired} faults fired, "
            f"{self.corrupt} corrupt, {self.wrong} wrong, {self.hung} hung"
        )

    def save(self, path):
        rows = {
            name: {"fault": fault, "passed": name in self.rows and name not in self.failed}
            | ({"runs": self.rows[name]} if name in self.rows else {})
            | ({"reason": NOT_HERE[name]} if name in NOT_HERE else {})
            for name, fault in ROWS.items()
        }

        machine = {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("skipway", "torch", "numpy", "safetensors")},
        }
        found = {"command": "uv run pytest -m faults", "line": self.line, "machine": machine, "rows": rows}
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass
class Nursery:
    child: object
    tally: Tally

    def __call__(self, asked):
        self.child.stdin.write(json.dumps(asked) + "\n")
        self.child.stdin.flush()
        found = json.loads(self.child.stdout.readline())
        self.tally.hung += sum(life["hung"] for life in found)
        assert not any(life["hung"] for life in found), found
        assert not any("Traceback" in life["err"] for life in found), [life["err"] for life in found]
        return found

    def live(self, words, *plant, **more):
        """One life."""
        return self([{"words": words, "plant": [list(one) for one in plant], **more}])[0]


def bytes_of(path, parts=""):
    """SHA-256 of the tensors of a file whose names begin so."""
    tensors, _ = read_tensors(path)
    found = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith(parts)):
        found.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        found.update(np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()


def rows_of(run):
    """metrics.csv without the seconds."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def result(run):
    """Averaged weights and metrics; where the last state was kept, also weights, optimiser and random states."""
    found = {"model": bytes_of(run / "model.safetensors"), "metrics": rows_of(run)}
    if (run / "state.safetensors").is_file():
        for part in ("model", "average", "optimiser", "random"):
            found[f"state {part}"] = bytes_of(run / "state.safetensors", part)
    return found


def same(tally, run, whole):
    """Whether two runs ended in the same bits; counted where not."""
    left, right = result(run), result(whole)
    equal = all(left[key] == right[key] for key in left.keys() & right.keys())
    tally.wrong += not equal
    return equal


def unreadable(run):
    """Files of a run folder that cannot be read as what their name says, and how many were read."""
    bad, count = [], 0
    for path in sorted(run.rglob("*")):
        if not path.is_file() or "tmp" in path.name or ".part" in path.name or path.name == ".lock":
            continue
        count += 1
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                read_tensors(path)
            elif path.suffix == ".csv":
                assert all(int(row["step"]) for row in rows_of(run))
                assert path.read_bytes().endswith(b"\n")
            elif path.suffix == ".html":
                assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
            elif path.suffix == ".tif":
                tifffile.imread(path)
            else:
                raise AssertionError(f"a file of an unknown kind: {path.name}")
        except Exception as error:
            bad.append(f"{path.name}: {error}")
    return bad, count


def whole_files(tally, run):
    """How many files were read; all of them must be whole."""
    bad, count = unreadable(run)
    tally.corrupt += len(bad)
    assert bad == []
    return count


def step_of(run):
    """The step of the newest state; None before the first."""
    path = run / "state.safetensors"
    return read_tensors(path)[1]["progress"]["step"] if path.is_file() else None


def lost(run, step):
    """Steps that a life of which the last was `step` told of and the newest state does not hold."""
    if not step or json.loads((run / "run.json").read_text())["finished"]:
        return 0
    saved = step_of(run)
    assert saved is not None
    return max(0, step - saved)


def strays(run):
    return [p.name for p in run.rglob("*") if p.name.startswith(".skipway-tmp") or ".part" in p.name]


def copied(run, to):
    shutil.copytree(run, to)
    return to
