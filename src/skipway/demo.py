"""The whole way on drawn cells: train on a few small images, predict a large one, score it, look at it.

Nothing is downloaded and no data is needed. The cells touch and lie in blur, noise, uneven light and
debris, so a threshold fails where the network should not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import imwrite

from skipway import api
from skipway.disk import replacing, write_json
from skipway.errors import Problem, UsageError
from skipway.evaluation import Evaluation, evaluate
from skipway.images import open_image, open_mask, write_labels
from skipway.metrics.baseline import otsu_mask
from skipway.predict.options import FileOptions
from skipway.report import pictures as draw
from skipway.request import Request
from skipway.runs import read_json
from skipway.synthetic import draw_cells
from skipway.tasks import Task

TRAINING_IMAGES = 24
TRAINING_SIDE = 256
NEW_SIDE = 1024
SECONDS = 120.0
"""Of training; with drawing, prediction, scores and pictures the demo stays below three minutes."""

MARK = "demo.json"


@dataclass(frozen=True)
class Demo:
    """Where everything lies."""

    folder: Path

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def part(self, *names: str) -> Path:
        """A sub-folder, made where it is missing."""
        path = self.folder.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    device: str | None = None,
    event: Callable[[Mapping[str, Any]], None],
) -> str:
    """Draw, train, predict, evaluate, report. The same call again goes on where it stopped.

    Args:
        folder: Receives everything.
        seed: Of the cells and of the training.
        steps: Optimiser steps; by default as many as fit `SECONDS`.
        device: Where to run.
        event: Told of what happens.

    Returns:
        The figures, as text.

    Raises:
        UsageError: the folder holds something else, or a demo with another seed.
    """
    _claim(folder, {"seed": seed, "steps": steps})
    demo = Demo(folder)
    _draw(demo, seed)
    request = Request(steps=steps, seconds=None if steps else SECONDS, seed=seed)
    training = demo.folder / "training"
    order = api.Order(training / "images", training / "masks", demo.run, request, device=device)
    trained = api.train_run(order, event)
    predictor = api.load(demo.run, device=device)
    rows = []
    for bits in (16, 8):
        new, predicted = demo.folder / f"new-{bits}bit", demo.folder / f"predicted-{bits}bit"
        summary = api.predict_files(predictor, new, predicted, FileOptions(overwrite=True), event)
        baseline = _otsu(predictor.task, new / "cells.tif", demo.part(f"otsu-{bits}bit") / "cells.tif")
        truth = demo.folder / "truth"
        rows.append((f"skipway, {bits}-bit", evaluate(predicted, truth)))
        rows.append((f"Otsu, {bits}-bit", evaluate(baseline.parent, truth)))
        event({"event": "line", "name": "tiles", "text": str(summary.certificate)})
    strip = _picture(demo)
    figures = {name: found.to_json() for name, found in rows}
    write_json(demo.folder / "figures.json", figures)
    event({"event": "figures", **figures})
    return _text(demo, rows, trained.remarks, strip)


def _claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Take the folder for this demo, or refuse what would be overwritten."""
    mark = folder / MARK
    if mark.is_file():
        found = read_json(mark)
        if found != wanted:
            raise UsageError(
                Problem(
                    f"holds a demo with {found}, not {dict(wanted)}",
                    str(folder),
                    fix="give another folder with -o",
                )
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(Problem("is not empty", str(folder), "a new folder", "give another folder with -o"))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(mark, wanted)


def _draw(demo: Demo, seed: int) -> None:
    """Training images at 16 bits, and one larger image at 16 and at 8 bits that nothing is trained on."""
    images, masks = demo.part("training", "images"), demo.part("training", "masks")
    first = 1000 * seed
    for number in range(TRAINING_IMAGES):
        image, labels = draw_cells(TRAINING_SIDE, seed=first + number)
        imwrite(images / f"cells_{number:02d}.tif", image)
        write_labels(masks / f"cells_{number:02d}.tif", labels)
    for bits in (16, 8):
        image, labels = draw_cells(NEW_SIDE, seed=first + TRAINING_IMAGES, bits=bits)
        imwrite(demo.part(f"new-{bits}bit") / "cells.tif", image)
    write_labels(demo.part("truth") / "cells.tif", labels)


def _otsu(task: Task, image: Path, target: Path) -> Path:
    """The baseline: Otsu's threshold, then the same way from foreground to objects as the network's."""
    with open_image(image) as file:
        pixels = file.read()[0]
    return write_labels(target, task.decode(otsu_mask(pixels).astype(np.uint8)))


def _picture(demo: Demo) -> Path:
    """input.png, truth.png, prediction.png, errors.png, and the four side by side in result.png."""
    with open_image(demo.folder / "new-16bit" / "cells.tif") as file:
        image = file.read()[0]
    truth = _mask(demo.folder / "truth" / "cells.tif")
    prediction = _mask(demo.folder / "predicted-16bit" / "cells.tif")
    pictures = demo.part("pictures")
    for name, picture in (
        ("input", draw.stretch(image)),
        ("truth", draw.overlay(image, truth)),
        ("prediction", draw.overlay(image, prediction)),
        ("errors", draw.error_overlay(image, truth, prediction, objects=True)),
    ):
        _write(pictures / f"{name}.png", picture)
    crop = slice(0, NEW_SIDE // 2)
    _write(
        pictures / "result.png",
        draw.result_strip(image[crop, crop], truth[crop, crop], prediction[crop, crop]),
    )
    return pictures / "result.png"


def _mask(path: Path) -> NDArray[Any]:
    with open_mask(path) as file:
        return file.read()[0]


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    with replacing(path) as file:
        file.write(draw.png(picture))


def _text(demo: Demo, rows: list[tuple[str, Evaluation]], remarks: Sequence[str], strip: Path) -> str:
    lines = [
        f"{NEW_SIDE} × {NEW_SIDE} pixels that the network has not seen, one image:",
        f"{'':<18}{'Dice':>8}{'AP@0.5':>8}{'mean AP':>9}{'PQ':>8}",
    ]
    for name, found in rows:
        figures = found.to_json()
        objects = figures["objects"]
        values = (figures["classes"]["1"]["dice"], objects["ap50"], objects["mean_ap"], objects["pq"])
        lines.append(
            f"{name:<18}" + "".join(f"{_number(v):>{w}}" for v, w in zip(values, (8, 8, 9, 8), strict=True))
        )
    lines += [
        "(Dice of the foreground pixels; objects matched one to one, AP = TP / (TP + FP + FN))",
        *remarks,
        f"look at    {strip}",
        f"report     {demo.run / 'report.html'}",
        "your own   skipway train IMAGES MASKS -o RUN && skipway predict RUN NEW -o OUT",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
