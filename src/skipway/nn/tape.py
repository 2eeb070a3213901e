"""A network as the list of functions it calls, each known by the rows that it reads.

The network is watched while it runs on a batch of no images, where maps have a shape and no numbers, and nothing is
computed. What is noted follows from what it *does*: no module has to say anything, and somebody else's encoder is as
good as ours.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from skipway.nn.reach import QUESTIONS
from skipway.nn.rows import NotInRows, Rule, Site, length, rule_of
from skipway.shapes import Geometry

IMAGE = 0
"""Number of the image among the maps of a tape."""

_VIEWS = frozenset(
    ("__getitem__", "permute", "movedim", "transpose", "unsqueeze", "dropout", "contiguous", "identity")
)
"""Functions whose result may lie in the memory of what they read."""


@dataclass(frozen=True)
class Slot:
    """Stands for a map among the arguments of a call."""

    number: int


@dataclass(frozen=True)
class Call:
    """One function that is called.

    Attributes:
        name: Of the function.
        function: What is called.
        args: With which arguments; a `Slot` for each map, the weights as they are.
        kwargs: The same, by name.
        reads: Maps that it reads.
        makes: The map that it makes.
        rule: How it works along the axis.
        in_place: Whether it writes into the map that it reads.
    """

    name: str
    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]
    makes: int
    rule: Rule
    in_place: bool = False

    @cached_property
    def _places(self) -> tuple[list[Any], TreeSpec]:
        return tree_flatten((self.args, dict(self.kwargs)))

    def run(self, parts: Mapping[int, Tensor]) -> Tensor:
        """The function on rows of the maps that it reads."""
        leaves, spec = self._places
        filled = [parts[leaf.number] if isinstance(leaf, Slot) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(filled, spec)
        return self.function(*args, **kwargs)


@dataclass(frozen=True)
class Tape:
    """The calls of a network along one axis, in running order.

    Attributes:
        calls: Those that the outputs need.
        outputs: Numbers of the outputs' maps.
        dims: Which dimension of each map is the axis.
        numbers: In a row of each map.
        item: Bytes of a number.
    """

    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    dims: tuple[int, ...]
    numbers: tuple[int, ...]
    item: int


def record(
    model: nn.Module,
    geometry: Geometry,
    axis: int = 0,
    *,
    size: Sequence[int] | None = None,
    last: bool = False,
) -> Tape:
    """Watch a network and note its calls.

    It is watched at two sizes: where the calls differ, something in it depends on the size.

    Args:
        model: Network, in evaluation mode; it is left as it is.
        geometry: Of the network.
        axis: Axis in space whose rows are meant.
        size: A legal size of the image; of it the other axes count. Unless given, a small one.
        last: Whether to leave out what only other outputs than the last need.

    Raises:
        NotInRows: It is not local, or calls a function that is not known to be.
    """
    if not geometry.tile_exact:
        raise NotInRows("a layer looks at the whole image (attention, or a norm with statistics of the map)")
    sides = list(zip(geometry.smallest, geometry.stride, strict=True))
    small, large = (
        [least + more * stride for least, stride in sides] for more in (1, 2)
    )  # no map of one pixel
    across = small if size is None else [small[i] if i == axis else side for i, side in enumerate(size)]
    watch, other = _watch(model, across, axis), _watch(model, large, axis)
    if [_told(call) for call in watch.calls] != [_told(call) for call in other.calls]:
        raise NotInRows("its layers depend on the size of the image")
    outputs = watch.outputs[-1:] if last else watch.outputs
    calls = _in_place_where_safe(_needed(watch.calls, outputs), outputs)
    item = next(model.parameters()).element_size()
    return Tape(calls, outputs, tuple(watch.dims), tuple(watch.numbers), item)


class _Watch(TorchFunctionMode):
    """While it is entered, notes what is called on maps that are made from the image.

    Args:
        image: A batch of no images.
        axis: Axis in space.
    """

    def __init__(self, image: Tensor, axis: int) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.dims: list[int] = []
        self.numbers: list[int] = []
        self.outputs: tuple[int, ...] = ()
        self._seen: dict[int, tuple[Tensor, Slot]] = {}  # holds the tensor, so that its id stays its own
        self._new(image, axis + 2)

    def _new(self, found: Tensor, dim: int) -> int:
        self.dims.append(dim)
        self.numbers.append(prod(found.shape[1:]) // found.shape[dim])
        self._seen[id(found)] = (found, Slot(len(self.dims) - 1))
        return len(self.dims) - 1

    def stands_for(self, found: Tensor) -> Slot | Tensor:
        """The slot of a map; a weight, or what was made of weights, stands for itself."""
        if id(found) in self._seen:
            return self._seen[id(found)][1]
        if not found.numel():
            raise NotInRows("a map is computed by something that cannot be watched")
        return found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func` and note it."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        result = func(*args, **kwargs)
        if name in QUESTIONS or not any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            return result
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if maps := [found for found in inputs if isinstance(self.stands_for(found), Slot)]:
            real_args, real_kwargs = tree_map_only(Tensor, self.stands_for, (args, kwargs))
            self._note(name, func, real_args, real_kwargs, maps, result)
        return result

    def _note(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: Any, maps: list[Tensor], result: Any
    ) -> None:
        slots = [self._seen[id(found)][1].number for found in maps]
        dims = {self.dims[slot] for slot in slots}
        if len(dims) != 1 or not isinstance(result, Tensor):
            raise NotInRows(f"`{name}` mixes maps whose dimensions differ, or makes several of one")
        in_place = any(result is found for found in maps)
        if in_place and name in _VIEWS:
            return  # the map itself: nothing was done
        (dim,) = dims
        rule, args, kwargs = rule_of(name, Site(maps[0].ndim, dim), args, kwargs)
        made = result.shape[rule.dim]
        if any(length(rule.step, found.shape[dim]) != made for found in maps):
            raise NotInRows(f"`{name}` makes {made} rows of {', '.join(str(m.shape[dim]) for m in maps)}")
        makes = self._new(result, rule.dim)
        self.calls.append(Call(name, func, args, kwargs, tuple(dict.fromkeys(slots)), makes, rule, in_place))


def _watch(model: nn.Module, size: Sequence[int], axis: int) -> _Watch:
    weight = next(model.parameters())
    image = weight.new_zeros(0, getattr(model, "in_channels", 1), *size)
    with torch.no_grad(), _Watch(image, axis) as watch:
        try:
            outputs = model(image)
        except (RuntimeError, IndexError) as error:  # such as a question about the first image
            raise NotInRows(f"it cannot be watched ({error})") from error
    found = [watch.stands_for(output) for output in ([outputs] if isinstance(outputs, Tensor) else outputs)]
    watch.outputs = tuple(slot.number for slot in found if isinstance(slot, Slot))
    return watch


def _told(call: Call) -> tuple[Any, ...]:
    """What must not depend on the size of the image."""
    leaves = tree_leaves((call.args, dict(call.kwargs)))
    plain = [tuple(leaf.shape) if isinstance(leaf, Tensor) else str(leaf) for leaf in leaves]
    return call.name, call.reads, call.makes, call.rule, plain


def _needed(calls: Sequence[Call], outputs: Sequence[int]) -> list[Call]:
    wanted, kept = set(outputs), []
    for call in reversed(calls):
        if call.makes in wanted:
            wanted |= set(call.reads)
            kept.append(call)
    return kept[::-1]


def _in_place_where_safe(calls: Sequence[Call], outputs: Sequence[int]) -> tuple[Call, ...]:
    """A call may write into a map only where nobody else reads it, nor anything that may lie in the same memory."""
    readers = Counter([slot for call in calls for slot in call.reads]) + Counter(outputs)
    own = {call.makes for call in calls if call.name not in _VIEWS}
    return tuple(
        call if not call.in_place or (readers[call.reads[0]] == 1 and call.reads[0] in own) else _apart(call)
        for call in calls
    )


def _apart(call: Call) -> Call:
    """The same call, writing into a new map."""
    if call.name.endswith("_"):
        plain = getattr(Tensor, {"__iadd__": "add", "__imul__": "mul"}.get(call.name, call.name[:-1]))
        return replace(call, function=plain, in_place=False)
    bound = inspect.signature(call.function).bind(*call.args, **call.kwargs)
    bound.arguments["inplace"] = False
    return replace(call, args=bound.args, kwargs=bound.kwargs, in_place=False)
