"""How far a foreign network looks: run it once on the meta device and follow every map from function to function.

Our own modules say their size arithmetic. Somebody else's say nothing, and their forward may do anything in
plain Python. So the functions that torch is called with are watched instead: each result knows which input
pixels one of its pixels can depend on. Only functions that are known to be local pass that on; anything else
that a map goes into (a mean over space, attention, a reshape) makes the network one that looks everywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from skipway.shapes import Window

AXES = 2


@dataclass(frozen=True)
class Reach:
    """Pixel p of a map depends on the input pixels stride · p − before … stride · p + after, on each axis."""

    stride: tuple[int, ...] = (1,) * AXES
    before: tuple[int, ...] = (0,) * AXES
    after: tuple[int, ...] = (0,) * AXES
    places: tuple[int, ...] = (2, 3)
    """Which dimensions of the tensor are the spatial axes."""

    def through(self, kernel: int, stride: int, padding: int, axis: int) -> "Reach":
        """Reach after a sliding window along one axis."""
        jump = self.stride[axis]
        return replace(
            self,
            stride=_set(self.stride, axis, jump * stride),
            before=_set(self.before, axis, self.before[axis] + padding * jump),
            after=_set(self.after, axis, self.after[axis] + (kernel - 1 - padding) * jump),
        )

    def joined(self, other: "Reach") -> "Reach | None":
        """Reach of a pixel made of one pixel of each, or None where the grids differ."""
        if (self.stride, self.places) != (other.stride, other.places):
            return None
        before = tuple(map(max, self.before, other.before))
        return replace(self, before=before, after=tuple(map(max, self.after, other.after)))


def window(outer: Reach | None, inner: Reach, axis: int) -> Window:
    """The step from a map with reach `outer` (None: the image) to one with `inner`; never less than the truth.

    Its size arithmetic is that of same padding: the sides are divided by the stride.
    """
    start = outer or Reach()
    jump, stride = start.stride[axis], inner.stride[axis] // start.stride[axis]
    before = max(0, -((start.before[axis] - inner.before[axis]) // jump))
    after = max(0, -((start.after[axis] - inner.after[axis]) // jump))
    before = max(before, after - stride + 1)
    return Window(before + max(after, before) + 1, stride, before)


class Watch(TorchFunctionMode):
    """While it is entered, notes the reach of every map that is made from the watched image.

    Attributes:
        image: The watched image.
        local: Whether every function that a map went into was one known to be local.
        multiplications: Multiplications in convolutions, linear layers and attention so far.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image
        self.local = True
        self.multiplications = 0
        self._seen: dict[
            int, tuple[Tensor, Reach | None]
        ] = {}  # holds the tensor, so that no other gets its id
        self._note(image, Reach())

    def reach(self, value: object) -> Reach | None:
        """Reach of a map; None where a function that is not known stands before it, and of what is no map."""
        return self._seen.get(id(value), (None, None))[1]

    def _note(self, result: object, reach: Reach | None) -> None:
        for tensor in _tensors(result):
            self._seen[id(tensor)] = (tensor, reach)

    def _foreign(self, value: Tensor) -> bool:
        """Whether something computed this tensor that was not seen, such as an autograd function of its own."""
        return id(value) not in self._seen and not value.is_leaf

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, and carry the reach of what went in to what comes out."""
        inputs = list(_tensors((args, kwargs)))
        given = [found for value in inputs if (found := self.reach(value)) is not None]
        foreign = any(self._foreign(value) for value in inputs)
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        self.multiplications += _multiplications(name, (*args, *(kwargs or {}).values()), result)
        if name in QUESTIONS or (name == "__get__" and not isinstance(result, Tensor)):
            return result
        known = given and name in _LOCAL and not foreign
        passed = _LOCAL[name](given, *args, **(kwargs or {})) if known else None
        self.local &= passed is not None or not (given or foreign)
        self._note(result, passed)
        return result


def _set(values: tuple[int, ...], axis: int, value: int) -> tuple[int, ...]:
    return (*values[:axis], value, *values[axis + 1 :])


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _multiplications(name: str, args: tuple[Any, ...], result: Any) -> int:
    if name in ("conv2d", "linear"):
        weight: Tensor = args[1]
        return result.numel() * weight.numel() // weight.shape[0]
    if name in ("matmul", "bmm", "__matmul__"):
        return result.numel() * args[0].shape[-1]
    if name == "scaled_dot_product_attention":
        query, key = args[:2]
        return 2 * query.numel() * key.shape[-2]
    return 0


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) * (AXES // len(value)) if isinstance(value, (tuple, list)) else (value,) * AXES


def _slide(reach: Reach, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Reach | None:
    if reach.places != (2, 3) or isinstance(padding, str):
        return None
    rows = zip(_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), strict=True)
    for axis, (k, s, pad, step) in enumerate(rows):
        reach = reach.through(1 + step * (k - 1), s, pad, axis)
    return reach


def _conv2d(
    given: list[Reach], x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Reach | None:  # fmt: skip
    return _slide(given[0], tuple(weight.shape[2:]), stride, padding, dilation)


def _max_pool2d(
    given: list[Reach], x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    **_: Any,
) -> Reach | None:  # fmt: skip
    return _slide(given[0], kernel_size, stride or kernel_size, padding, dilation)


def _avg_pool2d(
    given: list[Reach], x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any, **__: Any
) -> Reach | None:
    return _slide(given[0], kernel_size, stride or kernel_size, padding, 1)


def _pad(given: list[Reach], x: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Reach | None:
    if mode != "constant" or given[0].places != (2, 3) or len(pad) != 2 * AXES:
        return None
    left, _, top, _ = pad
    reach = given[0].through(1, 1, top, 0)
    return reach.through(1, 1, left, 1)


def _pointwise(given: list[Reach], *_: Any, **__: Any) -> Reach | None:
    reach: Reach | None = given[0]
    for other in given[1:]:
        reach = reach.joined(other) if reach else None
    return reach


def _cat(given: list[Reach], tensors: Any, dim: int = 0) -> Reach | None:
    return _pointwise(given) if dim % 4 not in given[0].places else None


def _permute(given: list[Reach], x: Tensor, *order: Any) -> Reach | None:
    flat = tuple(order[0]) if isinstance(order[0], (tuple, list)) else order
    return replace(given[0], places=tuple(flat.index(place) for place in given[0].places))


def _last_axis(given: list[Reach], x: Tensor, *args: Any, **__: Any) -> Reach | None:
    """A linear layer, or a layer norm over one dimension: local unless that dimension is a spatial one."""
    return given[0] if len(given) == 1 and x.ndim - 1 not in given[0].places else None


def _batch_norm(given: list[Reach], x: Tensor, *args: Any, training: bool = False, **__: Any) -> Reach | None:
    return given[0] if not (args[4] if len(args) > 4 else training) else None


def _layer_norm(given: list[Reach], x: Tensor, shape: Any, *_: Any, **__: Any) -> Reach | None:
    return _last_axis(given, x) if len(shape) == 1 else None


QUESTIONS = frozenset(("size", "dim", "stride", "is_contiguous", "numel", "__len__", "is_floating_point"))
"""Functions that ask about a tensor and see no pixel."""

POINTWISE = frozenset(
    (
        *("add", "add_", "__add__", "__iadd__", "__radd__", "sub", "sub_"),
        *("mul", "mul_", "__mul__", "__imul__", "__rmul__", "div", "div_"),
        *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "elu", "prelu"),
        *("silu", "silu_", "gelu", "mish", "hardswish", "sigmoid", "sigmoid_"),
        *("hardsigmoid", "tanh", "contiguous", "clone", "dropout", "identity", "logsigmoid", "logaddexp"),
    )
)
"""Functions that see one pixel of each map; a batch norm in prediction does too."""

_LOCAL: Mapping[str, Callable[..., Reach | None]] = {
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "pad": _pad,
    "batch_norm": _batch_norm,
    "cat": _cat,
    "permute": _permute,
    "linear": _last_axis,
    "layer_norm": _layer_norm,
    **dict.fromkeys(POINTWISE, _pointwise),
}
"""Functions that see one pixel of a map, or a window of known size, and what they do to its reach."""
