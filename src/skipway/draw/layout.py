"""Where everything goes: nodes by level and column, arrows by what they stand for, texts where there is room.

Level i is a row, finer above coarser. A column leans to the right as it goes down, by half the distance of two
columns, so that the encoder is the left arm of a V and the decoder of a U-Net the right arm, and a step to
the next level is an upright arrow between the corners of two boxes.

    X[0,0]          X[0,1]          X[0,2]
            X[1,0]          X[1,1]
                    X[2,0]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skipway.draw.diagram import Diagram, Wire, diagram
from skipway.draw.parts import (
    BODY,
    FADED,
    INK,
    NAME,
    QUIET,
    SMALL,
    TITLE,
    Arrow,
    Box,
    Drawing,
    Kind,
    Point,
    Rect,
    Text,
    Way,
    text_width,
)
from skipway.draw.routes import apex, arrows, labelled
from skipway.draw.words import once, times
from skipway.models.cards import legal_size
from skipway.nn.graph import SkipGraph
from skipway.nn.operations import count_macs, count_parameters
from skipway.shapes import IMAGE

MARGIN, PAD, LINE = 18.0, 9.0, 12.5
RISE = 36.0
"""Least distance of two rows: room for an arrow and a word on it."""
KEEP = "\u00a0"
"""A space that no line is broken at."""
REACH = 30.0
"""Length of the way from the image and to an output."""

LEGEND: Mapping[Way, str] = {
    "encoder": "down the encoder",
    "skip": "skip: a read on the same scale",
    "up": "a read from a coarser scale",
    "down": "a read from a finer scale",
    "head": "head: one channel a class",
}


def lay_out(
    model: SkipGraph,
    size: int | Sequence[int] | None = None,
    *,
    level: int | None = None,
    title: str | None = None,
    source: str = "",
) -> Drawing:
    """Place a network on a page. It may be on the meta device; nothing is run on numbers.

    Args:
        model: Network.
        size: Input size, see `models.cards.legal_size`.
        level: Column of the output that is kept; whatever `model.pruned(level)` drops turns grey.
        title: Heading; the name of the network unless given.
        source: Where the network comes from, written below it.

    Raises:
        TopologyError: No output stands in column `level`.
    """
    at = legal_size(model, size)
    small = model if level is None else model.pruned(level)
    figure = diagram(model, at, small)
    words = [_costs(model, at)]
    if level is not None:
        dropped = f"{count_parameters(small):,} of {count_parameters(model):,} parameters"
        words.append(f"Pruned to L{level}: {dropped} stay; what is grey goes.")
    return _page(figure, title or model.name, words, source, pruned=level is not None)


@dataclass(frozen=True)
class _Frame:
    """The measures of a drawing."""

    box: float
    """Width of a node."""
    height: float
    """Height of a node."""
    step: float
    """Half the distance of two columns: how far a level leans."""
    out: float
    """Width of an output."""
    lead: float
    """Width of the image."""

    @property
    def gap(self) -> float:
        """Between two nodes of a row, and of the edges that no corner arrow takes."""
        return 2 * self.step - self.box


def _page(figure: Diagram, title: str, words: Sequence[str], source: str, *, pruned: bool) -> Drawing:
    frame = _measures(figure)
    first = figure.place[next(iter(figure.nodes))]
    left = MARGIN + frame.lead + REACH + frame.box / 2 - frame.step * first.level
    centre = {key: left + frame.step * (n.level + 2 * n.column) for key, n in figure.place.items()}
    reach = max(centre[key] + frame.box / 2 for key in centre)
    ends = [centre[head.key] + frame.box / 2 for key, head in figure.heads.items() if not figure.above(key)]
    content = max([reach, *(end + REACH + frame.out for end in ends)]) + MARGIN
    width = max(content, text_width(title, TITLE, bold=True) + 2 * MARGIN)
    shift = (width - content) / 2
    centre = {key: x + shift for key, x in centre.items()}

    texts, y = _lines(words, BODY, MARGIN, MARGIN + 2 * LINE + 6, width - 2 * MARGIN, QUIET)
    texts = [Text(MARGIN, MARGIN + TITLE, title, TITLE, bold=True), *texts]
    boxes, y = _boxes(figure, frame, centre, y + 4)
    rects = {box.key: box.rect for box in boxes}
    placed, notes = labelled(arrows(figure, frame.step, frame.gap, rects), rects)
    legend, more, y = _legend(figure, width, y + 26, pruned=pruned)
    notes = [*notes, *([f"Source: {source}"] if source else [])]
    below, y = _lines(notes, SMALL, MARGIN, y + 6, width - 2 * MARGIN, QUIET)
    return Drawing(
        title=title,
        description=". ".join([*words, *(box.title for box in boxes)]) + ".",
        width=width,
        height=y + 4,
        boxes=tuple(boxes),
        arrows=tuple(placed),
        legend=tuple(legend),
        texts=(*texts, *more, *below),
    )


def _measures(figure: Diagram) -> _Frame:
    """As small as the texts allow: what is small on the page is large on the paper."""

    def widest(keys: Iterable[str]) -> float:
        lines = [(i, text) for key in keys for i, text in enumerate(figure.words(key))]
        return max(text_width(t, BODY if i else NAME, bold=not i) for i, t in lines) + 2 * PAD

    skips = [wire.label for wire in figure.wires if wire.way == "skip"]
    gap = max([46.0, *(text_width(label, SMALL) + 18 for label in skips)])
    box = max(widest(figure.nodes), gap + 28)
    return _Frame(box, 3 * LINE + 14, (box + gap) / 2, widest(figure.heads), widest([IMAGE]))


def _boxes(figure: Diagram, frame: _Frame, centre: Mapping[str, float], y: float) -> tuple[list[Box], float]:
    """Boxes row by row from the top, and the lower edge of the last row."""
    most = max(card.width for card in figure.nodes.values())
    boxes: list[Box] = []

    def add(key: str, kind: Kind, middle: Point, width: float, height: float, share: float = 0.0) -> None:
        rect = Rect(middle[0] - width / 2, middle[1] - height / 2, width, height)
        kept = key in figure.kept
        texts = _inside(rect, figure.words(key), bar=kind in ("encoder", "decoder"), kept=kept)
        boxes.append(Box(key, kind, rect, texts, share, kept, figure.title(key)))

    first = next(iter(figure.nodes))
    for level in sorted({node.level for node in figure.place.values()}):
        row = [key for key, node in figure.place.items() if node.level == level]
        heads = [key for key, head in figure.heads.items() if head.key in row]
        high = [key for key in heads if figure.above(key)]
        arcs = max(
            [apex(figure, wire) + 16 for wire in figure.wires if _arched(figure, wire, level)], default=0
        )
        tall = max([_height(figure.words(key)) for key in heads], default=0)
        arcs = max(arcs, LINE if high else 0)
        y += max(arcs, RISE if boxes else 0)
        for key in high:
            add(key, "output", (centre[figure.heads[key].key], y - arcs + tall / 2 + 8), frame.out, tall)
        y += tall + 20 if high else 0
        middle = y + frame.height / 2
        if first in row:
            at = centre[first] - frame.box / 2 - REACH - frame.lead / 2
            add(IMAGE, "input", (at, middle), frame.lead, _height(figure.words(IMAGE)))
        for key in row:
            kind: Kind = "decoder" if figure.place[key].column else "encoder"
            add(key, kind, (centre[key], middle), frame.box, frame.height, figure.nodes[key].width / most)
        for key in heads:
            if key not in high:
                at = centre[figure.heads[key].key] + frame.box / 2 + REACH + frame.out / 2
                add(key, "output", (at, middle), frame.out, tall)
        y += frame.height
    return boxes, y


def _height(words: Sequence[str]) -> float:
    return len(words) * LINE + 10


def _inside(rect: Rect, words: Sequence[str], *, bar: bool, kept: bool) -> tuple[Text, ...]:
    """Lines centred in a box, above its bar where it has one."""
    x, y = rect.middle
    start = y - len(words) * LINE / 2 + 0.78 * LINE - (2.5 if bar else 0)
    colour = INK if kept else FADED
    return tuple(
        Text(x, start + i * LINE, text, BODY if i else NAME, bold=not i, centred=True, colour=colour)
        for i, text in enumerate(words)
    )


def _arched(figure: Diagram, wire: Wire, level: int) -> bool:
    return wire.way == "skip" and figure.place[wire.target].level == level and figure.between(wire)


def _legend(
    figure: Diagram, width: float, y: float, *, pruned: bool
) -> tuple[list[Arrow], list[Text], float]:
    """Samples of the arrows there are, then words, in as many lines as it takes."""
    ways = {wire.way for wire in figure.wires}
    most = max(card.width for card in figure.nodes.values())
    entries: list[tuple[Way | None, str]] = [(way, text) for way, text in LEGEND.items() if way in ways]
    entries.append((None, f"bar in a node: its channels (ch), full at {most}"))
    if pruned:
        entries.append((None, "grey: dropped by pruning"))
    samples: list[Arrow] = []
    texts: list[Text] = []
    x = MARGIN
    for way, words in entries:
        lead = 36 if way else 0
        length = lead + text_width(words, SMALL)
        if x > MARGIN and x + length > width - MARGIN:
            x, y = MARGIN, y + LINE + 2
        if way:
            line = ((x, y - 3), (x + 28, y - 3))
            samples.append(Arrow("", "", way, line, None, True, words))
        texts.append(Text(x + lead, y, words, SMALL))
        x += length + 18
    return samples, texts, y + LINE


def _lines(
    words: Iterable[str], size: float, x: float, y: float, width: float, colour: str
) -> tuple[list[Text], float]:
    """Texts broken into lines of at most `width`, and the y after the last."""
    texts = []
    for text in words:
        line = ""
        for word in text.split(" "):
            longer = f"{line} {word}".strip()
            if line and text_width(longer, size) > width:
                texts.append(Text(x, y, line, size, colour=colour))
                line, y = word, y + LINE
            else:
                line = longer
        texts.append(Text(x, y, line, size, colour=colour))
        y += LINE
    return texts, y


def _costs(model: SkipGraph, at: tuple[int, ...]) -> str:
    shape = model.geometry
    facts = (
        f"{count_parameters(model):,} parameters",
        f"{count_macs(model, at) / 1e9:.1f} GMAC at {times((model.in_channels, *at))}",
        f"receptive field {times(shape.receptive_field)}",
        f"halo {once(shape.halo)}" if shape.tile_exact else "tiles not exact",
    )
    return " · ".join(fact.replace(" ", KEEP) for fact in facts)
