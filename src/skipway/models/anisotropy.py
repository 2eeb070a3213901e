"""What a network of volumes does along axes whose voxels are longer than the others: thick slices."""

from collections.abc import Sequence
from typing import Any

LONG = 2.0
"""Voxels this many times as long as the shortest side, or more, are not made longer, nor mixed along that axis."""


LEAST = 4
"""Voxels that an axis keeps at least: halving fewer than twice as many leaves mostly the padding of convolutions."""


def by_spacing(
    spacing: Sequence[float], depth: int, sides: Sequence[int] | None = None
) -> dict[str, list[list[int]]]:
    """Strides between the levels, and sides of the convolutions at each level.

    Going down, an axis is halved only while its voxels are less than twice as long as the shortest: 5 × 0.5 × 0.5 mm
    becomes 5 × 1 × 1, 5 × 2 × 2, 5 × 4 × 4, and only then 10 × 8 × 8. Where an axis is not halved, a convolution
    has side 1 along it. An axis is not halved either where it would keep fewer than `LEAST` voxels.

    Args:
        spacing: Size of a voxel along each axis.
        depth: Number of levels.
        sides: Voxels along each axis of what the network sees; without them, as many as it takes.

    Returns:
        `pools`, one stride per axis between two levels, and `kernels`, one side per axis of each level; empty where
        all axes are treated alike.

    >>> by_spacing((5.0, 0.5, 0.5), 3)
    {'pools': [[1, 2, 2], [1, 2, 2]], 'kernels': [[1, 3, 3], [1, 3, 3], [1, 3, 3]]}
    >>> by_spacing((1.0, 1.0, 1.5), 3)
    {}
    >>> by_spacing((1.0, 1.0, 1.0), 4, sides=(10, 64, 64))["pools"]
    [[2, 2, 2], [1, 2, 2], [1, 2, 2]]
    """
    here, left = list(spacing), [float("inf")] * len(spacing) if sides is None else list(sides)
    pools, kernels = [], []
    for _ in range(depth):
        short = [size < LONG * min(here) for size in here]
        pools.append([1 + (one and side >= 2 * LEAST) for one, side in zip(short, left, strict=True)])
        kernels.append([3 if one else 1 for one in short])
        left = [side / factor for side, factor in zip(left, pools[-1], strict=True)]
        here = [size * (1 + one) for size, one in zip(here, short, strict=True)]
    if all(factor == 2 for pool in pools[:-1] for factor in pool):
        return {}
    return {"pools": pools[:-1], "kernels": kernels}


def settled(
    known: Any,
    config: dict[str, Any],
    spacing: Sequence[float] | None,
    sides: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The arguments of `by_spacing` that a builder takes and nobody has named.

    Args:
        known: Arguments of the builder.
        config: Those that are chosen already.
        spacing: Of the images, per axis; None where it is not known, and a volume's voxels are taken for cubes.
        sides: Voxels per axis of what the network sees, where they are to count.
    """
    axes = config.get("ndim", known.get("ndim"))
    if axes == 3 and spacing is None and sides is not None:
        spacing = (1.0,) * 3
    if spacing is None or axes != len(spacing) or config.get("backbone") or not config.get("depth"):
        return {}
    found = by_spacing(spacing, config["depth"], sides)
    free = "pools" not in config and "kernels" not in config
    return {key: value for key, value in found.items() if key in known} if free else {}
