"""Wall-clock time of a training: what is spent, what a step takes now, when all of it will be over."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from skipway.legs import Leg
from skipway.training.schedule import VALIDATIONS, measured, steps_in, validations_left

SAVE_SECONDS = 30.0

LOOKS = 64
"""The forecast is looked at this often in a time budget."""

TOLERANCE = 0.03
"""Part of a budget by which the forecast may miss it before the number of steps changes."""

LARGE = 0.4
"""Part of a budget that validations and the final scores may take before it is said."""

WATCHING = 0.08
"""Part of a budget that all validations may take; there are fewer of them where it is short, but two."""

AIM = 0.98
"""Part of a budget that is planned for: what nobody foresaw takes time more often than it saves it."""

LEAST = 0.25
"""Part of the time left that goes into steps whatever else seems to be needed; later looks may think otherwise."""

SHRINK = 3
"""One look leaves at least this part of the steps that were left."""

_COLD = 3
"""First steps of a start, which warm caches up and are not measured."""

_WINDOW, _FEW = 1 / 32, 4
"""What a step takes is its mean over this part of the budget, but no fewer steps than this."""

_LOADS = (0.5, 4.0)
"""How much less or more time than when it was measured the final evaluation is taken to need."""

_AGAIN = (0.5, 0.85)
"""Progress at which the final evaluation is measured again: better weights find other objects."""


@dataclass(frozen=True)
class Reserve:
    """Seconds of what is no step.

    Attributes:
        validation: One validation during the training.
        final: The evaluation and the report after its end.
    """

    validation: float
    final: float

    def loaded(self, validation: float) -> "Reserve":
        """The same on a machine on which a validation now takes so long."""
        return Reserve(
            validation, self.final * _bounded(validation / self.validation if self.validation else 1)
        )


class Pace:
    """A clock that runs over all starts of a training, and the forecast of its end."""

    def __init__(
        self, before: float, budget: float | None = None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        """Start the clock.

        Args:
            before: Seconds that went before, over all starts.
            budget: Seconds that all of it may take; None where steps rule.
            now: Reads a clock, in seconds.
        """
        self.budget = budget
        self.steps = 0
        self.reserve: Reserve | None = None
        self._before, self._now = before, now
        self._began = self._last_save = self._last_look = now()
        self._paused = 0.0
        self._marks: deque[float] = deque()
        self._interval = SAVE_SECONDS
        self._reserved_at, self._cost = 0.0, 0.0
        self._mean, self._then, self._young = 0.0, 0.0, True

    @property
    def total(self) -> float:
        """Seconds so far, over all starts."""
        return self._before + self._now() - self._began

    @property
    def per_step(self) -> float:
        """Seconds a step, with what happens between steps but without pauses: the mean over the last ones."""
        return self._mean or self._working / max(1, self.steps)

    @property
    def known(self) -> bool:
        """Whether what is no step was measured in this start."""
        return self.reserve is not None

    @property
    def _working(self) -> float:
        return self._now() - self._began - self._paused

    def step(self) -> None:
        """Note that a step is done."""
        self.steps += 1
        if self.steps <= _COLD:
            self._marks.clear()
        marks, window = self._marks, SAVE_SECONDS if self.budget is None else self.budget * _WINDOW
        marks.append(self._working)
        while len(marks) > _FEW + 1 and marks[-1] - marks[1] > window:
            marks.popleft()
            self._young = False
        if len(marks) > (_FEW if self._mean else 1):
            self._mean = (marks[-1] - marks[0]) / (len(marks) - 1)
            self._then = self._mean if self._young or not self._then else self._then

    @contextmanager
    def validating(self) -> Iterator[None]:
        """A validation, whose time belongs to no step."""
        began = self._now()
        yield
        if self.reserve is not None:
            self.reserve = self.reserve.loaded(self._now() - began)
        self._paused_since(began)

    def reserving(self, measure: Callable[[], Reserve], leg: Leg, step: int) -> None:
        """Learn what a validation and the final evaluation take."""
        began = self._now()
        self.reserve = measure()
        self._cost, self._reserved_at = self._now() - began, leg.progress(step)
        self._paused_since(began)

    def _paused_since(self, began: float) -> None:
        """What a step takes is measured anew after a pause; the load is that of the first steps then."""
        self._paused += self._now() - began
        self._marks = deque([self._working])
        self._then, self._young = 0.0, True

    def looks(self, leg: Leg, step: int) -> bool:
        """Whether it is time to compare the forecast with the budget, or for the first time to say it."""
        if not self.known or leg.total is None:
            left = float("inf") if self.budget is None else self.budget - self.total
            waiting = leg.total is None and self.steps > _COLD + 2  # an earlier start has waited for this
            return measured(step - leg.begin if waiting else self.steps, self._working, left)
        return self.budget is not None and self._now() - self._last_look > self.budget / LOOKS

    def measures(self, leg: Leg, step: int) -> bool:
        """Whether the reserve is to be measured, for the first time or again."""
        if not self.known:
            return True
        cost, due = self._cost, any(self._reserved_at < share <= leg.progress(step) for share in _AGAIN)
        return due and self.budget is not None and cost < self.budget / LOOKS

    @property
    def validations(self) -> int | None:
        """As many as the budget affords; None for the usual number."""
        if self.budget is None or self.reserve is None or not self.reserve.validation:
            return None
        afforded = int(WATCHING * self.budget / self.reserve.validation)
        return None if afforded >= VALIDATIONS else max(2, afforded)

    def left(self, leg: Leg, step: int) -> float:
        """Seconds from now to the end of all, as the leg stands."""
        return max(0, (leg.total or step) - step) * self.per_step + self.kept(leg, step)

    def kept(self, leg: Leg, step: int) -> float:
        """Seconds for the validations to come and the final evaluation, if they slow down as steps do."""
        if self.reserve is None:
            return 0.0
        seconds = validations_left(step, leg) * self.reserve.validation + self.reserve.final
        return seconds * _bounded(self._mean / self._then if self._then else 1.0)

    def fitting(self, leg: Leg, step: int) -> int | None:
        """The number of steps that meets the budget; None where the leg as it stands does, nearly enough."""
        self._last_look = self._now()
        if self.budget is None:
            return None
        if leg.total is not None:
            off = self.total + self.left(leg, step) - AIM * self.budget
            if abs(off) <= TOLERANCE * self.budget:
                return None
        rest = AIM * self.budget - self.total
        left = rest - self.kept(leg, step)
        if leg.total is None:  # what is kept may be wrong as yet, and an end cannot be taken back
            return steps_in(step, max(left, LEAST * rest), self.per_step)
        wanted = steps_in(step, left, self.per_step)
        if self.total > self.budget:
            return wanted
        return max(wanted, step + (leg.total - step) // SHRINK)  # a moment's load must not end a training

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._now() - self._last_save > self._interval

    def saved(self, cost: float) -> None:
        """Saves take a twentieth of the time at most."""
        self._last_save = self._now()
        self._interval = max(SAVE_SECONDS, 20 * cost)


def _bounded(load: float) -> float:
    low, high = _LOADS
    return min(high, max(low, load))
