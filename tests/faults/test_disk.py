"""Disks that are full, read-only, forbidden or broken."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import same, step_of, strays, whole_files, words

pytestmark = pytest.mark.faults
quick = pytest.mark.quick


@contextmanager
def small_disk(folder, size):
    """A disk of its own at `folder`; skipped where none can be mounted."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("cannot mount a disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@quick
@pytest.mark.row("X06")
def test_a_full_disk(nursery, data, whole, tmp_path, tally, row):
    with small_disk(tmp_path / "disk", "8m") as disk:
        run = disk / "run"
        life = nursery.live(words(data, run), ["fill", 4, str(disk / "ballast")])
        assert life["code"] == 4
        assert "No space left on device" in life["err"]
        assert "bytes are needed and" in life["err"]
        assert step_of(run) == 4
        whole_files(tally, run)
        assert strays(run) == []
        (disk / "ballast").unlink()
        assert nursery.live(words(data, run))["code"] == 0
        assert same(tally, run, whole)
    row(
        "X06",
        "a tmpfs of 8 MB, filled before a save",
        1,
        "exit 4 with bytes needed and free; then the same SHA-256",
    )


@pytest.mark.row("X06")
@pytest.mark.parametrize("save", [1, 2, 5])
def test_files_may_not_grow(nursery, data, whole, tmp_path, tally, row, save):
    run = tmp_path / "run"
    life = nursery.live(words(data, run), ["file_limit", save, 20_000])
    assert life["code"] == 4
    assert "File too large; " in life["err"]
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row("X06", "RLIMIT_FSIZE from a save on", 1, "exit 4, then the same SHA-256")


@quick
@pytest.mark.row("X08")
def test_only_the_metrics_cannot_be_written(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "some"
    life = nursery.live(words(data, run), ["failing", "replace", "metrics.csv", "ENOSPC", 3, 6])
    assert life["code"] == 0, life["err"]
    warned = [e["text"] for e in life["events"] if e["event"] == "warning" and "metrics.csv" in e["text"]]
    assert len(warned) == 1
    assert "the training goes on" in warned[0]
    assert same(tally, run, whole)
    row("X08", "metrics.csv fails in 4 saves", 4, "1 warning; all rows there at the end")


@pytest.mark.row("X08")
def test_the_metrics_can_never_be_written_and_rows_survive_a_stop(nursery, data, whole, tmp_path, tally, row):
    run = tmp_path / "never"
    life = nursery.live(words(data, run), ["failing", "open", "metrics.csv", "ENOSPC", 1])
    assert life["code"] == 0, life["err"]
    assert not (run / "metrics.csv").exists()
    assert (run / "report.html").exists()
    run = tmp_path / "stopped"
    plant = ["failing", "open", "metrics.csv", "ENOSPC", 2]
    assert nursery.live(words(data, run), plant, signals=[[7, 0, "SIGTERM"]])["code"] == 75
    assert nursery.live(words(data, run))["code"] == 0
    assert same(tally, run, whole)
    row("X08", "never writable; or until a stop", 2, "the run ends; rows came through the stop in the state")


@pytest.mark.row("X09")
def test_errors_of_the_disk(nursery, data, whole, tmp_path, tally, row):
    faults = [
        (operation, code)
        for code in ("EDQUOT", "EIO", "ENOSPC")
        for operation in ("open", "write", "fsync", "replace")
    ]
    for operation, code in faults:
        run = tmp_path / f"{operation} {code}"
        life = nursery.live(words(data, run), ["failing", operation, "state.safetensors", code, 4])
        assert life["code"] == 4, life["err"]
        assert "cannot write: " in life["err"]
        assert strays(run) == []
        assert step_of(run) == 4
        assert nursery.live(words(data, run))["code"] == 0
        assert same(tally, run, whole)
    row("X09", "EDQUOT, EIO, ENOSPC planted in open, write, fsync and rename of the state", len(faults),
        "exit 4, the last save stands, then the same SHA-256")  # fmt: skip


@pytest.mark.row("X09")
def test_short_writes_and_interrupted_calls(nursery, data, whole, tmp_path, tally, row):
    for name, plant in (
        ("short", ["short_writes", 1000]),
        ("interrupted", ["failing", "fsync", "state.safetensors", "EINTR", 3, 3]),
    ):
        run = tmp_path / name
        life = nursery.live(words(data, run), plant)
        if (
            name == "interrupted"
        ):  # of a system call Python itself repeats it; here it stands for a library that does not
            assert life["code"] == 4
            assert nursery.live(words(data, run))["code"] == 0
        else:
            assert life["code"] == 0, life["err"]
        assert same(tally, run, whole)
    row(
        "X09",
        "writes of at most 1000 bytes; EINTR out of fsync",
        2,
        "whole files; exit 4, then the same SHA-256",
    )


@pytest.mark.row("X10")
def test_a_disk_that_becomes_read_only(nursery, data, whole, tmp_path, tally, row):
    with small_disk(tmp_path / "disk", "8m") as disk:
        run = disk / "run"
        assert nursery.live(words(data, run), signals=[[5, 0, "SIGTERM"]])["code"] == 75
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        life = nursery.live(words(data, run))
        assert life["code"] == 4
        assert "cannot write: no permission, or a read-only disk" in life["err"]
        assert life["step"] == 0
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert nursery.live(words(data, run))["code"] == 0
        assert same(tally, run, whole)
    run = tmp_path / "run"
    life = nursery.live(words(data, run), ["failing", "open", "state.safetensors", "EROFS", 4])
    assert life["code"] == 4
    assert "Read-only file system" in life["err"]
    assert life["step"] <= step_of(run) + 2
    row("X10", "remounted read-only before a start; EROFS planted during a run", 2,
        "exit 4 before the first step; at the next save")  # fmt: skip


@quick
@pytest.mark.row("X11")
def test_no_permission(nursery, data, row):
    if os.getuid():
        pytest.skip("becomes another user, which root may")
    root = Path(tempfile.mkdtemp(prefix="skipway-faults-"))
    try:
        root.chmod(0o755)
        shutil.copytree(data, root / "data")
        assert nursery.live(words(root / "data", root / "run"), signals=[[3, 0, "SIGTERM"]])["code"] == 75
        new = nursery.live(words(root / "data", root / "new"), ["as_nobody"])
        assert new["code"] == 4
        assert f"{root}: cannot write: no permission" in new["err"]
        assert not new["events"]
        old = nursery.live(words(root / "data", root / "run"), ["as_nobody"])
        assert old["code"] == 4
        assert f"{root / 'run'}: cannot write: no permission" in old["err"]
    finally:
        shutil.rmtree(root)
    row(
        "X11",
        "as uid 65534, in a folder of root: a new run, one that stands",
        2,
        "exit 4 before anything is decoded",
    )


@pytest.mark.row("X18")
def test_shared_memory_is_not_used(nursery, data, tmp_path, row):
    note = tmp_path / "shm"
    assert (
        nursery.live(words(data, tmp_path / "run", "--workers", 4), ["no_shared_memory", str(note)])["code"]
        == 0
    )
    assert note.read_text() == ""
    row(
        "X18",
        "files opened below /dev/shm by a training with 4 workers",
        1,
        "none: batches are made in threads",
    )
