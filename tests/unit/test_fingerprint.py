"""Numbers of the training data, and exact percentiles in one band of memory."""

import json
import math

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skipway.data.check import inspect
from skipway.data.fingerprint import Fingerprint, Normalisation, fingerprint, order_statistics
from skipway.data.layouts import find_pairs
from skipway.data.splits import split
from skipway.images import open_image

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


@given(st.data(), st.sampled_from(TYPES))
def test_order_statistics_equal_those_of_the_sorted_values(data, dtype):
    number = np.dtype(dtype)
    elements = (
        hnp.from_dtype(number, allow_nan=False, allow_infinity=False)
        if number.kind == "f"
        else hnp.from_dtype(number)
    )
    array = data.draw(
        hnp.arrays(
            number, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), elements=elements
        )
    )
    shares = (0.0, 0.01, 0.5, 0.998, 1.0)
    bands = [array[:, row : row + 2] for row in range(0, array.shape[1], 2)]
    found = order_statistics(bands, shares, "a")
    for channel, values in zip(array, found, strict=True):
        ordered = np.sort(channel.ravel())
        expected = [float(ordered[max(1, math.ceil(q * ordered.size)) - 1]) for q in shares]
        assert values == expected


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_constants_of_a_file_are_those_of_the_whole_page(tmp_path, dtype):
    rng = np.random.default_rng(5)
    array = (rng.gamma(2, 20, (3, 90, 70))).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "CYX"}, photometric="minisblack")
    with open_image(tmp_path / "a.tif") as file:
        offset, scale = Normalisation().constants(file)
    low = np.percentile(array, 1, axis=(1, 2), method="inverted_cdf")
    high = np.percentile(array, 99.8, axis=(1, 2), method="inverted_cdf")
    assert np.array_equal(offset, low)
    assert np.array_equal(scale, high.astype(float) - low)
    again = Normalisation().constants(array)
    assert np.array_equal(again[0], offset)


def test_constant_and_nearly_constant_images_stay_finite():
    flat = np.full((2, 9, 9), 7, np.uint16)
    offset, scale = Normalisation().constants(flat)
    assert np.array_equal((flat[0] - offset[0]) / scale[0], np.zeros((9, 9)))
    spot = np.zeros((1, 200, 200), np.uint8)
    spot[0, 5, 5] = 200
    offset, scale = Normalisation().constants(spot)
    assert (offset[0], scale[0]) == (0, 200)


def test_an_outlier_does_not_flatten_the_rest():
    image = np.random.default_rng(6).random((1, 64, 64)).astype(np.float32)
    usual = Normalisation().constants(image)
    image[0, 3, 3] = 1e30
    scale = Normalisation().constants(image)[1]
    assert scale[0] == pytest.approx(usual[1][0], rel=0.02)


def test_twice_as_bright_looks_the_same():
    image = np.random.default_rng(7).integers(100, 4000, (1, 64, 64)).astype(np.uint16)
    first, second = (Normalisation().constants(x) for x in (image, image * 2))
    assert np.allclose((image - first[0]) / first[1], (image * 2 - second[0]) / second[1])


def test_pixels_that_are_no_numbers_are_refused(refused):
    image = np.zeros((1, 4, 4), np.float32)
    Normalisation().constants(image)
    image[0, 1, 1] = np.nan
    with refused("NaN", "finite", code="C09"):
        Normalisation().constants(image)


def test_the_input_is_not_changed():
    image = np.random.default_rng(8).integers(0, 99, (1, 9, 9)).astype(np.int16)
    image.setflags(write=False)
    Normalisation().constants(image[:, ::-1])


def test_a_normalisation_comes_back():
    value = Normalisation(low=2, high=99)
    assert Normalisation.from_json(json.loads(json.dumps(value.to_json()))) == value
    for bad in ({}, {"kind": "x", "low": 1, "high": 2}, {"kind": "percentile", "low": 5, "high": 5}):
        with pytest.raises(Exception, match="normalisation") as caught:
            Normalisation.from_json(bad)
        assert caught.value.exit_code == 3


def test_the_fingerprint_counts_only_what_trains(tmp_path, save):
    rng = np.random.default_rng(9)
    for k in range(5):
        mask = np.zeros((40, 30 + k), np.uint16)
        mask[2:12, 2:12], mask[2:12, 12:22], mask[20:30, 5:15] = 1, 2, 3
        mask[32:34, 2 : 4 + k] = 4 if k else 0
        save(
            tmp_path / f"images/a{k}.png",
            rng.integers(50 * (k == 4), 100 + 100 * (k == 4), mask.shape, np.uint8),
        )
        save(tmp_path / f"masks/a{k}.png", mask)
    checked = inspect(find_pairs(tmp_path))
    assert checked.labels.task == "objects"
    found = fingerprint(checked, split(checked).train)
    assert (found.n, found.smallest, found.median, found.largest) == (4, (40, 30), (40, 31), (40, 33))
    assert found.objects == 15
    assert found.touching == pytest.approx(8 / 15)
    assert found.diameter == pytest.approx(2 * math.sqrt(100 / math.pi))
    inside = sum(300 + (2 * (2 + k) if k else 0) for k in range(4))
    total = sum(40 * (30 + k) for k in range(4))
    assert found.class_shares == pytest.approx((1 - inside / total, inside / total))
    assert found.high < 100
    assert fingerprint(checked).high > 100
    assert Fingerprint.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_classes_objects_and_what_nobody_annotated_are_counted(tmp_path, save):
    rng = np.random.default_rng(4)
    for k in range(4):
        mask = np.zeros((20, 30), np.uint8)
        mask[2:6, 2:12] = 1  # 40 pixels
        mask[8:10, 2 : 4 + 3 * k] = 1  # 4, 10, 16, 22 pixels
        mask[15:17, 20:25] = 2 if k == 3 else 0
        mask[:, 28:] = 255
        image = np.stack([rng.integers(0, 50, mask.shape), np.full(mask.shape, 7 + k)], -1).astype(np.uint8)
        save(tmp_path / f"images/a{k}.png", np.concatenate([image, image[..., :1]], -1))
        save(tmp_path / f"masks/a{k}.png", mask)
    checked = inspect(find_pairs(tmp_path), "classes", ignore=255)
    found = fingerprint(checked)
    assert found.annotated == pytest.approx(28 / 30)
    assert found.present == (4, 4, 1)
    sizes = [[4, 40], [10, 40], [16, 40], [10, 22, 40]]
    expected = np.median([np.percentile(areas, (5, 50, 95)) for areas in sizes], axis=0)
    assert found.areas == pytest.approx(tuple(expected))
    assert len(found.intensity) == 3
    assert found.intensity[1] == (8.5, 8.5, 8.5)
    assert found.intensity[0] == found.intensity[2]
    assert fingerprint(checked, ["a3"]).present == (1, 1, 1)
    assert fingerprint(checked, ["a3"]).intensity[1] == (10.0, 10.0, 10.0)
    assert Fingerprint.from_json(json.loads(json.dumps(found.to_json()))) == found
    lines = str(found).splitlines()
    assert len(lines) == 6
    assert "20×30" in lines[1]
    assert lines[4] == "annotated  93.3 % of the pixels"
    assert "in 4, 4, 1 items" in lines[3]


def test_a_fingerprint_of_an_earlier_version_is_read():
    value = {"n": 1, "smallest": [2, 2], "median": [2, 2], "largest": [2, 2], "channels": 1, "dtype": "uint8"}
    value |= {
        "class_shares": [1.0],
        "objects": 0,
        "diameter": 0.0,
        "touching": 0.0,
        "low": 0,
        "high": 1,
        "mean": 0.5,
    }
    found = Fingerprint.from_json(value)
    assert (found.areas, found.spacing, found.annotated, found.intensity) == ((), None, 1.0, ())
    assert "not measured" in str(found)
