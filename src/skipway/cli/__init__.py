"""The command line: every verb is one call of `skipway.api`, its messages, and an exit code."""

import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from skipway.errors import SkipwayError


def main() -> None:
    """Entry point of the `skipway` command."""
    from skipway.errors import SkipwayError, StopAsked, fault_of, interrupted

    for stream in (sys.stdout, sys.stderr):  # a name that is no UTF-8 is shown, and is an escape in JSON
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    try:
        from skipway.cli.app import app

        app()
    except SkipwayError as error:
        _leave(error)
    except StopAsked:
        _leave(interrupted())
    except BrokenPipeError:  # the reader of our output left; nothing is wrong with the work
        _hush()
        sys.exit(0)
    except (MemoryError, RuntimeError, OSError) as error:
        fault = fault_of(error)
        if fault is None:
            raise
        _leave(fault)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C or SIGTERM outside the training loop, which has a gentler way of its own."""
    from skipway.errors import StopAsked

    raise StopAsked


def _leave(error: "SkipwayError") -> NoReturn:
    try:
        for line in error.lines:
            print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # nobody reads one of them any more
        _hush()
    sys.exit(error.exit_code)


def _hush() -> None:
    """Let the interpreter flush what is left into nothing, when a pipe or terminal is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
