"""Run a decoder node in bands of rows, so that what it merges is never whole in memory."""

from math import prod

import torch
from torch import Tensor

from skipway.nn.layout import layout_of
from skipway.nn.nodes import MergeNode

ROWS = 64
"""Rows of a band. Measured with UNet++ of width 32 at 512²: 32 to 128 rows take a third to half of the memory of
whole maps, and 64 the least time."""

PIXELS = 2**14
"""Pixels of a band at least: 64 rows of 256. Up to some 20,000 numbers PyTorch computes a convolution by other code,
whose last digits differ on some processors."""


def in_bands(node: MergeNode, features: list[Tensor], rows: int | None = None) -> Tensor:
    """What `node` makes of `features`, computed `rows` rows of its first axis at a time.

    The merged map, the largest by far where a node reads many maps, is never whole in memory. The convolutions
    see the same numbers as in one go, but for the rows between bands, which are computed twice. For inference:
    with gradients nothing would be saved.

    Args:
        node: Any node; one that is not local, or smaller than what it reads, is computed whole.
        features: What it reads, as for `forward`; emptied.
        rows: Rows of a band, rounded up to what the node needs; a map of no more than two bands is computed
            whole, and the last band takes what is left over. Unless given, `ROWS`, but at least `PIXELS` and 32
            halos, so that no more than a sixteenth is computed twice.
    """
    bands = node.bands
    if bands is None:
        return node(features)
    total = int(features[0].shape[2] * bands.scales[0])
    pixels = max(prod(feature.shape[2:]) for feature in features)
    step = -(-(rows or max(ROWS, 32 * bands.halo, PIXELS * total // pixels)) // bands.step) * bands.step
    if total <= 2 * step:
        return node(features)
    out: Tensor | None = None
    starts = range(0, total - step + 1, step)
    for start, stop in zip(starts, (*starts[1:], total), strict=True):
        low, high = max(0, start - bands.halo), min(total, stop + bands.halo)
        parts = [
            feature[:, :, int(low / scale) : int(high / scale)]
            for feature, scale in zip(features, bands.scales, strict=True)
        ]
        band = node(parts)[:, :, start - low : stop - low]
        if out is None:
            shape = (*band.shape[:2], total, *band.shape[3:])
            out = torch.empty(shape, dtype=band.dtype, device=band.device, memory_format=layout_of(band))
        out[:, :, start:stop] = band
    features.clear()
    assert out is not None
    return out
