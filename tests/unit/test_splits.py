"""Who validates: by name, by folder, by list; never the same picture on both sides."""

import json

import numpy as np
import pytest

from skipway.data.check import inspect
from skipway.data.layouts import find_pairs
from skipway.data.splits import Split, split
from skipway.errors import DataError, UsageError


def checked(root, **options):
    return inspect(find_pairs(root), **options)


@pytest.mark.parametrize(("n", "held"), [(2, 1), (3, 1), (5, 1), (10, 2), (11, 2), (20, 4)])
def test_the_last_fifth_by_natural_name_validates(tmp_path, make_pairs, n, held):
    result = split(checked(make_pairs(tmp_path, n)))
    assert result.train == tuple(f"a{k}" for k in range(n - held))
    assert result.val == tuple(f"a{k}" for k in range(n - held, n))
    assert f"last {held} of {n}" in result.rule
    assert [pair.name for pair in result.val_pairs] == list(result.val)


def test_one_image_validates_itself_and_that_is_said(tmp_path, make_pairs):
    result = split(checked(make_pairs(tmp_path, 1)))
    assert result.train == result.val == ("a0",)
    assert "one image only" in result.warnings[0]


def test_a_split_is_stored_and_comes_back(tmp_path, make_pairs):
    result = split(checked(make_pairs(tmp_path, 6)))
    again = Split.from_json(json.loads(json.dumps(result.to_json())))
    assert (again.train, again.val, again.hashes, again.pairs) == (
        result.train,
        result.val,
        result.hashes,
        result.pairs,
    )
    assert len(set(result.hashes.values())) == 6
    for bad in ({}, {**result.to_json(), "val": ["nobody"]}):
        with pytest.raises(DataError, match="damaged"):
            Split.from_json(bad)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_picture_on_both_sides_is_a_leak(tmp_path, make_pairs, save, refused, suffix):
    from PIL import Image

    make_pairs(tmp_path, 5)
    split(checked(tmp_path))
    picture = np.asarray(Image.open(tmp_path / "images/a1.png"))
    (tmp_path / "images/a4.png").unlink()
    save(tmp_path / f"images/a4{suffix}", picture)
    with refused("images/a1.png", f"images/a4{suffix}", "remove one of the two", code="A25"):
        split(checked(tmp_path))


def test_blank_images_are_alike_without_being_a_leak(tmp_path, make_pairs, save):
    make_pairs(tmp_path, 5)
    for k in (1, 4):
        save(tmp_path / f"images/a{k}.png", np.zeros((12, 20), np.uint8))
    assert split(checked(tmp_path)).val == ("a4",)


def test_a_list_of_names_or_file_names_validates(tmp_path, make_pairs, refused):
    data = checked(make_pairs(tmp_path / "d", 6))
    names = tmp_path / "val.txt"
    names.write_text("a1\n\n a3.png \n")
    result = split(data, val=names)
    assert (result.train, result.val) == (("a0", "a2", "a4", "a5"), ("a1", "a3"))
    names.write_text("a1\nb7\n")
    with refused("b7", code="L05"):
        split(data, val=names)
    names.write_text("\n".join(f"a{k}" for k in range(6)))
    with refused("no name is left over"):
        split(data, val=names)
    with pytest.raises(UsageError, match="--val"):
        split(data, val=tmp_path / "nowhere")


def test_a_folder_of_its_own_validates(tmp_path, make_pairs, save, refused):
    data = checked(make_pairs(tmp_path / "d", 4))
    rng = np.random.default_rng(77)
    for k in range(2):
        mask = np.zeros((12, 20), np.uint8)
        mask[2:5, 3:9] = 255
        save(tmp_path / f"v/images/a{k}.png", rng.integers(0, 255, (12, 20), np.uint8))
        save(tmp_path / f"v/masks/a{k}.png", mask)
    result = split(data, val=tmp_path / "v")
    assert result.train == ("a0", "a1", "a2", "a3")
    assert result.val == ("v/a0", "v/a1")
    assert result.val_pairs[0].image.path == tmp_path / "v/images/a0.png"
    assert len(result.hashes) == 6
    save(tmp_path / "v/masks/a1.png", mask // 255 * 7)
    with refused("values [7]", code="E01"):
        split(data, val=tmp_path / "v")
    make_pairs(tmp_path / "v", 4)
    with refused("which trains", code="A25"):
        split(data, val=tmp_path / "v")


def test_a_class_on_one_side_only_is_said(tmp_path, make_pairs, save):
    make_pairs(tmp_path, 5)
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 3:9], mask[7:9, 3:9] = 255, 128
    save(tmp_path / "masks/a4.png", mask)
    (line,) = split(checked(tmp_path)).warnings
    assert "class 128" in line
    assert "only in the validation images" in line


def test_shares_outside_0_and_1_are_refused(tmp_path, make_pairs):
    data = checked(make_pairs(tmp_path, 4))
    for fraction in (0, 1, -0.1):
        with pytest.raises(UsageError, match="between 0 and 1"):
            split(data, fraction=fraction)
