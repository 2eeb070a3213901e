"""Size arithmetic of a network: sizes, crops, margins, legal inputs, receptive fields and the halo of tiles.

A network is described by *paths*: the layers between a feature map and a map it reads, each layer as one step
per axis. Three kinds of step are enough for the family: a sliding window (convolution, pooling, crop), a
spread (up-sampling) and a window the other way round (transposed convolution). Everything is exact integer
and rational arithmetic on one axis at a time, and no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, lcm

from skipway.errors import ShapeError

IMAGE = "image"


@dataclass(frozen=True)
class Grid:
    """Size of a feature map along one axis: an input of n pixels gives n / stride − loss.

    Attributes:
        stride: Input pixels per feature pixel.
        loss: Feature pixels that valid convolutions have taken away, both sides together.
    """

    stride: Fraction = Fraction(1)
    loss: Fraction = Fraction(0)

    def size(self, n: int) -> Fraction:
        """Size of the map for an input side of `n` pixels; not an integer when `n` is not legal."""
        return n / self.stride - self.loss


@dataclass(frozen=True)
class Window:
    """A convolution, a pooling or (with negative padding) a crop along one axis.

    Output pixel p reads the input pixels stride · p − padding … + kernel − 1.
    """

    kernel: int
    stride: int = 1
    padding: int = 0

    def grid(self, grid: Grid) -> Grid:
        """Grid after the step; exact for the sizes that `stride` divides, which are the legal ones."""
        loss = grid.loss / self.stride - (2 * self.padding - self.kernel) // self.stride - 1
        return Grid(grid.stride * self.stride, loss)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """First and last input pixel that the output pixels `first` … `last` depend on."""
        start = first * self.stride - self.padding
        return start, last * self.stride - self.padding + self.kernel - 1


@dataclass(frozen=True)
class Spread:
    """Up-sampling by an integer factor along one axis.

    Without `linear` (nearest neighbour, or a transposed convolution whose kernel is its stride) output pixel
    p reads input pixel p // factor. With it (linear interpolation, `align_corners=False`) it reads the two
    neighbours of (p + 1/2) / factor − 1/2, or one where that is an integer.
    """

    factor: int
    linear: bool = False

    def grid(self, grid: Grid) -> Grid:
        """Grid after the step."""
        return Grid(grid.stride / self.factor, grid.loss * self.factor)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """First and last input pixel that the output pixels `first` … `last` depend on."""
        if not self.linear:
            return first // self.factor, last // self.factor
        shift, span = 1 - self.factor, 2 * self.factor
        return (2 * first + shift) // span, -(-(2 * last + shift) // span)


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution along one axis; n pixels give (n − 1) · stride + kernel − 2 · padding.

    Input pixel p adds to the output pixels stride · p − padding … + kernel − 1. Where the kernel is the stride
    and nothing is padded it does what `Spread` says.
    """

    kernel: int
    stride: int
    padding: int = 0

    def grid(self, grid: Grid) -> Grid:
        """Grid after the step."""
        loss = (grid.loss + 1) * self.stride - self.kernel + 2 * self.padding
        return Grid(grid.stride / self.stride, loss)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """First and last input pixel that the output pixels `first` … `last` depend on."""
        start = -((self.kernel - 1 - first - self.padding) // self.stride)  # rounded up
        return start, (last + self.padding) // self.stride


Step = Window | Spread | Transposed
Layer = tuple[Step, ...]
"""One step per axis."""
Path = tuple[Layer, ...]
"""Layers between two feature maps, in running order."""
Edges = Mapping[str, tuple[tuple[str, Path], ...]]
"""Map -> the (map it reads, path between them) pairs, in running order; the input is called `image`."""


def crop_layer(crop: Sequence[int]) -> Layer:
    """The layer that takes `crop` pixels off both sides of each axis."""
    return tuple(Window(1, padding=-c) for c in crop)


def advance(grids: tuple[Grid, ...], path: Path) -> tuple[Grid, ...]:
    """Grids (one per axis) at the end of a path that starts on `grids`."""
    for layer in path:
        grids = tuple(step.grid(grid) for step, grid in zip(layer, grids, strict=True))
    return grids


def align(
    name: str, sources: Mapping[str, tuple[Grid, ...]], stride: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """Pixels to take off each side of each read so that all reads of a node have one size.

    crop = (size − smallest size) / 2, after resampling to the grid of the node. It does not depend on the
    input size.

    Args:
        name: Key of the reading node, for messages.
        sources: Key of each read -> its grids.
        stride: Stride of the reading node per axis.

    Returns:
        Key of each read -> crop per axis, in pixels of the reading node.

    Raises:
        ShapeError: Two reads differ by an odd number of pixels, which would shift them by half a pixel.

    >>> skip, below = Grid(Fraction(1), Fraction(4)), Grid(Fraction(2), Fraction(6))
    >>> align("x0_1", {"x0_0": (skip,), "x1_0": (below,)}, [1])
    {'x0_0': (4,), 'x1_0': (0,)}
    """
    losses = {
        key: [grid.loss * grid.stride / s for grid, s in zip(grids, stride, strict=True)]
        for key, grids in sources.items()
    }
    most = [max(axis) for axis in zip(*losses.values(), strict=True)]
    crops = {key: [(m - loss) / 2 for m, loss in zip(most, row, strict=True)] for key, row in losses.items()}
    for key, crop in crops.items():
        if any(c.denominator != 1 for c in crop):
            raise ShapeError(
                f"{name} cannot read {key}: {2 * max(crop)} pixels to crop cannot be split evenly"
            )
    return {key: tuple(int(c) for c in crop) for key, crop in crops.items()}


@dataclass(frozen=True)
class Bands:
    """How a map can be computed in bands of rows (of its first axis), each from bands of the maps it reads.

    Attributes:
        step: Bands start and end on multiples of this, so that up-sampling keeps its phase.
        halo: Rows that a band computes beyond its own on either side; those outside the map are left away.
        scales: Per read, its stride over that of the map: rows p of the map lie over row p / scale of the read.
    """

    step: int
    halo: int
    scales: tuple[Fraction, ...]


def bands_of(paths: Sequence[Path], scales: Sequence[Fraction]) -> Bands | None:
    """Bands of a map given by the paths from what it reads; None where the map is smaller than its reads.

    The halo holds every row that the band's own rows depend on. Rows near the cut edge of a band are wrong
    (they see zeros that are not there), but nothing that is kept looks at them.

    Args:
        paths: Per read, its layers down to the map.
        scales: Per read, stride over the stride of the map, along the first axis.

    >>> three = (Window(3, padding=1), Window(3, padding=1))
    >>> bands_of([(three, three), ((Spread(2),) * 2, three, three)], [Fraction(1), Fraction(2)])
    Bands(step=2, halo=2, scales=(Fraction(1, 1), Fraction(2, 1)))
    """
    step = lcm(*(scale.numerator for scale in scales))
    halo = 0
    for path, scale in zip(paths, scales, strict=True):
        if advance((Grid(scale),), tuple((layer[0],) for layer in path)) != (Grid(),):
            return None
        low, high = 0, step - 1
        for layer in reversed(path):
            low, high = layer[0].reads(low, high)
        halo = max(halo, -floor(low * scale), ceil((high + 1) * scale) - step)
    return Bands(step, -(-halo // step) * step, tuple(scales))


@dataclass(frozen=True)
class Geometry:
    """What a network does to the sizes of its input, per axis, in input pixels.

    Attributes:
        name: Name of the network, for messages.
        stride: Legal sides repeat with this period; the corner of a tile must lie on a multiple of it.
        smallest: Smallest legal side.
        margin: Pixels lost per side between the input and the last output; 0 with same padding.
        halo: Context that a block of output pixels needs on each side, when the block starts and ends on
            multiples of `stride`, to be what it is in the whole image. A multiple of `stride`; covers every
            output.
        receptive_field: Side of the input window that one pixel of the last output depends on, the largest
            over its positions on the pooling grid.
        margins: Output key -> margin.
        levels: Grid of each encoder level, finest first, each one per axis.
        tile_exact: Whether a crop with its halo gives what the whole image gives; instance and group norm do
            not.
    """

    name: str
    stride: tuple[int, ...]
    smallest: tuple[int, ...]
    margin: tuple[int, ...]
    halo: tuple[int, ...]
    receptive_field: tuple[int, ...]
    margins: Mapping[str, tuple[int, ...]]
    levels: tuple[tuple[Grid, ...], ...]
    tile_exact: bool = True

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.stride)

    def legal(self, size: Sequence[int]) -> bool:
        """Whether the network can take an input of this size."""
        self._one_side_per_axis(size)
        return all(
            n >= least and (n - least) % s == 0
            for n, least, s in zip(size, self.smallest, self.stride, strict=True)
        )

    def next_legal(self, size: Sequence[int]) -> tuple[int, ...]:
        """Smallest legal size that is at least `size` on every axis."""
        self._one_side_per_axis(size)
        sides = zip(size, self.smallest, self.stride, strict=True)
        return tuple(least + max(0, -(-(n - least) // s)) * s for n, least, s in sides)

    def output_size(self, size: Sequence[int], output: str | None = None) -> tuple[int, ...]:
        """Size of an output (the last one unless a key is named) for an input of a legal size.

        Raises:
            ShapeError: `size` is not legal.
        """
        self.check(size)
        margin = self.margin if output is None else self.margins[output]
        return tuple(n - 2 * m for n, m in zip(size, margin, strict=True))

    def check(self, size: Sequence[int]) -> None:
        """Refuse a size that the network cannot take.

        Raises:
            ShapeError: Says which side, why, and the nearest sides that would do.
        """
        self._one_side_per_axis(size)
        if not self.legal(size):
            refusals = [
                self._refusal(n, axis) for axis, n in enumerate(size) if not self._legal_side(n, axis)
            ]
            raise ShapeError(" ".join(dict.fromkeys(refusals)))

    def _one_side_per_axis(self, size: Sequence[int]) -> None:
        if len(size) != self.ndim:
            raise ShapeError(f"{self.name} takes {self.ndim} spatial axes, not {len(size)}")

    def _legal_side(self, n: int, axis: int) -> bool:
        return n >= self.smallest[axis] and (n - self.smallest[axis]) % self.stride[axis] == 0

    def _refusal(self, n: int, axis: int) -> str:
        least, period = self.smallest[axis], self.stride[axis]
        if n < least:
            return f"{self.name} cannot take a side of {n}: the smallest side is {least}."
        why = f"legal sides are {least}, {least + period}, …"
        for level, (here, below) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            size, factor = here[axis].size(n), below[axis].stride / here[axis].stride
            if size % factor:
                why = f"level {level} is {size} pixels, which stride {factor} does not divide"
                break
        lower = least + (n - least) // period * period
        return f"{self.name} cannot take a side of {n}: {why}. Nearest sides: {lower}, {lower + period}."


def measure(
    name: str,
    edges: Edges,
    outputs: Mapping[str, str],
    levels: Sequence[str],
    ndim: int,
    *,
    tile_exact: bool = True,
) -> Geometry:
    """Geometry of a network given by its edges.

    Args:
        name: Name of the network, for messages.
        edges: Every map of the network, in running order; `image` is the input.
        outputs: Output key -> name of the map in `edges` that is the output, on the grid of the input.
        levels: Names of the encoder's maps, finest first.
        ndim: Number of spatial axes.
        tile_exact: Passed on to the geometry.

    Raises:
        ShapeError: No input size fits, the reads of a map differ in size, or an output is not on the input's
            grid.
    """
    grids: dict[str, tuple[Grid, ...]] = {IMAGE: (Grid(),) * ndim}
    for key, reads in edges.items():
        ends = {advance(grids[source], path) for source, path in reads}
        if len(ends) != 1:
            raise ShapeError(f"{name}: the reads of {key} differ in size")
        grids[key] = ends.pop()
    axes = range(ndim)
    periods = [_legal_sides(name, edges, grids, axis) for axis in axes]
    margins = {key: tuple(_margin(name, key, grid) for grid in grids[end]) for key, end in outputs.items()}
    reach = {
        key: [_reach(edges, outputs[key], margins[key][axis], periods[axis][1], axis) for axis in axes]
        for key in outputs
    }
    last = list(outputs)[-1]
    return Geometry(
        name=name,
        stride=tuple(period for _, period in periods),
        smallest=tuple(least for least, _ in periods),
        margin=margins[last],
        halo=tuple(max(reach[key][axis][0] for key in outputs) for axis in axes),
        receptive_field=tuple(reach[last][axis][1] for axis in axes),
        margins=margins,
        levels=tuple(grids[key] for key in levels),
        tile_exact=tile_exact,
    )


def _legal_sides(
    name: str, edges: Edges, grids: Mapping[str, tuple[Grid, ...]], axis: int
) -> tuple[int, int]:
    """Smallest legal side and period: every map has a pixel, every strided window divides what it reads."""
    least, rules = 1, {(1, 0)}
    for reads in edges.values():
        for source, path in reads:
            grid = grids[source][axis]
            for layer in path:
                step = layer[axis]
                if isinstance(step, Window) and step.stride > 1:
                    rules.add((int(grid.stride * step.stride), int(grid.stride * grid.loss)))
                grid = step.grid(grid)
                least = max(least, ceil(grid.stride * (grid.loss + 1)))
    period = lcm(*(modulus for modulus, _ in rules))
    for n in range(least, least + period):
        if all((n - rest) % modulus == 0 for modulus, rest in rules):
            return n, period
    raise ShapeError(f"{name}: no input side suits all its strides")


def _margin(name: str, key: str, grid: Grid) -> int:
    margin = grid.loss / 2
    if grid.stride != 1 or margin.denominator != 1:
        raise ShapeError(f"{name}: the output {key} is not on the grid of the input")
    return int(margin)


def _reach(edges: Edges, output: str, margin: int, period: int, axis: int) -> tuple[int, int]:
    """Halo of an aligned block and the largest receptive field of one pixel."""
    windows = [_window(edges, output, pixel, axis) for pixel in range(period)]
    before = max(margin - first for first, _ in windows)
    after = max(last - margin - (period - 1) for _, last in windows)
    field = max(last - first + 1 for first, last in windows)
    return -(-max(before, after, 0) // period) * period, field


def _window(edges: Edges, output: str, pixel: int, axis: int) -> tuple[int, int]:
    """First and last input pixel that one output pixel depends on, far from the border."""
    needs = {output: (pixel, pixel)}
    for key, reads in reversed(list(edges.items())):
        if key not in needs:
            continue
        for source, path in reads:
            first, last = needs[key]
            for layer in reversed(path):
                first, last = layer[axis].reads(first, last)
            old = needs.get(source, (first, last))
            needs[source] = (min(first, old[0]), max(last, old[1]))
    return needs[IMAGE]
