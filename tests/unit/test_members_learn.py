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


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FLAT if arguments(name).get("ndim") != 3])
def test_the_score_of_every_member_rises_in_200_steps(name, nuclei, tmp_path):
    config = {key: value for key, value in (small(name) | WIDER).items() if key in arguments(name)}
    words = [word for key, value in config.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    code, _, err = skipway(
        *("train", nuclei / "images", nuclei / "masks", "-o", run, "--model", name, "--task", "classes"),
        *("--steps", 200, "--patch", 96, "--batch", 4, "--device", "cpu", *words),
    )
    assert code == 0, err
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["val_score"]) for row in rows if row["val_score"]]
    losses = [float(row["loss"]) for row in rows]
    print(f"{name}: score {scores[0]:.3f} -> {scores[-1]:.3f}, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert len(scores) >= 4
    assert losses[-1] < losses[0]
    assert scores[-1] > max(scores[0], 0.4), scores
