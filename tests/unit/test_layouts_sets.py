"""Data sets as people have them: each layout is read without a flag, beside a wrong twin that is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from skipway.data.check import inspect
from skipway.data.layouts import LAYOUTS, Reading, find_images, find_masks, find_pairs
from skipway.data.sources import Source
from skipway.errors import DataError, UsageError
from skipway.images import IMAGE_SUFFIXES

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (6, 8), np.uint8)
COLOUR = RNG.integers(0, 255, (6, 8, 3), np.uint8)


def box(top, left, bottom, right, value=255, size=(6, 8)):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = value
    return mask


@pytest.fixture
def put(tmp_path, save):
    """Writes files below the folder: arrays as pictures, text as text, anything else as JSON."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, np.ndarray):
                save(path, content)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write


def masks_of(pairs):
    found = {}
    for pair in pairs.pairs:
        with pair.mask.open_mask() as mask:
            found[pair.name] = mask.read(pair.mask.page or 0)[0]
    return found


def cases(put, **more):
    return put(
        **{
            "c1/images/c1.png": PICTURE,
            "c1/masks/p1.png": box(0, 0, 2, 2),
            "c1/masks/p2.png": box(3, 3, 5, 6),
            "c1/masks/p10.png": box(0, 6, 2, 8),
            "c2/images/c2.png": PICTURE,
            "c2/masks/q.png": box(1, 1, 3, 3),
            **more,
        }
    )


def test_one_mask_an_object_becomes_numbers_in_natural_order(put):
    found = find_pairs(cases(put))
    assert found.rule == "one folder per case, one mask file per object: 2 cases, 4 objects"
    assert found.stated.task == "objects"
    mask = masks_of(found)["c1"]
    assert (mask[0, 0], mask[3, 3], mask[0, 6], mask[5, 0]) == (1, 2, 3, 0)
    assert [name for name, _ in find_images(found.images_root)] == ["c1", "c2"]
    assert [source.kind for _, source in find_masks(found.images_root)] == ["objects"] * 2
    assert str(inspect(found).labels).startswith("objects")


def test_the_image_of_a_case_may_lie_beside_its_masks(put, refused):
    files = {
        "c1/image.png": PICTURE,
        "c1/masks/cell_1.png": box(0, 0, 2, 2),
        "c1/masks/cell_2.png": box(3, 3, 5, 6),
        "c2/image.png": PICTURE,
        "c2/masks/cell_1.png": box(1, 1, 3, 3),
    }
    root = put(**files)
    found = find_pairs(root)
    assert found.rule == "one folder per case, one mask file per object: 2 cases, 3 objects"
    mask = masks_of(found)["c1"]
    assert (mask[0, 0], mask[3, 3], mask[5, 0]) == (1, 2, 0)
    assert [name for name, _ in find_images(root)] == ["c1", "c2"]
    assert inspect(found).warnings == inspect(find_pairs(root, reading=Reading(layout="objects"))).warnings
    put(**{"c2/other.png": PICTURE})
    with refused("2 images and 1 masks", code="A03"):
        find_pairs(root, reading=Reading(layout="objects"))


def test_overlapping_objects_are_counted_and_the_later_wins(put):
    found = find_pairs(cases(put, **{"c2/masks/r.png": box(2, 2, 4, 4)}))
    assert masks_of(found)["c2"][2, 2] == 2
    assert any("1 pixels lie in two objects" in warning for warning in inspect(found).warnings)
    clean = find_pairs(cases(put, **{"c2/masks/r.png": box(3, 3, 4, 4)}))
    assert not any("two objects" in warning for warning in inspect(clean).warnings)


def test_a_case_without_masks_or_with_odd_ones_is_refused(put, refused, tmp_path):
    root = cases(put)
    (root / "c2/masks/q.png").unlink()
    with refused("1 images and 0 masks", "c2", code="A03"):
        find_pairs(root)
    put(**{"c2/masks/q.png": box(0, 0, 1, 1, size=(5, 8))})
    put(**{"c2/masks/r.png": box(0, 0, 1, 1)})
    with refused("6 × 8", "5 × 8", code="B04"):
        masks_of(find_pairs(root))
    put(**{"c2/masks/q.png": PICTURE})
    with refused("0 and one other value", code="E11"):
        masks_of(find_pairs(root))


def test_objects_read_as_classes_are_one_foreground(put):
    found = find_pairs(cases(put), reading=Reading(task="classes"))
    assert set(np.unique(masks_of(found)["c1"])) == {0, 1}
    labels = inspect(found, "classes").labels
    assert (labels.values, labels.names) == ((0, 1), ("background", "object"))


ORGANS = {"folders": ("a", "a_b"), "ends": ("a", "a_b"), "together": ("a", "x_b")}


def organs(put, how="folders", **more):
    path = {"folders": "masks/{}/{}.png", "ends": "masks/{1}_{0}.png", "together": "{1}_{0}.png"}[how]
    images = "{}.png" if how == "together" else "images/{}.png"
    return put(
        **{images.format(name): PICTURE for name in ORGANS[how]},
        **{path.format("lung", name): box(0, 0, 4, 4) for name in ORGANS[how]},
        **{path.format("big-heart", name): box(2, 2, 6, 6) for name in ORGANS[how]},
        **more,
    )


@pytest.mark.parametrize("how", ["folders", "ends", "together"])
def test_a_mask_for_each_class_keeps_overlap_as_bits(put, how):
    found = find_pairs(organs(put, how))
    assert tuple(pair.name for pair in found.pairs) == ORGANS[how]
    assert found.stated.task == "multilabel"
    assert dict(found.stated.names) == {1: "big-heart", 2: "lung"}
    mask = masks_of(found)[ORGANS[how][1]]
    assert (mask[0, 0], mask[3, 3], mask[5, 5], mask[0, 7]) == (2, 3, 1, 0)
    assert mask.dtype == np.uint8
    assert "big-heart, lung" in found.rule
    assert "--task classes" in found.rule


def test_class_masks_as_one_class_a_pixel_refuse_overlap(put, refused):
    root = organs(put)
    reading = Reading(task="classes")
    with refused(
        "overlaps another on 4 pixels, the first 2 down and 2 right", "--task multilabel", code="E30"
    ):
        masks_of(find_pairs(root, reading=reading))
    for name in ("a", "a_b"):
        put(**{f"masks/lung/{name}.png": box(0, 0, 2, 2)})
    found = find_pairs(root, reading=reading)
    assert masks_of(found)["a"][[0, 5, 5], [0, 0, 5]].tolist() == [2, 0, 1]
    assert inspect(found, "classes").labels.names == ("background", "big-heart", "lung")


def test_a_class_without_file_is_absent_and_an_image_without_any_is_refused(put, refused):
    root = organs(put)
    (root / "masks/big-heart/a.png").unlink()
    found = find_pairs(root)
    assert set(np.unique(masks_of(found)["a"])) == {0, 2}
    assert found.notes == ("class big-heart: no file for 1 of 2 images, read as absent there",)
    assert Source.from_json(json.loads(json.dumps(found.pairs[0].mask.to_json()))) == found.pairs[0].mask
    (root / "masks/lung/a.png").unlink()
    with refused("1 images without mask: a.png", code="A03"):
        find_pairs(root)
    (root / "images/a.png").unlink()
    put(**{"masks/lung/z.png": box(0, 0, 1, 1)})
    with refused("1 masks without image: z.png", code="A03"):
        find_pairs(root)


def test_many_classes_get_wider_numbers(put):
    root = put(**{"images/a.png": PICTURE}, **{f"masks/k{k}/a.png": box(0, 0, 1, 1) for k in range(17)})
    mask = masks_of(find_pairs(root))["a"]
    assert mask.dtype == np.uint32
    assert mask[0, 0] == 2**17 - 1


def test_sites_are_no_classes(put):
    both = {f"{side}/s{k}/{k}.png": PICTURE for side in ("images", "masks") for k in (1, 2)}
    assert find_pairs(put(**both)).rule == "same name in both folders"


def nnunet(put, channels=2, **facts):
    files = {f"imagesTr/x_{c}_{k:04}.tif": PICTURE + k for c in (1, 2) for k in range(channels)}
    return put(
        **files,
        **{f"labelsTr/x_{c}.tif": box(0, 0, 3, 3, 2) for c in (1, 2)},
        **{
            "dataset.json": {
                "channel_names": {str(k): f"T{k}" for k in range(channels)},
                "labels": {"background": 0, "tumour": 2, "ignore": 3},
                "file_ending": ".tif",
                **facts,
            }
        },
    )


def test_nnunet_channels_are_grouped_and_labels_named(put):
    root = nnunet(put, 2)
    put(**{f"imagesTs/y_1_000{k}.tif": PICTURE for k in (0, 1)})
    found = find_pairs(root)
    assert [pair.name for pair in found.pairs] == ["x_1", "x_2"]
    assert found.rule == "nnU-Net raw: imagesTr/CASE_0000 with labelsTr/CASE, 2 channels (T0, T1)"
    assert (dict(found.stated.names), found.stated.ignore) == ({0: "background", 2: "tumour", 3: "ignore"}, 3)
    with found.pairs[0].image.open_image() as image:
        assert np.array_equal(image.read(), np.stack([PICTURE, PICTURE + 1]))
    assert inspect(found).labels.names == ("background", "tumour")
    ((name, source),) = find_images(root / "imagesTs")
    assert (name, [part.name for part in source.parts]) == ("y_1", ["y_1_0000.tif", "y_1_0001.tif"])


def test_a_missing_channel_is_refused(put, refused):
    root = nnunet(put, 2)
    (root / "imagesTr/x_2_0001.tif").unlink()
    with refused("case x_2 has channels 0000", "0000, 0001", code="D09"):
        find_pairs(root)
    with refused("case x_2", code="D09"):
        find_images(root / "imagesTr")
    (root / "imagesTr/x_2_0000.tif").unlink()
    with refused("x_2.tif", "without image", code="A03"):
        find_pairs(root)


def test_decathlon_reads_its_list(put, refused):
    listed = [{"image": f"./imagesTr/h_{k}.tif", "label": f"./labelsTr/h_{k}.tif"} for k in (1, 2)]
    root = put(
        **{f"{side}/h_{k}.tif": box(0, 0, k, 2, 1) for side in ("imagesTr", "labelsTr") for k in (1, 2, 3)},
        **{"dataset.json": {"labels": {"0": "background", "1": "Anterior"}, "training": listed}},
    )
    found = find_pairs(root.parent / root.name)
    assert [pair.name for pair in found.pairs] == ["h_1", "h_2"]
    assert found.rule.startswith("Medical Segmentation Decathlon: 2 cases")
    assert found.stated.names[1] == "Anterior"
    assert "h_3.tif" in found.notes[0]
    (root / "labelsTr/h_2.tif").unlink()
    with refused("1 files that are not there: h_2.tif", code="L05"):
        find_pairs(root)


def movie(put):
    return put(
        **{f"0{s}/t00{k}.tif": PICTURE for s in (1, 2) for k in range(3)},
        **{f"01_GT/SEG/man_seg00{k}.tif": box(0, 0, 2, 2, k + 5) for k in (0, 2)},
        **{f"0{s}_ST/SEG/man_seg00{k}.tif": box(0, 0, 2, 2, k + 1) for s in (1, 2) for k in range(3)},
    )


def test_movies_pair_by_number_and_leave_the_rest_aside(put, refused):
    root = movie(put)
    found = find_pairs(root)
    assert [pair.name for pair in found.pairs] == ["01/t000", "01/t002", "02/t000", "02/t001", "02/t002"]
    assert "01_GT/SEG, 02_ST/SEG, gold truth goes before silver" in found.rule
    assert found.stated.groups == {pair.name: pair.name[:2] for pair in found.pairs}
    assert found.notes == ("1 of 6 frames are not annotated and left aside",)
    assert [name for name, _ in found.unannotated] == ["01/t001"]
    assert len(find_images(root)) == 6
    assert masks_of(found)["01/t002"][0, 0] == 7
    assert len(find_pairs(root / "01").pairs) == 2
    (root / "01/t002.tif").unlink()
    with refused("1 of 2 masks without frame: man_seg002.tif", code="A03"):
        find_pairs(root)


def test_lists_of_two_paths_state_the_sides(put, refused):
    root = put(
        **{
            f"{side}{end}/{k}.png": PICTURE
            for side in ("train", "val")
            for end in ("", "annot")
            for k in (1, 2)
        },
        **{
            f"{side}.txt": f"/SegNet/Set/{side}/1.png /SegNet/Set/{side}annot/1.png\n"
            for side in ("train", "val")
        },
    )
    found = find_pairs(root)
    assert found.stated.sides == {"train/1": "train", "val/1": "val"}
    assert found.rule == "train.txt and val.txt list images and masks"
    (root / "val.txt").write_text("val/1.png valannot/1.png\nval/9.png valannot/9.png\n")
    with refused("2 files that are not there: val/9.png, valannot/9.png", "val.txt", code="L05"):
        find_pairs(root)
    for file in ("train.txt", "val.txt"):
        (root / file).unlink()
    twins = find_pairs(root)
    assert twins.rule == "train/ with trainannot/, val/ with valannot/, same name in both folders"
    assert twins.stated.sides == {"train/1": "train", "train/2": "train", "val/1": "val", "val/2": "val"}
    (root / "valannot/2.png").unlink()
    with refused("1 of 2 images without mask: 2.png", code="A03"):
        find_pairs(root)


def test_voc(put, refused):
    root = put(
        **{f"JPEGImages/{k}.jpg": COLOUR for k in (1, 2, 3)},
        **{f"SegmentationClass/{k}.png": box(0, 0, 3, 3, 15) for k in (1, 2)},
        **{"ImageSets/Segmentation/train.txt": "1\n", "ImageSets/Segmentation/val.txt": "2\n"},
    )
    found = find_pairs(root)
    assert found.stated.sides == {"1": "train", "2": "val"}
    assert found.stated.ignore == 255
    assert found.notes == ("1 images without mask in these lists are left aside",)
    (root / "ImageSets/Segmentation/val.txt").write_text("2\n3\n")
    with refused("3", code="L05"):
        find_pairs(root)


def test_sites_and_sides_of_twin_folders(put, refused):
    root = put(**{f"s{k}/{side}/a.png": PICTURE for k in (1, 2, 3) for side in ("images", "labels")})
    found = find_pairs(root)
    assert [pair.name for pair in found.pairs] == ["s1/a", "s2/a", "s3/a"]
    assert found.stated.groups == {"s1/a": "s1", "s2/a": "s2", "s3/a": "s3"}
    (root / "s2/labels/a.png").rename(root / "s2/labels/b.png")
    with refused("a.png", "b.png", code="A05"):
        find_pairs(root)
    shutil.rmtree(root / "s2")
    for old, new in (("s1", "train"), ("s3", "valid")):
        (root / old).rename(root / new)
    put(**{"test/images/t.png": PICTURE, "test/labels/t.png": PICTURE})
    sided = find_pairs(root)
    assert sided.stated.sides == {"train/a": "train", "valid/a": "val"}
    assert "1 pairs of the test folder are left aside: evaluate on them" in sided.notes


def test_folders_of_masks_with_a_word_behind(put, refused):
    root = put(**{"images/a.png": PICTURE, "images/b.png": PICTURE, "labels_gold/a.png": PICTURE})
    with refused("b.png", code="A03"):
        find_pairs(root)
    found = find_pairs(root, reading=Reading(layout="partly"))
    assert [pair.name for pair in found.pairs] == ["a"]
    assert "1 images without mask are left aside: b.png" in found.notes
    put(**{"labels_silver/a.png": PICTURE})
    typed = f"such as: skipway train {root / 'images'} {root / 'labels_gold'} -o run"
    with refused("labels_gold, labels_silver", typed, code="A09"):
        find_pairs(root)


def test_one_stem_in_two_formats(put, refused, monkeypatch):
    root = put(**{f"{k}.jpg": COLOUR for k in (1, 2)}, **{f"{k}.png": box(0, 0, 3, 3) for k in (1, 2)})
    found = find_pairs(root)
    assert [(p.image.path.name, p.mask.path.name) for p in found.pairs] == [
        ("1.jpg", "1.png"),
        ("2.jpg", "2.png"),
    ]
    assert found.rule == "one folder, mask of X.jpg is X.png"
    for k in (1, 2):
        (root / f"{k}.jpg").unlink()
        put(**{f"{k}.tif": box(1, 1, 3, 3)})
    with refused("either could be the mask", code="A08"):
        find_pairs(root)


@pytest.mark.parametrize(
    ("image", "mask"), [("img3d.tif", "mask3d.tif"), ("train-volume.tif", "train-labels.tif")]
)
def test_a_word_of_the_name_tells_the_side(put, image, mask, refused):
    root = put(**{image: PICTURE, mask: box(0, 0, 3, 3)})
    found = find_pairs(root)
    assert [(p.image.path.name, p.mask.path.name) for p in found.pairs] == [(image, mask)]
    assert [source.path.name for _, source in find_masks(root)] == [mask]
    put(**{"other.tif": PICTURE})
    with refused("images without masks", code="A09"):
        find_pairs(root)


TABLE = "image,mask,group,split\nimages/a.png,masks/m1.png,p1,train\nimages/b.png,masks/m2.png,p2,val\n"


def test_a_table_of_pairs_gives_groups_and_sides(put, refused, tmp_path):
    root = put(
        **{f"images/{name}.png": PICTURE for name in "ab"},
        **{f"masks/m{k}.png": box(0, 0, k, 3) for k in (1, 2)},
        **{"table.csv": TABLE},
    )
    for found in (
        find_pairs(root / "table.csv"),
        find_pairs(root, reading=Reading(pairs=root / "table.csv")),
    ):
        assert [(p.name, p.mask.path.name) for p in found.pairs] == [
            ("images/a", "m1.png"),
            ("images/b", "m2.png"),
        ]
        assert found.stated.groups == {"images/a": "p1", "images/b": "p2"}
        assert found.stated.sides == {"images/a": "train", "images/b": "val"}
        assert found.rule == "table.csv lists 2 pairs, column group and column split read"
    (root / "sub").mkdir()
    (root / "table.csv").rename(root / "sub/table.csv")
    assert len(find_pairs(root, reading=Reading(pairs=root / "sub/table.csv")).pairs) == 2


@pytest.mark.parametrize(
    ("change", "texts", "code"),
    [
        (("masks/m2.png", "masks/m3.png"), ("1 files that are not there: masks/m3.png",), "A03"),
        (("image,mask", "picture,mask"), ("columns picture, mask", "image and mask"), "A33"),
        (("p2,val", "p2,vall"), ("split 'vall'",), "L05"),
        (("p2,val", "p2,"), ("no split for images/b",), "L05"),
        (("p2,val", "p2"), ("3 cells in line 3",), "A33"),
        (("images/b", "images/a"), ("stands there twice",), "A08"),
    ],
)
def test_a_wrong_table_is_refused(put, refused, change, texts, code):
    root = put(
        **{f"images/{name}.png": PICTURE for name in "ab"},
        **{f"masks/m{k}.png": PICTURE for k in (1, 2)},
        **{"table.csv": TABLE.replace(*change)},
    )
    with refused(*texts, code=code):
        find_pairs(root / "table.csv")


def test_a_table_may_name_pages(put, save):
    root = put(**{"t.csv": "image;mask;page\nv.tif;l.tif;1\nv.tif;l.tif;0\n"})
    stack = np.arange(2 * 48, dtype=np.uint8).reshape(2, 6, 8)
    for name in ("v.tif", "l.tif"):
        save(root / name, stack, metadata={"axes": "ZYX"})
    found = find_pairs(root / "t.csv")
    assert [(pair.name, pair.image.page) for pair in found.pairs] == [("v#000", 0), ("v#001", 1)]
    assert np.array_equal(masks_of(found)["v#001"], stack[1])


def test_a_table_of_classes_names_values_and_what_is_not_annotated(put):
    root = put(
        **{f"images/{k}.png": PICTURE for k in (1, 2)},
        **{f"masks/{k}.png": box(0, 0, 3, 3, k) for k in (1, 2)},
        **{"classes.csv": "value,name\n0,sky\n1,road\n2,unlabelled\n"},
    )
    found = find_pairs(root)
    assert found.rule.endswith("classes.csv names 3 values, 2 unlabelled is not annotated")
    labels = inspect(found).labels
    assert (labels.values, labels.names, labels.ignore) == ((0, 1), ("sky", "road"), 2)
    assert inspect(find_pairs(root / "images", root / "masks"), ignore=1).labels.ignore == 1
    (root / "classes.csv").write_text("a,b\n1,2\n")
    assert find_pairs(root).stated.names == {}


def test_a_table_of_classes_with_one_value_twice_is_refused(put, refused):
    root = put(
        **{"images/1.png": PICTURE, "masks/1.png": PICTURE, "classes.csv": "id,class\n0,sky\n0,road\n"}
    )
    with refused("value 0 stands there twice", code="A33"):
        find_pairs(root)


def painted(put, table):
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[:3], mask[3:, :4] = (128, 64, 128), (255, 0, 0)
    return put(**{"images/a.png": COLOUR, "masks/a.png": mask, **table})


COLOURS = {
    "class_dict.csv": "name,r,g,b\nvoid,0,0,0\nroad,128,64,128\ncar,255,0,0\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nvoid:0,0,0::\nroad:128,64,128::\ncar:255,0,0::\n",
    "label_colors.txt": "0 0 0\tvoid\n128 64 128\troad\n255 0 0\tcar\n",
}


@pytest.mark.parametrize("name", list(COLOURS))
def test_colours_become_rows_of_the_table(put, name):
    found = find_pairs(painted(put, {name: COLOURS[name]}))
    mask = masks_of(found)["a"]
    assert mask[[0, 5, 5], [0, 0, 7]].tolist() == [1, 2, 0]
    labels = inspect(found).labels
    assert (labels.values, labels.names, labels.ignore) == ((1, 2), ("road", "car"), 0)


def test_colours_without_table_or_out_of_it_are_refused(put, refused, tmp_path):
    root = painted(put, {})
    with refused("3-channel colours", "--colours", code="E07"):
        masks_of(find_pairs(root))
    table = put(**{"far/t.csv": "name,r,g,b\nvoid,0,0,0\nroad,128,64,128\n"}) / "far/t.csv"
    with refused("colour (255, 0, 0)", "12 pixels, the first 3 down and 0 right", code="E07"):
        masks_of(find_pairs(root, reading=Reading(colours=table)))
    table.write_text(COLOURS["class_dict.csv"])
    assert masks_of(find_pairs(root, reading=Reading(colours=table)))["a"][4, 1] == 2
    only_red = np.zeros((6, 8, 3), np.uint8)
    only_red[:2, :, 0] = 255  # black and red alone: numbers without a table, a class with one
    put(**{"masks/a.png": only_red})
    assert masks_of(find_pairs(root, reading=Reading(colours=table)))["a"][0, 0] == 2


def test_a_palette_mask_beside_a_colour_table_keeps_its_indices(put, tmp_path):
    root = painted(put, {"labelmap.txt": COLOURS["labelmap.txt"]})
    mask = Image.new("P", (8, 6), 0)
    mask.putpalette([0, 0, 0, 128, 64, 128, 1, 2, 3])
    mask.putpixel((4, 2), 2)
    mask.save(root / "masks/a.png")
    assert masks_of(find_pairs(root))["a"][2, 4] == 2


def test_matlab_maps(put, refused, tmp_path):
    from scipy.io import savemat

    root = put(**{"image/1.jpg": COLOUR, "image/2.jpg": COLOUR})
    (root / "groundTruth").mkdir()
    truth = {"Segmentation": box(0, 0, 2, 2, 1) + 1, "Boundaries": box(0, 0, 2, 2, 1)}
    savemat(root / "groundTruth/1.mat", {"groundTruth": truth})
    savemat(root / "groundTruth/2.mat", {"anything": box(0, 0, 3, 3, 1).astype(float) + 1})
    found = find_pairs(root)
    assert found.rule == "MATLAB label maps, same name in both folders"
    masks = masks_of(found)
    assert np.array_equal(masks["1"], truth["Segmentation"])
    assert (masks["2"] == 2).sum() == 9
    savemat(root / "groundTruth/2.mat", {"a": box(0, 0, 3, 3), "b": box(0, 0, 3, 3)})
    with refused("2 pictures in it", code="E25"):
        masks_of(find_pairs(root))
    (root / "groundTruth/2.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(40))
    with refused("2.mat", code="F01"):
        masks_of(find_pairs(root))
    (root / "groundTruth/2.mat").unlink()
    with refused("1 of 2 images without mask: 2.jpg", code="A03"):
        find_pairs(root)


def test_layouts_by_name_and_questions(put, refused):
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    root = cases(put)
    with pytest.raises(UsageError, match="one of pairs, nnunet"):
        find_pairs(root, reading=Reading(layout="folder"))
    movie(put)
    with refused("tracking, objects", "--layout tracking or --layout objects", code="A09"):
        find_pairs(root)
    assert len(find_pairs(root, reading=Reading(layout="objects")).pairs) == 2
    assert len(find_pairs(root, reading=Reading(layout="tracking")).pairs) == 5
    for layout in LAYOUTS:
        if layout.name not in ("objects", "tracking"):
            with pytest.raises((DataError, UsageError)):
                find_pairs(root, reading=Reading(layout=layout.name))


def test_a_single_folder_inside_is_looked_into(put):
    root = put(**{"set/deep/JPEGImages/1.png": PICTURE, "set/deep/SegmentationClass/1.png": PICTURE})
    assert find_pairs(root).images_root == root / "set/deep/JPEGImages"


def test_real_sets_as_they_lie_there(data_root):
    expected = {
        "bbbc039/original-layout": (1, "same name in both folders"),
        "camvid": (118, "train.txt and val.txt list images and masks; classes.csv names 12 values"),
        "chest-xray-multilabel": (
            31,
            "one mask per class, folders name them: airways, heart-mediastinum, left",
        ),
        "crackforest/original-layout": (2, "MATLAB label maps, same name in both folders"),
        "ctc-phc-u373/original-layout": (
            4,
            "Cell Tracking Challenge: tNNN with man_segNNN of 01_GT/SEG, gold",
        ),
        "dsb2018/original-layout": (8, "one folder per case, one mask file per object: 8 cases, 234 objects"),
        "isbi2012-em/original-layout": (20, "one folder, `volume` in an image is `labels` in its mask"),
        "nuclei3d-mini": (31, "one folder, `img` in an image is `mask` in its mask"),
        "wbc-1": (300, "same name in both folders; classes.csv names 3 values"),
    }
    if ".bmp" in IMAGE_SUFFIXES:
        expected["wbc-1/original-layout"] = (2, "one folder, mask of X.bmp is X.png")
    for place, (count, rule) in expected.items():
        found = find_pairs(data_root / place)
        assert (place, len(found.pairs), found.rule[: len(rule)]) == (place, count, rule)
    camvid = find_pairs(data_root / "camvid").stated
    assert (camvid.names[0], camvid.ignore, list(camvid.sides.values()).count("val")) == ("sky", 11, 26)
    brain = find_pairs(data_root / "msd-hippocampus")
    assert len({pair.image.path for pair in brain.pairs}) == 120
    assert brain.stated.names == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert brain.rule.startswith("Medical Segmentation Decathlon: 120 cases of dataset.json")


def test_a_run_remembers_how_its_data_were_read(tmp_path):
    from skipway.runs import Run
    from skipway.training.claim import claim, command_of
    from skipway.training.order import Order

    run = Run(tmp_path / "run")
    reading = Reading(layout="partly", pairs=tmp_path / "t.csv")
    asked = Order(tmp_path, None, run.path, reading=reading).asked
    run.path.mkdir()
    (run.path / "run.json").write_text(json.dumps({"format": 1, "finished": False, "asked": asked}))
    assert "--layout partly" in command_of(run)
    assert f"--pairs {tmp_path / 't.csv'}" in command_of(run)
    claim(run.path, asked)
    with pytest.raises(UsageError, match=r"layout partly \(now not given\)"):
        claim(run.path, {**asked, "layout": None})


def test_real_objects_put_together_equal_the_merged_masks(data_root):
    found = find_pairs(data_root / "dsb2018" / "original-layout")
    merged = {pair.name: pair for pair in find_pairs(data_root / "dsb2018").pairs}
    same = 0
    for name, mask in masks_of(found).items():
        with merged[name].mask.open_mask() as file:
            other = file.read()[0]
        both = np.unique(np.stack([mask.ravel(), other.ravel()]), axis=1)
        one_to_one = both.shape[1] == len(np.unique(both[0])) == len(np.unique(both[1]))
        same += bool(one_to_one and np.array_equal(mask > 0, other > 0))
    assert same >= 7, "the merged masks carry corrections of the originals"


def test_real_class_masks_equal_their_files(data_root):
    root = data_root / "chest-xray-multilabel"
    found = find_pairs(root)
    names = sorted(path.name for path in (root / "masks").iterdir())
    for pair in found.pairs[:5]:
        with pair.mask.open_mask() as file:
            mask = file.read()[0]
        for k, name in enumerate(names):
            stored = np.asarray(Image.open(root / "masks" / name / f"{pair.name}.png")) > 0
            assert np.array_equal(mask >> k & 1, stored)
