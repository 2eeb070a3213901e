"""Metrics against the usual ways: CPU ms, peers in rotation in one process, an A/A pair beside.

Run: uv run python benchmarks/metrics.py [--size 2048] [--cells 2000] [--repeats 5]
Writes benchmarks/results/metrics.json.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from skipway.metrics import confusion, overlap_table
from skipway.metrics.objects import AP_THRESHOLDS, match


def cells(size, count, rng):
    """Disks on a jittered grid, shifted and renumbered in the second map."""
    truth = np.zeros((size, size), np.int32)
    step = max(4, int(size / count**0.5))
    rows, columns = np.mgrid[0:size, 0:size]
    for number, (top, left) in enumerate(
        (a, b) for a in range(step // 2, size, step) for b in range(step // 2, size, step)
    ):
        y, x, radius = top + rng.integers(-2, 3), left + rng.integers(-2, 3), step * rng.uniform(0.3, 0.5)
        box = (slice(max(0, top - step), top + step), slice(max(0, left - step), left + step))
        truth[box][(rows[box] - y) ** 2 + (columns[box] - x) ** 2 < radius**2] = number + 1
    numbers = np.concatenate([[0], rng.permutation(int(truth.max())) + 1]).astype(np.int32)
    return truth, numbers[np.roll(truth, (2, 1), (0, 1))]


def ap_runs(truth, prediction):
    table = overlap_table(truth, prediction)
    return [match(table, threshold).ap for threshold in AP_THRESHOLDS]


def ap_histogram(truth, prediction):
    """The dense table of the Kaggle 2018 kernels."""
    bins = (np.arange(truth.max() + 2), np.arange(prediction.max() + 2))
    shared = np.histogram2d(truth.ravel(), prediction.ravel(), bins=bins)[0]
    true, predicted = shared.sum(1)[1:], shared.sum(0)[1:]
    iou = shared[1:, 1:] / np.maximum(true[:, None] + predicted[None] - shared[1:, 1:], 1)
    sides = np.count_nonzero(true) + np.count_nonzero(predicted)
    return [(found := (iou >= threshold).sum()) / (sides - found) for threshold in AP_THRESHOLDS]


def rotate(peers, repeats):
    """Median CPU ms of each peer; all run once per round, in turn."""
    times = {name: [] for name in peers}
    for _ in range(repeats):
        for name, call in peers.items():
            started = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - started))
    return {name: round(float(np.median(found)), 2) for name, found in times.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    truth, prediction = cells(options.size, options.cells, rng)
    assert np.allclose(ap_runs(truth, prediction), ap_histogram(truth, prediction))
    classes, guesses = rng.integers(0, 8, (2, 1024, 1024)).astype(np.uint8)
    peers = {
        "ap.skipway": lambda: ap_runs(truth, prediction),
        "ap.skipway again": lambda: ap_runs(truth, prediction),
        "ap.histogram2d": lambda: ap_histogram(truth, prediction),
        "confusion.skipway": lambda: confusion(classes, guesses, 8),
        "confusion.skipway again": lambda: confusion(classes, guesses, 8),
        "confusion.scikit-learn": lambda: confusion_matrix(classes.ravel(), guesses.ravel()),
    }
    rotate(peers, 1)
    cpu_ms = rotate(peers, options.repeats)
    result = {
        "cpu_ms": cpu_ms,
        "times_faster": {
            "ap": round(cpu_ms["ap.histogram2d"] / cpu_ms["ap.skipway"], 1),
            "confusion": round(cpu_ms["confusion.scikit-learn"] / cpu_ms["confusion.skipway"], 1),
        },
        "size": options.size,
        "cells": int(truth.max()),
        "repeats": options.repeats,
        "machine": platform.processor() or platform.machine(),
    }
    path = Path(__file__).parent / "results" / "metrics.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
