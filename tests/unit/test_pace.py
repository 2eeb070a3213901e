"""A time budget is met, whatever the machine does meanwhile; and the course that came of it can be repeated."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_training_loop import CPU, Fake, build, cross_entropy_dice, fit, plan
from toys import digest, one_thread

from skipway.legs import Leg
from skipway.runs import Run
from skipway.training.pace import Pace, Reserve
from skipway.training.schedule import VALIDATIONS, learning_rate, validates
from skipway.training.state import Progress


class Machine:
    """A clock that goes on only when something is done; all takes longer by the load of the moment."""

    def __init__(self, budget, loads):
        self.time, self.budget, self.loads = 0.0, budget, loads

    def __call__(self):
        return self.time

    def do(self, seconds):
        share = self.time / self.budget
        self.time += seconds * next(load for at, load in reversed(self.loads) if share >= at)


def simulated(budget, a_step, look, final, loads, noise=(1.0,)):
    """The clock's part of the loop: when it was over, what was said after the first steps, and the progress."""
    machine = Machine(budget, ((0.0, 1.0), *loads))
    pace, progress, said = Pace(0.0, budget, machine), Progress(), None
    for wobble in itertools.cycle(noise):
        if progress.total is not None and progress.step >= progress.total:
            break
        machine.do(a_step * wobble)
        progress.step += 1
        pace.step()
        leg = progress.here
        if pace.looks(leg, progress.step):
            if pace.measures(leg, progress.step):
                pace.reserving(lambda: measured(machine, look, final), leg, progress.step)
            if leg.total is None:
                leg = replace(leg, validations=pace.validations)
            total = pace.fitting(leg, progress.step)
            if total is not None:
                progress.bend(total, leg.validations)
            said = said or machine.time + pace.left(progress.here, progress.step)
        if validates(progress.step, progress.here):
            with pace.validating():
                machine.do(look)
    machine.do(final)
    return machine.time, said, progress


def measured(machine, look, final):
    """One of twenty images is looked at, and the cost of it scaled."""
    began = machine.time
    machine.do((look + final) / 20)
    taken = (machine.time - began) * 20
    return Reserve(taken * look / (look + final), taken * final / (look + final))


@given(
    budget=st.sampled_from((60.0, 600.0, 7200.0)),
    steps=st.integers(200, 2000),
    look=st.floats(0.0002, 0.015),
    final=st.floats(0.001, 0.2),
    at=st.floats(0.15, 0.8),
    load=st.sampled_from((0.5, 1.0, 2.0, 3.0)),
    seed=st.integers(0, 99),
)
@settings(max_examples=1500, deadline=None)
def test_the_finish_that_was_said_is_met_though_the_load_changes(budget, steps, look, final, at, load, seed):
    assume(max(load, 1.0) * (final + 4 * look) < 0.5 * (1 - at))  # else nothing could meet it
    torch.manual_seed(seed)
    noise = torch.empty(97).uniform_(0.7, 1.3).tolist()
    loads = ((at, load),)
    ended, said, progress = simulated(budget, budget / steps, budget * look, budget * final, loads, noise)
    assert abs(said - budget) < 0.1 * budget
    assert abs(ended - said) < 0.1 * budget
    assert abs(ended - budget) < 0.1 * budget
    assert progress.step == progress.total
    assert len(progress.here.bends) <= 64


def test_without_looking_again_the_same_load_would_miss_it(monkeypatch):
    loads = ((0.5, 3.0),)
    assert simulated(600.0, 0.5, 2.0, 20.0, loads)[0] < 660
    monkeypatch.setattr("skipway.training.pace.TOLERANCE", math.inf)
    assert simulated(600.0, 0.5, 2.0, 20.0, loads)[0] > 1000


def test_a_steady_machine_bends_nothing():
    _, _, progress = simulated(600.0, 0.5, 2.0, 20.0, ())
    assert len(progress.here.bends) == 1
    assert progress.here.bends[0][0] == 20


@pytest.mark.parametrize("share", [1.5, 0.97])
def test_a_budget_that_is_over_ends_after_a_step(share):
    machine = Machine(20.0, ((0.0, 1.0),))
    pace, progress = Pace(20.0 * share, 20.0, machine), Progress()
    machine.do(1.0)
    progress.step += 1
    pace.step()
    assert pace.looks(progress.here, 1)
    pace.reserving(lambda: Reserve(0.1, 1.0), progress.here, 1)
    assert pace.fitting(progress.here, 1) == 1


# The course.


BENDS = st.lists(st.tuples(st.integers(1, 60), st.integers(20, 400)), max_size=6)


@given(first=st.sampled_from((0, 20)), total=st.integers(60, 400), changes=BENDS)
@settings(deadline=None)
def test_rates_bend_without_a_jump_and_reach_zero_with_the_last_step(first, total, changes):
    leg = Leg(bends=((first, total),))
    for further, left in changes:
        if leg.bends[-1][0] + further < leg.total:
            step = leg.bends[-1][0] + further
            leg = leg.bent(step, step + left)
    chosen = plan(warmup=40, learning_rate=1.0)
    rates = [learning_rate(chosen, step, leg) for step in range(leg.total + 1)]
    assert rates[-1] == 0.0
    assert all(0 < rate <= 1 for rate in rates[:-1])
    shares = [leg.progress(step) for step in range(leg.total + 1)]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    least = min(
        b - a for (a, _), b in zip(leg.bends, [*(at for at, _ in leg.bends[1:]), leg.total], strict=True)
    )
    assert least > 0
    assert all(0 <= b - a <= 1 / min(20, total - 40) + 1e-12 for a, b in itertools.pairwise(shares))
    checked = [step for step in range(leg.total + 1) if validates(step, leg)]
    assert checked[-1] == leg.total
    assert len(checked) <= VALIDATIONS
    for number, step in enumerate(checked[:-1]):
        assert shares[step] >= shares[step - 1]
        assert int(VALIDATIONS * shares[step]) >= number + 1


def test_a_bend_changes_nothing_before_it():
    leg, chosen = Leg(bends=((20, 200),)), plan(warmup=40, learning_rate=1.0)
    bent = leg.bent(100, 150)
    assert [learning_rate(chosen, s, leg) for s in range(101)] == [
        learning_rate(chosen, s, bent) for s in range(101)
    ]
    assert bent.progress(125) == pytest.approx((leg.progress(100) + 1) / 2)


def test_a_leg_without_bends_is_half_a_cosine():
    chosen = plan(warmup=40, learning_rate=2e-3)
    for step in range(41, 2000, 7):
        wanted = 2e-3 * 0.5 * (1 + math.cos(math.pi * (step - 40) / (2000 - 40)))
        assert learning_rate(chosen, step, Leg.of(2000)) == pytest.approx(wanted, rel=1e-13)


def test_a_second_leg_goes_on_where_the_longer_cosine_stands():
    chosen, leg = plan(warmup=10, learning_rate=1.0), Leg(100, 0.5, ((100, 200),))
    assert learning_rate(chosen, 100, leg) == pytest.approx(0.1 * 0.5)
    assert learning_rate(chosen, 150, leg) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))
    assert learning_rate(chosen, 200, leg) == 0.0
    assert [step for step in range(100, 201) if validates(step, leg)] == [125, 150, 175, 200]


# The loop with a clock of its own.


class Slow(Fake):
    """Batches that take a second of a machine's time."""

    machine = None

    def validate(self, average):
        self.machine.do(2.0)
        return super().validate(average)


def slow_training(folder, loads, budget=120.0, stop_after=None):
    machine = Machine(budget, ((0.0, 1.0), *loads))
    fake = Slow(stop_after=stop_after)
    fake.machine = machine
    stream = fake.batches

    def batches(step, skipped):
        from contextlib import contextmanager

        @contextmanager
        def slowly():
            with stream(step, skipped) as made:
                yield (machine.do(1.0) or batch for batch in made)

        return slowly()

    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    chosen = plan(steps=None, seconds=budget, warmup=40)
    hooks = fake.hooks(batches=batches, reserved=lambda average: measured(machine, 2.0, 5.0))
    fit(
        chosen, build(chosen.model, **chosen.config), cross_entropy_dice, Run(folder), hooks, CPU, now=machine
    )
    return machine.time, fake


@pytest.mark.parametrize("load", [0.5, 3.0])
def test_the_loop_meets_its_time_and_its_plan_repeats_it_to_the_bit(tmp_path, load):
    one_thread()
    ended, fake = slow_training(tmp_path / "run", ((0.5, load),))
    assert abs(ended + 5.0 * load - 120.0) < 12.0
    first, *later = fake.told("planned")
    assert later
    assert first["left"] == pytest.approx(106, abs=4)
    written = Run(tmp_path / "run").read("plan")
    assert written["steps"] == fake.steps[-1] == later[-1]["total"]
    from skipway.plan import Plan

    again = Fake()
    (tmp_path / "again").mkdir()
    torch.manual_seed(0)
    repeated = Plan.from_json({**written, "seconds": None})
    fit(
        repeated,
        build(repeated.model, **repeated.config),
        cross_entropy_dice,
        Run(tmp_path / "again"),
        again.hooks(),
        CPU,
    )
    assert [event["lr"] for event in again.told("step")] == [event["lr"] for event in fake.told("step")]
    assert digest(tmp_path / "again") == digest(tmp_path / "run")
