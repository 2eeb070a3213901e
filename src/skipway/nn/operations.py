"""Count what a network costs: parameters, multiplications, memory."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from math import prod
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skipway.nn.graph import SkipGraph
from skipway.nn.layers import CONVOLUTIONS, TRANSPOSED, Repeat
from skipway.nn.norms import BATCH_NORMS, ChannelLayerNorm, GroupNorm
from skipway.nn.paths import path_of
from skipway.shapes import Grid, Step, Window

_PER_CHANNEL = (*BATCH_NORMS, GroupNorm, ChannelLayerNorm, nn.PReLU, Repeat)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a model: weights, biases, scales and shifts of norms; no running statistics."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: SkipGraph, size: tuple[int, ...]) -> int:
    """Multiplications (each with its addition) of one forward pass of one image.

    A convolution costs output pixels · kernel · channels in · channels out; a transposed one, input pixels.
    Biases, norms, pooling and interpolation are left out, as papers do. A module that does not consist of plain
    convolutions counts itself, in a method `multiplications(before, after)`; an encoder of someone else's modules, in
    a method `macs(size)`.

    Args:
        model: Network, on any device (also `meta`); it is left as it is.
        size: Legal size of the image.

    Raises:
        ShapeError: The network cannot take that size.
    """
    weights = {id(parameter): parameter for parameter in model.parameters()}
    twin = deepcopy(model, weights).eval()  # with the weights in the memo, no weight is copied
    encoder: Any = model.encoder
    inside = 0
    if hasattr(encoder, "macs"):
        inside = encoder.macs(size)
        twin.add_module("encoder", _Maps(encoder.strides, encoder.widths))
    shells = list(_hollow(twin, model.ndim))
    with torch.no_grad():
        twin(torch.zeros(()).expand(1, model.in_channels, *size))
    return inside + sum(shell.macs for shell in shells)


def _hollow(parent: nn.Module, ndim: int) -> Iterator["_Shell"]:
    """Put shells in the places of what costs, nothing in those of what works a channel at a time."""
    for name, child in list(parent.named_children()):
        if isinstance(child, (*CONVOLUTIONS, *TRANSPOSED)) or hasattr(child, "multiplications"):
            shell = _Shell(child, ndim)
            setattr(parent, name, shell)
            yield shell
        elif isinstance(child, _PER_CHANNEL):
            setattr(parent, name, nn.Identity())
        else:
            yield from _hollow(child, ndim)


def peak_bytes(run: Callable[[Tensor], object], x: Tensor) -> int:
    """Most bytes of tensors alive at once while `run(x)` goes on, made by it and not counting what was there.

    Counted by running it: every operation's result from its making to its freeing. What a library needs inside
    one operation is not seen, so the count is the same on every machine.
    """
    count = _Alive()
    with torch.no_grad(), count:
        run(x)
    return count.most


class _Alive(TorchDispatchMode):
    """Counts the bytes of storages from the operation that makes them until nothing holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._seen: WeakSet[Any] = WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and note what it made."""
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = function(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            storage = made.untyped_storage() if isinstance(made, Tensor) else None
            if storage is not None and id(storage) not in given and storage not in self._seen:
                self._seen.add(storage)
                self._now += storage.nbytes()
                finalize(storage, self._free, storage.nbytes())
        self.most = max(self.most, self._now)
        return out

    def _free(self, size: int) -> None:
        self._now -= size


class _Shell(nn.Module):
    """Stands in for what costs: gives a map of the right size, one channel of zeros, and notes the cost.

    Running the network on the meta device would do the same, but loads torch's compiler for four seconds.
    """

    def __init__(self, module: Any, ndim: int) -> None:
        super().__init__()
        self.path = path_of(module, ndim)
        self.count: Callable[[Sequence[int], Sequence[int]], int]
        if hasattr(module, "multiplications"):
            self.count = module.multiplications
        else:
            weights, transposed = module.weight.numel(), isinstance(module, TRANSPOSED)
            self.count = lambda before, after: weights * prod(before if transposed else after)
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to (1, 1, *S') of zeros."""
        before = x.shape[2:]
        after = list(before)
        for layer in self.path:
            after = [_after(step, n) for step, n in zip(layer, after, strict=True)]
        self.macs += self.count(before, after)
        return torch.zeros(1, 1, *after)


def _after(step: Step, n: int) -> int:
    """Side after a step, as torch rounds it; inside a network a side may be odd where its pooling is not padded."""
    if isinstance(step, Window):
        return (n + 2 * step.padding - step.kernel) // step.stride + 1
    return int(step.grid(Grid()).size(n))


class _Maps(nn.Module):
    """Stands in for an encoder that has counted itself: maps of the right sizes, one channel of zeros."""

    def __init__(self, strides: Sequence[tuple[int, ...]], widths: Sequence[int]) -> None:
        super().__init__()
        self.strides = [stride for stride, width in zip(strides, widths, strict=True) if width]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) to (1, 1, *S / stride) of zeros, for each level that has a map."""
        sizes = [[n // s for n, s in zip(x.shape[2:], stride, strict=True)] for stride in self.strides]
        return [torch.zeros(1, 1, *size) for size in sizes]
