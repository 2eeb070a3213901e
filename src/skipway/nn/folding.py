"""Fold what a network does to a map channel by channel into the convolution before it; for prediction.

Which norm follows which convolution is not read off names: one small image runs through the network and it is
watched which module alone reads what a convolution makes. So blocks, gates and encoders of other people fold alike.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from skipway.nn.graph import SkipGraph
from skipway.nn.hybrid import StandardisedConv
from skipway.nn.layers import CONVOLUTIONS, TRANSPOSED, Recurrent
from skipway.nn.norms import RepeatedBatchNorm
from skipway.shapes import Path

M = TypeVar("M", bound=nn.Module)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def folded(model: SkipGraph) -> SkipGraph:
    """A copy of `model` in evaluation mode, with every norm of running statistics in the convolution before it.

    Also, weights that are standardised in every pass are so once and for all, and a convolution that is used several
    times, each with its own statistics, becomes as many. What cannot be folded, such as a norm before an activation
    before a convolution, stays. Nothing is shared with the original.

    Args:
        model: Network, in any mode, on any device.
    """
    twin = deepcopy(model).eval().requires_grad_(False)
    _replace(twin, StandardisedConv, _standardised)
    _replace(twin, Recurrent, _unrolled)
    for first, second in followed(twin, (*CONVOLUTIONS, *TRANSPOSED), NORMS).pairs:
        conv, norm = twin.get_submodule(first), twin.get_submodule(second)
        if (made := _with_norm(conv, norm)) is not None:
            twin.set_submodule(first, made)
            twin.set_submodule(second, nn.Sequential(*norm.children()))  # timm has activations inside
    return twin


@dataclass(frozen=True)
class Followed:
    """What one pass showed.

    Attributes:
        called: Names of the first modules that ran exactly once.
        pairs: (name of a first module, name of the second one that alone reads what it makes).
    """

    called: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def followed(model: SkipGraph, firsts: Sequence[type], seconds: Sequence[type]) -> Followed:
    """Run the smallest image through `model` and watch which of `seconds` follow which of `firsts`.

    A pair is found only where the second module runs once and nothing else reads the map of the first, or
    nothing could have read it before the second changed it in place.

    Args:
        model: Network in evaluation mode.
        firsts: Exact types, but for the seconds of which subclasses count too.
        seconds: Types.
    """
    watch = _Watch()
    hooks = []
    module: nn.Module
    for name, module in model.named_modules():
        if type(module) in firsts:
            hooks.append(module.register_forward_hook(watch.made_by(name)))
        elif isinstance(module, tuple(seconds)):
            hooks.append(module.register_forward_pre_hook(watch.read_by(name)))
    weight = next(model.parameters())
    image = weight.new_zeros(1, model.in_channels, *model.geometry.smallest)
    try:
        with torch.no_grad(), watch:
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.found()


class _Watch(TorchFunctionMode):
    """Counts how often each map is read by a function that makes another map of it.

    At the level of torch's functions: a mode below them would load torch's compiler, for eight seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reads: Counter[int] = Counter()
        self._calls: Counter[str] = Counter()
        self._maker: dict[int, str] = {}
        self._makers: dict[str, None] = {}
        self._pairs: list[tuple[str, str, int, bool]] = []
        self._kept: list[Tensor] = []  # so that no other map gets the identity of one that is gone

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function and note what it reads."""
        found = function(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(found)):  # sizes and such are no maps
            read = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            self._reads.update(read)
        return found

    def made_by(self, name: str) -> Any:
        """A hook that notes what a module makes."""

        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            self._calls[name] += 1
            self._makers[name] = None
            self._maker[id(output)] = name
            self._reads[id(output)] = 0  # what was read under this identity before was another map
            self._kept.append(output)

        return hook

    def read_by(self, name: str) -> Any:
        """A hook that notes what a module is about to read."""

        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._calls[name] += 1
            x = id(args[0])
            if x in self._maker and not self._reads[x]:
                in_place = bool(getattr(module, "inplace", False))
                self._pairs.append((self._maker[x], name, x, in_place))

        return hook

    def found(self) -> Followed:
        """What follows what."""
        once = {name for name, calls in self._calls.items() if calls == 1}
        pairs = tuple(
            (first, second)
            for first, second, x, in_place in self._pairs
            if {first, second} <= once and (in_place or self._reads[x] == 1)
        )
        return Followed(tuple(name for name in self._makers if name in once), pairs)


def _replace(model: nn.Module, kind: type[M], make: Any) -> None:
    """Put `make(module)` in the place of each module of a kind, unless it is None."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    for name, module in found:
        if (made := make(module)) is not None:
            model.set_submodule(name, made)


def _with_norm(conv: Any, norm: Any) -> nn.Module | None:
    """The convolution that does what the two do, or None where they cannot be one."""
    transposed = isinstance(conv, TRANSPOSED)
    if norm.running_mean is None or (transposed and conv.groups > 1) or "weight" not in conv._parameters:
        return None
    return fuse_conv_bn_eval(conv, norm, transpose=transposed)


def _standardised(module: StandardisedConv) -> nn.Module:
    plain = deepcopy(module.conv)
    plain.weight = nn.Parameter(module.weight(), requires_grad=False)
    return plain


class Unrolled(nn.Module):
    """y = f_0(x), then y = f_k(x + y) for every further f: what `Recurrent` computes, each use with its own weights.

    Args:
        uses: f_0, f_1, …, from (B, width, *S) to the same shape.
        path: Size arithmetic of all of them.
    """

    def __init__(self, uses: Iterable[nn.Module], path: Path) -> None:
        super().__init__()
        self.uses = nn.ModuleList(uses)
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same shape."""
        first, *others = self.uses
        y = first(x)
        for use in others:
            y = use(x + y)
        return y


def _unrolled(module: Recurrent) -> Unrolled | None:
    """As many bodies as uses, where a norm that knows its uses comes right after its convolution."""
    layers = list(module.body)
    known = [i for i, layer in enumerate(layers) if isinstance(layer, RepeatedBatchNorm)]
    if not known or any(i == 0 or type(layers[i - 1]) not in CONVOLUTIONS for i in known):
        return None
    return Unrolled((_use(layers, number) for number in range(module.times + 1)), module.path)


def _use(layers: Sequence[nn.Module], number: int) -> nn.Sequential:
    body: list[Any] = []
    for layer in layers:
        if isinstance(layer, RepeatedBatchNorm):
            conv, mean, var = body[-1], layer.running_mean[number], layer.running_var[number]
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, mean, var, layer.eps, layer.weight, layer.bias
            )
        else:
            body.append(deepcopy(layer))
    return nn.Sequential(*body)
