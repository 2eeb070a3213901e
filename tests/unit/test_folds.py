"""Folds: every image validates once, the folds are runs of their own, and together they are one run."""

import os
import shutil
import signal
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from scipy import stats
from toys import TINY, WORDS, contents, digest, draw, one_thread, order_of, skipway, start, strays

from skipway import api
from skipway.errors import Interrupted, UsageError
from skipway.evaluation import evaluate
from skipway.folds import CLOSING, _Budget
from skipway.metrics.interval import mean_interval
from skipway.request import Request
from skipway.runs import Run
from skipway.weights import load_model

N = 3


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


def folded(data, run, *, event=lambda _: None, folds=N, **choices):
    """The tiny training in folds."""
    request = Request(**{"steps": 6, **TINY, **choices})
    order = order_of(data, run, request)
    return api.train_run(api.Order(**{**vars(order), "folds": folds}), event)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"), count=7)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Folds that were never stopped."""
    return folded(data, tmp_path_factory.mktemp("whole") / "run")


def test_every_image_validates_exactly_once_and_never_trains_in_its_fold(whole):
    splits = [fold.read("split") for fold in whole.run.folds]
    assert sorted(name for one in splits for name in one["val"]) == [f"c{k}" for k in range(7)]
    for number, one in enumerate(splits, start=1):
        assert one["fold"] == f"{number}/{N}"
        assert not {*one["train"]} & {*one["val"]}
    together = whole.run.read("split")
    assert together["folds"] == [one["val"] for one in splits]
    assert together["train"] == together["val"] == [f"c{k}" for k in range(7)]
    assert {fold.path.name for fold in whole.run.folds} == {"fold-1", "fold-2", "fold-3"}
    assert len({str(fold.read("plan")) for fold in whole.run.folds}) == 1


def test_the_score_is_that_of_all_images_out_of_fold(whole, data):
    found = whole.run.read("evaluation")
    alone = [evaluate(f.path / "validation", data / "masks", partly=True) for f in whole.run.folds]
    images = [image for one in alone for image in one.images]
    assert found["evaluation"]["n"] == len(images) == 7
    dice = mean(image.classes["1"].dice for image in images)
    assert 0.3 < dice < 1
    assert found["evaluation"]["classes"]["1"]["dice"] == pytest.approx(dice, abs=1e-12)
    scores = whole.run.read("scores")["score"]
    assert found["score"] == pytest.approx(mean(scores.values()), abs=1e-12)
    for fold, summary in zip(whole.run.folds, found["folds"]["folds"], strict=True):
        names = fold.read("split")["val"]
        assert summary["score"] == pytest.approx(mean(scores[name] for name in names), abs=1e-12)
        assert summary["baseline"] == fold.read("evaluation")["baseline"]
    assert found["folds"]["units"] == 7
    assert f"mean of {7} validation images" in whole.summary
    assert "folds      " in whole.summary


def test_the_interval_is_that_of_student_and_counts_groups_as_one():
    values = [0.61, 0.72, 0.9, 0.55, 0.8]
    low, high = stats.t.interval(0.95, 4, loc=mean(values), scale=stdev(values) / 5**0.5)
    assert mean_interval(values, range(5)) == pytest.approx((low, high), abs=1e-12)
    doubled = mean_interval([*values, *values], [*range(5), *range(5)])
    assert doubled == pytest.approx((low, high), abs=1e-12)  # twice the images, no more groups
    assert mean_interval([*values, *values], range(10))[0] > low
    assert mean_interval([0.5], ["a"]) is None


def test_the_report_of_the_whole_shows_each_fold(whole):
    page = (whole.run.path / "report.html").read_text()
    for text in ("fold 1", "fold 3", "all images, out of fold", "the one of 3 networks that never saw it"):
        assert text in page
    assert "the figures say nothing about new images" not in page
    assert 'class="main"' in page


def stopping_in(fold, step):
    """An event hook that sends this process SIGTERM after a step of a fold."""
    where = [0]

    def hear(event):
        if event["event"] == "line" and event["name"] == "fold":
            where[0] = int(event["text"].split()[0])
        if event["event"] == "step" and (where[0], event["step"]) == (fold, step):
            os.kill(os.getpid(), signal.SIGTERM)

    return hear


def test_stopped_in_a_fold_the_same_command_goes_on_there(data, whole, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="fold-2"):
        folded(data, run, event=stopping_in(2, 3))
    assert not Run(run).finished
    first = contents(run / "fold-1")
    steps, fold = [], [0]

    def hear(event):
        if event["event"] == "line" and event["name"] == "fold":
            fold[0] = event["text"].split()[0]
        if event["event"] == "step":
            steps.append((fold[0], event["step"]))

    folded(data, run, event=hear)
    assert steps == [("2", 4), ("2", 5), ("2", 6), *(("3", k) for k in range(1, 7))]
    assert contents(run / "fold-1") == first
    for number in (1, 2, 3):
        assert digest(run / f"fold-{number}") == digest(whole.run.path / f"fold-{number}")
    assert Run(run).read("evaluation") == whole.run.read("evaluation")
    assert strays(run) == []


def test_a_fold_is_the_run_that_its_own_command_goes_on_with(data, whole):
    before = contents(whole.run.path / "fold-2")
    words = [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
    words += ["--steps", "6", "--device", "cpu", "--task", "objects", "--fold", f"2/{N}"]
    code, _, err = skipway("train", data / "images", data / "masks", "-o", whole.run.path / "fold-2", *words)
    assert (code, "finished already" in err) == (0, True)
    after = contents(whole.run.path / "fold-2")
    assert {name for name in before if before[name] != after[name]} <= {
        str(whole.run.path / "fold-2" / "check.json")
    }


def test_a_finished_run_is_left_as_it_is(data, whole):
    before = contents(whole.run.path)
    again = folded(data, whole.run.path)
    assert again.score == whole.score
    assert {n for n in before if before[n] != contents(whole.run.path)[n]} <= {
        str(whole.run.path / "check.json")
    }


def test_what_folds_cannot_be_is_refused(data, whole, tmp_path):
    images, masks = data / "images", data / "masks"

    def refused(*words, run=tmp_path / "run"):
        code, _, text = skipway("train", images, masks, "-o", run, "--task", "objects", *WORDS, *words)
        assert code == 2
        return text

    assert "--folds: found 1, expected 2 or more" in refused("--folds", 1)
    assert "both --folds and --fold are given" in refused("--folds", 3, "--fold", "1/3")
    assert "both --folds and --val are given" in refused("--folds", 3, "--val", masks)
    assert "--folds: 8 folds of 7 images, expected at most 7" in refused("--folds", 8)
    groups = tmp_path / "groups.csv"
    groups.write_text("name,group\n" + "".join(f"c{k},{'ab'[k % 2]}\n" for k in range(7)))
    text = refused("--folds", 3, "--groups", groups)
    assert "--folds: 3 folds of 2 groups" in text
    assert not (tmp_path / "run").exists()
    assert "folds 3 (now not given)" in refused(run=whole.run.path)
    single = start(data, tmp_path / "single", steps=1).run.path
    assert "folds not given (now 3)" in refused("--folds", 3, "--steps", 1, run=single)
    code, _, text = skipway("prune", whole.run.path)
    assert (code, "fold-1" in text) == (2, True)


def test_a_run_of_folds_is_not_taken_for_a_run_of_one_network(data, whole, tmp_path):
    words = ("-o", tmp_path / "run", "--task", "objects", *WORDS)
    folder = whole.run.path
    code, _, text = skipway("train", data / "images", data / "masks", *words, "--val", folder / "split.json")
    assert (code, "all images of 3 folds" in text, "fold-1/split.json" in text) == (3, True, True)
    code, _, text = skipway(
        "train", data / "images", data / "masks", *words, "--val", folder / "fold-2" / "split.json"
    )
    assert code == 0, text
    assert Run(tmp_path / "run").read("split")["val"] == whole.run.folds[1].read("split")["val"]
    with pytest.raises(UsageError, match="a run of 3 folds, which has no weights of its own"):
        load_model(whole.run, torch.device("cpu"))


def test_groups_stay_whole_in_every_fold(data, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("name,group\n" + "".join(f"c{k},{'abc'[k % 3]}\n" for k in range(7)))
    code, out, _ = skipway(
        "train", data / "images", data / "masks", "-o", tmp_path / "run", "--task", "objects", *WORDS,
        "--folds", 3, "--groups", groups,
    )  # fmt: skip
    assert code == 0
    folds = Run(tmp_path / "run").read("split")["folds"]
    assert sorted(map(sorted, folds)) == [["c0", "c3", "c6"], ["c1", "c4"], ["c2", "c5"]]
    assert Run(tmp_path / "run").read("evaluation")["folds"]["unit"] == "groups"
    assert "by 3 groups" in out


def test_a_time_budget_is_divided_over_the_folds_that_remain(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("skipway.folds.time.perf_counter", lambda: now[0])
    budget = _Budget(1000.0, {}, began=100.0)
    assert budget.share(5) == pytest.approx(1000 * (1 - CLOSING) / 5)
    now[0] += 150.0  # the first fold needed less than it was given: the others get more
    assert budget.share(4) == pytest.approx((990 - 150) / 4)
    stopped = _Budget(1000.0, {"fold-1": 150.0, "fold-2": 210.0}, began=now[0])
    assert stopped.share(3) == pytest.approx((990 - 360) / 3)
    now[0] += 5000.0
    assert stopped.share(3) == 1.0  # something has to be trained
    assert _Budget(None, {}, 0.0).share(2) is None


def test_the_time_given_to_a_fold_outlives_a_stop(data, tmp_path):
    run = tmp_path / "run"
    budget = {"steps": None, "seconds": 6.0, "folds": 2}
    with pytest.raises(Interrupted):
        folded(data, run, event=stopping_in(1, 2), **budget)
    given = Run(run / "fold-1").read("run")["asked"]["seconds"]
    assert 1 <= given < 6 * (1 - CLOSING) / 2
    shutil.rmtree(run / "fold-2", ignore_errors=True)
    folded(data, run, **budget)
    assert Run(run / "fold-1").read("run")["asked"]["seconds"] == given
    used = Run(run).read("folds")
    second = Run(run / "fold-2").read("run")["asked"]["seconds"]
    assert used["fold-1"] >= given
    assert second <= max(1.0, 6 * (1 - CLOSING) - used["fold-1"])
    assert Run(run).finished
    assert Path(run / "report.html").is_file()
    assert np.isfinite(Run(run).read("evaluation")["evaluation"]["pixel_error"])


def test_unequal_folds_are_a_fault_of_the_program_not_a_result(monkeypatch, data, tmp_path):
    monkeypatch.setattr("skipway.folds.divide", lambda order, checked, seed: _first(order, checked, seed))
    with pytest.raises(ValueError, match="every image once"):
        folded(data, tmp_path / "run")


def _first(order, checked, seed):
    from skipway.training.prepare import divide

    return divide(api.Order(**{**vars(order), "fold": "1/3"}), checked, seed)


def test_from_python(data, tmp_path):
    with pytest.raises(UsageError, match="--folds"):
        api.train(data / "images", data / "masks", tmp_path / "run", folds=0)
