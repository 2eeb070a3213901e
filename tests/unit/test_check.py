"""Every problem of every file at once, each beside data that pass."""

import hashlib

import numpy as np
import pytest
import tifffile

from skipway.data.check import inspect
from skipway.data.layouts import find_pairs
from skipway.errors import DataError

RNG = np.random.default_rng(4)


@pytest.fixture
def check(tmp_path, make_pairs):
    """Checks tmp_path after making it clean and letting `spoil(root)` change it."""

    def run(spoil=None, n=6, **options):
        make_pairs(tmp_path, n)
        if spoil is not None:
            spoil(tmp_path)
        return inspect(find_pairs(tmp_path), **options)

    return run


def test_clean_data_pass_without_a_word(check):
    checked = check()
    assert checked.warnings == ()
    assert checked.labels.values == (0, 255)
    assert [record.name for record in checked.records] == [f"a{k}" for k in range(6)]
    assert {(r.size, r.channels, r.dtype, r.kind) for r in checked.records} == {
        ((12, 20), 1, "uint8", "8-bit grey")
    }


def test_records_hold_what_the_pixels_hold(tmp_path, save):
    array = RNG.integers(3, 250, (30, 40, 3), np.uint8)
    save(tmp_path / "images/a.png", array)
    save(tmp_path / "masks/a.png", (array[..., 0] > 99).astype(np.uint8))
    (record,) = inspect(find_pairs(tmp_path)).records
    assert (record.low, record.high) == (array.min(), array.max())
    assert record.mean == pytest.approx(array.mean())
    header = repr(((30, 40), 3, "uint8")).encode()
    assert (
        record.sha256 == hashlib.sha256(header + array.tobytes()).hexdigest()
    )  # row by row, whatever the band
    assert record.values.counts == tuple(np.bincount((array[..., 0] > 99).ravel()))


def test_one_picture_in_two_formats_has_one_hash(tmp_path, save):
    arrays = {"a.png": np.full((6, 8), 3, np.uint8), "b.tif": np.full((6, 8), 3, np.uint8)}
    arrays["c.tif"] = arrays["b.tif"].reshape(8, 6)
    arrays["b.tif"][2, 2] = arrays["a.png"][2, 2] = 9
    for name, array in arrays.items():
        save(tmp_path / "images" / name, array)
        mask = np.zeros_like(array)
        mask[1, :3] = 1
        save(tmp_path / "masks" / name, mask)
    records = {r.name: r.sha256 for r in inspect(find_pairs(tmp_path)).records}
    assert records["a"] == records["b"] != records["c"]


def test_many_problems_come_in_one_error(check, save, refused):
    def spoil(root):
        (root / "images/a1.png").write_bytes(b"")
        save(root / "masks/a2.png", np.zeros((20, 12), np.uint8))
        save(root / "images/a3.png", np.zeros((12, 20, 3), np.uint8))
        (root / "masks/a4.png").write_bytes((root / "masks/a4.png").read_bytes()[:60])

    with pytest.raises(DataError) as caught:
        check(spoil)
    assert {problem.code for problem in caught.value.problems} == {"F01", "B02", "D01"}
    message = str(caught.value)
    for text in ("a1.png", "a2.png", "a3", "a4.png", "transpose", "0 bytes"):
        assert text in message
    assert len(caught.value.problems) == 4


def test_mask_and_image_of_one_pair_are_both_named(check, refused, tmp_path, make_pairs):
    make_pairs(tmp_path)
    clean = (tmp_path / "masks/a1.png").read_bytes()
    (tmp_path / "images/a1.png").write_bytes(b"")
    (tmp_path / "masks/a1.png").write_bytes(clean[:-30])
    with refused("images/a1.png", "masks/a1.png"):
        inspect(find_pairs(tmp_path))


SIZES = [((20, 12), "transpose", "B02"), ((6, 10), "nearest", "B04"), ((11, 20), "belong together", "B04")]


@pytest.mark.parametrize(("size", "advice", "code"), SIZES)
def test_mask_sizes_that_differ(tmp_path, make_pairs, save, refused, size, advice, code):
    make_pairs(tmp_path)
    inspect(find_pairs(tmp_path))
    save(tmp_path / "masks/a2.png", np.zeros(size, np.uint8))
    with refused(f"mask of {size[0]} × {size[1]}", "12 × 20 like its image", advice, code=code):
        inspect(find_pairs(tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number(tmp_path, save, refused, value):
    image = RNG.random((12, 20)).astype(np.float32)
    mask = (image > 0.5).astype(np.uint8)
    for k in range(3):
        save(tmp_path / f"images/a{k}.tif", image + k)
        save(tmp_path / f"masks/a{k}.png", mask)
    inspect(find_pairs(tmp_path))
    image[7, 3] = value
    save(tmp_path / "images/a1.tif", image)
    with refused("a1.tif", "1 pixels that are NaN or infinite, the first 7 down and 3 right", code="C09"):
        inspect(find_pairs(tmp_path))


def test_grey_and_colour_or_8_and_16_bits_mixed(tmp_path, make_pairs, save, refused):
    make_pairs(tmp_path)
    save(tmp_path / "images/a1.png", RNG.integers(0, 255, (12, 20), np.uint16))
    with refused("uint8: a0, a2, a3", "uint16: a1", code="C07"):
        inspect(find_pairs(tmp_path))
    save(tmp_path / "images/a1.png", RNG.integers(0, 255, (12, 20, 3), np.uint8))
    with refused("3 with 1 channel, such as a0", "1 with 3 channels, such as a1", code="D01"):
        inspect(find_pairs(tmp_path))


def test_float_images_of_two_ranges(tmp_path, save, refused):
    mask = np.zeros((12, 20), np.uint8)
    mask[3:7, 3:7] = 1
    for k, scale in enumerate((1.0, 255.0, 1.0, 255.0)):
        save(tmp_path / f"images/a{k}.tif", (RNG.random((12, 20)) * scale).astype(np.float32))
        save(tmp_path / f"masks/a{k}.png", mask)
    with refused("up to 1: a0, a2", "a1, a3", code="C07"):
        inspect(find_pairs(tmp_path))
    for k in (1, 3):
        save(tmp_path / f"images/a{k}.tif", RNG.random((12, 20)).astype(np.float32))
    inspect(find_pairs(tmp_path))


def test_masks_that_are_the_images(tmp_path, make_pairs, refused):
    import shutil

    make_pairs(tmp_path)
    for path in (tmp_path / "images").iterdir():
        shutil.copy(path, tmp_path / "masks" / path.name)
    with refused("every mask equals its image", code="A31"):
        inspect(find_pairs(tmp_path), task="classes")


def test_jpeg_masks_and_mixed_codings(tmp_path, make_pairs, save, refused):
    from PIL import Image

    make_pairs(tmp_path)
    mask = np.asarray(Image.open(tmp_path / "masks/a1.png"))
    save(tmp_path / "masks/a1.png", mask // 255)
    with refused("{0, 1} in 1 mask ", "masks/a1.png", "{0, 255} in 3", code="E01"):
        inspect(find_pairs(tmp_path))
    (tmp_path / "masks/a1.png").unlink()
    Image.fromarray(mask).save(tmp_path / "masks/a1.jpg")
    with refused("a1.jpg", "JPEG", code="E09"):
        inspect(find_pairs(tmp_path))


def test_what_is_odd_is_a_warning(tmp_path, make_pairs, save):
    make_pairs(tmp_path, 12)
    save(tmp_path / "images/a0.png", np.full((12, 20), 7, np.uint8))
    save(tmp_path / "masks/a1.png", np.zeros((12, 20), np.uint8))
    (tmp_path / "images/a3.png").write_bytes((tmp_path / "images/a2.png").read_bytes())
    rng = np.random.default_rng(9)
    for k in range(12):
        mask = np.zeros((12, 20), np.uint8)
        mask[rng.integers(0, 8) :][:3, rng.integers(0, 14) :][:, :4] = 255
        save(tmp_path / f"masks/a{k}.png", mask if k not in (1, 4) else mask * (k != 1))
    save(tmp_path / "masks/a4.png", 255 - np.asarray(mask))
    text = "\n".join(inspect(find_pairs(tmp_path)).warnings)
    assert "constant image or channel: a0" in text
    assert "1 of 12 masks hold background only: a1" in text
    assert "the same image 2 times: a2, a3" in text
    assert "look exchanged: a4" in text


def test_identical_masks_and_lone_outliers_are_said(tmp_path, save):
    mask = np.zeros((12, 20), np.uint8)
    mask[3:7, 3:7] = 1
    for k in range(3):
        image = RNG.random((12, 20)).astype(np.float32)
        image[0, 0] = 1e30 if k == 1 else 1
        save(tmp_path / f"images/a{k}.tif", image)
        save(tmp_path / f"masks/a{k}.png", mask)
    warnings = inspect(find_pairs(tmp_path)).warnings
    assert any("the same mask for 3 images" in line for line in warnings)
    assert any("far beyond" in line and "a1" in line for line in warnings)


def test_what_the_reading_policy_did_is_said_once(tmp_path, save):
    mask = np.zeros((12, 20), np.uint8)
    mask[3:7, 3:7] = 1
    for k in range(5):
        save(tmp_path / f"images/a{k}.tif", RNG.integers(0, 99, (12, 20), np.uint8), photometric="miniswhite")
        save(tmp_path / f"masks/a{k}.png", np.roll(mask, k))
    (line,) = inspect(find_pairs(tmp_path)).warnings
    assert line.startswith("a0.tif, a1.tif, a2.tif and 2 more")
    assert "MINISWHITE" in line


def test_images_of_many_sizes_and_of_one_pixel_pass(tmp_path, save):
    for k, size in enumerate(((1, 1), (97, 131), (2, 300))):
        save(tmp_path / f"images/a{k}.png", RNG.integers(0, 255, size, np.uint8))
        save(tmp_path / f"masks/a{k}.png", RNG.integers(0, 2, size).astype(np.uint8))
    assert len(inspect(find_pairs(tmp_path)).records) == 3


def test_stacks_are_opened_once(tmp_path, monkeypatch):
    from skipway.data import sources

    stack = RNG.integers(0, 255, (6, 12, 20)).astype(np.uint8)
    for name, array in (("i.tif", stack), ("m.tif", (stack > 99).astype(np.uint8))):
        tifffile.imwrite(tmp_path / name, array, metadata={"axes": "ZYX"}, photometric="minisblack")
    pairs = find_pairs(tmp_path / "i.tif", tmp_path / "m.tif")
    opened = []
    monkeypatch.setattr(
        sources, "open_image", lambda path, real=sources.open_image: opened.append(path) or real(path)
    )
    checked = inspect(pairs)
    assert len(checked.records) == 6
    assert len(opened) == 1
    assert len({record.sha256 for record in checked.records}) == 6


def test_progress_is_told(check):
    seen = []
    check(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 6) for k in range(1, 7)]


def test_a_real_data_set_passes_and_its_mixture_is_refused(data_root, tmp_path, refused):
    import csv

    with (data_root / "dsb2018/index.csv").open() as file:
        rows = list(csv.DictReader(file))
    grey = [row for row in rows if row["kind"] == "fluorescence"][:40]
    colour = [row for row in rows if row["channels"] == "3"][:2]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for row in grey:
            name = f"{row['id']}.png"
            (tmp_path / folder / name).symlink_to(data_root / "dsb2018" / folder / name)
    checked = inspect(find_pairs(tmp_path))
    assert checked.labels.task == "objects"
    assert checked.labels.ids
    by_name = {record.name: record for record in checked.records}
    for row in grey:
        record = by_name[row["id"]]
        assert record.size == (int(row["height"]), int(row["width"]))
        assert record.values.ids == int(row["n_instances"])
    for folder in ("images", "labels"):
        for row in colour:
            name = f"{row['id']}.png"
            (tmp_path / folder / name).symlink_to(data_root / "dsb2018" / folder / name)
    with refused("1 channel", "3 channels", code="D01"):
        inspect(find_pairs(tmp_path))


def test_real_labels_saved_as_jpeg_are_refused_also_after_saving_as_png(data_root, tmp_path, save, refused):
    from PIL import Image

    root = data_root / "fixtures" / "labels-saved-as-jpeg"
    for k in ("00", "01"):
        image = np.asarray(Image.open(root / f"images_train-volume{k}.jpg"))
        labels = np.asarray(Image.open(root / f"labels_train-labels{k}.jpg"))
        save(tmp_path / f"images/{k}.png", image)
        save(tmp_path / f"masks/{k}.png", labels)
        save(tmp_path / f"clean/{k}.png", (labels > 127).astype(np.uint8))
    with refused("00.png", "01.png", "smeared", code="E11"):
        inspect(find_pairs(tmp_path / "images", tmp_path / "masks"))
    assert inspect(find_pairs(tmp_path / "images", tmp_path / "clean")).labels.values == (0, 1)
