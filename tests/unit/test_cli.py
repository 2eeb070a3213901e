"""The commands as a user types them: what they print, write, refuse, and with which exit code."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tifffile import TiffFile, imread, imwrite
from toys import draw, skipway

from skipway import api, demo
from skipway.models import BUILDERS
from skipway.synthetic import draw_cells

SMALL = [
    "--steps",
    "6",
    "--width",
    "4",
    "--depth",
    "2",
    "--patch",
    "32",
    "--batch",
    "2",
    "--device",
    "cpu",
    "--task",
    "objects",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"), count=6)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    code, _, err = skipway("train", data / "images", data / "masks", "-o", folder, *SMALL)
    assert code == 0, err
    return folder


def test_train_says_what_it_understood_and_writes_the_run(run, data):
    code, out, err = skipway("train", data / "images", data / "masks", "-o", run, *SMALL)
    assert code == 0
    for word in (
        "6 pairs",
        "16-bit grey",
        "objects",
        "split",
        "baseline",
        "Otsu",
        "report",
        "finished already",
    ):
        assert word in out + err
    assert {p.name for p in run.iterdir()} >= {
        "run.json",
        "plan.json",
        "labels.json",
        "split.json",
        "normalisation.json",
        "fingerprint.json",
        "versions.json",
        "evaluation.json",
        "model.safetensors",
        "metrics.csv",
        "report.html",
        "validation",
    }
    assert json.loads((run / "plan.json").read_text())["steps"] == 6
    assert [row.split(",")[0] for row in (run / "metrics.csv").read_text().splitlines()] == [
        "step",
        *"123456",
    ]


def test_predict_writes_the_same_names_and_says_the_certificate(run, data, tmp_path):
    code, out, _ = skipway(
        "predict", run, data / "images", "-o", tmp_path / "out", "--tile", 16, "--probabilities"
    )
    assert code == 0
    assert "6 of 6 images predicted" in out
    assert "tiled = whole: window" in out
    names = {p.name for p in (tmp_path / "out").iterdir()} - {"labels.json", "review.csv"}
    assert names == {f"c{n}.tif" for n in range(6)} | {f"c{n}_probabilities.tif" for n in range(6)}
    probabilities = imread(tmp_path / "out" / "c0_probabilities.tif")
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_the_tile_does_not_change_the_labels(run, data, tmp_path):
    for tile in (8, 24, 512):
        assert skipway("predict", run, data / "images", "-o", tmp_path / str(tile), "--tile", tile)[0] == 0
    for name in ("c0.tif", "c5.tif"):
        np.testing.assert_array_equal(imread(tmp_path / "8" / name), imread(tmp_path / "512" / name))
        np.testing.assert_array_equal(imread(tmp_path / "24" / name), imread(tmp_path / "512" / name))


def test_existing_masks_are_kept_without_overwrite(run, data, tmp_path):
    out = tmp_path / "out"
    assert skipway("predict", run, data / "images", "-o", out)[0] == 0
    (out / "c0.tif").write_bytes(b"corrected by hand")
    code, _, err = skipway("predict", run, data / "images", "-o", out)
    assert code == 2
    assert "--overwrite" in err
    assert (out / "c0.tif").read_bytes() == b"corrected by hand"
    assert skipway("predict", run, data / "images", "-o", out, "--overwrite")[0] == 0
    assert imread(out / "c0.tif").shape == (48, 48)


def test_one_bad_file_does_not_stop_the_others(run, data, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    for name in ("a", "b", "d"):
        (new / f"{name}.tif").write_bytes((data / "images" / "c0.tif").read_bytes())
    (new / "c.tif").write_bytes((data / "images" / "c0.tif").read_bytes()[:300])
    imwrite(new / "e.tif", np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    code, out, err = skipway("predict", run, new, "-o", tmp_path / "out")
    assert code == 3
    assert "3 of 5 images predicted" in out
    assert "c.tif" in err
    assert "e.tif" in err
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_file()} == {
        *("a.tif", "b.tif", "d.tif"),
        *("labels.json", "review.csv"),
    }
    (new / "e.tif").unlink()
    (new / "c.tif").write_bytes((new / "a.tif").read_bytes())  # mended: the same command makes what failed
    code, out, err = skipway("predict", run, new, "-o", tmp_path / "out")
    assert (code, "1 of 1 images predicted" in out, "3 files are finished" in err) == (0, True, True)
    assert not (tmp_path / "out/.resume").exists()


def test_labels_lie_where_their_image_lies(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (33, 47)).astype(np.uint16)
    (tmp_path / "new").mkdir()
    imwrite(tmp_path / "new" / "x.tif", pixels, imagej=True, resolution=(4.0, 2.0), metadata={"unit": "um"})
    np.save(tmp_path / "new" / "y.npy", pixels)
    assert skipway("predict", run, tmp_path / "new", "-o", tmp_path / "out", "--probabilities")[0] == 0
    with TiffFile(tmp_path / "out" / "x.tif") as file:
        assert file.imagej_metadata["unit"] == "um"
        assert [file.pages[0].tags[code].value for code in (282, 283)] == [(4, 1), (2, 1)]
    with TiffFile(tmp_path / "out" / "x_probabilities.tif") as file:
        assert [file.pages[0].tags[code].value for code in (282, 283)] == [(40000, 1), (20000, 1)]
    assert np.array_equal(np.load(tmp_path / "out" / "y.npy"), imread(tmp_path / "out" / "x.tif"))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 47), (7, 3)])
def test_every_size_is_predicted_at_its_size(run, tmp_path, size):
    (tmp_path / "new").mkdir()
    imwrite(tmp_path / "new" / "x.tif", np.random.default_rng(0).integers(0, 4000, size).astype(np.uint16))
    assert skipway("predict", run, tmp_path / "new", "-o", tmp_path / "out")[0] == 0
    assert imread(tmp_path / "out" / "x.tif").shape == size


def test_evaluate_writes_the_json_that_is_documented(run, data, tmp_path):
    assert skipway("predict", run, data / "images", "-o", tmp_path / "out")[0] == 0
    code, out, _ = skipway("evaluate", tmp_path / "out", data / "masks", "--json", "-")
    assert code == 0
    found = json.loads(out)
    assert found["n"] == 6
    assert found["classes"]["1"].keys() >= {
        "dice",
        "iou",
        "sensitivity",
        "specificity",
        "precision",
        "f1",
        "f2",
    }
    assert found["objects"].keys() >= {"ap50", "ap75", "mean_ap", "pq", "seg"}
    assert "em" not in found
    assert len(found["images"]) == 6
    code, out, _ = skipway("evaluate", data / "masks", data / "masks", "--json", tmp_path / "perfect.json")
    assert json.loads((tmp_path / "perfect.json").read_text())["objects"]["mean_ap"] == 1.0


def test_models_lists_every_builder():
    _, out, _ = skipway("models", "--json")
    cards = {card["name"]: card for card in json.loads(out)}
    assert cards["unet_2015"]["parameters"] == 31_030_658
    assert cards["unet_2015"]["output_size"] == [388, 388]
    assert list(cards) == list(BUILDERS)
    assert "31,030,658" in skipway("models")[1]


@pytest.mark.parametrize("verb", ["train", "predict", "evaluate", "models", "draw", "demo"])
def test_help_shows_at_most_twelve_flags(verb):
    _, short, _ = skipway(verb, "--help")
    _, long, _ = skipway(verb, "--help-all")
    flags = {line.split()[0] for line in short.splitlines() if line.lstrip().startswith("-")}
    assert 1 <= len(flags) <= 12
    assert len(long) >= len(short)
    if verb == "train":
        assert "--width" not in short
        assert "--width" in long


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--steps", "0"], 2, "--steps"),
        (["--time", "soon"], 2, "20m"),
        (["--time", "1h30"], 2, "20m"),
        (["--time", "20"], 2, "--time 20m for minutes, 20s for seconds"),
        (["--time", "1m"], 2, "one of them"),
        (["--model", "unet_plusplus"], 2, "unet_plus_plus"),
        (["--task", "cells"], 2, "objects"),
        (["--preset", "2016"], 2, "2015"),
        (["--val", "nowhere"], 2, "nowhere"),
    ],
)
def test_wrong_options_are_refused_with_what_would_work(data, tmp_path, words, code, says):
    found, _, err = skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *SMALL, *words)
    assert found == code
    assert says in err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused_and_untouched(run, data):
    before = {p: p.read_bytes() for p in run.iterdir() if p.is_file()}
    code, _, err = skipway("train", data / "images", data / "masks", "-o", run, *SMALL, "--seed", 7)
    assert code == 2
    assert "seed 0 (now 7)" in err
    assert {p: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_changed_images_are_noticed_before_going_on(tmp_path):
    data = draw(tmp_path / "d")
    assert skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *SMALL)[0] == 0
    image, _ = draw_cells(48, n=5, seed=99)
    imwrite(data / "images" / "c0.tif", image)
    code, _, err = skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *SMALL)
    assert code == 2
    assert "c0" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(data, run, tmp_path):
    for words in (
        ["train", data / "images", data / "masks", "-o", tmp_path / "r"],
        ["predict", run, data / "images", "-o", tmp_path / "o"],
    ):
        code, _, err = skipway(*words, "--device", "cuda")
        assert code == 4
        assert "--device cpu" in err


def test_a_hostile_or_damaged_model_is_refused(run, data, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    whole = (run / "model.safetensors").read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for content, code in (
        (b"PK\x03\x04" + whole, 6),
        (b"\x80\x04." + whole, 6),
        (whole[:-9], 3),
        (bytes(flipped), 3),
        (b"", 3),
    ):
        (copy / "model.safetensors").write_bytes(content)
        found, _, err = skipway("predict", copy, data / "images", "-o", tmp_path / "out")
        assert found == code
        assert "model.safetensors" in err
        assert not (tmp_path / "out").exists()
    (copy / "model.safetensors").write_bytes(whole)
    assert skipway("predict", copy, data / "images", "-o", tmp_path / "out")[0] == 0


def test_the_python_calls_do_the_same(run, data, tmp_path):
    assert skipway("predict", run, data / "images", "-o", tmp_path / "out")[0] == 0
    image = imread(data / "images" / "c3.tif")
    np.testing.assert_array_equal(api.load(run).predict(image), imread(tmp_path / "out" / "c3.tif"))
    np.testing.assert_array_equal(api.load(run).predict(image[None]), api.load(run).predict(image[..., None]))


def child(*words):
    return subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True, check=False)


def test_errors_have_one_line_and_no_traceback(tmp_path):
    found = child(
        "import sys; sys.argv[1:] = ['train', 'nowhere', '-o', 'r']; from skipway.cli import main; main()"
    )
    assert found.returncode == 2
    assert found.stderr.startswith("skipway: error")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import skipway", ("numpy", "torch")),
        ("from skipway.cli.app import app", ("numpy", "torch", "scipy", "skimage")),
        ("import skipway; skipway.load", ("torch._dynamo", "skimage.measure", "numba", "jinja2")),
    ],
)
def test_nothing_heavy_is_imported(code, absent):
    found = child(f"import sys; {code}; print([m for m in {absent!r} if m in sys.modules])")
    assert found.stdout.strip() == "[]", found.stderr


def test_public_names_stay_callable_after_their_modules_are_loaded():
    modules = "import skipway, skipway.training, skipway.evaluation, skipway.api"
    names = "[callable(x) for x in (skipway.train, skipway.load, skipway.evaluate)]"
    assert child(f"{modules}; print({names})").stdout.strip() == "[True, True, True]"


def test_an_image_is_never_replaced_by_its_mask(run, data, tmp_path):
    (tmp_path / "a.tif").write_bytes((data / "images" / "c0.tif").read_bytes())
    before = (tmp_path / "a.tif").read_bytes()
    code, _, err = skipway("predict", run, tmp_path / "a.tif", "-o", tmp_path, "--overwrite")
    assert code == 2
    assert "the image itself" in err
    assert (tmp_path / "a.tif").read_bytes() == before


def test_probability_files_are_not_replaced_or_shared(run, data, tmp_path):
    new, out = tmp_path / "new", tmp_path / "out"
    new.mkdir()
    (new / "a.tif").write_bytes((data / "images" / "c0.tif").read_bytes())
    out.mkdir()
    (out / "a_probabilities.tif").write_bytes(b"kept")
    code, _, err = skipway("predict", run, new, "-o", out, "--probabilities")
    assert code == 2
    assert "a_probabilities.tif" in err
    assert (out / "a_probabilities.tif").read_bytes() == b"kept"


def test_stacks_go_page_by_page_with_their_probabilities(run, data, tmp_path):
    pages = np.stack([imread(data / "images" / f"c{n}.tif") for n in range(3)])
    imwrite(tmp_path / "stack.tif", pages, metadata={"axes": "ZYX"}, photometric="minisblack")
    out = tmp_path / "out"
    assert skipway("predict", run, tmp_path / "stack.tif", "-o", out, "--probabilities")[0] == 0
    assert skipway("predict", run, data / "images", "-o", tmp_path / "single")[0] == 0
    for n in range(3):
        np.testing.assert_array_equal(imread(out / "stack.tif")[n], imread(tmp_path / "single" / f"c{n}.tif"))
    probabilities = imread(out / "stack_probabilities.tif")
    assert probabilities.shape == (3, 2, 48, 48)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_a_run_folder_among_the_images_is_refused(tmp_path):
    data = draw(tmp_path / "d", count=2)
    code, _, err = skipway("train", data, "-o", data / "run", *SMALL)
    assert code == 2
    assert "inside the data" in err
    assert not (data / "run").exists()


def test_changed_masks_are_noticed_before_going_on(tmp_path):
    data = draw(tmp_path / "d")
    assert skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *SMALL)[0] == 0
    mask = imread(data / "masks" / "c1.tif")
    mask[:8] = 0
    imwrite(data / "masks" / "c1.tif", mask)
    code, _, err = skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *SMALL)
    assert code == 2
    assert "c1" in err


def test_class_masks_come_back_in_the_users_values(tmp_path):
    data = draw(tmp_path / "d")
    for path in (data / "masks").iterdir():
        imwrite(path, np.where(imread(path) > 0, 128, 7).astype(np.uint8))
    words = [word for word in SMALL if word not in ("--task", "objects")]
    assert skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *words)[0] == 0
    assert skipway("predict", tmp_path / "run", data / "images", "-o", tmp_path / "out")[0] == 0
    found = set().union(*(np.unique(imread(p)).tolist() for p in (tmp_path / "out").glob("*.tif")))
    assert found <= {7, 128}
    _, out, _ = skipway("evaluate", tmp_path / "out", data / "masks", "--json", "-")
    assert set(json.loads(out)["classes"]) == {"7", "128"}
    assert skipway("predict", tmp_path / "run", data / "images", "-o", tmp_path / "ids", "--objects")[0] == 0
    code, out, err = skipway(
        "evaluate", tmp_path / "ids", data / "masks", "--score", "objects", "--json", "-"
    )
    assert code == 0, err
    assert "ap50" in json.loads(out)["objects"]


def test_images_given_as_masks_are_refused_whatever_the_task(tmp_path):
    data = draw(tmp_path / "d", size=96)
    for words in ([], ["--task", "objects"]):
        code, _, err = skipway("train", data / "masks", data / "images", "-o", tmp_path / "run", *words)
        assert code == 3
        assert "did you swap the folders? type: skipway train" in err
        assert not (tmp_path / "run").exists()


def test_a_run_that_does_not_beat_the_baseline_says_so(tmp_path):
    run, low, high = api.Run(tmp_path), 0.3, 0.7
    facts = {
        "evaluation": {"n": 2, "em": {"v_rand": 0.5, "v_info": None}},
        "scored": 2,
        "baseline_name": "Otsu",
    }
    worse = api.Trained(run=run, score=low, baseline=high, score_name="Dice", device="cpu", **facts).summary
    better = api.Trained(run=run, score=high, baseline=low, score_name="Dice", device="cpu", **facts).summary
    assert "does not beat the baseline" in worse
    assert "does not beat" not in better
    assert "V_rand 0.500, V_info n/a" in better


def test_the_demo_goes_its_whole_way_and_says_what_does_not_beat_a_threshold(tmp_path, monkeypatch):
    for name, value in (("TRAINING_IMAGES", 8), ("NEW_SIDE", 256)):
        monkeypatch.setattr(demo, name, value)
    code, text, err = skipway("demo", "-o", tmp_path / "demo", "--steps", 1, "--device", "cpu")
    assert code == 0, err
    assert "this does not beat the baseline" in text
    figures = json.loads((tmp_path / "demo/figures.json").read_text())
    assert list(figures) == ["skipway, 16-bit", "Otsu, 16-bit", "skipway, 8-bit", "Otsu, 8-bit"]
    for name in ("input", "truth", "prediction", "errors", "result"):
        assert (tmp_path / f"demo/pictures/{name}.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    code, _, err = skipway("demo", "-o", tmp_path / "mine")
    assert (code, "is not empty" in err) == (2, True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
