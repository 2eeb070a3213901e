"""Literal values on one pair of toy maps, each from the tool that defines the score (1e-6 or exact)."""

import math

import numpy as np
import pytest

from skipway.metrics import (
    confusion,
    det,
    match,
    object_scores,
    overlap_table,
    pixel_error,
    scores,
    seg,
    v_info,
    v_rand,
)
from skipway.metrics.objects import AP_THRESHOLDS


@pytest.fixture
def toy():
    """Truth with three objects; two are clipped, the third falls into two parts, a speck is added."""
    truth = np.zeros((8, 8), np.int32)
    truth[1:4, 1:4], truth[1:4, 5:8], truth[5:8, 1:7] = 1, 2, 3
    prediction = np.zeros((8, 8), np.int32)
    prediction[1:4, 1:5], prediction[1:3, 5:8], prediction[5:8, 1:3], prediction[5:8, 4:7] = 1, 2, 3, 4
    prediction[0, 0] = 5
    return truth, prediction


def test_binary_pixel_scores_equal_the_published_values(toy):
    truth, prediction = toy
    matrix = confusion(truth > 0, prediction > 0, 2)
    assert matrix.tolist() == [[24, 4], [6, 30]]
    assert matrix.dtype == np.int64
    found = scores(matrix)[1]
    assert found.iou == 0.75
    assert found.dice == pytest.approx(0.857142857, abs=1e-9)
    assert found.f1 == found.dice
    assert found.sensitivity == pytest.approx(0.833333333, abs=1e-9)
    assert found.specificity == pytest.approx(0.857142857, abs=1e-9)
    assert found.precision == pytest.approx(0.882352941, abs=1e-9)
    assert found.f2 == pytest.approx(0.842696629, abs=1e-9)
    assert pixel_error(matrix) == 0.15625


def test_overlap_table_holds_the_published_iou_rows(toy):
    table = overlap_table(*toy)
    pairs = {
        (int(table.truth_ids[r]), int(table.prediction_ids[c])): v
        for r, c, v in zip(table.rows, table.columns, table.iou, strict=True)
    }
    assert pairs == {(1, 1): 0.75, (2, 2): pytest.approx(2 / 3), (3, 3): pytest.approx(1 / 3), (3, 4): 0.5}


@pytest.mark.parametrize(
    ("threshold", "counts", "ap", "f1", "sq", "pq"),
    [
        (0.5, (3, 2, 0), 0.6, 0.75, 0.638889, 0.4791667),
        (0.6, (2, 3, 1), 0.333333, 0.5, 0.708333, 0.3541667),
        (0.75, (1, 4, 2), 0.142857, 0.25, 0.75, 0.1875),
    ],
)
def test_matching_equals_the_values_of_stardist(toy, threshold, counts, ap, f1, sq, pq):
    found = match(overlap_table(*toy), threshold)
    assert (found.tp, found.fp, found.fn) == counts
    assert found.ap == pytest.approx(ap, abs=1e-6)
    assert found.f1 == pytest.approx(f1, abs=1e-6)
    assert found.sq == pytest.approx(sq, abs=1e-6)
    assert found.pq == pytest.approx(pq, abs=1e-6)


def test_image_scores_equal_the_published_values(toy):
    found = object_scores(*toy)
    assert found.ap50 == 0.6
    assert found.ap75 == pytest.approx(1 / 7)
    assert found.mean_ap == pytest.approx(0.188571429, abs=1e-9)
    assert found.pq == pytest.approx(0.4791667, abs=1e-7)
    assert found.pq == pytest.approx(found.sq * found.rq)
    assert (found.truth, found.predicted) == (3, 5)


def test_thresholds_are_the_nearest_floats():
    assert AP_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_cell_tracking_scores_equal_the_published_values(toy):
    table = overlap_table(*toy)
    assert seg(table) == pytest.approx(
        0.472222222, abs=1e-9
    )  # object 3 is covered by exactly a half: no match
    assert det(table) == pytest.approx(0.566666667, abs=1e-9)


def test_v_rand_equals_fiji(toy):
    found = v_rand(overlap_table(*toy))
    assert found.precision == 1.0
    assert found.recall == pytest.approx(0.493827160, abs=1e-9)
    assert found.score == pytest.approx(0.661157025, abs=1e-9)


def test_v_info_equals_fiji(toy):
    found = v_info(overlap_table(*toy))
    assert found.precision == pytest.approx(1.0, abs=1e-12)
    assert found.recall == pytest.approx(0.550800650, abs=1e-9)
    assert found.score == pytest.approx(0.710343589, abs=1e-9)
    assert found.variation == pytest.approx(0.847932723, abs=1e-9)


def test_other_tools_give_other_numbers_on_the_same_maps(toy):
    """The published values of scikit-image and CREMI: same names, other definitions (docs/metrics.md)."""
    from skimage.metrics import adapted_rand_error, variation_of_information
    from sklearn.metrics import rand_score

    truth, prediction = toy
    error, precision, recall = adapted_rand_error(truth, prediction)
    assert (error, precision, recall) == pytest.approx((0.368421053, 0.48, 0.923076923), abs=1e-8)
    assert variation_of_information(truth, prediction) == pytest.approx((0.84908243, 0.58426844), abs=1e-7)
    assert variation_of_information(truth, prediction, ignore_labels=(0,)) == pytest.approx(
        (0.95914792, 0.16666667), abs=1e-7
    )
    assert rand_score(truth.ravel(), prediction.ravel()) == pytest.approx(0.803571429, abs=1e-8)
    table = overlap_table(truth, prediction)
    # CREMI divides the walled pixels once more, by the size of the image.
    walled = (table.truth_areas.sum() - table.areas.sum()) / truth.size
    shared, true = np.sum(table.areas**2) + walled, np.sum(table.truth_areas**2)
    assert shared / true == pytest.approx(0.481674384, abs=1e-8)
    assert 1 - 2 * shared / (true + shared) == pytest.approx(0.349824242, abs=1e-8)


def test_v_info_counts_every_walled_pixel_as_its_own_region():
    """Four pixels of one true region, two found as one region, two called wall: H(S) by hand."""
    table = overlap_table(np.array([1, 1, 1, 1]), np.array([1, 1, 0, 0]))
    found = v_info(table)
    assert found.variation == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert found.score == 0.0
    assert found.precision is None
