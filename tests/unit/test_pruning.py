"""`skipway prune`: what a level is worth and costs, and a run folder that holds just that level."""

import html
import json
import shlex
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from tifffile import imread
from toys import contents, draw, one_thread, skipway, start

from skipway import prune
from skipway.errors import NumericalError, UsageError
from skipway.nn.graph import SkipGraph
from skipway.pruning import WITHIN, Level, Pruned, choose
from skipway.runs import Run, read_tensors
from skipway.training.claim import command_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    one_thread()
    return draw(tmp_path_factory.mktemp("data"), count=5)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A small UNet++ with heads on L1 and L2."""
    path = tmp_path_factory.mktemp("runs") / "run"
    start(data, path, model="unet_plus_plus", depth=3, steps=4)
    return path


def test_the_table_says_what_each_level_is_worth_and_costs(run, tmp_path):
    found = prune(run, tmp_path / "small", level=1)
    assert [(one.level, one.output) for one in found.levels] == [(1, "x0_1"), (2, "x0_2")]
    small, whole = found.levels
    assert small.parameters < whole.parameters
    assert small.macs < whole.macs
    assert small.peak_mib < whole.peak_mib
    assert all(one.milliseconds > 0 and 0 <= one.score <= 1 for one in found.levels)
    tensors, _ = read_tensors(run / "model.safetensors")
    running = sum(v.size for k, v in tensors.items() if "running_" in k or k.endswith("tracked"))
    heads = sum(v.size for k, v in tensors.items() if k.startswith("heads.x0_1"))
    assert whole.parameters == sum(v.size for v in tensors.values()) - running - heads
    text = str(found)
    assert f"{small.parameters:,}" in text
    assert next(line for line in text.splitlines() if "x0_1" in line).endswith("kept")
    assert json.loads((tmp_path / "small" / "prune.json").read_text()) == json.loads(
        json.dumps(found.to_json())
    )


def test_a_pruned_run_is_the_whole_one_at_that_output_to_the_bit(run, data, tmp_path):
    prune(run, tmp_path / "small", level=1)
    whole, facts = read_tensors(run / "model.safetensors")
    small, small_facts = read_tensors(tmp_path / "small" / "model.safetensors")
    assert small.keys() < whole.keys()
    assert not any("x2_0" in key for key in small)  # the encoder is cut too
    assert all(np.array_equal(small[key], whole[key]) for key in small)
    assert small_facts["config"] == {**facts["config"], "level": 1}
    for folder, words in (("a", [tmp_path / "small"]), ("b", [run])):
        level = ["--level", 1] if folder == "b" else []
        level.append("--no-calibration")  # the pruned run has a temperature of its own
        code, _, err = skipway(
            "predict", *words, data / "images", "-o", tmp_path / folder, "--probabilities", *level
        )
        assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "a").glob("*.tif"))
    assert len(names) == 10
    assert all(np.array_equal(imread(tmp_path / "a" / n), imread(tmp_path / "b" / n)) for n in names)


def test_the_whole_run_is_left_as_it_was(run, tmp_path):
    before = contents(run)
    prune(run, tmp_path / "small")
    assert contents(run) == before


def scored(*scores):
    return [Level(i, f"x0_{i}", s, 10**i, 1, 1.0, 1.0, (8, 8)) for i, s in enumerate(scores, start=1)]


def test_few_images_are_said_to_decide_little():
    few, enough = (str(Pruned(Path("my run"), 1, tuple(scored(0.5, 0.6)), "Dice", n)) for n in (9, 10))
    assert "warning: 9 images decide little" in few
    assert "warning" not in enough
    assert "skipway predict 'my run' NEW_IMAGES -o OUT" in few


def test_the_smallest_within_the_tolerance_of_the_whole_is_kept():
    assert choose(scored(0.5, 0.8951, 0.9), WITHIN) == 2
    assert choose(scored(0.5, 0.8949, 0.9), WITHIN) == 3
    assert choose(scored(0.95, 0.8, 0.9), 0.0) == 1  # a smaller one may be better
    assert choose(scored(None, None, 0.9), 1.0) == 3
    assert choose(scored(None, None, None), 1.0) == 3  # nothing was scored: nothing is thrown away


def test_what_cannot_be_pruned_is_refused_and_nothing_is_written(run, data, tmp_path):
    single = tmp_path / "single"
    start(data, single, steps=2)
    for words, text in (
        ([single], "the network has one output, x0_1"),
        ([run, "--level", 3], "--level: found 3, expected one of 1, 2"),
        ([run, "--within", -1], "--within: found -1"),
        ([run, "-o", single], "the folder is not empty"),
        ([tmp_path / "nothing"], "no such folder"),
    ):
        before = contents(tmp_path)
        code, _, err = skipway("prune", *words)
        assert code == 2
        assert text in err
        assert contents(tmp_path) == before


def test_a_pruned_run_is_not_gone_on_with(run, data, tmp_path):
    prune(run, tmp_path / "small", level=1)
    with pytest.raises(UsageError, match="holds another run"):
        start(data, tmp_path / "small", model="unet_plus_plus", depth=3, steps=4)


def test_a_pruned_output_that_differs_is_never_written(run, tmp_path, monkeypatch):
    honest = SkipGraph.pruned

    def off(self, level):
        part = deepcopy(honest(self, level))
        with torch.no_grad():
            next(part.heads.parameters()).mul_(1.0001)
        return part

    monkeypatch.setattr(SkipGraph, "pruned", off)
    with pytest.raises(NumericalError, match="differs"):
        prune(run, tmp_path / "small", level=1)
    assert not (tmp_path / "small" / "model.safetensors").exists()


def test_supervised_outputs_are_averaged_or_used_alone(run, data, tmp_path):
    made = {}
    for name, words in {
        "last": [],
        "top": ["--level", 2],
        "mean": ["--outputs", "mean"],
        "one": ["--level", 1],
    }.items():
        code, _, err = skipway(
            "predict", run, data / "images" / "c0.tif", "-o", tmp_path / name, "--probabilities", *words,
            "--no-calibration",
        )  # fmt: skip
        assert code == 0, err
        made[name] = imread(tmp_path / name / "c0_probabilities.tif")
    assert np.array_equal(made["last"], made["top"])
    assert np.allclose(made["mean"], (made["one"] + made["top"]) / 2, atol=1e-6)
    assert not np.allclose(made["one"], made["top"], atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ["--no-supervised", "--set", "up=bilinear", "--set", "pools=[[2, 2], [2, 2]]"],
        ["--supervised", "--supervision", "halving", "--lr", "0.001"],
    ],
)
def test_the_command_in_a_report_is_the_command_that_was_typed(words, data, tmp_path):
    options = ["--model", "unet_plus_plus", "--width", 2, "--depth", 3, "--steps", 1, "--patch", 32]
    code, _, err = skipway(
        "train", data / "images", data / "masks", "-o", tmp_path / "run", "--device", "cpu", *options, *words
    )
    assert code == 0, err
    again = shlex.split(command_of(Run.open(tmp_path / "run"), "cpu"))
    assert again[:2] == ["skipway", "train"]
    code, _, err = skipway(*again[1:])
    assert code == 0, err
    assert "finished already" in err
    assert again[-2:] == ["--device", "cpu"]
    assert shlex.join(again) in html.unescape((tmp_path / "run/report.html").read_text())
