"""Border weights of a 512² map with 50, 200 and 1000 cells against one distance transform a cell.

    uv run --group bench --extra fast python benchmarks/border_weights.py

The peer is the way that is copied everywhere (a full-image transform for each cell, stacked, sorted), in
our own writing, and the same with two running minima, which at least needs no stack.
"""

import argparse
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

import common
from skipway.weight_maps import border_weights

W0, SIGMA = 10.0, 5.0
Map = NDArray[np.int32]


def draw_cells(side: int, count: int, seed: int = 0) -> Map:
    """About `count` rounded cells on a jittered grid, neighbours a pixel or two apart where they meet."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(count)))
    pitch = side / across
    centres = (np.argwhere(np.ones((across, across))) + 0.5 + rng.uniform(-0.3, 0.3, (across**2, 2))) * pitch
    centres = rng.permutation(centres)[:count]
    distance, nearest = cKDTree(centres).query(np.argwhere(np.ones((side, side))), k=2)
    radius = rng.uniform(0.38, 0.62, count)[nearest[:, 0]] * pitch
    inside = (distance[:, 0] < radius) & (distance[:, 1] - distance[:, 0] > 1.6)
    return np.where(inside, nearest[:, 0] + 1, 0).astype(np.int32).reshape(side, side)


def weigh(total: NDArray[np.float64], cells: Map) -> NDArray[np.float32]:
    return np.where(cells == 0, W0 * np.exp(-(total**2) / (2 * SIGMA**2)), 0).astype(np.float32)


def stacked(cells: Map) -> NDArray[np.float32]:
    """One transform a cell, all kept, sorted."""
    maps = [ndimage.distance_transform_edt(cells != i) for i in np.unique(cells) if i]
    nearest = np.sort(np.array(maps), axis=0)
    return weigh(nearest[0] + nearest[1], cells)


def running(cells: Map) -> NDArray[np.float32]:
    """One transform a cell, the two least kept."""
    first = np.full(cells.shape, np.inf)
    second = first.copy()
    for i in np.unique(cells)[1:]:
        distance = ndimage.distance_transform_edt(cells != i)
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return weigh(first + second, cells)


def by_numba(cells: Map) -> NDArray[np.float32]:
    return border_weights(cells, w0=W0, sigma=SIGMA, route="numba")


def by_scipy(cells: Map) -> NDArray[np.float32]:
    return border_weights(cells, w0=W0, sigma=SIGMA, route="scipy")


PEERS = {
    "skipway, numba": by_numba,
    "skipway, scipy": by_scipy,
    "a transform a cell, stacked": stacked,
    "a transform a cell, running": running,
}


def prepare(name: str, side: int, count: int) -> Callable[[], object]:
    """The call of one peer, for the memory measurement in a child."""
    cells = draw_cells(side, count)
    return lambda: PEERS[name](cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cap", type=float, default=3.0, help="CPU seconds after which a peer is not repeated"
    )
    wanted = parser.parse_args()
    rows, noise = [], {}
    for count in wanted.cells:
        cells = draw_cells(wanted.side, count)
        truth = running(cells)
        calls = {name: functools.partial(peer, cells) for name, peer in PEERS.items()}
        by_numba(cells)  # compiled outside the clock
        timings = common.rotate(calls, rounds=wanted.rounds, warmup=0, cap=wanted.cap)
        noise[str(cells.max())] = common.noise(timings)
        for name, call in calls.items():
            error = float(np.abs(call() - truth).max()) if name.startswith("skipway") else 0.0
            slow = not name.startswith("skipway")
            peak = common.peak_mebibytes(prepare, name, wanted.side, count, warmup=0 if slow else 1)
            base = timings["a transform a cell, stacked"]
            more = {"cells": int(cells.max()), "max_error": error, "peak_mib": peak}
            rows.append(common.row(name, timings[name], base, **more))
    facts = common.machine("numpy", "scipy", "numba")
    common.save("border_weights", rows, side=wanted.side, a_over_a=noise, machine=facts)


if __name__ == "__main__":
    main()
