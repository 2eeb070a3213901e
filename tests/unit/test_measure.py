"""Measuring on real steps: what it finds, what it leaves as it was, and what comes of it in a run."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import TINY, digest, draw, one_thread, order_of, skipway, start

from skipway import api, memory, single
from skipway.errors import UsageError
from skipway.request import Request
from skipway.runs import Run
from skipway.training import measure
from skipway.training.budget import Cost
from skipway.training.measure import Meter, measured
from skipway.training.prepare import check_data, prepare

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    one_thread()
    return draw(tmp_path_factory.mktemp("data"))


def prepared(data, tmp_path, **asked):
    order = order_of(data, tmp_path / "run", Request(**{**TINY, **asked}))
    return prepare(order, check_data(order), CPU)


def states():
    return torch.get_rng_state().numpy().copy(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002


def test_random_states_are_left_as_they_were(data, tmp_path):
    before = states()
    measured(prepared(data, tmp_path, steps=4), Request(**TINY, steps=4), CPU)
    after = states()
    assert (before[0] == after[0]).all()
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]


def test_a_run_has_the_same_bits_with_and_without_measuring(data, tmp_path, monkeypatch):
    start(data, tmp_path / "with", steps=4)
    monkeypatch.setattr(single, "measured", lambda prepared, *_: prepared)
    start(data, tmp_path / "without", steps=4)
    assert digest(tmp_path / "with") == digest(tmp_path / "without")
    facts = json.loads((tmp_path / "with/plan.json").read_text())
    assert facts["measured"]["bytes"] > 2**26
    assert facts["measured"]["limit"] > facts["measured"]["bytes"]
    assert "seconds" not in facts["measured"]
    assert facts["micro"] is None


def test_a_large_step_is_measured_as_large(data, tmp_path):
    """Memory that grows by a known tensor: the activations of more patches."""
    if not memory._status("VmHWM"):
        pytest.skip("the system tells no peak")
    there = prepared(data, tmp_path, patch=256, width=16)
    meter = Meter(there, CPU, float("inf"))
    plan = replace(there.plan, batch=8)
    small, large = (meter.cost(replace(plan, micro=micro)) for micro in (1, 8))
    meter.close()
    # By hand, what one more patch keeps for backward at least: 2 levels of 2 convolutions, 16 and 32 features, each
    # with its norm and activation, in float32.
    least = 7 * 4 * (2 * 16 * 256**2 + 2 * 32 * 128**2)
    assert large.bytes - small.bytes > least
    assert large.bytes - small.bytes < 10 * least
    assert small.kept < small.bytes


def test_a_small_budget_computes_in_parts_and_too_small_a_one_says_so(data, tmp_path, monkeypatch):
    there = prepared(data, tmp_path, batch=8)

    def cost(self, plan):
        return Cost(0.1, 2**30 + plan.micro * 2**28, 2**30)

    monkeypatch.setattr(measure.Meter, "cost", cost)
    request = Request(**{**TINY, "batch": 8}, ram=int(1.8 * 2**30))
    found = measured(there, request, CPU).plan
    assert (found.micro, found.batch) == (2, 8)
    assert found.measured["limit"] == int(1.8 * 2**30)
    assert "2 of 8 patches at once, since all exceed the memory" in found.reasons["micro"]
    with pytest.raises(UsageError) as caught:
        measured(there, Request(**{**TINY, "batch": 8}, ram=2**30), CPU)
    said = str(caught.value)
    least = 1.03 * 1.25 * 2**10 / 0.9  # a step of 1.25 GiB fills nine tenths, and a little
    assert said.startswith(
        "--ram: 1.0 GiB, too little for steps on one patch of 32×32, expected 1.4 GiB at least"
    )
    assert f"Fix: --ram {int(least) + 1}M, or a smaller --patch or --width" in said


def test_the_smallest_budget_that_is_named_does(data, tmp_path):
    run = tmp_path / "run"
    code, _, said = train(data, run, "--ram", "1M")
    assert code == 2
    advised = said.rpartition("--ram ")[2].partition(",")[0]
    code, out, said = train(data, run, "--ram", advised)
    assert code == 0, said
    assert "measured on a step [--ram]" in out + said


def test_with_a_time_the_plan_says_what_a_step_takes_and_why_it_is_smaller(data, tmp_path):
    there = prepared(data, tmp_path, steps=None, seconds=5.0)
    found = measured(there, Request(**TINY, seconds=5.0), CPU).plan
    assert 0 < found.measured["seconds"] < 5
    assert (found.batch, found.patch, found.config["width"]) == (2, (32, 32), 4), "they were named"


def test_no_more_is_measured_than_a_share_of_the_time(data, tmp_path):
    there = prepared(data, tmp_path)
    meter = Meter(there, CPU, allowance=1e-9)
    first = meter.cost(there.plan)
    spent = meter.spent
    smaller = meter.cost(replace(there.plan, batch=1))
    assert smaller.seconds == pytest.approx(first.seconds / 2)
    assert first.kept < smaller.bytes <= first.bytes
    meter.overhead = first.seconds / 2
    assert meter.cost(replace(there.plan, batch=1)).seconds == pytest.approx(first.seconds * 3 / 4)
    assert meter.cost(replace(there.plan, batch=1)).bytes == smaller.bytes
    assert meter.cost(replace(there.plan, patch=(64, 64))).seconds == float("inf")
    assert meter.spent == spent


def test_one_patch_that_batch_norm_refuses_is_measured_as_two(data, tmp_path):
    start(data, tmp_path / "run", steps=2, patch=16, depth=5)  # one pixel at the coarsest level
    assert Run(tmp_path / "run").read("plan")["measured"]["bytes"] > 0


def test_a_plan_that_stands_is_not_measured_again(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    start(data, run, steps=2)
    before = Run(run).read("plan")

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(single, "measured", refuse)
    start(data, run, steps=2)
    assert Run(run).read("plan") == before
    api.train_run(order_of(data, tmp_path / "again", Request(plan=str(run))), lambda _: None)
    assert Run(tmp_path / "again").read("plan") == before


def train(data, run, *words):
    named = [str(word) for key, value in TINY.items() for word in (f"--{key}", value)]
    return skipway(
        *("train", data / "images", data / "masks", "-o", run, "--task", "objects", "--device", "cpu"),
        *(*named, "--steps", 2, *words),
    )
