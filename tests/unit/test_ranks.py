"""Two processes train what one trains; killed, stopped, broken, they say so once and go on to the same weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crews import DIVIDED, NETS
from toys import draw

from skipway.losses import LOSSES
from skipway.runs import read_tensors

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """What each function of crews.py gives, all of them run in one process that forks the others."""
    root = tmp_path_factory.mktemp("crews")
    crews = Path(__file__).with_name("crews.py")
    words = [sys.executable, str(crews), str(draw(root / "data")), str(root)]
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("way", "name"),
    [*(("nets", name) for name in NETS), *(("nets_divided", name) for name in DIVIDED)],
)
def test_two_processes_take_the_steps_of_one(scenes, way, name):
    assert scenes[way]["codes"] == [0, 0], "\n".join(scenes[way]["said"])
    found = scenes[way]["nets"][name]
    assert found["two"][:2] == pytest.approx(found["one"][:2], rel=1e-5)
    rounded = 1e-4 if name == "trans_unet" else 1e-5  # deep enough for the rounding of two steps to be seen
    assert found["two"] == pytest.approx(found["one"], rel=rounded)
    assert len(set(found["one"])) == len(found["one"])
    assert found["same"], "the two processes differ in a weight"
    assert found["apart"] < 2 * rounded * found["largest"]


def test_every_loss_is_that_of_the_whole_batch(scenes):
    found = scenes["losses"]
    assert found["codes"] == [0, 0, 0], found["said"]
    for worst in found["worst"]:
        assert {name.split()[0] for name in worst} == set(LOSSES)
        assert max(worst.values()) < 1e-12


def test_batch_norm_is_that_of_the_whole_batch(scenes):
    assert scenes["norm"]["codes"] == [0, 0], scenes["norm"]["said"]
    assert max(max(away) for away in scenes["norm"]["away"]) < 1e-12


def test_a_training_of_two_ends_as_that_of_one(scenes):
    found = scenes["whole"]
    assert found["codes"] == [0, 0], found["said"]
    assert found["said"] == []
    assert close(*found["runs"])
    assert found["strays"] == []


def test_killed_and_started_again_ends_in_the_same_bytes(scenes):
    found = scenes["killed"]
    assert found["first"]["codes"] == [4, -9]
    (line,) = found["first"]["said"]
    assert line.startswith("skipway: error: another of the 2 processes of this training is gone (")
    assert found["first"]["seconds"] < 30
    assert found["again"]["codes"] == [0, 0], found["again"]["said"]
    assert found["weights"] == scenes["whole"]["weights"]
    assert found["strays"] == []


def test_killed_and_restarted_by_the_launcher_ends_in_the_same_bytes(scenes):
    found = scenes["restarted"]
    assert found["code"] == 0, found["said"]
    assert found["lives"] == ["0.0", "0.1", "1.0", "1.1"]
    assert found["weights"] == scenes["whole"]["weights"]


def test_divided_over_the_processes_it_ends_as_one_and_survives_a_kill(scenes):
    found = scenes["divided_up"]
    assert found["codes"] == [[0, 0], [4, -9], [0, 0]], found["said"]
    assert len(set(found["weights"])) == 1
    assert close(found["runs"][0], scenes["whole"]["runs"][0])


def test_a_stop_asked_of_one_stops_both_after_the_same_step(scenes):
    found = scenes["stopped"]
    assert found["first"]["codes"] == [75, 75]
    (line,) = found["first"]["said"]
    assert "stopped after step 5; state and weights are saved" in line
    assert found["step"] == 5
    assert found["again"]["codes"] == [0, 0], found["again"]["said"]
    assert found["weights"] == scenes["whole"]["weights"]


@pytest.mark.parametrize(("way", "before", "after"), [("2 to 1", 2, 1), ("1 to 2", 1, 2)])
def test_goes_on_with_another_number_of_processes(scenes, way, before, after):
    found = scenes["resumed"][way]
    assert found["codes"] == [[75] * before, [0] * after]
    said = f"statistical resume (processes {before} (now {after}))"
    assert said in found["lines"]
    assert close(found["run"], scenes["whole"]["runs"][0])


@pytest.mark.parametrize(
    ("what", "codes", "said"),
    [
        ("data", [3, 3], "skipway: error D101: c3.tif: cannot be read. Fix: mend it"),
        ("memory", [4, 4], "skipway: error: not enough memory. Fix: a smaller --batch, --patch or --tile"),
        ("batch", [2, 2], "skipway: error: --batch: a batch of 1 patch for 2 processes, expected"),
    ],
)
def test_an_error_of_one_is_said_once_and_ends_both(scenes, what, codes, said):
    found = scenes["faulty"][what]
    assert found["codes"] == codes
    (line,) = found["said"]
    assert line.startswith(said)
    assert found["seconds"] < 30


def test_a_fault_in_the_code_of_one_ends_both_and_shows_where(scenes):
    found = scenes["faulty"]["fault"]
    assert found["codes"] == [1, 99]
    assert any(line.startswith("Traceback") for line in found["said"])  # in whatever order the two speak
    assert "skipway: error: process 1 of 2 failed: KeyError: 'surprise'" in found["said"]


def test_a_refused_batch_leaves_no_folder(scenes):
    assert "one" not in scenes["faulty"]["folders"]


def test_a_batch_that_is_not_finite_in_one_is_left_out_by_both(scenes):
    (one, alone), (two, both) = scenes["poisoned"]["found"]
    assert (one, two) == ([0], [0, 0])
    assert both == alone
    assert [event["batch"] for event in both] == [5]
    assert len(both[0]["images"].split(", ")) == 3
    assert close(*scenes["poisoned"]["runs"])


def close(one, two):
    """Whether two runs have the same averaged weights but for the order of sums, and the same curve."""
    first, second = (read_tensors(Path(run) / "model.safetensors")[0] for run in (one, two))
    assert first.keys() == second.keys()
    return all(np.allclose(first[name], second[name], rtol=1e-4, atol=2e-5) for name in first)
