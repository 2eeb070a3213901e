"""D: channels."""

from pathlib import Path

import numpy as np

from skipway.testing.cases import Case, case, load, lone_images, picture, rgb, save, scene, ten


def _one_rgb(root: Path) -> None:
    save(root / "images/c4.png", rgb(load(root / "images/c4.png")))


def _alpha(root: Path) -> None:
    pixels = rgb(load(root / "images/c4.png"))
    alpha = np.tile(np.linspace(0, 255, pixels.shape[1]).astype(np.uint8), (pixels.shape[0], 1))
    save(root / "images/c4.png", np.dstack([pixels, alpha]))


def _five(root: Path) -> None:
    for path in (root / "images").iterdir():
        save(path.with_suffix(".tif"), np.stack([load(path)] * 5), metadata={"axes": "CYX"})
        path.unlink()


def _modalities(root: Path, seed: int) -> None:
    """Two files of one channel each for a case, in the layout of nnU-Net."""
    import json

    for k in range(6):
        rng = np.random.default_rng([seed, k])
        labels = scene(rng)
        for channel in range(2):
            save(root / f"imagesTr/c{k}_{channel:04d}.png", picture(rng, labels))
        save(root / f"labelsTr/c{k}.png", (labels > 0).astype(np.uint8))
    facts = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "disc": 1},
             "numTraining": 6, "file_ending": ".png"}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(facts))


CASES: tuple[Case, ...] = (
    case("D01", "nine grey and one RGB", "E", _one_rgb, ten, says=("c4", "3 channels")),
    case("D03", "alpha that varies", "E", _alpha, says=("c4.png", "alpha")),
    case(
        "D05",
        "five channels for a network of one",
        "E",
        _five,
        lone_images,
        via="predict",
        code="",
        says=("5",),
    ),
    case(
        "D09",
        "one channel file of a case missing",
        "E",
        lambda root: (root / "imagesTr/c2_0001.png").unlink(),
        _modalities,
        images=".",
        masks=None,
        says=("c2",),
    ),
)
