"""A batch in parts learns what the whole batch would, and a training that runs out of memory goes on in parts."""

import json
from dataclasses import replace

import pytest
import torch
from test_training_loop import Fake, batch, plan, train

from skipway.data.sampling import Batch
from skipway.errors import EnvironmentFault
from skipway.losses import LOSSES, cross_entropy, cross_entropy_dice
from skipway.models import build
from skipway.runs import Run, read_tensors
from skipway.training import loop
from skipway.training.micro import chunks, micro_batches, shares
from skipway.training.ranks import ALONE
from skipway.training.step import learn, optimiser_of

CPU = torch.device("cpu")
SPARE = {"in_channels": 1, "classes": 3, "width": 4, "depth": 2, "norm": "group", "dropout": 0.0}


def noise(count, *, weighted):
    """Patches of which some pixels are unknown, more of them in some patches than in others."""
    draw = torch.Generator().manual_seed(3)
    image = torch.rand(count, 1, 16, 16, generator=draw, dtype=torch.float64)
    target = (image[:, 0] * 3).long()
    for k in range(count):
        target[k, :k] = 255
    weights = torch.rand(count, 16, 16, generator=draw, dtype=torch.float64) * torch.arange(
        1, count + 1
    ).view(-1, 1, 1)
    return Batch(image, target, weights if weighted else None, tuple(range(count)))


def learnt(micro, loss, made):
    """Weights and loss after one step, in float64."""
    chosen = plan(config=SPARE, micro=micro, optimiser="sgd", clip=1e9)
    torch.manual_seed(0)
    model = build("unet", **SPARE).double()
    found = learn(chosen, model, optimiser_of(chosen, model), loss, made, 0.1, CPU)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), found


@pytest.mark.parametrize("micro", [1, 2, 3, 4])
@pytest.mark.parametrize(("name", "weighted"), [("ce", False), ("ce", True), ("focal", True), ("bce", False)])
def test_parts_add_up_to_the_whole(name, weighted, micro):
    made, loss = noise(5, weighted=weighted), LOSSES[name].function
    whole, one = learnt(None, loss, made)
    parts, other = learnt(micro, loss, made)
    start = learnt(None, lambda *_: (_[0] * 0).sum(), made)[0]
    assert (whole - start).abs().max() > 1e-3, "nothing was learnt"
    assert (whole - parts).abs().max() < 1e-12
    assert other.loss == pytest.approx(one.loss, abs=1e-12)
    assert torch.equal(other.target, one.target)
    assert (other.logits - one.logits).abs().max() < 1e-12


def in_parts(whole, micro):
    """A batch in parts of `micro` patches at most."""
    return micro_batches(whole, chunks(ALONE, len(whole.image), micro))


def test_counting_patches_instead_of_what_they_weigh_would_not_add_up():
    made = noise(5, weighted=True)
    parts = in_parts(made, 2)
    assert [len(part.indices) for part in parts] == [2, 2, 1]
    assert sum(shares(parts)) == pytest.approx(1)
    assert shares(parts) != pytest.approx([0.4, 0.4, 0.2], abs=0.05)


def test_a_dice_over_the_batch_is_one_of_each_part():
    """Documented: what sums over the batch sums over the part."""
    made = noise(4, weighted=False)
    whole, parts = (learnt(micro, cross_entropy_dice, made)[0] for micro in (None, 2))
    assert (whole - parts).abs().max() > 1e-6


def test_a_batch_of_which_nothing_is_known_counts_by_patches():
    made = noise(3, weighted=False)
    empty = replace(made, target=torch.full_like(made.target, 255))
    assert shares(in_parts(empty, 2)) == pytest.approx([2 / 3, 1 / 3])


def test_micro_batches_are_even_and_hold_every_patch_once():
    made = noise(7, weighted=True)
    for micro in range(1, 9):
        parts = in_parts(made, micro)
        sizes = [len(part.image) for part in parts]
        assert max(sizes) <= micro or micro > 7
        assert max(sizes) - min(sizes) <= 1
        assert torch.equal(torch.cat([part.image for part in parts]), made.image)
        assert torch.equal(torch.cat([part.weights for part in parts]), made.weights)
    assert in_parts(made, None) == (made,)


class Scarce:
    """`learn`, but memory runs out in step `at` (from 1) after spoiling the weights, with over `most` patches."""

    def __init__(self, error, at, most):
        self.error, self.at, self.most, self.calls = error, at, most, 0

    def __call__(self, chosen, model, optimiser, loss, made, rate, device, ranks=ALONE):
        self.calls += 1
        if self.calls >= self.at and (chosen.micro or len(made.image)) > self.most:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(1.0)
            raise self.error
        return learn(chosen, model, optimiser, loss, made, rate, device)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_running_out_of_memory_halves_the_micro_batch_and_repeats_the_step(tmp_path, monkeypatch, error):
    fake = Fake()
    monkeypatch.setattr(loop, "learn", Scarce(error, at=1, most=1))
    train(tmp_path / "short", fake, steps=6)
    monkeypatch.setattr(loop, "learn", learn)
    train(tmp_path / "parts", Fake(), steps=6, micro=1)
    short, parts = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in ("short", "parts"))
    assert all((short[name] == parts[name]).all() for name in parts), "not the weights of a training in parts"
    said = [event["text"] for event in fake.told("warning")]
    assert len(said) == 1
    assert said[0].startswith("1 of 2 patches at once: memory ran out with 2 in step 1; goes on from step 0")
    stored = json.loads((tmp_path / "short/plan.json").read_text())
    assert (stored["micro"], stored["batch"]) == (1, 2)
    assert "memory ran out" in stored["reasons"]["micro"]


def test_later_it_goes_on_from_the_last_saved_state_with_the_same_batches(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setattr(loop, "learn", Scarce(MemoryError(), at=6, most=1))
    train(tmp_path / "run", fake, steps=8)  # validates and saves after each step
    assert fake.steps == list(range(1, 9))
    assert sorted(set(fake.used)) == list(range(8))
    assert "goes on from step 5" in fake.told("warning")[0]["text"]
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 9))


def test_a_second_time_ends_it_and_says_what_to_lower(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "learn", Scarce(MemoryError(), at=3, most=0))
    with pytest.raises(EnvironmentFault) as caught:
        train(tmp_path / "run", Fake(), steps=8)
    assert caught.value.exit_code == 4
    assert "memory ran out in step 3, with 1 of 2 patches at once" in str(caught.value)
    assert "smaller --patch, --width or --batch" in str(caught.value)
    assert Run(tmp_path / "run").read("plan")["micro"] == 1


def test_other_errors_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "learn", Scarce(RuntimeError("shapes differ"), at=2, most=0))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(tmp_path / "run", Fake(), steps=8)


def test_one_part_is_the_very_step_of_before():
    made = batch(0)
    for micro in (2, 99):
        assert in_parts(made, micro) == (made,)
    assert shares((made,)) == (1.0,)
    assert cross_entropy is LOSSES["ce"].function
