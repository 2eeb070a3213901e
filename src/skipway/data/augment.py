"""Augmentation of one patch: numbers are drawn first, then one map moves image, labels and weights.

For a pixel u of the patch, measured from the patch's centre, the source position in the image is

    x(u) = centre + F · R · S · (u + e(u))

with e the elastic displacement, S the scale, R the rotation of the last two axes and F the flips: crop
after flip after rotation after scale after elastic deformation, folded into one resampling. Grey values
change afterwards, on the image alone. Positions outside the image are mirrored at its border pixels.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

NODES = 3
"""Nodes of the coarse grid along each axis; the outer ones lie on the corner pixels of the patch."""

LIMIT = 0.16
"""Largest standard deviation of a displacement, in distances of nodes: beyond it the map would fold over (one
draw in 400 at 0.16, one in 25 at 0.2). It holds 10 px back on patches of less than 126 px."""


@dataclass(frozen=True)
class Augmentation:
    """Ranges to draw from. Each change of grey values happens with probability `grey_probability`.

    Attributes:
        flips: Mirror each axis with probability 1/2.
        rotation: Largest rotation of the last two axes, degrees, either way.
        scale: Smallest and largest magnification; its logarithm is uniform.
        elastic: Standard deviation of the displacement components on the 3-node grid, pixels (`LIMIT`
            applies).
        elastic_probability: Share of the patches that are deformed.
        grey_probability: Share of the patches that get each of gain and offset, gamma, noise, blur.
        gain: Smallest and largest factor on the image; its logarithm is uniform.
        offset: Largest shift of the image either way, in units of the image (about [0, 1] here).
        gamma: Smallest and largest exponent between the patch's own darkest and brightest value; log-uniform.
        noise: Largest standard deviation of the added normal noise, in units of the image.
        blur: Largest standard deviation of the Gaussian blur, pixels.
    """

    flips: bool = True
    rotation: float = 180.0
    scale: tuple[float, float] = (0.8, 1.25)
    elastic: float = 10.0
    elastic_probability: float = 1.0
    grey_probability: float = 0.3
    gain: tuple[float, float] = (0.7, 1.4)
    offset: float = 0.1
    gamma: tuple[float, float] = (0.7, 1.5)
    noise: float = 0.05
    blur: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale", "gain", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(f"augmentation {name} is {low}..{high}; it needs 0 < smallest <= largest")
        for name in ("rotation", "elastic", "offset", "noise", "blur"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"augmentation {name} is {getattr(self, name)}; it must not be negative")
        for name in ("elastic_probability", "grey_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation {name} is {getattr(self, name)}; a probability is in 0..1")


NONE = Augmentation(False, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0, 0.0)
"""Draws the identity: the patch as it is in the image."""


@dataclass(frozen=True)
class Params:
    """Every number that makes one augmented patch; plain data, so that it can be logged, replayed and drawn.

    The default is the identity.

    Attributes:
        centre: Where the patch's centre lies in the image, pixels from its first pixel; empty: the middle.
        flips: Axes that are mirrored; empty: none.
        rotation: Degrees, from the last axis but one towards the last.
        scale: Magnification.
        displacements: Displacements at the nodes, pixels, flat in the order (axis, *nodes); empty: none.
        gain, offset, gamma, noise, noise_seed, blur: The grey values, as in `Augmentation`.
    """

    centre: tuple[float, ...] = ()
    flips: tuple[bool, ...] = ()
    rotation: float = 0.0
    scale: float = 1.0
    displacements: tuple[float, ...] = ()
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0
    blur: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Numbers, lists and text only."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Params":
        """The inverse of `to_json`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


def draw(
    config: Augmentation, patch: Sequence[int], rng: np.random.Generator, *, centre: Sequence[float] = ()
) -> Params:
    """Draw the numbers of one patch.

    Args:
        config: Ranges.
        patch: Size of the patch, one number an axis.
        rng: Source of all randomness.
        centre: Passed on to `Params.centre`.

    Returns:
        The numbers. How many are taken from `rng` depends on `config` and the number of axes only.
    """
    axes = len(patch)
    flips = rng.random(axes) < 0.5
    angle, log_scale, log_gain, offset, log_gamma, noise, blur = rng.random(7)
    wanted = rng.random(5) < (config.elastic_probability, *[config.grey_probability] * 4)
    nodes = rng.standard_normal((axes, *[NODES] * axes))
    seed = int(rng.integers(2**63))
    widths = [min(config.elastic, LIMIT * (side - 1) / (NODES - 1)) for side in patch]
    nodes *= np.reshape(widths, (axes, *[1] * axes))
    elastic, grey, bend, grain, soften = (bool(w) for w in wanted)
    return Params(
        centre=tuple(float(c) for c in centre),
        flips=tuple(bool(f) for f in flips) if config.flips else (),
        rotation=(2 * angle - 1) * config.rotation if axes > 1 else 0.0,
        scale=_log_uniform(config.scale, log_scale),
        displacements=tuple(nodes.ravel().tolist()) if elastic and config.elastic > 0 else (),
        gain=_log_uniform(config.gain, log_gain) if grey else 1.0,
        offset=(2 * offset - 1) * config.offset if grey else 0.0,
        gamma=_log_uniform(config.gamma, log_gamma) if bend else 1.0,
        noise=noise * config.noise if grain else 0.0,
        noise_seed=seed,
        blur=blur * config.blur if soften else 0.0,
    )


def apply(
    params: Params,
    image: NDArray[np.float32],
    labels: NDArray[np.integer],
    weights: NDArray[np.float32] | None,
    patch: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cut one patch, moved and recoloured by `params`. Only the window of the arrays that it needs is read.

    Args:
        params: The drawn numbers.
        image: Values of shape (C, *S), 2-D or 3-D, S of any size from 1.
        labels: Class or object indices of shape (*S), any integer type; indices stay exact up to 2^63.
        weights: Loss weights of shape (*S), or None.
        patch: Size of the patch, one number an axis; may exceed the image.

    Returns:
        Image (C, *patch) float32, interpolated linearly; labels (*patch) int64, the nearest pixel's; weights
        (*patch) float32, interpolated linearly. Without rotation, scale and displacement every pixel is a
        copy.

    Raises:
        ValueError: The arrays or the patch disagree in their axes or sizes.
    """
    size = image.shape[1:]
    if labels.shape != size or (weights is not None and weights.shape != size) or len(patch) != len(size):
        shapes = (image.shape, labels.shape, None if weights is None else weights.shape)
        raise ValueError(f"image, labels, weights of shapes {shapes} and patch {tuple(patch)} do not fit")
    if 0 in image.shape or min(patch) < 1:
        raise ValueError(f"cannot cut a patch of {tuple(patch)} out of an image of {image.shape}")
    centre = params.centre or tuple((n - 1) / 2 for n in size)
    straight = params.rotation == 0 and params.scale == 1 and not any(params.displacements)
    move = _copy if straight else _resample
    values, moved = move(params, image, labels, weights, tuple(patch), centre)
    channels = len(image)
    return (
        recolour(params, values[:channels]),
        moved,
        None if weights is None else values[channels].contiguous(),
    )


def positions(params: Params, patch: Sequence[int]) -> Tensor:
    """Where each pixel of the patch comes from, relative to `params.centre`: F · R · S · (u + e(u)).

    The displacement e is the bicubic interpolation (cubic convolution, Keys 1981, a = −3/4, border nodes
    repeated; what torch and OpenCV call bicubic, and tricubic in 3-D) of the nodes, which span the patch
    from corner pixel to corner pixel. Since the map is linear in u and in the nodes, it is one product of
    small matrices: the two columns [u, 1] stand beside the cubic basis of each axis.

    Args:
        params: The drawn numbers.
        patch: Size of the patch, one number an axis.

    Returns:
        Offsets in pixels of shape (axes, *patch), float32.
    """
    axes = len(patch)
    matrix = _linear(params, axes)
    core = np.zeros((axes, *[NODES + 2] * axes))
    inner: tuple[slice, ...] = (slice(None), *(slice(NODES),) * axes)
    core[inner] = np.tensordot(matrix, _nodes(params, axes), 1)
    for axis in range(axes):  # u of this axis times 1 of the others
        place = (NODES if other == axis else NODES + 1 for other in range(axes))
        column: tuple[Any, ...] = (slice(None), *place)
        core[column] = matrix[:, axis]
    out = torch.from_numpy(core).float()
    for side in patch:
        u = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        basis = torch.cat([cubic_basis(side), u[:, None], torch.ones(side, 1, dtype=torch.float64)], 1)
        out = torch.tensordot(out, basis.float(), ([1], [1]))
    return out


def cubic_basis(side: int) -> Tensor:
    """What each node contributes to each pixel of an axis: weights of shape (side, NODES), float64."""
    if side == 1:
        return torch.eye(NODES, dtype=torch.float64)[NODES // 2 : NODES // 2 + 1]
    nodes = torch.eye(NODES, dtype=torch.float64)[None, :, :, None]
    return F.interpolate(nodes, (side, 1), mode="bicubic", align_corners=True)[0, :, :, 0].T


def mirror(index: NDArray[np.integer], size: int) -> NDArray[np.integer]:
    """Indices folded back into 0..size−1 by mirroring at the border pixels, as often as needed.

    >>> mirror(np.arange(-4, 7), 3).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    >>> mirror(np.arange(-2, 3), 1).tolist()
    [0, 0, 0, 0, 0]
    """
    period = max(1, 2 * (size - 1))
    index = np.abs(index) % period
    return np.minimum(index, period - index) if size > 1 else index


def recolour(params: Params, image: Tensor) -> Tensor:
    """Grey values of a patch: gamma, then gain and offset, blur, and noise last, as a camera would.

    Args:
        params: The drawn numbers.
        image: Values of shape (C, *S), float32; may be written over.

    Returns:
        Values of the same shape; the same tensor where nothing is to be changed.
    """
    axes = tuple(range(1, image.ndim))
    if params.gamma != 1:
        low = image.amin(axes, keepdim=True)
        width = image.amax(axes, keepdim=True) - low
        width.clamp_(min=torch.finfo(torch.float32).tiny)  # a constant patch stays what it is
        image = image.sub(low).div_(width).pow_(params.gamma).mul_(width).add_(low)
    if params.gain != 1 or params.offset != 0:
        image = image.mul(params.gain).add_(params.offset)
    if params.blur > 0:
        image = _blurred(image, params.blur)
    if params.noise > 0:
        rng = np.random.Generator(np.random.Philox(key=params.noise_seed))
        grain = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
        image = image.add(grain, alpha=params.noise)
    return image.contiguous()


def _log_uniform(limits: tuple[float, float], u: float) -> float:
    low, high = limits
    return low if low == high else low * (high / low) ** u


def _nodes(params: Params, axes: int) -> NDArray[np.float64]:
    shape = (axes, *[NODES] * axes)
    return np.reshape(params.displacements, shape) if params.displacements else np.zeros(shape)


def _linear(params: Params, axes: int) -> NDArray[np.float64]:
    """F · R · S. Magnifying by s means stepping by 1/s through the image."""
    matrix = np.eye(axes)
    if axes > 1:
        angle = math.radians(params.rotation)
        matrix[-2:, -2:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    signs = np.where(params.flips, -1.0, 1.0) if params.flips else np.ones(axes)
    return signs[:, None] * matrix / params.scale


def _copy(
    params: Params,
    image: NDArray[np.float32],
    labels: NDArray[np.integer],
    weights: NDArray[np.float32] | None,
    patch: tuple[int, ...],
    centre: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Crop and flip by index: no arithmetic touches a value."""
    index = []
    for axis, (side, middle, n) in enumerate(zip(patch, centre, labels.shape, strict=True)):
        line = math.floor(middle - (side - 1) / 2 + 0.5) + np.arange(side)
        index.append(mirror(line[::-1] if params.flips and params.flips[axis] else line, n))
    values = _read(image, weights, index)
    return torch.from_numpy(values), torch.from_numpy(_cut(labels, index).astype(np.int64, copy=False))


def _resample(
    params: Params,
    image: NDArray[np.float32],
    labels: NDArray[np.integer],
    weights: NDArray[np.float32] | None,
    patch: tuple[int, ...],
    centre: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Linear interpolation of values and the nearest label, out of the window that the positions span."""
    at = positions(params, patch)
    index, sides = [], []
    for line, middle, n in zip(at, centre, labels.shape, strict=True):
        low, high = (float(v) for v in torch.aminmax(line))
        start = math.floor(low + middle)
        sides.append(max(2, math.floor(high + middle) + 2 - start))
        line.add_(middle - start)
        index.append(mirror(np.arange(start, start + sides[-1]), n))
    values = torch.from_numpy(_read(image, weights, index))
    grid = torch.empty(1, *patch, len(patch))
    for axis, (line, side) in enumerate(zip(at, sides, strict=True)):
        torch.mul(line, 2 / (side - 1), out=grid[0, ..., len(patch) - 1 - axis])  # grid_sample wants x first
    grid.sub_(1)
    moved = F.grid_sample(values[None], grid, "bilinear", "border", align_corners=True)[0]
    return moved, _nearest(_cut(labels, index), at, sides)


def _nearest(window: NDArray[np.integer], at: Tensor, sides: list[int]) -> Tensor:
    """Labels at the nearest pixels; integers all the way, since float32 cannot count beyond 2^24."""
    whole = torch.int32 if math.prod(sides) < 2**31 else torch.int64  # half the memory to walk through
    flat = torch.zeros(at.shape[1:], dtype=whole)
    for line, side in zip(at, sides, strict=True):
        flat.mul_(side).add_(line.add(0.5).to(whole))  # positions are positive here, so this rounds
    values = torch.from_numpy(window.astype(np.int64, copy=False).reshape(-1))
    return values.index_select(0, flat.view(-1)).view(flat.shape)


def _read(
    image: NDArray[Any], weights: NDArray[Any] | None, index: list[NDArray[np.integer]]
) -> NDArray[np.float32]:
    """Image and weights at `index`, stacked as channels, in fresh float32 memory."""
    channels = len(image)
    out = np.empty((channels + (weights is not None), *map(len, index)), np.float32)
    for channel in range(channels):
        out[channel] = _cut(image[channel], index)
    if weights is not None:
        out[channels] = _cut(weights, index)
    return out


def _cut(array: NDArray[Any], index: list[NDArray[np.integer]]) -> NDArray[Any]:
    """`array` at the grid of `index`: a slice of it first, so a memory map is read in the window alone."""
    window = array[tuple(slice(int(i.min()), int(i.max()) + 1) for i in index)]
    for axis, i in enumerate(index):
        if not np.array_equal(i, np.arange(i[0], i[0] + len(i))):
            window = np.take(window, i - i.min(), axis)
    return np.ascontiguousarray(window)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur along every spatial axis, cut off at 3 sigma, mirrored at the border."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in range(1, image.ndim):
        side = image.shape[axis]
        padded = image.index_select(axis, torch.from_numpy(mirror(np.arange(-radius, side + radius), side)))
        image = torch.zeros_like(image)
        for shift, share in enumerate(kernel.tolist()):
            image.add_(padded.narrow(axis, shift, side), alpha=share)
    return image
