"""The self-test: whether a training can come to anything, found out in its first minute and said in plain words.

It looks at what the check of the files cannot see: what a network makes of these data by this plan. The network that
it trains is thrown away and every random state is put back, so the training that follows is the same to the bit.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from skipway.data.suspicions import Suspicion
from skipway.errors import DataError, NumericalError, Problem
from skipway.images import shown
from skipway.metrics.pixel import mean_defined
from skipway.runs import Run
from skipway.training import overfit
from skipway.training.dataset import TrainingSet, read_image
from skipway.training.prepare import Prepared
from skipway.training.session import first_weights
from skipway.training.state import undisturbed
from skipway.training.trivial import one_everywhere, predicted_by, simplest

FILE = "selftest"

LONGEST, SHARE = 60.0, 0.05
"""Seconds and share of a time budget that it takes at most."""

BY_STEPS = (6.0, 20.0)
"""Seconds for the planned rate at least, and for all at most, where steps are given; `SHARE` of the length between."""

FOR_LEARNING = 0.7
"""Share of its time that one batch gets."""

SHORT = 100
"""Steps below which nothing is learnt in advance: the training itself says as much in as many steps."""

MISPLACED = ("B03", "E03", "E38")
"""Codes of the check that say that masks do not belong to their images as they are."""

FLAT, AWAY = 0.03, 3.0
"""Spread of normalised values below which all but one in a thousand is the same, and mean far from all others."""

IMAGES = 12
"""Images that are looked at for values, and others for what a network must beat; fewer where time runs out."""

T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """What the self-test found.

    Attributes:
        lines: For people: name and text.
        warnings: What speaks against the training, and what to type.
        figures: The numbers behind it.
    """

    lines: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return {"lines": dict(self.lines), "warnings": list(self.warnings), "figures": dict(self.figures)}

    @classmethod
    def read(cls, run: Run) -> "Verdict":
        """That of a run; an empty one where it had none."""
        if not (run.path / f"{FILE}.json").is_file():
            return cls({})
        found = run.read(FILE)
        return cls(found["lines"], tuple(found["warnings"]), found["figures"])


def skipped() -> Verdict:
    """The verdict of a training that nobody wanted tested."""
    return Verdict({"self-test": "left out, as asked: whether these data can be learnt is not known"})


def self_test(
    prepared: Prepared, device: torch.device, seconds: float | None = None, odd: Sequence[Suspicion] = ()
) -> Verdict:
    """Test a new training before its first step.

    Args:
        prepared: Data and plan.
        device: Where it will run.
        seconds: How long the test may take, about; None for what the plan allows.
        odd: What the check found odd; nothing of it is looked at again.

    Returns:
        The verdict; suspicions are warnings.

    Raises:
        DataError: the training masks hold one class only, or an image cannot be read any more.
        NumericalError: the first step has a gradient that is not finite.
    """
    began = time.perf_counter()
    plan = prepared.plan
    _refuse_one_class(prepared)
    if seconds is None:
        seconds = min(LONGEST, SHARE * plan.seconds) if plan.seconds is not None else BY_STEPS[1]
    too_short = plan.steps is not None and plan.steps < SHORT
    learnt = Verdict({"learnt": f"a training of {plan.steps} steps is too short to try one batch first"})
    with undisturbed():
        if not too_short:
            learning = _Learning(prepared, device)
            began += learning.warm()
            learnt = learning.verdict(began + FOR_LEARNING * seconds)
        told = {name for one in odd for name in one.names}
        strange = list(_strange_values(prepared, told, began + 0.8 * seconds))
        beat, figures = _to_beat(prepared, began + seconds)
    warnings = (*_misplaced(odd), *_unseen(prepared), *strange, *learnt.warnings)
    spent = time.perf_counter() - began
    done = learnt.figures.get("done", False)
    head = "in doubt" if warnings else "passed" if done else "undecided"
    lines = {"self-test": f"{head} after {spent:.0f} s: {learnt.lines['learnt']}", "to beat": beat}
    return Verdict(lines, warnings, {"seconds": round(spent, 2), **learnt.figures, **figures})


class _Learning:
    """Tries to learn one batch, and says what came of it."""

    def __init__(self, prepared: Prepared, device: torch.device) -> None:
        self._plan, self._labels = prepared.plan, prepared.labels
        self._device = device
        self._loss = prepared.loss
        torch.manual_seed(self._plan.seed)
        self._model = first_weights(self._plan)
        samples = TrainingSet(
            prepared.split.train_pairs,
            prepared.task,
            prepared.normalisation,
            weighted=self._plan.weighted,
            ndim=self._plan.ndim,
        )
        self._batch = overfit.one_batch(samples, self._plan, self._model, self._labels.unknown)
        self._names = sorted({samples.name(index) for index in self._batch.indices})

    def warm(self) -> float:
        """Make the first step, which loads what the training needs anyway, in so many seconds.

        Raises:
            NumericalError: it has a gradient that is not finite.
        """
        began = time.perf_counter()
        first = self._attempt(self._plan.learning_rate, _never, 0.0)
        if not first.finite:
            raise NumericalError(self._not_finite(first))
        return time.perf_counter() - began

    def verdict(self, until: float) -> Verdict:
        """What one batch says, until about that time (`time.perf_counter`)."""
        target = self._batch.target
        constant = overfit.constant_loss(self._batch, self._loss, int(self._plan.config["classes"]))
        first = min((time.perf_counter() + until) / 2, self._allowed())
        planned = self._attempt(self._plan.learning_rate, overfit.by_heart(constant), first)
        enough = overfit.decided(planned, constant)

        def lower(rate: float) -> overfit.Attempt | None:
            return self._attempt(rate, enough, until) if time.perf_counter() < until else None

        learns = overfit.too_high(planned, constant, lower)
        simple = overfit.constant_dice(target, self._labels)
        warnings = [*self._rate(planned, learns), *self._dead(planned)]
        if not warnings and planned.stuck(constant):
            warnings.append(
                f"one batch is not learnt in {len(planned.losses)} steps (loss {planned.losses[0]:.3g} → "
                f"{planned.end:.3g}, a constant has {constant:.3g}): a higher --lr, or look at "
                f"{', '.join(map(shown, self._names))} with `skipway check --html`"
            )
        figures = {
            "done": planned.learnt(constant)
            or (len(planned.losses) == overfit.STEPS and planned.end < constant),
            "images": self._names,
            "rate": planned.rate,
            "losses": [round(value, 6) for value in planned.losses],
            "constant_loss": constant,
            "agreement": planned.agreement,
            "constant_agreement": simple,
            "lower_rate": None if learns is None else learns.rate,
        }
        return Verdict({"learnt": _in_words(planned, constant, simple)}, tuple(warnings), figures)

    def _allowed(self) -> float:
        """Until when the planned rate is tried where steps are given, by the time of one step."""
        if self._plan.steps is None:
            return math.inf
        began = time.perf_counter()
        self._attempt(self._plan.learning_rate, _never, 0.0)
        took = time.perf_counter() - began
        larger = self._plan.batch * math.prod(self._plan.patch) / self._batch.image[:, 0].numel()
        return began + max(BY_STEPS[0], SHARE * self._plan.steps * took * larger)

    def _attempt(
        self, rate: float, enough: Callable[[Sequence[float]], bool], until: float
    ) -> overfit.Attempt:
        def build() -> Any:
            torch.manual_seed(self._plan.seed)
            return copy.deepcopy(self._model)

        def judge(logits: torch.Tensor, target: torch.Tensor) -> float | None:
            return overfit.dice(logits, target, self._labels)

        return overfit.attempt(
            self._plan,
            build,
            self._loss,
            self._batch,
            self._device,
            rate=rate,
            judge=judge,
            enough=enough,
            until=until,
        )

    def _rate(self, planned: overfit.Attempt, learns: overfit.Attempt | None) -> Iterator[str]:
        if learns is not None:
            ended = planned.after(len(learns.losses))
            there = "no number" if math.isinf(ended) else f"{ended:.3g}"
            steps = f"{len(learns.losses)} steps of one batch end at a loss of {there} and {learns.end:.3g}"
            rates = f"--lr {planned.rate:g} is planned, {learns.rate:g} learns"
            yield f"the learning rate is too high: {rates} ({steps}): try --lr {learns.rate:g}, or leave --lr out"
        elif not planned.finite:
            yield (
                f"one batch makes loss or gradient no number after {len(planned.losses)} steps: try a lower --lr "
                f"than {planned.rate:g}"
            )

    def _dead(self, planned: overfit.Attempt) -> Iterator[str]:
        unasked = self._plan.supervision != "last"  # which leaves the other heads without any
        if planned.dead and unasked and len(planned.losses) >= overfit.FEWEST:
            yield f"no gradient reaches {_some(planned.dead)}: these never learn"

    def _not_finite(self, first: overfit.Attempt) -> Problem:
        names = f"the gradient of {_some(first.broken)}" if first.broken else "the loss"
        return Problem(
            f"{names} is not finite in the very first step",
            ", ".join(map(shown, self._names)),
            "finite numbers",
            "look at those images with `skipway check --html`, or another --loss",
            "X21",
        )


def _never(losses: Sequence[float]) -> bool:
    return False


def _in_words(planned: overfit.Attempt, constant: float, simple: float) -> str:
    if not planned.finite:
        return f"loss or gradient of one batch is no number after {len(planned.losses)} steps"
    course = f"loss {planned.losses[0]:.3g} → {planned.end:.3g}"
    reached = "n/a" if planned.agreement is None else f"{planned.agreement:.2f}"
    count = len(planned.losses)
    steps = f"{count} step{'s' if count > 1 else ''}"
    known = f"{course}, Dice {reached}; a constant has {constant:.3g} and {simple:.2f}"
    if planned.learnt(constant):
        return f"one batch learnt in {steps} ({known})"
    if len(planned.losses) < overfit.FEWEST:
        return f"{steps} of one batch {'are' if count > 1 else 'is'} too few to tell ({known})"
    return f"one batch not learnt yet in {steps} ({known})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _refuse_one_class(prepared: Prepared) -> None:
    """Refuse training masks from which nothing can be learnt.

    Raises:
        DataError: one class is all that they hold.
    """
    labels, shares = prepared.labels, prepared.fingerprint.class_shares
    if any(0 < share < 1 for share in shares):
        return
    held = " and ".join(name for name, share in zip(labels.names, shares, strict=True) if share > 0)
    names = _some([shown(name) for name in prepared.split.train])
    found = f"{len(prepared.split.train)} masks of nothing but {held or 'pixels without class'} among those that train"
    fix = "divide the images otherwise with --val, or check that these are the masks"
    raise DataError(Problem(found, names, "two classes at least", fix, "E20"))


def _misplaced(odd: Sequence[Suspicion]) -> Iterator[str]:
    """One line for all that the check said of masks that do not lie right; it named them before."""
    told = [one for one in odd if one.code in MISPLACED]
    if told:
        names = list(dict.fromkeys(name for one in told for name in one.names))
        of = f" ({_some([shown(name) for name in names])})" if names else ""
        codes = ", ".join(dict.fromkeys(one.code for one in told))
        yield f"what is wrong in masks is learnt{of}: mend first what the warnings of the check say ({codes})"


def _unseen(prepared: Prepared) -> Iterator[str]:
    """Classes that so few images hold that this training will hardly draw one of them."""
    plan, data = prepared.plan, prepared.fingerprint
    if plan.steps is None:
        return
    for name, present in zip(prepared.labels.names, data.present, strict=True):
        drawn = plan.steps * plan.batch
        if present and drawn * present / data.n < 1:
            yield (
                f"{name} is in {present} of {data.n} images that train, and {drawn} patches are drawn: probably none "
                "shows it; give it more --steps"
            )


def _strange_values(prepared: Prepared, told: set[str], until: float) -> Iterator[str]:
    """Images that are nothing, or far from the others, once they are normalised."""
    flat, away = [], []
    for volume in _some_of(prepared.train_volumes):
        if time.perf_counter() > until:
            break
        image = read_image(volume, prepared.plan.ndim, prepared.normalisation)
        if volume.name not in told and float(image.std()) < FLAT:
            flat.append(shown(volume.name))
        if not abs(float(image.mean())) < AWAY:
            away.append(shown(volume.name))
    if flat:
        yield f"next to one value everywhere once normalised: {_some(flat)}; look for single bright or dark pixels"
    if away:
        yield f"far from the range of the others once normalised: {_some(away)}"


def _to_beat(prepared: Prepared, until: float) -> tuple[str, Mapping[str, Any]]:
    """What a network must beat on some of the validation images, in words and numbers."""
    task = prepared.task
    rules = list({rule.name: rule for rule in (simplest(prepared), one_everywhere(prepared))}.values())
    found: list[list[float | None]] = []
    for pair in _some_of(prepared.split.val_pairs):
        masks = [mask for rule in rules for mask in predicted_by(prepared, [pair], rule)]
        found.append([task.score(seen, truth) for _, truth, seen in masks])
        if time.perf_counter() > until:
            break
    means = [mean_defined(column)[0] for column in zip(*found, strict=True)]
    said = "; ".join(
        f"{'n/a' if mean is None else f'{mean:.3f}'} by {rule.short}"
        for rule, mean in zip(rules, means, strict=True)
    )
    images = f"{len(found)} validation image{'s' if len(found) > 1 else ''}"
    figures = {rule.name: mean for rule, mean in zip(rules, means, strict=True)}
    return f"{said} ({task.score_name}, {images})", {"to_beat": figures}


def _some_of(items: Sequence[T]) -> Sequence[T]:
    """At most `IMAGES` of them, evenly spaced."""
    count = min(len(items), IMAGES)
    return [items[(2 * k + 1) * len(items) // (2 * count)] for k in range(count)]
