"""The same command goes on: whatever was asked for, what is finished stays as it is, and nothing else counts."""

import csv
import json

import numpy as np
import pytest
import tifffile
import torch
from streams import images, plain, predicted, predictor

from skipway import memory
from skipway.data.sources import Source
from skipway.errors import Interrupted, SkipwayError, StopAsked, fault_of
from skipway.predict import backends, cluster, shards
from skipway.predict.known import Known, Trained
from skipway.predict.options import StreamOptions
from skipway.predict.resume import Resume
from skipway.report.finish import _stopping


class AfterOne(list):
    """Events; a stop is asked for when the first file is written."""

    def append(self, event):
        super().append(event)
        if event["event"] == "file":
            raise StopAsked


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def three(tmp_path):
    return predictor(), images(tmp_path / "in", (70, 53), (33, 90), (40, 41))


@pytest.mark.parametrize("way", [plain, predicted])
def test_a_stopped_command_goes_on_with_what_is_left(three, tmp_path, way, monkeypatch):
    run, source = three
    monkeypatch.setattr(Known, "trained", lambda self, one: Trained((0,) * (one.path.stem == "i0"), 1))
    way(run, source, tmp_path / "whole")
    with pytest.raises(StopAsked):
        way(run, source, tmp_path / "out", AfterOne())
    left = contents(tmp_path / "out")
    assert set(left) == {"i0.tif", "labels.json", "review.csv"}
    assert json.loads(left["labels.json"])["trained"] == ["i0"]
    events = []
    way(run, source, tmp_path / "out", events)
    assert [event["name"] for event in events if event["event"] == "file"] == ["i1.tif", "i2.tif"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    table = (tmp_path / "out/review.csv").read_text()
    assert len(list(csv.DictReader(table.splitlines()))) == 3
    assert not (tmp_path / "out/.resume").exists()


def test_a_file_made_of_another_mask_or_image_is_made_again(three, tmp_path):
    run, source = three
    for name, value in (("one", 1), ("two", 0)):
        (tmp_path / name).mkdir()
        for k, size in enumerate(((70, 53), (33, 90), (40, 41))):
            tifffile.imwrite(tmp_path / name / f"i{k}.tif", np.full(size, value, np.uint8))
    look = StreamOptions(only=tmp_path / "one")
    with pytest.raises(StopAsked):
        predicted(run, source, tmp_path / "out", AfterOne(), stream=look)
    predicted(run, source, tmp_path / "other", stream=StreamOptions(only=tmp_path / "two"))
    again = StreamOptions(only=tmp_path / "two")
    with pytest.raises(SkipwayError, match="exist already"):  # not taken for its own
        predicted(run, source, tmp_path / "out", stream=again)
    predicted(run, source, tmp_path / "out", stream=again, overwrite=True)
    for k in range(3):
        assert (tmp_path / f"out/i{k}.tif").read_bytes() == (tmp_path / f"other/i{k}.tif").read_bytes()


def test_commands_that_share_a_folder_keep_what_they_noted(tmp_path):
    one, two = tmp_path / "one.tif", tmp_path / "two.tif"
    first, second = (Resume(tmp_path, lambda: {"network": 1}) for _ in range(2))
    for path, resume in ((one, first), (two, second)):
        path.write_bytes(b"labels")
        resume.note([path], [path])
    assert Resume(tmp_path, lambda: {"network": 1}).has([one], [one])
    assert not Resume(tmp_path, lambda: {"network": 2}).has([one], [one])
    second.clear([two])
    assert first.has([one], [one])
    assert not first.has([two], [two])
    one.write_bytes(b"corrected")
    assert not first.has([one], [one])
    first.clear([one])
    assert not (tmp_path / ".resume").exists()


def test_one_image_too_large_for_memory_does_not_stop_the_others(three, tmp_path, monkeypatch):
    run, source = three
    whole = type(run).predict_pages

    def full(self, image, unit, **more):
        if image.path.stem == "i1":
            torch.empty(2**58, dtype=torch.uint8)
        return whole(self, image, unit, **more)

    monkeypatch.setattr(type(run), "predict_pages", full)
    found = plain(run, source, tmp_path / "out")
    assert [path.name for path in found.written] == ["i0.tif", "i2.tif"]
    assert "not enough memory" in str(found.error)


@pytest.mark.parametrize("words", ["DefaultCPUAllocator: not enough memory: you tried", "CUDA out of memory"])
def test_what_says_that_memory_ran_out_is_a_fault_of_the_machine(words):
    assert "not enough memory" in str(fault_of(RuntimeError(words)))
    assert fault_of(RuntimeError("shapes differ")) is None


def test_the_budget_of_a_gpu_is_what_is_held_and_a_share_of_the_rest(monkeypatch):
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gib, 8 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * gib)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 6 * gib)
    assert memory.budget(torch.device("cuda"), None) == 6 * gib + int(memory.SHARE * 2 * gib)


def test_a_worker_with_other_weights_says_so(three, tmp_path, monkeypatch):
    run, source = three
    monkeypatch.setattr(cluster.Predictor, "load", staticmethod(lambda *_, **__: run))
    parts = ("run", Source(source / "i0.tif"), None, "last", None, "")
    cluster._loaded.cache_clear()
    told = cluster.Recipe(*parts, calibrated=False, device="cpu", identity="of another")
    monkeypatch.setattr(cluster.Recipe, "from_text", staticmethod(lambda text: told))
    with pytest.raises(SkipwayError, match="run: other weights than those of this prediction"):
        cluster._loaded("any")


def test_a_source_for_another_process_has_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    found = Source(Path("a.tif"), parts=(Path("b.tif"),)).absolute()
    assert (found.path, found.parts) == (tmp_path / "a.tif", (tmp_path / "b.tif",))


def test_a_stop_is_neither_a_damaged_shard_nor_a_backend_that_cannot(three, tmp_path, monkeypatch):
    def asked(*_, **__):
        raise StopAsked

    monkeypatch.setattr(shards.GrowingZarr, "read", asked)
    monkeypatch.setattr(shards.Shards, "_block", lambda self, number: ())
    with pytest.raises(StopAsked):
        shards.Shards(tmp_path, None, None)._holds(0, np.zeros(32, np.uint8))
    monkeypatch.setattr(backends, "built", asked)
    run, _ = three
    with pytest.raises(StopAsked):
        run.running("auto", "fp32", tiles=[torch.zeros(1, 1, 32, 32)])


def test_a_stop_after_the_last_step_is_kept(tmp_path):
    asked, told = [False], []
    event = _stopping(told.append, lambda: asked[0])
    event({"event": "file", "name": "a"})
    asked[0] = True
    with pytest.raises(Interrupted, match="type the same command to go on"):
        event({"event": "file", "name": "b"})
    assert [one["name"] for one in told] == ["a", "b"]
