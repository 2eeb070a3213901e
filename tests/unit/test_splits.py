"""Who validates: by name, by folder, by list; never the same picture on both sides."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from skipway.data.check import inspect
from skipway.data.layouts import Reading, find_pairs
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
    for name in ("train", "val", "hashes", "mask_hashes", "pairs", "rule"):
        assert getattr(again, name) == getattr(result, name)
    assert len(set(result.hashes.values())) == 6
    assert len(set(result.mask_hashes.values())) == 6
    without = {key: part for key, part in result.to_json().items() if key != "mask_hashes"}
    for bad in ({}, {**result.to_json(), "val": ["nobody"]}, without):
        with pytest.raises(DataError, match="damaged"):
            Split.from_json(bad)


def test_a_changed_mask_changes_its_own_hash_only(tmp_path, make_pairs, save):
    before = split(checked(make_pairs(tmp_path, 5)))
    save(tmp_path / "masks/a1.png", np.eye(12, 20, dtype=np.uint8) * 255)
    after = split(checked(tmp_path))
    assert after.hashes == before.hashes
    changed = set(after.mask_hashes.items()) ^ set(before.mask_hashes.items())
    assert {name for name, _ in changed} == {"a1"}


def test_one_mask_on_both_sides_is_no_leak(tmp_path, make_pairs):
    make_pairs(tmp_path, 5)
    (tmp_path / "masks/a4.png").write_bytes((tmp_path / "masks/a1.png").read_bytes())
    result = split(checked(tmp_path))
    assert result.mask_hashes["a4"] == result.mask_hashes["a1"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_picture_on_both_sides_is_a_leak(tmp_path, make_pairs, save, refused, suffix):
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


def test_lists_of_names_are_read_as_people_write_them(tmp_path, make_pairs, save, refused):
    root = make_pairs(tmp_path / "d", 2)
    rng = np.random.default_rng(5)
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 3:9] = 255
    for name in ("site1/x", "site2/x", unicodedata.normalize("NFD", "é")):
        save(root / f"images/{name}.tif", rng.integers(0, 255, (12, 20), np.uint8))
        save(root / f"masks/{name}.png", mask)
    data = checked(root)
    names = tmp_path / "val.txt"
    for text, held in (
        ("\ufeffa0\r\na1\r\n", ("a0", "a1")),  # Notepad's mark and line ends
        ("site1/x.tif", ("site1/x",)),
        ("site2/x\na0.png", ("a0", "site2/x")),
        (unicodedata.normalize("NFC", "é"), ("é",)),
        (unicodedata.normalize("NFD", "é.tif"), ("é",)),
    ):
        names.write_bytes(text.encode())
        assert split(data, val=names).val == held
    names.write_text("site1/x.png\nsite3/x")
    with refused("site1/x.png, site3/x", code="L05"):
        split(data, val=names)


def test_a_file_name_in_the_list_means_every_page_of_the_stack(tmp_path, save):
    rng = np.random.default_rng(0)
    for name in ("s/u", "s/v"):
        stack = rng.integers(0, 255, (3, 12, 20), np.uint8)
        save(tmp_path / f"d/images/{name}.tif", stack, metadata={"axes": "ZYX"})
        save(tmp_path / f"d/masks/{name}.tif", (stack > 99).astype(np.uint8), metadata={"axes": "ZYX"})
    names = tmp_path / "val.txt"
    for text in ("s/v.tif", "v.tif"):
        names.write_text(text)
        assert split(checked(tmp_path / "d"), val=names).val == ("s/v#000", "s/v#001", "s/v#002")
    names.write_text("s/u#001")
    assert split(checked(tmp_path / "d"), val=names).val == ("s/u#001",)


def validation(save, root, masks):
    """Pictures of their own with these masks, images/ beside masks/."""
    rng = np.random.default_rng(77)
    for k, mask in enumerate(masks):
        save(root / f"images/a{k}.png", rng.integers(0, 255, mask.shape, np.uint8))
        save(root / f"masks/a{k}.png", mask)
    return root


def test_the_mark_of_masks_holds_for_the_validation_folder(tmp_path, make_pairs, save):
    data = checked(make_pairs(tmp_path / "d", 4))
    made = validation(save, tmp_path / "v", [np.eye(12, 20, dtype=np.uint8) * 255])
    (made / "images/a0.png").rename(made / "a0.png")
    (made / "masks/a0.png").rename(made / "a0_TRUTH.png")
    for folder in ("images", "masks"):
        (made / folder).rmdir()
    with pytest.raises(DataError, match="--suffix"):
        split(data, val=made)
    assert split(data, val=made, reading=Reading(suffix="_TRUTH")).val == ("v/a0",)


def test_masks_of_a_validation_folder_must_agree_with_each_other(tmp_path, make_pairs, save, refused):
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 3:9], mask[7:9, 3:9] = 255, 255
    made = validation(save, tmp_path / "v", [mask, mask // 255, mask])
    training = make_pairs(tmp_path / "d", 4)
    with refused("{0, 1} in 1 mask ", "a1.png", code="E01"):
        split(checked(training, task="objects"), val=made)
    save(made / "masks/a1.png", mask)
    assert len(split(checked(training, task="objects"), val=made).val) == 3
    square = np.zeros((64, 64), np.uint8)
    square[10:40, 20:50] = 255
    smooth = np.asarray(Image.fromarray(square).resize((90, 90), Image.Resampling.BILINEAR))
    validation(save, tmp_path / "w", [smooth])
    with refused("smeared", "a0.png", code="E11"):
        split(checked(training, task="objects"), val=tmp_path / "w")


def test_classes_1_and_255_may_lie_in_different_validation_masks(tmp_path, make_pairs, save):
    training = make_pairs(tmp_path / "d", 4)
    for k in range(4):
        mask = np.zeros((12, 20), np.uint8)
        mask[k : k + 3, 3:9], mask[7:9, 3:9] = 1, 255
        mask[0, 0] = mask[2, 19] = 100
        save(training / f"masks/a{k}.png", mask)
    made = validation(save, tmp_path / "v", [(mask == 1).astype(np.uint8), (mask == 255) * np.uint8(255)])
    assert len(split(checked(training), val=made).val) == 2


def test_a_class_that_the_validation_folder_lacks_is_said(tmp_path, make_pairs, save):
    training = make_pairs(tmp_path / "d", 4)
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 3:9], mask[7:9, 3:9] = 255, 128
    save(training / "masks/a1.png", mask)
    made = validation(save, tmp_path / "v", [mask // 255 * 255, np.fliplr(mask) // 255 * 255])
    lines = split(checked(training), val=made).warnings
    assert [line for line in lines if "class 128" in line] == [
        "class 128 (value 128) is not in the validation images: its score stays unknown"
    ]


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
    assert len(result.hashes) == len(result.mask_hashes) == 6
    assert result.mask_hashes["v/a1"] == checked(tmp_path / "v").records[1].mask_sha256
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
