"""`--plan`: a training repeated by the plan of another run, to the bit; and plans that cannot be."""

import json

import pytest
from toys import digest, draw, one_thread, skipway

NUMBERS = ("--width", 4, "--depth", 2, "--patch", 32, "--batch", 3, "--lr", 0.003, "--seed", 5)


def train(data, run, *words):
    code, out, err = skipway("train", data / "images", data / "masks", "-o", run, "--device", "cpu", *words)
    return code, out + err


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    one_thread()
    run = tmp_path_factory.mktemp("first") / "run"
    code, said = train(data, run, *NUMBERS, "--steps", 6)
    assert code == 0, said
    return run


def test_a_plan_repeats_its_run_to_the_bit(data, first, tmp_path):
    for name, place in (("one", first), ("two", first / "plan.json")):
        code, said = train(data, tmp_path / name, "--plan", place)
        assert code == 0, said
        assert digest(tmp_path / name) == digest(first)
        assert json.loads((tmp_path / name / "plan.json").read_text()) == json.loads(
            (first / "plan.json").read_text()
        )
        assert json.loads((tmp_path / name / "split.json").read_text()) == json.loads(
            (first / "split.json").read_text()
        )


def test_a_number_that_is_edited_is_used(data, first, tmp_path):
    plan = json.loads((first / "plan.json").read_text())
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(plan | {"learning_rate": 0.001}))
    code, said = train(data, tmp_path / "run", "--plan", file, "--steps", 2)
    assert code == 0, said
    now = json.loads((tmp_path / "run/plan.json").read_text())
    assert now == plan | {"learning_rate": 0.001, "steps": 2, "warmup": 1}
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert max(float(row.split(",")[2]) for row in rows[1:]) <= 0.001


def test_the_steps_that_a_time_became_are_repeated(data, first, tmp_path):
    code, said = train(data, tmp_path / "run", *NUMBERS, "--time", "3s")
    assert code == 0, said
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["seconds"] == 3
    assert plan["steps"] == int((tmp_path / "run/metrics.csv").read_text().splitlines()[-1].split(",")[0])
    code, said = train(data, tmp_path / "again", "--plan", tmp_path / "run")
    assert code == 0, said
    assert json.loads((tmp_path / "again/plan.json").read_text()) == plan | {"seconds": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": -1}, "lr: found -1"),
        ({"model": "unett"}, "unett"),
        ({"loss": "dices"}, "loss: found 'dices'"),
        ({"patch": [33, 32]}, "patch: found 33×32"),
        ({"patch": "32"}, "damaged plan"),
        ({"batch": "4"}, "damaged plan"),
        ({"precision": "fp64"}, "precision: found 'fp64'"),
        ({"ema": 2}, "ema: found 2"),
        ({"warmup": 0}, "warmup: found 0"),
        ({"steps": None, "seconds": None}, "steps, seconds: neither"),
        ({"augmentation": {"flip": True}}, "damaged plan"),
        ({"config": {}}, "config: no classes, in_channels"),
        ({"more": 1}, "more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_plan_that_cannot_be_is_refused_by_name(data, first, tmp_path, change, said):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(json.loads((first / "plan.json").read_text()) | change))
    code, text = train(data, tmp_path / "run", "--plan", file)
    assert code in (2, 3)
    assert said in text
    assert "mine.json" in text
    assert not (tmp_path / "run").exists()


def test_a_plan_for_other_data_or_beside_other_flags_is_refused(data, first, tmp_path):
    for words, said in (
        (("--plan", first, "--model", "unet_e"), "--model and --plan are both given"),
        (("--plan", first, "--set", "norm=batch"), "--set norm and --plan are both given"),
        (("--plan", tmp_path / "nothing"), "no such plan"),
        (("--plan", first, "--colour", "rgb"), "a plan for 1 channels, expected images of 3"),
    ):
        code, text = train(data, tmp_path / "run", *words, "--steps", 1)
        assert (code, said in text) == (2, True), text
