"""Signals, readers that leave, and two that want one folder."""

import random

import pytest
from harness import same, step_of, strays, whole_files, words

pytestmark = pytest.mark.faults
quick = pytest.mark.quick


@pytest.mark.row("X12")
@pytest.mark.parametrize("stops", [pytest.param(2, marks=quick), 20])
def test_sigterm(nursery, data, whole, tmp_path, tally, row, stops):
    rng, longest, done, finished = random.Random(stops), 0.0, 0, 0
    while done < stops or not finished:
        run = tmp_path / f"{finished}" / "run"
        wait = [[rng.randint(1, 5), rng.uniform(0, 0.05), "SIGTERM"]] if done < stops else []
        life = nursery.live(words(data, run), signals=wait)
        if life["code"] == 0:
            assert same(tally, run, whole)
            finished += 1
            continue
        assert life["code"] == 75, life["err"]
        assert "skipway: " in life["err"]
        assert strays(run) == []
        if step_of(run):
            assert life["step"] == step_of(run)
        longest, done = max(longest, life["to_end"]), done + 1
    row(
        "X12",
        "SIGTERM at random times",
        done,
        f"exit 75 within {longest:.2f} s, the step in hand saved; same SHA-256",
    )


@pytest.mark.row("X13")
def test_sigterm_then_sigkill_during_the_save(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    hanging = ["slow_save", "state.safetensors", 4, 60]  # the fourth: before the first step, after 2, 4 and 5
    life = nursery.live(words(data, run), hanging, signals=[[5, 0, "SIGTERM"], [5, 5.0, "SIGKILL"]])
    assert life["code"] == -9, life["err"]
    assert step_of(run) == 4
    whole_files(tally, run)
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    assert strays(run) == []
    row("X13", "SIGTERM, SIGKILL 5 s later while the save hangs in fsync", 1, "files whole, same SHA-256")


@pytest.mark.row("X14")
def test_ctrl_c_twice(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    life = nursery.live(
        words(data, run),
        ["twice", 0.2],
        ["slow_step", 8, 60],
        signals=[[7, 0.1, "SIGINT"], [7, 0.6, "SIGINT"]],
    )
    assert life["code"] == 75, life["err"]
    assert "stopped at once; the last save stands" in life["err"]
    assert life["to_end"] < 10
    assert step_of(run) == 6
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row(
        "X14",
        "Ctrl-C twice during a step that takes a minute",
        1,
        f"exit 75 after {life['to_end']:.1f} s, no traceback",
    )


@pytest.mark.row("X14")
def test_a_closed_terminal(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    life = nursery.live(words(data, run), signals=[[5, 0, "SIGHUP"]])
    assert life["code"] == 75, life["err"]
    assert step_of(run) == life["step"] >= 5
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row("X14", "SIGHUP", 1, "saved, exit 75")


@quick
@pytest.mark.row("X14")
def test_a_closed_pipe(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    life = nursery.live(words(data, run), ["slow_step", 8, 2.0], deaf=5)
    assert life["code"] == 75, life["err"]
    assert "state and weights are saved" in life["err"]
    assert "BrokenPipe" not in life["err"]
    assert step_of(run) >= 5
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row("X14", "the reader of the output leaves (`--json | head`)", 1, "saved, exit 75, no traceback")


@pytest.mark.row("X14")
def test_a_signal_before_and_after_the_loop(nursery, data, whole, tmp_path, tally, row):
    n = 0
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        for step, wait in ((0, 0.12), (16, 0.3)):
            run = tmp_path / f"{name} {step}" / "run"
            life = nursery.live(words(data, run), signals=[[step, wait, name]])
            assert life["code"] in (75, 0), life
            n += life["code"] == 75
            assert nursery.live(words(data, run))["code"] == 0
            assert same(tally, run, whole)
            assert strays(run) == []
    assert n >= 3
    row(
        "X14",
        "SIGINT, SIGTERM, SIGHUP during the check of the data and during the final scores",
        n,
        "exit 75, same SHA-256",
    )


@pytest.mark.row("X25")
@pytest.mark.parametrize("starts", [pytest.param(4, marks=quick), 20])
def test_many_starts_one_folder(nursery, data, whole, tmp_path, tally, row, starts):
    run, go = tmp_path / "run", tmp_path / "go"
    one = {"words": words(data, run), "plant": [["wait_for", str(go)]], "go": str(go), "limit": 300}
    found = nursery([one] * starts)
    assert sorted(life["code"] for life in found) == [0, *[2] * (starts - 1)], [life["err"] for life in found]
    refused = [life["err"] for life in found if life["code"] == 2]
    assert all("another skipway is writing here" in text or "not empty" in text for text in refused)
    assert same(tally, run, whole)
    row("X25", f"{starts} starts at once", starts, "1 trains, the others exit 2; same SHA-256")


@pytest.mark.row("X25")
def test_the_lock_dies_with_its_owner(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "run"
    assert nursery.live(words(data, run), signals=[[5, 0, "SIGKILL"]])["code"] == -9
    assert (run / ".lock").exists()
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row("X25", "the owner of the lock is killed", 1, "the next start goes on at once")
