"""The nine parts: each one, dropped, must change what comes after."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from skipway.errors import CheckpointError
from skipway.runs import read_tensors, write_tensors
from skipway.training.average import start_average, update_average
from skipway.training.state import Parts, Progress, load_state, save_state


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return Parts(model, start_average(model), optimiser)


def advance(parts, progress, steps):
    """Steps that draw from all three random generators and whose rate depends on the step."""
    for _ in range(steps):
        noise = float(np.random.rand()) + random.random()  # noqa: NPY002
        x = torch.full((2, 1, 6, 6), 0.1 * progress.step) + noise
        for group in parts.optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - progress.step / (progress.total or 100))
        parts.optimiser.zero_grad()
        parts.model(x).square().mean().backward()
        parts.optimiser.step()
        progress.step += 1
        update_average(parts.average, parts.model, progress.step, 0.9)


def digest(parts):
    values = [*parts.model.state_dict().values(), *parts.average.state_dict().values()]
    state = parts.optimiser.state_dict()["state"]
    moments = [state[index][key] for index in sorted(state) for key in sorted(state[index])]
    return b"".join(np.asarray(v).tobytes() for v in [*values, *moments])


def start():
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    parts, progress = make(), Progress(total=20)
    return parts, progress


def test_resumed_equals_never_stopped(tmp_path):
    parts, progress = start()
    advance(parts, progress, 12)
    whole = digest(parts)

    parts, progress = start()
    advance(parts, progress, 7)
    save_state(tmp_path / "state", parts, progress)
    fresh = make(seed=99)
    random.seed(77)
    np.random.seed(78)  # noqa: NPY002
    torch.manual_seed(79)
    back = load_state(tmp_path / "state", fresh)
    assert back == progress
    advance(fresh, back, 5)
    assert digest(fresh) == whole


def drop(part, tensors, facts):
    """A copy of the saved state without one of the nine parts."""
    tensors = dict(tensors)
    fresh = {f"model.{k}": v.numpy().copy() for k, v in make(seed=99).model.state_dict().items()}
    match part:
        case "weights":
            tensors.update({k: v for k, v in fresh.items() if "running" not in k and "tracked" not in k})
        case "buffers":
            tensors.update({k: v for k, v in fresh.items() if "running" in k})
        case "average":
            tensors.update({k.replace("model.", "average."): v for k, v in fresh.items()})
        case "optimiser":
            tensors = {k: np.zeros_like(v) if k.startswith("optimiser") else v for k, v in tensors.items()}
        case "torch":
            tensors["random.torch"] = torch.Generator().manual_seed(5).get_state().numpy()
        case "numpy":
            tensors["random.numpy"] = tensors["random.numpy"][::-1].copy()
        case "python":
            tensors["random.python"] = np.concatenate(
                [tensors["random.python"][-2::-1], tensors["random.python"][-1:]]
            )
        case "step":
            facts = {**facts, "progress": {**facts["progress"], "step": 0}}
        case "schedule":
            facts = {**facts, "progress": {**facts["progress"], "total": None}}
    return tensors, facts


@pytest.mark.parametrize(
    "part", ["weights", "buffers", "average", "optimiser", "schedule", "torch", "numpy", "python", "step"]
)
def test_each_part_matters(tmp_path, part):
    parts, progress = start()
    advance(parts, progress, 7)
    save_state(tmp_path / "state", parts, progress)
    tensors, facts = read_tensors(tmp_path / "state")
    write_tensors(tmp_path / "without", *drop(part, tensors, facts))

    digests = []
    for name in ("state", "without"):
        fresh = make(seed=5)
        back = load_state(tmp_path / name, fresh)
        advance(fresh, back, 5)
        digests.append(digest(fresh))
    assert digests[0] != digests[1]


def test_another_network_is_refused(tmp_path):
    parts, progress = start()
    save_state(tmp_path / "state", parts, progress)
    model = nn.Conv2d(1, 4, 5)
    other = Parts(model, start_average(model), torch.optim.AdamW(model.parameters()))
    with pytest.raises(CheckpointError, match="does not belong"):
        load_state(tmp_path / "state", other)


def test_average_follows_its_formula():
    model, average = nn.Linear(1, 1, bias=False), None
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = start_average(model)
    with torch.no_grad():
        model.weight.fill_(2.0)
    update_average(average, model, step=1, decay=0.9)  # d = 2/11
    assert average.weight.item() == pytest.approx(2 - 2 / 11, abs=1e-6)
    update_average(average, model, step=1000, decay=0.9)  # d = 0.9
    assert average.weight.item() == pytest.approx(2 - 0.9 * 2 / 11, abs=1e-6)
