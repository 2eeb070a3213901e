"""One codec for all masks: what the user's values mean, and the values back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipway.data.labels import IGNORE, LabelMap, infer_labels
from skipway.data.values import regions, summarise
from skipway.errors import DataError

RNG = np.random.default_rng(3)


def infer(*masks, task=None, ignore=None, palettes=None):
    table = {
        f"m{k}.png": summarise(np.asarray(m), np.asarray(m).dtype.itemsize * 8, (palettes or {}).get(k))
        for k, m in enumerate(masks)
    }
    return infer_labels(table, task, ignore)


def scattered(values, size=(40, 40), dtype=np.uint8):
    return RNG.choice(np.array(values, dtype), size)


def discs(n, start=1, dtype=np.uint16):
    labels = np.zeros((60, 60), dtype)
    for k in range(n):
        y, x = divmod(k, 6)
        labels[y * 10 + 1 : y * 10 + 8, x * 10 + 1 : x * 10 + 8] = start + k
    return labels


@pytest.mark.parametrize(
    "values", [(0, 255), (0, 1), (0, 128, 255), (0, 2, 3, 4, 5), (1, 2, 3), (0, 7, 300), (0, 40000)]
)
def test_class_values_come_back_as_the_users_own(values):
    mask = scattered(values, dtype=np.uint16)
    labels = infer(mask, scattered(values, dtype=np.uint16))
    assert labels.task == "classes"
    assert labels.values == values
    indices = labels.encode(mask)
    assert indices.dtype == np.uint8
    assert set(np.unique(indices)) == set(range(len(values)))
    assert np.array_equal(labels.decode(indices), mask)
    assert labels.decode(indices).dtype == (np.uint8 if max(values) < 256 else np.uint16)


@given(st.sets(st.integers(0, 70_000), min_size=2, max_size=40), st.integers(0, 2**32))
def test_encode_then_decode_is_the_identity(values, seed):
    labels = LabelMap("classes", tuple(sorted(values)), tuple(map(str, values)))
    mask = np.random.default_rng(seed).choice(np.array(sorted(values)), (5, 6))
    assert np.array_equal(labels.decode(labels.encode(mask)), mask)
    assert LabelMap.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_a_value_that_training_did_not_have_is_refused(refused):
    labels = infer(scattered((0, 255)), scattered((0, 255)))
    labels.encode(scattered((0, 255)))
    with refused("{1}", "{0, 255}", code="E01"):
        labels.encode(scattered((0, 1)))


def test_mixed_binary_codings_list_both_groups(refused):
    with refused("m0.png", "m1.png, m2.png", "{0, 1}", "{0, 255}", code="E01"):
        infer(scattered((0, 1)), scattered((0, 255)), scattered((0, 255)))
    assert infer(scattered((0, 2)), scattered((0, 1))).values == (0, 1, 2)  # classes that not every file has


def test_255_is_ignored_only_when_declared(refused):
    mask = scattered((0, 1, 2, 255))
    with refused("value 255", "--ignore 255", code="E18"):
        infer(mask, mask)
    labels = infer(mask, mask, ignore=255)
    assert labels.values == (0, 1, 2)
    assert np.array_equal(labels.encode(mask) == IGNORE, mask == 255)
    assert np.array_equal(labels.decode(labels.encode(mask)), mask)


@pytest.mark.parametrize(
    ("values", "ignore", "dtype"),
    [
        ((0, 1), -1, np.int8),
        ((0, 255), -1, np.int16),
        ((0, 1), 70_000, np.uint32),
        ((0, 300), -40_000, np.int32),
        ((0, 2**40), -1, np.int64),
        ((-5, 3), None, np.int8),
    ],
)
def test_decoded_types_hold_the_ignore_value_too(values, ignore, dtype):
    labels = LabelMap("classes", values, ("a", "b"), ignore=ignore)
    mask = np.array([*values, *(() if ignore is None else (ignore,))])
    decoded = labels.decode(labels.encode(mask))
    assert decoded.tolist() == mask.tolist()
    assert decoded.dtype == dtype


def test_255_that_is_declared_makes_no_mixture_of_codings():
    assert infer(scattered((0, 1)), np.array([[0, 255]], np.uint8), ignore=255).values == (0, 1)


def test_traces_of_jpeg_and_of_smoothing_are_refused(refused, tmp_path):
    from PIL import Image

    clean = np.zeros((64, 64), np.uint8)
    clean[10:40, 20:50] = 255
    assert infer(clean, clean).values == (0, 255)
    Image.fromarray(clean).save(tmp_path / "a.jpg", quality=95)
    jpeg = np.asarray(Image.open(tmp_path / "a.jpg"))
    smooth = np.asarray(Image.fromarray(clean).resize((90, 90), Image.Resampling.BILINEAR))
    blocks = np.kron(RNG.integers(0, 2, (13, 13)), np.ones((5, 5))).astype(np.uint8) * 255
    Image.fromarray(blocks).save(tmp_path / "b.jpg", quality=75)
    noisy = np.asarray(Image.open(tmp_path / "b.jpg"))
    assert np.isin(noisy, (0, 255)).mean() < 0.8  # found by its two heaps, not by its two peaks
    for damaged in (jpeg, smooth, noisy):
        with refused("m1.png", "smeared", "export it again", code="E11"):
            infer(clean, damaged)


def test_one_smoothed_mask_among_others_is_named_whatever_its_values(refused):
    from PIL import Image

    def smoothed(mask):  # outlines so dense that most pixels lie between two values
        half = Image.fromarray(mask).resize((24, 24), Image.Resampling.BILINEAR)
        return np.asarray(half.resize((64, 64), Image.Resampling.BILINEAR))

    cells = np.kron(RNG.integers(0, 2, (16, 16)), np.ones((4, 4))).astype(np.uint8) * 255
    for top in (255, 200):
        clean = np.minimum(cells, top).astype(np.uint8)
        with refused("m3.png", f"smeared between 0 and {top}", code="E11"):
            infer(clean, clean, clean, smoothed(clean), clean)
    grey = [smoothed(np.roll(cells, k, 0)) for k in range(5)]
    with refused("different values", code="E27"):  # all of them hold too many
        infer(
            *(np.where(g > 0, g.astype(np.uint16) + 300 * k, 0) for k, g in enumerate(grey)), task="classes"
        )


def test_one_mask_of_more_classes_or_objects_is_not_smeared():
    few = np.kron(RNG.integers(0, 3, (16, 16)), np.ones((4, 4), int)).astype(np.uint8)
    many = np.kron(RNG.integers(0, 9, (16, 16)), np.ones((4, 4), int)).astype(np.uint8)
    assert infer(few, few, few, many).values == tuple(range(9))
    assert infer(discs(3), discs(2), discs(36), discs(3)).task == "objects"


def test_object_ids_up_to_255_are_no_jpeg_traces():
    assert infer(discs(36, 200, np.uint8), discs(36, 1, np.uint8)).task == "objects"


def test_negative_values_are_refused_or_declared(refused):
    mask = scattered((-1, 0, 1), dtype=np.int32)
    with refused("negative mask value -1", "--ignore -1", code="E16"):
        infer(mask, mask)
    assert infer(mask, mask, ignore=-1).values == (0, 1)


def test_one_value_only_is_refused(refused):
    for value in (0, 255):
        with refused("one value only", str(value), code="E20"):
            infer(np.full((8, 8), value, np.uint8))


def test_palettes_must_agree_on_the_values_in_use(refused):
    one = np.array([[0, 0, 0], [255, 0, 0], [9, 9, 9]], np.uint8)
    other = np.array([[0, 0, 0], [255, 0, 0], [7, 7, 7]], np.uint8)
    mask = scattered((0, 1))
    assert infer(mask, mask, palettes={0: one, 1: other}).palette[1] == (255, 0, 0)  # entry 2 is not in use
    other[1] = (0, 0, 255)
    with refused("value 1", "(255, 0, 0) in m0.png", "(0, 0, 255) in m1.png", code="E05"):
        infer(mask, mask, palettes={0: one, 1: other})


def test_ids_are_told_from_classes():
    assert infer(discs(30), discs(22)).task == "objects"
    assert infer(discs(5), discs(7)).task == "objects"
    assert infer(discs(2), discs(3)).task == "objects"  # 16 bits for three values
    assert (
        infer(discs(2, dtype=np.uint8), discs(2, dtype=np.uint8)).task == "classes"
    )  # disc and cup in each image
    assert infer(scattered(range(12)), scattered(range(11))).task == "classes"
    assert infer(discs(30), discs(22), task="classes").values == tuple(range(31))


def test_too_many_classes_look_like_objects(refused):
    many = np.arange(400, dtype=np.uint16).reshape(20, 20)
    with refused("400 different values", "--task objects", code="E27"):
        infer(many, task="classes")
    assert infer(many, task="objects").task == "objects"


def test_ids_and_regions_become_objects():
    ids = infer(discs(30, 5), discs(22))
    assert ids.ids
    assert np.array_equal(ids.instances(discs(3, 70)), discs(3))
    assert set(np.unique(ids.encode(discs(3, 70)))) == {0, 1}
    binary = infer((discs(4) > 0) * np.uint8(255), task="objects")
    assert not binary.ids
    assert np.array_equal(binary.instances((discs(4) > 0) * np.uint8(255)), discs(4))
    assert binary.decode(np.array([0, 1])).tolist() == [0, 255]
    split = infer(np.array([[1, 1, 2, 0, 1, 1]], np.uint8), task="objects")  # values part what touches
    assert split.instances(np.array([[1, 1, 2, 0, 1, 1]], np.uint8)).tolist() == [[1, 1, 2, 0, 3, 3]]


def test_large_and_sparse_ids_cost_no_memory():
    mask = np.zeros((20, 20), np.int64)
    mask[3:5, 3:5], mask[9:12, 9:12] = 2**31 - 1, 7
    labels = infer(mask, task="objects")
    assert labels.instances(mask).max() == 2


def test_regions_count_diagonals_and_part_values():
    assert regions(np.array([[1, 0], [0, 1]])).max() == 1
    assert regions(np.array([[1, 2], [2, 1]])).max() == 2


def test_the_summary_of_a_mask():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:6, 2:6], mask[2:6, 6:10], mask[12:14, 12:14] = 1, 2, 3
    values = summarise(mask)
    assert values.values == (0, 1, 2, 3)
    assert (values.ids, values.regions, values.touching, values.median_area) == (3, 3, 2, 16.0)
    assert values.share(3) == 4 / 400


def test_regions_of_a_summary_are_the_objects_of_the_label_map():
    mask = np.array([[0, 0, 0, 0], [1, 0, 2, 0], [0, 1, 2, 0], [0, 0, 9, 9]], np.uint8)
    labels = LabelMap("objects", (0, 1), ("background", "object"), ignore=9)
    values = summarise(mask, ignore=9)
    assert (values.ids, values.regions, values.touching) == (2, labels.instances(mask).max(), 2)
    assert values.values == (0, 1, 2, 9)
    assert values.median_area == 1.0
    without = summarise(mask)
    assert (without.ids, without.regions, without.touching) == (3, 4, 3)


def test_the_ignored_value_is_neither_background_nor_object():
    mask = np.array([[-1, -1, 3], [4, 4, 3]], np.int16)
    assert (summarise(mask, ignore=-1).ids, summarise(mask, ignore=-1).regions) == (1, 1)  # 3 is background
    blank = summarise(np.full((3, 3), 255, np.uint8), ignore=255)
    assert (blank.ids, blank.regions, blank.touching, blank.median_area) == (0, 0, 0, 0.0)


def test_an_ignored_value_in_many_pieces_leaves_ids_ids():
    masks = [discs(4, dtype=np.uint16), discs(5, dtype=np.uint16)]
    for mask in masks:
        mask[55::2, ::2] = 999
    table = {f"m{k}": summarise(mask, 16, ignore=999) for k, mask in enumerate(masks)}
    assert infer_labels(table, ignore=999).task == "objects"


def test_a_damaged_label_map_is_refused():
    good = LabelMap("classes", (0, 255), ("background", "foreground")).to_json()
    assert LabelMap.from_json(good).values == (0, 255)
    for bad in ({**good, "values": [0]}, {**good, "task": "x"}, {**good, "more": 1}, {"task": "classes"}):
        with pytest.raises(DataError, match="damaged"):
            LabelMap.from_json(bad)


def test_real_label_images_are_objects_and_class_images_classes(data_root):
    from skipway.data.check import inspect
    from skipway.data.layouts import find_pairs

    def labels(*places):
        return inspect(find_pairs(*(data_root / place for place in places))).labels

    assert labels("ctc-phc-u373/images", "ctc-phc-u373/labels_silver").task == "objects"
    assert labels("bbbc039").task == "objects"
    assert labels("wbc-1").values == (0, 1, 2)
    assert labels("isbi2012-em").values == (0, 255)
    streets = labels("camvid/train", "camvid/trainannot")  # the table beside them says that 11 is unlabelled
    assert (streets.values, streets.ignore) == (tuple(range(11)), 11)
