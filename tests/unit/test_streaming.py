"""Predicting region by region: the labels of the plain way, resumed to the bit, in the memory that was said."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import streamed_memory
import tifffile
import torch
import toys
from streams import Nursery, images, plain, predicted, predictor

from skipway import api, disk, regions
from skipway.errors import DataError, EnvironmentFault, Problem, UsageError
from skipway.images import open_mask
from skipway.memory import amount
from skipway.models import build
from skipway.parts import Part
from skipway.predict import flow as flows
from skipway.predict import journal as journals
from skipway.predict import making, streaming
from skipway.predict.files import predict_files
from skipway.predict.options import FileOptions, StreamOptions
from skipway.predict.pixels import PagePixels


def labels(path):
    with open_mask(path) as mask:
        return np.stack([mask.read(page)[0] for page in range(mask.pages)])


ENGINES = pytest.mark.parametrize("engine", ["tiles", "strips"])


@pytest.fixture
def short_stretches(monkeypatch):
    """Several flows of strips in toy images."""
    monkeypatch.setattr(regions, "REACH", 1)


@ENGINES
@pytest.mark.parametrize("task", ["classes", "objects", "multilabel"])
@pytest.mark.parametrize(("ndim", "pages"), [(2, 0), (2, 3), (3, 9)])
def test_masks_equal_those_of_the_plain_way(
    tmp_path, small_regions, short_stretches, task, ndim, pages, engine
):
    run = predictor(task, ndim, values=(1, 2, 4) if task == "multilabel" else (0, 7, 300))
    source = images(tmp_path / "in", (70, 53), (33, 90), pages=pages)
    one = plain(run, source, tmp_path / "plain")
    events = []
    step = {"tiles": 20 if ndim == 2 else 16, "strips": 8 if ndim == 2 else 2}[engine]
    two = predicted(run, source, tmp_path / "stream", events, tile=step, engine=engine)
    assert (len(one.written), len(two.written)) == (2, 2)
    assert len([event for event in events if event["event"] == "region"]) >= 8
    (said, *_) = [event["text"] for event in events if event.get("name") == "stream"]
    assert ("strips of" in said) == (engine == "strips")
    files = sorted(p.relative_to(tmp_path / "plain") for p in (tmp_path / "plain").rglob("*.tif"))
    assert len(files) == (6 if task == "multilabel" else 2)
    kinds = 0
    for file in files:
        a, b = labels(tmp_path / "plain" / file), labels(tmp_path / "stream" / file)
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
        kinds += len(np.unique(a))
    assert kinds > 4
    assert two.certificate.tiles > 1
    assert two.certificate.holds
    assert not (tmp_path / "stream" / ".resume").exists()
    assert (tmp_path / "stream/labels.json").read_bytes() == (tmp_path / "plain/labels.json").read_bytes()


@pytest.mark.parametrize(("tile", "engine"), [(16, None), (48, None), (4, "strips")])
def test_the_review_is_that_of_the_plain_way(tmp_path, small_regions, short_stretches, tile, engine):
    run, source = predictor(), images(tmp_path / "in", (70, 53), (33, 90), pages=2)
    plain(run, source, tmp_path / "plain")
    predicted(run, source, tmp_path / "stream", tile=tile, engine=engine)
    texts = ((tmp_path / name / "review.csv").read_text() for name in ("plain", "stream"))
    one, two = (list(csv.DictReader(text.splitlines())) for text in texts)
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert (a["file"], a["page"], a["reason"]) == (b["file"], b["page"], b["reason"])
        for key in ("look_first", "expected_score", "entropy"):
            assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-6)


def test_a_run_is_no_place_for_masks(tmp_path):
    """Its `labels.json` would be replaced by that of the masks."""
    source = images(tmp_path / "in", (70, 53))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    with pytest.raises(
        UsageError, match="the output is a run folder.* Fix: give a folder of its own with -o"
    ):
        plain(predictor(), source, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_small_files_are_the_same_to_the_byte(tmp_path):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    plain(run, source, tmp_path / "plain")
    predicted(run, source, tmp_path / "stream", stream=StreamOptions(ram=4 << 30))
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "stream" / file.name).read_bytes() == file.read_bytes()


def test_objects_of_classes_are_asked_for(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    plain(run, source, tmp_path / "plain", objects=True)
    predicted(run, source, tmp_path / "stream", objects=True, tile=16)
    assert np.array_equal(labels(tmp_path / "plain/i0.tif"), labels(tmp_path / "stream/i0.tif"))


@pytest.mark.parametrize(("ndim", "pages"), [(2, 0), (2, 3), (3, 9)])
def test_probabilities_and_logits_are_those_of_the_plain_way(tmp_path, small_regions, ndim, pages):
    run, source = predictor(ndim=ndim), images(tmp_path / "in", (40, 53), pages=pages)
    plain(run, source, tmp_path / "plain", probabilities=True)
    wanted = tifffile.imread(tmp_path / "plain/i0_probabilities.tif")
    for kind, error in (("float32", 1e-6), ("uint16", 0.6 / 65535), ("uint8", 0.51 / 255)):
        predicted(run, source, tmp_path / kind, stream=StreamOptions(quantity=kind), tile=16)
        found = tifffile.imread(tmp_path / kind / "i0_probabilities.tif")
        assert found.dtype == kind
        scale = {"uint8": 255, "uint16": 65535}.get(kind, 1)
        assert np.abs(found / scale - wanted).max() <= error
    predicted(run, source, tmp_path / "logits", stream=StreamOptions(quantity="logits"))
    found = torch.from_numpy(tifffile.imread(tmp_path / "logits/i0_logits.tif"))
    assert np.allclose(torch.softmax(found, -3).numpy(), wanted, atol=1e-6)
    predicted(run, source, tmp_path / "both", probabilities=True)
    assert np.allclose(tifffile.imread(tmp_path / "both/i0_probabilities.tif"), wanted, atol=1e-6)


def test_zarr_is_written_when_asked_for(tmp_path, small_regions):
    pytest.importorskip("zarr")
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    plain(run, source, tmp_path / "plain")
    summary = predicted(run, source, tmp_path / "stream", stream=StreamOptions(format="zarr"))
    assert summary.written == (tmp_path / "stream/i0.zarr",)
    assert np.array_equal(labels(tmp_path / "stream/i0.zarr"), labels(tmp_path / "plain/i0.tif"))


def test_an_ome_zarr_is_read_by_windows_and_answered_by_one(tmp_path, small_regions):
    zarr = pytest.importorskip("zarr")
    run, image = predictor(), np.random.default_rng(0).integers(0, 255, (70, 53)).astype(np.uint8)
    root = zarr.open_group(tmp_path / "in/a.ome.zarr", mode="w", zarr_format=3)
    root.create_array("0", shape=image.shape, dtype=image.dtype, chunks=(16, 16))[:] = image
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    assert plain(run, tmp_path / "in", tmp_path / "plain").written == (tmp_path / "plain/a.tif",)
    (written,) = predicted(run, tmp_path / "in", tmp_path / "out", tile=16).written
    assert written == tmp_path / "out/a.zarr"
    assert np.array_equal(labels(written)[0], run.predict(image))
    with open_mask(written) as mask:
        assert mask.geometry.spacing == (0.5, 0.25)


class Killed(BaseException):
    """As a signal would."""


def stopping_after(monkeypatch, regions):
    add, left = journals.Journal.add, [regions]

    def stopping(self, number, arrays):
        if not self.path.name.endswith(".pieces"):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return add(self, number, arrays)

    monkeypatch.setattr(journals.Journal, "add", stopping)


@pytest.fixture
def stopped(tmp_path, small_regions, monkeypatch):
    """A prediction of two images that was stopped in the second, and the masks of one that was not."""
    run, source = predictor("objects"), images(tmp_path / "in", (70, 53), (60, 61))
    predicted(run, source, tmp_path / "whole", tile=16)
    with monkeypatch.context() as patch:
        stopping_after(patch, 20 + 5)
        with pytest.raises(Killed):
            predicted(run, source, tmp_path / "out", tile=16)
    assert labels(tmp_path / "out/i0.tif").any()
    assert not (tmp_path / "out/i1.tif").exists()
    return run, source, tmp_path / "out", tmp_path / "whole"


def regions_of(events):
    return [event["done"] for event in events if event["event"] == "region"]


def same_files(one, two):
    found = [
        {Path(path).relative_to(folder): data for path, data in toys.contents(folder).items()}
        for folder in (one, two)
    ]
    return bool(found[0]) and found[0] == found[1]


def test_the_same_command_goes_on_and_ends_with_the_same_bytes(stopped):
    run, source, output, whole = stopped
    events = []
    predicted(run, source, output, events, tile=16)
    assert regions_of(events) == list(range(6, 17))  # 16 regions of the second image, 5 were there
    said = [event["text"] for event in events if event.get("name") == "resume"]
    assert said == ["1 files are finished", "i1.tif: 5 of 16 regions are there"]
    written = ["i0.tif", "i1.tif", "labels.json", "review.csv"]
    assert sorted(p.name for p in output.iterdir()) == written
    assert all((output / name).read_bytes() == (whole / name).read_bytes() for name in written)
    with pytest.raises(UsageError, match="exist already"):
        predicted(run, source, output, tile=16)


def test_killed_between_the_file_and_the_note_of_it_the_same_command_goes_on(
    tmp_path, small_regions, monkeypatch
):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    predicted(run, source, tmp_path / "whole", tile=16)

    def killed(self, targets, source, flow):
        flow.journal.close()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(streaming.Streaming, "_done", killed)
        with pytest.raises(Killed):
            predicted(run, source, tmp_path / "out", tile=16)
    assert (tmp_path / "out/i0.tif").exists()
    predicted(run, source, tmp_path / "out", tile=16)
    assert same_files(tmp_path / "out", tmp_path / "whole")


def test_half_written_files_of_writers_that_are_gone_are_swept(stopped):
    run, source, output, whole = stopped
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = disk._machine()
    (kept,) = (output / ".resume").glob("*.regions")
    for name in (".skipway-tmp-review.csv", ".resume/.skipway-tmp-finished.json", f".resume/{kept.name}"):
        owner = f"{gone.pid}-0" if kept.name in name else f"{here}-{gone.pid}"
        (output / f"{name}.{owner}").write_bytes(b"half")
    alive = [
        output / f".skipway-tmp-review.csv.{who}" for who in (f"{here}-{os.getppid()}", f"012345-{gone.pid}")
    ]
    for path in alive:  # the second is another machine's
        path.write_bytes(b"half")
    predicted(run, source, output, tile=16)
    for path in alive:
        assert path.read_bytes() == b"half"
        path.unlink()
    assert not (output / ".resume").exists()
    assert same_files(output, whole)


def test_a_damaged_region_is_found_and_made_again(stopped):
    run, source, output, whole = stopped
    (kept,) = (output / ".resume").glob("*.regions")
    data = bytearray(kept.read_bytes())
    data[data.rindex(b"SKRG") + 90] ^= 16
    kept.write_bytes(data)
    events = []
    predicted(run, source, output, events, tile=16)
    assert len(regions_of(events)) == 12
    assert "1 damaged" in "".join(event.get("text", "") for event in events)
    assert (output / "i1.tif").read_bytes() == (whole / "i1.tif").read_bytes()


@pytest.mark.parametrize("what", ["weights", "image", "option"])
def test_what_belongs_to_something_else_is_not_gone_on_with(stopped, what, tmp_path):
    run, source, output, _ = stopped
    options = {"tile": 16}
    if what == "weights":
        run = predictor("objects", seed=1)
    elif what == "option":
        options = {"tile": 32}
    else:
        image = tifffile.imread(source / "i1.tif")
        image[0, 0] ^= 1
        tifffile.imwrite(source / "i1.tif", image)
    if what != "image":
        with pytest.raises(UsageError, match="exist already"):
            predicted(run, source, output, **options)
        options["overwrite"] = True
    events = []
    predicted(run, source, output, events, **options)
    assert any("begun anew, for another" in event.get("text", "") for event in events)
    plain(run, source, tmp_path / "plain")
    for name in ("i0.tif", "i1.tif"):
        assert np.array_equal(labels(output / name), labels(tmp_path / "plain" / name))


def test_a_file_that_breaks_midway_is_said_and_the_others_are_made(tmp_path, small_regions, monkeypatch):
    run, source = predictor(), images(tmp_path / "in", (70, 53), (60, 61), (40, 40))
    read, times = PagePixels.read, [0]

    def broken(self, window):
        times[0] += (here := self.image.path.name == "i1.tif")
        if here and times[0] == 9:
            raise DataError(Problem("a tile that cannot be read", "i1.tif"))
        return read(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(PagePixels, "read", broken)
        summary = predicted(run, source, tmp_path / "out", tile=16)
    assert [path.name for path in summary.written] == ["i0.tif", "i2.tif"]
    (error,) = summary.failed
    assert "regions are kept" in str(error)
    assert not (tmp_path / "out/i1.tif").exists()
    events = []
    again = predicted(run, source, tmp_path / "out", events, tile=16)
    assert [path.name for path in again.written] == ["i1.tif"]
    assert 0 < len(regions_of(events)) < 16
    assert not (tmp_path / "out/.resume").exists()


def test_room_on_the_disk_is_asked_for_before_the_first_tile(tmp_path, monkeypatch):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    usage = flows.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(flows.shutil, "disk_usage", lambda _: usage)
    events = []
    with pytest.raises(EnvironmentFault, match="bytes are needed for i0.tif and 100 are free"):
        predicted(run, source, tmp_path / "out", events)
    assert not regions_of(events)
    assert not list((tmp_path / "out").glob("**/*.regions"))


def test_a_budget_that_nothing_fits_into_is_refused_with_one_that_does(tmp_path):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    with pytest.raises(UsageError, match="too little for a tile of") as caught:
        predicted(run, source, tmp_path / "out", stream=StreamOptions(ram=50 << 20))
    (problem,) = caught.value.problems
    assert problem.where == "--ram"
    enough = problem.fix.split()[-1]
    predicted(run, source, tmp_path / "out", stream=StreamOptions(ram=int(1.1 * amount(enough))))
    assert (tmp_path / "out/i0.tif").exists()
    with pytest.raises(UsageError, match="a CUDA device"):
        predicted(run, source, tmp_path / "gpu", stream=StreamOptions(vram=1 << 30))


def test_the_command_line_takes_it_all(tmp_path):
    data, run = toys.draw(tmp_path / "data", count=3), tmp_path / "run"
    toys.start(data, run, steps=2)
    code, _, said = toys.skipway("predict", run, data / "images", "-o", tmp_path / "a", "--device", "cpu")
    assert code == 0, said
    words = ("--ram", "4G", "--quantised", "uint8", "--json", "--device", "cpu")
    code, out, said = toys.skipway("predict", run, data / "images", "-o", tmp_path / "b", *words)
    assert code == 0, said
    events = [json.loads(line) for line in out.splitlines()]
    regions = [event for event in events if event["event"] == "region"]
    assert len(regions) == 3
    assert set(regions[0]) == {"event", "name", "done", "of", "left"}
    for file in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()
    assert tifffile.imread(tmp_path / "b/c0_probabilities.tif").dtype == np.uint8
    code, _, said = toys.skipway("predict", run, data / "images", "-o", tmp_path / "c", "--ram", "60M")
    assert code == 2
    assert "at least" in said
    assert api.FileOptions().stream.asked is False


def test_only_where_a_mask_says_to_look(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53), pages=2)
    plain(run, source, tmp_path / "plain", probabilities=True)
    mask = np.zeros((2, 70, 53), np.uint8)
    mask[0, 10:45, 17:30] = 1
    (tmp_path / "look").mkdir()
    tifffile.imwrite(tmp_path / "look/i0.tif", mask, photometric="minisblack", metadata={"axes": "ZYX"})
    events, stream = [], StreamOptions(only=tmp_path / "look")
    predicted(run, source, tmp_path / "out", events, stream=stream, probabilities=True, tile=16)
    whole, found = labels(tmp_path / "plain/i0.tif"), labels(tmp_path / "out/i0.tif")
    assert np.array_equal(found, np.where(mask, whole, 0))
    assert (found != 0).sum() > 100
    shares = tifffile.imread(tmp_path / "out/i0_probabilities.tif")
    wanted = tifffile.imread(tmp_path / "plain/i0_probabilities.tif")
    one = np.array([1, 0, 0], np.float32)[None, :, None, None]
    assert np.allclose(shares, np.where(mask[:, None], wanted, one), atol=1e-6)
    rows = []
    for name, tile in (
        ("out", 16),
        ("large", 64),
    ):  # who looks nowhere else judges nothing else, in any regions
        if name == "large":
            predicted(run, source, tmp_path / name, stream=stream, tile=tile)
        table = (tmp_path / name / "review.csv").read_text()
        rows.append({row["page"]: row for row in csv.DictReader(table.splitlines())})
    assert rows[0]["1"]["reason"].startswith("nothing found")
    for key in ("expected_score", "entropy"):
        assert float(rows[0]["0"][key]) == pytest.approx(float(rows[1]["0"][key]), rel=1e-5)
    where = np.nonzero(mask[0])
    inside = wanted[0][:, where[0], where[1]]
    entropy = -(inside * np.log(inside)).sum(0).mean() / np.log(3)
    assert float(rows[0]["0"]["entropy"]) == pytest.approx(entropy, rel=1e-3)
    with pytest.raises(UsageError, match="0 masks for i0.tif"):
        predicted(run, source, tmp_path / "b", stream=StreamOptions(only=tmp_path / "plain/.."))
    with pytest.raises(UsageError, match="has no logits"):
        StreamOptions(only=tmp_path, quantity="logits")


def test_empty_regions_are_background_and_cost_no_pass(tmp_path, small_regions, monkeypatch):
    run = predictor()
    (tmp_path / "in").mkdir()
    image = np.full((64, 64), 230, np.uint8)
    image[16:32, 32:48] = np.random.default_rng(0).integers(0, 255, (16, 16))
    image[0:16] += np.random.default_rng(0).integers(0, 5, (16, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "in/i0.tif", image)
    plain(run, tmp_path / "in", tmp_path / "plain")
    seen, fill = [], making.Making._fill
    monkeypatch.setattr(making.Making, "_fill", lambda *a: (seen.append(a[2]), fill(*a)))
    stream = StreamOptions(skip_empty=True)
    predicted(run, tmp_path / "in", tmp_path / "out", stream=stream, tile=16)
    whole, found = labels(tmp_path / "plain/i0.tif")[0], labels(tmp_path / "out/i0.tif")[0]
    assert seen == [(slice(16, 32), slice(32, 48))]
    wanted = np.zeros_like(whole)
    wanted[16:32, 32:48] = whole[16:32, 32:48]
    assert np.array_equal(found, wanted)
    assert found.any()


@pytest.mark.parametrize("axes", ["TYX", "TCYX"])
def test_frames_of_a_time_series_are_predicted_one_by_one(tmp_path, small_regions, axes):
    channels = 2 if "C" in axes else 1
    run, rng = predictor(channels=channels), np.random.default_rng(0)
    film = rng.integers(0, 255, (4, channels, 40, 50)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    kept = film if "C" in axes else film[:, 0]
    tifffile.imwrite(
        tmp_path / "in/film.ome.tif", kept, ome=True, metadata={"axes": axes}, photometric="minisblack"
    )
    predicted(run, tmp_path / "in", tmp_path / "out", tile=16)
    found = labels(tmp_path / "out/film.ome.tif")
    assert np.array_equal(found, np.stack([run.predict(frame) for frame in film]))
    assert len(np.unique(found)) == 3


def test_an_image_that_would_not_fit_goes_region_by_region_unasked(tmp_path, small_regions, monkeypatch):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    plain(run, source, tmp_path / "plain", probabilities=True)
    monkeypatch.setattr(streaming, "_WHOLE", {False: 1 << 40, True: 1 << 40})
    events = []
    options = FileOptions(probabilities=True, tile=16)
    predict_files(run, source, tmp_path / "out", options, events.append)
    assert len(regions_of(events)) == 20
    assert np.array_equal(labels(tmp_path / "out/i0.tif"), labels(tmp_path / "plain/i0.tif"))
    name = "i0_probabilities.tif"
    assert np.allclose(
        tifffile.imread(tmp_path / "out" / name), tifffile.imread(tmp_path / "plain" / name), atol=1e-6
    )
    assert not (tmp_path / "out/.resume").exists()
    with pytest.raises(UsageError, match="exist already"):
        predict_files(run, source, tmp_path / "out", options, events.append)


@pytest.mark.slow
@ENGINES
def test_peak_memory_does_not_grow_with_the_height_and_keeps_the_budget(tmp_path, engine):
    budget, peaks = 1 << 30, []
    script = Path(__file__).with_name("streamed_memory.py")
    for height in (4096, 4 * 4096, 16 * 4096):
        source = tmp_path / f"in{height}"
        source.mkdir()
        streamed_memory.write(source / "a.tif", height, "tiled")
        words = [
            sys.executable,
            str(script),
            str(source),
            str(tmp_path / f"out{height}"),
            str(budget),
            engine,
        ]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        peaks.append(int(said.split()[0]))
    assert max(peaks) <= budget
    assert max(peaks) <= 1.05 * min(peaks)


def killed_often(folder, times, seed, way):
    """Predictions that are killed at random moments, again and again, until each is finished."""
    source, rng = images(folder / "in", (120, 130), (90, 70)), np.random.default_rng(seed)
    kills = rounds = 0
    with Nursery() as nursery:
        first = nursery.live(source, folder / "whole", way=way)
        assert first["code"] == 0
        while kills < times:
            output, rounds = folder / f"out{rounds}", rounds + 1
            while True:
                late = float(rng.uniform(0, first["lived"])) if kills < times else None
                life = nursery.live(source, output, late, way)
                if life["code"] == 0:
                    break
                assert life["code"] == -9
                kills += 1
                if same_files(output, folder / "whole"):  # killed when nothing was left to do
                    break
            assert not toys.strays(output)
            assert same_files(output, folder / "whole")
            assert len(list(output.iterdir())) == 4
    return kills, rounds


WAYS = pytest.mark.parametrize("way", ["tiles", "strips", "shards"])


@WAYS
def test_killed_at_20_random_moments_the_files_are_the_same_bytes(tmp_path, way):
    assert killed_often(tmp_path, 20, 0, way)[0] == 20


@pytest.mark.faults
@WAYS
def test_killed_at_100_random_moments_the_files_are_the_same_bytes(tmp_path, way):
    assert killed_often(tmp_path, 100, 1, way)[0] == 100


def test_a_region_of_strips_has_the_same_bits_whatever_was_there(tmp_path, small_regions, short_stretches):
    """In single precision: a stretch flows from its first row, whoever wants which regions of it."""
    run, source = predictor(), images(tmp_path / "in", (150, 90))
    stream = StreamOptions(always=True, quantity="logits")
    predicted(run, source, tmp_path / "one", tile=4, engine="strips", stream=stream)
    for number in (3, 1, 2):
        part = StreamOptions(quantity="logits", part=Part(number, 3))
        predicted(run, source, tmp_path / "many", tile=4, engine="strips", stream=part)
    predicted(run, source, tmp_path / "many", tile=4, engine="strips", stream=stream)
    for name in ("i0.tif", "i0_logits.tif", "review.csv"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_strips_by_region_say_what_they_cannot(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (150, 90))
    with pytest.raises(UsageError, match="both --engine strips and --cluster"):
        predicted(run, source, tmp_path / "o", engine="strips", stream=StreamOptions(cluster="2"))
    small = StreamOptions(ram=64 << 20)
    with pytest.raises(UsageError, match="too little for strips of 2×90"):
        predicted(run, source, tmp_path / "o", engine="strips", stream=small)
    far = replace(run, model=build("trans_unet_small", in_channels=1, classes=3, width=16).eval())
    with pytest.raises(UsageError, match="this network cannot predict in strips"):
        predicted(far, source, tmp_path / "o", engine="strips")
