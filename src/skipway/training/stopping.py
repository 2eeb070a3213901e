"""Requests to stop a training: signals, and a reader of its messages that has left."""

import errno
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from skipway.errors import Interrupted, Problem

TWICE = 2.0
"""Seconds within which a second Ctrl-C counts as the first."""

_LEFT = {errno.EPIPE, errno.EIO}  # a pipe whose reader ended; a terminal that was closed

Event = Callable[[Mapping[str, Any]], None]


@dataclass
class Listener:
    """Passes events on until nobody listens any more.

    Attributes:
        event: Told of what happens.
        left: Whether it could not be told of the last one; it is not asked again.
    """

    event: Event
    left: bool = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Tell of one event."""
        if self.left:
            return
        try:
            self.event(event)
        except OSError as error:
            if error.errno not in _LEFT:
                raise
            self.left = True


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C, SIGTERM or SIGHUP asks for a stop after the step in hand, a later Ctrl-C stops at once.

    Launchers such as `uv run` pass a Ctrl-C on that the terminal has sent here already: within two seconds it is one.
    """
    asked = False
    first = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked, first
        if asked and number == signal.SIGINT and time.monotonic() - first > TWICE:
            raise Interrupted(
                Problem("stopped at once; the last save stands", fix="type the same command to go on")
            )
        if not asked:
            asked, first = True, time.monotonic()

    try:
        before = {number: signal.signal(number, ask) for number in stopping()}
    except ValueError:  # not the main thread: signals belong to somebody else
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopping() -> list[signal.Signals]:
    """The signals that ask for a stop; a closed terminal's only where it is not ignored, as under `nohup`."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]
