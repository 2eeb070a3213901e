"""Shapes in JSON become masks by one rule: the centre of a pixel lies inside. A second rasteriser agrees."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from skipway.data.check import inspect
from skipway.data.layouts import Reading, find_pairs
from skipway.data.outlines import Shape, filled, run_lengths

SIZE = (20, 30)
PICTURE = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
SQUARE = [(2, 3), (7, 3), (7, 9), (2, 9)]
HEART = [(10.2, 2.1), (25.7, 4.4), (21.3, 17.9), (14.6, 11.2)]


def rays(ring, size):
    """Centres inside an outline, by counting crossings of a ray to the right, one pixel at a time."""
    found = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column + 0.5, row + 0.5
            inside = False
            for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
                if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
                    inside = not inside
            found[row, column] = inside
    return found


@pytest.mark.parametrize("seed", range(6))
def test_outlines_are_filled_as_by_crossings(seed):
    rng = np.random.default_rng(seed)
    ring = [tuple(point) for point in rng.uniform(-4, 32, (rng.integers(3, 9), 2))]  # also out of the picture
    assert np.array_equal(filled(np.array(ring), SIZE), rays(ring, SIZE))


@pytest.mark.parametrize("seed", range(4))
def test_the_box_of_a_shape_holds_all_of_it(seed):
    rng = np.random.default_rng(seed)
    ring = rng.uniform(-9, 39, (5, 2))
    hole = rng.uniform(0, 20, (4, 2))
    box, inside = Shape("x", ((ring, hole),)).inside(SIZE)
    found = np.zeros(SIZE, bool)
    found[box] = inside
    assert np.array_equal(found, rays([*map(tuple, ring)], SIZE) & ~rays([*map(tuple, hole)], SIZE))


@pytest.mark.parametrize("corner", [(-3, 4), (18, 28), (2, -6), (40, 40), (-9, -9)])
def test_a_bitmap_may_reach_out_of_the_picture(corner):
    bits = np.random.default_rng(1).random((6, 5)) > 0.5
    wide = np.zeros((70, 80), bool)
    wide[corner[0] + 10 : corner[0] + 16, corner[1] + 10 : corner[1] + 15] = bits
    found = np.zeros(SIZE, bool)
    box, inside = Shape("x", bitmap=bits, corner=corner).inside(SIZE)
    found[box] = inside
    assert np.array_equal(found, wide[10:30, 10:40])


def test_whole_corners_fill_whole_pixels():
    assert np.argwhere(filled(np.array(SQUARE, float), SIZE)).tolist() == [
        [row, column] for row in range(3, 9) for column in range(2, 7)
    ]


def test_run_lengths_as_numbers_and_as_text():
    """Worked out by hand from the rule: 5 bits a letter, 48 added, differences from the fourth on."""
    expected = np.zeros((4, 3), bool)
    expected[1:3, 0] = expected[3, 1] = expected[0, 2] = True
    # column by column: 1 out, 2 in, 4 out, 2 in (the last of column 1, the first of column 2), 3 out
    assert np.array_equal(run_lengths([1, 2, 4, 2, 3], (4, 3)), expected)
    # fourth: 2 − 2 = 0, fifth: 3 − 4 = −1, which is 11111 in five bits with the sign set: 48 + 31 = "O"
    assert np.array_equal(run_lengths("1240O", (4, 3)), expected)
    # 40 = 01000 + 1·32: the first letter carries bit 6: 48 + 32 + 8 = "X", the second is 1
    assert run_lengths("X1", (5, 8)).sum() == 0
    for wrong in ("1", [5, 8], "~", [13]):
        with pytest.raises(ValueError, match=r"run lengths|letters"):
            run_lengths(wrong, (4, 3))


def coco_file(**changes):
    shapes = [
        {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": [np.ravel(SQUARE).tolist()]},
        {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": [np.ravel(HEART).tolist()]},
        {
            "id": 3,
            "image_id": 9,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"size": [20, 30], "counts": [40, 20, 540]},
        },
    ]
    images = [
        {"id": k, "file_name": f"{name}.png", "height": 20, "width": 30} for k, name in ((7, "a"), (9, "b"))
    ]
    categories = [{"id": 3, "name": "cell"}, {"id": 1, "name": "heart"}, {"id": 2, "name": "unused"}]
    return {"images": images, "annotations": shapes, "categories": categories, **changes}


@pytest.fixture
def pictures(tmp_path, save):
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", PICTURE)
    return tmp_path


def masks_of(pairs):
    found = {}
    for pair in pairs.pairs:
        with pair.mask.open_mask() as mask:
            found[pair.name] = mask.read()[0]
    return found


def placed(root, held):
    """Three places where people keep the list; each is read alike."""
    (root / "annotations.json").write_text(json.dumps(held))
    yield find_pairs(root)
    yield find_pairs(root / "images", root / "annotations.json")
    (root / "annotations").mkdir()
    (root / "annotations.json").rename(root / "annotations" / "instances_default.json")
    yield find_pairs(root)


def test_coco_of_several_categories_is_classes(pictures):
    for found in placed(pictures, coco_file()):
        assert [pair.name.rpartition("/")[2] for pair in found.pairs] == ["a", "b"]
        assert found.stated.names == {0: "background", 1: "heart", 2: "cell"}
        assert "3 shapes of heart, cell; one class a pixel" in found.rule
        a, b = masks_of(found).values()
        assert np.array_equal(a, np.where(rays(HEART, SIZE), 1, np.where(rays(SQUARE, SIZE), 2, 0)))
        assert np.array_equal(b == 2, np.pad(np.ones((20, 1), bool), ((0, 0), (2, 27))))
    assert inspect(found).labels.names == ("background", "heart", "cell")


def test_coco_of_one_category_is_objects_without_crowds(pictures):
    held = coco_file()
    held["annotations"][1]["category_id"] = 3
    (pictures / "annotations.json").write_text(json.dumps(held))
    found = find_pairs(pictures)
    assert found.stated.task == "objects"
    a, b = masks_of(found).values()
    assert (a[4, 3], a[6, 18]) == (1, 2)
    assert not b.any()
    with found.pairs[1].mask.open_mask() as mask:
        assert mask.notes == ("1 crowd regions are left out: they are no single objects",)
    bits = find_pairs(pictures, reading=Reading(task="multilabel"))
    assert set(np.unique(masks_of(bits)[bits.pairs[0].name])) == {0, 1}


def test_overlapping_coco_shapes_are_counted_or_kept_as_bits(pictures):
    held = coco_file()
    held["annotations"].append({**held["annotations"][0], "id": 4, "category_id": 1})
    (pictures / "annotations.json").write_text(json.dumps(held))
    with find_pairs(pictures).pairs[0].mask.open_mask() as mask:
        assert mask.notes == ("30 pixels lie in two shapes; the later has them",)
        assert mask.read()[0, 4, 3] == 1
    with find_pairs(pictures, reading=Reading(task="multilabel")).pairs[0].mask.open_mask() as mask:
        assert mask.notes == ()
        assert mask.read()[0, 4, 3] == 3


def test_sides_of_two_coco_files(tmp_path, save):
    for side, key, name in (("train", 0, "a"), ("valid", 1, "b")):
        save(tmp_path / side / f"{name}.png", PICTURE)
        held = coco_file()
        held["images"] = held["images"][key : key + 1]
        held["annotations"] = [x for x in held["annotations"] if x["image_id"] == held["images"][0]["id"]]
        (tmp_path / side / "_annotations.coco.json").write_text(json.dumps(held))
    found = find_pairs(tmp_path)
    assert found.stated.sides == {"train/a": "train", "valid/b": "val"}
    assert set(masks_of(found)["valid/b"].ravel().tolist()) == {0, 2}, "numbers are those of all files"


WRONG = {
    "a listed image is not there": (
        {"images": [*coco_file()["images"], {"id": 1, "file_name": "c.png", "height": 20, "width": 30}]},
        ("1 of 3 listed images are not there: c.png",),
        "A03",
    ),
    "a size of its own": (
        {
            "images": [{**image, "height": 30, "width": 20} for image in coco_file()["images"]],
            "annotations": coco_file()["annotations"][:2],
        },
        ("shapes for 30 × 20 pixels", "20 × 30"),
        "B04",
    ),
    "no such category": (
        {"annotations": [{**coco_file()["annotations"][0], "category_id": 99}]},
        ("annotations.json", "KeyError 99"),
        "F01",
    ),
    "runs for another size": (
        {
            "annotations": [
                {**coco_file()["annotations"][0], "segmentation": {"size": [2, 2], "counts": [600]}}
            ]
        },
        ("run lengths for 2 × 2 in an image of 20 × 30",),
        "F01",
    ),
    "boxes only": (
        {"annotations": [{**coco_file()["annotations"][0], "segmentation": []}]},
        ("no shape in it",),
        "E20",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_coco_files_are_refused(pictures, refused, case):
    change, texts, code = WRONG[case]
    (pictures / "annotations.json").write_text(json.dumps(coco_file(**change)))
    with refused(*texts, code=code):
        masks_of(find_pairs(pictures))


def test_a_cut_coco_file_is_refused(pictures, refused):
    (pictures / "annotations.json").write_text(json.dumps(coco_file())[:-5])
    with refused("not readable as JSON", code="F01"):
        find_pairs(pictures)


def labelme_file(shapes, **changes):
    return json.dumps(
        {
            "version": "5",
            "shapes": shapes,
            "imagePath": "a.png",
            "imageHeight": 20,
            "imageWidth": 30,
            **changes,
        }
    )


def test_labelme_beside_the_images_or_in_a_folder(pictures, refused):
    png = io.BytesIO()
    Image.fromarray(np.full((2, 3), 255, np.uint8)).save(png, "PNG")
    shapes = [
        {"label": "cell", "points": SQUARE, "shape_type": "polygon"},
        {"label": "core", "points": [[12, 5], [15, 8]], "shape_type": "rectangle"},
        {"label": "cell", "points": [[22.5, 12.5], [25.7, 12.5]], "shape_type": "circle"},
        {
            "label": "core",
            "points": [[27, 17], [29, 18]],
            "shape_type": "mask",
            "mask": base64.b64encode(png.getvalue()).decode(),
        },
        {"label": "cell", "points": [[1, 1], [2, 2]], "shape_type": "line"},
    ]
    for name, held in (("a", shapes), ("b", [])):
        (pictures / "images" / f"{name}.json").write_text(labelme_file(held))
    found = find_pairs(pictures / "images")
    assert found.rule == "LabelMe, same name in both folders: 4 shapes of cell, core; one class a pixel"
    mask = masks_of(found)["a"]
    rows, columns = np.mgrid[:20, :30]
    disc = np.hypot(rows + 0.5 - 12.5, columns + 0.5 - 22.5) < 3.2
    expected = np.where(rays(SQUARE, SIZE) | disc, 1, 0)
    expected[5:8, 12:15] = expected[17:19, 27:30] = 2
    assert np.array_equal(mask, expected)
    with found.pairs[0].mask.open_mask() as file:
        assert file.notes == ("1 shapes of type line are left out",)
    assert "1 files without shapes are read as empty: b.json" in found.notes
    (pictures / "labels").mkdir()
    for name in "ab":
        (pictures / f"images/{name}.json").rename(pictures / f"labels/{name}.json")
    assert np.array_equal(masks_of(find_pairs(pictures))["a"], mask)
    (pictures / "labels/b.json").write_text(labelme_file(shapes[:1], imageHeight=10))
    with refused("shapes for 10 × 30 pixels", code="B04"):
        masks_of(find_pairs(pictures))
    (pictures / "labels/b.json").unlink()
    with refused("1 of 2 images without mask: b.png", code="A03"):
        find_pairs(pictures)


def test_shapes_beside_masks_are_a_question(pictures, refused, save):
    for name in "ab":
        save(pictures / "masks" / f"{name}.png", PICTURE)
        (pictures / "images" / f"{name}.json").write_text(labelme_file([{"label": "x", "points": SQUARE}]))
    with refused("labelme, folders", "--layout labelme or --layout folders", code="A09"):
        find_pairs(pictures / "images")
    assert find_pairs(pictures / "images", reading=Reading(layout="folders")).pairs[0].mask.kind == "file"
    assert find_pairs(pictures / "images", reading=Reading(layout="labelme")).pairs[0].mask.kind == "labelme"


def feature(ring, name=None, kind="Polygon", holes=()):
    rings = [[[*map(list, r), list(r[0])] for r in (ring, *holes)]]
    classified = {"classification": {"name": name}} if name else {}
    coordinates = rings[0] if kind == "Polygon" else rings
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", **classified},
    }


def test_geojson_with_holes_and_several_polygons(pictures, refused):
    hole = [(4, 5), (6, 5), (6, 7), (4, 7)]
    held = {"a": [feature(SQUARE, holes=[hole]), feature(HEART, kind="MultiPolygon")], "b": []}
    for name, features in held.items():
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (pictures / "images" / f"{name}.geojson").write_text(text)
    found = find_pairs(pictures / "images")
    assert found.stated.task == "objects"
    expected = np.where(rays(SQUARE, SIZE) & ~rays(hole, SIZE), 1, 0)
    assert np.array_equal(masks_of(found)["a"], np.where(rays(HEART, SIZE), 2, expected))
    text = json.dumps([feature(SQUARE, "Tumor"), feature(HEART, "Ignore*")])
    (pictures / "images" / "b.geojson").write_text(text)
    several = find_pairs(pictures / "images")
    assert several.stated.names == {0: "background", 1: "Ignore*", 2: "Tumor", 3: "object"}
    assert several.stated.ignore == 1
    (pictures / "images" / "b.geojson").write_text('{"features": [{"geometry": {"type": "Polygon"}}]}')
    with refused("b.geojson", "coordinates", code="F01"):
        find_pairs(pictures / "images")


def test_a_folder_that_validates_must_number_its_classes_alike(pictures, refused, save):
    from skipway.data.splits import split

    (pictures / "annotations.json").write_text(json.dumps(coco_file()))
    checked = inspect(find_pairs(pictures))
    other = pictures / "other"
    save(other / "images" / "b.png", PICTURE.T.copy().reshape(SIZE))
    held = coco_file()
    (other / "annotations.json").write_text(
        json.dumps({**held, "images": held["images"][1:], "annotations": held["annotations"][2:]})
    )
    with refused("value 1 is cell", "heart", code="E05"):
        split(checked, val=other, reading=Reading(task="classes"))
