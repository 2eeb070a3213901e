"""A network that was never trained, images, and a process whose children predict and may be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from skipway.data.fingerprint import Normalisation
from skipway.data.labels import LabelMap
from skipway.models import build
from skipway.predict.files import predict_files
from skipway.predict.options import FileOptions, StreamOptions
from skipway.predict.predictor import Predictor
from skipway.tasks import make_task


def predictor(task="classes", ndim=2, channels=1, seed=0, values=(0, 7, 300)):
    """A run whose weights part the classes."""
    torch.manual_seed(seed)
    count = 2 if task == "objects" else len(values)
    model = build("unet", in_channels=channels, classes=count, width=4, depth=2, ndim=ndim).eval()
    with torch.inference_mode():  # no class wins everywhere
        found = model(torch.rand((1, channels, *(32,) * ndim)))[-1]
        bias = [value for name, value in model.heads.named_parameters() if name.endswith("bias")][-1]
        bias -= found.mean((0, *range(2, 2 + ndim)))
    names = ("background", "cell", "rim")
    if task == "objects":
        labels = LabelMap("objects", (0, 1), names[:2], ids=True)
    else:
        labels = LabelMap(task, values, names[: len(values)])
    device = torch.device("cpu")
    return Predictor(model, make_task(labels, (1.0,) * count, 3), Normalisation(), device, "toy")


def images(folder, *sizes, pages=0, **written):
    """Images of noise, i0.tif and so on."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        image = np.random.default_rng(number).integers(0, 255, (max(1, pages), *size)).astype(np.uint8)
        plain = {"photometric": "minisblack", "metadata": {"axes": "ZYX" if pages else "YX"}, **written}
        tifffile.imwrite(folder / f"i{number}.tif", image if pages else image[0], **plain)
    return folder


def predicted(run, source, output, events=None, **options):
    """Region by region."""
    stream = options.pop("stream", StreamOptions(always=True))
    heard = [] if events is None else events
    return predict_files(run, source, output, FileOptions(stream=stream, **options), heard.append)


def plain(run, source, output, events=None, **options):
    """As images that fit into memory are."""
    heard = [] if events is None else events
    return predict_files(run, source, output, FileOptions(**options), heard.append)


class Nursery:
    """A process that has imported everything, and forks a child for each prediction; a context manager."""

    def __enter__(self):
        command = [sys.executable, str(Path(__file__))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def live(self, source, output, kill=None, way="tiles"):
        """Whether a child came to its end before it was killed, and how many seconds it lived.

        Objects are made in tiles or strips; classes are written as an OME-Zarr, in shards.
        """
        order = {"source": str(source), "output": str(output), "kill": kill, "way": way}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def _child(order):
    from skipway.images import paged
    from skipway.predict import room

    torch.set_num_threads(1)
    room.STORED[2], paged.SMALL = 16, 0
    shards = order["way"] == "shards"
    engine, form = "tiles" if shards else order["way"], "zarr" if shards else ""
    stream, run = StreamOptions(always=True, format=form), predictor("classes" if shards else "objects")
    predicted(run, Path(order["source"]), Path(order["output"]), tile=16, engine=engine, stream=stream)


def _nursery():
    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if not child:
            try:
                _child(order)
            except BaseException as error:
                print(error, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        ended, status = 0, None
        while not ended:
            time.sleep(0.002)
            if order["kill"] is not None and time.monotonic() - began > order["kill"]:
                os.kill(child, signal.SIGKILL)
                order["kill"] = None
            ended, status = os.waitpid(child, os.WNOHANG)
        print(
            json.dumps({"code": os.waitstatus_to_exitcode(status), "lived": time.monotonic() - began}),
            flush=True,
        )


if __name__ == "__main__":
    _nursery()
