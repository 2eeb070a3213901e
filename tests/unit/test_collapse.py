"""A network that has come to predict one thing everywhere is named, once, and no other is."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tifffile import imread, imwrite
from toys import TINY, draw, order_of, start

from skipway import api
from skipway.errors import Interrupted
from skipway.request import Request
from skipway.training import collapse
from skipway.training.collapse import EVERY, PATIENCE, Collapse

TARGET = torch.tensor([[[0, 1], [1, 0]]])
SPLIT = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])


def looked(watch, logits, target=TARGET, steps=range(1, 2 * EVERY * PATIENCE)):
    """Steps at which something was said, and what."""
    return [(step, text) for step in steps if (text := watch.look(step, logits, target))]


def softmax(*maps):
    return torch.stack(maps, 1)


def test_one_class_everywhere_is_named_once_with_the_step_at_which_it_began():
    watch = Collapse(("background", "cell"))
    good, bad = softmax(-SPLIT, SPLIT), softmax(SPLIT + 5, SPLIT)
    assert looked(watch, good, steps=range(1, 101)) == []
    found = looked(watch, bad, steps=range(101, 1000))
    assert [step for step, _ in found] == [100 + EVERY * PATIENCE]
    assert found[0][0] - 100 <= 200
    assert "since step 110 the network predicts background everywhere" in found[0][1]
    assert looked(watch, good, steps=range(1000, 1100)) == []
    assert len(looked(watch, bad, steps=range(1100, 1500))) == 1


def test_one_channel_is_judged_by_its_sign_and_sets_class_by_class():
    one = Collapse(("background", "cell"))
    assert "predicts cell everywhere" in looked(one, 3 + SPLIT[:, None])[0][1]
    assert looked(Collapse(("background", "cell")), SPLIT[:, None]) == []
    sets = Collapse(("heart", "lung"), overlapping=True)
    assert "predicts no class everywhere" in looked(sets, softmax(SPLIT - 5, SPLIT - 5))[0][1]
    sets = Collapse(("heart", "lung"), overlapping=True)
    assert "predicts lung everywhere" in looked(sets, softmax(SPLIT - 5, SPLIT + 5))[0][1]
    assert looked(Collapse(("heart", "lung"), overlapping=True), softmax(SPLIT - 5, SPLIT)) == []


def test_batches_of_one_class_say_nothing():
    bad = softmax(SPLIT + 5, SPLIT)
    assert looked(Collapse(("background", "cell")), bad, torch.zeros_like(TARGET)) == []
    assert looked(Collapse(("background", "cell")), bad, torch.where(TARGET == 1, 255, 0)) == []


def test_where_one_batch_in_five_holds_two_classes_it_is_named_within_200_steps():
    """As with micro-batches of one patch; the looks move to the batches that can tell."""
    for share in (2, 3, 5, 7):
        watch = Collapse(("background", "cell"))
        bad, blank = softmax(SPLIT + 5, SPLIT), torch.zeros_like(TARGET)
        found = [
            step
            for step in range(1, 1000)
            if watch.look(step, bad, blank if step % share else TARGET) is not None
        ]
        assert len(found) == 1
        assert found[0] <= 200 + EVERY


def test_a_warning_of_the_training_is_in_the_report_also_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "EVERY", 1)
    events = []
    stop = []

    def told(event):
        events.append(event)
        if event["event"] == "warning" and not stop:
            stop.append(event["text"])
            signal.raise_signal(signal.SIGTERM)

    data = draw(tmp_path)
    for again in (True, False):
        try:
            start(data, tmp_path / "run", steps=60, learning_rate=20.0, event=told)
        except Interrupted:
            assert again
    assert "everywhere" in stop[0]
    assert json.loads((tmp_path / "run/warnings.json").read_text())[0] == stop[0]
    page = (tmp_path / "run/report.html").read_text()
    assert page.count(stop[0].partition(":")[0]) == 1


@pytest.mark.parametrize(("rate", "named"), [(0.002, False), (20.0, True)])
def test_overlapping_classes_that_collapse_are_named_in_a_training(tmp_path, monkeypatch, rate, named):
    monkeypatch.setattr(collapse, "EVERY", 1)
    data = draw(tmp_path)
    for path in (data / "masks").iterdir():
        mask = imread(path)
        imwrite(path, (mask > 0) + 2 * (mask > 2).astype(np.uint8))
    request = Request(steps=60, **{**TINY, "loss": "ce-dice"}, learning_rate=rate)
    events = []
    api.train_run(replace(order_of(data, tmp_path / "run", request), task="multilabel"), events.append)
    said = [e["text"] for e in events if e["event"] == "warning" and "everywhere" in e["text"]]
    assert bool(said) == named, said


def test_a_rate_ten_thousand_times_too_high_is_named_during_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "EVERY", 1)
    said = {}
    for rate in (0.002, 20.0):
        events = []
        start(
            draw(tmp_path / f"{rate}"),
            tmp_path / f"run{rate}",
            steps=60,
            learning_rate=rate,
            event=events.append,
        )
        said[rate] = [e["text"] for e in events if e["event"] == "warning" and "everywhere" in e["text"]]
    assert said[0.002] == []
    assert len(said[20.0]) == 1
