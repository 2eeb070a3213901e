"""What several processes that train together must hold alike, and what each must draw for itself."""

from pathlib import Path

import numpy as np

from skipway.plan import Plan
from skipway.training.ranks import Ranks
from skipway.training.shards import Shards, take
from skipway.training.state import Parts, Progress, has_state, newest_state, packed, unpacked


def restored(
    ranks: Ranks, plan: Plan, parts: Parts, shards: Shards | None, folder: Path
) -> tuple[Progress, str | None]:
    """Set the parts in every process to the state that the first one reads, or else to its first weights.

    Returns:
        Where the training stands, and a warning where that is not what was saved last.
    """
    plain = parts if shards is None else shards.plain(plan)
    progress, warning = Progress(total=plan.steps, legs=plan.legs), None
    if ranks.first and has_state(folder):
        progress, warning = newest_state(folder, plain)
    progress = same_state(ranks, plain, progress)
    if shards is not None:
        take(parts, plain)
    return progress, warning


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
