"""Trains on real images within a time budget, predicts the held-out ones, scores them beside simple baselines.

    uv run python benchmarks/first_light.py dsb2018 --out /tmp/first-light [--minutes 10]

`SKIPWAY_DATA` names the folder of the data sets. Variants of a data set run one after the other through the
command line; figures go to `benchmarks/results/first_light_<set>.json`, pictures to the output folder only.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from skipway.evaluation import evaluate
from skipway.images import open_image, open_mask, write_labels
from skipway.metrics.baseline import otsu_mask
from skipway.metrics.objects import components
from skipway.report.pictures import contact_sheet, error_overlay, overlay, png, stretch

VARIANTS = {
    "dsb2018": {
        "border weights": [],
        "no border weights": ["--loss", "ce-dice"],
    },
    "isbi2012-em": {
        "default plan": [],
        "2015 preset, width 16": ["--preset", "2015", "--width", "16"],
    },
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=VARIANTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="wall-clock budget of each training")
    parser.add_argument("--variant", choices=[name for names in VARIANTS.values() for name in names])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.out / arguments.data
    train, val = select(arguments.data, Path(os.environ["SKIPWAY_DATA"]) / arguments.data, folder / "data")
    results = Path(__file__).parent / "results" / f"first_light_{arguments.data}.json"
    found = json.loads(results.read_text()) if results.is_file() else {}
    found["otsu"] = scored(otsu(val, folder / "otsu"), val)
    if arguments.data == "isbi2012-em":
        found["all interior"] = scored(constant(val, folder / "interior"), val)
    for name, flags in VARIANTS[arguments.data].items():
        if arguments.variant in (None, name):
            row = run(name, flags, arguments, folder, train, val)
            found[name] = row
            results.write_text(json.dumps(found, indent=2) + "\n")
            print(name, json.dumps(row, indent=2))


def select(name, source, target):
    """Links the images into train/ and val/, each with images/ and labels/."""
    if name == "dsb2018":
        with (source / "index.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["kind"] == "fluorescence"]
        sides = {f"{row['id']}.png": row["split"] for row in rows}
    else:
        sides = {f"{k:02d}.png": "train" if k < 16 else "val" for k in range(20)}
    for file, side in sides.items():
        for kind in ("images", "labels"):
            link = target / side / kind / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((source / kind / file).resolve())
    return target / "train", target / "val"


def run(name, flags, arguments, folder, train, val):
    """One training with its prediction and scores."""
    place = folder / name.replace(" ", "-").replace(",", "")
    budget = f"{60 * arguments.minutes:g}s"
    before, began = cpu(), time.perf_counter()
    command(
        "train",
        train / "images",
        train / "labels",
        "-o",
        place / "run",
        "--val",
        val,
        "--time",
        budget,
        "--seed",
        arguments.seed,
        *flags,
    )
    spent, wall = cpu() - before, time.perf_counter() - began
    command("predict", place / "run", val / "images", "-o", place / "out", "--overwrite", "--probabilities")
    pictures(val, place / "out", place / "overlays.png")
    rows = list(csv.DictReader((place / "run" / "metrics.csv").open()))
    return {
        **scored(place / "out", val),
        "flags": flags,
        "otsu_with_the_same_decoding": json.loads((place / "run" / "evaluation.json").read_text())[
            "baseline"
        ],
        "steps": int(rows[-1]["step"]),
        "cpu_minutes": round(spent / 60, 1),
        "wall_minutes": round(wall / 60, 1),
        "seed": arguments.seed,
        "validation_during_training": [
            [int(r["step"]), float(r["val_score"])] for r in rows if r["val_score"]
        ],
    }


def command(*words):
    subprocess.run(
        [sys.executable, "-c", "from skipway.cli import main; main()", *map(str, words)], check=True
    )


def cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scored(out, val):
    """The figures of `skipway evaluate`, without the images."""
    found = evaluate(out, val / "labels").to_json()
    return {key: found[key] for key in ("n", "pixel_error", "classes", "objects", "em") if key in found}


def otsu(val, target):
    """Otsu's threshold as a mask with the values of the truth."""
    return baseline(val, target, lambda pixels: otsu_mask(pixels).astype(np.uint8))


def constant(val, target):
    """Everything the larger class."""
    return baseline(val, target, lambda pixels: np.ones(pixels.shape, np.uint8))


def baseline(val, target, method):
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((val / "images").iterdir()):
        with open_image(path) as file, open_mask(val / "labels" / path.name) as mask:
            inside = method(file.read()[0])
            objects = mask.dtype.itemsize > 1
        write_labels(target / path.name, components(inside) if objects else 255 * inside)
    return target


def pictures(val, out, path, count=12):
    """Image, truth, prediction and errors of some images, for looking at."""
    names = sorted(p.name for p in (val / "images").iterdir())
    rows = []
    for name in names[:: max(1, len(names) // count)]:
        with (
            open_image(val / "images" / name) as a,
            open_mask(val / "labels" / name) as b,
            open_mask(out / name) as c,
        ):
            image, truth, found = a.read()[0], b.read()[0], c.read()[0]
        objects = truth.dtype.itemsize > 1
        rows.append(
            (
                stretch(image),
                overlay(image, truth),
                overlay(image, found),
                error_overlay(image, truth, found, objects=objects),
            )
        )
    path.write_bytes(png(contact_sheet(rows, ("image", "truth", "prediction", "errors"))))


if __name__ == "__main__":
    main()
