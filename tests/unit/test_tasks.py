"""Tasks: what a mask becomes before the training, and what a class map becomes after the prediction."""

import numpy as np
import pytest
from scipy import ndimage

from skipway.data.labels import IGNORE, LabelMap
from skipway.errors import DataError
from skipway.metrics.objects import average_precision
from skipway.synthetic import draw_cells
from skipway.tasks import Classes, Objects, make_task
from skipway.tasks.objects import to_objects

IDS = LabelMap("objects", (0, 1), ("background", "object"), ids=True)
CELLS = LabelMap("classes", (0, 128, 255), ("background", "cell", "core"), ignore=7)


def paper_map():
    """Two cells three pixels apart, the golden map of the border term."""
    mask = np.zeros((9, 13), np.uint8)
    mask[2:7, 1:5], mask[2:7, 7:12] = 1, 2
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_objects_come_back_from_their_own_target(seed):
    _, mask = draw_cells(160, density=0.4, touching=0.9, seed=seed)
    task = Objects(IDS, (1.0, 1.0), min_area=4)
    touching = ndimage.maximum_filter(mask, 3) != mask
    assert (touching & (mask > 0)).any()
    decoded = task.decode(task.target(mask))
    assert decoded.max() == len(np.unique(mask)) - 1
    assert average_precision(mask, decoded, 0.5) == 1.0
    assert task.score(decoded, mask) == 1.0
    assert ((decoded > 0) == (mask > 0)).mean() > 0.995


def test_the_target_parts_touching_objects_and_keeps_the_others_whole():
    mask = np.array([[1, 1, 1, 2, 2, 0, 3, 3]])
    target = Objects(IDS, (1.0, 1.0)).target(mask)
    assert target.dtype == np.uint8
    assert target.tolist() == [[1, 1, 0, 1, 1, 0, 1, 1]]


def test_one_object_is_its_own_target():
    mask = np.zeros((9, 9), np.uint16)
    mask[2:6, 3:8] = 40_000
    task = Objects(IDS, (1.0, 1.0))
    np.testing.assert_array_equal(task.target(mask), mask > 0)
    np.testing.assert_array_equal(task.decode(task.target(mask)), mask > 0)


def test_small_components_are_dropped_and_the_rest_numbered_through():
    foreground = np.zeros((7, 12), bool)
    foreground[0, 0:2] = foreground[3:6, 0:3] = foreground[1, 5:8] = foreground[4:7, 8:10] = True
    assert np.bincount(to_objects(foreground).ravel())[1:].tolist() == [2, 3, 9, 6]
    ids = to_objects(foreground, min_area=6)
    assert np.bincount(ids.ravel())[1:].tolist() == [9, 6]
    assert ids[4, 1] == 1
    assert ids[5, 9] == 2
    assert to_objects(foreground, min_area=7).max() == 1
    assert to_objects(foreground, min_area=99).max() == 0
    task = Objects(IDS, (1.0, 1.0), min_area=6)
    np.testing.assert_array_equal(task.decode(foreground.astype(np.uint8)), ids)


def test_only_gaps_between_two_objects_are_closed():
    foreground = np.zeros((9, 11), bool)
    foreground[1:8, 1:5] = foreground[1:8, 6:10] = True  # two objects, a gap of one pixel
    foreground[4, 3] = False  # and a hole inside the first
    assert not to_objects(foreground)[:, 5].any()
    ids = to_objects(foreground, close=True)
    gap = ids[1:8, 5]
    assert (gap > 0).all()
    outside = np.ones_like(foreground)
    outside[1:8, 1:10] = False
    outside[[0, 8], 5] = False  # the two ends, at which both objects are corners away
    assert (ids[outside] == 0).all()
    assert ids[4, 3] == 0
    assert set(np.unique(ids)) == {0, 1, 2}


def test_a_gap_of_two_pixels_stays():
    foreground = np.array([[1, 1, 0, 0, 1, 1]], bool)
    assert to_objects(foreground, close=True).tolist() == [[1, 1, 0, 0, 2, 2]]


def test_gaps_are_closed_where_the_target_drew_them_and_nowhere_else():
    found = np.array([[1, 1, 0, 1, 1]], np.uint8)
    assert Objects(IDS, (1.0, 1.0)).decode(found).tolist() == [[1, 1, 1, 2, 2]]
    regions = LabelMap("objects", (0, 255), ("background", "object"))
    assert Objects(regions, (1.0, 1.0)).decode(found).tolist() == [[1, 1, 0, 2, 2]]


def test_components_join_by_edges_alone():
    assert to_objects(np.array([[1, 0], [0, 1]], bool)).max() == 2


def test_an_empty_mask_and_an_empty_prediction_have_no_score():
    task = Objects(IDS, (1.0, 1.0))
    empty = np.zeros((5, 5), np.uint8)
    assert task.decode(task.target(empty)).max() == 0
    assert task.score(empty.astype(np.int32), empty) is None


def test_score_counts_hits_misses_and_false_ones():
    mask = np.zeros((6, 20), np.uint8)
    for number, left in enumerate((0, 5, 10), start=1):
        mask[1:5, left : left + 4] = number
    decoded = np.zeros((6, 20), np.int32)
    decoded[1:5, 0:4], decoded[1:5, 5:9], decoded[0:2, 15:19] = 9, 4, 2
    assert Objects(IDS, (1.0, 1.0)).score(decoded, mask) == pytest.approx(2 / 4)  # 2 hit, 1 missed, 1 false


@pytest.mark.parametrize(
    ("pixel", "border"),
    [((4, 0), 2.780373), ((4, 5), 8.352702), ((4, 6), 8.352702), ((4, 12), 1.978987), ((0, 0), 1.634656)],
)
def test_weights_are_class_weight_plus_border_term(pixel, border):
    weights = Objects(IDS, (0.75, 1.5)).weights(paper_map())
    assert weights.dtype == np.float32
    assert weights[pixel] == pytest.approx(0.75 + border, abs=1e-5)
    assert weights[4, 2] == weights[4, 9] == 1.5


def test_the_line_drawn_between_touching_objects_weighs_most():
    mask = np.zeros((7, 11), np.uint8)
    mask[1:6, 1:5], mask[1:6, 5:10] = 1, 2
    weights = Objects(IDS, (0.5, 2.0)).weights(mask)
    line = 0.5 + 10 * np.exp(-((1 + 1) ** 2) / 50)
    # The larger object gives up its pixel: column 5 becomes background, one pixel from either object.
    assert weights[3, 5] == pytest.approx(line, abs=1e-5)
    assert weights[3, 4] == weights[3, 6] == 2.0
    assert weights.max() == weights[3, 5]


def test_connected_regions_are_objects_where_ids_are_not():
    mask = np.zeros((9, 13), np.uint8)
    mask[paper_map() > 0] = 255
    labels = LabelMap("objects", (0, 255), ("background", "object"))
    weights = Objects(labels, (0.0, 0.0)).weights(mask)
    np.testing.assert_array_equal(weights, Objects(IDS, (0.0, 0.0)).weights(paper_map()))


def test_pixels_nobody_annotated_teach_no_objects():
    labels = LabelMap("objects", (0, 1), ("background", "object"), ids=True, ignore=255)
    mask = paper_map()
    mask[:, 12] = 255
    task = Objects(labels, (1.0, 1.0))
    target = task.target(mask)
    assert (target[:, 12] == IGNORE).all()
    np.testing.assert_array_equal(target[:, :12], paper_map()[:, :12] > 0)
    decoded = paper_map().astype(np.int32)
    decoded[3:6, 12] = 3  # something found where nobody looked
    assert task.score(decoded, mask) == 1.0


def test_classes_are_encoded_and_decoded_into_the_users_values():
    task = Classes(CELLS, (1.0, 1.0, 1.0))
    mask = np.array([[0, 128, 255], [7, 255, 0]], np.uint8)
    target = task.target(mask)
    assert target.tolist() == [[0, 1, 2], [IGNORE, 2, 0]]
    assert task.decode(target).tolist() == mask.tolist()
    assert task.outputs == 3


def test_a_value_that_was_not_trained_on_is_refused():
    with pytest.raises(DataError, match="129"):
        Classes(CELLS, (1.0, 1.0, 1.0)).target(np.array([[0, 129]], np.uint8))


def test_classes_score_is_the_mean_dice_without_background_and_without_ignored_pixels():
    task = Classes(CELLS, (1.0, 1.0, 1.0))
    mask = np.array([[0, 0, 128, 128, 255, 255, 7, 7]], np.uint8)
    found = np.array([[0, 128, 128, 128, 255, 0, 255, 128]], np.uint8)
    # Class 128: 2 hits, 1 false, 0 missed = 4/5; class 255: 1 hit, 0 false, 1 missed = 2/3.
    assert task.score(found, mask) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert task.score(mask, mask) == 1.0


def test_a_first_class_with_a_name_of_its_own_counts_in_the_score():
    mask = np.array([[0, 0, 1, 1]], np.uint8)
    found = np.array([[0, 1, 1, 1]], np.uint8)
    streets = Classes(LabelMap("classes", (0, 1), ("sky", "road")), (1.0, 1.0))
    assert streets.score(found, mask) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert streets.score_name == "mean Dice of the classes"
    for ground in ("Background", "class 0"):
        cells = Classes(LabelMap("classes", (0, 1), (ground, "road")), (1.0, 1.0))
        assert cells.score(found, mask) == pytest.approx(4 / 5)
        assert cells.score_name == "mean Dice of the classes other than background"


def test_a_class_that_occurs_nowhere_does_not_count():
    task = Classes(CELLS, (1.0, 1.0, 1.0))
    mask = np.array([[0, 128, 128, 0]], np.uint8)
    assert task.score(np.array([[0, 128, 0, 0]], np.uint8), mask) == pytest.approx(2 / 3)
    empty = np.zeros((1, 4), np.uint8)
    assert task.score(empty, empty) is None


def test_weights_of_classes_are_those_of_each_pixels_class():
    labels = LabelMap("classes", (0, 9), ("background", "cell"), ignore=7)
    mask = np.where(paper_map() > 0, np.uint8(9), np.uint8(0))
    mask[8, 12] = 7
    weights = Classes(labels, (0.6, 3.0)).weights(mask)
    assert weights[4, 2] == weights[2, 11] == np.float32(3.0)
    assert weights[4, 5] == pytest.approx(0.6 + 8.352702, abs=1e-5)
    assert weights[4, 0] == pytest.approx(0.6 + 2.780373, abs=1e-5)


def test_regions_of_different_classes_push_each_other_apart():
    mask = np.zeros((9, 13), np.uint8)
    mask[2:7, 1:5], mask[2:7, 7:12] = 128, 255
    weights = Classes(CELLS, (0.0, 0.0, 0.0)).weights(mask)
    np.testing.assert_array_equal(weights, Objects(IDS, (0.0, 0.0)).weights(paper_map()))


@pytest.mark.parametrize(("labels", "kind"), [(IDS, Objects), (CELLS, Classes)])
def test_the_label_map_names_the_task(labels, kind):
    task = make_task(labels, (1.0,) * len(labels.values), 5)
    assert isinstance(task, kind)
    assert (task.labels, task.min_area) == (labels, 5)


def test_closed_gaps_leave_every_object_in_one_piece():
    _, ids = draw_cells(256, density=0.4, touching=0.9, seed=4)
    task = Objects(LabelMap("objects", (0, 1), ("background", "object"), ids=True), (1.0, 1.0), 0)
    decoded = task.decode((task.target(ids) == 1).astype(np.uint8))
    for number in range(1, decoded.max() + 1):
        assert ndimage.label(decoded == number)[1] == 1
