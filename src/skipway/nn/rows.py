"""What a function of torch does along one axis of a map, and how to run it on some of the rows.

A row is whatever stands at one place of that axis: a line of an image, a plane of a volume. Every function that is
known here makes its rows of a window of the rows it reads, so it can be run on a few of them at a time, with the
padding left out along the axis: what lies beyond the map is put there by whoever runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from skipway.nn.reach import POINTWISE
from skipway.nn.style import per_axis
from skipway.shapes import Spread, Transposed, Window


class NotInRows(ValueError):
    """A network, or a function in it, that cannot be computed some rows at a time; the message says why."""


@dataclass(frozen=True)
class Shift:
    """Rows put before the first and after the last one; negative numbers take rows away."""

    before: int
    after: int

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """First and last input row that the output rows `first` … `last` depend on."""
        return first - self.before, last - self.before


RowStep = Window | Spread | Transposed | Shift
ORDER = "all but the first"
"""Name of the arguments after the map, for functions that take dimensions one by one."""
SAME = Window(1)
"""The step of a function that sees one row at a time."""


@dataclass(frozen=True)
class Rule:
    """How one call works along the axis.

    Attributes:
        step: Which rows it reads.
        changed: Arguments by name that are others when some rows are computed: no padding along the axis.
        fill: Value of the rows beyond the map.
        dim: Dimension of the result that is the axis.
    """

    step: RowStep
    dim: int
    changed: Mapping[str, Any] = field(default_factory=dict)
    fill: float = 0.0


@dataclass(frozen=True)
class Site:
    """A map that a function reads.

    Attributes:
        ndim: Its dimensions, batch and channels too.
        dim: The one that is the axis.
    """

    ndim: int
    dim: int

    @property
    def axis(self) -> int:
        """The axis among those in space, where (B, C, *S) is the order of dimensions."""
        if self.dim < 2:
            raise NotInRows("a map whose channels are not its second dimension goes into a window")
        return self.dim - 2

    def sides(self, given: Any) -> tuple[int, ...]:
        """One number an axis."""
        if isinstance(given, str):
            raise NotInRows(f"padding {given!r} depends on the size")
        return tuple(int(side) for side in per_axis(given, self.ndim - 2))

    def without(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """The same numbers, with 0 along the axis."""
        return (*sides[: self.axis], 0, *sides[self.axis + 1 :])


def rule_of(
    name: str, site: Site, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Rule, tuple[Any, ...], dict[str, Any]]:
    """How the function `name` works along the axis, and its arguments when it runs on some of the rows.

    Args:
        name: As torch calls it.
        site: The map that it reads; of several, the first.
        args: What it is called with.
        kwargs: The same, by name.

    Raises:
        NotInRows: It sees the whole map, or is not known.
    """
    if name in POINTWISE:
        return Rule(SAME, site.dim), args, dict(kwargs)
    if name not in _KNOWN:
        raise NotInRows(f"`{name}` is not known to see only some rows of a map")
    names, find = _KNOWN[name]
    named = dict(zip(names, args, strict=False)) | dict(kwargs) | {ORDER: args[1:]}
    rule = find(site, named)
    by_place = [rule.changed.get(key, value) for key, value in zip(names, args, strict=False)]
    by_name = {key: value for key, value in rule.changed.items() if key not in names[: len(args)]}
    return rule, (*by_place, *args[len(by_place) :]), {**kwargs, **by_name}


def length(step: RowStep, rows: int) -> int:
    """Rows of the result for a map of `rows`.

    >>> length(Window(3, 2, 1), 8), length(Spread(2), 4), length(Transposed(4, 2), 4), length(Shift(1, -2), 4)
    (4, 8, 10, 3)
    """
    match step:
        case Window(kernel, stride, padding):
            return (rows + 2 * padding - kernel) // stride + 1
        case Spread(factor):
            return rows * factor
        case Transposed(kernel, stride, padding):
            return (rows - 1) * stride + kernel - 2 * padding
        case Shift(before, after):
            return rows + before + after


def origin(step: RowStep, first: int) -> int:
    """First row that comes out of a run, without padding, on the rows from `first` on."""
    match step:
        case Window(_, stride, padding):
            return (first + padding) // stride
        case Spread(factor):
            return first * factor
        case Transposed(_, stride, padding):
            return first * stride - padding
        case Shift(before, _):
            return first + before


def pads(step: RowStep) -> bool:
    """Whether rows beyond the map are to be filled in; the others work with the rows that are there."""
    return isinstance(step, (Window, Shift))


def _slide(site: Site, kernel: Any, stride: Any, padding: Any, dilation: Any = 1, fill: float = 0.0) -> Rule:
    sides, steps, pad, gaps = (site.sides(given) for given in (kernel, stride, padding, dilation))
    axis = site.axis
    step = Window(1 + gaps[axis] * (sides[axis] - 1), steps[axis], pad[axis])
    return Rule(step, site.dim, {"padding": site.without(pad)}, fill)


def _convolution(site: Site, named: Mapping[str, Any]) -> Rule:
    kernel = tuple(named["weight"].shape[2:])
    return _slide(site, kernel, named.get("stride", 1), named.get("padding", 0), named.get("dilation", 1))


def _transposed(site: Site, named: Mapping[str, Any]) -> Rule:
    kernel, stride = tuple(named["weight"].shape[2:]), site.sides(named.get("stride", 1))
    pad, axis = site.sides(named.get("padding", 0)), site.axis
    if site.sides(named.get("output_padding", 0))[axis] or site.sides(named.get("dilation", 1))[axis] != 1:
        raise NotInRows("a transposed convolution with gaps or rows added at its end")
    step = Transposed(kernel[axis], stride[axis], pad[axis])
    return Rule(step, site.dim, {"padding": site.without(pad)})


def _max_pool(site: Site, named: Mapping[str, Any]) -> Rule:
    return _pool(site, named, named.get("dilation", 1), fill=float("-inf"))


def _average(site: Site, named: Mapping[str, Any]) -> Rule:
    if not named.get("count_include_pad", True):
        raise NotInRows("an average that leaves out the padding")
    return _pool(site, named, 1, fill=0.0)


def _pool(site: Site, named: Mapping[str, Any], dilation: Any, fill: float) -> Rule:
    if named.get("ceil_mode") or named.get("return_indices"):
        raise NotInRows("a pooling whose last window may be cut off, or that says where its maxima stood")
    kernel = named["kernel_size"]
    return _slide(site, kernel, named.get("stride") or kernel, named.get("padding", 0), dilation, fill)


def _interpolate(site: Site, named: Mapping[str, Any]) -> Rule:
    mode = named.get("mode", "nearest")
    linear = mode in ("linear", "bilinear", "trilinear")
    if not (linear or mode == "nearest") or named.get("antialias") or named.get("align_corners"):
        raise NotInRows(f"interpolation {mode!r} whose steps depend on the size, or of more than two rows")
    given = named.get("scale_factor")
    if named.get("size") is not None or given is None or named.get("recompute_scale_factor"):
        raise NotInRows("interpolation to a size, not by a factor")
    factor = tuple(given)[site.axis] if isinstance(given, (tuple, list)) else given
    if factor != int(factor):
        raise NotInRows(f"interpolation by {factor}, no whole number")
    return Rule(Spread(int(factor), linear), site.dim)


def _pad(site: Site, named: Mapping[str, Any]) -> Rule:
    pad, at = list(named["pad"]), 2 * (site.ndim - 1 - site.dim)  # torch counts from the last dimension
    if named.get("mode", "constant") != "constant":
        raise NotInRows(f"padding by {named['mode']!r}")
    before, after = pad[at : at + 2] or (0, 0)
    pad[at : at + 2] = [0] * len(pad[at : at + 2])
    return Rule(Shift(before, after), site.dim, {"pad": pad}, named.get("value") or 0.0)


def _part(site: Site, named: Mapping[str, Any]) -> Rule:
    index = named["index"] if isinstance(named["index"], tuple) else (named["index"],)
    if any(not (i is Ellipsis or isinstance(i, int) or _plain(i)) for i in index):
        raise NotInRows("a part of a map that is not cut out by slices")
    if Ellipsis in index:
        gap = index.index(Ellipsis)
        missing = site.ndim - len(index) + 1
        index = (*index[:gap], *[slice(None)] * missing, *index[gap + 1 :])
    index = (*index, *[slice(None)] * (site.ndim - len(index)))
    rows = index[site.dim]
    start, stop = (0, 1) if isinstance(rows, int) else (rows.start or 0, rows.stop or 0)
    if start < 0 or stop > 0:
        raise NotInRows("one row, or a part of a map that is counted from its other end")
    whole = (*index[: site.dim], slice(None), *index[site.dim + 1 :])
    gone = sum(isinstance(i, int) for i in index[: site.dim])
    return Rule(Shift(-start, stop), site.dim - gone, {"index": whole})


def _plain(index: Any) -> bool:
    return isinstance(index, slice) and index.step in (None, 1)


def _along_one(site: Site, named: Mapping[str, Any]) -> Rule:
    """A function over one dimension, which may be any but the axis."""
    if named.get("dim", -1) % site.ndim == site.dim:
        raise NotInRows("a function over all rows of a map")
    return Rule(SAME, site.dim)


def _layer_norm(site: Site, named: Mapping[str, Any]) -> Rule:
    if len(named["normalized_shape"]) != 1:
        raise NotInRows("a layer norm over more than one dimension")
    return _along_one(site, {})


def _batch_norm(site: Site, named: Mapping[str, Any]) -> Rule:
    if named.get("training") or named.get("running_mean") is None:
        raise NotInRows("a batch norm that takes the statistics of the batch")
    return Rule(SAME, site.dim)


def _moved(function: Callable[..., torch.Tensor]) -> Callable[[Site, Mapping[str, Any]], Rule]:
    def rule(site: Site, named: Mapping[str, Any]) -> Rule:
        marked = torch.empty([1 + (d == site.dim) for d in range(site.ndim)], device="meta")
        moved = function(marked, *named[ORDER])
        return Rule(SAME, tuple(moved.shape).index(2))

    return rule


_POOL = ("input", "kernel_size", "stride", "padding")
_KINDS: Mapping[tuple[str, ...], tuple[tuple[str, ...], Callable[[Site, Mapping[str, Any]], Rule]]] = {
    ("conv1d", "conv2d", "conv3d"): (
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
        _convolution,
    ),
    ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"): (
        ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
        _transposed,
    ),
    ("_convolution_pointwise",): (
        ("input", "weight", "bias", "padding", "stride", "dilation", "groups"),
        _convolution,
    ),
    ("_convolution_transpose_pointwise",): (
        ("input", "weight", "bias", "padding", "output_padding", "stride", "dilation", "groups"),
        _transposed,
    ),
    ("max_pool1d", "max_pool2d", "max_pool3d"): (
        (*_POOL, "dilation", "ceil_mode", "return_indices"),
        _max_pool,
    ),
    ("avg_pool1d", "avg_pool2d", "avg_pool3d"): ((*_POOL, "ceil_mode", "count_include_pad"), _average),
    ("interpolate",): (("input", "size", "scale_factor", "mode", "align_corners"), _interpolate),
    ("pad",): (("input", "pad", "mode", "value"), _pad),
    ("__getitem__",): (("input", "index"), _part),
    ("cat", "softmax", "log_softmax"): (("input", "dim"), _along_one),
    ("linear",): (("input",), lambda site, _: _along_one(site, {})),
    ("layer_norm",): (("input", "normalized_shape"), _layer_norm),
    ("batch_norm",): (
        ("input", "running_mean", "running_var", "weight", "bias", "training"),
        _batch_norm,
    ),
    ("permute",): ((), _moved(torch.Tensor.permute)),
    ("movedim",): ((), _moved(torch.Tensor.movedim)),
    ("transpose",): ((), _moved(torch.Tensor.transpose)),
    ("unsqueeze",): ((), _moved(torch.Tensor.unsqueeze)),
}
"""Functions that see more than one pixel of a map, or its dimensions: names of their arguments, and their rule."""

_KNOWN = {name: kind for names, kind in _KINDS.items() for name in names}
