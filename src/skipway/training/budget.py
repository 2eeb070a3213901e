"""Choosing batch, patch, width and micro-batch so that a training fits the memory and the time it is given.

Nothing here knows a clock or an allocator: what a plan costs is asked of `cost`, which measures it on real steps.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from skipway.memory import said
from skipway.plan import Plan, geometry_of

ENOUGH = 2000
"""Steps that a training keeps when it grows into a large time budget."""

PLENTY = 6000
"""Steps above which a larger network, batch or patch is worth more than more steps."""

NARROWEST, FEWEST_PATCHES, MOST_PATCHES = 8, 2, 32
"""Features at the finest level, and patches a step, that shrinking leaves and growing reaches at most."""

LEAST_SHARE = 0.25
"""Share of the time that goes into steps whatever is to be predicted afterwards."""

SEVERAL = 4
"""Patches a step that are given up last: batch norm over two images learns statistics that fit neither."""

SMALLEST, LARGEST = {2: 64, 3: 16}, {2: 512, 3: 256}
"""Side of a patch, by axes, that shrinking leaves and growing reaches."""

SHRINKING = (3 / 4, 2 / 3)
"""What the sides of a patch are cut to, one after the other: 256, 192, 128."""

SAFE = 256**2
"""Pixels of a patch that is measured at once where time counts; others come after one of half their sides."""

CLOSE = 1.25
"""Times of two precisions within this factor of each other count as equal: other programs differ as much."""


@dataclass(frozen=True)
class Cost:
    """What one step of a plan takes.

    Attributes:
        seconds: From one step to the next.
        bytes: Most that is held during the step; infinite where memory ran out.
        kept: What of it stays between the steps: weights, optimiser, the program itself.
    """

    seconds: float
    bytes: float
    kept: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What a training is given.

    Attributes:
        bytes: Most memory during a step; None where nobody knows.
        seconds: Time for all steps and what follows them; None where their number is settled.
        looked: Pixels that are predicted after the steps, about as long a pixel as a step takes for one of its own.
        least: Steps without which there is little to learn from.
        width: Features at the finest level that growing reaches.
        image: Size of the median image per axis, beyond which a patch holds nothing new.
        precisions: Those to choose from by time.
    """

    bytes: float | None = None
    seconds: float | None = None
    looked: float = 0.0
    least: int = 400
    width: int = 64
    image: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """A plan that fits, and what it costs.

    Attributes:
        plan: With its micro-batch, and a reason for all that was changed.
        cost: Of one of its steps.
    """

    plan: Plan
    cost: Cost


class TooLarge(Exception):
    """No plan fits the memory; carries the least that would do.

    Attributes:
        least: Bytes that the smallest plan takes.
        smallest: That plan.
    """

    def __init__(self, least: float, smallest: Plan) -> None:
        super().__init__(f"at least {least:.0f} bytes")
        self.least, self.smallest = least, smallest


Costs = Callable[[Plan], Cost]
"""Seconds and bytes of one step of a plan; its micro-batch is measured, the others of a step follow from it."""


def fitted(plan: Plan, named: frozenset[str], limits: Limits, cost: Costs) -> Fitted:
    """The plan, changed as little as fits the limits.

    Memory comes first: the largest micro-batch that fits, else a smaller patch, else a narrower network. Then time:
    the faster precision; while fewer than `limits.least` steps would fit, `SEVERAL` patches, twice as many of half
    the sides (images only), `SEVERAL` again, a smaller patch, a narrower network, two patches, in this order, and of
    all these the one that is worth most; while more than `PLENTY` would, a wider network, more patches, a larger
    patch, in turns, as long as `ENOUGH` remain.

    Args:
        plan: What the rules chose.
        named: Which of "batch", "patch", "width" and "precision" the user has named; they are left alone.
        limits: Memory and time.
        cost: Asked of every plan that is considered, of small ones before large ones.

    Raises:
        TooLarge: one patch of the smallest plan exceeds the memory.
    """
    found = _into_memory(plan, named, limits, cost)
    if limits.seconds is not None:
        found = _faster(found, named, limits, cost)
        found = _shrunk(found, named, limits, cost)
        found = _grown(found, named, limits, cost)
    return Fitted(replace(found.plan, reasons={**plan.reasons, **_reasons(plan, found, limits)}), found.cost)


def steps_of(found: Fitted, limits: Limits) -> float:
    """Steps that the time allows; infinite where their number is settled."""
    if limits.seconds is None:
        return math.inf
    after = limits.looked / (found.plan.batch * math.prod(found.plan.patch)) * found.cost.seconds
    return max(limits.seconds - after, LEAST_SHARE * limits.seconds) / found.cost.seconds


def _into_memory(plan: Plan, named: frozenset[str], limits: Limits, cost: Costs) -> Fitted:
    tried, least = plan, math.inf
    for tried in (plan, *_smaller(plan, named, ("patch", "width"))):
        found, needed = _settled(tried, limits, cost, hurry=True)
        if found is not None:
            return found
        least = min(least, needed)
    raise TooLarge(least, tried)


def _settled(plan: Plan, limits: Limits, cost: Costs, *, hurry: bool = False) -> tuple[Fitted | None, float]:
    """A plan with the largest micro-batch that fits, found from one patch on by doubling; and what one patch takes.

    What a step holds beyond what stays grows with its patches, so the next one is measured only where twice that fits
    too; a large patch is preceded by a small one in the same way. So measuring keeps to the limit itself. In a hurry, a
    plan that is far too slow for the time is left as soon as that shows.
    """
    most = sys.float_info.max if limits.bytes is None else limits.bytes
    safe = limits.seconds is not None and math.prod(plan.patch) <= SAFE
    probe = None if safe else _scaled(plan, 1 / 2)
    if probe is not None:
        small = cost(replace(probe, micro=1))
        needed = small.kept + (small.bytes - small.kept) * math.prod(plan.patch) / math.prod(probe.patch)
        if needed > most:
            return None, needed
    micro, found = 1, None
    needed = 0.0
    while True:
        here = cost(replace(plan, micro=micro))
        needed = needed or here.bytes
        if here.bytes > most:
            break
        found = Fitted(replace(plan, micro=None if micro == plan.batch else micro), here)
        if micro == plan.batch or 2 * here.bytes - here.kept > most:
            break
        if hurry and steps_of(found, limits) < limits.least / 4:
            break
        micro = min(2 * micro, plan.batch)
    return found, needed


def _faster(found: Fitted, named: frozenset[str], limits: Limits, cost: Costs) -> Fitted:
    """The precision that takes less time on this machine; the planned one where they are alike."""
    one = replace(found.plan, micro=1)
    others = [p for p in limits.precisions if p != one.precision and "precision" not in named]
    for precision in others:
        other = replace(one, precision=precision)
        if CLOSE * cost(other).seconds < cost(one).seconds:
            found = _settled(other, limits, cost)[0] or found
    return found


def work(plan: Plan, patches: int = 1) -> float:
    """What the arithmetic of so many patches grows with: pixels, and a power of the width found on CPUs."""
    return float(patches * math.prod(plan.patch) * plan.config.get("width", 1) ** 1.5)


def worth(found: Fitted, limits: Limits) -> float:
    """What a plan teaches in the time, to compare plans that have too few steps: s · √w for s steps of work w.

    Where a step takes c + k · w seconds, this is largest at k · w = c. So a plan shrinks while its arithmetic takes
    most of a step, and not when little but overhead is left, or the load of other programs.
    """
    return min(steps_of(found, limits), limits.least) * math.sqrt(work(found.plan, found.plan.batch))


def _shrunk(found: Fitted, named: frozenset[str], limits: Limits, cost: Costs) -> Fitted:
    """The plan worth most of this one and ever smaller ones, up to the first that has steps enough."""
    tries = [found]
    for smaller in _smaller(found.plan, named, ("several", "halves", "several", "patch", "width", "two")):
        if steps_of(tries[-1], limits) >= limits.least:
            break
        tried, _ = _settled(smaller, limits, cost, hurry=True)
        tries += [tried] if tried is not None else []
    best = max(tries, key=lambda tried: worth(tried, limits))
    return _settled(best.plan, limits, cost)[0] or best


def _grown(found: Fitted, named: frozenset[str], limits: Limits, cost: Costs) -> Fitted:
    """The plan after growing in turns for as long as steps abound."""
    free = [name for name in ("width", "batch", "patch") if name not in named]
    while free and steps_of(found, limits) > PLENTY:
        name = free.pop(0)
        larger = _larger(found.plan, name, limits)
        tried = None if larger is None else _settled(larger, limits, cost)[0]
        if tried is not None and tried.plan.micro is None and steps_of(tried, limits) >= ENOUGH:
            found = tried
            free.append(name)  # again, after the others had their turn
    return found


def _smaller(plan: Plan, named: frozenset[str], order: tuple[str, ...]) -> Iterator[Plan]:
    """Ever smaller plans, each change on top of those before."""
    for name in order:
        if name in ("several", "two") and "batch" not in named:
            least = SEVERAL if name == "several" else FEWEST_PATCHES
            while plan.batch > least:
                plan = replace(plan, batch=max(least, plan.batch // 2), micro=None)
                yield plan
        elif name == "halves" and plan.ndim == 2 and not named & {"batch", "patch"}:
            if (cut := _scaled(plan, 1 / 2)) is not None:
                plan = replace(cut, batch=min(2 * plan.batch, MOST_PATCHES))
                yield plan
        elif name == "patch" and name not in named:
            for factor in SHRINKING:
                if (cut := _scaled(plan, factor)) is not None:
                    plan = cut
                    yield plan
        elif name == "width" and name not in named:
            while (width := plan.config.get("width", 0)) >= 2 * NARROWEST:
                plan = replace(plan, config={**plan.config, "width": width // 2}, micro=None)
                yield plan


def _larger(plan: Plan, name: str, limits: Limits) -> Plan | None:
    """The plan with one of its numbers raised; None where that has reached its end."""
    if name == "width":
        width = plan.config.get("width", limits.width)
        wider = {**plan.config, "width": min(2 * width, limits.width)}
        return replace(plan, config=wider) if width < limits.width else None
    if name == "batch":
        return replace(plan, batch=2 * plan.batch) if 2 * plan.batch <= MOST_PATCHES else None
    return _scaled(plan, 4 / 3, limits.image)


def _scaled(plan: Plan, factor: float, image: tuple[int, ...] = ()) -> Plan | None:
    """The plan with a patch of other sides that its network takes; None where they would be the same."""
    shape = geometry_of(plan.model, plan.config)
    if factor < 1:
        wanted = [max(round(n * factor), min(n, SMALLEST[plan.ndim])) for n in plan.patch]
    else:
        ends = [
            min(n + 2 * m, LARGEST[plan.ndim]) for n, m in zip(image or plan.patch, shape.margin, strict=True)
        ]
        wanted = [max(n, min(round(n * factor), end)) for n, end in zip(plan.patch, ends, strict=True)]
    patch = shape.next_legal(wanted)
    changed = math.prod(patch) < math.prod(plan.patch) if factor < 1 else patch != plan.patch
    return replace(plan, patch=patch, micro=None) if changed else None


def _reasons(before: Plan, found: Fitted, limits: Limits) -> Mapping[str, str]:
    """Why each number is not what the rules said."""
    after = found.plan
    numbers = {
        "width": (before.config.get("width"), after.config.get("width")),
        "batch": (before.batch, after.batch),
        "patch": ("×".join(map(str, before.patch)), "×".join(map(str, after.patch))),
        "precision": (before.precision, after.precision),
    }
    changed = {name: pair for name, pair in numbers.items() if pair[0] != pair[1]}
    steps = steps_of(found, limits)
    why = "to fit the memory" if limits.seconds is None else f"for about {steps:.0f} steps in the time"
    lines = {name: f"{then} by rule, {now} {why}" for name, (then, now) in changed.items()}
    if "precision" in lines:
        lines["precision"] = f"{after.precision} takes less time here than {before.precision}"
    if after.micro is not None:
        lines["micro"] = f"{after.micro} of {after.batch} patches at once, since all exceed the memory"
    return lines


def described_fit(plan: Plan, *, on_gpu: bool) -> dict[str, str]:
    """Lines about what was measured, and what was changed for it."""
    lines = {}
    if size := plan.measured.get("bytes"):
        flag, limit = "--vram" if on_gpu else "--ram", plan.measured.get("limit")
        room = f" of {said(limit)}" if limit else ""
        lines["memory"] = f"about {said(size)}{room}, measured on a step [{flag}]"
    changed = [f"{name} {why}" for name, why in plan.reasons.items() if name not in ("steps", "depth")]
    if changed:
        lines["fitted"] = "; ".join(changed)
    return lines
