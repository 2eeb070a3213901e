"""`skipway train` with groups and folds: what it says, what it stores, and what makes it another run."""

import json

import numpy as np
import pytest
import torch
from toys import WORDS, draw, skipway

from skipway import api
from skipway.data.augment import Augmentation
from skipway.data.sampling import BatchPlan, make_batch
from skipway.data.splits import Split
from skipway.losses import LOSSES
from skipway.runs import Run
from skipway.training import session
from skipway.training.claim import command_of
from skipway.training.dataset import TrainingSet
from skipway.training.prepare import Prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = draw(tmp_path_factory.mktemp("data"), count=8)
    table = folder / "tables" / "groups.csv"  # not beside the images, where it is read unasked
    table.parent.mkdir()
    table.write_text("name,patient\n" + "".join(f"c{k}.tif,P{k // 2}\n" for k in range(8)))
    return folder


def train(data, run, *words):
    code, out, err = skipway("train", data / "images", data / "masks", "-o", run, *WORDS, *words)
    return code, out + err


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("first") / "run"
    code, said = train(data, run, "--groups", data / "tables/groups.csv", "--fold", "2/4")
    assert code == 0, said
    return run, said


def test_train_says_and_stores_groups_and_fold(data, first):
    run, said = first
    assert "fold 2/4: 1 of 4 whole groups (patient in groups.csv)" in said
    assert "4, patient in groups.csv: P0, P1, P2, P3 [--groups]" in said
    stored = json.loads((run / "split.json").read_text())
    assert stored["groups"] == {f"c{k}": f"P{k // 2}" for k in range(8)}
    assert (stored["grouping"], stored["fold"]) == ("patient in groups.csv", "2/4")
    assert len(stored["val"]) == 2
    assert len({stored["groups"][name] for name in stored["val"]}) == 1
    again = Split.from_json(stored)
    assert again.to_json() == stored
    assert f"--groups {data / 'tables/groups.csv'} --fold 2/4" in command_of(Run(run))


def test_another_fold_or_other_groups_are_another_run(data, first):
    run, _ = first
    groups = ("--groups", data / "tables/groups.csv")
    code, said = train(data, run, *groups, "--fold", "2/4")
    assert code == 0
    assert "finished already" in said
    for words, expected in (
        ((*groups, "--fold", "3/4"), "fold 2/4 (now 3/4)"),
        (groups, "fold 2/4 (now not given)"),
        (("--fold", "2/4"), "(now not given)"),
        (("--groups", "none", "--fold", "2/4"), "(now none)"),
    ):
        code, said = train(data, run, *words)
        assert code == 2
        assert expected in said


def test_images_that_are_added_leave_an_earlier_split_as_it_was(data, first, tmp_path):
    run, _ = first
    more = draw(tmp_path / "more", count=8)
    extra = draw(tmp_path / "extra", count=3, first=50)
    for kind in ("images", "masks"):
        for k in range(3):
            (extra / kind / f"c{k}.tif").rename(more / kind / f"new_{k}x.tif")
    code, said = train(more, tmp_path / "run", "--val", run / "split.json")
    assert code == 0, said
    before, after = (json.loads((folder / "split.json").read_text()) for folder in (run, tmp_path / "run"))
    assert {*before["val"]} <= {*after["val"]}
    assert {*before["train"]} <= {*after["train"]}
    assert len(after["val"]) + len(after["train"]) == 11


def test_a_fold_that_cannot_be_writes_nothing(data, tmp_path):
    for words, code, said in (
        (("--fold", "7"), 2, "--fold 2/5"),
        (("--fold", "9/9"), 2, "9 folds of 8 images"),
        (("--groups", tmp_path / "nothing.csv"), 2, "--groups"),
    ):
        found, text = train(data, tmp_path / "run", *words)
        assert found == code
        assert said in text
        assert not (tmp_path / "run").exists()


def test_validation_sees_the_images_as_they_are(first):
    """L07: the same scores whatever the random state; what trains differs from draw to draw."""
    prepared = Prepared.read(Run(first[0]))
    net = api.load(first[0], "cpu").model
    watch = session._Watch(prepared, prepared.val_volumes, torch.device("cpu"), LOSSES["ce-dice"].function)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        found.append(watch(net))
    assert found[0] == found[1]
    assert found[0].loss is not None
    samples = TrainingSet(
        prepared.split.train_pairs[:1], prepared.task, prepared.normalisation, weighted=False
    )
    plan = BatchPlan(seed=0, batch_size=1, patch=(48, 48), augmentation=Augmentation(), n=1)
    images = [make_batch(samples, plan, k).image for k in (1, 2)]
    assert not torch.equal(*images)
