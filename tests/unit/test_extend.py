"""A finished run goes on by a longer length, exactly, and never for the worse."""

import json

import pytest
from test_resume import stop_and_go_on
from toys import digest, draw, one_thread, start

from skipway import api
from skipway.errors import UsageError
from skipway.report import finish
from skipway.runs import Run, read_tensors


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    one_thread()
    return draw(tmp_path_factory.mktemp("data"))


def always_better(monkeypatch):
    monkeypatch.setattr(finish, "full_score", lambda *_: 2.0)


def steps_of(run):
    return [int(row["step"]) for row in Run(run).metrics()]


def extended(data, run, event=lambda _: None):
    start(data, run, steps=10)
    start(data, run, steps=22, event=event)


def test_the_rest_is_trained_and_noted_and_repeats_by_its_plan(data, tmp_path, monkeypatch):
    always_better(monkeypatch)
    events = []
    run = tmp_path / "run"
    extended(data, run, events.append)
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(11, 23))
    record, plan = Run(run).read("run"), Run(run).read("plan")
    assert [(part["steps"], part["kept"]) for part in record["lengths"]] == [(10, True), (22, True)]
    assert record["asked"]["steps"] == plan["steps"] == 22
    assert [leg["begin"] for leg in plan["legs"]] == [0, 10]
    assert steps_of(run)[-1] == 22
    assert steps_of(run) == sorted(steps_of(run))
    assert read_tensors(run / "model.safetensors")[1]["step"] == 22
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    from toys import order_of

    from skipway.request import Request

    api.train_run(order_of(data, tmp_path / "again", Request(plan=str(file))), lambda _: None)
    assert digest(tmp_path / "again") == digest(run)


def test_stopped_in_the_middle_of_it_equals_never_stopped(data, tmp_path, monkeypatch):
    always_better(monkeypatch)
    extended(data, tmp_path / "whole")
    start(data, tmp_path / "run", steps=10)
    assert stop_and_go_on(data, tmp_path / "run", 13, 19, steps=22) == list(range(11, 23))
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


def test_worse_weights_do_not_replace_those_of_the_finished_run(data, tmp_path, monkeypatch):
    run, events = tmp_path / "run", []
    start(data, run, steps=10)
    before, plan = (run / "model.safetensors").read_bytes(), Run(run).read("plan")
    evaluation = Run(run).read("evaluation")
    monkeypatch.setattr(finish, "full_score", lambda *_: -1.0)
    start(data, run, steps=22, event=events.append)
    assert (run / "model.safetensors").read_bytes() == before
    assert Run(run).read("plan") == plan
    compared = {"score": evaluation["score"], "trained": -1.0, "kept": False}
    assert Run(run).read("evaluation") == {**evaluation, "start": compared}
    assert any("the old weights stay" in e.get("text", "") for e in events)
    assert [part["kept"] for part in Run(run).read("run")["lengths"]] == [True, False]
    said = []
    start(data, run, steps=22, event=said.append)
    assert not [e for e in said if e["event"] == "step"]
    monkeypatch.setattr(finish, "full_score", lambda *_: 2.0)
    start(data, run, steps=30, event=said.append)  # from the weights that were kept
    assert [e["step"] for e in said if e["event"] == "step"] == list(range(11, 31))


def test_no_longer_length_trains_and_other_differences_are_refused(data, tmp_path):
    run = tmp_path / "run"
    start(data, run, steps=10)
    for length in ({"steps": 10}, {"steps": 4}, {"steps": None, "seconds": 0.01}):
        said = []
        start(data, run, event=said.append, **length)
        assert not [e for e in said if e["event"] == "step"]
        assert any("name a longer --steps or --time" in e.get("text", "") for e in said)
    with pytest.raises(UsageError, match="seed 0 \\(now 1\\)"):
        start(data, run, steps=22, seed=1)


def test_a_longer_time_adds_what_is_missing(data, tmp_path, monkeypatch):
    always_better(monkeypatch)
    run, said = tmp_path / "run", []
    start(data, run, steps=6)
    spent = Run(run).read("run")["lengths"][0]["seconds"]
    start(data, run, steps=None, seconds=spent + 6, event=said.append)
    steps = [e["step"] for e in said if e["event"] == "step"]
    assert steps == list(range(7, steps[-1] + 1))
    assert len(steps) > 3
    lengths = Run(run).read("run")["lengths"]
    assert lengths[1]["steps"] == steps[-1]
    assert spent < lengths[1]["seconds"] < spent + 9
