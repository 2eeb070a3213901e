"""`evaluate` says whether the probabilities beside the masks mean what they say."""

import json

import numpy as np
import pytest
from scipy import special
from tifffile import imwrite
from toys import skipway

from skipway.data.labels import LabelMap
from skipway.evaluation import evaluate, trust
from skipway.images import open_probabilities
from skipway.metrics.calibration import BINS

CLASSES = LabelMap("classes", (0, 7, 9), ("background", "cell", "core"))


def folder(root, labels, probabilities, truths, masks):
    """What `predict --probabilities` writes, and truths."""
    for name in ("pred", "truth"):
        (root / name).mkdir(exist_ok=True)
    (root / "pred" / "labels.json").write_text(json.dumps(labels.to_json()))
    for k, (p, truth, mask) in enumerate(zip(probabilities, truths, masks, strict=True)):
        imwrite(root / "pred" / f"a{k}.tif", mask)
        imwrite(root / "truth" / f"a{k}.tif", truth)
        with open_probabilities(root / "pred" / f"a{k}_probabilities.tif", p.shape) as maps:
            maps[:] = p
    return root / "pred", root / "truth"


def drawn(sharper, seed=0, count=3, size=(60, 70)):
    """Probabilities, and classes drawn from them before they were made sharper."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, 3, *size))
    p = special.softmax(logits, 1)
    classes = (p.cumsum(1) < rng.random((count, 1, *size))).sum(1)
    return special.softmax(sharper * logits, 1), classes


def by_hand(p, classes):
    """Expected calibration error by plain words."""
    confidence, right = p.max(1).ravel(), (p.argmax(1) == classes).ravel()
    error = 0.0
    for k in range(BINS):
        here = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if here.any():
            error += here.mean() * abs(right[here].mean() - confidence[here].mean())
    return error


@pytest.mark.parametrize("sharper", [1.0, 2.5])
def test_the_error_is_that_of_the_files(tmp_path, sharper):
    p, classes = drawn(sharper)
    values = np.array([0, 7, 9], np.uint8)
    found = evaluate(*folder(tmp_path, CLASSES, p, values[classes], values[p.argmax(1)]))
    assert found.calibration["ece"] == pytest.approx(by_hand(p.astype(np.float32), classes), abs=1e-6)
    true = np.take_along_axis(p, classes[:, None], 1)
    assert found.calibration["nll"] == pytest.approx(-np.log(true).mean(), abs=1e-5)
    assert (found.calibration["pixels"], found.calibration["pages"]) == (3 * 60 * 70, 3)
    assert (found.calibration["ece"] < 0.02) == (sharper == 1.0)
    assert f"expected calibration error {found.calibration['ece']:.4f}" in found.table()
    assert found.to_json()["calibration"] == found.calibration


def test_pixels_without_annotation_do_not_count_and_many_are_thinned_out(tmp_path, monkeypatch):
    p, classes = drawn(1.0, count=2, size=(90, 110))
    values = np.array([0, 7, 9], np.uint8)
    truth = values[classes]
    truth[:, :30] = 255
    labels = LabelMap("classes", CLASSES.values, CLASSES.names, ignore=255)
    pred, true = folder(tmp_path, labels, p, truth, values[p.argmax(1)])
    assert evaluate(pred, true).calibration["pixels"] == 2 * 60 * 110
    monkeypatch.setattr(trust, "VALUES", 3 * 2 * 500)
    few = evaluate(pred, true).calibration
    step = int(np.ceil(np.sqrt(9900 / 500)))
    rows = [row for row in range(step // 2, 90, step) if row >= 30]
    assert few["pixels"] == 2 * len(rows) * len(range(0, 110, step))
    assert few["ece"] < 0.2


def test_one_sigmoid_channel(tmp_path):
    rng = np.random.default_rng(0)
    p = special.expit(3 * rng.normal(size=(2, 1, 50, 60)))
    classes = (rng.random((2, 50, 60)) < p[:, 0]).astype(np.uint8)
    labels = LabelMap("classes", (0, 1), ("background", "cell"))
    found = evaluate(*folder(tmp_path, labels, p, classes, (p[:, 0] > 0.5).astype(np.uint8)))
    both = np.concatenate([1 - p, p], axis=1).astype(np.float32)
    assert found.calibration["ece"] == pytest.approx(by_hand(both, classes), abs=1e-5)


def test_classes_that_overlap_have_their_file_beside_the_folders(tmp_path):
    rng = np.random.default_rng(0)
    p = special.expit(3 * rng.normal(size=(1, 2, 50, 60)))
    truth = rng.random(p.shape) < p
    labels = LabelMap("multilabel", (1, 2), ("cell", "spot"))
    for k, name in enumerate(labels.names):
        for side, masks in (("pred", p > 0.5), ("truth", truth)):
            (tmp_path / side / name).mkdir(parents=True)
            imwrite(tmp_path / side / name / "a0.tif", (255 * masks[0, k]).astype(np.uint8))
    (tmp_path / "pred" / "labels.json").write_text(json.dumps(labels.to_json()))
    with open_probabilities(tmp_path / "pred" / "a0_probabilities.tif", p[0].shape) as maps:
        maps[:] = p[0]
    found = evaluate(tmp_path / "pred", tmp_path / "truth")
    decisions = np.stack([1 - p, p], axis=1).astype(np.float32).reshape(1, 2, -1)
    assert found.calibration["ece"] == pytest.approx(by_hand(decisions, truth.reshape(1, -1)), abs=1e-5)
    assert found.calibration["pixels"] == 50 * 60


def test_files_that_do_not_fit_are_passed_over_and_named(tmp_path):
    p, classes = drawn(1.0)
    values = np.array([0, 7, 9], np.uint8)
    pred, true = folder(tmp_path, CLASSES, p, values[classes], values[p.argmax(1)])
    imwrite(pred / "a0_probabilities.tif", p[0, :, :-1].astype(np.float32), photometric="minisblack")
    (pred / "a1_probabilities.tif").write_bytes(b"II*\0 torn")
    found = evaluate(pred, true)
    assert found.calibration["pages"] == 1
    assert "probabilities that do not fit their mask are not judged: 2 pages" in found.warnings
    (pred / "a2_probabilities.tif").unlink()
    assert evaluate(pred, true).calibration is None
    for file in pred.glob("*_probabilities.tif"):
        file.unlink()
    assert "calibration" not in evaluate(pred, true).to_json()


def test_the_command_prints_it(tmp_path):
    p, classes = drawn(2.5)
    values = np.array([0, 7, 9], np.uint8)
    code, out, _ = skipway("evaluate", *folder(tmp_path, CLASSES, p, values[classes], values[p.argmax(1)]))
    assert code == 0
    assert f"probabilities  expected calibration error {by_hand(p.astype(np.float32), classes):.4f}" in out
