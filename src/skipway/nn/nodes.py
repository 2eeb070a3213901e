"""Decoder nodes: how a node brings what it reads onto its own grid, merges it and works on it.

The topology says *what* is read; a node says *how*. All nodes of the family are one module, a branch per
read, a merge and a body; they differ in what the functions below put there.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from skipway.nn.blocks import conv_block
from skipway.nn.layers import conv
from skipway.nn.norms import make_norm
from skipway.nn.paths import path_of, tile_exact
from skipway.nn.resample import pool, upsample_in_style
from skipway.nn.style import Style, choose, has_bias
from skipway.shapes import Grid, Path, advance, align, bands_of, crop_layer

MERGES = ("concat", "sum")


@dataclass(frozen=True)
class Read:
    """One map that a node takes in.

    Attributes:
        key: Key of the node that is read.
        width: Its channels.
        scale: Per axis, its stride over the stride of the reading node: above 1 means up-sampling.
        crop: Per axis, pixels to take off each side once it is on the grid of the reading node, if what
            brings it there neither adds nor takes any; `MergeNode` makes up for a branch that does.
    """

    key: str
    width: int
    scale: tuple[Fraction, ...]
    crop: tuple[int, ...]


def concat(parts: Sequence[Tensor]) -> Tensor:
    """Stack maps (B, C_i, *S) along the channels, in the order of reading."""
    return torch.cat(list(parts), dim=1)


def add(parts: Sequence[Tensor]) -> Tensor:
    """Sum of maps (B, C, *S)."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class MergeNode(nn.Module):
    """X = body(merge(crop(branch_i(read_i)))).

    Args:
        reads: What the node takes in, in order.
        branches: Key of a read -> module that brings it onto the grid of the node; reads without one pass as
            they are.
        merge: Function, or module with weights of its own, from the list of branch outputs to one map.
        body: Module from the merged map to the node's own.
        width: Channels of the node.
    """

    def __init__(
        self,
        reads: Sequence[Read],
        branches: Mapping[str, nn.Module],
        merge: Callable[[Sequence[Tensor]], Tensor],
        body: nn.Module,
        width: int,
    ) -> None:
        super().__init__()
        self.width = width
        self.branches = nn.ModuleDict(branches)
        self.merge = merge
        self.body = body
        ndim = len(reads[0].crop)
        arrivals = {read.key: path_of(branches.get(read.key, nn.Identity()), ndim) for read in reads}
        crops = _crops(reads, arrivals)
        after = path_of(body, ndim)
        self._reads = tuple((key, inside(crop)) for key, crop in crops.items())
        self.paths: tuple[Path, ...] = tuple(
            (*arrivals[key], crop_layer(crop), *after) for key, crop in crops.items()
        )
        local = tile_exact(self)
        self.bands = bands_of(self.paths, [read.scale[0] for read in reads]) if local else None

    def forward(self, features: list[Tensor]) -> Tensor:
        """Merge `features`, one (B, C_i, *S_i) per read in order, into (B, width, *S).

        Empties the list, so that a map nobody reads later is freed before the body runs.
        """
        parts = [
            (self.branches[key](feature) if key in self.branches else feature)[inside]
            for (key, inside), feature in zip(self._reads, features, strict=True)
        ]
        features.clear()
        merged = self.merge(parts)
        parts.clear()
        return self.body(merged)


def _crops(reads: Sequence[Read], arrivals: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    """Pixels to take off each side of each read at the end of its branch, so that all are of one size."""
    before = {
        read.key: tuple(
            Grid(Fraction(s), -2 * c / Fraction(s)) for s, c in zip(read.scale, read.crop, strict=True)
        )
        for read in reads
    }
    ends = {key: advance(grids, arrivals[key]) for key, grids in before.items()}
    return align("a node", ends, (1,) * len(reads[0].crop))


def inside(crop: Sequence[int]) -> tuple[Any, ...]:
    """Index that takes `crop` pixels off each side; constants, so that exported graphs keep any size."""
    return (..., *(slice(c, -c or None) for c in crop))


class AttentionGate(nn.Module):
    """x · alpha with alpha = sigmoid(psi(relu(Wx x + Wg g))), one weight from 0 to 1 for every pixel of x.

    Wx, Wg (to half the channels of x) and psi (to one) are 1-wide convolutions with norm.

    Args:
        width: Channels of x, the map that is gated.
        signal: Channels of g, the map that decides; on the grid of x.
        style: Dimension, norm, bias.

    Source: Oktay et al. 2018, eq. 1 and fig. 2. As in LeeJunHyun/Image_Segmentation g is the up-sampled map,
        where the authors' own code reads it one level coarser and up-samples alpha.
    """

    def __init__(self, width: int, signal: int, style: Style) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.skip = _dressed_point(width, inner, style)
        self.signal = _dressed_point(signal, inner, style)
        self.psi = _dressed_point(inner, 1, style)

    def forward(self, x: Tensor, signal: Tensor) -> Tensor:
        """Gate `x` (B, width, *S) by `signal` (B, signal, *S)."""
        return x * torch.sigmoid(self.psi(torch.relu(self.skip(x) + self.signal(signal))))


def _dressed_point(width_in: int, width_out: int, style: Style) -> nn.Sequential:
    """A 1-wide convolution and its norm; none over the channels of a pixel that has one, which would be 0."""
    layers = nn.Sequential()
    norm = None if width_out == 1 and style.norm == "channel_layer" else make_norm(width_out, style)
    layers.add_module("conv", conv(width_in, width_out, 1, style, bias=norm is None or has_bias(style)))
    if norm is not None:
        layers.add_module("norm", norm)
    return layers


class Gated(nn.Module):
    """A merge that gates some of its parts first.

    Args:
        keys: Key of each read, in order.
        signal: The key that decides.
        gates: Key of a read -> its gate; reads without one pass as they are.
        merge: What follows: concat or sum.
    """

    def __init__(
        self,
        keys: Sequence[str],
        signal: str,
        gates: Mapping[str, nn.Module],
        merge: Callable[[Sequence[Tensor]], Tensor],
    ) -> None:
        super().__init__()
        self.gates = nn.ModuleDict(gates)
        self.merge = merge
        self._keys = tuple(keys)
        self._signal = self._keys.index(signal)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Merge maps (B, C_i, *S), in the order of reading."""
        signal = parts[self._signal]
        return self.merge(
            [
                self.gates[key](part, signal) if key in self.gates else part
                for key, part in zip(self._keys, parts, strict=True)
            ]
        )


def _gated(
    reads: Sequence[Read],
    widths: Sequence[int],
    merge: Callable[[Sequence[Tensor]], Tensor],
    style: Style,
) -> Gated:
    """The merge with a gate on every read of the node's own grid; the one from another grid decides."""
    resampled = [i for i, read in enumerate(reads) if any(scale != 1 for scale in read.scale)]
    if len(resampled) != 1:
        raise ValueError(f"a gate needs one read that is up-sampled to decide, not {len(resampled)}")
    (signal,) = resampled
    gates = {
        read.key: AttentionGate(width, widths[signal], style)
        for read, width in zip(reads, widths, strict=True)
        if read != reads[signal]
    }
    return Gated([read.key for read in reads], reads[signal].key, gates, merge)


def plain_node(
    reads: Sequence[Read],
    widths: Sequence[int],
    style: Style,
    *,
    up: str = "transposed",
    up_width: int | None = None,
    up_bias: bool = True,
    up_relu: bool = False,
    merge: str = "concat",
    gate: bool = False,
) -> MergeNode:
    """The node of U-Net, U-Net^e, UNet+ and UNet++: up-sample what is coarser, merge, convolve.

    Args:
        reads: What the node takes in, in order.
        widths: Channels after each convolution of the body.
        style: Norm, padding, dropout of the body.
        up: Kind of up-sampling, see `resample.upsample_in_style`.
        up_width: Channels of an up-sampling with weights; the width of the node unless given.
        up_bias: Whether a transposed convolution has a bias.
        up_relu: Whether a ReLU follows the up-sampling, as in the network released in 2015.
        merge: `concat`, or `sum`, which first brings all reads to the node's width by 1-wide convolutions.
        gate: Whether what is up-sampled decides, pixel by pixel, how much of the other reads comes in; see
            `AttentionGate`.
    """
    choose("merge", merge, MERGES)
    width = widths[-1]
    branches: dict[str, nn.Module] = {}
    merged: list[int] = []
    for read in reads:
        given = read.width
        branch = nn.Sequential()
        if any(scale != 1 for scale in read.scale):
            module, given = _resample(read, up, up_width or width, style, bias=up_bias)
            branch.add_module("resample", module)
            if up_relu:
                branch.add_module("relu", nn.ReLU(inplace=True))
        if merge == "sum" and given != width:
            branch.add_module("score", conv(given, width, 1, style))
            given = width
        if len(branch):
            branches[read.key] = branch
        merged.append(given)
    body = conv_block(width if merge == "sum" else sum(merged), widths, style)
    join = add if merge == "sum" else concat
    return MergeNode(reads, branches, _gated(reads, merged, join, style) if gate else join, body, width)


def full_scale_node(
    reads: Sequence[Read], branch_width: int, style: Style, *, up: str = "bilinear"
) -> MergeNode:
    """The node of UNet 3+: every scale through its own convolution to `branch_width`, then one over all.

    Source: Huang et al. 2020, eq. 1 (64 channels a branch, five branches, fused at 320).
    """
    branches: dict[str, nn.Module] = {}
    for read in reads:
        branch, given = nn.Sequential(), read.width
        if any(scale != 1 for scale in read.scale):
            module, given = _resample(read, up, read.width, style)
            branch.add_module("resample", module)
        branch.add_module("block", conv_block(given, (branch_width,), style))
        branches[read.key] = branch
    width = branch_width * len(reads)
    return MergeNode(reads, branches, concat, conv_block(width, (width,), style), width)


def score_node(
    reads: Sequence[Read],
    features: Collection[str],
    classes: int,
    style: Style,
    resample: Callable[[Sequence[int]], nn.Module],
) -> MergeNode:
    """The node of FCN: the sum of what its reads say of each class; it has no convolution after the sum.

    Args:
        reads: What the node takes in, in order.
        features: Keys of the reads that are features, which a 1-wide convolution turns into class scores
            before they are up-sampled. The others are scores already.
        classes: Channels of the node.
        style: Dimension.
        resample: From a factor per axis to the module that up-samples scores by it.

    Source: Long et al. 2015, fig. 3.
    """
    branches: dict[str, nn.Module] = {}
    for read in reads:
        branch = nn.Sequential()
        if read.key in features:
            branch.add_module("score", conv(read.width, classes, 1, style))
        if any(scale != 1 for scale in read.scale):
            branch.add_module("resample", resample([int(scale) for scale in read.scale]))
        if len(branch):
            branches[read.key] = branch
    return MergeNode(reads, branches, add, nn.Identity(), classes)


def _resample(
    read: Read, up: str, up_width: int, style: Style, *, bias: bool = True
) -> tuple[nn.Module, int]:
    """Module onto the grid of the node, and its channels; a read is coarser or finer, never one per axis."""
    if all(scale >= 1 and scale.denominator == 1 for scale in read.scale):
        factor = [int(scale) for scale in read.scale]
        return upsample_in_style(up, factor, read.width, up_width, style, bias=bias)
    if all(scale.numerator == 1 for scale in read.scale):
        return pool([scale.denominator for scale in read.scale]), read.width
    raise ValueError(
        f"{read.key} cannot be resampled by {', '.join(map(str, read.scale))}: not whole factors"
    )
