"""Images and masks in the wrong order: refused in one line that says what to type, and never without reason."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tifffile import imread, imwrite
from toys import WORDS, draw, skipway

import skipway as package
from skipway.data.exchanged import Grain, exchanged, grain
from skipway.data.sources import Source

SIZE = (72, 96)


def discs(rng, radius=9, number=12):
    """Numbered discs, touching here and there."""
    labels = np.zeros(SIZE, np.uint16)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for k in range(number):
        y, x = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])
        labels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 3 * k + 1
    return labels


def photograph(rng, labels, levels=256):
    """Dark ground, bright discs, noise; in at most so many grey levels."""
    light = 70 + 90 * (labels > 0) + rng.normal(0, 12, labels.shape)
    return (np.clip(light, 0, 255) // (256 // levels)).astype(np.uint8)


def colour(pixels):
    return np.stack([pixels, pixels // 2 + 20, 250 - pixels], axis=-1)


FORMS = {
    "numbered objects, 8-bit grey": (photograph, lambda rng, a: a, ".png"),
    "24 grey levels": (lambda rng, a: photograph(rng, a, 32), lambda rng, a: a, ".png"),
    "0 and 255": (photograph, lambda rng, a: np.where(a > 0, 255, 0).astype(np.uint8), ".png"),
    "a few classes": (photograph, lambda rng, a: (a % 4).astype(np.uint8), ".png"),
    "RGB photographs": (lambda rng, a: colour(photograph(rng, a)), lambda rng, a: (a % 4).astype(np.uint8), ".png"),
    "16 bits": (lambda rng, a: rng.integers(0, 900, SIZE).astype(np.uint16) + 201 * (a > 0), lambda rng, a: a, ".tif"),
    "floats": (lambda rng, a: rng.normal(a > 0, 0.3).astype(np.float32), lambda rng, a: a, ".tif"),
    "CT with negative numbers": (lambda rng, a: rng.normal(900.0 * (a > 0) - 1000, 90).astype(np.int16),
                                 lambda rng, a: (a > 0).astype(np.uint8), ".tif"),
    "JPEG": (photograph, lambda rng, a: (a > 0).astype(np.uint8), ".jpg"),
}  # fmt: skip


def make(root, image, mask, suffix=".png", number=4):
    rng = np.random.default_rng(5)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for k in range(number):
        labels = discs(rng)
        for folder, pixels, end in (
            ("images", image(rng, labels), suffix),
            ("masks", mask(rng, labels), ".png" if suffix == ".jpg" else suffix),
        ):
            path = root / folder / f"c{k}{end}"
            if end == ".tif":
                imwrite(path, pixels, photometric="minisblack")
            else:
                Image.fromarray(pixels).save(path)
    return root


def codes(*places, **options):
    return [p.code for p in package.check(*places, **options).problems]


@pytest.mark.parametrize("form", FORMS)
def test_the_wrong_order_is_refused_and_the_right_one_is_not(tmp_path, form):
    make(tmp_path, *FORMS[form])
    assert "A35" not in codes(tmp_path / "images", tmp_path / "masks")
    assert codes(tmp_path / "images", tmp_path / "masks") == []
    assert codes(tmp_path / "masks", tmp_path / "images") == ["A35"]


def test_training_stops_in_one_line_that_says_what_to_type(tmp_path):
    data = draw(tmp_path / "data")
    code, _, err = skipway("train", data / "masks", data / "images", "-o", tmp_path / "run", *WORDS)
    assert code == 3
    assert len(err.strip().splitlines()) == 1
    assert err.endswith(
        f"did you swap the folders? type: skipway train {data / 'images'} {data / 'masks'} -o run"
    )
    assert not (tmp_path / "run").exists()
    assert skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *WORDS)[0] == 0


def test_one_folder_with_exchanged_folders_in_it(tmp_path):
    data = draw(tmp_path / "data")
    (data / "images").rename(data / "x")
    (data / "masks").rename(data / "images")
    (data / "x").rename(data / "masks")
    assert codes(data) == ["A35"]


def test_stacks_in_the_wrong_order(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.stack([discs(rng) for _ in range(6)])
    labels[:2] = 0  # nothing to see in the first slices
    imwrite(
        tmp_path / "a.tif", np.stack([photograph(rng, page) for page in labels]), photometric="minisblack"
    )
    imwrite(tmp_path / "b.tif", labels, photometric="minisblack")
    assert codes(tmp_path / "b.tif", tmp_path / "a.tif") == ["A35"]
    assert codes(tmp_path / "a.tif", tmp_path / "b.tif") == []


def test_folders_whose_names_do_not_pair_are_looked_at_as_well(tmp_path):
    """One folder of masks for each class: the other way round no name has a partner."""
    make(tmp_path, photograph, lambda rng, a: (a > 0).astype(np.uint8))
    shutil.copytree(tmp_path / "masks", tmp_path / "classes" / "first")
    shutil.copytree(tmp_path / "masks", tmp_path / "classes" / "second")
    assert codes(tmp_path / "images", tmp_path / "classes") == []
    assert codes(tmp_path / "classes", tmp_path / "images") == ["A35"]
    (tmp_path / "masks" / "c1.png").unlink()
    assert codes(tmp_path / "images", tmp_path / "masks") == ["A03"]
    assert codes(tmp_path / "masks", tmp_path / "images") == ["A35"]


def test_a_table_with_exchanged_columns(tmp_path):
    make(tmp_path, photograph, lambda rng, a: a)
    rows = [f"masks/c{k}.png,images/c{k}.png" for k in range(4)]
    (tmp_path / "pairs.csv").write_text("image,mask\n" + "\n".join(rows) + "\n")
    found = package.check(tmp_path / "pairs.csv").problems
    assert [p.code for p in found] == ["A35"]
    assert "exchange" in found[0].fix


QUIET = {
    "binary images": (lambda rng, a: (a > 0).astype(np.uint8), lambda rng, a: (a > 20).astype(np.uint8)),
    "binary images of numbered objects": (lambda rng, a: np.where(a > 0, 255, 0).astype(np.uint8), lambda rng, a: a),
    "drawings in three colours": (lambda rng, a: (a % 3 * 100).astype(np.uint8), lambda rng, a: a),
    "binary images, tiny dense objects": (
        lambda rng, a: np.full(SIZE, 255, np.uint8) * (np.indices(SIZE)[0] < 70).astype(np.uint8),
        lambda rng, a: (1 + np.indices(SIZE)[0] // 4 * 24 + np.indices(SIZE)[1] // 4).astype(np.uint16)
        * (np.indices(SIZE)[0] < 70),
    ),
    "one image in four is blank": (lambda rng, a: photograph(rng, a) * np.uint8(rng.random() > 0.5), lambda rng, a: a),
    "hundreds of small objects": (
        lambda rng, a: rng.integers(0, 255, SIZE, np.uint8),
        lambda rng, a: (1 + np.indices(SIZE)[0] // 4 * 24 + np.indices(SIZE)[1] // 4).astype(np.uint16),
    ),
    "speckled classes on photographs": (photograph, lambda rng, a: rng.integers(0, 9, SIZE).astype(np.uint8)),
}  # fmt: skip


@pytest.mark.parametrize("form", QUIET)
def test_odd_data_in_the_right_order_are_left_alone(tmp_path, form):
    make(tmp_path, *(lambda rng, a, part=part: np.asarray(part(rng, a)) for part in QUIET[form]))
    assert "A35" not in codes(tmp_path / "images", tmp_path / "masks")


def test_images_for_images_and_masks_for_masks_are_another_matter(tmp_path):
    make(tmp_path / "a", photograph, lambda rng, a: 255 - photograph(rng, a))
    make(tmp_path / "b", lambda rng, a: a, lambda rng, a: (a > 0).astype(np.uint8))
    assert "A35" not in codes(tmp_path / "a" / "images", tmp_path / "a" / "masks")
    assert codes(tmp_path / "b" / "images", tmp_path / "b" / "masks") == []


def test_names_without_partner_keep_their_own_refusal(tmp_path):
    make(tmp_path, photograph, lambda rng, a: a)
    for k in range(4):
        (tmp_path / "masks" / f"c{k}.png").rename(tmp_path / "masks" / f"{'qwer'[k]}{k * 7}.png")
    assert set(codes(tmp_path / "images", tmp_path / "masks")) == {"A05"}
    assert codes(tmp_path / "masks", tmp_path / "images") == ["A35"]


def test_regions_are_counted_by_value_and_colour(tmp_path):
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[:, 5:, 0] = 7
    pixels[4:, :, 1] = 9
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert grain(Source(tmp_path / "a.png")) == Grain(values=2, regions=4, pixels=80)


def test_one_doubtful_image_is_enough_to_keep_quiet():
    mask, photo = Grain(30, 31, 10_000), Grain(200, 6000, 10_000)
    assert exchanged([mask] * 5, [photo] * 5)
    assert exchanged([mask] * 5, [*[photo] * 4, mask])  # one dark photograph
    assert not exchanged([*[mask] * 4, photo], [photo] * 5)
    assert not exchanged([mask] * 5, [*[photo] * 3, mask, mask])
    assert not exchanged([mask], [mask])
    assert not exchanged([], [photo])


SETS = {
    "bbbc039/images": "bbbc039/labels",
    "bbbc039/original-layout/images": "bbbc039/original-layout/masks",
    "crackforest/original-layout/image": "crackforest/original-layout/groundTruth",
    "isbi2012-em/images": "isbi2012-em/labels",
    "isbi2012-em/original-layout/train-volume.tif": "isbi2012-em/original-layout/train-labels.tif",
    "nuclei3d-mini/img3d.tif": "nuclei3d-mini/mask3d.tif",
    "ctc-phc-u373/images": "ctc-phc-u373/labels_silver",
    "camvid/train": "camvid/trainannot",
    "camvid/val": "camvid/valannot",
    "chest-xray-multilabel/images": "chest-xray-multilabel/masks",
    "crackforest/images": "crackforest/labels",
    "wbc-1/images": "wbc-1/labels",
    "dsb2018/images": "dsb2018/labels",
    "msd-hippocampus/Task04_Hippocampus/imagesTr": "msd-hippocampus/Task04_Hippocampus/labelsTr",
}
FAST = ("bbbc039/original-layout/images", "nuclei3d-mini/img3d.tif", "crackforest/original-layout/image")


@pytest.mark.parametrize(
    "images", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SETS]
)
def test_real_sets_in_both_orders(data_root, images):
    right = codes(data_root / images, data_root / SETS[images])
    assert right == (["D01"] if images == "dsb2018/images" else [])
    assert codes(data_root / SETS[images], data_root / images) == ["A35"]


@pytest.mark.slow
def test_gold_truth_of_some_frames_only_in_the_wrong_order(data_root):
    """Twenty of 35 frames have no mask, which is refused (A03) in the right order."""
    root = data_root / "ctc-phc-u373"
    assert codes(root / "labels_gold", root / "images") == ["A35"]
    assert codes(root / "images", root / "labels_gold") == ["A03"]


@pytest.mark.slow
def test_pictures_for_pictures(data_root):
    places = data_root / "super-resolution" / "set5", data_root / "super-resolution" / "set5"
    assert "A35" not in codes(*places)


def test_masks_read_as_images_keep_their_bytes(tmp_path):
    """Nothing is written by a look."""
    make(tmp_path, photograph, lambda rng, a: a, ".tif")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.tif")}
    codes(tmp_path / "masks", tmp_path / "images")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.tif")} == before
    assert imread(tmp_path / "masks" / "c0.tif").dtype == np.uint16
