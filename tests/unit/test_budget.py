"""Choosing by what a plan costs, with a cost that is arithmetic: seconds and bytes grow with pixels and width."""

from dataclasses import replace

import pytest

from skipway.data.fingerprint import Fingerprint
from skipway.data.labels import LabelMap
from skipway.plan import make_plan
from skipway.request import Request
from skipway.training.budget import ENOUGH, PLENTY, Cost, Fitted, Limits, TooLarge, fitted, steps_of

OBJECTS = LabelMap("objects", (0, 1), ("background", "object"), ids=True)
ALL = frozenset({"batch", "patch", "width", "precision"})
IMAGE = (512, 512)
FIXED = 1000.0
"""Bytes that are held between the steps."""


def plan(**asked):
    shares = {"class_shares": (0.8, 0.2), "objects": 9, "diameter": 9.0, "touching": 0.0}
    values = {"low": 0.0, "high": 255.0, "mean": 90.0, "channels": 1, "dtype": "uint8"}
    sizes = dict.fromkeys(("smallest", "median", "largest"), IMAGE)
    data = Fingerprint(n=10, **sizes, **shares, **values)
    return make_plan(Request(**{"seconds": 100.0, **asked}), data, OBJECTS, on_cpu=True, fast_bf16=False)


class Machine:
    """Costs by arithmetic: a patch of 256² at width 16 takes `second` seconds and 100 bytes."""

    def __init__(self, second=0.01, *, bf16=1.0):
        self.second, self.bf16 = second, bf16
        self.seen = []

    def work(self, of):
        return of.patch[0] * of.patch[1] / 256**2 * of.config["width"] / 16

    def cost(self, of):
        micro = of.micro or of.batch
        slower = self.bf16 if of.precision == "bf16" else 1.0
        found = Cost(
            self.second * of.batch * self.work(of) * slower, FIXED + 100 * micro * self.work(of), FIXED
        )
        self.seen.append((of, found))
        return found

    def fit(self, planned, named=frozenset(), **limits):
        return fitted(planned, frozenset(named), Limits(image=IMAGE, **limits), self.cost)


def test_what_fits_is_left_as_the_rules_chose_it():
    found = Machine().fit(plan(), bytes=1400.0, seconds=0.04 * 1000)
    assert found.plan == plan()
    assert (found.cost.bytes, found.cost.seconds) == (1400.0, 0.04)


def test_the_largest_micro_batch_that_fits_and_the_batch_stays():
    planned = plan(batch=16)
    for room, micro in ((1100, 1), (1200, 2), (1399, 2), (1400, 4), (2000, 8), (2600, None)):
        machine = Machine()
        found = machine.fit(planned, {"batch"}, bytes=room).plan
        assert (found.micro, found.batch) == (micro, 16), room
        assert max(cost.bytes for _, cost in machine.seen) <= room, "measuring itself exceeded the limit"
        assert ("micro" in found.reasons) == (micro is not None)
    assert found.reasons == planned.reasons


def test_a_patch_that_does_not_fit_shrinks_before_the_network_does():
    machine = Machine()
    found = machine.fit(plan(), bytes=1060.0).plan
    assert (found.patch, found.config["width"], found.batch, found.micro) == ((192, 192), 16, 4, 1)
    assert found.reasons["patch"] == "256×256 by rule, 192×192 to fit the memory"
    assert max(cost.bytes for _, cost in machine.seen) <= 1060
    narrow = machine.fit(plan(), {"patch"}, bytes=1060.0).plan
    assert (narrow.patch, narrow.config["width"], narrow.micro) == ((256, 256), 8, 1)


def test_what_cannot_fit_says_what_would():
    with pytest.raises(TooLarge) as caught:
        Machine().fit(plan(), {"patch", "width"}, bytes=1050.0)
    assert caught.value.least == pytest.approx(1100)
    with pytest.raises(TooLarge) as caught:
        Machine().fit(plan(), bytes=900.0)
    smallest = caught.value.smallest
    assert (smallest.config["width"], smallest.patch) == (8, (128, 128))
    assert caught.value.least == pytest.approx(1000 + 100 * (128 / 256) ** 2 / 2)


def test_memory_that_runs_out_while_measuring_counts_as_too_large():
    planned = plan(batch=8)

    def cost(of):
        return Cost(float("inf"), float("inf")) if of.micro > 2 else Machine().cost(of)

    assert fitted(planned, ALL, Limits(image=IMAGE), cost).plan.micro == 2


def test_slow_steps_get_more_and_smaller_patches_then_fewer_then_a_narrower_network():
    # A step of 4 patches of 256² takes 4 s. Half of the work is worth it below 400 / √2 steps: 1131 s.
    for seconds, batch, side, width in (
        (1600, 4, 256, 16),
        (1140, 4, 256, 16),
        (1120, 8, 128, 16),
        (560, 4, 128, 16),
        (280, 4, 96, 16),
        (140, 4, 64, 16),
        (49, 4, 64, 8),
        (30, 2, 64, 8),
        (10, 2, 64, 8),  # never enough: the least there is
    ):
        found = Machine(1.0).fit(plan(), seconds=seconds).plan
        assert (found.batch, found.patch, found.config["width"]) == (batch, (side, side), width), seconds
    assert "4 by rule, 2 for about" in found.reasons["batch"]
    assert found.micro is None


def test_many_patches_become_several_before_they_become_smaller():
    for seconds, batch, side in ((4540, 16, 256), (4510, 8, 256), (2250, 4, 256), (1120, 8, 128)):
        found = Machine(1.0).fit(plan(batch=16), seconds=seconds).plan
        assert (found.batch, found.patch) == (batch, (side, side)), seconds


def test_what_the_user_named_is_never_changed():
    for seconds in (10, 10_000_000):
        assert Machine(1.0).fit(plan(), ALL, seconds=seconds).plan == plan()
    found = Machine(1.0).fit(plan(), {"batch", "width"}, seconds=10).plan
    assert (found.batch, found.config["width"], found.patch) == (4, 16, (128, 128))


def test_fewer_steps_suffice_where_the_budget_is_short():
    found = Machine(1.0).fit(plan(), seconds=600, least=150).plan
    assert found.batch == 4


def test_a_large_budget_goes_into_width_then_patches_and_keeps_steps_enough():
    before = 0.0
    for seconds in (200, 239, 241, 500, 1000, 3000, 10_000, 100_000):
        machine = Machine()
        limits = Limits(image=IMAGE, seconds=seconds)
        found = fitted(plan(), frozenset(), limits, machine.cost)
        assert steps_of(found, limits) >= ENOUGH
        size = found.plan.batch * machine.work(found.plan)
        assert size >= before, "more time must never make a training smaller"
        before = size
        assert found.plan.config["width"] <= 64
        assert max(found.plan.patch) <= 512
        ends = (found.plan.config["width"], found.plan.batch, found.plan.patch) == (64, 32, (512, 512))
        assert steps_of(found, limits) <= PLENTY or ends
    assert ends
    first = Machine().fit(plan(), seconds=241).plan
    assert (first.config["width"], first.batch, first.patch) == (32, 4, (256, 256))


def test_growing_stops_where_memory_does():
    found = Machine().fit(plan(), seconds=100_000, bytes=1850.0)
    assert found.cost.bytes <= 1850
    assert found.plan.micro is None
    assert found.plan.config["width"] == 32


def test_the_faster_precision_wins_and_a_tie_stays_as_planned():
    both = {"precisions": ("fp32", "bf16")}
    for factor, chosen in ((0.5, "bf16"), (0.97, "fp32"), (2.0, "fp32")):
        found = Machine(bf16=factor).fit(plan(), ALL - {"precision"}, seconds=40.0, **both).plan
        assert found.precision == chosen
    planned = replace(plan(), precision="bf16")
    for factor, chosen in ((0.5, "bf16"), (1.03, "bf16"), (2.0, "fp32")):
        found = Machine(bf16=factor).fit(planned, ALL - {"precision"}, seconds=40.0, **both).plan
        assert found.precision == chosen
    assert found.reasons["precision"] == "fp32 takes less time here than bf16"
    assert Machine(bf16=9.0).fit(planned, ALL, seconds=40.0, **both).plan.precision == "bf16"
    assert Machine(bf16=9.0).fit(planned).plan.precision == "bf16", (
        "without a time nothing depends on a clock"
    )


def test_where_smaller_is_hardly_faster_the_plan_is_not_thrown_away():
    """On a busy machine a step costs the same whatever is in it."""

    def cost(of):
        return Cost(1.0 + 0.01 * of.batch * Machine().work(of), 0.0)

    limits = Limits(image=IMAGE, seconds=50.0)
    assert fitted(plan(), frozenset(), limits, cost).plan == plan()


def test_shrinking_ends_where_overhead_takes_half_of_a_step():
    """c + k·w seconds: of ever smaller plans the one with k·w nearest to c is worth most."""

    def cost(of):
        return Cost(1.0 + of.batch * Machine(1.0).work(of), 0.0)

    limits = Limits(image=IMAGE, seconds=30.0)
    found = fitted(plan(), frozenset(), limits, cost).plan
    assert (found.batch, found.patch, found.config["width"]) == (4, (128, 128), 16)
    assert found.reasons["patch"].startswith("256×256 by rule, 128×128 for about 15 steps")


def test_load_that_slows_every_step_alike_changes_no_choice_between_plans():
    """Where steps are too few, what counts is what plans cost compared with each other."""
    for seconds in (10.0, 30.0, 100.0):
        choices = []
        for load in (1.0, 2.0, 5.0):

            def cost(of, load=load):
                return Cost(load * (0.3 + of.batch * Machine(1.0).work(of)), 0.0)

            limits = Limits(image=IMAGE, seconds=seconds, least=10**6)
            choices.append(fitted(plan(), frozenset(), limits, cost).plan.patch)
        assert len(set(choices)) == 1


def test_a_hopeless_plan_is_left_after_one_patch():
    machine = Machine(1.0)
    machine.fit(plan(batch=32), seconds=100)
    assert [of.micro for of, _ in machine.seen if of.batch == 32] == [1]


def test_steps_follow_from_time_and_cost():
    found = Fitted(plan(), Cost(0.5, 1.0))
    assert steps_of(found, Limits(seconds=100.0)) == 200
    assert steps_of(found, Limits()) == float("inf")
