"""Seconds to check 10,000 small PNG pairs: threads against child processes, and a second check that remembers.

Run: uv run python benchmarks/check.py [--pairs 10000] [--side 128]
Writes benchmarks/results/check.json.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from skipway.data.check import examine
from skipway.data.layouts import find_pairs
from skipway.data.scan import Scan
from skipway.testing.cases import picture, save, scene


def draw(root, number, side):
    """Pairs that all differ: 50 drawn scenes, each turned and rolled."""
    rng = np.random.default_rng(0)
    scenes = [scene(rng, (side, side), 20) for _ in range(50)]
    pictures = [picture(rng, labels) for labels in scenes]
    for k in range(number):
        shift = tuple(int(n) for n in rng.integers(0, side, 2))
        image, labels = (np.roll(part[k % 50], shift, (0, 1)) for part in (pictures, scenes))
        save(root / "images" / f"c{k}.png", image, compress_level=1)
        save(root / "masks" / f"c{k}.png", (255 * (labels > 0)).astype(np.uint8), compress_level=1)


def timed(call):
    started, used = time.perf_counter(), os.times()
    result = call()
    after = os.times()
    names = ("user", "system", "children_user", "children_system")
    cpu = sum(getattr(after, name) - getattr(used, name) for name in names)
    return result, {"seconds": round(time.perf_counter() - started, 2), "cpu_seconds": round(cpu, 2)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    result = {"side": options.side, "cores": os.cpu_count(), "machine": platform.machine(), "runs": {}}
    for number in (options.pairs // 10, options.pairs):
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), number, options.side)
            pairs = find_pairs(Path(folder))
            runs = result["runs"][str(number)] = {}
            seen = {}
            for name, isolate in (("threads", False), ("children", True), ("children again", True)):
                how = Scan(isolate=isolate, before=seen if name.endswith("again") else {})
                found, figures = timed(lambda pairs=pairs, how=how: examine(pairs, how=how))
                assert not found.problems, found.problems[:3]
                seen = found.seen
                runs[name] = figures
                print(number, name, figures, flush=True)
    path = Path(__file__).parent / "results" / "check.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
