import time
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from skipway.weight_maps import (
    REACH,
    balance,
    border_weights,
    class_weights,
    separate_touching,
    two_nearest,
    windows,
)

ROUTES = ["scipy", "numba"]


def brute_force(instances, spacing=()):
    """d1 + d2 from every pixel to every pixel of every object."""
    units = np.array(spacing or (1.0,) * instances.ndim)
    pixels = np.argwhere(np.ones(instances.shape, bool)) * units
    distances = []
    for number in np.unique(instances[instances != 0]):
        members = np.argwhere(instances == number) * units
        distances.append(np.sqrt(((pixels[:, None] - members[None]) ** 2).sum(-1)).min(1))
    if len(distances) < 2:
        return np.full(instances.shape, np.inf)
    return np.sort(distances, axis=0)[:2].sum(0).reshape(instances.shape)


def cells(side, count, seed):
    """Blobs grown from random seeds, a ragged background between them, some touching."""
    rng = np.random.default_rng(seed)
    points = np.zeros((side, side), np.int32)
    places = rng.choice(side * side, count, replace=False)
    points.ravel()[places] = np.arange(1, count + 1)
    away, index = ndimage.distance_transform_edt(points == 0, return_indices=True)
    return np.where(away < rng.uniform(1, 0.7 * side / np.sqrt(count), (side, side)), points[tuple(index)], 0)


@pytest.mark.parametrize("route", ROUTES)
def test_golden_pixels_of_two_rectangles(route):
    instances = np.zeros((9, 13), np.uint8)
    instances[2:7, 1:5], instances[2:7, 7:12] = 1, 2
    w = border_weights(instances, route=route)
    places = ([4, 4, 4, 4, 0], [0, 5, 6, 12, 0])
    np.testing.assert_allclose(w[places], [2.780373, 8.352702, 8.352702, 1.978987, 1.634656], atol=1e-5)
    assert w.dtype == np.float32
    assert not w[instances > 0].any()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("gap", "weight"), [(1, 9.2312), (3, 7.2615), (5, 4.8675), (9, 1.3534)])
def test_centre_of_a_gap(gap, weight, route):
    strip = np.array([7] * 3 + [0] * gap + [9] * 3)
    for instances in (strip, np.tile(strip, (5, 1)), np.tile(strip, (3, 4, 1)), np.tile(strip, (5, 1)).T):
        w = border_weights(instances, route=route)
        middle = w.take(3 + gap // 2, axis=0 if w.shape[0] == len(strip) else -1)
        np.testing.assert_allclose(middle, weight, atol=5e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_distances_equal_brute_force_on_fifty_random_maps(route):
    rng = np.random.default_rng(2015)
    for case in range(50):
        axes = 3 if case % 3 == 0 else 2
        shape = tuple(rng.integers(1, 13 if axes == 3 else 22, axes))
        instances = rng.integers(1, 6, shape) * (
            rng.random(shape) < (rng.uniform(0.02, 0.5) if axes == 2 else 0.004)
        )
        spacing = tuple(rng.uniform(0.3, 3, axes)) if case % 2 else ()
        reach = rng.uniform(2, 25)
        background = instances == 0
        truth = brute_force(instances, spacing)
        truth[truth > reach] = np.inf
        found = two_nearest(instances, reach, spacing=spacing, route=route)
        np.testing.assert_allclose(found[background], truth[background], rtol=0, atol=1e-9)


def test_both_scipy_ways_are_exact_and_the_cheaper_one_is_taken(monkeypatch):
    rng = np.random.default_rng(3)
    scattered = rng.integers(1, 200, (40, 40)) * (rng.random((40, 40)) < 0.3)  # every id all over the image
    compact = cells(40, 12, 1)
    taken = []
    for name in ("two_nearest", "two_nearest_by_digits"):
        way = getattr(windows, name)
        monkeypatch.setattr(windows, name, lambda *a, way=way, name=name: (taken.append(name), way(*a))[1])
    for instances in (compact, scattered):
        found = two_nearest(instances, 12.0, route="scipy")
        truth = brute_force(instances)
        truth[truth > 12] = np.inf
        np.testing.assert_allclose(found[instances == 0], truth[instances == 0], rtol=0, atol=1e-9)
    assert taken == ["two_nearest", "two_nearest_by_digits"]


def test_routes_agree_and_what_is_cut_off_is_below_the_stated_bound():
    instances = cells(160, 25, 5)
    by_scipy, by_numba = (border_weights(instances, route=r) for r in ROUTES)
    np.testing.assert_array_equal(by_scipy, by_numba)
    total = brute_force(instances)
    exact = np.where(instances == 0, 10 * np.exp(-(total**2) / 50), 0)
    np.testing.assert_allclose(by_numba, exact, rtol=0, atol=10 * 2.0**-23 + 1e-6)
    cut = (by_numba == 0) & (instances == 0)
    assert cut.any()
    assert total[cut].min() > REACH * 5 > total[(by_numba > 0)].max()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("objects", [0, 1])
def test_fewer_than_two_objects_weigh_nothing(objects, route):
    instances = np.zeros((30, 20), int)
    instances[3:8, 4:9] = objects
    assert not border_weights(instances, route=route).any()
    assert border_weights(np.zeros((0, 5), int), route=route).shape == (0, 5)


@pytest.mark.parametrize("route", ROUTES)
def test_numbering_and_dtype_do_not_matter(route):
    small = cells(48, 9, 2)
    expected = border_weights(small, route=route)
    names = np.array([0, 2**40, -5, 17, 2**31, 3, 2**24 + 1, -(2**33), 2**24, 1])
    np.testing.assert_array_equal(border_weights(names[small], route=route), expected)
    for dtype in (np.uint8, np.uint16, np.uint32, np.int64):
        np.testing.assert_array_equal(border_weights(small.astype(dtype), route=route), expected)
    everywhere = np.array([[5, 5, 6, 6]])
    assert not border_weights(everywhere, route=route).any()


@pytest.mark.parametrize("route", ROUTES)
def test_spacing_is_the_unit_of_sigma(route):
    instances = cells(40, 8, 4)
    scaled = border_weights(instances, sigma=2.5, spacing=(0.5, 0.5), route=route)
    np.testing.assert_allclose(scaled, border_weights(instances, route=route), rtol=1e-6, atol=1e-5)


def test_ten_thousand_objects_in_bounded_memory():
    rows, columns = np.mgrid[:600, :600]
    instances = np.where((rows % 6 < 4) & (columns % 6 < 4), 1 + rows // 6 * 100 + columns // 6, 0).astype(
        np.int32
    )
    assert instances.max() == 10_000
    limits = {"scipy": 100, "numba": 60}  # bytes a pixel; a stack of distance maps would be 80,000
    for route, limit in limits.items():
        border_weights(instances[:20, :20], route=route)
        tracemalloc.start()
        border_weights(instances, route=route)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak / instances.size < limit


def test_time_grows_with_pixels_not_with_cells():
    few, many = cells(256, 10, 0), cells(256, 1000, 0)
    border_weights(few, route="numba")

    def seconds(instances):
        taken = []
        for _ in range(5):
            start = time.process_time()
            border_weights(instances, route="numba")
            taken.append(time.process_time() - start)
        return min(taken)

    assert seconds(many) < 3 * seconds(few)


def test_refuses_what_it_cannot_mean():
    with pytest.raises(TypeError, match="integer object map"):
        border_weights(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="sigma"):
        border_weights(np.zeros((4, 4), int), sigma=0)
    with pytest.raises(ValueError, match="spacing"):
        border_weights(np.zeros((4, 4), int), spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="3 axes"):
        border_weights(np.arange(16).reshape(2, 2, 2, 2), route="numba")


def test_class_weights_balance_the_classes():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, (50, 40), p=[0.7, 0.2, 0.0, 0.1])
    labels[:3] = 255
    w = class_weights(labels, 4)
    counted = labels[labels != 255]
    totals = np.bincount(counted, w[counted], minlength=4)
    np.testing.assert_allclose(totals[[0, 1, 3]], len(counted) / 3, rtol=1e-6)
    assert w[2] == 0
    np.testing.assert_allclose(w[counted].mean(), 1, rtol=1e-6)
    np.testing.assert_array_equal(balance(np.bincount(counted, minlength=4)), w)
    assert not class_weights(np.full((3, 3), 255), 2).any()
    with pytest.raises(ValueError, match=r"0\.\.1"):
        class_weights(labels, 2)


def test_touching_objects_are_parted_by_one_pixel():
    instances = np.array([[1, 1, 1, 1, 0, 4], [1, 1, 1, 1, 3, 3], [0, 0, 0, 0, 3, 3], [5, 5, 5, 0, 3, 3]])
    parted = separate_touching(instances)
    expected = [[1, 1, 1, 0, 0, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 1, 1]]
    np.testing.assert_array_equal(parted, expected)  # the larger one gives way, corners count as touching
    alone = np.array([[1, 1, 0, 2, 2]])
    np.testing.assert_array_equal(separate_touching(alone), alone > 0)


def test_no_component_holds_two_objects_and_numbering_does_not_matter():
    rng = np.random.default_rng(8)
    points = np.zeros((90, 90), int)
    points.ravel()[rng.choice(8100, 30, replace=False)] = np.arange(1, 31)
    index = ndimage.distance_transform_edt(points == 0, return_distances=False, return_indices=True)
    packed = points[tuple(index)]  # no background at all
    parted = separate_touching(packed)
    components, count = ndimage.label(parted, np.ones((3, 3)))
    for component in range(1, count + 1):
        assert len(np.unique(packed[components == component])) == 1
    assert set(np.unique(packed[parted])) == set(range(1, 31))
    sizes = np.bincount(packed.ravel())[1:]
    if len(set(sizes)) == len(sizes):
        shuffled = np.concatenate([[0], 1 + rng.permutation(30)])
        np.testing.assert_array_equal(separate_touching(shuffled[packed]), parted)
