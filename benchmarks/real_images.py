"""Prediction of every kind of real data in every way, and of one image as large as there is time for.

    SKIPWAY_DATA=… uv run --all-extras python benchmarks/real_images.py --out OUT           kinds, then the large image
    SKIPWAY_DATA=… uv run --all-extras python benchmarks/real_images.py --out OUT --side 65536 --only large
    SKIPWAY_DATA=… uv run --all-extras python benchmarks/real_images.py --out OUT --pictures   of what lies in OUT
    uv run python benchmarks/real_images.py --report                                        the page alone

*Kinds*: each data set gets a run of 50 steps (one that lies in OUT/runs is used as it is), predicts up to six of its
images the plain way and then again in other ways, and the labels that differ are counted. *Large*: the EM fields of
the run's data are stitched, turned at random, into one tiled TIFF; its prediction is killed with SIGKILL after a third
of its regions and started again; windows of the answer are held against a pass of the plain network over each of them.
Masks and review lie in OUT afterwards, and `--pictures` draws them into OUT/pictures. Figures go to
`benchmarks/results/real_images.json`, tables to `docs/results/prediction.md`; `--results FOLDER` keeps both elsewhere.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from layouts import SETS, Set
from processes import SKIPWAY, spend
from series import Row, fill, found, keep, machines, origin, page_of, replaced, rows_of, table, wanted_of

KEYS = ("part", "name")
KINDS = tuple(one for one in SETS if "published" not in one.name or "hippocampus" in one.name)
WAYS = {
    "tiles, --ram 2G": ("--ram", "2G", "--format", "zarr"),
    "strips, --ram 2G": ("--ram", "2G", "--engine", "strips"),
    "packed": ("--backend", "packed"),
}
LARGE = ("--ram", "2G", "--engine", "strips", "--backend", "packed")
FIELDS = "isbi2012-em"
WINDOWS = 24
STEPS = 50
SIX = 6


def main() -> None:
    wanted = arguments()
    if wanted.pictures:
        apart(drawn, wanted.out)
        return
    figures = wanted.results / "real_images.json"
    rows: list[Row] = rows_of(figures)
    for row in () if wanted.report else measured(wanted, rows):
        print(json.dumps(row, ensure_ascii=False), flush=True)
        rows = replaced(rows, {**row, "machine": origin("skipway", "torch")}, KEYS)
        keep(figures, rows)
    if not rows:
        raise SystemExit(f"{figures} holds no figures yet")
    fill(page_of(wanted.results, "prediction"), "real_images", report(rows), "# Prediction")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=32768, help="of the large image, a multiple of 512")
    parser.add_argument("--only", choices=("kinds", "large"), help="one of the two")
    parser.add_argument("--pictures", action="store_true", help="measure nothing, draw what lies in OUT")
    return wanted_of(parser)


def measured(wanted: argparse.Namespace, rows: list[Row]) -> Iterator[dict[str, Any]]:
    """What is not known yet."""
    data = Path(os.environ["SKIPWAY_DATA"])
    for one in KINDS if wanted.only != "large" else ():
        if not found(rows, part="kinds", name=one.name):
            yield kind(one, data, wanted.out)
    if wanted.only != "kinds" and not found(rows, part="large", name=str(wanted.side)):
        yield large(data, wanted.out, wanted.side)


def trained(one: Set, data: Path, out: Path) -> Path:
    """The run of a set."""
    run = out / "runs" / folder(one)
    if not (run / "run.json").is_file():
        words = ("train", *(data / path for path in one.data), *one.flags, "--steps", STEPS, "-o", run)
        spend([*SKIPWAY, *map(str, words)], out / "logs" / f"{folder(one)}.log")
    return run


def folder(one: Set) -> str:
    return one.name.replace(", ", "-").replace(" ", "-")


def kind(one: Set, data: Path, out: Path) -> dict[str, Any]:
    """One data set in every way."""
    run, images = trained(one, data, out), some(data / (one.new or one.data[0]), out / "new" / folder(one))
    masks = out / "masks" / folder(one)
    shutil.rmtree(masks, ignore_errors=True)

    def predicted(way: str, flags: Sequence[str]) -> tuple[Path, dict[str, float]]:
        words = [*SKIPWAY, "predict", run, images, "-o", masks / way, "--device", "cpu", *flags]
        spent = spend(words, out / "logs" / f"{folder(one)}-{way}.log")
        return masks / way, {"seconds": spent.seconds, "cpu": spent.cpu, "peak": spent.peak}

    plain, took = predicted("plain", ())
    ways = {}
    for way, flags in WAYS.items():
        there, costs = predicted(way.split(",")[0], flags)
        ways[way] = {**costs, **apart(compared, plain, there)}
    return {"part": "kinds", "name": one.name, "plain": took, "ways": ways}


def some(images: Path, copy: Path) -> Path:
    """The first images of a folder; a data set or a stack as it is."""
    folder = next((images / name for name in ("images", "imagesTr") if (images / name).is_dir()), images)
    if folder.is_file():
        return folder
    copy.mkdir(parents=True, exist_ok=True)
    for file in islice(sorted(file for file in folder.iterdir() if file.is_file()), SIX):
        shutil.copy(file, copy / file.name)
    return copy


def apart(work: Any, *given: Any) -> Any:
    """In a process of its own: this one imports no torch (see `spend`)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def compared(one: Path, other: Path) -> dict[str, int]:
    """Images, labels, those that differ between two folders of masks, and the distinct values seen."""
    import numpy as np

    from skipway.images import open_mask

    files = sorted(p for p in one.rglob("*") if p.suffix in (".tif", ".png", ".nii", ".gz"))
    labels = differ = 0
    values: set[int] = set()
    for file in files:
        name = file.relative_to(one)
        there = other / name
        if not there.exists():
            there = other / name.with_name(name.name.split(".")[0] + ".zarr")
        with open_mask(file) as a, open_mask(there) as b:
            for page in range(a.pages):
                x, y = a.read(page), b.read(page)
                labels, differ = labels + x.size, differ + int((x != y).sum())
                values.update(np.unique(x)[:20].tolist())
    return {"images": len(files), "labels": labels, "differ": differ, "values": len(values)}


def large(data: Path, out: Path, side: int) -> dict[str, Any]:
    """The large image: killed once, finished, and looked at through windows."""
    (one,) = (s for s in SETS if s.name == FIELDS)
    run, image = trained(one, data, out), out / "large" / f"{side}.tif"
    image.parent.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        apart(stitched, data / one.data[0], image, side)
    masks = out / "large-masks"
    shutil.rmtree(masks, ignore_errors=True)
    words = [*SKIPWAY, "predict", run, image, "-o", masks, "--device", "cpu", *LARGE]
    before, said = killed([*map(str, words), "--json"], out / "logs" / "large-killed.log")
    spent = spend(words, out / "logs" / "large.log")
    seen = apart(windows, run, image, masks / image.with_suffix(".tif").name)
    return {
        "part": "large",
        "name": str(side),
        "pixels": side**2,
        "flags": " ".join(LARGE),
        "said": said,
        "killed": before,
        "seconds": before + spent.seconds,
        "cpu": spent.cpu,
        "peak": spent.peak,
        "bytes": (masks / image.name).stat().st_size,
        **seen,
    }


def stitched(fields: Path, path: Path, side: int) -> None:
    """Fields of 512² side by side, each turned or mirrored at random, as a tiled TIFF."""
    import numpy as np
    import tifffile

    from skipway.images import open_image

    rng, tiles = np.random.default_rng(0), []
    for file in sorted(fields.glob("*.png")):
        with open_image(file) as field:
            tiles.append(field.read(0)[0, :512, :512])

    def drawn() -> Iterator[Any]:
        for _ in range((side // 512) ** 2):
            tile = np.rot90(tiles[rng.integers(len(tiles))], rng.integers(4))
            yield np.ascontiguousarray(tile if rng.random() < 0.5 else tile[:, ::-1])

    tifffile.imwrite(
        path, drawn(), shape=(side, side), dtype=np.uint8, tile=(512, 512), compression="zlib",
        photometric="minisblack", bigtiff=True,
    )  # fmt: skip


def killed(words: Sequence[str], log: Path) -> tuple[float, str]:
    """Seconds until a prediction had made a third of its regions and was killed, and how it said to go about it."""
    began, said = time.perf_counter(), ""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log.open("w"), text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("name") == "stream":
                said = event["text"]
            if event["event"] == "region" and event["done"] >= event["of"] / 3:
                break
        process.send_signal(signal.SIGKILL)
    return time.perf_counter() - began, said


def windows(run: Path, image: Path, mask: Path) -> dict[str, int]:
    """Labels of random windows that differ from those of a pass of the plain network over each of them."""
    import numpy as np

    from skipway import api
    from skipway.images import open_image, open_mask
    from skipway.predict.logits import decided
    from skipway.predict.pixels import PagePixels
    from skipway.predict.stream import evaluating, predict_tiles
    from skipway.tiles import tile_around

    predictor, rng = api.load(run, device="cpu"), np.random.default_rng(1)
    model, labels, differ = predictor.model, 0, 0
    with open_image(image) as pixels, open_mask(mask) as made, evaluating(model):
        constants = predictor.normalisation.constants(pixels, 0)
        corners = [rng.integers(0, side - 512, WINDOWS) for side in pixels.size]
        places = [
            (slice(int(y), int(y) + 512), slice(int(x), int(x) + 512)) for y, x in zip(*corners, strict=True)
        ]
        tiles = (tile_around(pixels.size, place, model.geometry) for place in places)
        for tile, logits in predict_tiles(model, PagePixels(pixels), constants, tiles):
            wanted = predictor.task.decode(decided(logits).numpy())
            differ += int((made.read(0, tile.write)[0] != wanted).sum())
            labels += wanted.size
    return {"windows": WINDOWS, "labels": labels, "differ": differ}


def drawn(out: Path) -> None:
    """Each set's first images and their masks side by side, and pieces of the large one."""
    import numpy as np

    from skipway.images import open_image, open_mask
    from skipway.report.pictures import contact_sheet, overlay, png, stretch

    def pair(image: Path, mask: Path, corner: int = 0) -> tuple[Any, Any]:
        with open_image(image) as pixels, open_mask(mask) as labels:
            page, part = pixels.pages // 2, tuple(slice(corner, corner + 512) for _ in range(2))
            seen, made = pixels.read(page, part), labels.read(page, part)[0]
            return stretch(seen), overlay(seen, made.astype(np.int64), outline=False)

    sheets = {"large": [pair(*one, at) for one in larges(out) for at in (0, 4096, 8192)]}
    for one in KINDS:
        masks = sorted((out / "masks" / folder(one) / "plain").rglob("*.*"))
        images = {p.name.split(".")[0]: p for p in (out / "new" / folder(one)).rglob("*.*")}
        named = [(images.get(mask.name.split(".")[0]), mask) for mask in masks]
        sheets[folder(one)] = [pair(image, mask) for image, mask in named if image is not None][:4]
    (out / "pictures").mkdir(exist_ok=True)
    for name, rows in sheets.items():
        if rows:
            (out / "pictures" / f"{name}.png").write_bytes(png(contact_sheet(rows, ("image", "mask"))))


def larges(out: Path) -> list[tuple[Path, Path]]:
    """Large images and their masks."""
    found = ((image, out / "large-masks" / image.name) for image in (out / "large").glob("*.tif"))
    return [one for one in found if one[1].exists()]


def report(rows: Iterable[Row]) -> str:
    """The written part of the page."""
    rows = list(rows)
    parts = [f"## Every kind of data\n\n{machines(rows)}"]
    if kinds := found(rows, part="kinds"):
        cells = [
            [
                row["name"],
                str(next(iter(row["ways"].values()))["images"]),
                f"{next(iter(row['ways'].values()))['labels']:,}",
                f"{row['plain']['cpu']:.0f}",
                *(f"{way['differ']:,}" for way in row["ways"].values()),
            ]
            for row in kinds
        ]
        columns = ["set", "images", "labels", "CPU s, plain", *(f"differ: {way}" for way in WAYS)]
        parts.append(table(columns, cells))
    for row in found(rows, part="large"):
        parts.append(
            f"## {row['pixels']:,} pixels in one image\n\n"
            f"EM fields stitched to {row['name']}², `skipway predict RUN IMAGE -o OUT {row['flags']}`: {row['said']}. "
            f"Killed with SIGKILL after {row['killed']:.0f} s and typed again: {row['seconds']:.0f} s in all, "
            f"{row['pixels'] / row['seconds'] / 1e6:.2f} million pixels a second, peak {row['peak']:.0f} MiB, "
            f"{row['bytes'] / 2**20:.0f} MiB written. In {row['windows']} windows of 512² {row['differ']:,} of "
            f"{row['labels']:,} labels differ from a pass of the plain network over the window."
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
