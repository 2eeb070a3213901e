"""Where the arithmetic happens, and with what memory."""

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from skipway.errors import EnvironmentFault, Problem, UsageError
from skipway.machine import cores

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Options of glibc's mallopt, from its malloc.h."""


def resolve_device(name: str | None) -> "torch.device":
    """The device that `name` asks for; the first CUDA device, else the CPU, when it asks for none.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps" or None.

    Raises:
        UsageError: no such kind of device.
        EnvironmentFault: this machine has none, or torch cannot see it.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            Problem(f"no device is called {name!r}", "--device", "cpu, cuda, cuda:N or mps")
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = f"torch sees {count} CUDA devices" if count else "torch sees no CUDA device here"
            raise EnvironmentFault(
                Problem(seen, f"--device {name}", fix="--device cpu, or install the driver")
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentFault(
            Problem("torch sees no MPS device here", f"--device {name}", fix="--device cpu")
        )
    elif device.type not in ("cpu", "mps"):
        raise UsageError(Problem(f"no device is called {name!r}", "--device", "cpu, cuda, cuda:N or mps"))
    return device


def fast_bf16(device: "torch.device") -> bool:
    """Whether `device` computes in bfloat16 natively, which halves the time of a training step."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Absent before torch 2.10; then the answer is no, which is safe.
        able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def use_granted_cores() -> None:
    """Compute with no more threads than `machine.cores`, unless OMP_NUM_THREADS says how many.

    Torch counts the processors of the machine; in a container that is granted fewer, its threads wait for each other.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and (granted := cores()) < torch.get_num_threads():
        torch.set_num_threads(granted)


def keep_heap() -> None:
    """Tell glibc to keep freed memory for the rest of this process instead of giving it back to the kernel.

    Every large map of a network is otherwise unmapped when it is freed, and zeroed again by the kernel, page by page,
    when the next one is made. Numbers stay the same to the bit; the process keeps its peak memory until it ends.

    Raises:
        EnvironmentFault: memory here is not handed out by glibc.
    """
    c_library = _glibc()
    if c_library is None:
        raise EnvironmentFault(
            Problem(
                "memory here is not handed out by glibc", "--keep-heap", "Linux with glibc", "leave it out"
            )
        )
    if not (
        c_library.mallopt(_M_MMAP_MAX, 0)  # large blocks from the heap as well
        and c_library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # and its free end stays
        and c_library.mallopt(_M_TOP_PAD, 2**26)  # which grows in large steps
    ):
        raise EnvironmentFault(Problem("glibc refused its own options", "--keep-heap", fix="leave it out"))


def _glibc() -> ctypes.CDLL | None:
    """The C library, where that is glibc and its `malloc` is the one in use."""
    if sys.platform != "linux":
        return None
    try:
        here, c_library = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        address = [ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (here, c_library)]
        found = hasattr(c_library, "gnu_get_libc_version") and address[0] == address[1]  # else preloaded
    except (OSError, AttributeError):
        return None
    return c_library if found else None
