"""What the launchers say in the environment, and what becomes of a batch."""

import pytest
import torch

from skipway.errors import EnvironmentFault, UsageError
from skipway.training import ranks
from skipway.training.launch import Launch, first_host, launched
from skipway.training.ranks import Ranks
from skipway.training.sharing import seed_of

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu07", "MASTER_PORT": "29400"}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "123",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "8",
}


def test_torchrun_says_it_and_comes_before_srun():
    assert launched(TORCHRUN) == Launch(rank=3, local=1, world=4, address="gpu07", port=29400)
    assert launched({**SRUN, **TORCHRUN}) == launched(TORCHRUN)


def test_srun_says_it():
    assert launched(SRUN) == Launch(rank=5, local=1, world=8, address="gpu07", port=15_000 + 8 * 123 + 2)
    assert launched({**SRUN, "SLURM_JOB_ID": "4000000"}).port < 25_000


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "gpu[07-08]"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"},
    ],
    ids=["nobody", "a batch script without srun", "srun of one task", "torchrun of one process"],
)
def test_one_process_is_no_launch(variables):
    assert launched(variables) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"RANK": "x"}, "RANK: found 'x', expected a whole number"),
        ({"RANK": "4"}, "rank 4 of 4 processes"),
        ({"MASTER_ADDR": None}, "no variable MASTER_ADDR"),
    ],
)
def test_a_launcher_that_says_nonsense_is_named(change, said):
    variables = {name: text for name, text in {**TORCHRUN, **change}.items() if text is not None}
    with pytest.raises(UsageError, match=said):
        launched(variables)


def test_the_first_host_of_a_list():
    assert [first_host(text) for text in ("n1", "gpu[003,007-9]-ib,fat", "a,b[1-2]")] == [
        "n1",
        "gpu003-ib",
        "a",
    ]


@pytest.mark.parametrize(("count", "world"), [(4, 2), (3, 2), (7, 3), (5, 5)])
def test_the_parts_of_a_batch_are_the_batch(count, world):
    parts = [Ranks(rank, world).part(count) for rank in range(world)]
    assert [number for part in parts for number in part] == list(range(count))
    assert {len(part) for part in parts} <= {count // world, -(-count // world)}


def test_fewer_patches_than_processes_are_refused():
    Ranks(0, 2).require_work(2)
    with pytest.raises(UsageError, match=r"--batch: a batch of 2 patches for 3 processes.*Fix: --batch 3"):
        Ranks(0, 3).require_work(2)


def test_each_process_has_the_device_of_its_number(monkeypatch):
    monkeypatch.setattr(ranks, "resolve_device", lambda named: torch.device(named or "cuda"))
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Ranks(3, 4, local=1).device(None) == torch.device("cuda:1")
    assert chosen == [1]
    with pytest.raises(EnvironmentFault, match="process 3 of a machine with 2 CUDA devices"):
        Ranks(2, 4, local=2).device("cuda")
    with pytest.raises(UsageError, match=r"found cuda:1 for 4 processes"):
        Ranks(2, 4, local=2).device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # as a launcher shows each process its own
    assert Ranks(2, 4, local=2).device("cuda") == torch.device("cuda:0")
    assert Ranks().device("cuda:1") == torch.device("cuda:1")
    assert Ranks(1, 2, local=1).device("cpu") == torch.device("cpu")


def test_what_a_process_draws_is_its_own():
    assert len({seed_of(seed, rank, step) for seed in (0, 1) for rank in range(3) for step in range(3)}) == 18
    assert seed_of(7, 1, 4) == seed_of(7, 1, 4)
