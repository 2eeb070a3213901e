"""The state itself: resumed anywhere, damaged, a part missing, a thousand times."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import bytes_of, copied, result, same, step_of, whole_files, words
from toys import contents

from skipway.runs import read_tensors, write_tensors

pytestmark = pytest.mark.faults
quick = pytest.mark.quick

LENGTH = 50


@pytest.mark.row("X32")
@pytest.mark.parametrize("stops", [pytest.param(1, marks=quick), 50])
def test_resumed_equals_never_stopped(nursery, data, tmp_path, tally, row, stops):
    runs = {}
    for workers in (0, 4):
        runs[workers] = tmp_path / f"whole {workers}" / "run"
        life = nursery.live(words(data, runs[workers], "--workers", workers, steps=LENGTH), ["keep_states"])
        assert life["code"] == 0, life["err"]
    assert result(runs[0]) == result(runs[4])
    rng, equal = random.Random(stops), 0
    for number, step in enumerate(rng.choices(range(1, LENGTH), k=stops)):
        for workers, then in ((0, 4), (4, 0)) if number % 2 else ((0, 0), (4, 4)):
            run = tmp_path / f"{number} {workers}" / "run"
            first = words(data, run, "--workers", workers, steps=LENGTH)
            assert nursery.live(first, signals=[[step, 0, "SIGTERM"]])["code"] == 75
            assert step_of(run) >= step
            again = words(data, run, "--workers", then, steps=LENGTH)
            life = nursery.live(again, ["keep_states"])
            assert life["code"] == 0, life["err"]
            assert set(result(run)) == {
                "model",
                "metrics",
                *(f"state {p}" for p in ("model", "average", "optimiser", "random")),
            }
            assert same(tally, run, runs[0])
            equal += 1
    done = f"{stops} random stop points with 0 and with 4 workers, half of them changed at the resume"
    parts = "weights, averaged weights, optimiser, random states and metrics"
    row("X32", done, equal, f"{equal}/{equal} with the same SHA-256 of {parts}")


@pytest.mark.row("X32")
def test_resumed_elsewhere(nursery, data, whole, tmp_path, row):
    run = tmp_path / "run"
    assert nursery.live(words(data, run), signals=[[5, 0, "SIGTERM"]])["code"] == 75
    before = contents(run)
    other = nursery.live([*words(data, run), "--batch", "3"])
    assert other["code"] == 2
    assert "the folder holds another run: batch 2 (now 3)" in other["err"]
    assert contents(run) == before
    life = nursery.live(words(data, run), ["threads", 2])
    assert life["code"] == 0, life["err"]
    said = [e["text"] for e in life["events"] if e["event"] in ("line", "warning")]
    assert sum("statistical resume (threads 1 (now 2))" in text for text in said) == 2
    assert not any(text.startswith("exact") for text in said)
    row(
        "X32",
        "resumed on another number of threads; with another batch",
        2,
        "`statistical resume`, never `exact`; exit 2",
    )


def drop(part, tensors, facts):
    """A copy of a state without one part: as a fresh start has it."""
    tensors, progress = dict(tensors), dict(facts["progress"])

    def fresh(prefix, wanted):
        for name in tensors:
            if name.startswith(prefix) and wanted(name):
                value = np.ones_like if name.endswith("running_var") else np.zeros_like
                tensors[name] = value(tensors[name])

    running = ("running_mean", "running_var")
    fresh_part = {
        "weights": ("model.", lambda name: not name.endswith(running)),
        "batch-norm statistics": ("model.", lambda name: name.endswith(running)),
        "optimiser": ("optimiser.", lambda name: True),
        "averaged weights": ("average.", lambda name: True),
    }
    if part in fresh_part:
        fresh(*fresh_part[part])
    elif part == "schedule":
        progress["total"] = 2 * progress["total"]
    elif part == "step":
        progress["step"] -= 1
    elif part == "torch":
        tensors["random.torch"] = torch.Generator().manual_seed(5).get_state().numpy()
    elif part == "NumPy":
        tensors["random.numpy"] = tensors["random.numpy"][::-1].copy()
    elif part == "Python":
        state = tensors["random.python"]
        tensors["random.python"] = np.concatenate([state[-2::-1], state[-1:]])
    return tensors, {**facts, "progress": progress}


PARTS = (
    "weights",
    "batch-norm statistics",
    "optimiser",
    "schedule",
    "averaged weights",
    "torch",
    "NumPy",
    "Python",
    "step",
)


@pytest.fixture(scope="module")
def drawn(nursery, data, tmp_path_factory):
    """A run whose steps draw from all three global generators, whole and stopped."""
    root = tmp_path_factory.mktemp("drawn")
    assert nursery.live(words(data, root / "whole"), ["drawing"])["code"] == 0
    assert nursery.live(words(data, root / "stopped"), ["drawing"], signals=[[7, 0, "SIGTERM"]])["code"] == 75
    return root


@pytest.mark.row("X32")
@pytest.mark.parametrize("part", [None, *PARTS])
def test_each_of_the_nine_parts_matters(nursery, data, drawn, tmp_path, tally, row, part):
    run = drawn / "again"
    (drawn / "stopped").rename(run)
    try:
        copied(run, drawn / "stopped")
        path = run / "state.safetensors"
        write_tensors(path, *drop(part, *read_tensors(path)))
        # The folder has another name than it was started in; the command does not name it.
        assert nursery.live(words(data, run), ["drawing"])["code"] == 0
        left, right = result(run), result(drawn / "whole")
    finally:
        import shutil

        shutil.rmtree(run)
    if part is None:
        assert left == right
        return
    assert left != right
    row("X32", f"the state without its {part}", 1, "the result differs, so the test of equality sees it", 1)


@pytest.mark.row("X24")
@pytest.mark.parametrize("damages", [pytest.param(2, marks=quick), 20])
def test_a_damaged_newest_state(nursery, data, whole, tmp_path, tally, row, damages):
    stopped = tmp_path / "stopped"
    assert nursery.live(words(data, stopped), signals=[[7, 0, "SIGTERM"]])["code"] == 75
    rng = random.Random(damages)
    for number in range(damages):
        run = copied(stopped, tmp_path / f"run {number}")
        path = run / "state.safetensors"
        bad = bytearray(path.read_bytes())
        if number % 2:
            bad = bad[: rng.randrange(len(bad))]
        else:
            bit = rng.randrange(8 * len(bad))
            bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(bad))
        life = nursery.live(words(data, run))
        assert life["code"] == 0, life["err"]
        (warned,) = [
            e["text"] for e in life["events"] if e["event"] == "warning" and "going on from" in e["text"]
        ]
        assert "state.safetensors" in warned
        assert "the damaged file is kept as damaged-1.safetensors" in warned
        assert (run / "damaged-1.safetensors").read_bytes() == bytes(bad)
        assert same(tally, run, whole)
    row("X24", "the newest state with a flipped bit or cut", damages,
        "the one before it is gone on from, with a warning; the damaged file is kept; same SHA-256")  # fmt: skip


@pytest.mark.row("X24")
def test_when_both_states_are_damaged(nursery, data, tmp_path, row):
    run = tmp_path / "run"
    assert nursery.live(words(data, run), signals=[[7, 0, "SIGTERM"]])["code"] == 75
    for name in ("state", "previous"):
        (run / f"{name}.safetensors").write_bytes(b"0123456789abcdef")
    before = contents(run)
    life = nursery.live(words(data, run))
    assert life["code"] in (3, 6)
    assert "state.safetensors" in life["err"]
    kept = {path: text for path, text in contents(run).items() if "safetensors" in path}
    assert all(before[path] == text for path, text in kept.items())
    row("X24", "both states damaged", 1, "refused, the file named, nothing deleted")


@pytest.mark.row("X27")
def test_the_clock_goes_back(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    assert nursery.live(words(data, run), signals=[[5, 0, "SIGTERM"]])["code"] == 75
    for path in run.iterdir():  # the state is the oldest file, the previous one is of tomorrow
        ahead = 86400 if path.name == "previous.safetensors" else -365 * 86400
        moment = path.stat().st_mtime + ahead
        os.utime(path, (moment, moment))
    life = nursery.live(words(data, run), ["last_year"], signals=[[9, 0, "SIGTERM"]])
    assert life["code"] == 75
    assert step_of(run) >= 9
    whole_files(tally, run)
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row(
        "X27",
        "clock a year back; the previous state newer by its time",
        2,
        "gone on from the newest step; same SHA-256",
    )


CYCLES = """
import json, os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import test_training_loop as loops
from skipway.errors import Interrupted
loops.one_thread()
folder, count, rows = Path(sys.argv[2]), int(sys.argv[3]), []
def memory():
    return int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmRSS")))
for cycle in range(1, count + 1):
    try:
        loops.train(folder, loops.Fake(stop_after=cycle), steps=count + 10)
    except Interrupted:
        pass
    if cycle % (count // 5) == 0:
        files = [path for path in folder.iterdir() if path.name != "metrics.csv"]
        rows.append([memory(), len(os.listdir("/proc/self/fd")), len(files), sum(p.stat().st_size for p in files)])
print(json.dumps(rows))
"""


@pytest.mark.row("X33")
@pytest.mark.parametrize("cycles", [50, 1000])
def test_saves_and_resumes_without_end(tmp_path, row, cycles):
    import json

    unit = Path(__file__).parents[1] / "unit"
    done = subprocess.run(
        [sys.executable, "-c", CYCLES, str(unit), str(tmp_path / "run"), str(cycles)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *_, last = json.loads(done.stdout)
    grown = (last[0] - first[0]) / 1024
    assert grown < 24
    assert last[1:3] == first[1:3]
    assert abs(last[3] - first[3]) < 200
    figure = f"{grown:+.1f} MiB of memory, 0 open files, 0 files, {last[3] - first[3]:+d} bytes"
    row("X33", "saves and resumes, each of one step", cycles, f"from a fifth of them to the end: {figure}")


def test_the_two_digests_see_a_bit(whole, tmp_path):
    run = copied(whole, tmp_path / "run")
    tensors, facts = read_tensors(run / "model.safetensors")
    name = next(name for name in tensors if tensors[name].dtype.kind == "f")
    tensors[name].view(np.uint32).reshape(-1)[0] ^= 1
    write_tensors(run / "model.safetensors", tensors, facts)
    assert bytes_of(run / "model.safetensors") != bytes_of(whole / "model.safetensors")
