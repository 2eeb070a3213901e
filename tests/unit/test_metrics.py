"""What every score must obey whatever the maps are, and what it says when there is nothing to score."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skipway.metrics import (
    confusion,
    mean_defined,
    membrane_scores,
    object_scores,
    otsu_mask,
    otsu_polarity,
    overlap_table,
    pixel_error,
    scores,
    segments,
    thin,
    v_info,
    v_rand,
)
from skipway.metrics.membranes import best_threshold
from skipway.metrics.objects import match

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def maps(top, count=2):
    """Several integer maps of one shape with values 0 … top."""
    return SHAPES.flatmap(
        lambda shape: st.tuples(
            *[hnp.arrays(np.int64, shape, elements=st.integers(0, top)) for _ in range(count)]
        )
    )


def values_of(found):
    return [value for value in vars(found).values() if isinstance(value, float)]


# ---- undefined values


def test_empty_against_empty_is_undefined_not_perfect_and_not_zero():
    found = scores(confusion(np.zeros((4, 4), int), np.zeros((4, 4), int), 2))[1]
    assert (found.dice, found.iou, found.sensitivity, found.precision, found.f1, found.f2) == (None,) * 6
    assert found.specificity == 1.0


def test_missed_and_invented_foreground_are_zero_where_defined():
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    missed, invented = scores(confusion(full, empty, 2))[1], scores(confusion(empty, full, 2))[1]
    assert (missed.dice, missed.sensitivity, missed.precision, missed.specificity) == (0.0, 0.0, None, None)
    assert (invented.dice, invented.sensitivity, invented.precision, invented.specificity) == (
        0.0,
        None,
        0.0,
        0.0,
    )


def test_four_ways_to_average_dice_differ_and_ours_skips_the_undefined_image():
    truth = [np.zeros((4, 4), int), np.eye(4, dtype=int), np.ones((4, 4), int)]
    prediction = [np.zeros((4, 4), int), np.ones((4, 4), int), np.ones((4, 4), int)]
    per_image = [scores(confusion(t, p, 2))[1].dice for t, p in zip(truth, prediction, strict=True)]
    assert per_image == [None, 0.4, 1.0]
    assert mean_defined(per_image) == (0.7, 2)


def test_objects_on_two_empty_maps_are_undefined_and_on_one_empty_map_zero():
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    nothing = object_scores(empty, empty)
    assert (nothing.ap50, nothing.ap75, nothing.mean_ap, nothing.pq, nothing.seg) == (None,) * 5
    missed, invented = object_scores(full, empty), object_scores(empty, full)
    assert (missed.ap50, missed.pq, missed.sq, missed.seg) == (0.0, 0.0, None, 0.0)
    assert (invented.ap50, invented.pq, invented.sq, invented.seg) == (0.0, 0.0, None, None)


def test_membranes_without_interior_in_the_truth_are_undefined():
    assert membrane_scores(np.zeros((4, 4)), np.ones((4, 4)))[0].v_rand is None
    assert membrane_scores(np.zeros((4, 4)), np.ones((4, 4)))[0].v_info is None


def test_one_region_found_as_one_region_has_no_v_info_but_a_perfect_v_rand():
    found = membrane_scores(np.ones((4, 4)), np.ones((4, 4)))[0]
    assert (found.v_rand, found.v_info) == (1.0, None)


# ---- properties


@given(maps(3))
def test_pixel_scores_are_bounded_and_symmetric(pair):
    truth, prediction = pair
    there, back = confusion(truth, prediction, 4), confusion(prediction, truth, 4)
    assert np.array_equal(there, back.T)
    assert pixel_error(there) == pixel_error(back)
    for one, other in zip(scores(there), scores(back), strict=True):
        assert all(0 <= value <= 1 for value in values_of(one))
        assert (one.dice, one.iou) == (other.dice, other.iou)
        assert one.sensitivity == other.precision
        assert one.dice is None or one.dice == pytest.approx(2 * one.iou / (1 + one.iou))


@given(maps(3), st.integers(0, 9))
def test_splitting_a_batch_adds_up_to_the_whole(pair, cut):
    truth, prediction = pair
    parts = confusion(truth[:cut], prediction[:cut], 4) + confusion(truth[cut:], prediction[cut:], 4)
    assert np.array_equal(parts, confusion(truth, prediction, 4))


@given(maps(3), st.data())
def test_ignored_pixels_change_nothing(pair, data):
    truth, prediction = pair
    noise = data.draw(hnp.arrays(np.int64, truth.shape, elements=st.integers(0, 3)))
    ignored = data.draw(hnp.arrays(np.bool_, truth.shape))
    marked = np.where(ignored, 255, truth)
    first = confusion(marked, prediction, 4, ignore=255)
    second = confusion(marked, np.where(ignored, noise, prediction), 4, ignore=255)
    assert np.array_equal(first, second)
    assert first.sum() == (~ignored).sum()


@given(st.lists(st.none() | st.floats(0, 1), max_size=20), st.randoms(use_true_random=False))
def test_mean_does_not_depend_on_the_order_of_the_images(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert mean_defined(values) == mean_defined(shuffled)


@given(maps(6), st.permutations(range(1, 7)), st.permutations(range(1, 7)))
def test_renumbering_objects_changes_nothing(pair, first, second):
    truth, prediction = pair
    renumber_truth = np.array([0, *first]) * 70_000  # gaps, beyond 16 bits
    renumber_prediction = np.array([0, *second]) * 70_000
    renumbered = renumber_truth[truth], renumber_prediction[prediction]
    assert object_scores(*renumbered) == object_scores(truth, prediction)
    for score in (v_rand, v_info):
        before, after = score(overlap_table(truth, prediction)).score, score(overlap_table(*renumbered)).score
        assert before == pytest.approx(after, abs=1e-12)


@given(maps(6))
def test_object_scores_are_bounded_and_perfect_on_the_truth(pair):
    truth, prediction = pair
    found = object_scores(truth, prediction)
    assert all(0 <= value <= 1 for value in values_of(found))
    back = object_scores(prediction, truth)
    assert (found.ap50, found.mean_ap, found.pq) == pytest.approx((back.ap50, back.mean_ap, back.pq))
    if truth.any():
        same = object_scores(truth, truth)
        assert (same.ap50, same.ap75, same.mean_ap, same.pq, same.seg) == (1, 1, 1, 1, 1)


@given(maps(6))
def test_average_precision_never_rises_with_the_threshold(pair):
    table = overlap_table(*pair)
    found = [match(table, threshold).tp for threshold in (0.3, 0.5, 0.7, 0.9, 1.0)]
    assert found == sorted(found, reverse=True)


@given(maps(4))
def test_region_scores_are_bounded_and_perfect_on_the_truth(pair):
    truth, prediction = pair
    for score in (v_rand, v_info):
        found = score(overlap_table(truth, prediction)).score
        assert found is None or 0 <= found <= 1
        same = score(overlap_table(truth, truth)).score
        assert same is None or same == pytest.approx(1, abs=1e-12)


@given(hnp.arrays(np.bool_, SHAPES))
def test_thinning_grows_every_region_as_one_piece_and_keeps_a_wall_between(interior):
    regions = thin(interior)
    assert not np.any(regions[interior] == 0)
    if interior.any():
        for axis in (0, 1):  # a wall separates: regions with different ids never touch
            ahead, behind = np.moveaxis(regions, axis, 0)[1:], np.moveaxis(regions, axis, 0)[:-1]
            assert not np.any((ahead != behind) & (ahead > 0) & (behind > 0))
    assert regions.max() == max(segments(interior).max(), 1)
    for region in range(1, regions.max() + 1):
        assert segments(regions == region).max() == 1


# ---- membranes


def test_a_gap_that_joins_two_cells_costs_more_than_a_thick_wall():
    truth = np.ones((21, 41), bool)
    truth[:, 20] = False
    thick, gap = truth.copy(), truth.copy()
    thick[:, 17:24] = False
    gap[9:12, 20] = True
    assert membrane_scores(truth, thick)[0].v_rand == 1.0
    assert membrane_scores(truth, gap)[0].v_rand == pytest.approx(2 / 3, abs=0.01)
    assert membrane_scores(truth, thick, thinned=False)[0].v_rand < 0.85


def test_probability_maps_are_cut_at_every_threshold_and_one_serves_the_stack():
    truth = np.ones((9, 19), bool)
    truth[:, 9] = False
    sure = np.where(truth, 0.95, 0.05)
    found = membrane_scores(truth, sure, thresholds=[k / 10 for k in range(11)])
    assert [one.v_rand == 1.0 for one in found] == [False, *[True] * 9, False]
    assert best_threshold([[one.v_rand for one in found]]) == 1
    assert best_threshold([[0.2, 0.9, 0.5], [0.9, 0.1, 0.8]]) == 2  # 0.55, 0.50, 0.65
    assert best_threshold([[None, 0.0], [None, 0.0]]) == 1
    assert best_threshold([]) == 0


# ---- refusals, size


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "must be equal"),
        (np.zeros(3, int), np.array([0, 1, 2]), "prediction holds indices"),
        (np.array([0, -1, 0]), np.zeros(3, int), "truth holds indices"),
        (np.zeros(3), np.zeros(3, int), "must be integers"),
    ],
)
def test_confusion_refuses_what_it_cannot_count(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion(truth, prediction, 2)


def test_overlap_table_refuses_floats_and_unequal_shapes():
    with pytest.raises(ValueError, match="hold integers"):
        overlap_table(np.zeros((2, 2)), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="must be equal"):
        overlap_table(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="outside"):
        match(overlap_table(np.ones(2, int), np.ones(2, int)), 0.0)


def test_counts_beyond_one_chunk_and_beyond_float16_are_exact():
    truth = np.ones((1100, 1100), np.uint8)
    prediction = truth.copy()
    prediction.ravel()[::7] = 0
    assert confusion(truth, prediction, 2).tolist() == [[0, 0], [172858, 1037142]]


def test_largest_ids_of_64_bits_do_not_overflow():
    big = np.iinfo(np.uint64).max
    found = object_scores(np.array([0, big, big], np.uint64), np.array([0, big - 1, big - 1], np.uint64))
    assert (found.ap50, found.truth, found.predicted) == (1.0, 1, 1)


def test_sparse_ids_cost_no_memory():
    found = object_scores(np.array([0, 10**12, 7]), np.array([0, 10**13, 0]))
    assert (found.ap50, found.truth, found.predicted) == (0.5, 2, 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_three_dimensional_maps_score_like_their_flat_pixels(seed):
    truth, prediction = np.random.default_rng(seed).integers(0, 5, (2, 3, 4, 5))
    assert object_scores(truth, prediction) == object_scores(truth.ravel(), prediction.ravel())


def test_time_grows_with_pixels_not_with_objects():
    few, many = np.zeros((512, 512), np.int32), np.arange(512 * 512).reshape(512, 512) // 64
    started = time.process_time()
    object_scores(many, many)  # 4096 objects
    object_scores(few, few)
    assert time.process_time() - started < 2  # objects × pixels would be a thousand times this


# ---- baseline


def test_otsu_mask_takes_the_bright_side_unless_told():
    image = np.array([[[10, 200, 10]], [[20, 220, 20]]], np.uint8)
    assert otsu_mask(image).tolist() == [[False, True, False]]
    assert otsu_mask(image, foreground="dark").tolist() == [[True, False, True]]
    assert not otsu_mask(np.full((3, 3), 7)).any()
    with pytest.raises(ValueError, match="finite"):
        otsu_mask(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="bright"):
        otsu_mask(image, foreground="light")


def test_the_side_of_otsu_is_the_one_that_agrees_with_the_masks():
    rng = np.random.default_rng(0)
    masks = [rng.random((20, 20)) > 0.8 for _ in range(3)]
    bright = [mask * 90 + rng.integers(0, 40, mask.shape) for mask in masks]
    dark = [200 - image for image in bright]
    assert otsu_polarity(bright, masks) == "bright"
    assert otsu_polarity(iter(dark), iter(masks)) == "dark"
    assert otsu_polarity([bright[0], *dark[1:]], masks) == "dark"  # the mean decides, not the first
    assert otsu_polarity([np.stack([image] * 3) for image in dark], masks) == "dark"
    blank = [np.full((20, 20), 7)]
    assert otsu_polarity(blank, [np.zeros((20, 20), bool)]) == "bright"
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        otsu_polarity(bright, masks[:2])
