"""Temperatures: found again where they were planted, honest about images, and of no effect on masks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from tifffile import imread, imwrite
from toys import WORDS, draw, one_thread, skipway

from skipway import api
from skipway.errors import CheckpointError
from skipway.metrics.calibration import BINS, HIGHEST, LOWEST, choices, fit_temperature, reliability
from skipway.predict.calibration import Calibration
from skipway.predict.stream import predict_array
from skipway.report.calibration import FILE, Grid, Sampled, calibrated, reliability_chart
from skipway.runs import Run, write_json
from skipway.synthetic import draw_cells


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


def honest(n=150_000, classes=3, seed=0):
    """Logits that are as sure as they may be, and the truth drawn from them."""
    rng = np.random.default_rng(seed)
    logits = (2 * rng.normal(size=(n, classes))).astype(np.float32)
    drawn = special.softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)
    return logits, (rng.random((n, 1)) > drawn).sum(axis=1)


def honest_sets(n=60_000, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = (2 * rng.normal(size=(n, classes))).astype(np.float32)
    return logits, ((rng.random((n, classes)) < special.expit(logits)) << np.arange(classes)).sum(axis=1)


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.4])
@pytest.mark.parametrize("kind", ["softmax", "one channel", "overlapping"])
def test_a_planted_temperature_is_found_again(kind, factor):
    if kind == "softmax":
        logits, truth = honest()
    else:
        logits, truth = honest_sets(classes=1 if kind == "one channel" else 3, n=150_000)
    z, right = choices(factor * logits, truth, overlapping=kind == "overlapping")
    assert len(right) == len(truth) * (3 if kind == "overlapping" else 1)
    assert fit_temperature(z, right) == pytest.approx(factor, rel=0.02)
    before, after = reliability(z, right), reliability(z, right, factor)
    assert after.ece < 0.006
    assert after.nll <= before.nll
    assert before.ece > 0.04 or factor == 1.0


def test_thrice_the_logits_are_thrice_the_temperature_whatever_they_were():
    logits, truth = honest(n=5000)
    logits[:, 0] += 1.5  # not calibrated at all
    assert fit_temperature(3 * logits, truth) == pytest.approx(3 * fit_temperature(logits, truth), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0.3, 3))
def test_no_other_temperature_is_likelier(seed, classes, scale):
    logits, truth = honest(400, classes, seed)
    best = fit_temperature(scale * logits, truth)
    least = reliability(scale * logits, truth, best).nll
    for other in np.geomspace(LOWEST, HIGHEST, 41):
        assert reliability(scale * logits, truth, other).nll >= least - 1e-9


def test_what_is_always_right_or_always_wrong_stays_within_bounds():
    logits = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert fit_temperature(logits, np.array([0, 1])) == LOWEST
    assert fit_temperature(logits, np.array([1, 0])) == HIGHEST


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_error_and_likelihood_are_those_of_another_library(temperature):
    logits, truth = honest(n=20_000)
    logits *= 2
    found = reliability(logits, truth, temperature)
    shares = special.softmax(logits.astype(np.float64) / temperature, axis=1)
    sure, correct = shares.max(axis=1), shares.argmax(axis=1) == truth
    right, mean = calibration_curve(correct, sure, n_bins=BINS, strategy="uniform")
    counts = np.histogram(sure, BINS, (0, 1))[0]
    weights = counts[counts > 0] / len(truth)
    assert found.ece == pytest.approx(float((weights * np.abs(right - mean)).sum()), abs=1e-12)
    assert found.nll == pytest.approx(log_loss(truth, shares), abs=1e-12)
    assert [count for count, *_ in found.bins] == counts.tolist()
    assert sum(count for count, *_ in found.bins) == len(truth)


def sampled(seed, n=3000, units=4, factor=2.0):
    logits, truth = honest(n=n, seed=seed)
    return Sampled(factor * logits, truth, np.repeat(np.arange(units), n // units), units)


def test_the_error_after_is_that_of_images_that_did_not_choose_the_temperature():
    first, second = (
        sampled(0, factor=2.0),
        sampled(1, factor=4.0),
    )  # halves that ask for different temperatures
    logits = np.concatenate([first.logits, second.logits])
    truth = np.concatenate([first.truth, second.truth])
    one = Sampled(logits, truth, np.concatenate([first.unit, second.unit + 4]), 8)
    found = calibrated([one], overlapping=False)
    own = np.repeat([fit_temperature(p.logits, p.truth) for p in (second, first)], 3000)
    assert own[0] == pytest.approx(4, rel=0.1)
    assert own[-1] == pytest.approx(2, rel=0.1)
    after = reliability(logits, truth, own)
    assert (found.ece_after, found.nll_after) == pytest.approx((after.ece, after.nll), abs=1e-12)
    together = reliability(logits, truth, found.temperature)
    assert found.nll_after > together.nll  # what fits itself looks better than it is
    assert found.temperature == pytest.approx(fit_temperature(logits, truth), abs=1e-12)
    assert (found.pixels, found.images) == (6000, 8)


def test_folds_are_held_against_the_temperature_of_the_others():
    parts = [sampled(k, factor=f) for k, f in enumerate((2.0, 2.5, 3.0))]
    found = calibrated(parts, overlapping=False)
    kept = [(part.logits[::3], part.truth[::3]) for part in parts]
    own = []
    for k in range(3):
        others = [one for j, one in enumerate(kept) if j != k]
        z, y = (np.concatenate([one[i] for one in others]) for i in (0, 1))
        own.append(np.full(len(kept[k][1]), fit_temperature(z, y)))
    z, y = (np.concatenate([one[i] for one in kept]) for i in (0, 1))
    after = reliability(z, y, np.concatenate(own))
    assert (found.ece_after, found.nll_after) == pytest.approx((after.ece, after.nll), abs=1e-12)
    assert 2 < found.temperature < 3


def test_a_temperature_that_makes_other_images_worse_is_not_used():
    logits, truth = honest(n=3000, seed=5)
    half = len(truth) // 2
    logits = np.concatenate([4 * logits[:half], 0.25 * logits[half:]])
    one = Sampled(logits, truth, np.repeat([0, 1], half), 2)
    found = calibrated([one], overlapping=False)
    assert found.nll_after > found.nll
    assert found.temperature == 1.0
    assert "not used" in found.rule


def test_one_image_alone_cannot_vouch_for_itself_and_none_fits_nothing():
    alone = calibrated([sampled(0, units=1)], overlapping=False)
    assert alone.temperature == pytest.approx(2, rel=0.1)
    assert (alone.ece_after, alone.nll_after) == (None, None)
    assert "→ n/a" in str(alone)
    nothing = calibrated(
        [Sampled(np.empty((0, 2), np.float32), np.empty(0, int), np.empty(0, int), 0)], overlapping=False
    )
    assert (nothing.temperature, nothing.ece, nothing.pixels) == (1.0, None, 0)
    assert reliability_chart(nothing) is None


@pytest.mark.parametrize("size", [(37, 53), (5, 41, 30), (1, 1), (300, 8)])
@pytest.mark.parametrize("quota", [1, 60, 10**6])
def test_tiles_fill_the_grid_as_the_whole_image_does(size, quota):
    grid, image = Grid.of(size, quota), np.arange(np.prod(size)).reshape(size)
    wanted = image[grid.pixels]
    assert wanted.shape == grid.shape
    assert 1 <= wanted.size <= max(quota, 1)
    found = np.full(grid.shape, -1)
    for corner in np.ndindex(*(-(-side // 7) for side in size)):
        region = tuple(slice(7 * c, min(7 * c + 7, s)) for c, s in zip(corner, size, strict=True))
        here, there = grid.part(region)
        found[here] = image[region][there]
    np.testing.assert_array_equal(found, wanted)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on drawn cells, with five images that validate."""
    folder = tmp_path_factory.mktemp("calibration")
    draw(folder / "data", count=8)
    draw(folder / "new", count=1, size=80, first=60)
    (folder / "val.txt").write_text("c1\nc3\nc5\nc6\nc7\n")
    words = ["--task", "objects", *WORDS, "--steps", "24", "--val", str(folder / "val.txt")]
    code, _, err = skipway(
        "train", folder / "data" / "images", folder / "data" / "masks", "-o", folder / "run", *words
    )
    assert code == 0, err
    assert "calibrated T = " in err
    return folder


def test_the_run_keeps_the_temperature_of_its_validation_images(run):
    found = Calibration.of(Run(run / "run"))
    predictor = api.load(run / "run", device="cpu")
    logits, truth = [], []
    for name in Run(run / "run").read("split")["val"]:  # by the network itself, on whole images
        image = imread(run / "data" / "images" / f"{name}.tif")
        offset, scale = predictor.normalisation.constants(image[None])
        x = ((image[None] - offset[:, None, None]) / scale[:, None, None]).astype(np.float32)
        with torch.inference_mode():
            logits.append(predictor.model(torch.from_numpy(x)[None])[-1][0].flatten(1).T.numpy())
        truth.append(predictor.task.target(imread(run / "data" / "masks" / f"{name}.tif")).ravel())
    z, right = choices(np.concatenate(logits), np.concatenate(truth))
    assert (found.pixels, found.images) == (5 * 48 * 48, 5)
    assert fit_temperature(z, right) == pytest.approx(
        found.temperature if "not used" not in found.rule else fit_temperature(z, right), rel=1e-3
    )
    assert found.ece == pytest.approx(reliability(z, right).ece, abs=1e-4)
    assert found.nll == pytest.approx(reliability(z, right).nll, abs=1e-4)
    page = (run / "run" / "report.html").read_text()
    for text in ("How far the probabilities can be trusted", "Right, by confidence", f"{found.ece:.4f}"):
        assert text in page
    assert not (run / "run" / FILE).exists()  # only folds are fitted together


def predicted(run, out, *words):
    code, text, err = skipway(
        "predict", run / "run", run / "new" / "images", "-o", out, "--probabilities", *words
    )
    assert code == 0, err
    return imread(out / "c0_probabilities.tif"), (out / "c0.tif").read_bytes(), text + err


def test_probabilities_are_those_of_divided_logits_and_masks_keep_every_bit(run, tmp_path):
    mark = Run(run / "run").read("calibration")
    write_json(run / "run" / "calibration.json", {**mark, "temperature": 2.0})
    plain, masks, said = predicted(run, tmp_path / "plain", "--no-calibration")
    mended, same, told = predicted(run, tmp_path / "mended")
    assert masks == same
    odds = special.logit(plain.astype(np.float64)) if len(plain) == 1 else np.log(plain.astype(np.float64))
    wanted = special.expit(odds / 2) if len(plain) == 1 else special.softmax(odds / 2, axis=0)
    np.testing.assert_allclose(mended, wanted, atol=1e-5)
    assert np.abs(mended - plain).max() > 0.02
    assert "T = 2.000" in told
    assert "as the network gives them" in said
    write_json(run / "run" / "calibration.json", mark)


def test_an_output_that_was_not_fitted_is_left_as_it_is():
    predictor = api.Predictor.__new__(api.Predictor)
    object.__setattr__(predictor, "calibration", Calibration(temperature=2.0))
    assert (predictor.temperature(), predictor.temperature("mean")) == (2.0, 1.0)


def test_a_damaged_temperature_is_refused(run, tmp_path):
    mark = Run(run / "run").read("calibration")
    for change in ({"temperature": 0.0}, {"temperature": "x"}, {"bins": 3}, {"new": 1}):
        write_json(run / "run" / "calibration.json", {**mark, **change})
        with pytest.raises(CheckpointError, match=r"calibration\.json: damaged"):
            api.load(run / "run", device="cpu")
    assert api.load(run / "run", device="cpu", calibrated=False).calibration is None
    write_json(run / "run" / "calibration.json", mark)


def test_no_label_of_an_ensemble_depends_on_the_temperature():
    from skipway.models import build
    from skipway.predict.ensemble import Ensemble

    torch.manual_seed(0)
    config = {"in_channels": 1, "classes": 4, "width": 4, "depth": 2, "norm": "batch"}
    ensemble = Ensemble([build("unet", **config) for _ in range(3)]).eval()
    image = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    kept = {}
    for t in (1.0, 3.0, 0.2):
        found = predict_array(
            ensemble, image, temperature=t, on_probabilities=lambda _, p, t=t: kept.update({t: p.copy()})
        )
        kept[f"labels {t}"] = found.labels
        np.testing.assert_array_equal(kept[t].argmax(0), found.labels)
    np.testing.assert_array_equal(kept["labels 1.0"], kept["labels 3.0"])
    np.testing.assert_allclose(
        kept[3.0], special.softmax(np.log(kept[1.0].astype(np.float64)) / 3, axis=0), atol=1e-6
    )


def test_folds_keep_pixels_and_share_one_temperature(run, tmp_path):
    code, _, err = skipway(
        "train", run / "data" / "images", run / "data" / "masks", "-o", tmp_path / "run",
        "--task", "objects", *WORDS, "--steps", "20", "--folds", 2,
    )  # fmt: skip
    assert code == 0
    assert err.count("calibrated T = ") == 3
    folds = Run(tmp_path / "run").folds
    parts = [Sampled.read(fold.path / FILE) for fold in folds]
    assert [part.images for part in parts] == [4, 4]
    assert all(part.logits.shape == (4 * 48 * 48, part.logits.shape[1]) for part in parts)
    wanted = calibrated(parts, overlapping=False)
    assert Calibration.of(Run(tmp_path / "run")) == wanted
    assert api.load(tmp_path / "run", device="cpu").calibration == wanted
    assert api.load(tmp_path / "run", device="cpu", member=2).calibration == Calibration.of(folds[1])
    assert "each fold by that of the others" in wanted.rule
    assert "Right, by confidence" in (tmp_path / "run" / "report.html").read_text()


def test_overlapping_classes_and_pixels_that_nobody_annotated(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(4):
        image, labels = draw_cells(40, n=4, seed=k)
        for folder, mask in (("cell", labels > 0), ("left", np.arange(40)[None] < 20 + 0 * labels)):
            (tmp_path / "data" / "masks" / folder).mkdir(parents=True, exist_ok=True)
            imwrite(tmp_path / "data" / "masks" / folder / f"c{k}.tif", np.uint8(255) * mask)
        (tmp_path / "data" / "images").mkdir(exist_ok=True)
        imwrite(
            tmp_path / "data" / "images" / f"c{k}.tif",
            (image + rng.integers(0, 9, image.shape)).astype(np.uint16),
        )
    words = [word if word != "weighted-ce-dice" else "ce-dice" for word in WORDS]
    code, _, err = skipway(
        "train", tmp_path / "data" / "images", tmp_path / "data" / "masks", "-o", tmp_path / "run",
        "--task", "multilabel", *words, "--folds", 2,
    )  # fmt: skip
    assert code == 0, err
    part = Sampled.read(tmp_path / "run" / "fold-1" / FILE)
    assert part.logits.shape == (2 * 40 * 40, 2)
    assert set(np.unique(part.truth)) == {0, 1, 2, 3}
    found = Calibration.of(Run(tmp_path / "run"))
    assert sum(n for n, *_ in found.bins) == 2 * found.pixels


def test_pixels_that_nobody_annotated_do_not_count(tmp_path):
    for k in range(3):
        image, labels = draw_cells(40, n=4, seed=k)
        mask = np.where(labels > 0, 1, 0).astype(np.uint8)
        mask[:10] = 255
        for folder, values in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            imwrite(tmp_path / folder / f"c{k}.tif", values)
    code, _, err = skipway(
        "train", tmp_path / "images", tmp_path / "masks", "-o", tmp_path / "run", "--ignore", 255, *WORDS,
        "--task", "classes", "--folds", 3,
    )  # fmt: skip
    assert code == 0, err
    part = Sampled.read(tmp_path / "run" / "fold-2" / FILE)
    assert set(np.unique(part.truth)) == {0, 1}
    assert len(part.truth) == 40 * 30
    assert Calibration.of(Run(tmp_path / "run" / "fold-2")).ece_after is None  # one image validates


def test_the_image_that_also_trained_fits_nothing(tmp_path):
    draw(tmp_path, count=1)
    code, _, err = skipway(
        "train", tmp_path / "images", tmp_path / "masks", "-o", tmp_path / "run", "--task", "objects", *WORDS
    )
    assert code == 0
    assert "not fitted" in err
    found = json.loads((tmp_path / "run" / "calibration.json").read_text())
    assert (found["temperature"], found["pixels"], found["ece"]) == (1.0, 0, None)


def test_a_chart_leaves_out_bins_of_next_to_nothing():
    bins = ((0, 0.0, 0.0), (1, 0.1, 1.0), (5000, 0.6, 0.5), (5000, 0.9, 0.8))
    found = replace(Calibration(), ece=0.1, bins=bins, bins_after=bins, ece_after=0.1)
    chart = reliability_chart(found)
    assert [len(points.split()) for _, _, points, _ in chart.lines] == [2, 2, 2]
    assert chart.over == "confidence"
