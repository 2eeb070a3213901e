"""What several processes that train together must hold alike, and what each must draw for itself."""

import numpy as np

from skipway.training.ranks import Ranks
from skipway.training.state import Parts, Progress, packed, unpacked


def same_state(ranks: Ranks, parts: Parts, progress: Progress) -> Progress:
    """Weights, averages, optimiser and progress of the first process, in every one, to the bit.

    The others need no file for it: their machines may not see the run folder.
    """
    if ranks.alone:
        return progress
    tensors, facts = packed(parts, progress) if ranks.first else ({}, None)
    tensors, facts = ranks.share_arrays(tensors), ranks.share(facts)
    return progress if ranks.first else unpacked(parts, tensors, facts)


def seed_of(seed: int, rank: int, step: int) -> int:
    """Seed of what a process draws in a step, such as dropout: no two are alike, and none needs to be stored.

    >>> len({seed_of(0, rank, step) for rank in range(4) for step in range(100)})
    400
    """
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0])
