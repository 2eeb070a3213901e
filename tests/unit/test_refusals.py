"""Bad input through the command: refused before anything is written, beside a clean twin that trains."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tifffile import imread, imwrite
from toys import WORDS, contents, draw, skipway


@pytest.fixture
def data(tmp_path):
    return draw(tmp_path / "data")


def binary(data, value=255):
    """Masks of {0, value} in place of instance ids, as PNG."""
    for path in (data / "masks").glob("*.tif"):
        Image.fromarray(((imread(path) > 0) * value).astype(np.uint8)).save(path.with_suffix(".png"))
        path.unlink()
    return data


def train(data, *words):
    out = data.parent / "run"
    return skipway("train", data / "images", data / "masks", "-o", out, *WORDS, *words)


def trains(data, *words):
    """The twin: exit 0, and weights that can be loaded."""
    code, _, err = train(data, *words)
    assert code == 0, err
    assert (data.parent / "run" / "model.safetensors").stat().st_size > 1000
    shutil.rmtree(data.parent / "run")


def refused(data, *says, code=3):
    """Exit code, every text in the message, no folder made, not a byte of the input changed."""
    before = contents(data.parent)
    found, _, err = train(data)
    assert found == code, err
    for text in says:
        assert re.search(text, err), (text, err)
    assert all(line.startswith("skipway: error") for line in err.splitlines()), err
    assert "Traceback" not in err
    assert contents(data.parent) == before
    assert not (data.parent / "run").exists()


def test_clean_data_train(data):
    trains(data)


def test_an_empty_folder(data):
    for path in (data / "images").iterdir():
        path.unlink()
    refused(data, "images", r"\.png", r"\.tif")


def test_a_folder_that_is_not_there(data):
    shutil.rmtree(data / "images")
    refused(data, "images", code=2)


def test_images_without_masks(data):
    for path in (data / "masks").iterdir():
        path.unlink()
    refused(data, "masks", "Fix: ")


def test_shifted_counts(data):
    trains(data)
    (data / "masks" / "c2.tif").unlink()  # by order, c2 would get the mask of c3
    refused(data, "c2", "Fix: ")


def test_names_that_do_not_match(data):
    for number, path in enumerate(sorted((data / "masks").iterdir())):
        path.rename(path.with_name(f"{'abcde'[number]}-{7 * number}.tif"))
    refused(data, "c0", "a-0", "Fix: ")


def test_two_codings_of_masks_mixed(data):
    trains(binary(data))
    mask = np.asarray(Image.open(data / "masks" / "c1.png"))
    Image.fromarray((mask > 0).astype(np.uint8)).save(data / "masks" / "c1.png")
    refused(data, r"c1\.png", "255", "Fix: ")


def test_masks_as_jpeg(data):
    trains(binary(data))
    for path in (data / "masks").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    refused(data, r"c0\.jpg", "(?i)jpeg|lossy", "Fix: ", "PNG|TIFF")


def test_a_mask_of_another_size(data):
    imwrite(data / "masks" / "c3.tif", imread(data / "masks" / "c3.tif")[:-1])
    refused(data, r"c3\.tif", "47 × 48", "48 × 48", "Fix: ")


def test_a_transposed_mask(tmp_path):
    data = draw(tmp_path / "data", size=(40, 48))
    trains(data)
    imwrite(data / "masks" / "c3.tif", imread(data / "masks" / "c3.tif").T.copy())
    refused(data, r"c3\.tif", "transpose")


@pytest.mark.parametrize("folder", ["images", "masks"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_empty_and_truncated_files(data, folder, share):
    path = data / folder / "c1.tif"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(data, rf"{folder}/c1\.tif", "Fix: ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_number(data, value):
    for path in (data / "images").iterdir():
        imwrite(path, imread(path).astype(np.float32))
    trains(data)
    image = imread(data / "images" / "c4.tif")
    image[5, 7] = value
    imwrite(data / "images" / "c4.tif", image)
    refused(data, r"c4\.tif", "1 pixels? that are NaN or infinite", "5 down and 7 right", "Fix: ")


def test_rgb_and_grey_mixed(data):
    for path in (data / "images").iterdir():
        Image.fromarray((imread(path) >> 4).astype(np.uint8)).save(path.with_suffix(".png"))
        path.unlink()
    trains(data)
    Image.open(data / "images" / "c2.png").convert("RGB").save(data / "images" / "c2.png")
    refused(data, "1 with 3 channels, such as c2", "1 channel", "Fix: ")


def test_an_image_smaller_than_the_patch_trains_and_is_predicted(tmp_path):
    data = draw(tmp_path / "data")
    for name in ("images", "masks"):
        path = data / name / "c0.tif"
        imwrite(path, imread(path)[:9, :21])
    code, _, err = train(data, "--patch", 64)
    assert code == 0, err
    code, _, err = skipway(
        "predict", tmp_path / "run", data / "images", "-o", tmp_path / "out", "--device", "cpu"
    )
    assert code == 0, err
    assert imread(tmp_path / "out" / "c0.tif").shape == (9, 21)
    assert imread(tmp_path / "out" / "c1.tif").shape == (48, 48)


def test_a_folder_that_holds_another_run(data, tmp_path):
    assert train(data)[0] == 0
    before = contents(tmp_path)
    code, _, err = train(data, "--seed", 3)
    assert code == 2
    assert "seed 0 (now 3)" in err
    assert "-o" in err
    assert contents(tmp_path) == before
    assert train(data)[0] == 0  # the same command is welcome


@pytest.mark.parametrize("name", ["thesis.txt", "plan.json", "model.safetensors", ".hidden"])
def test_a_folder_that_holds_other_files(data, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("precious")
    before = contents(tmp_path)
    code, _, err = train(data)
    assert code == 2
    assert str(tmp_path / "run") in err
    assert "-o" in err
    assert contents(tmp_path) == before


def test_an_output_that_is_a_file(data, tmp_path):
    (tmp_path / "run").write_text("precious")
    code, _, err = train(data)
    assert code == 2
    assert "is a file" in err
    assert (tmp_path / "run").read_text() == "precious"


def test_an_empty_folder_is_a_fine_output(data, tmp_path):
    (tmp_path / "run").mkdir()
    trains(data)


def test_255_that_nobody_declared_is_refused_and_declared_is_ignored(data, tmp_path):
    for number, path in enumerate(sorted((data / "masks").iterdir())):
        mask = (imread(path) > 0).astype(np.uint8) + (imread(path) == 2)
        mask[:, -6:] = 255
        imwrite(path, mask.astype(np.uint8))
        assert number < 5
    words = ("--task", "classes", "--loss", "weighted-ce")
    before = contents(tmp_path)
    code, _, err = train(data, *words)
    assert code == 3
    assert "--ignore 255" in err
    assert contents(tmp_path) == before
    trains(data, *words, "--ignore", 255)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_leaves_no_folder(data, tmp_path):
    before = contents(tmp_path)
    code, _, err = train(data, "--device", "cuda:1")
    assert code == 4
    assert "--device cpu" in err
    assert contents(tmp_path) == before
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tile", ["0", "-8"])
def test_a_tile_that_cannot_be(data, tmp_path, tile):
    assert train(data)[0] == 0
    code, _, err = skipway(
        "predict",
        tmp_path / "run",
        data / "images",
        "-o",
        tmp_path / "out",
        "--tile",
        tile,
        "--device",
        "cpu",
    )
    assert code == 2
    assert "tile" in err
    assert not (tmp_path / "out").exists()


def test_several_problems_come_at_once(data):
    (data / "images" / "c0.tif").write_bytes(b"")
    imwrite(data / "masks" / "c3.tif", imread(data / "masks" / "c3.tif")[:-1])
    refused(data, r"c0\.tif", r"c3\.tif")
