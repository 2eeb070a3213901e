"""Amounts of memory as people write them, limits as a system gives them, and what counts as too little."""

import numpy as np
import pytest
import torch
from toys import written

from skipway import memory
from skipway.errors import UsageError
from skipway.memory import amount, cgroup_rooms, ran_out

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * 2**30),
        ("512M", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("2 gb", 2**31),
        ("100k", 102400),
        ("1T", 2**40),
        (" 7 ", 7),
        (12345, 12345),
        (".5G", 2**29),
    ],
)
def test_an_amount(text, size):
    assert amount(text) == size


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "0", "0.0001", "4G4", "1e3", "nan", "4 G M"])
def test_what_is_no_amount_is_refused_with_what_to_type(text):
    with pytest.raises(UsageError, match=r"--vram: found .* expected an amount of memory such as 512M, 4G"):
        amount(text, "--vram")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    ],
)
def test_what_counts_as_out_of_memory(error):
    assert ran_out(error)


@pytest.mark.parametrize("error", [RuntimeError("shape '[2]' is invalid"), ValueError("not enough memory")])
def test_what_does_not(error):
    assert not ran_out(error)


def test_the_allocator_says_what_we_look_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert ran_out(caught.value)


def test_the_room_of_control_groups_of_either_version(tmp_path):
    new = {
        "proc/self/cgroup": "0::/work/job\n",
        "sys/fs/cgroup/work/job/memory.max": "max\n",
        "sys/fs/cgroup/work/job/memory.current": "10\n",
        "sys/fs/cgroup/work/memory.max": "5000\n",
        "sys/fs/cgroup/work/memory.current": "3000\n",
        "sys/fs/cgroup/work/memory.stat": "anon 7\ninactive_file 400\n",
    }
    assert list(cgroup_rooms(written(tmp_path / "2", new))) == [2400]
    old = {
        "proc/self/cgroup": "8:pids:/\n4:memory:/a\n1:cpu:/a\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "900\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "950\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    }
    assert list(cgroup_rooms(written(tmp_path / "1", old))) == [0]
    assert list(cgroup_rooms(tmp_path / "none")) == []


def test_the_peak_is_that_since_it_was_forgotten():
    if not memory._status("VmHWM"):
        pytest.skip("the system tells no peak")
    held = np.ones(2**25)  # 256 MiB
    del held
    memory.forget_peak(CPU)
    before = memory.peak(CPU)
    held = np.ones(2**23)  # 64 MiB, every page touched
    assert memory.peak(CPU) - before == pytest.approx(2**26, rel=0.1)
    del held
    assert memory.peak(CPU) - before == pytest.approx(2**26, rel=0.1)
    memory.forget_peak(CPU)
    assert memory.peak(CPU) - before < 2**24


def test_what_is_asked_for_is_the_budget_and_a_share_of_what_is_free_without():
    assert memory.budget(CPU, 123) == 123
    free, used = memory.free(CPU), memory.in_use(CPU)
    assert memory.budget(CPU, None) == pytest.approx(used + 0.8 * free, rel=0.2)
    assert 0 < used < free * 100
