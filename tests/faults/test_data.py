"""Files of the data that hang, break or go during a training."""

import sys

import pytest
from harness import same, step_of, whole_files, words
from toys import draw

from skipway.data.check import examine
from skipway.data.layouts import find_pairs
from skipway.data.scan import Scan

pytestmark = pytest.mark.faults
quick = pytest.mark.quick

TRAINED = ("c0.tif", "c1.tif", "c2.tif", "c3.tif", "c4.tif")


@pytest.fixture
def own(tmp_path):
    """Data of its own, to be damaged."""
    return draw(tmp_path / "data")


def trains(run):
    import json

    return json.loads((run / "split.json").read_text())["train"]


@pytest.mark.row("X16")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=quick), 4])
def test_a_read_that_never_ends(nursery, data, whole, tmp_path, row, workers):
    run, name = tmp_path / "run", f"{trains(whole)[1]}.tif"
    life = nursery.live(words(data, run, "--workers", workers), ["hanging", name, 1.0], limit=60)
    assert life["code"] == 3, life["err"]
    assert f"masks/{name}: took more than 1 s to read" in life["err"]
    assert life["seconds"] < 20
    row("X16", f"reading one file never ends, {workers} workers, limit 1 s (as delivered 60 s)", 1,
        f"exit 3 after {life['seconds']:.1f} s, the file named")  # fmt: skip


@pytest.mark.row("X17")
def test_a_file_that_breaks_after_the_check(nursery, own, whole, tmp_path, row):
    name = f"{trains(whole)[1]}.tif"
    life = nursery.live(words(own, tmp_path / "run"), ["cut_when_read", name])
    assert life["code"] == 3, life["err"]
    assert f"masks/{name}" in life["err"]
    row("X17", "a mask is cut between the check and its use in a worker", 1, "exit 3, the file named")


@quick
@pytest.mark.row("X29")
def test_a_file_that_goes_during_the_run(nursery, own, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    path = own / "images" / f"{trains(whole)[1]}.tif"
    life = nursery.live(words(own, run), ["no_cache"], touch=[5, str(path)])
    assert life["code"] == 3, life["err"]
    assert f"{path}: no such file" in life["err"]
    assert step_of(run) >= 4
    whole_files(tally, run)
    path.with_name(path.name + ".away").rename(path)
    assert nursery.live(words(own, run))["code"] == 0
    assert same(tally, run, whole)
    row(
        "X29",
        "an image is removed during the run",
        1,
        "exit 3, the file named, the state kept; put back: same SHA-256",
    )


PLANTED = """
import os
from skipway.data import sources, worker
def planted(path, real=sources.open_image):
    if path.name == "c2.tif":
        os.kill(os.getpid(), 9)
    return real(path)
sources.open_image = planted
worker.serve()
"""


@pytest.mark.row("X15")
def test_a_child_of_the_check_is_killed(data, row):
    pairs = find_pairs(data / "images", data / "masks")
    found = examine(pairs, how=Scan(isolate=True, worker=(sys.executable, "-c", PLANTED)))
    (problem,) = found.problems
    assert "the decoder died (SIGKILL)" in problem.found
    assert "c2.tif" in problem.where
    row("X15", "a child that decodes for the check is killed (training has no processes: batches are made in threads)",
        1, "one problem that names the file; the others are read")  # fmt: skip
