"""How the arrows run, and where their labels go."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from skipway.draw.diagram import Diagram, Wire
from skipway.draw.parts import FADED, QUIET, SMALL, Arrow, Point, Rect, Text

OUT = 2
"""Order of the way to an output among the ports on a top: what comes in stays left of it, what goes, right."""
BEND = 0.9
"""How square a turn is: 0.55 would be a quarter of an ellipse, 1 is a corner."""

_Wish = tuple[tuple[float, ...], int]
"""The order among the ports of a side, and the number of the wire."""
Ports = Mapping[tuple[str, str], Mapping[int, float]]
Route = Callable[[Ports], tuple[Point, ...]]


def arrows(diagram: Diagram, step: float, gap: float, rects: Mapping[str, Rect]) -> list[Arrow]:
    """All arrows. Each asks for ports on the sides of its boxes; a side deals them out in order."""
    asked: dict[tuple[str, str], list[_Wish]] = defaultdict(list)
    routes: list[Route] = []
    for number, wire in enumerate(diagram.wires):
        ask = _Asking(asked, number)
        routes.append(_route(diagram, step, gap, rects, wire, ask))
    ports = {spot: _dealt(rects[spot[0]], spot[1], gap, wishes) for spot, wishes in asked.items()}
    return [
        Arrow(wire.source, wire.target, wire.way, route(ports), _word(wire), wire.kept, wire.title)
        for wire, route in zip(diagram.wires, routes, strict=True)
    ]


@dataclass(frozen=True)
class _Asking:
    """Notes which sides of which boxes a wire wants a port on."""

    asked: dict[tuple[str, str], list[_Wish]]
    number: int

    def __call__(self, key: str, side: str, *order: float) -> Callable[[Ports], float]:
        """A port whose place is known once all have asked; small `order` is left, or top."""
        self.asked[key, side].append((order, self.number))
        return lambda ports: ports[key, side][self.number]


def _dealt(rect: Rect, side: str, gap: float, wishes: Sequence[_Wish]) -> dict[int, float]:
    """Ports on a side, by the number of the wire.

    At even distances: on the top between the corner arrows, on the lower half of a flank. The way to an output
    above leaves from the very middle.
    """
    middle, low = rect.middle
    if side != "top":
        return _spread(wishes, low + 4, rect.height / 2 - 8)
    if out := [number for order, number in wishes if order[0] == OUT]:
        left = [wish for wish in wishes if wish[0][0] < OUT]
        right = [wish for wish in wishes if wish[0][0] > OUT]
        return {
            out[0]: middle,
            **_spread(left, middle - gap / 2, gap / 2),
            **_spread(right, middle, gap / 2),
        }
    return _spread(wishes, middle - gap / 2, gap)


def _spread(wishes: Sequence[_Wish], start: float, length: float) -> dict[int, float]:
    step = length / (len(wishes) + 1)
    return {number: start + step * (i + 1) for i, (_, number) in enumerate(sorted(wishes))}


def _route(
    diagram: Diagram, step: float, gap: float, rects: Mapping[str, Rect], wire: Wire, ask: _Asking
) -> Route:
    """How one wire runs.

    A read on its own row is straight, or an arc where nodes stand between. A step to the next level is
    upright. A read from far below leaves upwards and turns right; one from above leaves to the right and
    turns down: so they nest and do not cut through boxes of the V.
    """
    a, b = rects[wire.source], rects[wire.target]
    (ax, ay), (bx, by) = a.middle, b.middle
    if wire.way == "head" and diagram.above(wire.target):
        port = ask(wire.source, "top", OUT)
        return lambda ports: ((port(ports), a.y), (port(ports), b.bottom))
    if wire.way in ("head", "input"):
        return lambda _: ((a.right, ay), (b.x, by))
    here, there = diagram.place[wire.target], diagram.place[wire.source]
    if wire.way == "skip":
        if not diagram.between(wire):
            return lambda _: ((a.right, ay), (b.x, by))
        span = here.column - there.column
        lift = apex(diagram, wire) / 0.75  # a cubic reaches 3/4 of its handles
        leave, enter = ask(wire.source, "top", OUT + 2, -span), ask(wire.target, "top", 0, span)
        return lambda ports: (
            (leave(ports), a.y),
            (leave(ports), a.y - lift),
            (enter(ports), b.y - lift),
            (enter(ports), b.y),
        )
    leave_y, enter_y = (a.bottom, b.y) if ay < by else (a.y, b.bottom)
    if abs(here.level - there.level) == 1 and abs(abs(bx - ax) - step) < 1:
        x = (ax + bx) / 2
        return lambda _: ((x, leave_y), (x, enter_y))
    if wire.way == "up" and ax + gap / 2 < b.x:
        up, left = ask(wire.source, "top", OUT + 1, here.level), ask(wire.target, "left", ax)
        return lambda ports: _turn((up(ports), a.y), (b.x, left(ports)), upright=True)
    if wire.way == "down" and a.right < bx - gap / 2:
        right, down = ask(wire.source, "right", -bx), ask(wire.target, "top", 1, -there.level)
        return lambda ports: _turn((a.right, right(ports)), (down(ports), b.y), upright=False)
    half = (leave_y + enter_y) / 2
    return lambda _: ((ax, leave_y), (ax, half), (bx, half), (bx, enter_y))


def _turn(start: Point, end: Point, *, upright: bool) -> tuple[Point, ...]:
    """A quarter turn, that begins upright or level."""
    (x0, y0), (x1, y1) = start, end
    near, far = BEND, 1 - BEND
    if upright:
        return start, (x0, y0 + near * (y1 - y0)), (x0 + far * (x1 - x0), y1), end
    return start, (x0 + near * (x1 - x0), y0), (x1, y0 + far * (y1 - y0)), end


def _word(wire: Wire) -> Text | None:
    if not wire.label:
        return None
    return Text(0, 0, wire.label, SMALL, centred=True, colour=QUIET if wire.kept else FADED)


def labelled(arrows: Sequence[Arrow], rects: Mapping[str, Rect]) -> tuple[list[Arrow], list[str]]:
    """Arrows with their labels, on no box or other label and, where it can be, on no other arrow.

    A label without a place becomes a note.
    """
    taken = list(rects.values())
    trails = [[arrow.at(i / 40) for i in range(41)] for arrow in arrows]
    placed: list[Arrow] = []
    notes: list[str] = []
    for number, arrow in enumerate(arrows):
        word = arrow.label
        if word is not None:
            others = [point for i, trail in enumerate(trails) if i != number for point in trail]
            spots = [replace(word, x=x, y=y + SMALL / 3) for x, y in map(arrow.at, _TRIES)]
            free = [text for text in spots if not any(text.rect.overlaps(rect) for rect in taken)]
            word = min(free, key=lambda text: sum(map(text.rect.has, others)), default=None)
            if word is None:
                notes.append(f"{arrow.title}.")
            else:
                taken.append(word.rect)
        placed.append(replace(arrow, label=word))
    return placed, notes


_TRIES = (0.5, 0.46, 0.54, 0.42, 0.58, 0.38, 0.62, 0.34, 0.66, 0.3, 0.7)


def apex(diagram: Diagram, wire: Wire) -> float:
    """How high an arc rises over the boxes it passes: a step per column, so that labels fit between."""
    return 2 + 11.5 * (diagram.place[wire.target].column - diagram.place[wire.source].column)
