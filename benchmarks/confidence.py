"""What the review of a prediction and views of an image cost, in CPU seconds of one thread beside those of the network.

uv run python benchmarks/confidence.py
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from skipway.data.fingerprint import Normalisation
from skipway.data.labels import LabelMap
from skipway.models import build
from skipway.nn.graph import SkipGraph
from skipway.predict.familiar import Familiar
from skipway.predict.pixels import ArrayPixels
from skipway.predict.review import Review
from skipway.predict.stream import predict_pixels
from skipway.predict.turns import Turns
from skipway.predict.views import Views, views_of

ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """Least CPU time of a few rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def networks(classes: int, width: int) -> SkipGraph:
    torch.manual_seed(0)
    return build("unet", in_channels=1, classes=classes, width=width, norm="batch").eval()


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"{'':34}{'network':>10}{'review':>10}{'share':>9}")
    for classes in (2, 20):
        for width in (16, 32):
            for side in (512, 1024):
                row(rng, networks(classes, width), width, classes, side)
    model, pixels = networks(2, 16), ArrayPixels(rng.normal(size=(1, 512, 512)).astype(np.float32))
    plain = seconds(lambda: predict_pixels(model, pixels))
    for kind in ("mirror", "all", "seven"):
        viewed = Turns(model) if kind == "seven" else Views(model, views_of(kind, 2))
        taken = seconds(lambda viewed=viewed: predict_pixels(viewed, pixels))
        print(f"{kind:<10}{taken / plain:6.2f} passes of one view")


def row(rng: np.random.Generator, model: SkipGraph, width: int, classes: int, side: int) -> None:
    """Print what the network takes, what the review takes, and the share of the latter."""
    image = ArrayPixels(rng.normal(size=(1, side, side)).astype(np.float32))
    constants = Normalisation().constants(image.array)
    names = tuple(map(str, range(classes)))
    labels = LabelMap("classes", tuple(range(classes)), ("background", *names[1:]))
    known = Familiar.of_images([{"noise": float(k)} for k in range(20)])

    def predicted(review: Review | None) -> None:
        if review is not None:
            review.look(image, constants)
        options = {} if review is None else {"on_logits": review.see, "on_spread": review.apart}
        predict_pixels(model, image, constants, **options)
        if review is not None:
            review.row("x")

    network = seconds(lambda: predicted(None))
    logits = torch.from_numpy(rng.normal(size=(classes, side, side)).astype(np.float32))

    def reviewed() -> None:
        review = Review(labels, known)
        review.look(image, constants)
        with torch.inference_mode():
            review.see((slice(0, side), slice(0, side)), logits)
        review.row("x")

    taken = seconds(reviewed)
    name = f"unet width {width}, {classes} classes, {side}²"
    print(f"{name:<34}{network:10.3f}{taken:10.3f}{taken / network:9.1%}")


if __name__ == "__main__":
    main()
