"""A network of two axes on a volume, slice by slice along each of the three axes; the answers are averaged.

Every voxel lies in three slices: rows and columns (seen along Z), Z and columns (along Y), and Z and rows (along X).
The network is shown all slices of each kind, in which the axis that comes first in (Z, Y, X) stands for its rows, and
the probabilities of the three are averaged.

In space this is a network like any other: along every axis a voxel depends on at most as much around it as the network
looks at along one of its own two, so halo, stride, margin and legal sides are those of the plane, three times. Tiles
are therefore exact, and what is built on them (regions, parts, the review) takes it as it takes a network of volumes.
It sees the volume in the range of the volume: a voxel has the same number in all of its slices.
"""

from collections.abc import Iterator, Sequence
from math import prod

from torch import Tensor, nn

from skipway.errors import Problem, UsageError
from skipway.images import Geometry as Place
from skipway.predict.backends import Model
from skipway.predict.opinions import asked
from skipway.predict.turns import Turns
from skipway.predict.views import Views, alike
from skipway.shapes import Geometry

PLANES = (1, 3)
"""What `--planes` may be."""

AT_ONCE = 2**16
"""Pixels of the slices that go through the network together; one slice at least."""

STRETCHED = 2.0
"""How many times wider than high a voxel may be before somebody is told."""


class Planes(nn.Module):
    """A network of two axes, or several as one, or views of it, as one of three whose outputs are means over planes.

    Args:
        model: The network.

    Raises:
        UsageError: it has three axes, or treats rows and columns differently.
    """

    model: Model | Views | Turns

    def __init__(self, model: Model | Views | Turns) -> None:
        super().__init__()
        inner: Geometry = model.geometry
        if inner.ndim != 2:
            found = f"{inner.name} sees volumes as a whole"
            raise UsageError(Problem(found, "--planes 3", "a network of two axes", "leave it out"))
        self.model = model
        self.geometry = in_space(inner)
        self.in_channels = model.in_channels
        self.classes = model.classes
        self.rounding = model.rounding

    @property
    def pixel_bytes(self) -> int:
        """Bytes that a voxel takes: itself and the sums of the logits. The slices in the network are few."""
        weight = next(self.parameters())
        return weight.element_size() * (2 * self.in_channels + 8 * self.classes)

    def opinions(
        self, x: Tensor, first: Sequence[int], wanted: Sequence[slice] = ()
    ) -> Iterator[tuple[Tensor, ...]]:
        """What the network says along each axis, one voice after the other; see `opinions.Several`."""
        for axis in range(3):
            yield from self._along(axis, x, first, wanted)

    def _along(
        self, axis: int, x: Tensor, first: Sequence[int], wanted: Sequence[slice]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Every opinion of the slices across one axis, each as volumes; 0 in slices that nobody wants."""
        margin, sides = self.geometry.margin[axis], x.shape[2:]
        length = sides[axis] - 2 * margin
        span = wanted[axis] if wanted else slice(0, length)
        step = max(1, AT_ONCE * sides[axis] // prod(sides))
        starts = range(span.start, span.stop, step)
        counts = [min(step, span.stop - start) for start in starts]
        corner = [*first[:axis], *first[axis + 1 :]]
        voices = [  # one a batch of slices; none of them computes before it is its turn
            self._said(x.narrow(2 + axis, margin + start, count).movedim(2 + axis, 1)[0], corner)
            for start, count in zip(starts, counts, strict=True)
        ]
        while True:
            volumes: list[Tensor] = []
            for voice, start, count in zip(voices, starts, counts, strict=True):
                if (found := next(voice, None)) is None:
                    return
                maps = [output for output in found if output.ndim > 2]
                volumes = volumes or [_room(output, axis, length) for output in maps]
                for volume, output in zip(volumes, maps, strict=True):
                    volume[0].narrow(1 + axis, start, count).copy_(output.movedim(0, 1 + axis))
            yield tuple(volumes)

    def _said(self, slices: Tensor, corner: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        yield from asked(self.model, slices.contiguous(), corner)


def _room(output: Tensor, axis: int, length: int) -> Tensor:
    """A volume (1, K, *S) for the outputs of slices across an axis, such as (slices, K, *plane)."""
    _, classes, *plane = output.shape
    return output.new_zeros(1, classes, *plane[:axis], length, *plane[axis:])


def in_space(plane: Geometry) -> Geometry:
    """The geometry of a network of two axes, for three.

    Raises:
        UsageError: rows and columns have different strides or margins.
    """
    plane = alike(plane, "--planes 3", "predict slice by slice")

    def thrice(sides: Sequence[int]) -> tuple[int, ...]:
        return (max(sides),) * 3

    return Geometry(
        name=f"{plane.name}, in three planes",
        stride=thrice(plane.stride),
        smallest=thrice(plane.smallest),
        margin=thrice(plane.margin),
        halo=thrice(plane.halo),
        receptive_field=thrice(plane.receptive_field),
        margins={key: thrice(sides) for key, sides in plane.margins.items()},
        levels=(),
        tile_exact=plane.tile_exact,
    )


def stretched(place: Place | None) -> str:
    """What to tell of a volume whose voxels are far from cubes; empty where nothing is known or odd.

    >>> stretched(Place((5.0, 1.0, 1.0), "mm"))
    'voxels of 5 × 1 × 1 mm (Z, Y, X) are stretched 5 times in two of the three planes'
    """
    if place is None or len(place.spacing) != 3:
        return ""
    ratio = max(place.spacing) / min(place.spacing)
    if ratio <= STRETCHED:
        return ""
    sides = " × ".join(f"{side:g}" for side in place.spacing)
    size = f"{sides} {place.unit}".rstrip()
    return f"voxels of {size} (Z, Y, X) are stretched {ratio:.2g} times in two of the three planes"
