"""The kept heap: less work for the kernel, the same numbers, and a plain word where it cannot be had."""

import subprocess
import sys

import pytest
from toys import skipway

from skipway import devices
from skipway.errors import EnvironmentFault

FAULTS = """
import resource, sys, torch
from skipway.devices import keep_heap
if sys.argv[1] == "kept":
    keep_heap()
torch.set_num_threads(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):  # the heap grows by some blocks before it holds one of every alignment
    torch.ones(12 * 2**20).sum()
before = faults()
print(sum(torch.ones(12 * 2**20).sum().item() for _ in range(8)), faults() - before)
"""


def faults(how):
    words = [sys.executable, "-c", FAULTS, how]
    total, count = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(total), int(count)


@pytest.mark.skipif(sys.platform != "linux" or devices._glibc() is None, reason="needs glibc")
def test_freed_memory_is_used_again_without_the_kernel():
    pages = 8 * 12 * 2**20 * 4 // 4096
    plain, kept = faults("plain"), faults("kept")
    assert plain[0] == kept[0] == 8 * 12 * 2**20
    assert kept[1] < pages // 2 < plain[1]


@pytest.mark.parametrize("verb", [("train", "images", "masks"), ("predict", "run", "images", "-o", "out")])
def test_without_glibc_it_is_refused_in_one_line(verb, monkeypatch):
    monkeypatch.setattr(devices, "_glibc", lambda: None)
    with pytest.raises(EnvironmentFault, match="not handed out by glibc"):
        devices.keep_heap()
    code, _, said = skipway(*verb, "--keep-heap")
    assert code == EnvironmentFault.exit_code
    assert "--keep-heap" in said
    assert "leave it out" in said
