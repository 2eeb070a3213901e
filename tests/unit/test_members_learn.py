"""Every member, trained on real images for 200 steps with the command a user types: its score rises."""

import csv

import numpy as np
import pytest
from PIL import Image
from toys import skipway

from members import FLAT, small
from skipway.models import arguments

CROP = 128
FRAMES = 12

WIDER = {"width": 6}
"""Two channels at the finest level learn little in 200 steps."""


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


def trained(name, nuclei, run, steps):
    """Rows of metrics.csv of a training with the command."""
    config = {key: value for key, value in (small(name) | WIDER).items() if key in arguments(name)}
    words = [word for key, value in config.items() for word in ("--set", f"{key}={value}")]
    code, _, err = skipway(
        *("train", nuclei / "images", nuclei / "masks", "-o", run, "--model", name, "--task", "classes"),
        *("--steps", steps, "--patch", 96, "--batch", 4, "--device", "cpu", *words),
    )
    assert code == 0, err
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FLAT if arguments(name).get("ndim") != 3])
def test_the_score_of_every_member_rises_in_200_steps(name, nuclei, tmp_path):
    before = trained(name, nuclei, tmp_path / "one", 1)[-1]
    after = trained(name, nuclei, tmp_path / "run", 200)[-1]
    print(
        f"{name}: score {before['val_score']} -> {after['val_score']}, loss {before['loss']} -> {after['loss']}"
    )
    assert float(after["loss"]) < float(before["loss"])
    assert float(after["val_score"]) > max(0.7, float(before["val_score"]) + 0.1)
