"""Scores of masks on images: exact shifts, every turn, and pairs that were exchanged."""

import numpy as np
import pytest

from skipway.data import alignment
from skipway.data.alignment import TURNS, Fit, fit
from skipway.data.duplicates import bits, candidates, near_copies
from skipway.data.sketch import Sketcher, step_of, thinned, thumbnail
from skipway.data.values import seams
from skipway.synthetic import draw_cells


def drawn(seed, size=96):
    image, labels = draw_cells(size, n=12, seed=seed)
    return image.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_in_its_place_scores_most_there(seed):
    found = fit(*drawn(seed), 1)
    assert found.shift == (0, 0)
    assert found.here == found.shifted > alignment.CLEAR
    assert found.turned < 0.6 * found.here


@pytest.mark.parametrize("way", TURNS)
def test_every_turn_is_told_from_the_others(way):
    image, labels = drawn(1)
    turned = next(
        candidate
        for candidate in (undo(labels) for undo in TURNS.values())
        if np.array_equal(TURNS[way](candidate), labels)
    )
    found = fit(image, turned, 1)
    assert found.turn == way
    assert alignment.turned_wrong({"a": found}) == {way: ["a"]}
    assert alignment.turned_wrong({"a": fit(image, labels, 1)}) == {}


@pytest.mark.parametrize("shift", [(6, 0), (-5, 9), (0, -14)])
def test_a_shift_is_measured_to_the_pixel(shift):
    image, labels = drawn(2, 128)
    moved = np.roll(labels, shift, (0, 1))
    found = fit(image, moved, 3)
    assert found.shift == (-3 * shift[0], -3 * shift[1])
    assert alignment.shifted_away({"a": found}, {"a": 1}) == {"a": found.shift}


def test_where_there_is_nothing_to_see_nothing_is_said():
    image, labels = drawn(0)
    assert fit(image, np.zeros_like(labels), 1) is None
    assert fit(np.ones_like(image), labels, 1) is None
    assert fit(image[:9], labels[:9], 1) is None
    assert fit(image, np.where(labels > 0, 7, 0), 1, ignore=7) is None


def test_exchanged_masks_are_named_and_true_ones_not():
    maps = [alignment.edge_maps(*drawn(k, 128)) for k in range(6)]
    names = list("abcdef")
    scores = alignment.table(maps)
    assert alignment.exchanged(names, scores) == []
    assert not alignment.unrelated(scores)
    swapped = scores[:, [0, 4, 2, 3, 1, 5]]
    assert alignment.exchanged(names, swapped) == [("b", "e"), ("e", "b")]
    rolled = np.roll(scores, 1, axis=1)
    assert alignment.unrelated(rolled)


def test_scores_stand_for_what_they_say():
    image, labels = drawn(3)
    edges, outline = alignment.edge_maps(image, labels)
    every = np.array([
        float((edges * np.roll(outline, (y, x), (0, 1))).sum()) for y in range(96) for x in range(96)
    ])  # fmt: skip
    assert fit(image, labels, 1).here == pytest.approx(every[0] / every.std(), abs=0.01)
    assert isinstance(fit(image, labels, 1), Fit)


def test_a_sketch_is_the_mean_of_squares_whatever_the_bands():
    rng = np.random.default_rng(0)
    page = rng.integers(0, 999, (2, 301, 260)).astype(np.uint16)
    step = step_of((301, 260))
    assert step == 3
    sketches = []
    for rows in (301, 7, 1):
        collected = Sketcher((301, 260))
        for top in range(0, 301, rows):
            collected.add(page[:, top : top + rows])
        sketches.append(collected.grey())
    expected = page.mean(axis=0)[:300, :258].reshape(100, 3, 86, 3).mean(axis=(1, 3))
    for found in sketches:
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    labels = np.arange(301 * 260).reshape(301, 260)
    assert np.array_equal(thinned(labels, 3, (100, 86)), labels[1:300:3, 1:258:3])


def copies(rng, image):
    """The same picture brightened, blurred by a hair, and with new noise."""
    yield 1.7 * image + 40
    yield image + rng.normal(0, 0.01 * np.ptp(image), image.shape)


def test_near_copies_are_found_and_others_not():
    rng = np.random.default_rng(1)
    sketches = {f"p{k}": drawn(k)[0] for k in range(12)}
    for number, copy in enumerate(copies(rng, sketches["p3"])):
        sketches[f"copy{number}"] = copy.astype(np.float32)
    thumbnails = {name: thumbnail(grey) for name, grey in sketches.items()}
    found = near_copies(thumbnails, sketches.__getitem__)
    assert set(found) == {("p3", "copy0"), ("p3", "copy1"), ("copy0", "copy1")}


def test_thumbnails_that_differ_in_three_bits_meet():
    rng = np.random.default_rng(2)
    cells = rng.integers(0, 256, (400, 256), np.uint8)
    texts = [row.tobytes().hex() for row in cells]
    assert candidates(texts) == []
    near = cells[7].copy()
    near[5] ^= 3
    both = [*texts, near.tobytes().hex(), ""]
    keys = bits(both[:-1])
    assert sum(int(a ^ b).bit_count() for a, b in zip(keys[7], keys[400], strict=True)) <= 3
    assert candidates(both) == [(7, 400)]


def test_a_seam_is_told_from_a_class_that_is_thin_for_itself():
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 1
    mask[8:12, 8:12] = 3
    assert seams(mask, (0, 1, 3)) == ()
    ring = mask.copy()
    ring[7:13, 7:13] = 2
    ring[8:12, 8:12] = 3
    assert seams(ring, (0, 1, 2, 3)) == (2,)
    line = np.where(np.arange(20)[:, None] == 3, 2, mask)  # lies on background on both sides
    assert seams(line.astype(np.uint8), (0, 1, 2, 3)) == ()
