"""From 16 slices of electron microscopy to V_rand: what `skipway train` reaches in how many seconds.

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/em_curve.py --out OUT --device cuda --time 30s 1m 2m 4m 8m
    uv run python benchmarks/em_curve.py --report                                                  the page alone

Every point is a training of its own with that time and no other choice, so that it is what a user who asks for it
gets; its seconds are wall clock from the start of the command to its exit. The last four of the twenty slices of ISBI
2012 validate, as the command itself splits them. V_rand is thinned and foreground-restricted, with the best threshold
over the validation slices, as the challenge scores. Figures go to `benchmarks/results/em_curve.json` with the name of
the machine, table and curve to `docs/results/em-curve.md` and `.svg`; `--results FOLDER` keeps them elsewhere.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from processes import SKIPWAY, spend
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
from training import outcome, seconds

KEYS = ("device", "machine", "time", "seed")
GOAL = 0.97
TRAIN = [f"{k:02d}" for k in range(16)]
OPENING = f"""
# Membranes against the clock

ISBI 2012 electron microscopy: slices 00–15 train, 16–19 validate. Thinned V_rand with the best threshold over the
validation slices; the aim is {GOAL}. Every point is a training of its own with that budget and no other choice. The
paper trained for ten hours on a GPU of 2015, and is scored on other slices. Written, with
`benchmarks/results/em_curve.json`, by

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/em_curve.py --out OUT --device cuda --time 30s 1m 2m 4m 8m
"""


def main() -> None:
    wanted = arguments()
    figures = wanted.results / "em_curve.json"
    rows: list[Row] = rows_of(figures)
    machine = "" if wanted.report else machine_of(wanted.device)
    for time in () if wanted.report else wanted.time:
        for seed in wanted.seed:
            key = {"device": wanted.device, "machine": machine, "time": time, "seed": seed}
            if not found(rows, **key):
                row = {**key, **measured(time, seed, wanted.device, wanted.out)}
                print(json.dumps(row, ensure_ascii=False, indent=1), flush=True)
                rows = replaced(rows, row, KEYS)
                keep(figures, rows)
    if not rows:
        raise SystemExit(f"{figures} holds no figures yet")
    page = page_of(wanted.results, "em-curve")
    page.with_suffix(".svg").write_text(curve(rows), encoding="utf-8")
    fill(page, "em_curve", report(rows), OPENING)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--time", nargs="+", default=["1m", "2m", "4m", "8m"], metavar="T")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    return wanted_of(parser)


def machine_of(device: str) -> str:
    """Processor, versions and the name of the accelerator, asked in a process of its own."""
    place = origin("skipway", "torch")
    if not device.startswith("cuda"):
        return place
    ask = f"import torch; print(torch.cuda.get_device_name({device!r}))"
    name = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    return f"{name.strip()}; {place}"


def measured(time: str, seed: int, device: str, out: Path) -> dict[str, Any]:
    """One training, and the scores of its probabilities on the validation slices."""
    source = Path(os.environ["SKIPWAY_DATA"]) / "isbi2012-em"
    run = out / "em" / f"{device.replace(':', '')}-{time}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    words = [
        "train",
        source / "images",
        source / "labels",
        "--time",
        time,
        "--seed",
        str(seed),
        "--device",
        device,
    ]
    spent = spend([*SKIPWAY, *words, "-o", run], log := run.with_suffix(".log"))
    came = outcome(run, log.read_text(encoding="utf-8"))
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    if sorted(split["train"]) != TRAIN:
        raise SystemExit(f"{run} trained on {', '.join(split['train'])}, not on slices 00 to 15")
    images, masks = (
        chosen(source, split["val"], out / "em" / "validation"),
        run.with_name(f"{run.name}-masks"),
    )
    shutil.rmtree(masks, ignore_errors=True)
    flags = ["--probabilities", "--device", device]
    spend([*SKIPWAY, "predict", run, images / "images", "-o", masks, *flags], run.with_suffix(".predict.log"))
    scores = run.with_suffix(".scores.json")
    words = ["evaluate", masks, images / "labels", "--json", scores]
    spend([*SKIPWAY, *words], run.with_suffix(".evaluate.log"))
    em = json.loads(scores.read_text(encoding="utf-8"))["em"]
    return {
        "asked": seconds(time),
        **{key: value for key, value in asdict(spent).items() if key != "peak"},
        "v_rand": em["v_rand"],
        "v_info": em["v_info"],
        "v_rand_hard": came.get("v_rand"),
        "score": came["score"],
        "baseline": came["baseline"],
        **{key: came[key] for key in ("steps", "parameters", "plan", "curve")},
    }


def chosen(source: Path, names: Iterable[str], target: Path) -> Path:
    """Links to images and labels of some slices."""
    for kind in ("images", "labels"):
        (target / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            link = target / kind / f"{name}.png"
            if not link.exists():
                link.symlink_to((source / kind / f"{name}.png").resolve())
    return target


def report(rows: Iterable[Row]) -> str:
    """The written part of the page."""
    rows = sorted(rows, key=lambda row: (row["machine"], row["asked"], row["seed"]))
    parts = []
    for machine in dict.fromkeys(row["machine"] for row in rows):
        here = found(rows, machine=machine)
        parts += [machines(here), reached(here), points_table(here)]
    return "\n\n".join([*parts, "![V_rand over seconds](em-curve.svg)"])


def reached(rows: Iterable[Row]) -> str:
    """The shortest training that met the aim.

    >>> reached([{"seconds": 61.0, "v_rand": 0.98, "time": "1m"}, {"seconds": 31.0, "v_rand": 0.9, "time": "30s"}])
    'V_rand of 0.97 in 61 s (`--time 1m`: 0.980).'
    """
    there = [row for row in rows if row["v_rand"] >= GOAL]
    if not there:
        best = max(rows, key=lambda row: row["v_rand"])
        return f"V_rand of {GOAL} was not reached; the best is {number(best['v_rand'])} in {best['seconds']:.0f} s."
    first = min(there, key=lambda row: row["seconds"])
    return (
        f"V_rand of {GOAL} in {first['seconds']:.0f} s (`--time {first['time']}`: {number(first['v_rand'])})."
    )


def points_table(rows: Iterable[Row]) -> str:
    columns = (
        "time,seed,seconds,steps,V_rand,V_info,V_rand of hard labels,Dice,width,patch,batch,precision,load"
    )
    return table(
        columns.split(","),
        (
            [
                row["time"],
                str(row["seed"]),
                f"{row['seconds']:.0f}",
                str(row["steps"]),
                f"**{number(row['v_rand'])}**",
                number(row["v_info"]),
                number(row["v_rand_hard"]),
                number(row["score"]),
                str(row["plan"]["config"].get("width", "")),
                "×".join(map(str, row["plan"]["patch"])),
                str(row["plan"]["batch"]),
                row["plan"]["precision"],
                f"{row['load']:.1f}",
            ]
            for row in rows
        ),
    )


def curve(rows: Iterable[Row]) -> str:
    """V_rand over seconds (logarithmic) as SVG, a line a machine, and the aim."""
    rows = sorted(rows, key=lambda row: row["seconds"])
    width, height, left, bottom = 560, 300, 50, 40
    first, last = (math.log(pick(row["seconds"] for row in rows)) for pick in (min, max))
    low = min(0.9, min(row["v_rand"] for row in rows)) // 0.05 * 0.05

    def place(row_seconds: float, value: float) -> tuple[float, float]:
        across = (math.log(row_seconds) - first) / ((last - first) or 1.0)
        up = (value - low) / (1 - low)
        return left + across * (width - left - 20), height - bottom - up * (height - bottom - 15)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    ]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/><g font-size="12" fill="#333">')
    for value in sorted({round(low, 2), GOAL, 1.0}):
        _, y = place(rows[0]["seconds"], value)
        dash = ' stroke-dasharray="4 3"' if value == GOAL else ""
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#aaa"{dash}/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for asked in sorted({row["seconds"] for row in rows}):
        x, y = place(asked, low)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{asked:.0f}</text>')
    parts.append(
        f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">seconds of the whole command</text></g>'
    )
    for machine, colour in zip(
        dict.fromkeys(row["machine"] for row in rows), COLOURS * len(rows), strict=False
    ):
        points = [place(row["seconds"], row["v_rand"]) for row in found(rows, machine=machine)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    return "\n".join([*parts, "</svg>"]) + "\n"


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's, told apart by everyone."""


if __name__ == "__main__":
    main()
