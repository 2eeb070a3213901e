import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from skipway.synthetic import Cell, draw_cells, territories


def touching_share(labels):
    """Share of the cells that share an edge with another one."""
    touching = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        contact = (a != b) & (a > 0) & (b > 0)
        touching |= set(a[contact].tolist()) | set(b[contact].tolist())
    return len(touching) / max(1, int(labels.max()))


def test_same_seed_draws_the_same_bytes_and_another_seed_does_not():
    first, again, other = (draw_cells(96, seed=seed) for seed in (5, 5, 6))
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert (first[1] != other[1]).any()


def test_eight_bit_image_is_the_sixteen_bit_scene_with_four_bits_less():
    deep, labels = draw_cells((80, 120), seed=1, bits=16)
    shallow, same = draw_cells((80, 120), seed=1, bits=8)
    assert (deep.dtype, shallow.dtype, labels.dtype) == (np.uint16, np.uint8, np.uint16)
    np.testing.assert_array_equal(shallow, deep // 16)
    np.testing.assert_array_equal(labels, same)
    assert deep.max() <= 4095


@pytest.mark.parametrize("seed", range(4))
def test_labels_count_from_one_without_gaps_and_each_is_one_piece(seed):
    labels = draw_cells(160, density=0.5, touching=1.0, seed=seed)[1]
    areas = np.bincount(labels.ravel())[1:]
    assert (areas >= 12).all()
    for value in range(1, labels.max() + 1):
        assert ndimage.label(labels == value)[1] == 1


def ellipse(centre, radius, stretch=1.0):
    return Cell(centre, radius, stretch, 0.0, np.zeros(4), np.zeros(4), 1.0, 0)


def test_pressed_cells_share_one_border_whichever_was_placed_first():
    cells = [ellipse((20.0, 15.0), 10.0), ellipse((20.0, 31.5), 10.0), ellipse((33.0, 22.0), 8.0)]
    (_, labels, _), (_, mirrored, _) = territories((48, 48), cells), territories((48, 48), cells[::-1])
    np.testing.assert_array_equal(labels, np.where(mirrored, 4 - mirrored.astype(int), 0))
    assert (labels[20, 23], labels[20, 24]) == (1, 2)  # 23.25 is the middle of two equal circles


def test_a_cell_cut_in_two_keeps_its_larger_piece_and_slivers_go():
    bar, across = ellipse((20.0, 20.0), 8.0, stretch=6.0), ellipse((20.0, 28.0), 9.0, stretch=1.0)
    left, labels, rho = territories((40, 50), [bar, across, ellipse((-4.0, 45.0), 5.0)])
    assert left == [bar, across]
    assert ndimage.label(labels == 1)[1] == 1
    assert labels.max() == 2
    assert (np.isinf(rho) == (labels == 0)).all()


def test_touching_decides_how_many_cells_touch():
    apart = [touching_share(draw_cells(200, touching=0.0, seed=seed)[1]) for seed in range(5)]
    pressed = [touching_share(draw_cells(200, touching=0.8, seed=seed)[1]) for seed in range(5)]
    assert max(apart) == 0
    assert min(pressed) > 0.6


def test_the_number_of_cells_and_their_area_are_as_asked():
    assert draw_cells(400, n=40, seed=0)[1].max() == 40
    cover = [(draw_cells(256, density=0.24, seed=seed)[1] > 0).mean() for seed in range(8)]
    assert np.mean(cover) == pytest.approx(0.24, abs=0.03)
    areas = np.concatenate(
        [np.bincount(draw_cells(300, touching=0, diameter=30, seed=s)[1].ravel())[1:] for s in (1, 2)]
    )
    assert 2 * np.sqrt(np.median(areas) / np.pi) == pytest.approx(30, rel=0.12)


def test_an_empty_field_still_has_background_and_debris():
    image, labels = draw_cells(256, n=0, seed=2)
    assert not labels.any()
    assert np.ptp(ndimage.gaussian_filter(image.astype(float), 12)) > 50  # uneven light
    assert image.max() > 3 * np.median(image)  # specks


def test_every_cell_is_brighter_than_its_surroundings():
    found = []
    for seed in range(4):
        image, labels = draw_cells(256, seed=seed)
        for value in range(1, labels.max() + 1):
            inside = labels == value
            ring = ndimage.binary_dilation(inside, iterations=7) & (labels == 0)
            found.append(np.median(image[inside]) > 1.1 * np.median(image[ring]))
    assert np.mean(found) > 0.97


def test_one_global_threshold_does_badly():
    dice = []
    for seed in range(12):
        image, labels = draw_cells(256, seed=seed)
        mask, truth = image > threshold_otsu(image), labels > 0
        dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert 0.72 < np.mean(dice) < 0.86


@pytest.mark.parametrize("size", [1, (1, 90), (7, 300)])
def test_any_size_can_be_drawn(size):
    image, labels = draw_cells(size, seed=3)
    assert image.shape == labels.shape == ((size, size) if isinstance(size, int) else size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 12}, "bits must be 8 or 16, got 12"),
        ({"size": 0}, "at least 1 pixel"),
        ({"density": 0.7}, r"density=0.7 must lie in 0…0.6"),
        ({"touching": -0.1}, "touching=-0.1"),
        ({"n": 70_000}, "not 70000"),
        ({"n": -1}, "not -1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_cells(**{"size": 64, **arguments})
