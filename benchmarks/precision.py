"""Score and CPU time of the same training in fp32 and in bfloat16: same plan, data, seed and steps.

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/precision.py --out OUT
    uv run python benchmarks/precision.py --report                                      the page alone

`skipway train DATA --steps N --seed S` makes the plan; its `plan.json` with another precision is trained with `--plan`.
A row that is in the results is not measured again. Figures go to `benchmarks/results/precision.json`, the table to
`docs/results/training.md`; `--results FOLDER` keeps both elsewhere.
"""

import argparse
import json
import os
import shutil
import statistics
from collections.abc import Iterable
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
    spread,
    table,
    wanted_of,
)

SETS = {
    "dsb2018": (("dsb2018/images", "dsb2018/labels"), ("--colour", "grey")),
    "isbi2012-em": (("isbi2012-em/images", "isbi2012-em/labels"), ()),
    "wbc-1": (("wbc-1",), ()),
}
"""Paths below the data folder, and what the data cannot tell."""

PRECISIONS = ("fp32", "bf16")
KEYS = ("set", "seed", "precision")


def main() -> None:
    wanted = arguments()
    figures = wanted.results / "precision.json"
    rows: list[Row] = rows_of(figures)
    for seed in () if wanted.report else wanted.seed:
        for name in wanted.sets:
            if len(found(rows, set=name, seed=seed)) < len(PRECISIONS):
                for row in measured(name, seed, wanted.steps, wanted.out):
                    print(json.dumps(row), flush=True)
                    rows = replaced(rows, {**row, "machine": origin("skipway", "torch")}, KEYS)
                keep(figures, rows)
    if not rows:
        raise SystemExit(f"{figures} holds no figures yet")
    fill(page_of(wanted.results, "training"), "precision", report(rows), "# Trainings by the clock")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    return wanted_of(parser)


def measured(name: str, seed: int, steps: int, out: Path) -> Iterable[dict[str, Any]]:
    """Two trainings: as they are planned, and with the other precision."""
    first = out / f"{name}-{seed}-planned"
    yield row_of(name, seed, steps, first, ("--steps", str(steps), "--seed", str(seed)))
    plan = json.loads((first / "plan.json").read_text(encoding="utf-8"))
    other = out / f"{name}-{seed}.json"
    (precision,) = {*PRECISIONS} - {plan["precision"]}
    other.write_text(json.dumps({**plan, "precision": precision}), encoding="utf-8")
    yield row_of(name, seed, steps, out / f"{name}-{seed}-{precision}", ("--plan", str(other)))


def row_of(name: str, seed: int, steps: int, run: Path, flags: Iterable[str]) -> dict[str, Any]:
    """One training."""
    paths, told = SETS[name]
    data = [Path(os.environ["SKIPWAY_DATA"]) / path for path in paths]
    shutil.rmtree(run, ignore_errors=True)
    spent = spend([*SKIPWAY, "train", *data, *told, *flags, "-o", run], run.with_suffix(".log"))
    facts = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    return {
        "set": name,
        "seed": seed,
        "precision": plan["precision"],
        "steps": steps,
        **{key: facts[key] for key in ("score", "baseline", "scored")},
        "cpu": spent.cpu,
    }


def report(rows: Iterable[Row]) -> str:
    """The written part of the page."""
    rows, cells = list(rows), []
    for name in SETS:
        pairs = [
            [found(rows, set=name, seed=seed, precision=precision)[0] for precision in PRECISIONS]
            for seed in sorted({row["seed"] for row in found(rows, set=name)})
            if len(found(rows, set=name, seed=seed)) == len(PRECISIONS)
        ]
        if pairs:
            one = pairs[0][0]
            scores = [spread([row["score"] for row in side]) for side in zip(*pairs, strict=True)]
            apart = spread([b["score"] - a["score"] for a, b in pairs])
            cpu = number(statistics.fmean(b["cpu"] / a["cpu"] for a, b in pairs), 2)
            counts = [str(one["steps"]), str(one["scored"]), str(len(pairs))]
            cells.append([name, *counts, *scores, apart, number(one["baseline"]), cpu])
    columns = ["set", "steps", "n", "seeds", *PRECISIONS, "bf16 − fp32", "baseline", "CPU of the command"]
    opening = (
        f"{machines(rows)} The same plan, split and seed in both. Scores of n validation images, mean ± standard "
        "deviation over the seeds, the difference seed by seed; CPU time of the whole command, bf16 over fp32."
    )
    return "\n\n".join(("## The score in bfloat16", opening, table(columns, cells)))


if __name__ == "__main__":
    main()
