"""`skipway train DATA --time T` and no other flag, on five data sets: time asked and used, scores, plans.

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/training.py --out OUT                          five sets, 10m
    SKIPWAY_DATA=… uv run --all-extras python benchmarks/training.py --out OUT --sets wbc-1 --time 2m 10m 30m
    uv run python benchmarks/training.py --report                                                  the page alone

Each training is a process of its own. A row that is in the results is not measured again, so that an interrupted
series goes on; an unfinished run is thrown away, because a resumed one has no honest time. Figures go to
`benchmarks/results/training.json`, tables to `docs/results/training.md`; `--results FOLDER` keeps both elsewhere.
"""

import argparse
import csv
import itertools
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import SKIPWAY, Spent, spend
from series import (
    Row,
    fill,
    found,
    keep,
    machines,
    number,
    origin,
    page_of,
    replaced,
    rows_of,
    table,
    wanted_of,
)
from smaller import smaller_copy

KEYS = ("set", "time", "seed")
USUAL = "10m"
HALF = 2
"""Each side of camvid is halved: a quarter of its pixels, and of the sides of the film (960 × 720)."""


@dataclass(frozen=True)
class Set:
    """A data set as a user names it.

    Attributes:
        data: Paths below the data folder: images and masks, or one that holds both.
        flags: What the data cannot tell.
        images: Path of the images, for `skipway predict`.
        factor: What each side of its pictures is divided by, in a copy.
    """

    data: tuple[str, ...]
    flags: tuple[str, ...] = ()
    images: str = ""
    factor: int = 1


SETS = {
    "dsb2018": Set(("dsb2018/images", "dsb2018/labels"), ("--colour", "grey"), "dsb2018/images"),
    "isbi2012-em": Set(("isbi2012-em/images", "isbi2012-em/labels"), images="isbi2012-em/images"),
    "wbc-1": Set(("wbc-1",), images="wbc-1/images"),
    "camvid": Set(("camvid",), images="camvid/val", factor=HALF),
    "msd-hippocampus": Set(
        ("msd-hippocampus/Task04_Hippocampus",), images="msd-hippocampus/Task04_Hippocampus/imagesTr"
    ),
}

OPENING = """
# Trainings by the clock

`skipway train DATA -o RUN --time T` with no other flag (dsb2018 needs `--colour grey`: it mixes grey and colour
images), each a process of its own. The seconds are wall clock from the start of the command to its exit: check, split,
plan, training, scores and report. The baseline is the simplest method on the same validation images: a side of Otsu's
threshold, or one class everywhere, whichever suits the training images best. Figures are kept in
`benchmarks/results/training.json` by

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/training.py --out OUT
"""


def main() -> None:
    wanted = arguments()
    figures = wanted.results / "training.json"
    rows: list[Row] = rows_of(figures)
    for time in () if wanted.report else wanted.time:
        for name in wanted.sets:
            for seed in wanted.seed:
                if not found(rows, set=name, time=time, seed=seed):
                    row = measured(name, time, seed, wanted.out)
                    print(json.dumps(row, ensure_ascii=False, indent=1), flush=True)
                    rows = replaced(rows, {**row, "machine": origin("skipway", "torch", "numpy")}, KEYS)
                    keep(figures, rows)
    if not rows:
        raise SystemExit(f"{figures} holds no figures yet")
    fill(page_of(wanted.results, "training"), "training", report(rows), OPENING)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--time", nargs="+", default=[USUAL], metavar="T", help="as `skipway train` takes it")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    return wanted_of(parser)


def measured(name: str, time: str, seed: int, out: Path) -> dict[str, Any]:
    """One training with what it took and what came of it."""
    one, root = SETS[name], Path(os.environ["SKIPWAY_DATA"])
    if one.factor > 1:
        smaller_copy(root / name, out / "data" / name, one.factor)
        root = out / "data"
    run = out / "runs" / f"{name}-{time}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    told = ("train", *one.data, *one.flags, "--time", time, *(("--seed", str(seed)) if seed else ()))
    words = ["train", *(root / path for path in one.data), *told[1 + len(one.data) :], "-o", run]
    log = run.with_suffix(".log")
    spent = spend([*SKIPWAY, *words], log)
    return {
        "set": name,
        "time": time,
        "seed": seed,
        "command": " ".join(("skipway", *told)),
        "images_path": one.images,
        **took(seconds(time), spent),
        **outcome(run, log.read_text(encoding="utf-8")),
    }


def seconds(text: str) -> float:
    """Seconds of 90s, 10m, 1h30m or a plain number.

    >>> seconds("20s"), seconds("10m"), seconds("1h30m"), seconds("45")
    (20.0, 600.0, 5400.0, 45.0)
    """
    units = {"h": 3600, "m": 60, "s": 1, "": 1}
    return sum(float(value) * units[unit] for value, unit in re.findall(r"([\d.]+)([hms]?)", text))


def took(asked: float, spent: Spent) -> dict[str, Any]:
    """Time and memory of a row."""
    return {"asked": asked, **asdict(spent), "ratio": spent.seconds / asked}


def outcome(run: Path, log: str) -> dict[str, Any]:
    """What a run folder and the lines of the command say."""
    evaluation, plan, split = (
        json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("evaluation", "plan", "split")
    )
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        metrics = list(csv.DictReader(file))
    lines = dict(re.findall(r"^(\w+) {2,}(.*)$", log, re.MULTILINE))
    em = evaluation["evaluation"].get("em")
    return {
        "steps": int(metrics[-1]["step"]),
        "score": evaluation["score"],
        "score_name": lines.get("score", ", ").split(", ")[1],
        "baseline": evaluation["baseline"],
        "baseline_name": evaluation["baseline_name"],
        "scored": evaluation["scored"],
        "train": len(split["train"]),
        "validate": len(split["val"]),
        "rule": split["rule"],
        **({"v_rand": em["v_rand"], "v_info": em["v_info"]} if em else {}),
        **(by_volume(run) if len(plan["patch"]) == 3 else {}),
        "parameters": parameters(lines.get("model", "")),
        "plan": {key: plan[key] for key in PLAN},
        "curve": [[float(row["seconds"]), float(row["val_score"])] for row in metrics if row["val_score"]],
    }


PLAN = ("model", "config", "loss", "patch", "batch", "steps", "optimiser", "learning_rate", "precision")
"""What is kept of a plan; the whole is in the run folder."""


def parameters(line: str) -> int | None:
    """The count in the line about the model.

    >>> parameters("unet (width 16), 1,942,289 parameters [--model]")
    1942289
    """
    count = re.search(r"([\d,]+) parameters", line)
    return int(count[1].replace(",", "")) if count else None


def by_volume(run: Path) -> dict[str, Any]:
    """The score with each validation volume as one image; torch stays out of this process (see `spend`)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        scores = pool.apply(volume_scores, (run,))
    known = [score for score in scores if score is not None]
    return {"volumes": len(scores), "volume_score": sum(known) / len(known) if known else None}


def volume_scores(run: Path) -> list[float | None]:
    """The task's score of each validation volume, from the written masks."""
    import numpy as np

    from skipway.data.layouts import volumes
    from skipway.images import open_mask
    from skipway.runs import Run
    from skipway.training.prepare import Prepared
    from skipway.training.session import read_mask

    prepared = Prepared.read(Run(run))
    scores = []
    for volume in volumes(prepared.split.val_pairs, 3):
        written = []
        for pair in volume.pairs:
            with open_mask(run / "validation" / f"{pair.name}.tif") as file:
                written.append(file.read()[0])
        truth = np.stack([read_mask(pair) for pair in volume.pairs])
        scores.append(prepared.task.score(np.stack(written), truth))
    return scores


def report(rows: Iterable[Row]) -> str:
    """The written part of the page."""
    order = list(SETS)
    rows = sorted(rows, key=lambda row: (order.index(row["set"]), row["asked"], row["seed"]))
    usual = found(rows, time=USUAL)
    parts = [f"{machines(rows)} One run a row; `load` is the machine's at its end."]
    if usual:
        parts += [f"## `--time {USUAL}`", summary(usual), results_table(usual), *remarks(usual)]
    series = [name for name in order if len({row["time"] for row in found(rows, set=name)}) > 1]
    for name in series:
        parts += [
            f"## {name}: more time",
            results_table(found(rows, set=name)),
            verdict(found(rows, set=name)),
        ]
    if not usual and not series:
        parts += ["## Runs", results_table(rows), *remarks(rows)]
    parts += ["## Plans", plans_table(rows), "## Pictures", pictures(usual or rows)]
    return "\n\n".join(parts)


def summary(rows: list[Row]) -> str:
    """How many kept their time, and how many are above the baseline.

    >>> summary([{"ratio": 1.04, "score": 0.5, "baseline": 0.1}, {"ratio": 1.2, "score": 0.1, "baseline": None}])
    '1 of 2 within 10 % of the time asked; 1 of 2 above the baseline, the smallest gain +0.400.'
    """
    kept = sum(abs(row["ratio"] - 1) <= 0.1 for row in rows)
    both = [row for row in rows if row["score"] is not None and row["baseline"] is not None]
    gains = [row["score"] - row["baseline"] for row in both]
    above = f"{sum(gain > 0 for gain in gains)} of {len(rows)} above the baseline"
    least = f", the smallest gain {min(gains):+.3f}" if gains else ""
    return f"{kept} of {len(rows)} within 10 % of the time asked; {above}{least}."


def results_table(rows: Iterable[Row]) -> str:
    columns = (
        "set,asked s,used s,ratio,steps,score,baseline,score is,images (train / validate),CPU s,peak MiB,load"
    )
    return table(
        columns.split(","),
        (
            [
                row["set"] + (f", seed {row['seed']}" if row["seed"] else ""),
                f"{row['asked']:g}",
                f"{row['seconds']:.0f}",
                f"{row['ratio']:.2f}",
                str(row["steps"]),
                f"**{number(row['score'])}**",
                f"{number(row['baseline'])} ({row['baseline_name']})",
                row["score_name"],
                f"{row['train']} / {row['validate']}",
                f"{row['cpu']:.0f}",
                f"{row['peak']:.0f}",
                f"{row['load']:.1f}",
            ]
            for row in rows
        ),
    )


def remarks(rows: Iterable[Row]) -> list[str]:
    """What the score of a set does not say."""
    lines = []
    for row in rows:
        if "v_rand" in row:
            lines.append(
                f"- {row['set']}: thinned V_rand {number(row['v_rand'])}, V_info {number(row['v_info'])} (hard labels)."
            )
        if "volumes" in row:
            lines.append(
                f"- {row['set']}: the images are the pages of {row['volumes']} volumes; every page is scored alone, "
                f"and the score is the mean of the {row['scored']} pages that have one (a page where neither truth nor "
                "prediction has a class has none). With each volume scored as one image, the mean is "
                f"{number(row['volume_score'])}."
            )
        if SETS[row["set"]].factor > 1:
            lines.append(
                f"- {row['set']}: each side divided by {SETS[row['set']].factor}: images by the mean of each block, "
                "masks by its middle pixel."
            )
    return ["\n".join(dict.fromkeys(lines))] if lines else []


def verdict(rows: Iterable[Row]) -> str:
    """Whether more time was ever worse.

    >>> verdict([{"time": "2m", "asked": 120, "score": 0.5}, {"time": "10m", "asked": 600, "score": 0.4}])
    'From 2m to 10m the score falls by 0.1000. One run each: the noise between seeds is not known from this table.'
    """
    by_time: dict[float, list[Row]] = {}
    for row in rows:
        by_time.setdefault(row["asked"], []).append(row)
    means = [
        (group[0]["time"], sum(row["score"] or 0.0 for row in group) / len(group))
        for _, group in sorted(by_time.items())
    ]
    told = []
    for (first, low), (second, high) in itertools.pairwise(means):
        way = "rises" if high >= low else "falls"
        told.append(f"From {first} to {second} the score {way} by {abs(high - low):.4f}.")
    if all(len(group) == 1 for group in by_time.values()):
        told.append("One run each: the noise between seeds is not known from this table.")
    return " ".join(told)


def plans_table(rows: Iterable[Row]) -> str:
    columns = "set,time,network,width,depth,parameters,patch,batch,precision,steps,loss,optimiser"
    return table(
        columns.split(","),
        (
            [
                row["set"],
                row["time"],
                plan["model"],
                str(plan["config"].get("width", "")),
                str(plan["config"].get("depth", "")),
                "" if row["parameters"] is None else f"{row['parameters']:,}",
                "×".join(map(str, plan["patch"])),
                str(plan["batch"]),
                plan["precision"],
                str(plan["steps"]),
                plan["loss"],
                f"{plan['optimiser']} at {plan['learning_rate']:g}",
            ]
            for row in rows
            for plan in [row["plan"]]
        ),
    )


def pictures(rows: Iterable[Row]) -> str:
    """The commands that draw the pictures, which may not be shown here."""
    lines = [
        "Most of these images may not be redistributed, so none is shown. Every training draws its own:",
        "`OUT/runs/<set>-<time>-<seed>/report.html` has the curves and the six worst validation images with truth,",
        "prediction and errors, `validation/` beside it all predicted masks. The same from the data folder (for the",
        "smaller copy, from `OUT/data`):",
        "",
    ]
    for row in rows:
        lines.append(f"    {row['command']} -o RUN && skipway predict RUN {row['images_path']} -o MASKS")
    return "\n".join(dict.fromkeys(lines))


if __name__ == "__main__":
    main()
