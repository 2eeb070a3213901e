"""Test-time augmentation by symmetries: the network sees the image mirrored and turned, and the answers are averaged.

A view maps pixels onto pixels, so nothing is interpolated: it mirrors axes and may exchange the last two. View g of
network f says g⁻¹ f(g x), and g works on what a tile reads. That is exact in tiles, whatever the grid: the lengths of
all reads are legal, legal sides repeat with the stride, and reads start on multiples of it, so they still do when
counted from the other end; the halo is the same on both sides; and a tile ends where the image ends in every view.

What is turned is the image *as the network reads it*, extended at its end to a legal size (`skipway.tiles`). Turning
the image itself and extending it then would mirror other pixels where its sides are not legal already, and where they
are legal the two are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from torch import Tensor, nn

from skipway.data.augment import Augmentation
from skipway.data.labels import LabelMap
from skipway.errors import Problem, UsageError
from skipway.predict.backends import Model
from skipway.predict.opinions import asked
from skipway.shapes import Geometry

KINDS = {
    "mirror": "mirrored along every axis, and as it is",
    "rotations": "turned by right angles in the plane of its rows and columns",
    "all": "mirrored and turned by right angles",
    "seven": "turned by the seven multiples of 360°/7, two axes only",
}
"""What `--tta` may be. The views of `seven` are those of `turns`."""


@dataclass(frozen=True)
class View:
    """A symmetry of the grid of pixels: the last two axes are exchanged, then some axes mirrored.

    Attributes:
        mirrored: Axes that are mirrored, counted from the first spatial one.
        exchanged: Whether the last two axes are exchanged before.
    """

    mirrored: tuple[int, ...] = ()
    exchanged: bool = False

    def of(self, x: Tensor) -> Tensor:
        """What the view shows of (B, C, *S).

        >>> import torch
        >>> View((0,), True).of(torch.tensor([[[[1, 2], [3, 4]]]])).tolist()
        [[[[2, 4], [1, 3]]]]
        """
        x = x.transpose(-1, -2) if self.exchanged else x
        return x.flip(self._dims) if self.mirrored else x

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `of`."""
        x = x.flip(self._dims) if self.mirrored else x
        return x.transpose(-1, -2) if self.exchanged else x

    @property
    def _dims(self) -> list[int]:
        return [axis + 2 for axis in self.mirrored]

    def turns(self, ndim: int) -> bool:
        """Whether it is a rotation: an even number of reflections."""
        return (len(self.mirrored) + self.exchanged) % 2 == 0 and all(
            axis >= ndim - 2 for axis in self.mirrored
        )


def views_of(kind: str, ndim: int) -> tuple[View, ...]:
    """The views of "mirror", "rotations" or "all" for images of so many axes, the image as it is first.

    >>> [len(views_of(kind, ndim)) for ndim in (2, 3) for kind in ("mirror", "rotations", "all")]
    [4, 4, 8, 8, 4, 16]
    """
    flips = [
        tuple(axis for axis in range(ndim) if bits[axis]) for bits in product((False, True), repeat=ndim)
    ]
    mirrors = [View(axes) for axes in flips]
    every = [*mirrors, *(View(axes, exchanged=True) for axes in flips)]
    chosen = {
        "mirror": mirrors,
        "rotations": [view for view in every if view.turns(ndim)],
        "all": every,
    }
    return tuple(chosen[kind])


def refuse_unseen(kind: str, shown: Augmentation, labels: LabelMap) -> None:
    """Refuse views of which training showed the network none: they would be answered by chance.

    Args:
        kind: One of `KINDS`.
        shown: What training showed.
        labels: The classes, for the message.

    Raises:
        UsageError: mirrored without flips in training, or turned further than it was there.
    """
    angle = {"mirror": 0.0, "seven": 360 * 3 / 7}.get(kind, 180.0)
    reasons = []
    if kind in ("mirror", "all") and not shown.flips:
        reasons.append("never mirrored")
    if angle > shown.rotation:
        reasons.append(f"turned by at most {shown.rotation:g}°")
    if reasons:
        found = f"in training images were {' and '.join(reasons)}"
        fix = f"leave it out, or add --tta-unseen if {', '.join(labels.names)} look the same then"
        raise UsageError(Problem(found, f"--tta {kind}", "views that the network has learnt", fix))


class Views(nn.Module):
    """A network, or several as one, whose outputs are the means over views of the image.

    Args:
        model: The network.
        views: What it is shown.

    Raises:
        UsageError: axes are to be exchanged that the network does not treat alike.
    """

    model: Model

    def __init__(self, model: Model, views: Sequence[View]) -> None:
        super().__init__()
        self.model = model
        self.views = tuple(views)
        self.geometry = _geometry(model.geometry, self.views)
        self.in_channels = model.in_channels
        self.classes = model.classes
        self.rounding = model.rounding

    def opinions(
        self, x: Tensor, first: Sequence[int], wanted: Sequence[slice] = ()
    ) -> Iterator[tuple[Tensor, ...]]:
        """What the network says of each view; see `opinions.Several`."""
        for view in self.views:
            for found in asked(self.model, view.of(x), ()):  # nobody here asks where the pixels lie
                yield tuple(view.back(output) for output in found if output.ndim > 2)


def _geometry(geometry: Geometry, views: Sequence[View]) -> Geometry:
    """The geometry of the network in any of the views.

    Blocks of output start on multiples of the stride, counted from the output's start. Counted from its end they do
    not where a legal output is no multiple of it (388 of 572): then an interpolating network needs a stride more.
    """
    if any(view.exchanged for view in views):
        geometry = alike(geometry, "--tta", "--tta mirror")
    if not any(view.mirrored for view in views):
        return geometry
    sides = zip(geometry.halo, geometry.smallest, geometry.margin, geometry.stride, strict=True)
    halo = tuple(h + (s if m + s <= h and (n - 2 * m) % s else 0) for h, n, m, s in sides)
    return replace(geometry, halo=halo)


def alike(geometry: Geometry, option: str, fix: str) -> Geometry:
    """The same for the last two axes.

    Args:
        geometry: Of a network.
        option: That needs it, for the message.
        fix: What to type where it cannot be.

    Raises:
        UsageError: their strides or margins differ.
    """
    same = (geometry.stride, geometry.smallest, geometry.margin, *geometry.margins.values())
    if any(sides[-1] != sides[-2] for sides in same):
        found = f"{geometry.name} treats rows and columns differently (strides {geometry.stride})"
        raise UsageError(Problem(found, option, "the same strides along both", fix))
    widest = (*geometry.halo[:-2], *(max(geometry.halo[-2:]),) * 2)
    return replace(geometry, halo=widest)
