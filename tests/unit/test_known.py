"""Images that trained the network are told when they are predicted, and when that prediction is scored."""

import csv
import json
import shutil

import numpy as np
import pytest
from tifffile import imread, imwrite
from toys import draw, skipway

from skipway.evaluation import evaluate
from skipway.runs import Run

SMALL = ["--steps", 1, "--width", 4, "--depth", 2, "--patch", 32, "--batch", 1, "--task", "objects"]
SAID = "of {} images trained this network: their score says nothing about new ones"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"), count=6)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    code, _, err = skipway("train", data, "-o", folder, "--device", "cpu", *SMALL)
    assert code == 0, err
    return folder


def trained_on(run):
    return sorted(Run(run).read("split")["train"])


def predict(run, images, out, *words):
    code, text, err = skipway("predict", run, images, "-o", out, "--device", "cpu", *words)
    assert code == 0, err
    return text


def test_images_that_trained_are_told_by_predict_and_by_evaluate(run, data, tmp_path):
    names = trained_on(run)
    assert 0 < len(names) < 6  # the others validated
    assert f"{len(names)} {SAID.format(6)}" in predict(run, data / "images", tmp_path / "out")
    assert json.loads((tmp_path / "out/labels.json").read_text())["trained"] == names
    found = evaluate(tmp_path / "out", data / "masks")
    assert [w for w in found.warnings if "trained" in w] == [
        f"{len(names)} of 6 images trained the network that predicted them: their score says nothing about new ones"
    ]
    assert evaluate(tmp_path / "out" / f"{names[0]}.tif", data / "masks" / f"{names[0]}.tif").warnings


def test_pixels_decide_not_the_folder_the_format_or_the_name(run, data, tmp_path):
    one, two = trained_on(run)[:2]
    new = tmp_path / "new"
    new.mkdir()
    np.save(new / f"{one}.npy", imread(data / "images" / f"{one}.tif"))  # the same elsewhere
    imwrite(new / f"{two}.tif", imread(data / "images" / f"{two}.tif") + 1)  # another one of that name
    assert f"1 {SAID.format(2)}" in predict(run, new, tmp_path / "out")
    assert json.loads((tmp_path / "out/labels.json").read_text())["trained"] == [one]


def test_new_images_are_told_nothing_and_later_ones_do_not_hide_the_first(run, data, tmp_path):
    draw(tmp_path / "new", count=2, first=50)
    assert "trained" not in predict(run, tmp_path / "new/images", tmp_path / "out")
    labels = json.loads((tmp_path / "out/labels.json").read_text())
    assert "trained" not in labels
    assert evaluate(tmp_path / "out", tmp_path / "new/masks").warnings == ()
    both, (name, *_) = tmp_path / "both", trained_on(run)
    predict(run, data / "images" / f"{name}.tif", both)
    (tmp_path / "new/images/c0.tif").rename(tmp_path / "new/images/x.tif")
    predict(run, tmp_path / "new/images/x.tif", both)
    assert json.loads((both / "labels.json").read_text())["trained"] == [name]
    shutil.copy(tmp_path / "new/images/x.tif", tmp_path / f"{name}.tif")  # replaced by a new image
    predict(run, tmp_path / f"{name}.tif", both, "--overwrite")
    assert "trained" not in json.loads((both / "labels.json").read_text())


def test_a_run_that_lost_its_split_still_predicts(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for damage in ("[]", None):
        split = tmp_path / "run/split.json"
        split.unlink() if damage is None else split.write_text(damage)
        assert "trained" not in predict(tmp_path / "run", data / "images", tmp_path / f"out{damage}")


def test_the_pages_of_a_stack_that_trained_are_counted(run, data, tmp_path):
    folder = tmp_path / "stacks"
    for side in ("masks", "images"):
        pages = np.stack([imread(data / side / f"c{k}.tif") for k in range(6)])
        (folder / side).mkdir(parents=True)
        imwrite(folder / side / "s.tif", pages, photometric="minisblack")
    code, _, err = skipway("train", folder, "-o", tmp_path / "run", "--device", "cpu", *SMALL)
    assert code == 0, err
    assert f"1 {SAID.format(1)}" in predict(tmp_path / "run", folder / "images", tmp_path / "out")
    names = trained_on(tmp_path / "run")
    assert 0 < len(names) < 6
    assert json.loads((tmp_path / "out/labels.json").read_text())["trained"] == names
    with (tmp_path / "out/review.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["trained"] == "yes"]
    assert sorted(f"s#{int(row['page']):03d}" for row in rows) == names
    (warning,) = (w for w in evaluate(tmp_path / "out", folder / "masks").warnings if "trained" in w)
    assert warning.startswith(f"{len(names)} of 6 images trained")
    imwrite(folder / "images/s.tif", pages + 1, photometric="minisblack")
    assert "trained" not in predict(tmp_path / "run", folder / "images", tmp_path / "out", "--overwrite")
    assert "trained" not in json.loads((tmp_path / "out/labels.json").read_text())
