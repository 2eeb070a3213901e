"""Faults that are planted in a child before its command starts."""

import errno
import io
import json
import os
import pathlib
import random
import resource
import signal
import sys
import threading
import time

import numpy as np
import torch

from skipway.disk import TEMPORARY
from skipway.training import dataset, loop

REAL = {name: getattr(os, name) for name in ("fsync", "replace", "unlink", "link")}
OPEN = pathlib.Path.open


def plain(path):
    """Name of a file inside its run folder, the same for the file that will replace it."""
    path = pathlib.Path(path)
    name = path.name
    if name.startswith(TEMPORARY):
        name = name.removeprefix(TEMPORARY).rpartition(".")[0] + " (new)"
    return f"validation/{name.partition('.')[0]}" if path.parent.name == "validation" else name


class Watched:
    """A file whose writes are told of."""

    def __init__(self, file, tell, name):
        self._file, self._tell, self._name = file, tell, name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._tell("write", self._name, "before")
        done = self._file.write(data)
        self._file.flush()
        self._tell("write", self._name, "after")
        return done

    def __getattr__(self, name):
        return getattr(self._file, name)


def tell_all(tell):
    """Call `tell(operation, name, when)` before and after each operation on a file of a run."""

    def opened(self, mode="r", *rest, **more):
        if "w" not in mode or TEMPORARY not in self.name:
            return OPEN(self, mode, *rest, **more)
        tell("open", plain(self), "before")
        return Watched(OPEN(self, mode, *rest, **more), tell, plain(self))

    def fsync(handle):
        path = pathlib.Path(f"/proc/self/fd/{handle}").readlink()
        name = "folder" if path.is_dir() else plain(path)
        tell("fsync", name, "before")
        REAL["fsync"](handle)
        tell("fsync", name, "after")

    def on_names(operation):
        def act(*paths, **more):
            name = plain(paths[-1])
            tell(operation, name, "before")
            REAL[operation](*paths, **more)
            tell(operation, name, "after")

        return act

    pathlib.Path.open = opened
    os.fsync = fsync
    for operation in ("replace", "unlink", "link"):
        setattr(os, operation, on_names(operation))


def points(fired, times, note, only=""):
    """Die by SIGKILL at the first point that has not been died at so often; its name goes into the file `note`."""

    def tell(*where):
        point = " ".join(where)
        if only in point and fired.get(point, 0) < times:
            pathlib.Path(note).write_text(point)
            os.kill(os.getpid(), signal.SIGKILL)

    tell_all(tell)


def trace(note, slow=0.0):
    """Write every point that is passed, with its thread, into a file; each fsync takes `slow` seconds more."""
    handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(*where):
        os.write(handle, f"{threading.get_ident()} {' '.join(where)}\n".encode())
        if where[0] == "fsync" and where[2] == "before":
            time.sleep(slow)

    tell_all(tell)


def failing(operation, part, code, first, last=10**9):
    """The `first`-th to `last`-th operation of this kind on this file fails with this error of the system."""
    count = 0

    def tell(done, name, when):
        nonlocal count
        if (done, when) == (operation, "before") and part in name:
            count += 1
            if first <= count <= last:
                number = getattr(errno, code)
                raise OSError(number, os.strerror(number))

    tell_all(tell)


def short_writes(size):
    """The system takes at most `size` bytes of a write."""

    class Short(io.FileIO):
        def write(self, data):
            return super().write(bytes(data)[:size])

    def opened(self, mode="r", *rest, **more):
        if "w" in mode and TEMPORARY in self.name:
            return io.BufferedWriter(Short(str(self), "wb"))
        return OPEN(self, mode, *rest, **more)

    pathlib.Path.open = opened


def power(folder):
    """Views of the disk as a loss of power could leave it, one folder each: only what was synced is there.

    After each rename: names as they are now, bytes as they were synced (none where never). After each sync of the
    folder the same; between the two the rename may or may not have happened.
    """
    synced, number = {}, 0
    tell_all(lambda *_: None)
    fsync, replace = os.fsync, os.replace

    def view(run):
        nonlocal number
        number += 1
        there = pathlib.Path(folder) / f"{number:03d}"
        there.mkdir(parents=True)
        for path in pathlib.Path(run).iterdir():
            if path.is_file() and path.name != ".lock":
                (there / path.name).write_bytes(synced.get(path.stat().st_ino, b""))

    def synced_too(handle):
        fsync(handle)
        path = pathlib.Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_dir():
            view(path)
        else:
            synced[path.stat().st_ino] = path.read_bytes()

    def replaced(*paths):
        replace(*paths)
        if pathlib.Path(paths[1]).parent.name == "run":
            view(pathlib.Path(paths[1]).parent)

    os.fsync, os.replace = synced_too, replaced


def slow_save(part, number, seconds):
    """The sync of this file takes so long, the time that this is its number."""
    count = 0

    def tell(done, name, when):
        nonlocal count
        if (done, when) == ("fsync", "before") and part in name:
            count += 1
            if count == number:
                time.sleep(seconds)

    tell_all(tell)


def fill(save, path):
    """Fill the disk before the save of this number."""
    real, count = loop.keep_state, 0

    def kept(*arguments):
        nonlocal count
        count += 1
        if count == save:
            with OPEN(pathlib.Path(path), "wb", 0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        real(*arguments)

    loop.keep_state = kept


def file_limit(save, size):
    """From the save of this number on no file may be larger than this many bytes."""
    real, count = loop.keep_state, 0

    def kept(*arguments):
        nonlocal count
        count += 1
        if count == save:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        real(*arguments)

    loop.keep_state = kept


def as_nobody():
    """Not root, who may write everywhere."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    assert os.getuid() == 65534


def keep_states():
    """A finished run keeps its last state, to be compared."""
    import skipway.single

    skipway.single.forget_states = lambda folder: None


def threads(count):
    torch.set_num_threads(count)


def last_year():
    real = time.time
    time.time = lambda: real() - 365.25 * 86400


def twice(seconds):
    from skipway.training import stopping

    stopping.TWICE = seconds


def on_learning(change):
    """Replace the step: `change(number of the call, call the real one)`."""
    real, count = loop.learn, 0

    def learn(*arguments):
        nonlocal count
        count += 1
        return change(count, arguments, real)

    loop.learn = learn


def slow_step(number, seconds):
    def change(count, arguments, real):
        if count == number:
            time.sleep(seconds)
        return real(*arguments)

    on_learning(change)


def wait_for(path):
    """The first step waits until a file is there."""

    def change(count, arguments, real):
        while count == 1 and not pathlib.Path(path).exists():
            time.sleep(0.01)
        return real(*arguments)

    on_learning(change)


def poisoned(what, first, last):
    """Steps by number of the call: the image, the loss, the gradient or a weight is no number."""

    def change(count, arguments, real):
        plan, model, optimiser, loss, batch, *rest = arguments
        if not first <= count <= last:
            return real(*arguments)
        if what == "image":
            batch.image[0, 0, 3, 3] = torch.nan
        losses = {
            "loss": lambda *a: loss(*a) + torch.inf,
            "gradient": lambda logits, *a: loss(logits, *a) + (logits.sum() * 0).sqrt(),
            "huge": lambda *a: loss(*a) * 1e30,
        }
        learnt = real(plan, model, optimiser, losses.get(what, loss), batch, *rest)
        if what == "weight":
            next(model.parameters()).data.view(-1)[0] = torch.nan
        return learnt

    on_learning(change)


def drawing():
    """A step that draws from the global generators of torch, NumPy and Python, as a user's loss may."""

    def change(count, arguments, real):
        plan, model, optimiser, loss, batch, *rest = arguments
        noise = float(torch.rand(())) + np.random.random() + random.random()  # noqa: NPY002
        return real(plan, model, optimiser, lambda *a: loss(*a) * (1 + noise), batch, *rest)

    on_learning(change)


def no_memory(first, last):
    """Steps of these numbers, counted as they are tried, run out of memory."""

    def change(count, arguments, real):
        if first <= count <= last:
            raise MemoryError
        return real(*arguments)

    on_learning(change)


def no_cache():
    """Samples are decoded again each time."""
    dataset.TrainingSet.__init__.__kwdefaults__["cache_bytes"] = 0


def hanging(name, limit):
    """Reading this mask never ends."""
    dataset.TrainingSet.__init__.__kwdefaults__["seconds"] = limit
    real = dataset.read_masks

    def read(volume, ndim):
        if volume.mask.path.name == name:
            threading.Event().wait()
        return real(volume, ndim)

    dataset.read_masks = read


def cut_when_read(name):
    """A mask loses its second half after the check has seen it."""
    real = dataset.read_masks

    def read(volume, ndim):
        if volume.mask.path.name == name:
            data = volume.mask.path.read_bytes()
            volume.mask.path.write_bytes(data[: len(data) // 2])
        return real(volume, ndim)

    dataset.read_masks = read


def no_shared_memory(note):
    """Write into a file what is opened below /dev/shm."""

    def hear(event, arguments):
        if event == "open" and str(arguments[0]).startswith("/dev/shm"):
            os.write(handle, f"{arguments[0]}\n".encode())

    handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(hear)


def modules(note):
    """At the end, the modules that were imported."""
    import skipway.single

    real = skipway.single.forget_states

    def forget(folder):
        pathlib.Path(note).write_text(json.dumps(sorted(sys.modules)))
        real(folder)

    skipway.single.forget_states = forget


def signal_at(step, name):
    """Send this process a signal when it has told of that step."""
    from skipway.cli.console import JsonLines

    real = JsonLines.__call__

    def tell(self, event):
        real(self, event)
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), getattr(signal, name))

    JsonLines.__call__ = tell
