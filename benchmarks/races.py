"""Equal wall time in one run: skipway, a plain recipe around smp's Unet, MONAI's BasicUNet with its transforms.

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/races.py --out OUT [--time 10m] [--seeds 0 1 2]
    uv run python benchmarks/races.py --report                                         the page alone

Seed by seed and set by set the contestants follow one another, each a process of its own with as many threads. The
time of skipway is that of the whole command, as its user types it; peers get the same seconds for reading the data and
training, and their imports and predictions are free. All train and predict the images of the run's split.json; all
class maps are decoded and scored by the same code. Figures go to `benchmarks/results/races.json`, tables to
`docs/results/races.md`; rows that are there are not run again; `--results FOLDER` keeps both elsewhere.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

# isort: split
from processes import SKIPWAY, spend
from race_data import Job, class_map_of
from race_page import NAMES, OPENING, RACED, US, report
from series import Row, fill, found, keep, origin, page_of, replaced, rows_of, wanted_of
from skipway.data.layouts import Pair
from skipway.evaluation.arrays import evaluate_arrays
from skipway.images import open_mask, write_labels
from skipway.metrics.objects import components, match, overlap_table
from skipway.metrics.pixel import mean_defined
from skipway.runs import Run
from skipway.training.prepare import Prepared
from skipway.training.session import read_mask
from training import SETS, seconds

KEYS = ("set", "time", "seed", "contestant")
PACKAGES = ("skipway", "torch", "numpy", "segmentation-models-pytorch", "monai")
HERE = Path(__file__).parent
PEERS = {
    "smp": ("race_smp.py",),
    "smp-cosine": ("race_smp.py", "--cosine"),
    "monai": ("race_monai.py",),
}


def main() -> None:
    wanted = arguments()
    figures = wanted.results / "races.json"
    rows: list[Row] = rows_of(figures)
    for row in () if wanted.report else raced(wanted, rows):
        print(json.dumps(row, ensure_ascii=False), flush=True)
        rows = replaced(rows, {**row, "threads": wanted.threads, "machine": origin(*PACKAGES)}, KEYS)
        keep(figures, rows)
    if not rows:
        raise SystemExit(f"{figures} holds no figures yet")
    fill(page_of(wanted.results, "races"), "races", report(rows), OPENING)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=RACED, default=list(RACED))
    parser.add_argument("--time", default="10m", metavar="T", help="as `skipway train` takes it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--contestants", nargs="+", choices=NAMES, default=[US, "smp", "monai"])
    parser.add_argument("--threads", type=int, default=2)
    return wanted_of(parser)


def raced(wanted: argparse.Namespace, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """The rows that are missing. Skipway goes first: its split is everybody's."""
    for seed in wanted.seeds:
        for name in wanted.sets:
            key = {"set": name, "time": wanted.time, "seed": seed}
            open_ = [
                who for who in NAMES if who in wanted.contestants and not found(rows, **key, contestant=who)
            ]
            place = wanted.out / "races" / f"{name}-{wanted.time}-{seed}"
            run = place / US
            if open_ and not (place / "finished").is_file() and US not in open_:
                raise SystemExit(
                    f"{run} is not there, and its split is everybody's: give the same --out as before"
                )
            for who in open_:
                enter = ours if who == US else peer
                yield {**key, "contestant": who, **enter(name, who, wanted, seed, place)}


def ours(name: str, who: str, wanted: argparse.Namespace, seed: int, place: Path) -> dict[str, Any]:
    """The command that a user types."""
    one, root = SETS[name], Path(os.environ["SKIPWAY_DATA"])
    run = place / who
    (place / "finished").unlink(missing_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    words = [
        "train",
        *(root / path for path in one.data),
        *one.flags,
        "--time",
        wanted.time,
        "--seed",
        str(seed),
    ]
    words += ["--device", "cpu", "-o", run]
    spent = spend([*SKIPWAY, *words], run.with_suffix(".log"), threads(wanted))
    (place / "finished").write_text("")
    prepared, evaluation = Prepared.read(Run(run)), Run(run).read("evaluation")
    scores = scored(prepared, run / "validation")
    if scores["score"] != evaluation["score"]:  # the run's own figure, by the same code from the same masks
        raise SystemExit(f"{run}: scored {scores['score']}, and the run says {evaluation['score']}")
    return {
        "steps": prepared.plan.steps,
        **{key: value for key, value in asdict(spent).items() if key != "peak"},
        **scores,
        "baseline": evaluation["baseline"],
        "baseline_name": evaluation["baseline_name"],
    }


def peer(name: str, who: str, wanted: argparse.Namespace, seed: int, place: Path) -> dict[str, Any]:
    """A peer on the split of the run beside it."""
    prepared, folder = Prepared.read(Run(place / US)), place / who
    shutil.rmtree(folder, ignore_errors=True)
    job = job_of(prepared, seconds(wanted.time), seed, folder).write(folder / "job.json")
    script, *flags = PEERS[who]
    spent = spend([sys.executable, HERE / script, job, *flags], folder / "log.txt", threads(wanted))
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    plain = decoded(prepared, folder)
    return {
        "steps": facts["steps"],
        "seconds": facts["seconds"],
        "cpu": spent.cpu,
        "load": spent.load,
        **scored(prepared, folder / "masks"),
        **({"plain": plain} if prepared.labels.task == "objects" else {}),
    }


def threads(wanted: argparse.Namespace) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(wanted.threads), "MKL_NUM_THREADS": str(wanted.threads)}


def job_of(prepared: Prepared, seconds_: float, seed: int, out: Path) -> Job:
    """What a peer is given of a run's split."""

    def pictures(pairs: Iterable[Pair]) -> tuple[tuple[str, str, str], ...]:
        return tuple((pair.name, str(pair.image.path), str(pair.mask.path)) for pair in pairs)

    return Job(
        train=pictures(prepared.split.train_pairs),
        val=pictures(prepared.split.val_pairs),
        values=prepared.labels.values,
        objects=prepared.labels.task == "objects",
        grey=prepared.normalisation.colour == "grey",
        seconds=seconds_,
        seed=seed,
        out=str(out),
    )


def decoded(prepared: Prepared, folder: Path) -> float | None:
    """Write the masks of a peer's class maps; the AP of their plain connected regions, where objects are wanted."""
    plain = []
    for pair in prepared.split.val_pairs:
        with open_mask(class_map_of(folder, pair.name)) as file:
            class_map = file.read()[0]
        path = folder / "masks" / f"{pair.name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, prepared.task.decode(class_map))
        if prepared.labels.task == "objects":
            truth = prepared.labels.instances(read_mask(pair))
            plain.append(match(overlap_table(truth, components(class_map == 1)), 0.5).ap)
    return mean_defined(plain)[0]


def scored(prepared: Prepared, folder: Path) -> dict[str, float | None]:
    """The scores of written masks on the validation images."""
    masks = []
    for pair in prepared.split.val_pairs:
        with open_mask(folder / f"{pair.name}.tif") as file:
            masks.append((pair.name, read_mask(pair), file.read()[0]))
    score, _ = mean_defined(prepared.task.score(mask, truth) for _, truth, mask in masks)
    if prepared.labels.task != "objects":
        return {"score": score}
    means = evaluate_arrays(masks, prepared.labels).to_json()
    inside = list(means["classes"].values())[1]
    return {
        "score": score,
        "dice": inside["dice"],
        "mean_ap": means["objects"]["mean_ap"],
        "pq": means["objects"]["pq"],
    }


if __name__ == "__main__":
    main()
