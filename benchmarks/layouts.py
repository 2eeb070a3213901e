"""Real data sets as they lie there, through `check`, `train --steps 50` and `predict`, with no file renamed.

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/layouts.py --out OUT [NAME …]

Every set is given to the commands as it was published or is shared, with the flags that its row names and no others.
The figures say that the data went through and were understood, not how well a network can do: 50 steps are few.
They go to `benchmarks/results/layouts.json` and to the table in `docs/results/layouts.md`; sets named on the
command line replace their own rows.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

STEPS = 50
PAGE = Path(__file__).parent.parent / "docs" / "results" / "layouts.md"
BEGIN, END = "<!-- table: written by benchmarks/layouts.py -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Set:
    """A data set as a user names it.

    Attributes:
        name: Of the row.
        data: Paths below the data folder: images and masks, or one that holds both.
        flags: What the layout cannot tell.
        new: What is predicted; the images unless given.
    """

    name: str
    data: tuple[str, ...]
    flags: tuple[str, ...] = ()
    new: str | None = None


SETS = (
    Set("dsb2018", ("dsb2018/images", "dsb2018/labels"), ("--colour", "grey")),
    Set("dsb2018, as published", ("dsb2018/original-layout/stage1_train",)),
    Set("isbi2012-em", ("isbi2012-em/images", "isbi2012-em/labels")),
    Set(
        "isbi2012-em, as published",
        ("isbi2012-em/original-layout/train-volume.tif", "isbi2012-em/original-layout/train-labels.tif"),
    ),
    Set("bbbc039", ("bbbc039",)),
    Set("bbbc039, as published", ("bbbc039/original-layout",), ("--task", "objects")),
    Set("camvid", ("camvid",), new="camvid/val"),
    Set("wbc-1", ("wbc-1",), new="wbc-1/original-layout/Dataset 1"),
    Set("wbc-1, as published", ("wbc-1/original-layout/Dataset 1",)),
    Set("chest-xray-multilabel", ("chest-xray-multilabel",)),
    Set("crackforest", ("crackforest",), new="crackforest/original-layout/image"),
    Set("crackforest, as published", ("crackforest/original-layout",)),
    Set(
        "ctc-phc-u373, gold",
        ("ctc-phc-u373/images", "ctc-phc-u373/labels_gold"),
        ("--layout", "partly"),
    ),
    Set("ctc-phc-u373, silver", ("ctc-phc-u373/images", "ctc-phc-u373/labels_silver")),
    Set("ctc-phc-u373, as published", ("ctc-phc-u373/original-layout/PhC-C2DH-U373",)),
    Set(
        "msd-hippocampus, as published",
        ("msd-hippocampus/Task04_Hippocampus",),
        new="msd-hippocampus/Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz",
    ),
    Set("nuclei3d-mini", ("nuclei3d-mini/img3d.tif", "nuclei3d-mini/mask3d.tif")),
)


def main() -> None:
    options = arguments()
    data = Path(os.environ["SKIPWAY_DATA"])
    known = (
        json.loads(figures.read_text())["sets"]
        if (figures := common.RESULTS / "layouts.json").exists()
        else {}
    )
    for one in SETS:
        if not options.names or one.name in options.names:
            known[one.name] = measured(one, data, options.out / one.name.replace(", ", "-").replace(" ", "-"))
            keep({one.name: known[one.name] for one in SETS if one.name in known}, figures)


def keep(rows: Mapping[str, Mapping[str, Any]], figures: Path) -> None:
    """Write the figures and the table of the page."""
    facts = {"steps": STEPS, "machine": common.machine("torch"), "sets": rows}
    figures.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=())
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and predictions")
    return parser.parse_args()


def measured(one: Set, data: Path, out: Path) -> dict[str, Any]:
    """What the three commands said of a data set."""
    paths = [str(data / path) for path in one.data]
    fixed = ("--steps", str(STEPS), "--device", "cpu")
    check, _ = events("check", *paths, *one.flags)
    train, told = events("train", *paths, *one.flags, *fixed, "-o", str(out / "run"))
    new = str(data / one.new) if one.new else paths[0]
    predict, done = events("predict", str(out / "run"), new, "-o", str(out / "predicted"), "--device", "cpu")
    lines = {event["name"]: event["text"] for event in told if event["event"] == "line"}
    finished = told[-1]
    row = {
        "command": " ".join(("skipway train", *map(quoted, one.data), *one.flags)),
        "understood": lines["data"].partition(": ")[2],
        "labels": lines["labels"],
        "split": lines["split"],
        "warnings": [event["text"] for event in told if event["event"] == "warning"],
        "score": finished["score"],
        "baseline": finished["baseline"],
        "baseline_name": finished["baseline_name"],
        "predicted": done[-1]["written"],
        "seconds": {"check": check, "train": train, "predict": predict},
    }
    print(f"{one.name}: {json.dumps(row, ensure_ascii=False, indent=1)}", flush=True)
    return row


def quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


def events(*words: str) -> tuple[float, list[dict[str, Any]]]:
    """Wall seconds of a command, and what it told; a command that fails ends the benchmark with its message."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "skipway", *words, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"skipway {' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr}"
        )
    seconds = round(time.perf_counter() - began, 1)
    if words[0] == "check":
        return seconds, [json.loads(done.stdout)]
    return seconds, [json.loads(line) for line in done.stdout.splitlines()]


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the page."""
    lines = [
        "| set | command | understood | labels | split | score | baseline | seconds (check, train, predict) |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        told = (re.sub(r" \[--[^]]*\]$", "", row[key]) for key in ("understood", "labels", "split"))
        cells = [name, f"`{row['command']}`", *told]
        cells += [number(row["score"]), f"{number(row['baseline'])} ({row['baseline_name']})"]
        cells.append(", ".join(f"{value:g}" for value in row["seconds"].values()))
        lines.append(line(cells))
    return "\n".join(lines)


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
