"""Processors that a container or a job queue grants."""

import os

import pytest
import torch
from toys import written

from skipway import devices
from skipway.machine import control_groups, cores

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def new(quota, outer="max 100000"):
    return {
        "proc/self/cgroup": "0::/work/job\n",
        "sys/fs/cgroup/work/job/cpu.max": f"{quota}\n",
        "sys/fs/cgroup/work/cpu.max": f"{outer}\n",
    }


def old(quota):
    return {
        "proc/self/cgroup": "9:pids:/\n4:memory:/a\n2:cpu,cpuacct:/a\n0::/\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": f"{quota}\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "50000\n",
    }


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({}, HERE),
        (new("max 100000"), HERE),
        (new("100000 100000"), 1),
        (new("30000 100000"), 1),  # a third of a processor is one that often waits
        (new(f"{HERE * 100000 + 1} 100000"), HERE),
        (new("max 100000", outer="100000 100000"), 1),
        (new("nonsense"), HERE),
        (old(-1), HERE),
        (old(50000), 1),
        (old(50000 * (HERE + 3)), HERE),
    ],
)
def test_the_least_of_what_there_is_and_what_is_granted(tmp_path, files, granted):
    assert cores(written(tmp_path, files)) == granted


def test_a_part_of_a_processor_counts_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cores(written(tmp_path / "2", new("250000 100000"))) == 3
    assert cores(written(tmp_path / "1", old(100000))) == 2
    assert cores(tmp_path / "none") == 64


def test_groups_from_the_own_one_to_the_outermost(tmp_path):
    root = written(tmp_path, {"proc/self/cgroup": "3:cpu:/b/c\n1:memory:/d\n"})
    found = [(version, str(group.relative_to(root))) for version, group in control_groups("cpu", root)]
    assert found == [(1, f"sys/fs/cgroup/cpu{place}") for place in ("/b/c", "/b", "")]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield torch.get_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("granted", "said", "after"), [(2, None, 2), (64, None, 4), (2, "4", 4)])
def test_torch_computes_with_no_more_threads_than_granted(monkeypatch, threads, granted, said, after):
    monkeypatch.setattr(devices, "cores", lambda: granted)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    devices.use_granted_cores()
    assert threads() == after
