"""`skipway train --backbone NAME --pretrained FILE`: what the network starts from, and what is refused."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from toys import draw, skipway

from skipway.runs import Run
from skipway.weights import load_model

WORDS = [
    "--task",
    "objects",
    "--width",
    "4",
    "--depth",
    "3",
    "--patch",
    "32",
    "--batch",
    "2",
    "--device",
    "cpu",
]
WORDS += ["--backbone", "resnet18", "--steps", "1", "--lr", "1e-12"]  # one step that goes nowhere


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"), count=6)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(5)
    return timm.create_model("resnet18").state_dict()


def train(data, run, file):
    return skipway("train", data / "images", data / "masks", "-o", run, *WORDS, "--pretrained", file)


def test_training_starts_from_the_file_and_the_run_does_without_it(data, state, tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(state, file)
    code, _, err = train(data, tmp_path / "run", file)
    assert code == 0, err
    file.unlink()
    net = load_model(Run.open(tmp_path / "run"), torch.device("cpu")).encoder.net.state_dict()
    first = state["conv1.weight"].sum(1, keepdim=True)  # the images are grey
    assert torch.allclose(net["conv1.weight"], first, rtol=0, atol=1e-6)
    for key in ("layer1.0.conv1.weight", "layer1.1.conv2.weight"):
        assert torch.allclose(net[key], state[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("fault", "exit_code"), [("other", 3), ("pickle", 6)])
def test_a_wrong_file_is_refused_before_there_is_a_run(data, state, tmp_path, fault, exit_code):
    file = tmp_path / "w.safetensors"
    if fault == "other":
        save_file(timm.create_model("mobilenetv3_small_050").state_dict(), file)
    else:
        torch.save(state, file)
    code, _, err = train(data, tmp_path / "run", file)
    assert code == exit_code, err
    assert str(file) in err
    assert not (tmp_path / "run").exists()
