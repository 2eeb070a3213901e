"""Work that is done in a thread while the one before it is used: reading while the network runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(work: Callable[[A], B], items: Iterable[A], depth: int = 1) -> Iterator[tuple[A, B]]:
    """Each item with what `work` makes of it, in order, `depth` of them made ahead of time in one thread.

    Args:
        work: Called in the thread; what it raises comes out here.
        items: Taken one by one.
        depth: Results that wait at most, beside the one in hand.

    >>> list(ahead(str, range(3)))
    [(0, '0'), (1, '1'), (2, '2')]
    """
    waiting: deque[tuple[A, Future[B]]] = deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            for item in items:
                waiting.append((item, thread.submit(work, item)))
                if len(waiting) > depth:
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            for _, result in waiting:
                result.cancel()


class Behind:
    """Calls that are made in a thread, one after the other, while the caller goes on; a context manager.

    What a call raises comes out of a later `do`, or at the end of the block.
    """

    def __init__(self, depth: int = 1) -> None:
        """Let at most `depth` calls wait."""
        self._depth = depth
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> "Behind":
        self._thread = ThreadPoolExecutor(1)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(wait=True)  # what was finished is kept, whatever happened meanwhile

    def do(self, work: Callable[[], object]) -> None:
        """Make a call in the thread; waits while too many wait already."""
        self._waiting.append(self._thread.submit(work))
        while len(self._waiting) > self._depth:
            self._waiting.popleft().result()
