"""Where the arithmetic happens."""

from typing import TYPE_CHECKING

from skipway.errors import EnvironmentFault, Problem, UsageError

if TYPE_CHECKING:
    import torch


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
