"""The region list: every pixel once, in blocks of the grid, and nothing that depends on who makes them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipway import models
from skipway.parts import Part
from skipway.predict import predict_array
from skipway.predict.logits import decided
from skipway.predict.pixels import ArrayPixels
from skipway.predict.stream import evaluating, predict_tiles
from skipway.regions import Regions, region_list

sides = st.integers(1, 90)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_regions_and_their_passes_cover_every_pixel_once(data):
    ndim = data.draw(st.integers(1, 3))
    size, block, step = (tuple(data.draw(st.integers(1, top)) for _ in range(ndim)) for top in (30, 12, 12))
    regions = Regions(size, block, step)
    made = np.zeros(size, int)
    for number in regions:
        window = regions.window(number)
        made[window] += 1
        assert all(part.start % side == 0 for part, side in zip(window, block, strict=True))
        assert list(regions.touching(window)) == [number]
    assert (made == 1).all()


def net(depth=2, ndim=2):
    torch.manual_seed(0)
    return models.build("unet", in_channels=1, classes=3, width=4, depth=depth, ndim=ndim).eval()


@settings(max_examples=40, deadline=None)
@given(st.tuples(sides, sides), st.integers(1, 40), st.integers(1, 40))
def test_passes_cut_a_region_at_strides_and_no_longer_than_a_step(size, block, step):
    geometry = net().geometry
    regions = Regions(size, (block * 4,) * 2, (step,) * 2)
    made = np.zeros(size, int)
    for number in regions:
        for tile in regions.passes(number, geometry):
            made[tile.write] += 1
            for part, stride in zip(tile.write, geometry.stride, strict=True):
                assert part.start % stride == 0
                assert part.stop - part.start <= max(step, stride)
    assert (made == 1).all()
    starts = {tile.write[0].start for n in regions for tile in regions.passes(n, geometry)}
    assert tuple(sorted(starts))[1:] == regions.cuts(geometry)[0]


def test_touching_names_exactly_the_regions_of_a_window():
    regions = Regions((50, 41), (16, 8), (16, 8))
    rng = np.random.default_rng(0)
    for _ in range(200):
        window = tuple(
            slice(*sorted(rng.choice(side + 1, 2, replace=False).tolist())) for side in regions.size
        )
        wanted = []
        for number in regions:
            both = zip(regions.window(number), window, strict=True)
            if all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in both):
                wanted.append(number)
        assert list(regions.touching(window)) == wanted


def test_a_list_is_plain_numbers_and_comes_back():
    regions = region_list((5000, 300), (700, 300), (512, 512))
    assert Regions.from_json(json.loads(json.dumps(regions.to_json()))) == regions
    assert regions.block == (512, 512)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Regions((5, 0), (1, 1), (1, 1))
    with pytest.raises(IndexError):
        regions.window(len(regions))


@given(st.integers(0, 200), st.integers(1, 20))
def test_shares_of_workers_are_all_regions_once_and_even(count, parts):
    shares = [Part(part, parts).share(count) for part in range(1, parts + 1)]
    assert [number for one in shares for number in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("block", "step"), [((64, 64), (64, 64)), ((32, 96), (32, 24)), ((96, 96), (12, 16))]
)
def test_any_list_in_any_order_gives_the_labels_of_the_whole(block, step):
    model, image = net().double(), np.random.default_rng(3).normal(size=(1, 101, 77))
    whole = predict_array(model, image, tile=4096).labels
    regions = Regions((101, 77), block, step)
    labels = np.full((101, 77), 99, np.uint8)
    order = np.random.default_rng(1).permutation(len(regions))
    tiles = [tile for number in order for tile in regions.passes(int(number), model.geometry)]
    with evaluating(model):
        for tile, logits in predict_tiles(model, ArrayPixels(image), None, tiles):
            labels[tile.write] = decided(logits).numpy()
    assert np.array_equal(labels, whole)
    assert regions.computed(model.geometry) >= 1


def test_the_pixels_computed_are_those_of_the_passes():
    model = net()
    regions = Regions((101, 77), (48, 40), (24, 40))
    pixels = sum(
        np.prod([len(r) for r in tile.region]) for n in regions for tile in regions.passes(n, model.geometry)
    )
    assert regions.computed(model.geometry) == pytest.approx(pixels / (101 * 77))
