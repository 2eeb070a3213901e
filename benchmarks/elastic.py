"""Elastic deformation of a 512² image, its labels and its weights, against public libraries.

One thread.

    uv run --group bench python benchmarks/elastic.py

Faithful peers interpolate normal displacements of a coarse grid with cubics, as the paper does: scipy
(zoom of the 3x3 grid, map_coordinates of order 3 for image and weights, 0 for labels) and MONAI
(Rand2DElastic on a grid of 256 px spacing). albumentations' ElasticTransform blurs dense noise instead:
another deformation, of about the same strength; its cost alone is comparable.
"""

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage

import common
from border_weights import draw_cells
from skipway.data.augment import NONE, Augmentation, apply, draw

STRENGTH = 10.0
ELASTIC = Augmentation(**{**vars(NONE), "elastic": STRENGTH, "elastic_probability": 1.0})


def skipway(image: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    return lambda: apply(draw(ELASTIC, labels.shape, rng), image[None], labels, weights, labels.shape)


def scipy_order(order: int) -> Callable[..., Callable[[], object]]:
    def prepare(image: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
        rng = np.random.default_rng(0)

        def call() -> object:
            nodes = rng.normal(0, STRENGTH, (2, 3, 3))
            zoom = [side / 3 for side in labels.shape]
            field = [ndimage.zoom(n, zoom, order=3, mode="nearest", grid_mode=False) for n in nodes]
            at = np.indices(labels.shape) + np.array(field)
            return (
                ndimage.map_coordinates(image, at, order=order, mode="mirror"),
                ndimage.map_coordinates(labels, at, order=0, mode="mirror"),
                ndimage.map_coordinates(weights, at, order=order, mode="mirror"),
            )

        return call

    return prepare


def monai_grid(mode: str | int) -> Callable[..., Callable[[], object]]:
    def prepare(image: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
        from monai.transforms import Rand2DElasticd

        transform = Rand2DElasticd(
            keys=["image", "labels", "weights"], spacing=(256, 256), magnitude_range=(9, 11), prob=1.0,
            mode=[mode, "nearest", mode], padding_mode="reflection",
        )  # fmt: skip
        arrays = {"image": image[None], "labels": labels[None].astype(np.float32), "weights": weights[None]}
        return lambda: transform(arrays)

    return prepare


def albumentations_noise(image: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
    import albumentations

    elastic = albumentations.ElasticTransform(alpha=300, sigma=30, p=1)
    transform = albumentations.Compose([elastic], additional_targets={"weights": "image"})
    return lambda: transform(image=image, mask=labels, weights=weights)


PEERS = {
    "skipway": skipway,
    "scipy, order 3 (faithful)": scipy_order(3),
    "scipy, order 1": scipy_order(1),
    "MONAI Rand2DElastic, bicubic": monai_grid("bicubic"),
    "MONAI Rand2DElastic, bilinear": monai_grid("bilinear"),
    "albumentations (dense noise)": albumentations_noise,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers' own deprecations
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = draw_cells(wanted.side, 200)
    image = ((labels > 0) + rng.normal(0, 0.1, labels.shape)).astype(np.float32)
    weights = rng.random(labels.shape, np.float32)
    calls = {name: prepare(image, labels, weights) for name, prepare in PEERS.items()}
    timings = common.rotate(calls, rounds=wanted.rounds)
    base = timings["scipy, order 3 (faithful)"]
    rows = [common.row(name, timings[name], base) for name in PEERS]
    facts = common.machine("torch", "numpy", "scipy", "monai", "albumentations")
    common.save("elastic", rows, side=wanted.side, threads=1, a_over_a=common.noise(timings), machine=facts)


if __name__ == "__main__":
    main()
