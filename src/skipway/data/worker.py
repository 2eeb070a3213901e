"""A child of `scan`: one job a line in, one answer a line out, until the input ends."""

import sys

from skipway.data.check import look_at
from skipway.data.scan import READY, answer


def serve() -> None:
    """Answers every line."""
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    print(READY, flush=True)
    for line in sys.stdin:
        print(answer(line, look_at), flush=True)


if __name__ == "__main__":
    serve()
