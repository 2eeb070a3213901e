"""The simple rule that a network of several classes has to beat: chosen on training images, by the run's own score."""

import numpy as np
import pytest
from tifffile import imwrite

from skipway import train
from skipway.data.labels import LabelMap
from skipway.metrics import class_sides, otsu_mask
from skipway.metrics.pixel import mean_defined
from skipway.report.page import Baseline
from skipway.report.scores import summary_tables
from skipway.runs import Run
from skipway.tasks import make_task


@pytest.mark.parametrize("seed", range(6))
def test_the_classes_of_the_two_sides_are_the_best_of_all_pairs_by_the_score_of_the_run(seed):
    rng = np.random.default_rng(seed)
    names = ("background", "a", "b", "c")
    task = make_task(LabelMap("classes", (0, 5, 7, 9), names), (1.0,) * 4, 0)
    masks = [rng.choice(4, (6, 8), p=rng.dirichlet(np.ones(4) / 2)) for _ in range(3)]
    images = [40 * mask + rng.integers(0, 60, mask.shape) for mask in masks]
    values = np.array([0, 5, 7, 9], np.uint8)

    def score(dark, bright):
        """The long way round: every image predicted and scored as a network's is."""
        found = [np.where(otsu_mask(image), values[bright], values[dark]) for image in images]
        return mean_defined(task.score(f, values[m]) for f, m in zip(found, masks, strict=True))[0] or 0.0

    tables = [
        np.stack([np.bincount(mask[side], minlength=4) for side in (~otsu_mask(image), otsu_mask(image))])
        for image, mask in zip(images, masks, strict=True)
    ]
    best = max(score(dark, bright) for dark in range(4) for bright in range(4))
    assert score(*class_sides(tables)) == pytest.approx(best, abs=1e-12)


def lands(root, count=6):
    """Dark ground, a grey square and a bright one, as classes 1, 2 and 3 above a rare background 0."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        mask = np.full((48, 48), 1, np.uint8)
        y, x = rng.integers(2, 24, 2)
        mask[y : y + 20, x : x + 20], mask[:2] = 3, 0
        image = np.array([90, 40, 100, 200], np.uint8)[mask] + rng.integers(0, 20, mask.shape, np.uint8)
        mask[46:] = 2
        imwrite(root / "images" / f"i{seed}.tif", image)
        imwrite(root / "masks" / f"i{seed}.tif", mask)
    return root


def test_several_classes_have_a_baseline_that_rubbish_does_not_beat(tmp_path):
    data = lands(tmp_path / "data")
    found = train(data, output=tmp_path / "run", steps=1, width=2, depth=2, patch=32, batch=1, device="cpu")
    assert found.baseline_name == "Otsu threshold (class 3 bright, class 1 dark)"
    assert found.baseline > 0.6
    assert found.score <= found.baseline
    assert "this does not beat the baseline" in found.summary
    page = (Run(found.run.path).path / "report.html").read_text()
    assert page.count("(class 3 bright, class 1 dark)") == 1
    assert page.count("Otsu threshold") > 3


def test_a_long_name_is_said_once_and_then_in_short():
    long = Baseline("the simplest rule of each class (a everywhere)", {"classes": {}}, 0.5, "simplest rules")
    figures = {"classes": {"a": {"dice": 0.4, "n": 1}}}
    (table,) = summary_tables(figures, figures, long.short, {})
    assert [name for name, *_ in table.rows] == ["a", "simplest rules, a"]
