"""What the training loop calls and does not know."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from skipway.data.sampling import Batch
from skipway.nn.graph import SkipGraph
from skipway.training.collapse import Collapse
from skipway.training.pace import Reserve

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Validation:
    """What one validation found: score and loss, either None where undefined."""

    score: float | None
    loss: float | None


@dataclass(frozen=True)
class Hooks:
    """What the loop calls and does not know.

    Attributes:
        batches: Batches for step s on, in order, with some left out (see `batch_number`).
        validate: Scores the averaged net.
        reserved: Measures what is to be kept for a validation and the final evaluation, given the averaged net.
        names: Names of the images of a batch, for messages.
        collapse: Looks at predictions of the training.
        event: Told of every step, validation, rewind and collapse.
        stopped: Asked after every step whether to save and stop.
    """

    batches: Callable[[int, Sequence[int]], AbstractContextManager[Iterator[Batch]]]
    validate: Callable[[SkipGraph], Validation]
    reserved: Callable[[SkipGraph], Reserve]
    names: Callable[[Sequence[int]], Sequence[str]]
    collapse: Collapse
    event: Callable[[Event], None]
    stopped: Callable[[], bool]
