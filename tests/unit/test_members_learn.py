"""Every member, trained on real images for 200 steps with the command a user types: its score rises."""

import csv

import numpy as np
import pytest
from PIL import Image
from tifffile import imread, imwrite
from toys import skipway

from skipway.models import BUILDERS, arguments

CROP = 128
FRAMES = 12

COARSE = {"fcn_32s": 0.1, "fcn_16s": 0.6}
"""What they reach where a nucleus is smaller than a pixel of their scores."""


@pytest.fixture(scope="module")
def nuclei(data_root, tmp_path_factory):
    """Crops of real nuclei, masks of two classes; the last three by name validate."""
    root = tmp_path_factory.mktemp("nuclei")
    source = data_root / "dsb2018"
    with (source / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "fluorescence"]
    dense = [row["id"] for row in rows if 0.12 < float(row["foreground"]) < 0.35][:FRAMES]
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number, name in enumerate(dense):
        image = np.asarray(Image.open(source / "images" / f"{name}.png"))[:CROP, :CROP]
        labels = np.asarray(Image.open(source / "labels" / f"{name}.png"))[:CROP, :CROP]
        Image.fromarray(image).save(root / "images" / f"n{number:02d}.png")
        Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).save(
            root / "masks" / f"n{number:02d}.png"
        )
    return root


@pytest.fixture(scope="module")
def stack(data_root, tmp_path_factory):
    """Two parts of a stack of real nuclei, masks of two classes; the second validates."""
    root = tmp_path_factory.mktemp("stack")
    source = data_root / "nuclei3d-mini"
    image, mask = imread(source / "img3d.tif"), imread(source / "mask3d.tif")
    for folder, pages in (("images", image), ("masks", np.where(mask > 0, 255, 0).astype(np.uint8))):
        for part, columns in (("a", slice(0, 36)), ("b", slice(36, None))):
            (root / folder / part).mkdir(parents=True)
            imwrite(root / folder / part / "nuclei.tif", pages[:, :, columns], photometric="minisblack")
    return root


def trained(name, data, run, steps, **config):
    """Rows of metrics.csv of a training with the command."""
    words = [word for key, value in config.items() for word in ("--set", f"{key}={value}")]
    code, _, err = skipway(
        *("train", data / "images", data / "masks", "-o", run, "--model", name, "--task", "classes"),
        *("--steps", steps, "--batch", 4, "--device", "cpu", *words),
    )
    assert code == 0, err
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def rises(name, data, tmp_path, least, **config):
    """Whether 200 steps bring the score above `least` and well above that after one step, and the loss down."""
    before = trained(name, data, tmp_path / "one", 1, **config)[-1]
    after = trained(name, data, tmp_path / "run", 200, **config)[-1]
    print(
        f"{name}: score {before['val_score']} -> {after['val_score']}, loss {before['loss']} -> {after['loss']}"
    )
    assert float(after["loss"]) < float(before["loss"])
    assert float(after["val_score"]) > max(least, float(before["val_score"]) + 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_the_score_of_every_member_rises_in_200_steps(name, nuclei, tmp_path):
    hidden = {"hidden": 64} if "hidden" in arguments(name) else {}  # 4096 of VGG are half a minute a step
    rises(name, nuclei, tmp_path, COARSE.get(name, 0.7), **hidden)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BUILDERS if arguments(name).get("ndim") == 3])
def test_the_score_of_members_made_for_volumes_rises_in_200_steps(name, stack, tmp_path):
    rises(name, stack, tmp_path, 0.5, depth=3, width=4)
