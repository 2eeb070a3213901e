"""Decoder nodes: how a node brings what it reads onto its own grid, merges it and works on it.

The topology says *what* is read; a node says *how*. All nodes of the family are one module, a branch per
read, a merge and a body; they differ in what the functions below put there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from skipway.nn.blocks import Style, choose, conv, conv_block, tile_exact
from skipway.nn.paths import path_of
from skipway.nn.resample import pool, upsample
from skipway.shapes import Path, bands_of, crop_layer

MERGES = ("concat", "sum")

ROWS = 64
"""Rows of a band. Measured with UNet++ of width 32 at 512²: 32 to 128 rows take a third to half of the memory of
whole maps, and 64 the least time."""


@dataclass(frozen=True)
class Read:
    """One map that a node takes in.

    Attributes:
        key: Key of the node that is read.
        width: Its channels.
        scale: Per axis, its stride over the stride of the reading node: above 1 means up-sampling.
        crop: Per axis, pixels to take off each side once it is on the grid of the reading node.
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
        merge: Function from the list of branch outputs to one map.
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
        self._reads = tuple((read.key, _inside(read.crop)) for read in reads)
        self.paths: tuple[Path, ...] = tuple(self._path(read) for read in reads)
        local = tile_exact(self)
        self.bands = bands_of(self.paths, [read.scale[0] for read in reads]) if local else None

    def _path(self, read: Read) -> Path:
        ndim = len(read.crop)
        branch = path_of(self.branches[read.key], ndim) if read.key in self.branches else ()
        return (*branch, crop_layer(read.crop), *path_of(self.body, ndim))

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


def in_bands(node: MergeNode, features: list[Tensor], rows: int | None = None) -> Tensor:
    """What `node` makes of `features`, computed `rows` rows of its first axis at a time.

    The merged map, the largest by far where a node reads many maps, is never whole in memory. The convolutions
    see the same numbers as in one go, but for the rows between bands, which are computed twice. For inference:
    with gradients nothing would be saved.

    Args:
        node: Any node; one that is not local, or smaller than what it reads, is computed whole.
        features: What it reads, as for `forward`; emptied.
        rows: Rows of a band, rounded up to what the node needs; a map of no more than two bands is computed
            whole. Unless given, `ROWS`, but at least six halos, so that little is computed twice.
    """
    bands = node.bands
    if bands is None:
        return node(features)
    total = int(features[0].shape[2] * bands.scales[0])
    step = -(-(rows or max(ROWS, 6 * bands.halo)) // bands.step) * bands.step
    if total <= 2 * step:
        return node(features)
    out: Tensor | None = None
    for start in range(0, total, step):
        stop = min(total, start + step)
        low, high = max(0, start - bands.halo), min(total, stop + bands.halo)
        parts = [
            feature[:, :, int(low / scale) : int(high / scale)]
            for feature, scale in zip(features, bands.scales, strict=True)
        ]
        band = node(parts)[:, :, start - low : stop - low]
        if out is None:
            layout = torch.channels_last if is_channels_last(band) else torch.contiguous_format
            shape = (*band.shape[:2], total, *band.shape[3:])
            out = torch.empty(shape, dtype=band.dtype, device=band.device, memory_format=layout)
        out[:, :, start:stop] = band
    features.clear()
    assert out is not None
    return out


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a (B, C, H, W) map lie side by side, as the layout of the same name has them."""
    return x.ndim == 4 and x.stride(1) == 1 and x.shape[1] > 1


def _inside(crop: Sequence[int]) -> tuple[Any, ...]:
    """Index that takes `crop` pixels off each side; constants, so that exported graphs keep any size."""
    return (..., *(slice(c, -c or None) for c in crop))


def plain_node(
    reads: Sequence[Read],
    widths: Sequence[int],
    style: Style,
    *,
    up: str = "transposed",
    up_width: int | None = None,
    up_relu: bool = False,
    merge: str = "concat",
) -> MergeNode:
    """The node of U-Net, U-Net^e, UNet+ and UNet++: up-sample what is coarser, merge, convolve.

    Args:
        reads: What the node takes in, in order.
        widths: Channels after each convolution of the body.
        style: Norm, padding, dropout of the body.
        up: Kind of up-sampling, see `resample.upsample`.
        up_width: Channels of a transposed convolution; the width of the node unless given.
        up_relu: Whether a ReLU follows the up-sampling, as in the network released in 2015.
        merge: `concat`, or `sum`, which first brings all reads to the node's width by 1-wide convolutions.
    """
    choose("merge", merge, MERGES)
    width = widths[-1]
    branches: dict[str, nn.Module] = {}
    merged: list[int] = []
    for read in reads:
        given = read.width
        branch = nn.Sequential()
        if any(scale != 1 for scale in read.scale):
            module, given = _resample(read, up, up_width or width)
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
    return MergeNode(reads, branches, add if merge == "sum" else concat, body, width)


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
            module, given = _resample(read, up, read.width)
            branch.add_module("resample", module)
        branch.add_module("block", conv_block(given, (branch_width,), style))
        branches[read.key] = branch
    width = branch_width * len(reads)
    return MergeNode(reads, branches, concat, conv_block(width, (width,), style), width)


def _resample(read: Read, up: str, up_width: int) -> tuple[nn.Module, int]:
    """Module onto the grid of the node, and its channels; a read is coarser or finer, never one per axis."""
    if all(scale >= 1 and scale.denominator == 1 for scale in read.scale):
        return upsample(up, [int(scale) for scale in read.scale], read.width, up_width)
    if all(scale.numerator == 1 for scale in read.scale):
        return pool([scale.denominator for scale in read.scale]), read.width
    raise ValueError(
        f"{read.key} cannot be resampled by {', '.join(map(str, read.scale))}: not whole factors"
    )
