"""A training that was stopped, killed or started twice ends with the bytes of one that never was."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import contents, digest, draw, one_thread, start, strays

from skipway import single
from skipway.errors import Interrupted, UsageError
from skipway.runs import Run, read_tensors
from skipway.training import pace, state


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that was never stopped."""
    return start(data, tmp_path_factory.mktemp("whole") / "run").run.path


def stopping_at(step, steps):
    """An event hook that notes steps and sends this process SIGTERM after `step`."""

    def hear(event):
        if event["event"] == "step":
            steps.append(event["step"])
            if event["step"] == step:
                os.kill(os.getpid(), signal.SIGTERM)

    return hear


def stop_and_go_on(data, run, *stops, **choices):
    """Stop after each of `stops`, then run to the end; the steps that were done, in order."""
    steps = []
    for stop in stops:
        with pytest.raises(Interrupted, match=f"stopped after step {stop}") as caught:
            start(data, run, event=stopping_at(stop, steps), **choices)
        assert caught.value.exit_code == 75
        assert not Run(run).read("run")["finished"]
    start(data, run, event=stopping_at(None, steps), **choices)
    return steps


@pytest.mark.parametrize("stops", [(1,), (7,), (2, 3, 15), (16,)])
def test_stopped_and_resumed_equals_never_stopped(data, whole, tmp_path, stops):
    assert stop_and_go_on(data, tmp_path / "run", *stops) == list(range(1, 17))
    assert digest(tmp_path / "run") == digest(whole)
    assert strays(tmp_path) == []


def test_another_seed_gives_other_weights(data, whole, tmp_path):
    start(data, tmp_path / "run", seed=1)
    weights, rows = digest(tmp_path / "run")
    assert weights != digest(whole)[0]
    assert rows != digest(whole)[1]


DROPOUT = {"model": "unet_2015", "patch": 44, "steps": 10, "optimiser": "sgd"}


def test_a_net_with_dropout_resumes_exactly(data, tmp_path):
    start(data, tmp_path / "whole", **DROPOUT)
    stop_and_go_on(data, tmp_path / "run", 3, 6, **DROPOUT)
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


def test_without_its_random_state_dropout_would_not(data, tmp_path, monkeypatch):
    start(data, tmp_path / "whole", **DROPOUT)
    monkeypatch.setattr(state, "_set_random_state", lambda *_: None)
    stop_and_go_on(data, tmp_path / "run", 3, **DROPOUT)
    assert digest(tmp_path / "run")[0] != digest(tmp_path / "whole")[0]


def test_stopped_before_the_time_budget_became_steps(data, tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(pace, "steps_in", lambda *numbers: planned.append(numbers) or 24)
    monkeypatch.setattr(
        single, "measured", lambda prepared, *_: prepared
    )  # two runs may be planned differently
    budget = {"steps": None, "seconds": 6000.0}
    start(data, tmp_path / "whole", **budget)
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(data, run, event=stopping_at(7, []), **budget)
    _, facts = read_tensors(run / "state.safetensors")
    assert (facts["progress"]["step"], facts["progress"]["total"]) == (7, None)
    assert facts["progress"]["seconds"] > 0
    steps = stop_and_go_on(data, run, 21, **budget)
    assert steps == list(range(8, 25))
    assert [numbers[0] for numbers in planned] == [20] * 2  # once a run, not once a start
    assert digest(run) == digest(tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(data, whole):
    before, steps = contents(whole), []
    again = start(data, whole, event=stopping_at(None, steps))
    assert steps == []
    assert contents(whole) == before
    assert again.evaluation["n"] == 1
    assert not (whole / "state.safetensors").exists()


def test_a_second_start_beside_the_first_is_refused(data, whole, tmp_path):
    refusals = []

    def meanwhile(event):
        if event["event"] == "step" and event["step"] == 5:
            before = contents(tmp_path)
            with pytest.raises(UsageError, match="another skipway is writing here") as caught:
                start(data, tmp_path / "run")
            assert contents(tmp_path) == before
            refusals.append(caught.value.exit_code)

    start(data, tmp_path / "run", event=meanwhile)
    assert refusals == [2]
    assert digest(tmp_path / "run") == digest(whole)


LIVES = """
import json, os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import toys
toys.one_thread()
data, root = Path(sys.argv[2]), Path(sys.argv[3])
import torch._dynamo  # an optimiser loads it: five seconds here instead of in every life
from skipway.errors import SkipwayError

def born(run, die_at_sync=None, event=lambda _: None):
    pid = os.fork()
    if pid:
        return pid
    code, sync, done = 99, os.fsync, 0
    def counted(handle):
        nonlocal done
        done += 1
        if done == die_at_sync:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)
    os.fsync = counted
    try:
        toys.start(data, run, event=event)
        code = 0
    except SkipwayError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    finally:
        os._exit(code)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def syncs(root):
    # Every place of the first write, a middle and the last part of a new run, then each of the six of a save.
    moments, codes = [1, 2, 3, 8, 13, 14, 15, 16, 17, 18, 19, 20], []
    while not codes or codes[-1] == -9:
        codes.append(end(born(root / "run", moments[0])))
        moments = moments[1:] or [moments[0] + 8]
    return codes

def moments(root):
    # Some way into steps on which the life before could save: a random part of the time a step takes.
    began = time.monotonic()
    assert end(born(root / "whole")) == 0
    a_step, rng, codes = (time.monotonic() - began) / 16, random.Random(5), []
    for step in (3, 6, 11, 14):
        reader, writer = os.pipe()
        pid = born(root / "run", event=lambda e: e.get("step", 0) >= step and os.write(writer, b"."))
        os.close(writer)
        os.read(reader, 1)
        time.sleep(rng.uniform(0, a_step))
        os.kill(pid, signal.SIGKILL)
        codes.append(end(pid))
    return [*codes, end(born(root / "run"))]

def together(root):
    return [end(pid) for pid in [born(root / "run") for _ in range(3)]]

print(json.dumps({how.__name__: how(root / how.__name__) for how in (syncs, moments, together)}))
"""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


@pytest.fixture(scope="module")
def lives(data, tmp_path_factory):
    """Trainings that were killed or started together: their folder, exit codes by test (-9 killed), errors.

    One process that imports everything once and forks a training for each life.
    """
    root = tmp_path_factory.mktemp("lives")
    words = [sys.executable, "-c", LIVES, str(Path(__file__).parent), str(data), str(root)]
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    return root, json.loads(found.stdout.splitlines()[-1]), found.stderr


@forks
def test_killed_before_each_write_reaches_the_disk(lives, whole):
    root, codes, err = lives
    assert codes["syncs"][-1] == 0, err
    assert len(codes["syncs"]) > 10
    assert set(codes["syncs"][:-1]) == {-9}
    assert digest(root / "syncs" / "run") == digest(whole)
    assert strays(root / "syncs") == []


@forks
def test_killed_at_random_moments(lives, whole):
    root, codes, err = lives
    assert codes["moments"][-1] == 0, err
    assert codes["moments"].count(-9) >= 3
    assert digest(root / "moments" / "run") == digest(root / "moments" / "whole") == digest(whole)
    assert strays(root / "moments") == []


@forks
def test_of_three_starts_at_once_one_trains(lives, whole):
    root, codes, err = lives
    assert sorted(codes["together"]) == [0, 2, 2], err
    assert err.count("another skipway is writing here") == 2
    assert digest(root / "together" / "run") == digest(whole)
