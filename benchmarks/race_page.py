"""The page of the races: who won, and every figure behind it."""

import statistics
from collections.abc import Iterable

from series import Row, found, machines, number, spread, table
from training import seconds

RACED = ("dsb2018", "wbc-1")
LATE = 1.1
"""Share of its time beyond which a command has overrun it."""
US = "skipway"
NAMES = {
    US: "skipway",
    "smp": "smp Unet, resnet34 from scratch, Adam 1e-3",
    "smp-cosine": "the same, 2e-4 to 1e-5 by a cosine",
    "monai": "MONAI BasicUNet, MONAI's transforms, Adam 1e-3",
}
OBJECTS, CLASSES = (
    {
        "score": "AP at IoU 0.5",
        "dice": "pixel Dice",
        "mean_ap": "mean AP",
        "pq": "PQ",
        "plain": "AP, plain regions",
    },
    {"score": "mean Dice"},
)

OPENING = """
# Races

Equal wall time on the same images, the same machine and the same number of threads, one process after the other; the
page and `benchmarks/results/races.json` are written by

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/races.py --out OUT

- **skipway** is `skipway train DATA --time T` with no other flag but the seed (dsb2018: `--colour grey`): the whole
  command, with start, check, plan, validations, scores and report, has to fit into T.
- **smp**: `smp.Unet("resnet34", encoder_weights=None)`, batches of 8 at 160 × 160, the numbers of the package's own
  example for a CPU (`examples/binary_segmentation_intro_cpu.py`), here as random crops (128 × 128 where images are
  120) with random flips; images normalised by mean and deviation of the training set, Adam at its default 1e-3,
  cross-entropy + smp's Dice loss. A second entry, `--contestants smp-cosine`, has the rate of that example: 2e-4, by a
  cosine to 1e-5 at the end of T.
- **MONAI**: `BasicUNet` with its default features; `ScaleIntensityd`, `RandCropByPosNegLabeld` (2 images × 4 crops of
  96 × 96, half of them around foreground), `RandFlipd`, `RandRotate90d`, `RandGaussianNoised`, `DiceCELoss`, Adam at
  1e-3, `sliding_window_inference` of 96 × 96: the numbers of MONAI's tutorial
  `2d_segmentation/torch/unet_training_dict.py`.
- Peers get T for reading the data and training alone. Their imports and their predictions are free, which is generous.
- Everybody predicts with what the last step left (skipway with its average of weights); nobody picks weights by the
  validation images. Peers read images in the process that trains, for there are no more cores than threads.
- The training and validation images are those of the run's `split.json`, for everyone; each seed draws its own split
  where a lot decides. What a peer predicts is a class of each pixel; it is decoded as skipway decodes its own (objects:
  connected regions of the foreground, small ones dropped, gaps between neighbours closed), written, read again and
  scored by `skipway.evaluation`. "Plain regions" are a peer's connected regions as they are.
- The baseline is the simplest method on the same images: a side of Otsu's threshold, or one class everywhere.
"""


def report(rows: Iterable[Row]) -> str:
    """The written part of the page."""
    rows = list(rows)
    parts = [machines(rows)]
    for name in RACED:
        for time in sorted({row["time"] for row in found(rows, set=name)}, key=seconds):
            here = found(rows, set=name, time=time)
            seeds = whole_seeds(here)
            if seeds:
                here = sorted(here, key=lambda row: row["seed"])
                parts += [f"## {name}, {time} each", verdict(here, seeds), scores_table(here, seeds)]
    return "\n\n".join(parts)


def whole_seeds(rows: Iterable[Row]) -> list[int]:
    """The seeds that every contestant of these rows has run."""
    by_name: dict[str, set[int]] = {}
    for row in rows:
        by_name.setdefault(row["contestant"], set()).add(row["seed"])
    return sorted(set.intersection(*by_name.values())) if US in by_name else []


def figures_of(rows: Iterable[Row], who: str, score: str, seeds: Iterable[int]) -> list[float]:
    """One score of a contestant, in the order of the seeds; an undefined one counts 0."""
    return [(found(rows, contestant=who, seed=seed)[0].get(score) or 0.0) for seed in seeds]


def verdict(rows: list[Row], seeds: list[int]) -> str:
    """Won or lost, in a sentence: against the best peer, seed by seed."""
    mine = figures_of(rows, US, "score", seeds)
    peers = [who for who in NAMES if who != US and found(rows, contestant=who)]
    others = {who: figures_of(rows, who, "score", seeds) for who in peers}
    if not others:
        return "Nobody else has run yet."
    best = max(others, key=lambda who: statistics.fmean(others[who]))
    gains = [a - b for a, b in zip(mine, others[best], strict=True)]
    ahead, gain = sum(g > 0 for g in gains), statistics.fmean(gains)
    word = "Won" if gain > 0 else "Lost" if gain < 0 else "Even"
    each = ", ".join(f"{g:+.3f}" for g in gains)
    won = f"**{word}** by {abs(gain):.3f} against {NAMES[best]}, ahead in {ahead} of {len(gains)} seeds ({each})."
    shares = [
        row["seconds"] / seconds(row["time"]) for row in found(rows, contestant=US) if row["seed"] in seeds
    ]
    late = (
        f" skipway took up to {max(shares):.2f} times its budget: not an equal race."
        if max(shares) > LATE
        else ""
    )
    return won + late


def scores_table(rows: list[Row], seeds: list[int]) -> str:
    """All scores of all contestants, and the baseline."""
    names = OBJECTS if any("dice" in row for row in rows) else CLASSES
    columns = ["", *(f"{title}, seed {seed}" for title in [names["score"]] for seed in seeds)]
    columns += [
        "mean ± sd",
        *(title for key, title in names.items() if key != "score"),
        "steps",
        "seconds",
        "load",
    ]
    lines = []
    for who, title in NAMES.items():
        own = [row for row in found(rows, contestant=who) if row["seed"] in seeds]
        if own:
            cells = [
                title,
                *(number(row["score"]) for row in own),
                spread(figures_of(rows, who, "score", seeds)),
            ]
            cells += [
                spread(figures_of(rows, who, key, seeds)) if key in own[0] else ""
                for key in names
                if key != "score"
            ]
            cells += [
                f"{statistics.fmean(row[key] for row in own):.{digits}f}" for key, digits in COSTS.items()
            ]
            lines.append(cells)
    simple = [row for row in found(rows, contestant=US) if row["seed"] in seeds]
    cells = [simple[0]["baseline_name"], *(number(row["baseline"]) for row in simple)]
    cells += [spread(figures_of(rows, US, "baseline", seeds))]
    lines.append(cells + [""] * (len(columns) - len(cells)))
    return table(columns, lines)


COSTS = {"steps": 0, "seconds": 0, "load": 1}
"""Columns whose mean is given, and its digits."""
