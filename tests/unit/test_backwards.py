"""Stacks whose masks lie in the opposite order, and true stacks: generated, of nuclei, of the hippocampus."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from skipway.data import backwards
from skipway.data.layouts import find_pairs
from skipway.data.suspicions import volume_of
from skipway.doctor import check
from skipway.testing.cases import picture


def balls(seed, slices=20):
    rng = np.random.default_rng(seed)
    at = np.moveaxis(np.mgrid[:slices, :40, :48], 0, -1)
    mask = np.zeros((slices, 40, 48), np.uint8)
    for _ in range(20):
        centre, radius = rng.uniform((0, 0, 0), (slices, 40, 48)), rng.uniform(3, 6)
        mask[((at - centre) ** 2).sum(axis=-1) < radius**2] = 255
    return np.stack([picture(rng, section) for section in mask]), mask


def written(root, image, mask):
    for folder, volume in (("images", image), ("masks", mask)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / folder / "a.tif", volume, photometric="minisblack", metadata={"axes": "ZYX"})
    return find_pairs(root / "images", root / "masks").pairs


@pytest.mark.parametrize("seed", range(6))
def test_reversed_slices_are_told_from_true_ones(tmp_path, seed):
    image, mask = balls(seed)
    true = written(tmp_path / "true", image, mask)
    behind = written(tmp_path / "behind", image, mask[::-1].copy())
    assert not backwards.reversed_better(true)
    assert backwards.reversed_better(behind)
    # the same masks, so the same scores with the columns exchanged
    np.testing.assert_allclose(backwards.fits(true), backwards.fits(behind)[:, ::-1], rtol=1e-5)


def test_only_that_is_said_and_of_that_stack_only(tmp_path):
    image, mask = balls(9)
    written(tmp_path, image, mask[::-1].copy())
    found = [(s.code, s.text) for s in check(tmp_path / "images", tmp_path / "masks").suspicions]
    assert [line for line in found if line[0] in ("B03", "E38")] == [
        ("B03", "in 1 of 1 stacks masks fit their images better in reversed order: a")
    ]


def test_nothing_is_said_where_order_cannot_be_told(tmp_path):
    image, mask = balls(3)
    turned = written(tmp_path / "turned", image, np.ascontiguousarray(mask[:, ::-1, ::-1]))
    alike = written(tmp_path / "alike", np.stack([image[4]] * 20), np.stack([mask[4]] * 20))
    short = written(tmp_path / "short", image[:8], mask[:8][::-1].copy())
    apart = [replace(pair, mask=replace(pair.mask, page=19 - pair.mask.page)) for pair in turned]
    for pairs in (turned, alike, short, apart):
        assert not backwards.reversed_better(pairs)


def test_real_volumes(data_root, monkeypatch):
    """Measured on all 120 of the hippocampus: reversed 98 are named, true ones none."""
    stacks = defaultdict(list)
    for pair in find_pairs(data_root / "msd-hippocampus/Task04_Hippocampus").pairs:
        stacks[volume_of(pair)].append(pair)
    nuclei = find_pairs(data_root / "nuclei3d-mini/img3d.tif", data_root / "nuclei3d-mini/mask3d.tif").pairs
    chosen = [nuclei, *list(stacks.values())[:20]]
    scores = [backwards.fits(slices) for slices in chosen]
    named = {}
    for way, turn in (("true", 1), ("reversed", -1)):
        tables = iter(scores)
        monkeypatch.setattr(backwards, "fits", lambda *_, t=tables, turn=turn: next(t)[:, ::turn])
        named[way] = [backwards.reversed_better(slices) for slices in chosen]
    assert not any(named["true"])
    assert named["reversed"][0]
    assert sum(named["reversed"]) >= 15
