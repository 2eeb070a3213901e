"""How far a training is at each step, also where its length changed on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Leg:
    """A stretch of a training with a warm-up of its own: all of it, or what was added to one that had finished.

    Attributes:
        begin: Steps done before it.
        share: Part of the whole training that lies before it, from 0 up to 1.
        bends: (step, total), …: from that step on, the leg was to end with step `total`; the last one holds.
            Empty while nothing is measured.
        validations: Validations during it; None for the usual number.

    >>> leg = Leg(bends=((0, 100), (50, 150)))
    >>> [leg.progress(step) for step in (0, 25, 50, 100, 150)]
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    begin: int = 0
    share: float = 0.0
    bends: tuple[tuple[int, int], ...] = ()
    validations: int | None = None

    @classmethod
    def of(cls, steps: int | None) -> "Leg":
        """A whole training of so many steps, or of a number still to be measured."""
        return cls() if steps is None else cls(bends=((0, steps),))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Leg":
        """A leg out of plain values.

        Raises:
            TypeError: a key is unknown, or a value of another kind.
            ValueError: likewise.
        """
        leg = cls(**value)
        return replace(leg, bends=tuple((int(step), int(total)) for step, total in leg.bends))

    @property
    def total(self) -> int | None:
        """Number of its last step, counted from the first of the training; None until it is measured."""
        return self.bends[-1][1] if self.bends else None

    def bent(self, step: int, total: int) -> "Leg":
        """The same up to `step`; from there on, it ends with step `total`."""
        return replace(self, bends=(*self.bends, (step, total)))

    def progress(self, step: int, flat: int = 0) -> float:
        """Part of the training that is done after `step` steps: piecewise linear, 1 with the last one.

        p(s) = p₀ + (1 − p₀) (s − s₀) / (T − s₀) from each bend (s₀, T) on, with p₀ = p(s₀).

        Args:
            step: s, from the beginning of the leg on.
            flat: Steps after the beginning that do not count; a bend among them is where counting begins.
        """
        start, done = self.begin + flat, self.share
        if not self.bends:
            return done
        end = self.bends[0][1]
        for at, total in self.bends[1:]:
            if step <= at:
                break
            done, start, end = _between(start, done, end, at), at, total
        return _between(start, done, end, step)


def _between(start: int, done: float, end: int, step: int) -> float:
    """On the straight line from `done` at `start` to 1 at `end`."""
    return done + (1 - done) * min(1.0, max(0, step - start) / max(1, end - start))
