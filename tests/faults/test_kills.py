"""SIGKILL at any moment: every file whole, nothing left over, and the bytes of a run that never was killed."""

import random

import pytest
from harness import INTERVAL, lost, same, step_of, strays, whole_files, words

faults, quick = pytest.mark.faults, pytest.mark.quick
pytestmark = faults


@pytest.mark.row("X01", "X04", "X05")
@pytest.mark.parametrize("kills", [pytest.param(6, marks=quick), 200])
def test_killed_at_random_moments(nursery, data, whole, tmp_path, tally, row, kills):
    rng, died, files, finished, most = random.Random(kills), 0, 0, 0, 0
    alone = nursery.live(words(data, tmp_path / "alone"))["seconds"]
    root, swept = tmp_path, 0
    while died < kills or finished == 0:
        run = root / f"{finished}" / "run"
        wait = [] if died >= kills else [[0, rng.uniform(0, alone), "SIGKILL"]]
        before = len(strays(run)) if run.exists() else 0
        life = nursery.live(words(data, run), signals=wait)
        if life["code"] == 0:
            assert same(tally, run, whole)
            assert strays(run) == []
            swept += before
            finished += 1
            continue
        assert life["code"] == -9, life["err"]
        died += 1
        if not run.exists():
            continue
        files += whole_files(tally, run)
        most = max(most, lost(run, life["step"]))
    assert most <= INTERVAL
    row("X01", "random SIGKILLs on toy runs", died, f"{files} files read after the kills, 0 unreadable; "
        f"{finished} finished runs with the same SHA-256; at most {most} of {INTERVAL} steps lost")  # fmt: skip
    row("X04", "the newest state read after each of those kills", died, "a whole state each time", 0)
    row("X05", "temporary files in the folder at the next starts", died, "0 after every finished run", 0)


def lives_by_point(nursery, data, whole, root, tally, times, only=""):
    """Each life dies at the first point that was not died at so often yet, until a run passes through at once."""
    fired, finished, died, note, files = {}, 0, False, root / "point", 0
    while True:
        run = root / f"{finished}" / "run"
        note.unlink(missing_ok=True)
        life = nursery.live(words(data, run), ["points", fired, times, str(note), only])
        if life["code"] == 0:
            assert same(tally, run, whole)
            assert strays(run) == []
            finished += 1
            if not died and finished > times:
                return fired, finished, files
            died = False
            continue
        assert life["code"] == -9, life["err"]
        died = True
        point = note.read_text()
        fired[point] = fired.get(point, 0) + 1
        if run.exists():
            files += whole_files(tally, run)
            assert lost(run, life["step"]) <= INTERVAL


@pytest.mark.row("X04")
def test_killed_while_the_old_state_is_put_aside(nursery, data, whole, tmp_path, tally, row):
    fired, _, _ = lives_by_point(nursery, data, whole, tmp_path, tally, 1, "previous.safetensors")
    assert {"link previous.safetensors (new) after", "replace previous.safetensors before"} <= fired.keys()
    row("X04", "killed at each point of putting it aside", len(fired), "a whole state at every moment")


@pytest.mark.row("X02", "X03")
def test_killed_at_every_named_point_twice(nursery, data, whole, tmp_path, tally, row):
    trace = tmp_path / "trace"
    assert nursery.live(words(data, tmp_path / "traced"), ["trace", str(trace)])["code"] == 0
    named = {line.partition(" ")[2] for line in trace.read_text().splitlines()}
    fired, finished, files = lives_by_point(nursery, data, whole, tmp_path, tally, 2)
    assert named - fired.keys() == set()
    assert set(fired.values()) == {2}
    first = [point for point in fired if "state.safetensors" in point]
    done = f"{len(fired)} points (before and after each open, write, fsync, link, rename and unlink), twice"
    figure = f"none skipped; {files} files read, 0 unreadable; {finished} runs with the same SHA-256"
    row("X02", done, sum(fired.values()), figure)
    row(
        "X03",
        "the points of state.safetensors, the first save among them",
        2 * len(first),
        "a clean start",
        0,
    )


@quick
@pytest.mark.row("X03")
def test_killed_during_the_first_save(nursery, data, whole, tmp_path, tally, row):
    run, note = tmp_path / "run", tmp_path / "point"
    plant = ["points", {}, 1, str(note), "fsync state.safetensors (new) before"]
    assert nursery.live(words(data, run), plant)["code"] == -9
    assert step_of(run) is None
    (run / "model.safetensors").unlink()  # as it is before the very first write of weights
    early = nursery.live(["predict", str(run), str(data / "images"), "-o", str(tmp_path / "out")])
    assert early["code"] == 3
    assert "holds no weights yet" in early["err"]
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    assert strays(run) == []
    row("X03", "killed before the first state was there", 1, "`holds no weights yet`, then a clean start")


@pytest.mark.row("X05")
def test_the_sweep_takes_its_own_files_only(nursery, data, whole, tmp_path, tally, row):
    run, note = tmp_path / "run", tmp_path / "point"
    plant = ["points", {}, 1, str(note), "replace state.safetensors before"]
    assert nursery.live(words(data, run), plant)["code"] == -9
    assert len(strays(run)) == 1
    mine = {run / "notes.tmp": b"mine", run / "tmp-state.safetensors": b"mine too"}
    for path, text in mine.items():
        path.write_bytes(text)
    assert nursery.live(words(data, run))["code"] == 0
    assert strays(run) == []
    assert all(path.read_bytes() == text for path, text in mine.items())
    row("X05", "a stray file beside two of the user's", 1, "1 swept, the user's kept")


@pytest.mark.row("X30")
def test_loss_of_power(nursery, data, whole, tmp_path, tally, row):
    views = tmp_path / "views"
    assert nursery.live(words(data, tmp_path / "run"), ["power", str(views)])["code"] == 0
    found = sorted(views.iterdir())
    assert len(found) > 60
    files, states = 0, 0
    for view in found:
        files += whole_files(tally, view)
        states += (view / "state.safetensors").exists()
    assert states > 20
    begun = [v for v in found if (v / "run.json").exists()]
    for view in begun[:: max(1, len(begun) // 24)]:
        life = nursery.live(words(data, view))
        assert life["code"] == 0, life["err"]
        assert same(tally, view, whole)
    row("X30", "the disk as it would be with unsynced writes lost, after each rename and each sync of the folder",
        len(found), f"{files} files, 0 unreadable; 24 views gone on from, same SHA-256")  # fmt: skip


@pytest.mark.row("X30", "X31")
def test_each_rename_waits_for_its_bytes_and_saves_follow_each_other(nursery, data, tmp_path, row):
    trace, run = tmp_path / "trace", tmp_path / "run"
    assert nursery.live(words(data, run), ["trace", str(trace), 0.03])["code"] == 0
    lines = [line.split(" ", 1) for line in trace.read_text().splitlines()]
    assert len({thread for thread, _ in lines}) == 1
    said = [
        point
        for _, point in lines
        if "validation/" not in point and "unlink" not in point and "lock" not in point
    ]
    opened, renames, saves = None, 0, []
    for place, point in enumerate(said):
        operation, name = point.split(" ", 1)
        if operation == "open":
            assert opened is None, f"{name} begun while {opened} was written"
            opened = name.removesuffix(" (new) before")
        elif operation == "replace" and name.endswith(" before") and "previous" not in name:
            assert said[place - 1].startswith(f"fsync {opened} (new) after") or "previous" in said[place - 1]
            assert said[place + 1 : place + 4] == [
                f"replace {opened} after",
                "fsync folder before",
                "fsync folder after",
            ]
            saves.append(opened)
            opened, renames = None, renames + 1
    kinds = ("metrics.csv", "model.safetensors", "state.safetensors")
    order = [name for name in saves if name in kinds]
    assert order[0] == "metrics.csv"
    rest = order[order.index("model.safetensors") - 1 :]
    assert rest == list(kinds) * (len(rest) // 3)
    row("X30", "order of calls: bytes synced, renamed, folder synced", renames, "every rename")
    row("X31", "each sync 30 ms slower than it is, longer than the interval", len(rest) // 3,
        "metrics, weights, state, one after the other, in one thread")  # fmt: skip
