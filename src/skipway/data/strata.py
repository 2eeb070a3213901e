"""Dividing images into parts by drawing lots, so that groups stay whole and every class occurs in every part.

A unit's lot is a hash of what it is, not of its place in a list: files that are added later leave the lots of all
others as they were. Only where a part would lack a class, or would be much too small or too large, the fewest units
whose lots lie nearest to its border change over.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOSE, EVEN = 0.5, 0.25
"""How far the size of a part may be from its share before units change over: of one held-out side, and of folds."""

_PAIRED = 32
"""Units up to which two may change over at once where no single one helps."""

_TRIED = 1024
"""Divisions up to which all are tried where that does not help either."""


@dataclass(frozen=True)
class Unit:
    """What must not be parted: one image, or all images of a group.

    Attributes:
        names: Its images.
        lot: In [0, 1), see `lot`.
        holds: Classes that occur in it.
    """

    names: tuple[str, ...]
    lot: float
    holds: frozenset[Hashable] = frozenset()


def lot(seed: int, identity: str) -> float:
    """A number in [0, 1) that depends on the seed and the identity alone.

    >>> lot(0, "P01") == lot(0, "P01") != lot(1, "P01")
    True
    """
    digest = hashlib.sha256(f"{seed}:{identity}".encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def drawn(unit: Unit, shares: Sequence[float]) -> int:
    """The part that the lot alone gives: parts lie side by side in [0, 1), each as wide as its share."""
    borders = np.cumsum(shares)[:-1]
    return int(np.searchsorted(borders, unit.lot, side="right"))


def divide(
    units: Sequence[Unit],
    shares: Sequence[float],
    *,
    fixed: Mapping[int, int] | None = None,
    home: int | None = None,
    tolerance: float = LOOSE,
) -> tuple[int, ...]:
    """The part of each unit.

    In order of weight: no part is empty; a class that occurs in as many units as there are parts occurs in every
    part (in fewer units: in as many parts); sizes are within `tolerance` of their shares; and as few units as possible,
    those nearest to a border, are elsewhere than their lots say. All divisions of few units are tried; of many, single
    and paired changes, so that the best is likely, not certain.

    Args:
        units: At least as many as parts.
        shares: Of the parts, adding up to 1.
        fixed: Parts that are given, by position of the unit.
        home: Part of the classes that only one unit has.
        tolerance: How far the size of a part may be from its share, as a share of it.

    Returns:
        Positions in `shares`, in the order of `units`, whatever that order is.
    """
    fixed = fixed or {}
    order = sorted(range(len(units)), key=lambda i: (units[i].lot, units[i].names))
    search = _Search([units[i] for i in order], shares, home, tolerance)
    start = np.array([fixed.get(i, drawn(units[i], shares)) for i in order])
    free = np.array([i not in fixed for i in order])
    parts = search.settled(start, free)
    result = dict(zip(order, parts.tolist(), strict=True))
    return tuple(result[i] for i in range(len(units)))


Cost = tuple[float, float, float]
"""Empty parts, classes that parts lack, images beyond the tolerance."""


class _Search:
    """Exchanges units between parts until nothing gets better."""

    def __init__(
        self, units: Sequence[Unit], shares: Sequence[float], home: int | None, tolerance: float
    ) -> None:
        classes = sorted({c for unit in units for c in unit.holds}, key=repr)
        self.holds = np.array([[c in unit.holds for c in classes] for unit in units], bool)
        self.holds = self.holds.reshape(len(units), len(classes))
        self.sizes = np.array([len(unit.names) for unit in units], float)
        self.lots = np.array([unit.lot for unit in units])
        self.target = np.asarray(shares) * self.sizes.sum()
        self.borders = np.concatenate(([0.0], np.cumsum(shares)))
        self.occurs = self.holds.sum(0)
        self.wanted = np.minimum(self.occurs, len(shares))
        self.home = home
        self.room = tolerance * self.target

    def settled(self, parts: NDArray[np.int64], free: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The parts after every change that makes them better."""
        state = self._state(parts)
        while any(state.cost):
            better = self._step(state, free)
            if better is None:
                break
            state = better
        few = len(self.target) ** int(free.sum()) <= _TRIED
        return self._best(parts, free).parts if any(state.cost[:2]) and few else state.parts

    def _best(self, parts: NDArray[Any], free: NDArray[np.bool_]) -> "_State":
        """The best of all divisions; among equals, the one that leaves most units where their lots put them."""
        states = []
        for choice in product(range(len(self.target)), repeat=int(free.sum())):
            other = parts.copy()
            other[free] = choice
            states.append(self._state(other))
        return min(states, key=lambda state: (state.cost, int((state.parts != parts).sum())))

    def _state(self, parts: NDArray[np.int64]) -> "_State":
        count = len(self.target)
        held = np.stack([self.holds[parts == part].sum(0) for part in range(count)])
        sizes = np.bincount(parts, self.sizes, count)
        numbers = np.bincount(parts, minlength=count)
        return _State(parts, held, sizes, numbers, self._cost(held, sizes, numbers))

    def _cost(self, held: NDArray[Any], sizes: NDArray[Any], numbers: NDArray[Any]) -> Cost:
        lacking = (self.wanted - (held > 0).sum(0)).sum()
        if self.home is not None:
            lacking += (held[self.home, self.occurs == 1] == 0).sum()
        beyond = np.maximum(0, np.abs(sizes - self.target) - self.room)
        return float((numbers == 0).sum()), float(lacking), round(float(beyond.sum()), 6)

    def _step(self, state: "_State", free: NDArray[np.bool_]) -> "_State | None":
        """The best single change; where none helps against a lack and there are few units, the best two."""
        moves = self._moves(state, free)
        best = min(moves, default=None)
        if best is None or best.cost < state.cost:
            return None if best is None else self._moved(state, best)
        if not any(state.cost[:2]) or len(state.parts) > _PAIRED:
            return None
        firsts = ((move, self._moved(state, move)) for move in moves)
        pairs = [(second, move, after) for move, after in firsts for second in self._moves(after, free)]
        second, _, after = min(pairs, key=lambda pair: (pair[0].cost, pair[0].away + pair[1].away, *pair[:2]))
        return self._moved(after, second) if second.cost < state.cost else None

    def _moves(self, state: "_State", free: NDArray[np.bool_]) -> "list[_Move]":
        """Every change of one unit; of units that are alike, the one whose lot is nearest to the new part."""
        moves = []
        for new in range(len(self.target)):
            away = np.maximum(self.borders[new] - self.lots, self.lots - self.borders[new + 1]).clip(0)
            seen: set[tuple[int, float, bytes]] = set()
            units = np.flatnonzero(free & (state.parts != new))
            for unit in units[np.argsort(away[units], kind="stable")].tolist():
                kind = (int(state.parts[unit]), float(self.sizes[unit]), self.holds[unit].tobytes())
                if kind not in seen:
                    seen.add(kind)
                    cost = self._cost(*self._after(state, unit, new))
                    moves.append(_Move(cost, float(away[unit]), unit, new))
        return moves

    def _after(self, state: "_State", unit: int, new: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Classes, sizes and numbers of the parts once a unit has changed over."""
        held, sizes, numbers = state.held.copy(), state.sizes.copy(), state.numbers.copy()
        for part, sign in ((int(state.parts[unit]), -1), (new, 1)):
            held[part] += sign * self.holds[unit]
            sizes[part] += sign * self.sizes[unit]
            numbers[part] += sign
        return held, sizes, numbers

    def _moved(self, state: "_State", move: "_Move") -> "_State":
        parts = state.parts.copy()
        parts[move.unit] = move.new
        return _State(parts, *self._after(state, move.unit, move.new), move.cost)


class _Move(NamedTuple):
    cost: Cost
    away: float
    unit: int
    new: int


@dataclass(frozen=True)
class _State:
    """The part of each unit; classes (P, K), images and units of each part; what that costs."""

    parts: NDArray[Any]
    held: NDArray[Any]
    sizes: NDArray[Any]
    numbers: NDArray[Any]
    cost: Cost
