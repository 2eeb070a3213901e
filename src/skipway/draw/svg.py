"""A drawing as SVG text: plain shapes and attributes that every viewer knows, no style sheet, no script."""

from collections.abc import Iterator
from math import hypot
from xml.sax.saxutils import escape, quoteattr

from skipway.draw.parts import Arrow, Box, Drawing, Kind, Point, Text, Way

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
STROKE: dict[Way, str] = {
    "input": "#a63d2f",
    "encoder": "#a63d2f",
    "skip": "#66717c",
    "up": "#2b7a3d",
    "down": "#b06a00",
    "head": "#117a8b",
}
DASH: dict[Way, str] = {"skip": "5 3", "down": "1.5 2.5"}
FILL: dict[Kind, tuple[str, str]] = {
    "input": ("#ffffff", "#8a949e"),
    "encoder": ("#e6effa", "#3a6fb0"),
    "decoder": ("#fdf1dc", "#c08a2a"),
    "output": ("#dff3f3", "#117a8b"),
}
GREY = ("#f6f7f8", "#cfd4d9")
HEAD = 5.5
"""Length of an arrow's head."""


def svg(drawing: Drawing) -> str:
    """The drawing as the text of an SVG file."""
    return "\n".join(_elements(drawing)) + "\n"


def _elements(drawing: Drawing) -> Iterator[str]:
    width, height = _n(drawing.width), _n(drawing.height)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc" '
        f"font-family={quoteattr(FONT)}>"
    )
    yield f'<title id="title">{escape(drawing.title)}</title>'
    yield f'<desc id="desc">{escape(drawing.description)}</desc>'
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    for arrow in sorted(drawing.arrows, key=lambda arrow: arrow.kept):  # grey ones lie below
        yield from _arrow(arrow)
    for box in drawing.boxes:
        yield from _box(box)
    for arrow in drawing.arrows:
        if arrow.label is not None:
            yield from _label(arrow.label)
    for arrow in drawing.legend:
        yield from _arrow(arrow)
    yield from (_text(text) for text in drawing.texts)
    yield "</svg>"


def _arrow(arrow: Arrow) -> Iterator[str]:
    """A line up to the foot of its head, and the head."""
    colour = STROKE[arrow.way] if arrow.kept else GREY[1]
    *others, before, tip = arrow.points
    length = hypot(tip[0] - before[0], tip[1] - before[1])
    along = (tip[0] - before[0]) / length, (tip[1] - before[1]) / length
    foot = tip[0] - HEAD * along[0], tip[1] - HEAD * along[1]
    side = HEAD * 0.42
    wings = [(foot[0] - side * along[1], foot[1] + side * along[0])]
    wings.append((foot[0] + side * along[1], foot[1] - side * along[0]))
    line = _path([*others, before, foot])
    dash = f' stroke-dasharray="{DASH[arrow.way]}"' if arrow.way in DASH else ""
    yield f"<g><title>{escape(arrow.title)}</title>"
    yield f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.4"{dash}/>'
    yield f'<path d="{_path([tip, *wings], polygon=True)}" fill="{colour}"/></g>'


def _box(box: Box) -> Iterator[str]:
    fill, stroke = FILL[box.kind] if box.kept else GREY
    r = box.rect
    yield f"<g><title>{escape(box.title)}</title>"
    yield (
        f'<rect x="{_n(r.x)}" y="{_n(r.y)}" width="{_n(r.width)}" height="{_n(r.height)}" rx="6" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="1.3"/>'
    )
    if box.share:
        full = r.width - 16
        for length, opacity in ((full, "0.18"), (max(1.5, full * box.share), "1")):
            yield (
                f'<rect x="{_n(r.x + 8)}" y="{_n(r.bottom - 8)}" width="{_n(length)}" height="3" rx="1.5" '
                f'fill="{stroke}" fill-opacity="{opacity}"/>'
            )
    yield from (_text(text) for text in box.texts)
    yield "</g>"


def _label(text: Text) -> Iterator[str]:
    """A text on a white ground, so that it is read across the line it lies on."""
    r = text.rect
    yield f'<rect x="{_n(r.x)}" y="{_n(r.y)}" width="{_n(r.width)}" height="{_n(r.height)}" fill="#ffffff"/>'
    yield _text(text)


def _text(text: Text) -> str:
    anchor = ' text-anchor="middle"' if text.centred else ""
    weight = ' font-weight="bold"' if text.bold else ""
    place = f'x="{_n(text.x)}" y="{_n(text.y)}" font-size="{_n(text.size)}"'
    return f'<text {place}{anchor}{weight} fill="{text.colour}">{escape(text.text)}</text>'


def _path(points: list[Point], *, polygon: bool = False) -> str:
    start, *rest = [f"{_n(x)},{_n(y)}" for x, y in points]
    if polygon:
        return f"M{start} L{' '.join(rest)} Z"
    return f"M{start} {'C' if len(points) == 4 else 'L'}{' '.join(rest)}"


def _n(value: float) -> str:
    """A number with one decimal at most, so that the same drawing is the same text everywhere."""
    return f"{round(value, 1) + 0.0:g}"
