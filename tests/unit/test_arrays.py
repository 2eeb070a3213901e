"""Arrays go in as they are, come back from the files they are kept in, and are the same on resume."""

import numpy as np
import pytest

from skipway.data.arrays import are_arrays, saved
from skipway.data.layouts import find_pairs
from skipway.errors import DataError, UsageError
from skipway.runs import Run

RNG = np.random.default_rng(0)


def back(folders):
    found = []
    for pair in find_pairs(*folders).pairs:
        with pair.image.open_image() as image, pair.mask.open_mask() as mask:
            found.append((image.read(pair.image.page or 0), mask.read(pair.mask.page or 0)[0]))
    return found


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 5])
def test_arrays_are_read_back_as_they_were(tmp_path, kind, channels):
    shape = (3, 9, 11, channels) if channels else (3, 9, 11)
    images = (RNG.random(shape) * 200).astype(kind)
    masks = RNG.integers(0, 70_000, (3, 9, 11)).astype(np.int32)
    before = images.copy()
    for (image, mask), given, label in zip(back(saved(images, masks, tmp_path)), images, masks, strict=True):
        expected = np.moveaxis(given, -1, 0) if channels else given[None]
        assert np.array_equal(image, expected)
        assert image.dtype == kind
        assert np.array_equal(mask, label)
    assert np.array_equal(images, before)


def test_lists_of_unequal_sizes_channels_first_and_volumes(tmp_path):
    images = [RNG.integers(0, 9, (3, 5 + k, 7)).astype(np.uint8) for k in range(2)]
    masks = [np.ones((5 + k, 7), bool) for k in range(2)]
    assert np.array_equal(back(saved(images, masks, tmp_path / "a"))[1][0], images[1])
    volume = RNG.integers(0, 9, (1, 4, 6, 7, 2)).astype(np.uint8)
    pages = back(saved(volume, np.ones((1, 4, 6, 7), np.uint8), tmp_path / "b"))
    assert np.array_equal(np.stack([page for page, _ in pages]), np.moveaxis(volume[0], -1, 1))


def test_a_run_keeps_its_arrays_and_takes_no_others(tmp_path):
    images, masks = np.zeros((2, 4, 4), np.uint8), np.ones((2, 4, 4), np.uint8)
    folders = saved(images, masks, tmp_path)
    Run(tmp_path).require_free()
    assert saved(images, masks, tmp_path) == folders
    with pytest.raises(UsageError, match="keeps other arrays"):
        saved(images + 1, masks, tmp_path)
    (tmp_path / "data/arrays.json").unlink()
    with pytest.raises(UsageError, match="not empty"):
        Run(tmp_path).require_free()


@pytest.mark.parametrize(
    ("images", "masks", "text"),
    [
        (np.zeros((2, 4, 4)), np.ones((3, 4, 4), int), "2 images and 3 masks"),
        (np.zeros((2, 4, 4)), np.ones((2, 4, 5), int), r"image 0 of shape \(4, 4\), mask of shape \(4, 5\)"),
        (np.zeros((2, 4, 4)), np.full((2, 4, 4), 0.5), "whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, images, masks, text):
    with pytest.raises(DataError, match=text):
        saved(images, masks, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_arrays_and_files_do_not_mix(tmp_path):
    with pytest.raises(UsageError, match="arrays and files mixed"):
        saved(np.zeros((1, 4, 4)), "masks", tmp_path)
    assert [are_arrays(x) for x in ("a", tmp_path, None, np.zeros(3), [np.zeros(3)])] == [False] * 3 + [
        True
    ] * 2
