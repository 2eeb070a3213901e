"""Fine-tuning: what is copied, what is adapted, what is refused, and that nothing gets worse unsaid."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_resume import stop_and_go_on
from tifffile import imread, imwrite
from toys import TINY, digest, draw, one_thread, order_of, skipway

from skipway import api
from skipway.data.labels import LabelMap
from skipway.errors import UsageError
from skipway.models import build
from skipway.report import finish
from skipway.request import Request
from skipway.runs import Run, read_tensors
from skipway.training.transfer import same_class, transferred

CONFIG = {"in_channels": 1, "classes": 2, "width": 4, "depth": 2, "norm": "batch", "dropout": 0.0}
TWO = LabelMap("classes", (0, 1), ("background", "cell"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    one_thread()
    return draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    one_thread()
    run = tmp_path_factory.mktemp("first") / "run"
    request = Request(**TINY, steps=60, learning_rate=0.01, optimiser="adamw")
    api.train_run(order_of(data, run, request), lambda _: None)
    return run


def tune(data, run, first, event=lambda _: None, **choices):
    request = Request(**{"steps": 6, "batch": 2, **choices}, start=str(first))
    return api.train_run(order_of(data, run, request), event)


def test_network_rate_and_weights_come_from_the_run(data, first, tmp_path):
    said = []
    done = tune(data, tmp_path / "run", first, said.append, loss="weighted-ce-dice")
    old, new = Run(first).read("plan"), Run(tmp_path / "run").read("plan")
    for key in ("model", "config", "patch", "batch", "optimiser"):
        assert new[key] == old[key]
    assert new["learning_rate"] == pytest.approx(0.01 / 3)
    record = Run(tmp_path / "run").read("run")["start"]
    assert record["sha256"] == hashlib.sha256((first / "model.safetensors").read_bytes()).hexdigest()
    assert record["run"] == str(first)
    assert record["score"] == Run(first).read("evaluation")["score"]  # the same images validate
    before, _ = read_tensors(first / "model.safetensors")
    copied, _ = read_tensors(tmp_path / "run" / "start.safetensors")
    assert all((copied[key] == before[key]).all() for key in before)
    assert done.start["score"] == record["score"]
    lines = [event["text"] for event in said if event.get("name") == "start"]
    assert "learning rate 0.00333" in lines[0]
    assert "before the first step" in lines[1]


def test_validation_images_that_trained_the_run_are_named(data, first, tmp_path):
    said = []
    tune(data, tmp_path / "same", first, said.append)
    assert not [event for event in said if event["event"] == "warning" and "flatter" in event["text"]]
    order = order_of(data, tmp_path / "other", Request(steps=2, batch=2, start=str(first)))
    trained = Run(first).read("split")["train"]
    (tmp_path / "val.txt").write_text(f"{trained[0]}\n{trained[1]}\n")
    api.train_run(replace(order, val=tmp_path / "val.txt"), said.append)
    (warning,) = [event["text"] for event in said if "flatter" in event.get("text", "")]
    named = "2 of 2 validation images trained the run named by --from"
    assert warning.startswith(f"{named} ({trained[0]}, {trained[1]})")
    assert "flatter" in (tmp_path / "other" / "report.html").read_text(encoding="utf-8")


def test_a_worse_model_than_the_start_is_not_saved(data, first, tmp_path):
    said = []
    done = tune(data, tmp_path / "run", first, said.append, learning_rate=0.5, steps=12)
    assert done.start["kept"] is False
    assert done.start["trained"] < done.start["score"] == done.score
    kept, _ = read_tensors(tmp_path / "run" / "model.safetensors")
    start, _ = read_tensors(first / "model.safetensors")
    assert all((kept[key] == start[key]).all() for key in start)
    assert any("the old weights stay" in event["text"] for event in said if event["event"] == "warning")
    assert "the old weights stay" in (tmp_path / "run" / "report.html").read_text()


def test_stopped_in_the_middle_equals_never_stopped_and_the_first_run_is_not_needed(
    data, first, tmp_path, monkeypatch
):
    monkeypatch.setattr(finish, "full_score", lambda *_: 1.0)
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    choices = dict.fromkeys(("width", "depth", "patch", "loss")) | {"steps": 8, "start": str(copy)}
    stop_and_go_on(data, tmp_path / "whole", **choices)
    steps = []
    from test_resume import stopping_at
    from toys import start

    from skipway.errors import Interrupted

    with pytest.raises(Interrupted):
        start(data, tmp_path / "run", event=stopping_at(3, steps), **choices)
    shutil.rmtree(copy)
    start(data, tmp_path / "run", event=stopping_at(None, steps), **choices)
    assert steps == list(range(1, 9))
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    api.train_run(order_of(data, tmp_path / "again", Request(plan=str(tmp_path / "run"))), lambda _: None)
    assert digest(tmp_path / "again") == digest(tmp_path / "run")


def test_other_classes_and_channels(data, first, tmp_path):
    other = tmp_path / "other"
    for folder in ("images", "masks"):
        (other / folder).mkdir(parents=True)
    for file in sorted((data / "images").iterdir()):
        image, mask = imread(file), imread(data / "masks" / file.name)
        imwrite(other / "images" / file.name, np.stack([image] * 3, -1), photometric="rgb")
        imwrite(other / "masks" / file.name, ((mask > 0) * (1 + mask % 2)).astype(np.uint8))
    code, out, err = skipway(
        "train",
        other,
        "-o",
        tmp_path / "run",
        "--from",
        first,
        "--steps",
        3,
        "--device",
        "cpu",
        "--task",
        "classes",
    )
    assert code == 0, err
    config = Run(tmp_path / "run").read("plan")["config"]
    assert (config["in_channels"], config["classes"]) == (3, 3)
    assert "repeated and divided" in out + err
    record = Run(tmp_path / "run").read("run")["start"]
    assert record["whole"] is False
    assert "score" not in record
    before, _ = read_tensors(first / "model.safetensors")
    copied, _ = read_tensors(tmp_path / "run" / "start.safetensors")
    same = [key for key in before if before[key].shape == copied[key].shape]
    assert len(same) >= len(before) - 4
    assert all((before[key] == copied[key]).all() for key in same)


# Weights.


def moved(labels, old=TWO, config=CONFIG, **change):
    torch.manual_seed(1)
    model = build("unet", **config).eval()
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    wanted = {**config, **change}
    found = transferred("unet", (config, old, tensors), (wanted, labels), seed=5)
    new = build("unet", **wanted).eval()
    new.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in found.tensors.items()})
    return model, new, found


def logits(model, image):
    with torch.no_grad():
        return model(image)[-1]


IMAGE = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def test_equal_classes_give_equal_logits_and_permuted_ones_permuted():
    model, new, found = moved(TWO)
    assert found.whole
    assert found.said == ()
    assert torch.equal(logits(model, IMAGE), logits(new, IMAGE))
    model, new, found = moved(LabelMap("classes", (0, 1), ("cell", "background")))
    assert found.whole
    torch.testing.assert_close(logits(model, IMAGE), logits(new, IMAGE).flip(1))


def test_a_new_class_is_drawn_and_the_others_are_kept():
    labels = LabelMap("classes", (0, 3, 7), ("background", "mitosis", "cell"))
    model, new, found = moved(labels, classes=3)
    assert not found.whole
    assert found.said == ("new classes: mitosis",)
    torch.testing.assert_close(logits(new, IMAGE)[:, [0, 2]], logits(model, IMAGE))
    again = moved(labels, classes=3)[1]
    assert torch.equal(logits(new, IMAGE), logits(again, IMAGE))


def test_grey_becomes_rgb_and_back_without_changing_what_a_grey_image_gives():
    model, new, found = moved(TWO, in_channels=3)
    torch.testing.assert_close(logits(new, IMAGE.repeat(1, 3, 1, 1)), logits(model, IMAGE))
    assert found.whole
    model, new, _ = moved(TWO, config={**CONFIG, "in_channels": 3}, in_channels=1)
    torch.testing.assert_close(logits(new, IMAGE), logits(model, IMAGE.repeat(1, 3, 1, 1)))
    _, _, found = moved(TWO, in_channels=4)
    assert not found.whole
    assert "from 1 to 4 channels: drawn anew" in found.said[0]


def test_one_sigmoid_and_two_softmax_channels_say_the_same():
    one = {**CONFIG, "classes": 1}
    model, new, found = moved(TWO, config=one, classes=2)
    assert found.whole
    torch.testing.assert_close(logits(new, IMAGE).softmax(1)[:, 1], logits(model, IMAGE).sigmoid()[:, 0])
    model, new, _ = moved(TWO, classes=1)
    torch.testing.assert_close(logits(new, IMAGE).sigmoid()[:, 0], logits(model, IMAGE).softmax(1)[:, 1])
    model, new, found = moved(TWO, config=one, classes=1)
    assert found.whole
    assert torch.equal(logits(model, IMAGE), logits(new, IMAGE))


def test_classes_go_by_name_then_by_value():
    old = LabelMap("classes", (0, 1, 2), ("sky", "car", "tree"))
    assert same_class(LabelMap("classes", (0, 1, 2), ("sky", "tree", "bus")), old) == (0, 2, None)
    assert same_class(LabelMap("classes", (0, 1), ("ground", "bus")), old) == (0, 1)
    sets = LabelMap("multilabel", (1, 2), ("car", "tree"))
    assert same_class(sets, old) == (None, None)


# Refusals.


def test_what_the_run_brings_along_cannot_be_named(first):
    with pytest.raises(UsageError, match="--from and --model, --width are both given"):
        Request(start=str(first), model="unet", width=8)
    for change in ({"plan": "p"}, {"pretrained": "cache"}, {"patch": 32}, {"options": {"norm": "batch"}}):
        with pytest.raises(UsageError, match="both given"):
            Request(start=str(first), **change)
    Request(start=str(first), learning_rate=1e-4, loss="ce-dice", batch=3, seed=4, seconds=9.0)


def test_runs_that_cannot_be_started_from(data, first, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(first, broken)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    empty = tmp_path / "empty"
    empty.mkdir()
    for place, text in (
        (tmp_path / "nowhere", "no such folder"),
        (empty, "not a run folder"),
        (broken, "its SHA-256 is not"),
    ):
        code, _, err = skipway("train", data, "-o", tmp_path / "run", "--from", place, "--steps", 2)
        assert code in (2, 3, 4), err
        assert text in err
        assert not (tmp_path / "run").exists()


def test_a_network_of_volumes_is_refused_for_flat_images(data, first):
    from skipway.training.start import Origin

    origin = Origin.read(first)
    deep = replace(origin, plan=replace(origin.plan, patch=(16, 16, 16)))

    class Flat:
        slices = 1

    with pytest.raises(UsageError, match="three axes"):
        deep.begin(origin.plan, Request(), Flat(), TWO)
    assert json.loads((first / "run.json").read_text())["finished"]
