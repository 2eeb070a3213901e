"""The run folder: atomic, hashed, locked, and closed to code."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from skipway.errors import CheckpointError, EnvironmentFault, SecurityError, UsageError
from skipway.runs import Run, read_json, read_tensors, replacing, write_json, write_tensors

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(7, np.int64),
    "empty": np.zeros((0, 2), np.uint8),
}


def test_tensors_and_facts_come_back(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"step": 3, "name": "é"})
    tensors, facts = read_tensors(path)
    assert facts == {"step": 3, "name": "é"}
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(tensors[name], value)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"w": np.random.default_rng(0).normal(size=50).astype(np.float32)}, {"step": 1})
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for bit in rng.choice(8 * len(whole), 200, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises((CheckpointError, SecurityError)):
            read_tensors(path)
    path.write_bytes(whole)
    read_tensors(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_cut_files_are_refused(tmp_path, share):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def torch_zip(payload):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", payload)
    return buffer.getvalue()


@pytest.mark.parametrize("wrap", ["proto0", "proto2", "proto5", "zip", "header", "brace"])
def test_code_is_refused_and_not_run(tmp_path, wrap):
    canary, path = tmp_path / "canary", tmp_path / "model.safetensors"
    payload = pickle.dumps(Evil(canary), protocol=int(wrap[-1]) if wrap.startswith("proto") else 4)
    files = {
        "zip": torch_zip(payload),
        "header": (2**40).to_bytes(8, "little") + b"{" + payload,
        "brace": payload[:8] + b"{" + payload[8:],
    }
    path.write_bytes(files.get(wrap, payload))
    with pytest.raises(SecurityError) as caught:
        read_tensors(path)
    assert caught.value.exit_code == 6
    assert not canary.exists()


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(CheckpointError):
        read_json(tmp_path / "a.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_folder_is_an_environment_fault(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        write_json(tmp_path / "missing" / "a.json", {})
    assert caught.value.exit_code == 4


KILLED = """
import sys, numpy as np
from pathlib import Path
from skipway.runs import write_tensors
path = Path(sys.argv[1])
print("ready", flush=True)
k = 0
while True:
    k += 1
    write_tensors(path, {"w": np.full(300_000, k, np.float32)}, {"k": k})
"""


def test_killed_writers_never_leave_half_a_file(tmp_path):
    path = tmp_path / "state.safetensors"
    rng = np.random.default_rng(3)
    seen = 0
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if path.is_file():
            tensors, facts = read_tensors(path)
            assert (tensors["w"] == facts["k"]).all()
            seen += 1
    assert seen > 0
    mine = tmp_path / "notes.txt"
    mine.write_text("the user's")
    Run(tmp_path).sweep()
    assert {entry.name for entry in tmp_path.iterdir()} == {"state.safetensors", "notes.txt"}


def test_create_refuses_a_folder_with_something_in_it(tmp_path):
    Run.create(tmp_path / "new")
    (tmp_path / "new" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        Run.create(tmp_path / "new")
    assert (tmp_path / "new" / "thesis.txt").read_text() == "precious"


def test_open_names_what_is_wrong(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        Run.open(tmp_path / "none")
    with pytest.raises(UsageError, match="not a run folder"):
        Run.open(tmp_path)
    write_json(tmp_path / "run.json", {"format": 99})
    with pytest.raises(CheckpointError, match="99"):
        Run.open(tmp_path)


def test_only_one_writer(tmp_path):
    with Run(tmp_path).locked():
        run = f"Run(Path({str(tmp_path)!r}))"
        code = f"from pathlib import Path\nfrom skipway.runs import Run\nwith {run}.locked(): pass"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another skipway" in second.stderr
    with Run(tmp_path).locked():
        pass


def test_metrics_rows_after_the_saved_step_are_dropped(tmp_path):
    run = Run(tmp_path)
    run.append_metrics(("step", "loss"), [{"step": s, "loss": s / 2} for s in (10, 20, 30)])
    run.append_metrics(("step", "loss"), [{"step": 21, "loss": "0.1"}], keep_to=20)
    assert [row["step"] for row in run.metrics()] == ["10", "20", "21"]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == "10,5.0"


def test_facts_are_json(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {}, {"nested": {"a": [1, 2.5, None, "ü"]}})
    assert json.loads(json.dumps(read_tensors(path)[1])) == {"nested": {"a": [1, 2.5, None, "ü"]}}


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_written_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    write_json(tmp_path / "a.json", {})
    plain = tmp_path / "b"
    plain.write_bytes(b"")
    assert (tmp_path / "a.json").stat().st_mode == plain.stat().st_mode
