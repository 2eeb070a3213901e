"""Slices of a stack are one thing: never parted where there are several, and no warning of slices that are alike."""

import json

import numpy as np
import pytest
from tifffile import imwrite

import skipway as package
from skipway.data.draws import GAP

DEPTH = 24


def volume(seed, depth=DEPTH, size=(40, 44), change=0.0):
    """A smooth block that hardly changes from slice to slice, and a ball in its middle third."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    ground = ndimage.gaussian_filter(rng.normal(size=(depth, *size)), (8, 3, 3), mode="nearest")
    ground = 1000 + 400 * ground / ground.std() + change * rng.normal(size=ground.shape)
    z, y, x = np.indices(ground.shape)
    middle = rng.integers(14, 26, 2)
    ball = (3 * (z - depth / 2)) ** 2 + (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 11**2
    return np.clip(ground + 1500 * ball, 0, 9000).astype(np.uint16), ball.astype(np.uint8)


def write(root, name, image, mask):
    for folder, pixels in (("images", image), ("masks", mask)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        imwrite(root / folder / f"{name}.tif", pixels, metadata={"axes": "ZYX"}, photometric="minisblack")


@pytest.fixture
def stacks(tmp_path):
    for k in range(6):
        write(tmp_path, f"v{k}", *volume(k))
    return tmp_path


def warned(root, **options):
    found = package.check(root / "images", root / "masks", **options)
    assert found.ok, found.problems
    return found, [(s.code, s.text) for s in found.suspicions]


def test_alike_and_empty_slices_of_sound_stacks_are_no_news(stacks):
    found, said = warned(stacks)
    assert said == []
    sides = [{name.partition("#")[0] for name in side} for side in (found.split.train, found.split.val)]
    assert sides[0] | sides[1] == {f"v{k}" for k in range(6)}
    assert not sides[0] & sides[1]
    assert set(found.split.groups.values()) == sides[0] | sides[1]


def test_names_without_groups_keep_stacks_whole_as_well(stacks):
    found, _ = warned(stacks, groups="none")
    sides = [{name.partition("#")[0] for name in side} for side in (found.split.train, found.split.val)]
    assert not sides[0] & sides[1]


def test_a_stack_under_two_names_is_found_and_trains_or_validates_as_one(stacks):
    write(stacks, "copy", *volume(2))
    found, said = warned(stacks)
    assert ("A25", "the same image 2 times: copy, v2") in said
    assert ("E37", "the same mask for 2 images: copy, v2") in said
    side = {
        name.partition("#")[0]: which for which in ("train", "val") for name in getattr(found.split, which)
    }
    assert side["copy"] == side["v2"]


def test_a_brightened_copy_of_a_stack_is_found(stacks):
    image, mask = volume(3)
    write(stacks, "w", (image * 1.3 + 20).astype(np.uint16), mask)
    _, said = warned(stacks)
    texts = [text for code, text in said if code == "L03"]
    assert texts
    assert "v3#" in texts[0]
    assert "w#" in texts[0]


def test_some_slices_of_another_stack_are_found(stacks):
    image, mask = volume(9)
    image[4:9] = volume(1)[0][10:15]
    write(stacks, "mixed", image, mask)
    assert ("A25", "the same image 2 times: mixed, v1") in warned(stacks)[1]


def test_a_stack_without_any_object_is_warned_of_once(stacks):
    image, mask = volume(7)
    write(stacks, "none", image, 0 * mask)
    assert ("E20", "1 of 7 masks hold background only: none") in warned(stacks)[1]


def test_blank_ends_of_a_stack_are_no_constant_images_but_a_blank_stack_is(stacks):
    image, mask = volume(8)
    image[:3] = 0
    write(stacks, "ends", image, mask)
    assert warned(stacks)[1] == []
    write(stacks, "blank", 0 * image, mask)
    assert ("C11", "constant image or channel: blank") in warned(stacks)[1]


def test_equal_slices_within_one_stack_are_no_copies(stacks):
    image, mask = volume(5)
    image[5], mask[5] = image[4], mask[4]
    write(stacks, "v5", image, mask)
    assert warned(stacks)[1] == []


@pytest.mark.parametrize("fold", [None, "2/4"])
def test_one_stack_is_cut_with_a_gap_that_is_said(tmp_path, fold):
    write(tmp_path, "one", *volume(0, depth=40))
    found, said = warned(tmp_path, fold=fold)
    numbers = [
        [int(name.rpartition("#")[2]) for name in side] for side in (found.split.train, found.split.val)
    ]
    gap = round(GAP * 40)
    assert gap == 2
    held = list(range(32, 40)) if fold is None else list(range(10, 20))
    left = set(range(held[0] - gap, held[-1] + gap + 1)) - set(held)
    assert numbers[1] == held
    assert numbers[0] == [k for k in range(40) if k not in {*held, *left}]
    assert f"{gap} beside" in found.split.rule
    assert [code for code, _ in said] == ["L00"] + ["E22"] * (fold is None)  # no ball in the last slices
    assert said[0][1].startswith("one stack only")


def test_a_short_stack_has_no_page_to_spare(tmp_path):
    write(tmp_path, "one", *volume(0, depth=9))
    found, _ = warned(tmp_path)
    assert len(found.split.train) + len(found.split.val) == 9


def test_real_stacks(data_root):
    found = package.check(data_root / "nuclei3d-mini")
    assert [s.code for s in found.suspicions] == ["L00"]
    assert (len(found.split.train), len(found.split.val)) == (23, 6)
    em = data_root / "isbi2012-em" / "original-layout"
    found = package.check(em / "train-volume.tif", em / "train-labels.tif")
    assert [s.code for s in found.suspicions] == ["L00"]
    assert (len(found.split.train), len(found.split.val)) == (15, 4)


@pytest.mark.slow
def test_the_brain_volumes_pass_without_a_word(data_root):
    found = package.check(data_root / "msd-hippocampus")
    assert found.ok
    assert [str(s) for s in found.suspicions] == []
    assert len(set(found.split.groups.values())) == 120


def test_the_split_of_a_run_leaves_the_gap_aside_as_well(tmp_path):
    """Pages that neither trained nor validated are not taken for new ones."""
    write(tmp_path, "one", *volume(0, depth=40))
    first = package.check(tmp_path / "images", tmp_path / "masks").split
    (tmp_path / "split.json").write_text(json.dumps(first.to_json()))
    again = package.check(tmp_path / "images", tmp_path / "masks", val=tmp_path / "split.json").split
    assert (again.train, again.val) == (first.train, first.val)
    assert len(again.train) + len(again.val) == 38
    assert "new" not in again.rule
