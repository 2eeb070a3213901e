"""A petabyte on paper: regions, hours and cost of a prediction on many machines, held against a simulated scheduler.

    uv run python benchmarks/petabyte.py [--price 0.02] [--regions 24]      times regions here, plans, simulates
    uv run python benchmarks/petabyte.py --report                           the page alone

A region is what `skipway predict` makes at once, with the context it reads. Regions are timed one after the other on
one thread of this machine; the times are drawn from again, with their spread, for every region of a farm. Figures go
to `benchmarks/results/petabyte.json`, tables to `docs/results/petabyte.md`; `--results FOLDER` keeps both elsewhere.
"""

import argparse
import heapq
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common  # before torch: it settles how threads wait

# isort: split
import numpy as np

from series import Row, fill, keep, machines, origin, page_of, rows_of, table

PETABYTE = 10**15
HOUR = 3600.0
DRAWN = 100_000
"""Tasks of a simulation at most; a farm with more is simulated with as many tasks a worker, and fewer workers."""

OPENING = """
# A petabyte on paper

How long a prediction of 10¹⁵ grey pixels (8 bit) would take on many machines, and what it would cost. The times of a
region are measured; the farm is not: its size, links, failures and prices are assumptions. What a scheduler makes of
them is simulated, task by task, and the paper has to agree with it.
"""


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        name: Network and region, for the table.
        regions: How many.
        reads: Bytes of a region that are read, its context with it.
        writes: Bytes of a region that are written.
        seconds: Measured times of regions on one core.
    """

    name: str
    regions: int
    reads: float
    writes: float
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Farm:
    """Where it is done.

    Attributes:
        workers: One core each.
        regions: Of a task: what a worker is given at once, and loses when it dies.
        dispatch: Seconds that the scheduler needs to hand out a task, one after the other.
        link: Bytes a second that a worker can move.
        store: Bytes a second that the store can move for all workers.
        life: Hours that a worker lives on average, as cheap machines do that may be taken away.
        boot: Seconds until another worker has taken its place.
        price: Of a core for an hour.
    """

    workers: int
    regions: int = 16
    dispatch: float = 0.001
    link: float = 50e6
    store: float = 20e9
    life: float = 24.0
    boot: float = 120.0
    price: float = 0.02

    @property
    def flow(self) -> float:
        """Bytes a second for each of the workers while all of them work."""
        return min(self.link, self.store / self.workers)


@dataclass(frozen=True)
class Bill:
    """What a farm needs for some work.

    Attributes:
        seconds: From the first task to the last.
        cost: Of all cores for that time.
        bound: What limits it: workers, store or scheduler.
    """

    seconds: float
    cost: float
    bound: str


def on_paper(work: Work, farm: Farm) -> Bill:
    """The expected time, in one line of arithmetic.

    Reading, network and writing overlap, so a region takes t = max(computing, moving). A task of k regions takes
    τ = k · t, and with workers that die at a rate λ and are replaced after b seconds (1/λ + b)(exp(λ τ) − 1), for a
    task that is interrupted begins anew. All N/k tasks share W workers, and the last ones end about half a task apart.

    >>> hour = Work("", 1000, 0, 0, (3.6,))
    >>> round(on_paper(hour, Farm(1, regions=1, life=math.inf, dispatch=0)).seconds / HOUR, 2)
    1.0
    """
    moving = (work.reads + work.writes) / farm.flow
    task = farm.regions * sum(max(one, moving) for one in work.seconds) / len(work.seconds)
    rate = 1 / (farm.life * HOUR)
    taken = task if rate == 0 else (1 / rate + farm.boot) * math.expm1(rate * task)
    tasks = math.ceil(work.regions / farm.regions)
    spent = {
        "workers": max(tasks / farm.workers, 1) * taken + (taken / 2 if tasks % farm.workers else 0),
        "scheduler": tasks * farm.dispatch + taken,
    }
    bound = max(spent, key=lambda name: spent[name])
    seconds = spent[bound]
    if bound == "workers" and moving > max(work.seconds):
        bound = "store" if farm.flow < farm.link else "link"
    return Bill(seconds, seconds / HOUR * farm.workers * farm.price, bound)


def simulated(work: Work, farm: Farm, seed: int = 0) -> Bill:
    """The same by playing it: a queue of tasks, a scheduler that hands out one at a time, workers that die."""
    rng = np.random.default_rng(seed)
    moving = (work.reads + work.writes) / farm.flow
    times = np.maximum(np.asarray(work.seconds), moving)
    tasks = math.ceil(work.regions / farm.regions)
    durations = rng.choice(times, (tasks, farm.regions)).sum(axis=1)
    scheduler = end = 0.0
    free = [0.0] * farm.workers
    deaths = iter(_deaths(rng, farm))
    heapq.heapify(alive := list(zip(free, (next(deaths) for _ in free), strict=True)))
    for duration in durations:
        while True:
            at, death = heapq.heappop(alive)
            scheduler = max(scheduler, at) + farm.dispatch
            if scheduler + duration <= death:
                break
            back = max(scheduler, death) + farm.boot
            heapq.heappush(alive, (back, back + next(deaths)))
        heapq.heappush(alive, (scheduler + duration, death))
        end = max(end, scheduler + duration)
    paper = on_paper(work, farm)
    return Bill(float(end), float(end) / HOUR * farm.workers * farm.price, paper.bound)


def _deaths(rng: np.random.Generator, farm: Farm) -> Iterator[float]:
    while True:
        yield from rng.exponential(farm.life * HOUR, 1024) if math.isfinite(farm.life) else [math.inf]


def smaller(work: Work, farm: Farm) -> tuple[Work, Farm]:
    """A farm that can be simulated: as many tasks for each worker, the store and the scheduler shared as before."""
    tasks = work.regions / farm.regions
    factor = max(1.0, tasks / DRAWN)
    workers = max(1, round(farm.workers / factor))
    factor = farm.workers / workers
    less = Work(work.name, round(work.regions / factor), work.reads, work.writes, work.seconds)
    few = Farm(
        **{
            **asdict(farm),
            "workers": workers,
            "store": farm.store / factor,
            "dispatch": farm.dispatch * factor,
        }
    )
    return less, few


def measured(side: int, ndim: int, regions: int) -> tuple[float, ...]:
    """Seconds of regions of a light U-Net on one thread, reading their context from an array of noise."""
    import torch

    from skipway.models import build
    from skipway.predict import predict_array

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build("unet", in_channels=1, classes=2, width=16, **({"ndim": 3} if ndim == 3 else {})).eval()
    rng = np.random.default_rng(0)
    taken = []
    for _ in range(regions + 1):
        image = rng.integers(0, 255, (1, *(side,) * ndim), dtype=np.uint8)
        began = time.perf_counter()
        predict_array(model, image, (np.zeros(1), np.full(1, 255.0)))
        taken.append(time.perf_counter() - began)
    return tuple(taken[1:])


KINDS = {"2-D, 2048²": (2048, 2), "3-D, 160³": (160, 3)}
"""Regions by what is read for them, context included: sides and axes."""

HALO = {2: 96, 3: 40}
"""Context on either side, which is read and not kept; a bound for the light U-Net of five levels, and of four."""

FARMS = tuple(Farm(workers) for workers in (100, 1000, 10_000))


def planned(name: str, seconds: Sequence[float], farm: Farm) -> Row:
    """One row of the page."""
    side, ndim = KINDS[name]
    kept = (side - 2 * HALO[ndim]) ** ndim
    work = Work(name, math.ceil(PETABYTE / kept), side**ndim, kept / 20, tuple(seconds))
    paper, played = on_paper(work, farm), simulated(*smaller(work, farm))
    return {
        "kind": name,
        "regions": work.regions,
        "median": float(np.median(seconds)),
        "spread": float(np.std(seconds) / np.mean(seconds)),
        "workers": farm.workers,
        "days": paper.seconds / HOUR / 24,
        "cost": paper.cost,
        "bound": paper.bound,
        "simulated_over_paper": played.seconds / paper.seconds,
        "farm": asdict(farm),
    }


def main() -> None:
    wanted = arguments()
    figures = wanted.results / "petabyte.json"
    rows: list[Row] = list(rows_of(figures))
    if not wanted.report:
        rows = []
        for name, (side, ndim) in KINDS.items():
            seconds = measured(side, ndim, wanted.regions)
            for farm in FARMS:
                priced = Farm(**{**asdict(farm), "price": wanted.price})
                rows.append(
                    {**planned(name, seconds, priced), "machine": origin("skipway", "torch", "numpy")}
                )
        keep(figures, rows)
    fill(page_of(wanted.results, "petabyte"), "petabyte", report(rows), OPENING)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--price", type=float, default=Farm(1).price, help="of a core for an hour")
    parser.add_argument("--regions", type=int, default=24, help="regions that are timed")
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder for figures")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page")
    return parser.parse_args()


def report(rows: Sequence[Row]) -> str:
    """The written part of the page."""
    farm: dict[str, Any] = dict(rows[0]["farm"])
    said = (
        f"{machines(rows)} A task is {farm['regions']} regions; the scheduler hands out one in "
        f"{farm['dispatch']:g} s; a worker is a core with a link of {farm['link'] / 1e6:g} MB/s, lives "
        f"{farm['life']:g} h and is replaced after {farm['boot']:g} s; the store moves {farm['store'] / 1e9:g} GB/s; "
        f"a core costs {farm['price']:g} an hour."
    )
    columns = "region,regions,s a region (spread),workers,days,cost,limited by,simulated / paper"
    cells = [
        [
            row["kind"],
            f"{row['regions']:,}",
            f"{row['median']:.2f} ({100 * row['spread']:.0f} %)",
            f"{row['workers']:,}",
            f"{row['days']:.1f}",
            f"{row['cost']:,.0f}",
            row["bound"],
            f"{row['simulated_over_paper']:.3f}",
        ]
        for row in rows
    ]
    return f"{said}\n\n{table(columns.split(','), cells)}"


if __name__ == "__main__":
    main()
