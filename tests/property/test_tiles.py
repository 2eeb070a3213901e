"""Tiles: every pixel decided once, corners on the pooling grid, cuts out of sight, only needed pixels
read."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skipway.shapes import Geometry
from skipway.tiles import (
    count_tiles,
    default_tile,
    mirror_index,
    plan_tiles,
    redundancy,
    round_tile,
    seams,
    tile_around,
)


def same(ndim=2, stride=16, halo=96):
    one = {"stride": stride, "smallest": stride, "margin": 0, "halo": halo, "receptive_field": 2 * halo + 1}
    return Geometry("same", margins={}, levels=(), **{key: (value,) * ndim for key, value in one.items()})


def valid(ndim=2, stride=16, margin=92, smallest=188, halo=96):
    one = {"stride": stride, "smallest": smallest, "margin": margin, "halo": halo, "receptive_field": 185}
    return Geometry("valid", margins={}, levels=(), **{key: (value,) * ndim for key, value in one.items()})


GEOMETRIES = (same(), same(stride=4, halo=12), same(stride=2, halo=4), valid(), valid(2, 4, 20, 44, 20))
geometries = st.sampled_from(GEOMETRIES)
sides = st.integers(1, 130)
images = st.tuples(sides, sides)
cores = st.integers(4, 150)
often = settings(deadline=None, max_examples=60)


@often
@given(images, cores, geometries)
def test_every_pixel_is_decided_exactly_once(size, tile, geometry):
    times = np.zeros(size, int)
    for one in plan_tiles(size, tile, geometry):
        times[one.write] += 1
    assert times.min() == times.max() == 1


@often
@given(images, cores, geometries)
def test_tiles_are_legal_inputs_on_the_pooling_grid_and_within_one_whole_pass(size, tile, geometry):
    whole = tile_around(size, [slice(0, side) for side in size], geometry)
    for one in plan_tiles(size, tile, geometry):
        assert geometry.legal([len(r) for r in one.region])
        grid = zip(one.region, whole.region, geometry.stride, geometry.margin, strict=True)
        for r, all_of_it, stride, margin in grid:
            assert (r.start + margin) % stride == 0
            assert all_of_it.start <= r.start < r.stop <= all_of_it.stop


@often
@given(images, cores, geometries)
def test_cut_edges_are_out_of_sight_and_the_crop_lies_where_the_pixels_are(size, tile, geometry):
    whole = tile_around(size, [slice(0, side) for side in size], geometry)
    for one in plan_tiles(size, tile, geometry):
        for axis, (r, w, c) in enumerate(zip(one.region, one.write, one.crop, strict=True)):
            margin = geometry.margin[axis]
            assert r.start + margin + c.start == w.start
            assert c.stop - c.start == w.stop - w.start
            assert c.stop <= len(r) - 2 * margin
            sight = 0 if margin else geometry.halo[axis]
            assert r.start == whole.region[axis].start or w.start - r.start >= sight
            assert r.stop == whole.region[axis].stop or r.stop - w.stop >= sight


@often
@given(images, cores, geometries)
def test_one_whole_pass_covers_the_image_with_its_margin_and_no_more_than_a_stride(size, tile, geometry):
    whole = tile_around(size, [slice(0, side) for side in size], geometry)
    for r, side, margin, least, stride in zip(
        whole.region, size, geometry.margin, geometry.smallest, geometry.stride, strict=True
    ):
        assert r.start == -margin
        assert side + 2 * margin <= len(r) < max(least, side + 2 * margin) + stride


@often
@given(images, cores, geometries)
def test_the_counts_agree_with_the_plan(size, tile, geometry):
    plan = list(plan_tiles(size, tile, geometry))
    computed = sum(prod(len(r) for r in one.region) for one in plan)
    assert count_tiles(size, tile, geometry) == len(plan)
    assert redundancy(size, tile, geometry) == pytest.approx(computed / prod(size))
    cuts = tuple(tuple(sorted({one.write[axis].start for one in plan} - {0})) for axis in (0, 1))
    assert seams(size, tile, geometry) == cuts


@often
@given(images, cores, geometries)
def test_no_tile_reads_more_than_its_core_and_two_contexts(size, tile, geometry):
    step = round_tile(tile, geometry)
    most = geometry.next_legal([s + 2 * m for s, m in zip(step, geometry.margin, strict=True)])
    for one in plan_tiles(size, tile, geometry):
        for r, n, halo, margin in zip(one.region, most, geometry.halo, geometry.margin, strict=True):
            assert len(r) <= n + (0 if margin else 2 * halo)


@often
@given(images, cores, geometries)
def test_what_a_tile_takes_is_the_mirrored_image_and_it_reads_no_pixel_in_vain(size, tile, geometry):
    image = np.arange(prod(size)).reshape(1, *size)
    for one in plan_tiles(size, tile, geometry):
        rows, columns = (mirror_index(r, side) for r, side in zip(one.region, size, strict=True))
        window = image[:, *one.read]
        assert np.array_equal(one.take(window), image[:, rows[:, None], columns])
        assert {window[0, 0, 0], window[0, -1, -1]} <= set(one.take(window).ravel())


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40))
def test_mirroring_agrees_with_numpy_wherever_numpy_can(side, before, after):
    ours = mirror_index(range(-before, side + after), side)
    assert ours.tolist() == np.pad(np.arange(side), (before, after), mode="reflect").tolist()


@often
@given(images, st.tuples(sides, sides, sides, sides), geometries, st.integers(0, 50))
def test_a_window_anywhere_is_cropped_to_itself_on_the_grid(size, ends, geometry, extra):
    window = []
    for side, a, b in zip(size, ends[::2], ends[1::2], strict=True):
        low, high = sorted((a % side, b % side))
        window.append(slice(low, high + 1))
    one = tile_around(size, window, geometry, extra=extra)
    assert one.write == tuple(window)
    assert geometry.legal([len(r) for r in one.region])
    grid = zip(one.region, window, one.crop, geometry.stride, geometry.margin, strict=True)
    for r, w, c, stride, margin in grid:
        assert (r.start + margin) % stride == 0
        assert r.start + margin + c.start == w.start
        assert 0 <= c.start < c.stop <= len(r) - 2 * margin


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_axes_of_different_strides_and_any_number_of_them(ndim):
    geometry = replace(
        same(ndim), stride=(2, 4, 8)[:ndim], smallest=(2, 4, 8)[:ndim], halo=(6, 12, 24)[:ndim]
    )
    size = (13, 50, 77)[:ndim]
    times = np.zeros(size, int)
    for one in plan_tiles(size, (4, 9, 20)[:ndim], geometry):
        times[one.write] += 1
    assert times.min() == times.max() == 1


def test_the_classic_step_of_388_is_rounded_to_a_multiple_of_16():
    assert round_tile(388, valid()) == (384, 384)
    assert round_tile(3, valid()) == (16, 16)
    assert [tile.region[1] for tile in plan_tiles((1, 768), 388, valid())] == [
        range(-92, 480),
        range(292, 864),
    ]


def test_tiles_share_the_image_evenly():
    assert [tile.write[1] for tile in plan_tiles((1, 800), 388, valid())] == [
        slice(0, 272), slice(272, 544), slice(544, 800)
    ]  # fmt: skip
    assert [tile.region[1] for tile in plan_tiles((9, 900), 512, same())] == [range(560), range(368, 912)]


def test_an_image_that_fits_one_read_is_one_tile():
    assert count_tiles((704, 704), 512, same()) == 1
    assert count_tiles((705, 704), 512, same()) == 2
    assert redundancy((696, 520), 512, same()) == pytest.approx(704 * 528 / (696 * 520))


def test_default_tile_keeps_the_budget_and_is_no_less_than_half_a_halo():
    assert default_tile(same()) == (512, 512)
    assert default_tile(same(3, 8, 40), pixel_bytes=1024, memory=1 << 31) == (48, 48, 48)
    assert default_tile(same(3, 8, 40), (48, 900, 900), pixel_bytes=1024, memory=1 << 31) == (128, 128, 128)
    assert default_tile(valid(), pixel_bytes=4096) == (512, 512)
    assert default_tile(valid(), pixel_bytes=8192) == (320, 320)
    assert default_tile(same(3), pixel_bytes=1 << 20) == (48, 48, 48)  # half the halo


@pytest.mark.parametrize(
    ("size", "tile"), [((0, 4), 16), ((4,), 16), ((4, 4), 0), ((4, 4), (8,)), ((4, 4), (8, -1))]
)
def test_nonsense_is_refused(size, tile):
    with pytest.raises(ValueError, match="at least 1 pixel"):
        list(plan_tiles(size, tile, same()))
