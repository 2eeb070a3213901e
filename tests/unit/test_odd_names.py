"""File names that are no UTF-8, as old discs have them: read, split, cached, predicted and scored like any other."""

import json
import os
import subprocess
import sys

import pytest
from test_images_mutants import MAKERS, outcome
from toys import draw, start

from skipway import api
from skipway.data.layouts import find_pairs
from skipway.data.sources import Source
from skipway.data.splits import Split
from skipway.doctor.examination import check
from skipway.doctor.sheet import write_sheet
from skipway.evaluation import evaluate
from skipway.predict.options import FileOptions
from skipway.runs import read_json, read_tensors, write_json, write_tensors

ODD = os.fsdecode(b"caf\xe9 \xff")


@pytest.fixture
def folder(tmp_path):
    """Five pairs, two of which have such names; the file system must take them, as that of Linux does."""
    root = draw(tmp_path / "d", count=5)
    for side in ("images", "masks"):
        for number in (1, 2):
            path = root / side / f"c{number}.tif"
            try:
                path.rename(path.with_name(f"{ODD}{number}.tif"))
            except OSError:
                pytest.skip("this file system takes no such names")
    return root


def command(*words):
    """Exit code, standard output as bytes, standard error; in a process of its own, in a strict UTF-8 locale."""
    code = "import sys; from skipway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_names_come_back_out_of_json_and_weights(tmp_path):
    for value in ({ODD: [ODD, "é", "\\udce9"]}, Source(tmp_path / ODD).to_json()):
        write_json(tmp_path / "a.json", value)
        assert read_json(tmp_path / "a.json") == value
        write_tensors(tmp_path / "a.safetensors", {}, value)
        assert read_tensors(tmp_path / "a.safetensors")[1] == value
        (tmp_path / "a.json").read_bytes().decode("utf-8")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAKERS)
def test_every_format_opens_under_such_a_name(tmp_path, name):
    MAKERS[name](tmp_path / name)
    (tmp_path / name).rename(tmp_path / f"{ODD}{name}")
    assert outcome(tmp_path / f"{ODD}{name}") == "read"


@pytest.mark.parametrize("isolate", [False, True])
def test_a_check_looks_at_them_and_draws_them(folder, tmp_path, isolate):
    found = check(folder, isolate=isolate)
    assert found.ok
    assert {f"{ODD}1", f"{ODD}2"} < {record.name for record in found.records}
    text = write_sheet(tmp_path / "sheet.html", found).read_bytes().decode("utf-8")
    assert "caf\\udce9 \\udcff1" in text


def test_the_command_prints_json_that_gives_them_back(folder):
    code, text, err = command("check", str(folder), "--json")
    assert code == 0, err
    parts = json.loads(text.decode("utf-8"))["split"]
    assert {f"{ODD}1", f"{ODD}2"} < {*parts["train"], *parts["validate"]}


def test_from_training_to_scores(folder, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    start(folder, run, steps=2)
    kept = Split.from_json(read_json(run / "split.json"))
    assert {pair.image.path for pair in kept.pairs.values()} == {
        p.image.path for p in find_pairs(folder).pairs
    }
    start(folder, run, steps=2)  # finished: what is stored is what lies there
    summary = api.predict_files(
        api.load(run, device="cpu"), folder / "images", out, FileOptions(), lambda event: None
    )
    assert not summary.failed
    assert {f"{ODD}1.tif", f"{ODD}2.tif"} < {path.name for path in out.iterdir()}
    found = evaluate(out, folder / "masks")
    assert f"{ODD}2" in {image.name for image in found.images}
    write_json(tmp_path / "scores.json", found.to_json())
