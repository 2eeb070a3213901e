"""Sends a map of any length through a network some rows at a time, and computes every row of every layer once.

The layers of a network stand in a line. With every strip that comes in, each of them takes the rows that it can
make something of, and keeps the few that it will need again. How far a layer must be ahead of the output follows
from what the layers after it read, so all of them move at an even pace, from the first strip to the last: no layer
ever has more to do, or more to keep, than in the middle of the image.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

import torch
from torch import Tensor

from skipway.nn.layout import layout_of
from skipway.nn.rows import NotInRows, RowStep, Shift, length, origin, pads
from skipway.nn.tape import IMAGE, Call, Tape
from skipway.shapes import Spread, Transposed, Window


@dataclass(frozen=True)
class Line:
    """How far a map must be computed: when the output stands at row b, up to row pace · b + lead."""

    pace: Fraction
    lead: Fraction

    def at(self, row: int) -> int:
        """Rows of the map that must be there."""
        return floor(self.pace * row + self.lead)


def lines(tape: Tape, ahead: Sequence[int]) -> dict[int, Line]:
    """The line of every map.

    Output row n of a step needs the first need(n) rows of what it reads. That is n / ratio, and a bit that
    repeats with the phase of the step; the lead holds the largest such bit.

    Args:
        tape: The network.
        ahead: Rows of each output before the row that is called 0.

    Raises:
        NotInRows: Two readers of a map move at different paces.
    """
    found = {slot: Line(Fraction(1), Fraction(rows)) for slot, rows in zip(tape.outputs, ahead, strict=True)}
    for call in reversed(tape.calls):
        line, step = found[call.makes], call.rule.step
        ratio, period = _ratio(step)
        more = max(step.reads(n - 1, n - 1)[1] + 1 - n * ratio for n in range(period))
        more = max(more, 1 - ratio)  # a row is there before the first is made, be it of padding alone
        needed = Line(line.pace * ratio, line.lead * ratio + more)
        for slot in call.reads:
            other = found.setdefault(slot, needed)
            if other.pace != needed.pace:
                raise NotInRows("two layers read one map at different paces")
            found[slot] = max(other, needed, key=lambda one: one.lead)
    return found


def _ratio(step: RowStep) -> tuple[Fraction, int]:
    """Rows read per row made, and after how many rows made that repeats."""
    match step:
        case Spread(factor) | Transposed(_, factor):
            return Fraction(1, factor), factor
        case Window(_, stride):
            return Fraction(stride), 1
        case Shift():
            return Fraction(1), 1


@dataclass
class Kept:
    """The rows of a map that are still needed.

    Attributes:
        dim: Dimension of the rows.
        length: Rows of the whole map.
        done: Rows computed so far.
        parts: Consecutive stretches that are kept, each with its first row.
        none: No row of it, once there was one.
        layout: In memory.
    """

    dim: int
    length: int
    done: int = 0
    parts: deque[tuple[int, Tensor]] = field(default_factory=deque)
    none: Tensor | None = None
    layout: torch.memory_format = torch.contiguous_format

    def put(self, rows: Tensor) -> None:
        """Take the next rows."""
        if self.none is None:
            self.none, self.layout = rows.narrow(self.dim, 0, 0).clone(), layout_of(rows)
        self.parts.append((self.done, rows))
        self.done += rows.shape[self.dim]

    def take(self, first: int, stop: int, fill: float | None) -> Tensor:
        """The rows `first` … `stop` - 1; those beyond the map are `fill`, or left out if that is None."""
        low, high = max(0, first), min(self.length, stop)
        cut = [
            rows.narrow(self.dim, max(low, start) - start, min(high, end) - max(low, start))
            for start, rows in self.parts
            if start < high and (end := start + rows.shape[self.dim]) > low
        ]
        if self.none is None or sum(rows.shape[self.dim] for rows in cut) != max(0, high - low):
            raise RuntimeError(
                f"rows {low} to {high} are asked for, {self.done} are computed and some forgotten"
            )
        if fill is not None:
            before, after = (
                self._filled(rows, fill) for rows in (min(low, stop) - first, stop - max(high, first))
            )
            cut = [*before, *cut, *after]
        return cut[0] if len(cut) == 1 else torch.cat(cut, self.dim) if cut else self.none

    def _filled(self, rows: int, value: float) -> list[Tensor]:
        """So many rows beyond the map, where there are any."""
        if rows <= 0 or self.none is None:
            return []
        shape = [rows if dim == self.dim else side for dim, side in enumerate(self.none.shape)]
        like = self.none
        return [
            torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=self.layout).fill_(value)
        ]

    def drop(self, before: int) -> None:
        """Forget the rows before `before`; of a stretch that is mostly forgotten, the rest moves to its own memory."""
        while self.parts and self.parts[0][0] + self.parts[0][1].shape[self.dim] <= before:
            self.parts.popleft()
        if self.parts and (dead := before - self.parts[0][0]) > 0:
            _, rows = self.parts[0]
            left = rows.shape[self.dim] - dead
            if left <= dead:
                self.parts[0] = (
                    before,
                    rows.narrow(self.dim, dead, left).clone(memory_format=torch.preserve_format),
                )


def stream(
    tape: Tape,
    read: Callable[[int, int], Tensor],
    rows: int,
    *,
    length_in: int,
    length_out: int,
    ahead: Sequence[int] | None = None,
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Run a network strip by strip.

    Args:
        tape: Of the network.
        read: Gives the rows `first` … `stop` - 1 of the image as (1, C, *S); asked for each row once, in order.
        rows: Rows of a strip, any number ≥ 1.
        length_in: Rows of the image.
        length_out: Rows of the outputs that are wanted.
        ahead: Per output, rows before the first that is wanted; 0 unless given.

    Yields:
        First row, and these rows of every output.
    """
    offsets = [0] * len(tape.outputs) if ahead is None else list(ahead)
    line = lines(tape, offsets)
    maps = _maps(tape, length_in)
    readers = _readers(tape)
    start = rows - ceil(line[IMAGE].lead / rows) * rows
    given = 0
    for row in range(start, length_out + rows, rows):
        front = min(row, length_out)
        _advance_image(maps[IMAGE], min(line[IMAGE].at(front), length_in), read)
        for call in tape.calls:
            if _advance(call, maps, line[call.makes].at(front)):
                for slot in call.reads:
                    _forget(slot, maps, readers[slot])
        if front > given:
            yield (
                given,
                tuple(
                    maps[slot].take(given + offset, front + offset, None)
                    for slot, offset in zip(tape.outputs, offsets, strict=True)
                ),
            )
            given = front
        for slot, offset in zip(tape.outputs, offsets, strict=True):
            maps[slot].drop(front + offset)


def most_bytes(tape: Tape, rows: int, ahead: Sequence[int] | None = None) -> int:
    """Bytes of maps that are alive at once, at most, while `stream` runs with strips of `rows`; about right.

    What is kept of every map, and on top of it what the most demanding call reads, copies and makes. What a library
    needs inside one function is not in it.
    """
    line = lines(tape, [0] * len(tape.outputs) if ahead is None else ahead)
    readers = _readers(tape)
    kept, fresh = dict.fromkeys(line, 0), dict.fromkeys(line, 0)
    period = max(one.pace.denominator for one in line.values())
    for row in range(0, rows * period, rows):
        front = {slot: one.at(row) for slot, one in line.items()}
        for slot, one in line.items():
            fresh[slot] = max(fresh[slot], front[slot] - one.at(row - rows))
            needed = [
                call.rule.step.reads(front[call.makes], front[call.makes])[0]
                for call in readers[slot]
                if call.makes in front
            ]
            kept[slot] = max(kept[slot], front[slot] - min(needed, default=front[slot]))
    held = sum(  # a stretch that is not mostly forgotten is kept whole
        (rest + min(rest, fresh[slot] // 2)) * tape.numbers[slot] for slot, rest in kept.items()
    )
    return tape.item * (held + max(_work(call, tape, kept, fresh) for call in tape.calls))


def _work(call: Call, tape: Tape, kept: Mapping[int, int], fresh: Mapping[int, int]) -> int:
    """Numbers that a call reads, copies and makes in one strip."""
    step, made = call.rule.step, fresh[call.makes]
    low, high = step.reads(0, max(made - 1, 0))
    span = high - low + 1
    begin = origin(step, low)
    out = length(step, span) if not pads(step) else made - min(begin, 0)
    read = sum(tape.numbers[slot] * (fresh[slot] + (span if kept[slot] else 0)) for slot in call.reads)
    return read + tape.numbers[call.makes] * (out + made if _mostly_more(out, made) else max(out, made))


def _maps(tape: Tape, length_in: int) -> dict[int, Kept]:
    maps = {IMAGE: Kept(tape.dims[IMAGE], length_in)}
    for call in tape.calls:
        here = length(call.rule.step, maps[call.reads[0]].length)
        maps[call.makes] = Kept(call.rule.dim, here)
    return maps


def _readers(tape: Tape) -> Mapping[int, tuple[Call, ...]]:
    return {slot: tuple(call for call in tape.calls if slot in call.reads) for slot in range(len(tape.dims))}


def _advance_image(image: Kept, front: int, read: Callable[[int, int], Tensor]) -> None:
    if front > image.done:
        image.put(read(image.done, front))


def _advance(call: Call, maps: Mapping[int, Kept], front: int) -> bool:
    """Compute the rows of a call's map up to `front`; whether there were any."""
    made, step = maps[call.makes], call.rule.step
    first, stop = made.done, min(front, made.length)
    if stop <= first:
        return False
    low, high = step.reads(first, stop - 1)
    fill = call.rule.fill if pads(step) else None
    parts = {slot: maps[slot].take(low, high + 1, fill) for slot in call.reads}
    found = call.run(parts)
    begin = first - origin(step, low if pads(step) else max(low, 0))
    wanted = found.narrow(call.rule.dim, begin, stop - first)
    made.put(wanted.clone() if _mostly_more(found.shape[call.rule.dim], stop - first) else wanted)
    return True


def _mostly_more(rows: int, wanted: int) -> bool:
    """Whether so much more was computed (by interpolation, from the rows at either end) that a copy is worth it."""
    return rows > 1.25 * wanted


def _forget(slot: int, maps: Mapping[int, Kept], readers: Sequence[Call]) -> None:
    """Forget the rows of a map that none of its readers will look at again."""
    maps[slot].drop(
        min(call.rule.step.reads(maps[call.makes].done, maps[call.makes].done)[0] for call in readers)
    )
