"""One training on several processes: who they are, what they tell each other, and how an error reaches the user once.

A `Ranks` is made once, by `joined`, and passed on; of one process all it does is nothing. Values travel as JSON or as
the bytes of arrays. torch's own exchange of objects would unpickle what another machine sent.
"""

import json
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from skipway.devices import resolve_device
from skipway.errors import (
    CheckpointError,
    DataError,
    EnvironmentFault,
    Interrupted,
    NumericalError,
    Problem,
    SecurityError,
    SkipwayError,
    StopAsked,
    UsageError,
    fault_of,
    interrupted,
)
from skipway.training.launch import Launch, launched

MEET = timedelta(minutes=15)
"""How long the processes wait for each other at the start: the machines of a cluster may start minutes apart."""

PATIENCE = timedelta(hours=6)
"""How long one waits for another afterwards. The first may check a large data set or validate for long; a process
that dies closes its connections and is noticed at once."""

HEARD = timedelta(seconds=5)
"""How long a process that must stop waits for the others to have heard why."""

_KINDS = {
    kind.__name__: kind
    for kind in (
        UsageError,
        DataError,
        CheckpointError,
        EnvironmentFault,
        NumericalError,
        SecurityError,
        Interrupted,
    )
}


class Lost(RuntimeError):
    """Another process could not be reached in the middle of an exchange."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0; the first alone reads and writes the run folder and speaks.
        world: How many there are.
        local: Its number on its machine.
        shard: Whether weights and optimiser are divided among them instead of repeated in each.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    shard: bool = False

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this one leads."""
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> range:
        """The patches of a batch of `count` that a rank makes: neighbours, shares that differ by one at most.

        >>> [Ranks(rank, 2).part(5) for rank in range(2)]
        [range(0, 3), range(3, 5)]
        """
        rank = self.rank if rank is None else rank
        each, more = divmod(count, self.world)
        first = rank * each + min(rank, more)
        return range(first, first + each + (rank < more))

    def require_work(self, batch: int) -> None:
        """Refuse a batch of fewer patches than there are processes.

        Raises:
            UsageError: it is one.
        """
        if batch < self.world:
            found = f"a batch of {batch} {'patch' if batch == 1 else 'patches'} for {self.world} processes"
            raise UsageError(
                Problem(
                    found, "--batch", "a patch for each at least", f"--batch {self.world}, or fewer processes"
                )
            )

    def described(self, batch: int) -> dict[str, str]:
        """A line for people; none where there is one process."""
        if self.alone:
            return {}
        least, most = len(self.part(batch, self.world - 1)), len(self.part(batch, 0))
        shares = str(most) if least == most else f"{least} or {most}"
        return {"processes": f"{self.world}, with {shares} of the {batch} patches of a step each"}

    def device(self, named: str | None) -> torch.device:
        """Where this process computes: of the CUDA devices of its machine the one of its number.

        Raises:
            UsageError: a device of a number was named for several processes.
            EnvironmentFault: the machine has fewer devices than processes.
        """
        found = resolve_device(named)
        if self.alone or found.type != "cuda":
            return found
        if named is not None and ":" in named:
            found_here = f"found {named} for {self.world} processes"
            raise UsageError(Problem(found_here, "--device", fix="--device cuda, or leave it out"))
        count = torch.cuda.device_count()
        index = 0 if count == 1 else self.local  # a launcher may show each process one device
        if index >= count:
            found_here = f"process {self.local + 1} of a machine with {count} CUDA devices"
            raise EnvironmentFault(Problem(found_here, "--nproc-per-node", fix="--nproc-per-node=gpu"))
        torch.cuda.set_device(index)
        return torch.device("cuda", index)

    def share(self, value: Any = None) -> Any:
        """The first one's JSON value, in every process."""
        if self.alone:
            return value
        payload = _bytes(json.dumps(value, allow_nan=False).encode() if self.first else b"")
        size = torch.tensor([payload.numel()])
        with _reaching():
            dist.broadcast(size, 0)
            if not self.first:
                payload = torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(payload, 0)
        return json.loads(payload.numpy().tobytes())

    def share_arrays(self, arrays: dict[str, Any] | None = None) -> dict[str, Any]:
        """The first one's arrays by name, in every process."""
        if self.alone:
            return arrays or {}
        own = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        shapes = self.share({name: (str(array.dtype), array.shape) for name, array in own.items()})
        for name, (kind, shape) in shapes.items():
            array = own.setdefault(name, np.empty(shape, kind))
            if array.size:
                with _reaching():
                    dist.broadcast(torch.from_numpy(array.reshape(-1).view(np.uint8)), 0)
        return own

    def gather(self, value: Any) -> list[Any]:
        """Every one's JSON value, in the order of their numbers, in every process."""
        if self.alone:
            return [value]
        own = _bytes(json.dumps(value, allow_nan=False).encode())
        sizes = self.stacked(torch.tensor([own.numel()])).flatten().tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: own.numel()] = own
        found = self.stacked(padded)
        return [json.loads(row[:size].numpy().tobytes()) for row, size in zip(found, sizes, strict=True)]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each of the flags, set where any process set it."""
        if self.alone:
            return flags
        votes = torch.tensor(flags, dtype=torch.uint8)
        with _reaching():
            dist.all_reduce(votes, dist.ReduceOp.MAX)
        return tuple(bool(vote) for vote in votes)

    def meet(self) -> None:
        """Wait for all. Asked by a CPU, it notices one that is gone, which a GPU in the middle of a step does not."""
        if not self.alone:
            self.any(False)

    def stacked(self, tensor: Tensor) -> Tensor:
        """Every one's tensor of one shape and type, (world, …): byte by byte, so of any type."""
        own = tensor.detach().contiguous()
        flat = own.reshape(-1).view(torch.uint8)
        rows = [torch.empty_like(flat) for _ in range(self.world)]
        with _reaching():
            dist.all_gather(rows, flat)
        return torch.stack(rows).view(own.dtype).view(self.world, *own.shape)

    def summed(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in its own precision and the same bits everywhere."""
        with _reaching():
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()


ALONE = Ranks()
"""One process, as `skipway train` is without a launcher."""


@contextmanager
def joined(shard: bool = False) -> Iterator[Ranks]:
    """Meet the other processes that a launcher started for this training, and part from them at its end.

    An error in any of them ends all of them with its exit code, and the first one says it. Where the first cannot
    be reached another one does. Those that are silent leave by SystemExit.

    Args:
        shard: Whether to divide weights and optimiser among them.

    Raises:
        UsageError: there is nobody to divide them with.
        SkipwayError: what went wrong in whichever process.
        EnvironmentFault: another process died, or could not be reached.
    """
    launch = launched(os.environ)
    if launch is None:
        if shard:
            fix = "start it with torchrun, or leave --shard out"
            raise UsageError(
                Problem("one process alone", "--shard", "several to divide the network among", fix)
            )
        yield ALONE
        return
    store = _met(launch)
    ranks = Ranks(launch.rank, launch.world, launch.local, shard)
    try:
        yield ranks
    except (Exception, StopAsked) as caught:
        error = interrupted() if isinstance(caught, StopAsked) else caught
        _leave_deaf()
        found = _told(error, store, ranks)
        _part()
        if found is not error:
            _say_or_go(found, store, ranks)
            raise found from error
        _say_or_go(found, store, ranks)
        if error is not caught:
            raise error from None
        raise
    else:
        dist.destroy_process_group()


def _met(launch: Launch) -> "dist.Store":
    """Connect, and give the board on which a process that fails writes why."""
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cuda:nccl,cpu:gloo"
    place = f"{launch.address}:{launch.port}"
    rank, world = launch.rank, launch.world
    try:
        meeting = dist.rendezvous(f"tcp://{place}", rank, world, timeout=MEET)
        store: dist.Store = next(iter(meeting))[0]
        store.set_timeout(MEET)
        board = dist.PrefixStore(_life(store, rank, world), store)
        dist.init_process_group(backend, timeout=PATIENCE, world_size=world, rank=rank, store=board)
    except RuntimeError as error:
        found = f"process {rank} of {world} could not meet the others ({_line(error)})"
        fix = "look at the other machines, and whether this address and port can be reached from them"
        raise EnvironmentFault(Problem(found, place, fix=fix)) from error
    return board


def _life(store: "dist.Store", rank: int, world: int) -> str:
    """A name for this start of all processes, which the first one gives.

    A launcher that starts them again keeps the board, with what the dead have written on it. So each of the others
    waits until the name that it read is answered to itself: who answers is alive.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("life", own)
        for other in range(1, world):
            store.set(f"{own}/{other}/seen", store.get(f"{own}/{other}/here").decode())
        return own
    end = time.monotonic() + MEET.total_seconds()
    while time.monotonic() < end:
        life = store.get("life").decode()
        store.set(f"{life}/{rank}/here", own)
        seen = f"{life}/{rank}/seen"
        if store.check([seen]) and store.get(seen).decode() == own:
            return life
        time.sleep(0.02)
    raise RuntimeError("the first process does not answer")


def _told(error: Exception, store: "dist.Store", ranks: Ranks) -> Exception:
    """Write down why this process stops, or read why another one did: the first that writes is right."""
    mine = error if isinstance(error, SkipwayError) else fault_of(error)
    if isinstance(error, Lost):
        with suppress(RuntimeError):
            if store.check(["error"]):
                return _read(store.get("error"))
        found = f"another of the {ranks.world} processes of this training is gone ({_line(error)})"
        mine = EnvironmentFault(Problem(found, fix="see what its machine says; the same command goes on"))
    words = mine or SkipwayError(
        Problem(f"process {ranks.rank} of {ranks.world} failed: {type(error).__name__}: {_line(error)}")
    )
    try:
        written = store.compare_set("error", "", _written(words))
    except RuntimeError:  # the machine of the first is gone, and the board with it
        return mine or error
    return (mine or error) if written == _written(words).encode() else _read(written)


def _part() -> None:
    """Close the connections, so that whoever waits for this process wakes up; NCCL may not want to, and is left."""
    closing = threading.Thread(target=dist.destroy_process_group, daemon=True)
    closing.start()
    closing.join(HEARD.total_seconds())


def _say_or_go(error: Exception, store: "dist.Store", ranks: Ranks) -> None:
    """Return to the process that is to say the error; of the others, leave.

    Raises:
        SystemExit: another one says it.
    """
    code = error.exit_code if isinstance(error, SkipwayError) else 1
    try:
        if not ranks.first:
            with suppress(RuntimeError):
                store.wait(["said"], HEARD)
        sayer = int(store.compare_set("said", "", str(ranks.rank)))
        store.add("heard", 1)
        if ranks.first:  # it may hold the board, which the others still have to read
            _patient(store, ranks.world)
    except RuntimeError:
        return
    if sayer != ranks.rank and isinstance(error, SkipwayError):  # of a fault in the code both tell
        raise SystemExit(code)


def _patient(store: "dist.Store", world: int) -> None:
    end = time.monotonic() + HEARD.total_seconds()
    while store.add("heard", 0) < world and time.monotonic() < end:
        time.sleep(0.02)


def _leave_deaf() -> None:
    """From here on the process only says why it stops, for seconds: what asks it to stop is too late."""
    with suppress(ValueError):  # not the main thread: signals belong to somebody else
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _written(error: SkipwayError) -> str:
    return json.dumps(
        {"kind": type(error).__name__, "problems": [asdict(problem) for problem in error.problems]}
    )


def _read(text: bytes) -> SkipwayError:
    found = json.loads(text)
    kind = _KINDS.get(found["kind"], SkipwayError)
    return kind(*(Problem(**problem) for problem in found["problems"]))


@contextmanager
def _reaching() -> Iterator[None]:
    """An exchange that fails means that a process is gone; gloo and NCCL have no class of their own for it."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(_line(error)) from error


def _line(error: BaseException) -> str:
    """The first sentence, without the place in the source of a library that gloo puts before it."""
    text = re.sub(r"^\[[^\]]*\] *", "", (str(error).splitlines() or [type(error).__name__])[0])
    return text.split(". ")[0][:200]


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)
