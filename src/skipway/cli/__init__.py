"""The command line: every verb is one call of `skipway.api`, its messages, and an exit code."""

import signal
import sys
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from skipway.errors import SkipwayError


def main() -> None:
    """Entry point of the `skipway` command."""
    from skipway.cli.app import app
    from skipway.errors import SkipwayError, fault_of

    for stream in (sys.stdout, sys.stderr):  # a name that is no UTF-8 is shown, and is an escape in JSON
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except SkipwayError as error:
        _leave(error)
    except BrokenPipeError:  # the reader of our output left; nothing is wrong with the work
        sys.stderr.close()
        sys.exit(0)
    except (MemoryError, RuntimeError, OSError) as error:
        fault = fault_of(error)
        if fault is None:
            raise
        _leave(fault)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C or SIGTERM outside the training loop, which has a gentler way of its own."""
    from skipway.errors import Interrupted, Problem

    raise Interrupted(Problem("interrupted; the same command goes on"))


def _leave(error: "SkipwayError") -> NoReturn:
    for line in error.lines:
        print(line, file=sys.stderr)
    sys.exit(error.exit_code)
