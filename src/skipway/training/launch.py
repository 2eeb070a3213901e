"""Which of how many processes this one is, as `torchrun` or `srun` tell it.

The one place that reads the environment: a launcher has no other way to say it, and a variable that it did not set
changes nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from skipway.errors import Problem, UsageError

PORTS = 15_000, 10_000
"""First port for processes that `srun` starts, and how many: each job and step has one of its own."""

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SRUN = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")


@dataclass(frozen=True)
class Launch:
    """The place of a process among those that a launcher started.

    Attributes:
        rank: Its number among all, from 0.
        local: Its number on its machine, from 0.
        world: How many there are.
        address: Machine of the first, where they meet.
        port: Port there.
    """

    rank: int
    local: int
    world: int
    address: str
    port: int


def launched(variables: Mapping[str, str]) -> Launch | None:
    """What a launcher says in the environment; None where it started one process, or there is none.

    `torchrun` comes first: it may itself have been started by `srun`. Of `srun` only the variables of a step count.
    SLURM_NTASKS is there in a batch script too, where `skipway train` without `srun` is one process.

    Args:
        variables: The environment.

    Raises:
        UsageError: a variable is missing or is no number.

    >>> launched({"SLURM_NTASKS": "4"}) is None
    True
    """
    if "RANK" in variables or "WORLD_SIZE" in variables:
        given = _present(_TORCHRUN, variables)
        rank, local, world, port = (_number(name, given[name]) for name in (*_TORCHRUN[:3], _TORCHRUN[4]))
        found = Launch(rank, local, world, given["MASTER_ADDR"], port)
    elif "SLURM_STEP_NUM_TASKS" in variables:
        given = _present(_SRUN, variables)
        rank, local, world, job = (_number(name, given[name]) for name in (*_SRUN[:3], _SRUN[4]))
        step = _number("SLURM_STEP_ID", variables.get("SLURM_STEP_ID", "0"))
        port = PORTS[0] + (8 * job + step) % PORTS[1]
        found = Launch(rank, local, world, first_host(given["SLURM_STEP_NODELIST"]), port)
    else:
        return None
    if not 0 <= found.rank < found.world:
        raise UsageError(Problem(f"rank {found.rank} of {found.world} processes", "environment"))
    return found if found.world > 1 else None


def first_host(names: str) -> str:
    """The first machine of a list as SLURM writes it.

    >>> [first_host(text) for text in ("gpu[07-09,12],fat1", "n1,n2", "a[1-2]b[3-4]-ib")]
    ['gpu07', 'n1', 'a1b3-ib']
    """
    first = re.split(r",(?![^\[]*\])", names)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _present(names: tuple[str, ...], variables: Mapping[str, str]) -> Mapping[str, str]:
    missing = [name for name in names if name not in variables]
    if missing:
        raise UsageError(
            Problem(
                f"no variable {missing[0]}", "environment", "all that a launcher sets", "use torchrun or srun"
            )
        )
    return {name: variables[name] for name in names}


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise UsageError(Problem(f"found {text!r}", name, "a whole number", "use torchrun or srun"))
    return int(text)
