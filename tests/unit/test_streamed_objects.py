"""Objects of blocks equal objects of the whole, to the bit: ids, gaps, small ones, any grid, any order."""

import numpy as np
import pytest

from skipway.regions import Regions
from skipway.tasks.objects import to_objects
from skipway.tasks.streamed_objects import Joining


def joined(mask, block, order, min_area, close):
    regions = Regions(mask.shape, block, block)
    joining, kept = Joining(regions), {}
    for number in order.permutation(len(regions)).tolist():
        kept[number] = joining.add(number, mask[regions.window(number)])
    return joining.joined(min_area, close=close), lambda number, rows: kept[number][rows]


def maps(rng, ndim):
    """Noise of many densities, thin lines that gaps run along, and long snakes across many blocks."""
    size = tuple(rng.integers(1, 60 if ndim == 2 else 17, ndim))
    yield rng.random(size) < rng.choice([0.05, 0.3, 0.5, 0.6, 0.8, 0.97])
    lines = np.ones(size, bool)
    for axis in range(ndim):
        lines[(slice(None),) * axis + (slice(int(rng.integers(1, 4)), None, int(rng.integers(3, 9))),)] = (
            False
        )
    yield lines & (rng.random(size) < 0.97)
    snake = np.ones(size, bool)
    snake[1::2] = False
    snake[1::4, ..., -1:] = True
    snake[3::4, ..., :1] = True
    yield snake


@pytest.mark.parametrize("ndim", [2, 3])
def test_ids_are_those_of_the_whole(ndim):
    rng = np.random.default_rng(ndim)
    compared = closed = dropped = 0
    for _ in range(40):
        for mask in maps(rng, ndim):
            block = tuple(int(n) for n in rng.integers(1, 20, ndim))
            if np.prod([-(-s // b) for s, b in zip(mask.shape, block, strict=True)]) > 400:
                continue
            min_area, close = int(rng.choice([0, 1, 2, 5, 40])), bool(rng.integers(2))
            whole = to_objects(mask, min_area, close=close)
            found, pieces = joined(mask, block, rng, min_area, close)
            assert found.count == whole.max(initial=0)
            read = found.read(tuple(slice(0, side) for side in mask.shape), pieces)
            assert np.array_equal(read, whole)
            for _ in range(3):
                window = tuple(
                    slice(*sorted(rng.choice(n + 1, 2, replace=False).tolist())) for n in mask.shape
                )
                assert np.array_equal(found.read(window, pieces), whole[window])
            compared += 1
            closed += bool((whole[~mask] > 0).any())
            dropped += bool((whole[mask] == 0).any())
    assert compared > 60
    assert dropped > 10
    assert closed > 10


def test_the_type_widens_beyond_16_bits():
    mask = np.zeros((600, 600), bool)
    mask[::2, ::2] = True
    found, pieces = joined(mask, (256, 256), np.random.default_rng(0), 0, False)
    assert found.count == 90000
    assert found.dtype == np.uint32
    assert np.array_equal(found.read((slice(0, 600), slice(0, 600)), pieces), to_objects(mask))


def test_nothing_at_all_is_no_object():
    found, pieces = joined(np.zeros((9, 9), bool), (4, 4), np.random.default_rng(0), 0, True)
    assert (found.count, found.dtype) == (0, np.uint16)
    assert not found.read((slice(0, 9), slice(2, 5)), pieces).any()
