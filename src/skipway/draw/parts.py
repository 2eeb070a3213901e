"""What a drawing is made of: rectangles, texts, boxes and arrows, as data. The unit is the SVG pixel."""

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Kind = Literal["input", "encoder", "decoder", "output"]
"""What a box stands for."""
Way = Literal["input", "encoder", "skip", "up", "down", "head"]
"""What an arrow stands for: the way into and down the encoder, a read on one's own scale, from a coarser
scale, from a finer one, and the way out."""

TITLE, NAME, BODY, SMALL = 15.0, 12.0, 10.0, 8.5
"""Sizes of fonts: of the heading, of names, of all else in boxes, of labels and legend."""
INK, QUIET, FADED = "#1f2933", "#5b6670", "#9aa2ab"
"""Colours of letters: most, what is said beside, what pruning drops."""

_NARROW = dict.fromkeys("ijl.,:;|'!", 0.34) | dict.fromkeys(' ()[]{}frt-/·"', 0.42)
_WIDE = dict.fromkeys("mwMW@%+=<>×÷±→…", 1.0)
_ASCENT, _DESCENT = 0.8, 0.25


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """At least the width of a text in the usual sans-serif fonts, the widest of which is DejaVu Sans."""
    ems = sum(
        _NARROW.get(letter) or _WIDE.get(letter) or (0.8 if letter.isupper() else 0.65) for letter in text
    )
    return ems * size * (1.11 if bold else 1.0)


@dataclass(frozen=True)
class Rect:
    """An upright rectangle by its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Lower edge; y grows downwards."""
        return self.y + self.height

    @property
    def middle(self) -> Point:
        """Centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def overlaps(self, other: "Rect") -> bool:
        """Whether the two have more than an edge in common."""
        return (
            self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom
        )

    def has(self, point: Point) -> bool:
        """Whether a point lies inside."""
        return self.x < point[0] < self.right and self.y < point[1] < self.bottom

    def holds(self, other: "Rect") -> bool:
        """Whether the other lies inside."""
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True)
class Text:
    """One line of text.

    Attributes:
        x: Of its left end, or of its middle when `centred`.
        y: Of its baseline.
        text: As written.
        size: Of the font.
        bold: Whether in bold.
        centred: Whether `x` is its middle.
        colour: Of the letters.
    """

    x: float
    y: float
    text: str
    size: float
    bold: bool = False
    centred: bool = False
    colour: str = INK

    @property
    def rect(self) -> Rect:
        """Room it takes, at least."""
        width = text_width(self.text, self.size, bold=self.bold)
        return Rect(
            self.x - width / 2 * self.centred,
            self.y - _ASCENT * self.size,
            width,
            (_ASCENT + _DESCENT) * self.size,
        )


@dataclass(frozen=True)
class Box:
    """A node, the image, or an output.

    Attributes:
        key: `x0_4`; `image`; `heads.x0_4`.
        kind: What it stands for.
        rect: Where it is.
        texts: Lines inside.
        share: Its channels as a part of the most that any node has, 0 to 1.
        kept: False when pruning drops it.
        title: For the pointer and for screen readers.
    """

    key: str
    kind: Kind
    rect: Rect
    texts: tuple[Text, ...]
    share: float
    kept: bool
    title: str


@dataclass(frozen=True)
class Arrow:
    """From one box to another.

    Attributes:
        source: Key of the box it leaves.
        target: Key of the box it enters.
        way: What it stands for.
        points: Two points of a straight line, or the four of a cubic Bézier curve.
        label: Text on it, on a ground of its own.
        kept: False when pruning drops it.
        title: For the pointer and for screen readers.
    """

    source: str
    target: str
    way: Way
    points: tuple[Point, ...]
    label: Text | None
    kept: bool
    title: str

    def at(self, t: float) -> Point:
        """Point at 0 ≤ t ≤ 1 of the way."""
        if len(self.points) == 2:
            (x0, y0), (x1, y1) = self.points
            return x0 + t * (x1 - x0), y0 + t * (y1 - y0)
        u = 1 - t
        weights = (u**3, 3 * t * u**2, 3 * t**2 * u, t**3)
        return (
            sum(w * x for w, (x, _) in zip(weights, self.points, strict=True)),
            sum(w * y for w, (_, y) in zip(weights, self.points, strict=True)),
        )


@dataclass(frozen=True)
class Drawing:
    """A network, placed.

    Attributes:
        title: One line.
        description: What is drawn, in words, for whoever cannot see it.
        width: Of the page.
        height: Of the page.
        boxes: Nodes, image, outputs.
        arrows: One per read, per step of the encoder and per output.
        legend: Samples of the ways there are, with no box at their ends.
        texts: Heading, words of the legend, notes.
    """

    title: str
    description: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    legend: tuple[Arrow, ...]
    texts: tuple[Text, ...]
