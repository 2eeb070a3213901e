"""From files to scores: pairing, what the masks are taken for, refusals beside clean twins, and the JSON."""

import json
import subprocess
import sys

import numpy as np
import pytest

from skipway.data.labels import LabelMap
from skipway.errors import DataError, UsageError
from skipway.evaluation import evaluate
from skipway.evaluation.arrays import evaluate_arrays, holds_membranes
from skipway.evaluation.rules import is_thin_network
from skipway.images import open_probabilities, write_labels

PIXEL = {"dice", "iou", "sensitivity", "specificity", "precision", "f1", "f2"}
OBJECT = {"ap50", "ap75", "mean_ap", "pq", "sq", "rq", "seg", "truth", "predicted"}


@pytest.fixture
def folders(tmp_path):
    """Writes {name: (prediction, truth)} into two folders; None leaves a file out."""

    def write(**pairs):
        for name, sides in pairs.items():
            for folder, labels in zip(("pred", "truth"), sides, strict=True):
                if labels is not None:
                    write_labels(tmp_path / folder / f"{name}.png", np.asarray(labels, np.uint8))
        return tmp_path / "pred", tmp_path / "truth"

    return write


def toy_objects():
    """The golden maps of tests/golden: three true objects, five predicted."""
    truth = np.zeros((8, 8), np.uint8)
    truth[1:4, 1:4], truth[1:4, 5:8], truth[5:8, 1:7] = 1, 2, 3
    prediction = np.zeros((8, 8), np.uint8)
    prediction[1:4, 1:5], prediction[1:3, 5:8], prediction[5:8, 1:3], prediction[5:8, 4:7] = 1, 2, 3, 4
    prediction[0, 0] = 5
    return prediction, truth


def disks(seed, count=24, size=96):
    """Numbered disks that do not touch, as instance maps are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    out = np.zeros((size, size), np.uint8)
    cells = rng.permutation(36)[:count]
    for number, cell in enumerate(cells):
        y, x = 8 + 16 * (cell // 6), 8 + 16 * (cell % 6)
        out[(rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(3, 6) ** 2] = number + 1
    return out


def walls(size=64, step=16):
    """Membranes: 0 on a grid of lines, 255 inside."""
    out = np.full((size, size), 255, np.uint8)
    out[step - 1 :: step], out[:, step - 1 :: step] = 0, 0
    return out


def write_probabilities(path, values):
    with open_probabilities(path, values.shape) as out:
        out[:] = values


def write_map(folder, labels):
    """What `predict` writes beside its masks."""
    (folder / "labels.json").write_text(json.dumps(labels.to_json()))


BINARY = LabelMap("classes", (0, 255), ("background", "foreground"))
OBJECTS = LabelMap("objects", (0, 255), ("background", "object"))


def strict(evaluation):
    """The JSON after a round trip that allows no NaN."""
    return json.loads(json.dumps(evaluation.to_json(), allow_nan=False))


# ---- the JSON


def test_object_json_holds_the_golden_values_under_the_agreed_keys(folders):
    prediction, truth = toy_objects()
    found = strict(
        evaluate(*folders(a=(prediction, truth)), labels=LabelMap("objects", (0, 1), ("b", "o"), True))
    )
    assert set(found) == {"n", "pixel_error", "classes", "objects", "convention", "warnings", "images"}
    assert found["n"] == 1
    assert found["pixel_error"] == 0.15625
    assert set(found["classes"]) == {"0", "1"}
    assert set(found["classes"]["1"]) == PIXEL | {"n"}
    assert found["classes"]["1"]["iou"] == 0.75
    assert set(found["objects"]) == OBJECT | {"n"}
    assert found["objects"]["ap50"] == 0.6
    assert found["objects"]["mean_ap"] == pytest.approx(0.188571429, abs=1e-9)
    assert found["objects"]["seg"] == pytest.approx(0.472222222, abs=1e-9)
    assert (found["objects"]["truth"], found["objects"]["predicted"]) == (3, 5)
    (image,) = found["images"]
    assert set(image) == {"name", "pixel_error", "classes", "objects"}
    assert image["name"] == "a"
    assert set(image["classes"]["1"]) == PIXEL
    assert set(image["objects"]) == OBJECT


def test_classes_carry_the_values_of_the_user(folders):
    truth = np.array([[0, 128], [255, 255]])
    found = strict(evaluate(*folders(a=(np.array([[0, 0], [255, 255]]), truth), b=(truth, truth))))
    assert list(found["classes"]) == ["0", "128", "255"]
    assert "objects" not in found
    assert "em" not in found
    assert found["classes"]["128"]["dice"] == 0.5
    assert found["classes"]["128"]["n_by_score"] == {"precision": 1}
    assert found["images"][0]["classes"]["128"] == {
        "dice": 0.0,
        "iou": 0.0,
        "sensitivity": 0.0,
        "specificity": 1.0,
        "precision": None,
        "f1": 0.0,
        "f2": 0.0,
    }


def test_an_image_without_the_class_is_left_out_of_the_mean_and_counted(folders):
    empty, full, half = np.zeros((4, 4)), np.ones((4, 4)), np.ones((4, 4))
    half[2:] = 0
    found = evaluate(*folders(a=(empty, empty), b=(half, full), c=(full, full)))
    means = strict(found)["classes"]["1"]
    assert means["dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert means["n"] == 2
    assert found.n == 3
    assert "n/a" in found.table() or "2" in found.table()
    assert any("0/0" in text for text in found.convention)


def test_table_names_n_and_the_worst_images_first(folders):
    full = np.ones((4, 4))
    quarter = np.zeros((4, 4))
    quarter[0] = 1
    half = np.zeros((4, 4))
    half[:2] = 1
    found = evaluate(*folders(a=(half, full), b=(full, full), c=(quarter, full), d=(full, half)))
    assert [image.name for image in found.worst(3)] == ["c", "a", "d"]
    lines = found.table().splitlines()
    assert lines[0].startswith("4 images, pixel error ")
    assert lines.index("lowest Dice") + 1 == next(k for k, line in enumerate(lines) if line.endswith("  c"))


def test_background_does_not_hide_the_worst_image(folders):
    """Mean Dice with background would order these two the other way round."""
    truth = np.zeros((10, 10))
    truth[0, :4] = 1
    missed, large = np.zeros((10, 10)), np.ones((10, 10))
    missed[5, :2] = 1
    found = evaluate(*folders(a=(large, truth), b=(missed, truth)))
    assert [image.name for image in found.worst()] == ["b", "a"]


# ---- pairing


def test_names_decide_not_the_order_and_not_the_suffix(tmp_path):
    one, other = np.eye(4, dtype=np.uint8), np.zeros((4, 4), np.uint8)
    other[0] = 1
    write_labels(tmp_path / "p" / "b.png", one)
    write_labels(tmp_path / "p" / "a.png", other)
    write_labels(tmp_path / "t" / "b.tif", one)
    write_labels(tmp_path / "t" / "a.tif", other)
    found = evaluate(tmp_path / "p", tmp_path / "t")
    assert [image.name for image in found.images] == ["a", "b"]
    assert found.pixel_error == 0


def test_truths_without_prediction_are_all_listed(folders):
    ones = np.eye(4)
    paths = folders(a=(ones, ones), b=(None, ones), c=(None, ones))
    with pytest.raises(DataError, match=r"2 of 3 truths have no prediction: b, c") as caught:
        evaluate(*paths)
    assert caught.value.exit_code == 3
    assert "Fix:" in str(caught.value)


def test_partly_scores_the_truths_that_have_a_prediction_and_counts_the_rest(folders):
    right, wrong = [[0, 1], [1, 1]], [[0, 1], [0, 1]]
    sides = folders(a=(wrong, right), b=(None, right), c=(None, right))
    with pytest.raises(DataError, match="--partly"):
        evaluate(*sides)
    found = evaluate(*sides, partly=True)
    assert [image.name for image in found.images] == ["a"]
    assert found.to_json()["classes"]["1"]["dice"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    said = "1 of 3 truths have a prediction; the others are not scored"
    assert found.to_json()["warnings"] == [said]
    assert f"warning: {said}" in found.table()


def test_partly_refuses_where_no_truth_has_a_prediction_and_is_silent_where_all_have(folders):
    sides = folders(a=([[0, 1]], [[0, 1]]))
    assert evaluate(*sides, partly=True).warnings == ()
    (sides[0] / "a.png").rename(sides[0] / "x.png")
    with pytest.raises(DataError, match="1 of 1 truths have no prediction: a") as caught:
        evaluate(*sides, partly=True)
    assert "--partly" not in str(caught.value)


def test_predictions_without_truth_are_a_warning(folders):
    ones = np.eye(4)
    found = evaluate(*folders(a=(ones, ones), x=(ones, None)))
    assert found.n == 1
    assert found.warnings == ("1 predictions without a truth are not scored: x",)
    assert "warning: 1 predictions" in found.table()


def test_all_sizes_that_differ_are_listed_with_their_files(folders):
    small, large, clean = np.eye(4), np.eye(5), np.eye(4)
    with pytest.raises(DataError) as caught:
        evaluate(*folders(a=(small, large), b=(clean, clean), c=(np.ones((4, 6)), small)))
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "a.png: 4 × 4 pixels, expected 5 × 5 as in" in text
    assert "c.png: 6 × 4 pixels, expected 4 × 4 as in" in text


def test_stacks_are_scored_page_by_page(tmp_path):
    truth = np.stack([np.eye(6), np.ones((6, 6)), np.tri(6)]).astype(np.uint8)
    prediction = truth.copy()
    prediction[2] = 1 - prediction[2]
    write_labels(tmp_path / "p.tif", prediction)
    write_labels(tmp_path / "t.tif", truth)
    found = evaluate(tmp_path / "p.tif", tmp_path / "t.tif")
    assert [image.name for image in found.images] == ["t#000", "t#001", "t#002"]
    assert [image.pixel_error for image in found.images] == [0, 0, 1]
    write_labels(tmp_path / "short.tif", prediction[:2])
    with pytest.raises(DataError, match=r"short.tif: 2 pages, expected 3"):
        evaluate(tmp_path / "short.tif", tmp_path / "t.tif")


def test_one_prediction_in_a_folder_pairs_with_a_file_of_another_name(tmp_path):
    write_labels(tmp_path / "out" / "train-volume.tif", np.eye(4, dtype=np.uint8))
    write_labels(tmp_path / "train-labels.tif", np.eye(4, dtype=np.uint8))
    assert evaluate(tmp_path / "out", tmp_path / "train-labels.tif").pixel_error == 0


def test_truth_of_a_data_folder_is_its_masks(folders, tmp_path):
    pred, truth = folders(a=(np.eye(4), np.eye(4)), b=(np.tri(4), np.eye(4)))
    write_labels(tmp_path / "data" / "images" / "a.png", np.full((4, 4), 9, np.uint8))
    truth.rename(tmp_path / "data" / "masks")
    assert evaluate(pred, tmp_path / "data").images[0].pixel_error == 0
    pred.rename(tmp_path / "images")
    (tmp_path / "out").mkdir()
    (tmp_path / "images").rename(tmp_path / "out" / "images")
    write_labels(tmp_path / "out" / "masks" / "c.png", np.eye(4, dtype=np.uint8))
    nested = tmp_path / "truth" / "images" / "a.png"
    write_labels(nested, np.eye(4, dtype=np.uint8))
    write_labels(tmp_path / "truth" / "masks" / "c.png", np.eye(4, dtype=np.uint8))
    with pytest.raises(DataError, match="no prediction: c"):  # predictions are listed as they lie
        evaluate(tmp_path / "out", tmp_path / "truth")


def test_a_missing_folder_is_a_usage_error(tmp_path):
    write_labels(tmp_path / "t" / "a.png", np.eye(4, dtype=np.uint8))
    for pred, truth in (("nowhere", "t"), ("t", "nowhere")):
        with pytest.raises(UsageError, match="nowhere"):
            evaluate(tmp_path / pred, tmp_path / truth)


# ---- values


def test_other_codings_are_refused_with_both_named(folders):
    ones = np.eye(4)
    with pytest.raises(DataError, match=r"predictions hold \{0, 1\}, truths \{0, 255\}") as caught:
        evaluate(*folders(a=(ones, 255 * ones)))
    assert "a.png" in str(caught.value)
    assert "Fix:" in str(caught.value)


def test_the_same_coding_passes_even_when_one_side_lacks_a_value(folders):
    empty, full = np.zeros((4, 4)), np.eye(4) * 255
    found = evaluate(*folders(a=(empty, full), b=(empty, empty)))
    assert list(strict(found)["classes"]) == ["0", "255"]
    assert found.warnings == ("value {255} is in the truths only",)


def test_a_class_that_only_predictions_hold_is_scored_and_said(folders):
    truth = np.tri(8)
    prediction = truth.copy()
    prediction[::2, ::2] *= 2  # many pieces: a class, not objects
    found = evaluate(*folders(a=(prediction, truth)))
    assert strict(found)["classes"]["2"]["dice"] == 0.0
    assert found.warnings == ("value {2} is in the predictions only",)
    assert "objects" not in strict(found)


def test_255_beside_small_classes_is_not_annotated(folders):
    truth = np.array([[0, 1, 2, 255], [0, 1, 2, 255]])
    prediction = np.array([[0, 1, 2, 1], [0, 1, 1, 0]])
    found = evaluate(*folders(a=(prediction, truth)))
    assert list(strict(found)["classes"]) == ["0", "1", "2"]
    assert found.pixel_error == pytest.approx(1 / 6)
    assert "pixels whose truth is 255 are not counted" in found.convention


def test_a_label_map_decides_values_and_ignore(folders):
    labels = LabelMap("classes", (0, 7, 9), ("background", "7", "9"), ignore=3)
    truth, prediction = np.array([[0, 7, 3, 3]]), np.array([[0, 7, 7, 0]])
    paths = folders(a=(prediction, truth))
    found = evaluate(*paths, labels=labels)
    assert list(strict(found)["classes"]) == ["0", "7", "9"]
    assert found.pixel_error == 0
    with pytest.raises(DataError, match=r"values \{7\}"):
        evaluate(*paths, labels=LabelMap("classes", (0, 9), ("background", "9"), ignore=3))


# ---- objects


def test_instance_truths_are_seen_and_masks_are_cut_into_components(folders):
    truths = [disks(seed, count) for seed, count in ((0, 24), (1, 30), (2, 22))]
    paths = folders(**{f"i{k}": (255 * (truth > 0), truth) for k, truth in enumerate(truths)})
    found = evaluate(*paths)
    assert strict(found)["objects"]["ap50"] == 1.0
    assert strict(found)["objects"]["truth"] == 76
    assert list(strict(found)["classes"]) == ["0", "1"]
    assert any("predicted ones connected components" in text for text in found.convention)


def test_instance_predictions_keep_touching_objects_apart(folders):
    truth, two = disks(0), disks(0)
    first = np.argwhere(truth == 1)
    middle = int(first[:, 1].mean())
    two[(truth == 1) & (np.arange(96) > middle)] = 60  # one true object predicted as two halves that touch
    found = evaluate(*folders(a=(two, truth), b=(disks(1), disks(1))))
    assert any("predicted ones the values" in text for text in found.convention)
    assert [image.objects.predicted for image in found.images] == [25, 24]
    as_mask = evaluate(*folders(a=(two > 0, truth), b=(disks(1) > 0, disks(1))))
    assert [image.objects.predicted for image in as_mask.images] == [24, 24]


def test_objects_of_class_masks_are_scored_only_when_asked(folders):
    mask = disks(0) > 0
    paths = folders(a=(mask, mask), b=(mask, mask))
    assert "objects" not in strict(evaluate(*paths))
    asked = strict(evaluate(*paths, kinds={"objects"}))
    assert asked["objects"]["ap50"] == 1.0
    assert "classes" not in asked
    assert asked["pixel_error"] == 0
    with pytest.raises(UsageError, match="no such score: dice"):
        evaluate(*paths, kinds={"dice"})


@pytest.mark.parametrize("foreground", [1, 255])
@pytest.mark.parametrize("count", [3, 24])
def test_predicted_ids_against_a_class_mask_are_objects(folders, foreground, count):
    """`train --task objects` on binary masks, and `predict --objects`, give ids."""
    truths = [disks(seed, count) for seed in (0, 1)]
    lost = truths[1].copy()
    lost[lost == 2] = 0
    paths = folders(a=(truths[0], foreground * (truths[0] > 0)), b=(lost, foreground * (truths[1] > 0)))
    for labels in (None, LabelMap("classes", (0, foreground), ("b", "f")), OBJECTS):
        found = evaluate(*paths, labels=labels)
        assert [image.objects.ap50 for image in found.images] == [1.0, (count - 1) / count]
        assert list(strict(found)["classes"]) == ["0", "1"]
        assert "true objects are connected components" in " ".join(found.convention)
        assert "predicted ones the values" in " ".join(found.convention)
    with pytest.raises(UsageError, match="masks hold objects"):
        evaluate(*paths, kinds={"em"})


def test_more_than_254_ids_do_not_pass_for_classes(tmp_path):
    ids = np.zeros((64, 64), np.uint16)
    ids[::3, ::3] = np.arange(1, 22 * 22 + 1).reshape(22, 22)
    write_labels(tmp_path / "pred" / "a.png", ids)
    write_labels(tmp_path / "truth" / "a.png", ((ids > 0) * 255).astype(np.uint8))
    (image,) = evaluate(tmp_path / "pred", tmp_path / "truth").images
    assert (image.objects.ap50, image.objects.truth, image.pixel_error) == (1.0, 484, 0.0)


def test_objects_of_two_binary_codings_are_components_on_both_sides(folders):
    mask = disks(0) > 0
    paths = folders(a=(mask, 255 * mask), b=(mask, 255 * mask))
    found = strict(evaluate(*paths, kinds={"objects"}))
    assert (found["objects"]["ap50"], found["objects"]["truth"], found["pixel_error"]) == (1.0, 48, 0.0)
    with pytest.raises(DataError, match=r"\{0, 255\}"):
        evaluate(*paths)


def test_ids_count_from_0_although_the_background_of_the_truth_is_1(folders):
    truth = disks(0)
    labels = LabelMap("objects", (1, 2), ("background", "object"))
    (image,) = evaluate(*folders(a=(truth, 1 + (truth > 0))), labels=labels).images
    assert (image.objects.ap50, image.objects.predicted, image.pixel_error) == (1.0, 24, 0.0)


def test_an_id_that_equals_the_ignore_value_is_an_object(tmp_path):
    ids = np.zeros((20, 20), np.uint16)
    ids[2:6, 2:6], ids[2:6, 10:14], ids[10:14, 2:6] = 1, 254, 255
    truth = np.where(ids > 0, 1, 0).astype(np.uint8)
    truth[16:] = 255
    write_labels(tmp_path / "pred" / "a.tif", ids)
    write_labels(tmp_path / "truth" / "a.tif", truth)
    labels = LabelMap("objects", (0, 1), ("background", "object"), ignore=255)
    for known in (labels, None):
        (image,) = evaluate(tmp_path / "pred", tmp_path / "truth", labels=known).images
        assert (image.objects.ap50, image.objects.predicted, image.pixel_error) == (1.0, 3, 0.0)


# ---- the label map of the run


def test_the_map_beside_the_predictions_decides_and_its_ignore_value_counts(folders):
    truth, prediction = np.array([[0, 100, 200, 200]]), np.array([[0, 100, 100, 0]])
    paths = folders(a=(prediction, truth))
    assert evaluate(*paths).pixel_error == 0.5
    write_map(paths[0], LabelMap("classes", (0, 100, 150), ("0", "100", "150"), ignore=200))
    found = evaluate(*paths)
    assert found.pixel_error == 0
    assert list(strict(found)["classes"]) == ["0", "100", "150"]
    assert evaluate(paths[0] / "a.png", paths[1] / "a.png").pixel_error == 0
    assert evaluate(*paths, labels=LabelMap("classes", (0, 100, 200), ("0", "1", "2"))).pixel_error == 0.5


def test_a_prediction_of_the_ignore_value_is_refused_where_the_truth_is_known(folders):
    paths = folders(a=(np.array([[0, 255, 255]]), np.array([[0, 1, 255]])))
    labels = LabelMap("classes", (0, 1), ("0", "1"), ignore=255)
    with pytest.raises(DataError, match=r"values \{255\}"):
        evaluate(*paths, labels=labels)
    clean = folders(a=(np.array([[0, 1, 255]]), np.array([[0, 1, 255]])))
    found = evaluate(*clean, labels=labels)
    assert found.pixel_error == 0
    assert list(strict(found)["classes"]) == ["0", "1"]
    assert "objects" not in strict(found)  # 255 lies where nothing is known, so it is no id either


def test_the_map_of_a_run_meets_truths_of_the_other_kind(folders):
    ids = [disks(seed) for seed in (0, 1)]
    binary = [255 * (one > 0) for one in ids]
    cases = (
        (BINARY, binary, ids),  # a class run against instance truths
        (BINARY, ids, binary),  # predict --objects
        (OBJECTS, ids, binary),
        (LabelMap("objects", (0, 1), ("b", "o"), ids=True), ids, ids),
        (LabelMap("objects", (0, 1), ("b", "o"), ids=True), ids, binary),
        (OBJECTS, ids, ids),
    )
    for labels, predictions, truths in cases:
        paths = folders(a=(predictions[0], truths[0]), b=(predictions[1], truths[1]))
        write_map(paths[0], labels)
        found = evaluate(*paths)
        assert found.pixel_error == 0
        assert [(image.objects.ap50, image.objects.truth) for image in found.images] == [(1.0, 24)] * 2


def test_a_damaged_map_is_refused(folders):
    paths = folders(a=(np.eye(4), np.eye(4)))
    for text in ("{", "[]", '{"task": "classes"}'):
        (paths[0] / "labels.json").write_text(text)
        with pytest.raises(DataError, match=r"labels\.json: a damaged label map"):
            evaluate(*paths)


def test_what_is_predicted_off_the_annotation_is_no_object(folders):
    truth, prediction = disks(0), disks(0)
    truth[:16], prediction[:16] = 255, 0
    prediction[2:9, 2:9] = 200
    labels = LabelMap("objects", (0, 1), ("background", "object"), True, ignore=255)
    (image,) = evaluate(*folders(a=(prediction, truth)), labels=labels).images
    assert (image.objects.ap50, image.pixel_error) == (1.0, 0.0)


# ---- membranes


def test_membrane_scores_come_by_themselves_for_thin_networks_only(folders):
    truth = walls()
    gap = truth.copy()
    gap[2:14, 15] = 255
    found = strict(evaluate(*folders(a=(truth, truth), b=(gap, truth))))
    assert set(found["em"]) == {"v_rand", "v_info", "n"}
    assert found["images"][0]["em"] == {"v_rand": 1.0, "v_info": 1.0}
    assert 0.8 < found["images"][1]["em"]["v_rand"] < 1.0
    assert found["em"]["v_rand"] == pytest.approx((1 + found["images"][1]["em"]["v_rand"]) / 2)
    assert "objects" not in found


def line(length, width=1):
    """One wall from the top downwards through an image of 60 × 90 pixels."""
    out = np.full((60, 90), 255)
    out[:length, 40 : 40 + width] = 0
    return out


@pytest.mark.parametrize(
    ("mask", "verdict"),
    [
        pytest.param(walls(), True, id="grid"),
        pytest.param(line(60), True, id="line that separates two regions"),
        pytest.param(line(50), False, id="line with a dead end"),
        pytest.param(line(60, width=40), False, id="broad band"),
        pytest.param(walls(64, 2), False, id="thin and separating, but the majority"),
        pytest.param(255 - walls(), False, id="lines are not 0"),
        pytest.param(np.where(disks(0) > 0, 255, 0), False, id="cells on background"),
        pytest.param(np.full((9, 9), 255), False, id="no wall"),
    ],
)
def test_rule_of_the_thin_network(mask, verdict):
    assert is_thin_network(mask) is verdict


def test_probabilities_are_cut_at_the_best_threshold_of_the_set(folders, tmp_path):
    truth = walls()
    hard = np.full_like(truth, 255)
    hard[0, 0] = 0
    paths = folders(a=(hard, truth), b=(hard, truth))
    inside = np.where(truth > 0, 0.95, 0.75).astype(np.float32)  # walls are seen, but below one half
    for name in "ab":
        write_probabilities(paths[0] / f"{name}_probabilities.tif", np.stack([1 - inside, inside]))
    found = evaluate(*paths)
    assert strict(found)["em"] == {"v_rand": 1.0, "v_info": 1.0, "n": 2}
    assert found.n == 2
    assert found.warnings == ()
    (paths[0] / "b_probabilities.tif").unlink()
    partly = evaluate(*paths)
    assert strict(partly)["em"]["v_rand"] < 0.5
    assert "only 1 of 2 predictions have probabilities" in partly.warnings[0]
    write_probabilities(paths[0] / "b_probabilities.tif", np.stack([inside] * 3))
    with pytest.raises(DataError, match=r"probabilities of 3 × 64 × 64, expected 2 × 64 × 64"):
        evaluate(*paths)


def test_probabilities_of_a_stack_are_read_page_by_page(tmp_path):
    truth = np.stack([walls(), np.roll(walls(), 4, axis=1), walls()])
    hard = np.full_like(truth, 255)
    hard[:, 0, 0] = 0
    inside = np.where(truth > 0, 0.95, 0.75).astype(np.float32)
    write_labels(tmp_path / "p" / "v.tif", hard)
    write_labels(tmp_path / "t" / "v.tif", truth)
    beside = tmp_path / "p" / "v_probabilities.tif"
    write_probabilities(beside, np.stack([1 - inside, inside], axis=1))
    found = evaluate(tmp_path / "p", tmp_path / "t")
    assert [image.name for image in found.images] == ["v#000", "v#001", "v#002"]
    assert strict(found)["em"] == {"v_rand": 1.0, "v_info": 1.0, "n": 3}
    assert found.warnings == ()
    write_probabilities(beside, np.stack([1 - inside, inside], axis=1)[:2])
    with pytest.raises(DataError, match="probabilities of 2 pages, expected one for page 2"):
        evaluate(tmp_path / "p", tmp_path / "t")


def test_arrays_hold_membranes_by_majority_as_files_do(folders):
    masks = [np.full((64, 64), 255, np.uint8), walls(), walls()]
    assert holds_membranes(iter(masks))
    assert not holds_membranes(masks[:2])
    assert not holds_membranes([])
    for chosen in (masks[:2], masks):
        files = evaluate(*folders(**{f"m{k}": (mask, mask) for k, mask in enumerate(chosen)}))
        named = ((f"m{k}", mask, mask) for k, mask in enumerate(chosen))
        arrays = evaluate_arrays(named, BINARY, thin=holds_membranes(chosen))
        assert ("em" in strict(arrays)) == ("em" in strict(files)) == (len(chosen) == 3)
        assert arrays.images == files.images
    three = LabelMap("classes", (0, 7, 255), ("0", "7", "255"))
    assert "em" not in strict(evaluate_arrays([("a", masks[1], masks[1])], three, thin=True))


# ---- sets


def test_scores_of_a_set_are_the_means_of_its_halves(folders, tmp_path):
    rng = np.random.default_rng(3)
    masks = {f"i{k}": tuple(rng.integers(0, 3, (2, 20, 20))) for k in range(6)}
    whole = evaluate(*folders(**masks))
    one_by_one = [
        evaluate(tmp_path / "pred" / f"{name}.png", tmp_path / "truth" / f"{name}.png") for name in masks
    ]
    for value in "012":
        single = [strict(one)["classes"][value]["dice"] for one in one_by_one]
        assert strict(whole)["classes"][value]["dice"] == pytest.approx(np.mean(single), abs=1e-12)


def test_scoring_files_imports_neither_torch_nor_scikit_image():
    code = "import skipway.evaluation, sys; print(sorted({'torch', 'skimage', 'numba'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
