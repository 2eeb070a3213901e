"""Reading that may never end: a network disk that has gone, a decoder that turns in a circle."""

from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from skipway.errors import DataError, Problem

T = TypeVar("T")

SECONDS = 60.0
"""Longest time for one pair of files, and one second more for each 10 MB of them."""


def patiently(read: Callable[[], T], files: Sequence[Path], seconds: float = SECONDS) -> T:
    """What `read` gives or raises; it runs in a thread of its own, which is left behind where it never ends.

    Args:
        read: Reads and decodes.
        files: What it reads.
        seconds: Longest time.

    Raises:
        DataError: it takes longer; the message names the files.

    >>> patiently(lambda: 3, [])
    3
    """
    done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            done.put((read(), None))
        except BaseException as error:
            done.put((None, error))

    limit = seconds + sum(_size(path) for path in files) / 10e6
    Thread(target=run, name="read", daemon=True).start()  # a daemon: nobody waits for it at the end
    try:
        value, error = done.get(timeout=limit)
    except Empty:
        named = " or ".join(map(str, files))
        found = f"took more than {limit:.0f} s to read"
        raise DataError(
            Problem(found, named, "files that decode", "check the disk, or leave them out", "F20")
        ) from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
