"""Toy data sets and toy trainings, as small as they can be and still go the whole way."""

import hashlib

import numpy as np
import torch
from tifffile import imwrite
from typer.testing import CliRunner

from skipway import api
from skipway.cli.app import app
from skipway.errors import SkipwayError
from skipway.request import Request
from skipway.runs import read_tensors
from skipway.synthetic import draw_cells

TINY = {"width": 4, "depth": 2, "patch": 32, "batch": 2, "loss": "weighted-ce-dice"}
"""The smallest plan that still has every part: two levels, several patches a step, weight map and Dice."""

WORDS = [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
WORDS += ["--steps", "2", "--device", "cpu"]


def draw(folder, count=5, size=48, first=0):
    """Twin folders images/ and masks/ of drawn cells with instance ids."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, labels = draw_cells(size, n=4 + number % 3, seed=first + number)
        imwrite(folder / "images" / f"c{number}.tif", image)
        imwrite(folder / "masks" / f"c{number}.tif", labels)
    return folder


def start(data, run, *, event=lambda _: None, **choices):
    """`skipway.api.train_run` with the tiny plan, `choices` on top."""
    request = Request(**{"steps": 16, **TINY, **choices})
    return api.train_run(order_of(data, run, request), event)


def order_of(data, run, request):
    """The command that trains on what `draw` drew."""
    return api.Order(data / "images", data / "masks", run, request, task="objects", device="cpu")


def digest(run):
    """SHA-256 of the saved weights (names, types, shapes and bytes), and metrics.csv without the seconds."""
    tensors, facts = read_tensors(run / "model.safetensors")
    found = hashlib.sha256(repr(facts).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        found.update(np.ascontiguousarray(tensors[name]).tobytes())
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    seconds = rows[0].index("seconds")
    return found.hexdigest(), [[*row[:seconds], *row[seconds + 1 :]] for row in rows]


def strays(folder):
    """Temporary files that a killed writer left."""
    return [path.name for path in folder.rglob("*") if "tmp" in path.name or ".part" in path.name]


def contents(folder):
    """Every file below `folder` with its bytes."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def skipway(*words):
    """Exit code, standard output, and standard error with the error lines, of a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, SkipwayError):
        return result.exception.exit_code, result.stdout, result.stderr + "\n".join(result.exception.lines)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def one_thread():
    """Arithmetic on one thread: the promise of equal bytes holds for an equal number of threads."""
    torch.set_num_threads(1)


def written(root, files):
    """A folder with text files by name."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
