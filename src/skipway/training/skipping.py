"""Batches that are left out: which they are, and how many may be."""

from collections.abc import Sequence
from dataclasses import dataclass

from skipway.data.sampling import Batch

MAX_SKIPPED, MAX_SHARE = 5, 0.05
"""Batches that are left out because of a loss, gradient or weight that is not finite, before the training gives up.

At most so many, and at most such a share of all steps; one always may."""


def batch_number(step: int, skipped: Sequence[int]) -> int:
    """Number of the batch that step `step` (from 0) uses: every batch in order but the skipped ones.

    >>> [batch_number(step, [1, 2]) for step in range(3)]
    [0, 3, 4]
    """
    number = step
    for left_out in sorted(skipped):
        number += left_out <= number
    return number


def allowed(total: int | None) -> int:
    """Batches that may be left out in a training of `total` steps.

    >>> allowed(2000), allowed(60), allowed(24), allowed(None)
    (5, 3, 1, 5)
    """
    return MAX_SKIPPED if total is None else min(MAX_SKIPPED, max(1, int(MAX_SHARE * total)))


@dataclass(frozen=True)
class Failed:
    """A batch that must not be learned from, and what of it is not finite."""

    batch: Batch
    what: str
