"""Fluorescence microscopy that never was: touching cells with an exact truth, for the demo, docs and tests.

    photons = illumination · (PSF ∗ cells + out-of-focus light + debris) + background
    counts  = gain · (Poisson(photons) + N(0, read noise²)) + offset,  clipped to 12 bits

Everything that makes real images hard is in: cells that touch without a gap, cells five times dimmer
than others, uneven light, haze, blurred cells of another plane, specks, fibres and hot pixels.
Only cells carry a label. One global threshold therefore does badly, while a person sees every cell.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import cos, hypot, pi, sin

import numpy as np
from scipy import ndimage

PHOTONS = 170.0  # collected in the middle of a cell of brightness 1
GAIN, OFFSET, READ_NOISE, FULL_SCALE = 4.4, 96.0, 2.0, 4095  # counts per photon, counts, photons, counts
HARMONICS = np.arange(2, 6)  # of the outline; 0 is the size and 1 the position


@dataclass(frozen=True)
class Cell:
    """One cell as a star-convex outline r(θ) around a centre.

    r(θ) = radius · ellipse(θ − angle) · (1 + Σ amplitude_k cos(kθ + phase_k)),  k = 2…5

    Attributes:
        centre: Position (y, x) in pixels.
        radius: Radius of the circle of (nearly) the same area, in pixels.
        stretch: Long axis over short axis, ≥ 1.
        angle: Direction of the long axis, in radians.
        amplitude: Relative height of each harmonic, shape (4,).
        phase: Phase of each harmonic in radians, shape (4,).
        brightness: Light per pixel as a multiple of `PHOTONS`.
        plane: 0 in focus, 1 and 2 increasingly out of it.
    """

    centre: tuple[float, float]
    radius: float
    stretch: float
    angle: float
    amplitude: np.ndarray
    phase: np.ndarray
    brightness: float
    plane: int

    def outline(self, theta: np.ndarray) -> np.ndarray:
        """Distance from the centre to the outline in the directions `theta`, in pixels, same shape."""
        turned = theta - self.angle
        ellipse = 1 / np.sqrt(np.cos(turned) ** 2 / self.stretch + np.sin(turned) ** 2 * self.stretch)
        waves = np.cos(theta[..., None] * HARMONICS + self.phase) @ self.amplitude
        return self.radius * ellipse * (1 + waves)

    def reach(self, direction: float) -> float:
        """The outline in one direction, in pixels."""
        return float(self.outline(np.array([direction]))[0])


def draw_cells(
    size: int | tuple[int, int],
    *,
    n: int | None = None,
    density: float = 0.24,
    diameter: float = 24.0,
    touching: float = 0.6,
    seed: int = 0,
    bits: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one field of view with its exact instance labels.

    The same seed gives the same scene at either depth: the 8-bit image is the 16-bit one shifted by 4 bits.

    Args:
        size: Side, or (H, W), in pixels.
        n: Number of cells to aim for; overrides `density`. A crowded image may hold fewer.
        density: Share of the image to cover with cells, 0…0.6.
        diameter: Median cell diameter in pixels.
        touching: Share of the cells that are placed against another cell, 0…1.
        seed: Everything random follows from it.
        bits: 8 for uint8, 16 for uint16 (12 bits used, as most cameras do).

    Returns:
        The image (H, W), uint8 or uint16, and the labels (H, W), uint16: 0 background, 1…n one cell each.

    Raises:
        ValueError: An argument outside its range.

    >>> image, labels = draw_cells(64, n=4, seed=1)
    >>> image.shape, image.dtype.name, int(labels.max())
    ((64, 64), 'uint16', 4)
    """
    shape = (size, size) if isinstance(size, int) else size
    if min(shape) < 1:
        raise ValueError(f"size must be at least 1 pixel, got {shape}")
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, got {bits}")
    if not 0 <= density <= 0.6 or not 0 <= touching <= 1 or diameter < 6:
        raise ValueError(f"{density=} must lie in 0…0.6, {touching=} in 0…1, {diameter=} be 6 or more")
    if n is None:
        n = round(density * shape[0] * shape[1] / (pi / 4 * diameter**2))
    if not 0 <= n <= 65_535:
        raise ValueError(f"labels are uint16, so 0…65535 cells can be drawn, not {n}")
    # One independent stream a stage: changing the noise never moves a cell.
    where, inside, around, light, camera = np.random.default_rng(seed).spawn(5)
    cells, labels, rho = territories(shape, place_cells(shape, n, diameter, touching, where))
    emitted = _cell_light(cells, labels, rho, inside) + PHOTONS * _clutter(
        shape, len(cells), diameter, around
    )
    counts = _camera(_uneven_light(emitted, light), camera)
    return (counts >> 4).astype(np.uint8) if bits == 8 else counts, labels


def place_cells(
    shape: tuple[int, int], n: int, diameter: float, touching: float, rng: np.random.Generator
) -> list[Cell]:
    """Up to `n` cells, a share of `touching` of them pressed against an earlier one, the others apart."""
    cells: list[Cell] = []
    for _ in range(40 * n):
        if len(cells) == n:
            break
        new = _random_cell(shape, diameter, rng)
        host = cells[rng.integers(len(cells))] if cells and rng.random() < touching else None
        if host is not None:
            new = _against(host, new, rng)
        inside = all(
            -0.3 * new.radius < c < side + 0.3 * new.radius for c, side in zip(new.centre, shape, strict=True)
        )
        if inside and _fits(new, cells, gap=1.25 if host is None else 0.80, host=host):
            cells.append(new)
    return cells


def _random_cell(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Cell:
    """One cell anywhere: size, outline, brightness and focus drawn from the population."""
    return Cell(
        centre=(rng.uniform(0, shape[0]), rng.uniform(0, shape[1])),
        radius=diameter / 2 * float(np.clip(rng.lognormal(0, 0.22), 0.6, 1.7)),
        stretch=1 + float(rng.gamma(2, 0.16)),
        angle=rng.uniform(0, pi),
        amplitude=rng.normal(0, 0.12, HARMONICS.size) / HARMONICS,
        phase=rng.uniform(0, 2 * pi, HARMONICS.size),
        brightness=float(np.clip(rng.lognormal(0, 0.45), 0.4, 2.3)),
        plane=int(rng.choice(3, p=(0.62, 0.26, 0.12))),
    )


def _against(host: Cell, new: Cell, rng: np.random.Generator) -> Cell:
    """`new` moved to press lightly against `host` in a random direction."""
    direction = rng.uniform(0, 2 * pi)
    distance = rng.uniform(0.86, 0.97) * (host.reach(direction) + new.reach(direction + pi))
    centre = (host.centre[0] + distance * sin(direction), host.centre[1] + distance * cos(direction))
    return replace(new, centre=centre)


def _fits(new: Cell, cells: list[Cell], gap: float, host: Cell | None) -> bool:
    """Whether the centres stay `gap` times the sum of the radii apart, along the line that joins them."""
    for cell in cells:
        dy, dx = new.centre[0] - cell.centre[0], new.centre[1] - cell.centre[1]
        distance = hypot(dy, dx)
        if cell is host or distance > 2 * gap * (new.radius + cell.radius):
            continue
        direction = float(np.arctan2(dy, dx))
        if distance < gap * (cell.reach(direction) + new.reach(direction + pi)):
            return False
    return True


def territories(
    shape: tuple[int, int], cells: list[Cell], smallest: int = 12
) -> tuple[list[Cell], np.ndarray, np.ndarray]:
    """Who owns which pixel: the cell with the smallest rho = distance / outline, where that is below 1.

    Two pressed cells then share a natural border, whichever was placed first.

    Args:
        shape: (H, W) in pixels.
        cells: Cells in any order.
        smallest: Cells of which fewer pixels lie inside the image are left out.

    Returns:
        The cells left, their labels (H, W) uint16 numbered 1…n in that order, and rho (H, W) float32,
        infinite on background.
    """
    owner, rho = np.zeros(shape, np.int32), np.full(shape, np.inf, np.float32)
    for number, cell in enumerate(cells, start=1):
        window = _window(cell.centre, 2.2 * cell.radius, shape)
        y, x = np.ogrid[window]
        dy, dx = y - cell.centre[0], x - cell.centre[1]
        own = (np.hypot(dy, dx) / cell.outline(np.arctan2(dy, dx))).astype(np.float32)
        won = (own < 1) & (own < rho[window])
        owner[window][won], rho[window][won] = number, own[won]
    left, labels = [], np.zeros(shape, np.uint16)
    for number, where in enumerate(ndimage.find_objects(owner, len(cells)), start=1):
        if where is None:
            continue
        # A neighbour can cut an outline in two; the smaller piece would be a second object of the same label.
        pieces, count = ndimage.label(owner[where] == number)
        areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        if areas.max() >= smallest:
            left.append(cells[number - 1])
            labels[where][pieces == 1 + areas.argmax()] = len(left)
    rho[labels == 0] = np.inf
    return left, labels, rho


def _window(centre: tuple[float, float], reach: float, shape: tuple[int, int]) -> tuple[slice, slice]:
    """The part of the image within `reach` pixels of `centre`."""
    y, x = (slice(max(0, int(c - reach)), max(0, int(c + reach) + 2)) for c in centre)
    return slice(y.start, min(y.stop, shape[0])), slice(x.start, min(x.stop, shape[1]))


def _cell_light(
    cells: list[Cell], labels: np.ndarray, rho: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Photons from the cells (H, W): domes with chromatin and nucleoli, blurred by plane, plus a halo."""
    shape = (labels.shape[0], labels.shape[1])
    chromatin = 0.16 * _noise(shape, 1.1, rng) + 0.16 * _noise(shape, 3.5, rng)
    dome = np.sqrt(np.clip(1 - np.minimum(rho, 1) ** 3, 0, 1)) * np.exp(chromatin)
    planes = np.zeros((3, *shape))
    for number, cell in enumerate(cells, start=1):
        window = _window(cell.centre, 2.2 * cell.radius, shape)
        light = cell.brightness * dome[window] * _nucleoli(cell, window, rng)
        planes[cell.plane][window] += np.where(labels[window] == number, light, 0)
    sharp = sum(
        ndimage.gaussian_filter(plane, sigma) for plane, sigma in zip(planes, (0.9, 1.5, 2.3), strict=True)
    )
    return PHOTONS * (0.9 * sharp + 0.22 * ndimage.gaussian_filter(sharp, 9.0))


def _nucleoli(cell: Cell, window: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Factor below 1 in up to three round dark spots inside the cell."""
    y, x = np.ogrid[window]
    factor = np.ones((y.shape[0], x.shape[1]))
    for _ in range(rng.integers(0, 4)):
        direction, distance = rng.uniform(0, 2 * pi), 0.55 * cell.radius * np.sqrt(rng.random())
        dy, dx = (
            y - cell.centre[0] - distance * sin(direction),
            x - cell.centre[1] - distance * cos(direction),
        )
        width = cell.radius * rng.uniform(0.10, 0.18)
        factor *= 1 - rng.uniform(0.25, 0.5) * np.exp(-(dy**2 + dx**2) / (2 * width**2))
    return factor


def _clutter(shape: tuple[int, int], n: int, diameter: float, rng: np.random.Generator) -> np.ndarray:
    """Light (H, W) that is no cell: far-away cells, specks and fibres, in units of `PHOTONS`."""
    area = shape[0] * shape[1]
    light = np.zeros(shape)
    for _ in range(rng.poisson(n / 7 + area / 60_000)):
        width = diameter * rng.uniform(0.32, 0.6)
        _add_spot(light, rng.uniform(0, shape), width, rng.uniform(0.12, 0.5))
    for _ in range(rng.poisson(area / 6_000)):
        _add_spot(light, rng.uniform(0, shape), rng.uniform(0.8, 1.7), rng.uniform(0.6, 3.0))
    fibres = np.zeros(shape)
    for _ in range(rng.poisson(area / 90_000)):
        brightness = rng.uniform(1.1, 3.0)
        for point in _walk(shape, rng):
            fibres[point] = brightness
    return light + ndimage.gaussian_filter(fibres, 1.1)


def _add_spot(light: np.ndarray, centre: np.ndarray, sigma: float, height: float) -> None:
    """Add one Gaussian spot in place."""
    window = _window((centre[0], centre[1]), 4 * sigma + 1, (light.shape[0], light.shape[1]))
    y, x = np.ogrid[window]
    light[window] += height * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))


def _walk(shape: tuple[int, int], rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Pixels of a smoothly bending line."""
    (y, x), direction, bend = rng.uniform(0, shape), rng.uniform(0, 2 * pi), 0.0
    for _ in range(rng.integers(60, 220)):
        bend = 0.95 * bend + rng.normal(0, 0.012)
        direction += bend
        y, x = y + 0.7 * sin(direction), x + 0.7 * cos(direction)
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            yield int(y), int(x)


def _uneven_light(emitted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photons (H, W) under a lamp that falls off to a half, on a background as bright as a dim cell."""
    shape = (emitted.shape[0], emitted.shape[1])
    lamp = 0.5 + 0.5 * _coarse(shape, rng)
    return lamp * emitted + 14.0 + 45.0 * _coarse(shape, rng)


def _coarse(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A smooth field (H, W) over 0…1, from a 4×4 grid of random numbers."""
    grid = rng.normal(size=(4, 4))
    axes = [np.linspace(0.5, 2.5, side) for side in shape]
    field = ndimage.map_coordinates(grid, np.meshgrid(*axes, indexing="ij"), order=3, mode="nearest")
    low, high = float(field.min()), float(field.max())
    return (field - low) / (high - low) if high > low else np.full(shape, 0.5)


def _noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (H, W), correlated over `sigma` pixels, of standard deviation 1."""
    # A Gaussian filter of width σ leaves white noise a standard deviation of 1 / (2 σ √π).
    return ndimage.gaussian_filter(rng.normal(size=shape), sigma) * (2 * sigma * np.sqrt(pi))


def _camera(photons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (H, W) uint16 in 0…4095: shot noise, read noise and one hot pixel in 12,000."""
    counts = GAIN * (rng.poisson(photons) + rng.normal(0, READ_NOISE, photons.shape)) + OFFSET
    hot = rng.random(photons.shape) < 1 / 12_000
    counts[hot] += rng.uniform(800, 3000, np.count_nonzero(hot))
    return np.clip(np.rint(counts), 0, FULL_SCALE).astype(np.uint16)
