"""The state before the newest: when it is gone on from, and what becomes of a damaged one."""

import os
import random

import numpy as np
import pytest
import torch
from test_training_state import make

from skipway.errors import CheckpointError, SecurityError
from skipway.runs import read_tensors
from skipway.training.state import Progress, forget_states, has_state, keep_state, newest_state, seed_all


@pytest.fixture
def two(tmp_path):
    """A folder with the states of steps 3 and 5."""
    parts = make()
    for step in (3, 5):
        with torch.no_grad():
            next(parts.model.parameters()).fill_(float(step))
        keep_state(tmp_path, parts, Progress(step=step, total=9))
    return tmp_path


def step_in(path):
    return read_tensors(path)[1]["progress"]["step"]


def test_the_save_before_stays(two):
    assert (step_in(two / "state.safetensors"), step_in(two / "previous.safetensors")) == (5, 3)
    assert sorted(path.name for path in two.iterdir()) == ["previous.safetensors", "state.safetensors"]
    progress, warning = newest_state(two, make(seed=4))
    assert (progress.step, warning) == (5, None)


@pytest.mark.parametrize("links", [True, False])
def test_on_a_disk_without_links_too(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        keep_state(tmp_path, make(), Progress(step=step))
    assert (step_in(tmp_path / "state.safetensors"), step_in(tmp_path / "previous.safetensors")) == (3, 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_one_is_moved_aside_and_the_save_before_gone_on_from(two):
    for number, damage in ((1, b"cut"), (2, b"\x80pickle pickle"), (3, bytes(4000))):
        (two / "state.safetensors").write_bytes(damage)
        fresh = make(seed=4)
        progress, warning = newest_state(two, fresh)
        assert progress.step == 3
        assert next(fresh.model.parameters()).unique().item() == 3.0
        assert "going on from the save before it, of step 3" in warning
        assert warning.endswith(f"the damaged file is kept as damaged-{number}.safetensors")
        assert (two / f"damaged-{number}.safetensors").read_bytes() == damage
        assert not (two / "state.safetensors").exists()
    keep_state(two, make(), Progress(step=4))
    assert (step_in(two / "state.safetensors"), step_in(two / "previous.safetensors")) == (4, 3)
    forget_states(two)
    assert not has_state(two)
    assert len(list(two.iterdir())) == 3  # the evidence


def test_without_a_whole_one_the_newest_is_named_and_nothing_moves(two):
    for name in ("state", "previous"):
        (two / f"{name}.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"state\.safetensors: only 3 bytes"):
        newest_state(two, make())
    (two / "previous.safetensors").unlink()
    (two / "state.safetensors").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(SecurityError, match="zip archive"):
        newest_state(two, make())
    assert [path.name for path in two.iterdir()] == ["state.safetensors"]


def test_a_kill_between_two_renames_leaves_the_save_before(two):
    (two / "state.safetensors").unlink()
    assert has_state(two)
    progress, warning = newest_state(two, make())
    assert progress.step == 3
    assert "file is missing" in warning
    assert "kept as" not in warning


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 7])
def test_one_seed_starts_all_three_generators(seed):
    def draws():
        seed_all(seed)
        return torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002

    first = draws()
    assert draws() == first
    seed_all(seed + 1)
    other = torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002
    assert all(a != b for a, b in zip(first, other, strict=True))
