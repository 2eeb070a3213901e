"""The loop alone: fake data and a fake validation, a real network, and a run folder that is read back."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import one_thread

from skipway.data.sampling import Batch
from skipway.errors import Interrupted, NumericalError
from skipway.legs import Leg
from skipway.losses import cross_entropy_dice
from skipway.models import build
from skipway.plan import Plan
from skipway.runs import Run, read_tensors
from skipway.training import loop, pace
from skipway.training.collapse import Collapse
from skipway.training.hooks import Hooks, Validation
from skipway.training.loop import fit
from skipway.training.pace import Reserve
from skipway.training.schedule import (
    MEASURED_STEPS,
    VALIDATIONS,
    learning_rate,
    measured,
    steps_in,
    validates,
)
from skipway.training.skipping import MAX_SKIPPED, batch_number
from skipway.training.step import optimiser_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


def plan(**change):
    config = {"in_channels": 1, "classes": 2, "width": 4, "depth": 2, "norm": "batch", "dropout": 0.0}
    numbers = {"patch": (16, 16), "batch": 2, "steps": 24, "seconds": None, "learning_rate": 1e-2}
    rules = {"optimiser": "adamw", "momentum": 0.9, "weight_decay": 1e-2, "warmup": 4, "clip": 5.0}
    rest = {
        "ema": 0.9,
        "precision": "fp32",
        "foreground_share": 0.0,
        "class_weights": (1.0, 1.0),
        "min_area": 0,
    }
    return Plan(
        **{"model": "unet", "config": config, "loss": "ce-dice", **numbers, **rules, **rest, **change}
    )


def batch(number, *, poison=None):
    """Bright pixels are class 1; everything follows from the number. `poison` replaces one image value."""
    rng = np.random.default_rng(number)
    image = torch.from_numpy(rng.random((2, 1, 16, 16), np.float32))
    target = (image[:, 0] > 0.5).long()
    if poison is not None:
        image[0, 0, 3, 3] = poison
    return Batch(image, target, None, (number, number + 1))


@dataclass
class Fake:
    """Hooks that note everything; batches of the numbers in `bad` are poisoned."""

    bad: dict[int, float] = field(default_factory=dict)
    stop_after: int | None = None
    used: list[int] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    averages: list[torch.nn.Module] = field(default_factory=list)

    def hooks(self, **change):
        return Hooks(
            **{
                "batches": self.batches,
                "validate": self.validate,
                "reserved": lambda average: Reserve(0.0, 0.5),
                "names": lambda indices: [f"cell{i}" for i in indices],
                "collapse": Collapse(("dark", "bright")),
                "event": self.events.append,
                "stopped": lambda: self.stop_after is not None and self.steps[-1:] == [self.stop_after],
                **change,
            }
        )

    @contextmanager
    def batches(self, step, skipped):
        def stream():
            for number in (batch_number(s, skipped) for s in count(step)):
                self.used.append(number)
                yield batch(number, poison=self.bad.get(number))

        yield stream()

    def validate(self, average):
        self.averages.append(average)
        return Validation(len(self.averages) / 10, None)

    def told(self, kind):
        return [event for event in self.events if event["event"] == kind]

    @property
    def steps(self):
        return [event["step"] for event in self.told("step")]


def train(folder, fake, *, seed=0, loss=cross_entropy_dice, hooks=None, **change):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    chosen = plan(**change)
    model = build(chosen.model, **chosen.config)
    return fit(chosen, model, loss, Run(folder), hooks or fake.hooks(), CPU)


def weights(folder):
    return read_tensors(folder / "model.safetensors")[0]


def test_it_learns_and_saves_the_average_that_it_returns(tmp_path):
    fake = Fake()
    average = train(tmp_path, fake, steps=60, learning_rate=3e-2)
    losses = [event["loss"] for event in fake.told("step")]
    assert losses[-1] < 0.4 * losses[0]
    saved = weights(tmp_path)
    assert not average.training
    for name, value in average.state_dict().items():
        np.testing.assert_array_equal(saved[name], value.numpy())
        assert np.isfinite(saved[name]).all()
    with torch.no_grad():
        again = batch(10_001)
        found = average(again.image)[-1].argmax(1)
    assert (found == again.target).float().mean() > 0.8


def test_the_average_is_not_the_last_step(tmp_path):
    train(tmp_path, Fake(), ema=0.99)
    state, _ = read_tensors(tmp_path / "state.safetensors")
    names = [name.removeprefix("average.") for name in state if name.startswith("average.")]
    assert names
    assert all((state[f"average.{name}"] == weights(tmp_path)[name]).all() for name in names)
    assert any((state[f"model.{name}"] != state[f"average.{name}"]).any() for name in names)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_is_left_out_and_nothing_of_it_stays(tmp_path, poison):
    fake, clean = Fake({10: poison}), Fake()
    train(tmp_path / "poisoned", fake)
    (rewound,) = fake.told("rewound")
    told = {"from": 10, "to": 9, "batch": 10, "images": "cell10, cell11"}
    assert rewound == {"event": "rewound", **told, "what": "a loss or gradient that is not finite"}
    # What follows is the training that never saw batch 10: not a bit of its NaN, in weights or batch-norm.
    train(tmp_path / "clean", clean, hooks=clean.hooks(batches=without(clean, 10)))
    assert sorted(set(fake.used) - {10}) == sorted(set(clean.used))
    left, right = weights(tmp_path / "poisoned"), weights(tmp_path / "clean")
    for name in left:
        assert np.isfinite(left[name]).all()
        np.testing.assert_array_equal(left[name], right[name])
    assert list(Run(tmp_path / "poisoned").metrics())[-1]["step"] == "24"


def without(fake, number):
    return lambda step, skipped: fake.batches(step, [*skipped, number])


def test_rewinding_repeats_the_steps_since_the_last_save(tmp_path):
    fake = Fake({11: math.nan})
    train(tmp_path, fake)  # saved at 9, the third of eight validations; step 10 and 11 are done again
    assert fake.steps == [*range(1, 12), *range(10, 25)]
    assert fake.used[:15] == [*range(12), 9, 10, 12]
    assert [int(row["step"]) for row in Run(tmp_path).metrics()] == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24]


def test_several_bad_batches_are_all_left_out_and_stay_so_after_a_stop(tmp_path):
    bad = {4: math.nan, 5: math.nan, 17: math.nan}
    whole = Fake(bad)
    train(tmp_path / "whole", whole, steps=60)
    fake = Fake(bad, stop_after=13)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", fake, steps=60)
    _, facts = read_tensors(tmp_path / "run" / "state.safetensors")
    assert facts["progress"]["skipped"] == [4, 5]
    again = Fake(bad)
    train(tmp_path / "run", again, steps=60)
    assert again.told("rewound")[0]["batch"] == 17
    assert {4, 5}.isdisjoint(again.used)
    for name, value in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "run")[name], value)


def test_too_many_bad_batches_end_with_exit_5_and_the_last_good_weights(tmp_path):
    fake = Fake(dict.fromkeys(range(13, 60), math.nan))
    with pytest.raises(NumericalError) as caught:
        train(tmp_path, fake, steps=100)
    assert caught.value.exit_code == 5
    assert f"{MAX_SKIPPED + 1} batches of 100" in str(caught.value)
    assert "cell18, cell19" in str(caught.value)
    assert len(fake.told("rewound")) == MAX_SKIPPED
    assert all(np.isfinite(value).all() for value in weights(tmp_path).values())
    assert read_tensors(tmp_path / "model.safetensors")[1]["step"] == 13


def test_more_than_a_twentieth_of_the_steps_ends_it_too(tmp_path):
    fake = Fake(dict.fromkeys((3, 7), math.nan))
    with pytest.raises(NumericalError, match="2 batches of 24 could not be learned from") as caught:
        train(tmp_path, fake)
    assert "cell7, cell8" in str(caught.value)
    assert len(fake.told("rewound")) == 1


def test_exactly_as_many_bad_batches_as_allowed(tmp_path):
    fake = Fake(dict.fromkeys(range(6, 6 + MAX_SKIPPED), math.nan))
    train(tmp_path, fake, steps=100)
    assert fake.steps[-1] == 100
    assert max(fake.used) == 99 + MAX_SKIPPED


def test_a_gradient_that_is_not_finite_counts_too(tmp_path):
    def cliff(logits, target, weight):
        """Finite; on batch 7, known by its target, with a gradient that is not."""
        value = cross_entropy_dice(logits, target, weight)
        return value + (logits.sum() * 0).sqrt() if target.sum() == marked_sum else value

    marked_sum = batch(7).target.sum()
    assert sum(int(batch(k).target.sum() == marked_sum) for k in range(25)) == 1
    fake = Fake()
    train(tmp_path, fake, loss=cliff)
    assert [event["batch"] for event in fake.told("rewound")] == [7]
    assert all(np.isfinite(value).all() for value in weights(tmp_path).values())


@pytest.mark.parametrize("where", ["weight", "running_var"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_weights_that_a_step_leaves_not_finite_are_rewound(tmp_path, monkeypatch, where, poison):
    real = loop.learn

    def breaking(plan, model, optimiser, loss, learnt_from, *rest):
        learnt = real(plan, model, optimiser, loss, learnt_from, *rest)
        if learnt_from.indices[0] == 10:
            name = next(key for key in model.state_dict() if key.endswith(where))
            model.state_dict()[name].view(-1)[1] = poison
        return learnt

    fake, clean = Fake(), Fake()
    train(tmp_path / "clean", clean, hooks=clean.hooks(batches=without(clean, 10)))
    monkeypatch.setattr(loop, "learn", breaking)
    train(tmp_path / "run", fake)
    (rewound,) = fake.told("rewound")
    assert (rewound["batch"], rewound["to"]) == (10, 9)
    assert (rewound["images"], rewound["what"]) == ("cell10, cell11", "weights that are not finite")
    left, right = weights(tmp_path / "run"), weights(tmp_path / "clean")
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(("size", "left_out"), [(1e15, []), (1e30, [7])])
def test_a_huge_loss_is_clipped_or_left_out(tmp_path, size, left_out):
    """Of 1e30 the squares of the gradient overflow, so its length is not finite; of 1e15 it is clipped."""
    marked_sum = batch(7).target.sum()

    def steep(logits, target, weight):
        value = cross_entropy_dice(logits, target, weight)
        return value * size if target.sum() == marked_sum else value

    fake = Fake()
    train(tmp_path, fake, loss=steep)
    assert [event["batch"] for event in fake.told("rewound")] == left_out
    assert max(event["loss"] for event in fake.told("step")) > 0.1 * size or left_out
    floats = [value for value in weights(tmp_path).values() if value.dtype.kind == "f"]
    assert max(float(np.abs(value).max()) for value in floats) < 10


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    fake = Fake()

    def break_average(average):
        if len(fake.averages) == 3:
            next(average.parameters()).data.fill_(math.nan)
        return Fake.validate(fake, average)

    with pytest.raises(NumericalError, match="not saved"):
        train(tmp_path, fake, hooks=fake.hooks(validate=break_average))
    assert all(np.isfinite(value).all() for value in weights(tmp_path).values())
    assert read_tensors(tmp_path / "model.safetensors")[1]["step"] == 9


def test_rows_of_metrics_hold_what_the_steps_said(tmp_path):
    fake = Fake()
    train(tmp_path, fake)
    rows = list(Run(tmp_path).metrics())
    steps = [int(row["step"]) for row in rows]
    assert steps == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24]  # eight validations, and every tenth
    losses = [event["loss"] for event in fake.told("step")]
    for before, row in zip([0, *steps], rows, strict=False):
        step = int(row["step"])
        assert float(row["loss"]) == pytest.approx(np.mean(losses[before:step]), rel=1e-12)
        assert (
            float(row["lr"])
            == learning_rate(plan(), step - 1, Leg.of(24))
            == fake.told("step")[step - 1]["lr"]
        )
    assert [row["val_score"] for row in rows] == [
        "0.1",
        "0.2",
        "0.3",
        "",
        "0.4",
        "0.5",
        "0.6",
        "",
        "0.7",
        "0.8",
    ]
    assert {row["val_loss"] for row in rows} == {""}
    assert all(float(a["seconds"]) <= float(b["seconds"]) for a, b in pairwise(rows))


def test_a_stop_says_how_to_go_on_and_has_saved(tmp_path):
    fake = Fake(stop_after=5)
    with pytest.raises(Interrupted, match="step 5; .*type the same command") as caught:
        train(tmp_path, fake)
    assert caught.value.exit_code == 75
    assert read_tensors(tmp_path / "state.safetensors")[1]["progress"]["step"] == 5
    assert read_tensors(tmp_path / "model.safetensors")[1]["step"] == 5


def test_a_time_budget_becomes_steps_once(tmp_path, monkeypatch):
    asked = []

    def steps(step, left, per_step):
        asked.append(step)
        assert 0.98 * 900 - 10 < left < 0.98 * 900 - 0.5
        assert 0 < per_step < 1
        return 30

    monkeypatch.setattr(pace, "steps_in", steps)
    fake = Fake()
    train(tmp_path, fake, steps=None, seconds=900.0, warmup=40)
    assert asked == [MEASURED_STEPS]
    assert fake.steps == list(range(1, 31))
    (planned,) = fake.told("planned")
    assert (planned["total"], planned["reserved"]) == (30, 0.5)
    assert fake.events.index(planned) < fake.events.index(fake.told("step")[MEASURED_STEPS - 1])
    assert {event["total"] for event in fake.told("step")[: MEASURED_STEPS - 1]} == {None}
    assert {event["total"] for event in fake.told("step")[MEASURED_STEPS:]} == {30}


def test_a_time_budget_is_kept(tmp_path):
    from time import perf_counter

    fake, began = Fake(), perf_counter()
    train(tmp_path, fake, steps=None, seconds=2.0, warmup=40)
    spent = perf_counter() - began
    assert fake.steps[-1] == fake.told("planned")[-1]["total"] > 3
    assert 1.2 < spent < 3  # the reserve of half a second is not used here


def test_optimisers_are_built_as_planned():
    model = build("unet", **plan().config)
    adamw = optimiser_of(plan(), model)
    assert isinstance(adamw, torch.optim.AdamW)
    decayed, plain = adamw.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (1e-2, 0.0)
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))
    sgd = optimiser_of(plan(optimiser="sgd", momentum=0.99, weight_decay=0.0), model)
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.99}


def test_gradients_are_clipped(tmp_path):
    """SGD without momentum moves by lr · clip at most, however steep the loss."""
    fake = Fake(stop_after=1)

    def steep(logits, target, weight):
        return 1e4 * cross_entropy_dice(logits, target, weight)

    change = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup": 1, "learning_rate": 0.1}
    torch.manual_seed(0)
    before = {name: p.detach().clone() for name, p in build("unet", **plan().config).named_parameters()}
    with pytest.raises(Interrupted):
        train(tmp_path, fake, loss=steep, clip=2.0, **change)
    state, _ = read_tensors(tmp_path / "state.safetensors")
    moved = math.sqrt(sum(float(np.square(state[f"model.{n}"] - p.numpy()).sum()) for n, p in before.items()))
    assert moved == pytest.approx(0.1 * 2.0, rel=1e-4)


# Schedule.


def test_learning_rate_warms_up_then_falls_as_half_a_cosine():
    chosen = plan(warmup=4, learning_rate=2.0)
    assert [learning_rate(chosen, step, Leg.of(24)) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert learning_rate(chosen, 4, Leg.of(24)) == 2.0
    assert learning_rate(chosen, 9, Leg.of(24)) == pytest.approx(1 + math.sqrt(0.5))
    assert learning_rate(chosen, 14, Leg.of(24)) == pytest.approx(1.0)
    assert learning_rate(chosen, 24, Leg.of(24)) == 0.0
    assert 0 < learning_rate(chosen, 23, Leg.of(24)) < 0.02


def test_learning_rate_before_the_number_of_steps_is_known():
    chosen = plan(warmup=40, learning_rate=1.0)
    assert [learning_rate(chosen, step, Leg.of(None)) for step in range(20)] == [
        learning_rate(chosen, step, Leg.of(500)) for step in range(20)
    ]
    assert learning_rate(chosen, 60, Leg.of(None)) == 1.0


@given(st.integers(1, 60), st.integers(1, 3000))
def test_learning_rate_is_never_negative_nor_above_its_highest(warmup, total):
    chosen = plan(warmup=min(warmup, total), learning_rate=1e-3)
    rates = [learning_rate(chosen, step, Leg.of(total)) for step in range(0, total, max(1, total // 50))]
    assert all(0 < rate <= 1e-3 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_steps_in_counts_what_is_left_from_the_first_step():
    assert steps_in(20, 50.0, 0.5) == 20 + 100
    assert steps_in(3, 49.8, 0.3) == 3 + 166
    assert steps_in(20, -1.0, 0.5) == 20  # the time is over


def test_steps_are_measured_long_enough_and_no_longer():
    assert [measured(step, 1.0, 100.0) for step in (3, MEASURED_STEPS - 1, MEASURED_STEPS)] == [
        False,
        False,
        True,
    ]
    assert [measured(step, 10.5, 100.0) for step in (2, 3)] == [False, True]  # slow steps: three tell
    assert measured(1, 1.0, 0.5)  # or one


@given(st.integers(1, 5000))
def test_validations_are_evenly_spread_and_the_last_step_is_one(total):
    steps = [step for step in range(total + 1) if validates(step, Leg.of(total))]
    assert steps[-1] == total
    assert 0 not in steps
    assert len(steps) <= VALIDATIONS
    assert len(steps) == VALIDATIONS or total < VALIDATIONS**2
    wanted = [math.ceil(total * k / VALIDATIONS) for k in range(1, VALIDATIONS + 1)]
    assert steps == sorted(set(wanted))


def test_no_validation_before_the_number_of_steps_is_known():
    assert not any(validates(step, Leg.of(None)) for step in range(100))


@given(st.sets(st.integers(0, 40), max_size=12))
def test_batch_number_counts_every_batch_but_the_skipped(skipped):
    wanted = list(islice((k for k in count() if k not in skipped), 50))
    assert [batch_number(step, list(skipped)) for step in range(50)] == wanted
    assert [batch_number(step, sorted(skipped, reverse=True)) for step in range(50)] == wanted
