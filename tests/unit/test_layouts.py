"""Pairs are found by name, and everything that cannot be paired is said."""

import random
import unicodedata

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from skipway.data.layouts import Reading, find_images, find_masks, find_pairs, list_files, natural
from skipway.data.names import best_rule
from skipway.data.sources import Source
from skipway.errors import DataError, UsageError
from skipway.images import open_image, open_mask

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.fixture
def fill(tmp_path, save):
    """Writes small images under these names, in shuffled order."""

    def write(*names: str):
        shuffled = list(names)
        random.Random(0).shuffle(shuffled)
        for name in shuffled:
            save(tmp_path / name, IMAGE)
        return tmp_path

    return write


def paired(found):
    return {pair.name: (pair.image.path.name, pair.mask.path.name) for pair in found.pairs}


def test_twin_folders_pair_by_exact_stem_in_natural_order(fill):
    root = fill(*(f"images/{k}.png" for k in (1, 2, 10)), *(f"masks/{k}.tif" for k in (10, 2, 1)))
    found = find_pairs(root / "images", root / "masks")
    assert [pair.name for pair in found.pairs] == ["1", "2", "10"]
    assert paired(found)["10"] == ("10.png", "10.tif")
    assert found.rule == "same name in both folders"


@pytest.mark.parametrize(
    "twins", [("images", "masks"), ("image", "labels"), ("Imgs", "GT"), ("raw", "annotations"), ("x", "y")]
)
def test_twin_folders_are_found_under_any_common_name(fill, twins):
    root = fill(f"{twins[0]}/a.png", f"{twins[1]}/a.png", "readme/b.png")
    assert paired(find_pairs(root)) == {"a": ("a.png", "a.png")}
    beside = find_pairs(root / twins[0])
    assert beside.masks_root.name == twins[1]


def test_two_mask_folders_are_a_question(fill, refused):
    root = fill("images/a.png", "masks/a.png", "labels/a.png")
    with refused("masks", "labels", "name both folders"):
        find_pairs(root)


def test_a_constant_affix_is_a_declared_rule(fill):
    root = fill(
        *(f"images/img_{k:03}.png" for k in range(1, 12)), *(f"masks/mask_{k:03}.png" for k in range(1, 12))
    )
    found = find_pairs(root)
    assert "img_X" in found.rule
    assert "mask_X" in found.rule
    assert paired(found)["img_007"] == ("img_007.png", "mask_007.png")


def test_an_affix_behind_the_name(fill):
    root = fill("images/x_01.png", "images/x_02.png", "masks/x_01_mask.png", "masks/x_02_mask.png")
    assert paired(find_pairs(root))["x_02"] == ("x_02.png", "x_02_mask.png")


def test_train1_is_not_train10(fill, refused):
    root = fill("images/train1.png", "images/train10.png", "masks/train1.png", "masks/train10.png")
    assert paired(find_pairs(root))["train1"] == ("train1.png", "train1.png")
    (root / "masks/train1.png").unlink()
    with refused("train1.png", "1 of 2 images without mask", code="A03"):
        find_pairs(root)


NAMES = st.sets(st.text("ab1", min_size=1, max_size=6), min_size=2, max_size=6)


@given(NAMES, NAMES)
def test_a_rule_maps_names_one_to_one(images, masks):
    rule = best_rule(sorted(images), sorted(masks))
    if rule is not None:
        assert len({rule.image_core(key) for key in images}) == len(images)
        assert len({rule.mask_core(key) for key in masks}) == len(masks)


def test_order_never_pairs(fill, refused):
    root = fill(
        "images/img1.png",
        "images/img2.png",
        "images/img10.png",
        "masks/m01.png",
        "masks/m02.png",
        "masks/m10.png",
    )
    with refused("without mask", "img2.png", "m02.png", code="A03"):
        find_pairs(root)


def test_disjoint_names_are_listed_both_ways(fill, refused):
    root = fill("images/cat.png", "images/dog.png", "masks/sun.png", "masks/moon.png")
    with refused("cat.png, dog.png", "moon.png, sun.png", code="A05"):
        find_pairs(root)


def test_one_pair_of_unlike_names_is_no_rule(fill, refused):
    root = fill("images/cat.png", "masks/sun.png")
    with refused("cat.png", code="A05"):
        find_pairs(root)
    (root / "masks/sun.png").rename(root / "masks/cat_mask.png")
    assert paired(find_pairs(root)) == {"cat": ("cat.png", "cat_mask.png")}


def test_a_missing_mask_is_named_under_an_affix_too(fill, refused):
    root = fill(*(f"images/t{k:03}.png" for k in range(12)), *(f"masks/man_seg{k:03}.png" for k in range(11)))
    with refused("t011.png", "1 of 12", "man_seg"):
        find_pairs(root)


def test_empty_and_missing_folders(fill, tmp_path, refused):
    root = fill("images/a.png")
    (root / "masks").mkdir()
    (root / "masks" / "annotations.json").write_text("{}")
    with refused("no masks found", "1 .json", ".png .tif", code="A02"):
        find_pairs(root / "images", root / "masks")
    (root / "empty").mkdir()
    with refused("no images found", "in it: nothing", ".jpeg", code="A01"):
        find_pairs(root / "empty", root / "images")
    (root / "masks").rename(root / "other")
    with refused("images without masks", "--suffix", code="A09"):
        find_pairs(root / "images")
    with refused("same path", code="A31"):
        find_pairs(root / "images", root / "images")
    with pytest.raises(UsageError, match="no such file"):
        find_pairs(root / "nowhere")


def test_masks_beside_images_by_a_common_mark(fill):
    root = fill("cell1.png", "cell1_mask.png", "cell2.png", "cell2_mask.png")
    found = find_pairs(root)
    assert paired(found) == {
        "cell1": ("cell1.png", "cell1_mask.png"),
        "cell2": ("cell2.png", "cell2_mask.png"),
    }
    assert "X_mask" in found.rule


def test_a_mark_before_the_name_and_one_that_is_named(fill, refused):
    root = fill("d/a.png", "d/mask_a.png", "e/a.png", "e/aTRUTH.png")
    assert paired(find_pairs(root / "d")) == {"a": ("a.png", "mask_a.png")}
    with refused("images without masks", code="A09"):
        find_pairs(root / "e")
    assert paired(find_pairs(root / "e", reading=Reading(suffix="TRUTH"))) == {"a": ("a.png", "aTRUTH.png")}


def test_two_marks_are_a_question_and_unmatched_ones_are_named(fill, refused):
    root = fill(
        "d/a.png",
        "d/a_mask.png",
        "d/b.png",
        "d/b_seg.png",
        "e/a.png",
        "e/a_mask.png",
        "e/b.png",
        "e/c_mask.png",
    )
    with refused("_mask, _seg", "--suffix"):
        find_pairs(root / "d")
    with refused("b.png", "c_mask.png"):
        find_pairs(root / "e")


def test_cellpose_names(fill):
    root = fill("a.tif", "a_cp_masks.png", "b.tif", "b_cp_masks.png")
    assert paired(find_pairs(root))["b"] == ("b.tif", "b_cp_masks.png")


def test_junk_is_ignored_and_suffixes_count_in_any_case(fill):
    root = fill("images/a.PNG", "images/b.TIFF", "masks/a.png", "masks/b.Tif")
    for junk in (
        "images/.DS_Store",
        "images/._a.png",
        "images/Thumbs.db",
        "masks/table.csv",
        "masks/README.txt",
    ):
        (root / junk).write_text("junk")
    (root / "images/.ipynb_checkpoints").mkdir()
    (root / "images/.ipynb_checkpoints/a.png").write_text("junk")
    (root / "images/c.czi").write_text("junk")
    found = find_pairs(root)
    assert sorted(paired(found)) == ["a", "b"]
    assert "c.czi" in found.notes[0]


def test_nested_folders_keep_their_paths(fill):
    root = fill("images/s1/001.png", "images/s2/001.png", "masks/s1/001.png", "masks/s2/001.png")
    assert sorted(paired(find_pairs(root))) == ["s1/001", "s2/001"]
    assert [name for name, _ in find_images(root)] == ["s1/001", "s2/001"]


def test_masks_inside_the_image_folder_are_not_images(fill):
    root = fill("data/a.png", "data/masks/a.png")
    assert sorted(paired(find_pairs(root / "data", root / "data/masks"))) == ["a"]


def test_equal_stems_and_equal_but_for_case(fill, refused):
    root = fill("images/a.png", "images/a.tif", "masks/a.png", "d/A.png", "e/a.png")
    with refused("a.png, a.tif", "one file a name", code="A08"):
        find_pairs(root)
    with refused("differs only in case", code="A10"):
        find_pairs(root / "d", root / "e")


def test_odd_names_pair(fill):
    names = ["a.b.png", "scan v2.1 'q\".png", "50%#x.png", "[1].png", "-x.png", "🔬.png", "line\nbreak.png"]
    root = fill(*(f"{folder}/{name}" for folder in ("images", "masks") for name in names))
    assert len(find_pairs(root).pairs) == len(names)


def test_composed_and_decomposed_letters_are_one_name(fill):
    root = fill(unicodedata.normalize("NFC", "images/é.png"), unicodedata.normalize("NFD", "masks/é.png"))
    assert len(find_pairs(root).pairs) == 1


def test_links_are_followed_and_circles_end(fill):
    root = fill("images/a.png", "masks/a.png", "far/b.png")
    (root / "images/b.png").symlink_to(root / "far/b.png")
    (root / "masks/b.png").symlink_to(root / "far/b.png")
    (root / "images/round").symlink_to(root / "images")
    assert sorted(paired(find_pairs(root))) == ["a", "b"]


@pytest.mark.parametrize("folders", [False, True])
def test_stacks_give_one_item_a_page(tmp_path, folders, refused):
    stack = np.arange(5 * 48, dtype=np.uint8).reshape(5, 6, 8)
    images, masks = tmp_path / "i" / "vol.tif", tmp_path / "m" / ("vol.tif" if folders else "labels.tif")
    for path in (images, masks):
        path.parent.mkdir()
        tifffile.imwrite(path, stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    places = (images.parent, masks.parent) if folders else (images, masks)
    found = find_pairs(*places)
    assert [pair.name for pair in found.pairs] == [f"vol#{k:03}" for k in range(5)]
    assert found.pairs[3].image.page == found.pairs[3].mask.page == 3
    assert "page k with page k" in found.rule
    tifffile.imwrite(masks, stack[:1])
    with refused("5 pages, and 1 in its mask", code="B15"):
        find_pairs(*places)


def test_of_twin_folders_images_are_predicted_masks_compared_and_all_files_listed(fill):
    root = fill("images/x.png", "masks/x.tif", "masks/y.tif")
    assert find_images(root) == (("x", Source(root / "images/x.png")),)
    assert find_masks(root) == (("x", Source(root / "masks/x.tif")), ("y", Source(root / "masks/y.tif")))
    assert [name for name, _ in list_files(root)] == ["images/x", "masks/x", "masks/y"]
    assert find_masks(root / "masks") == list_files(root / "masks") == find_masks(root)
    assert find_masks(root / "masks/x.tif") == (("x", Source(root / "masks/x.tif")),)


def test_images_to_predict(fill, refused):
    root = fill("a/x10.png", "a/x9.tif", "b/x.png", "b/x.jpg")
    assert [name for name, _ in find_images(root / "a")] == ["x9", "x10"]
    assert find_images(root / "a/x9.tif") == (("x9", Source(root / "a/x9.tif")),)
    with refused("x.jpg, x.png", "one name"):
        find_images(root / "b")
    with refused("no images found"):
        (root / "c").mkdir()
        find_images(root / "c")


def test_five_thousand_pairs_in_a_few_seconds(tmp_path):
    import time

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for k in range(5_000):
            (tmp_path / folder / f"{folder[0]}{k}.png").touch()
    start = time.process_time()
    assert len(find_pairs(tmp_path).pairs) == 5_000
    assert time.process_time() - start < 8


def test_natural_order_counts():
    assert sorted(["b1", "a10", "a9", "a", "10", "9"], key=natural) == ["9", "10", "a", "a9", "a10", "b1"]


def test_real_folders_and_stacks_give_equal_pixels(data_root):
    folder = find_pairs(data_root / "isbi2012-em" / "images", data_root / "isbi2012-em" / "labels")
    original = data_root / "isbi2012-em" / "original-layout"
    stack = find_pairs(original / "train-volume.tif", original / "train-labels.tif")
    assert len(folder.pairs) == len(stack.pairs) == 20
    for one, page in zip(folder.pairs, stack.pairs, strict=True):
        for opener, side in ((open_image, "image"), (open_mask, "mask")):
            first, second = getattr(one, side), getattr(page, side)
            with opener(first.path) as a, opener(second.path) as b:
                assert np.array_equal(a.read(), b.read(second.page))


def test_real_layouts_pair_without_a_flag(data_root):
    counts = {"dsb2018": 443, "bbbc039": 20, "crackforest": 118, "wbc-1": 300, "isbi2012-em": 20}
    assert {name: len(find_pairs(data_root / name).pairs) for name in counts} == counts
    movie = data_root / "ctc-phc-u373" / "original-layout" / "PhC-C2DH-U373"
    assert len(find_pairs(movie / "01", movie / "01_ST" / "SEG").pairs) == 8
    with pytest.raises(DataError, match="4 of 8 images without mask"):
        find_pairs(movie / "01", movie / "01_GT" / "SEG")
