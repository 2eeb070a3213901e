"""Predicts an image of any height in a process of its own, and prints the most memory that it held."""

import sys
from pathlib import Path

import numpy as np
import tifffile
import torch
from streams import predicted, predictor

from skipway import memory
from skipway.images import tiff
from skipway.predict.options import StreamOptions

WIDTH, TILE = 512, 256


def write(path, height, kind):
    """Noise, as large as wanted, written tile by tile or mapped."""
    rng = np.random.default_rng(0)
    if kind == "mapped":
        array = tifffile.memmap(path, shape=(height, WIDTH), dtype=np.uint8, photometric="minisblack")
        for top in range(0, height, TILE):
            array[top : top + TILE] = rng.integers(0, 255, (min(TILE, height - top), WIDTH))
        return
    tiles = (rng.integers(0, 255, (TILE, TILE)).astype(np.uint8) for _ in range(height * WIDTH // TILE**2))
    tifffile.imwrite(
        path, tiles, shape=(height, WIDTH), dtype=np.uint8, tile=(TILE, TILE), photometric="minisblack",
        compression="zlib", maxworkers=1,
    )  # fmt: skip


def main(source, output, ram, engine):
    torch.set_num_threads(1)
    tiff.CACHE_BYTES = 1 << 20  # less than the smallest image
    events = []
    stream = StreamOptions(ram=int(ram))
    tile = 512 if engine == "tiles" else None  # 8 regions at least
    predicted(predictor(), Path(source), Path(output), events, stream=stream, tile=tile, engine=engine)
    (said,) = (event["text"] for event in events if event.get("name") == "stream")
    print(memory.peak(torch.device("cpu")), said)


if __name__ == "__main__":
    main(*sys.argv[1:])
