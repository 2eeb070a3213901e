"""An OME-Zarr that many processes write: a region is a shard, whoever makes it writes it, and a checksum stays."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import toys
from streams import images, plain, predicted, predictor

from skipway import api
from skipway.errors import EnvironmentFault
from skipway.images import GrowingZarr, open_mask, paged
from skipway.parts import Part
from skipway.predict import room, streaming
from skipway.predict.journal import Journal, about_of
from skipway.predict.options import StreamOptions
from skipway.request import Request

zarr = pytest.importorskip("zarr")
ZARR = StreamOptions(format="zarr")


def labels(path):
    with open_mask(path) as mask:
        return np.stack([mask.read(page)[0] for page in range(mask.pages)])


def shards_of(folder):
    """Files of the finest level."""
    (array,) = folder.rglob("labels/prediction/0")
    return sorted(p for p in (array / "c").rglob("*") if p.is_file())


def regions_of(events):
    return [event["done"] for event in events if event["event"] == "region"]


def part(number, of):
    return StreamOptions(format="zarr", part=Part(number, of))


@pytest.mark.parametrize("engine", ["tiles", "strips"])
@pytest.mark.parametrize(("ndim", "pages"), [(2, 0), (2, 3), (3, 9)])
def test_a_region_is_a_shard_and_the_labels_are_those_of_the_plain_way(
    tmp_path, small_regions, monkeypatch, ndim, pages, engine
):
    monkeypatch.setattr(paged, "_COARSEST", 16)
    run, source = predictor(ndim=ndim, values=(1, 7, 300)), images(tmp_path / "in", (70, 53), pages=pages)
    plain(run, source, tmp_path / "plain")
    events = []
    tile = 4 if engine == "strips" else 16
    (made,) = predicted(run, source, tmp_path / "out", events, tile=tile, engine=engine, stream=ZARR).written
    assert np.array_equal(labels(made), labels(tmp_path / "plain/i0.tif"))
    assert len(np.unique(labels(made))) == 3
    assert len(shards_of(made)) == len(regions_of(events)) > 2
    image = zarr.open_group(made, mode="r")["labels/prediction"]
    finest = image["0"][:]
    assert len(image.attrs["ome"]["multiscales"][0]["datasets"]) == 4
    for level in range(4):
        assert np.array_equal(image[str(level)][:], finest[..., :: 1 << level, :: 1 << level])


def test_parts_write_their_shards_and_nobody_else_does(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53), pages=2)
    predicted(run, source, tmp_path / "one", tile=16, stream=ZARR)
    count = len(shards_of(tmp_path / "one"))
    for number in (2, 1):
        predicted(run, source, tmp_path / "many", tile=16, stream=part(number, 2))
    written = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path / "many")}
    assert len(written) == count
    for path in (tmp_path / "many/.resume").glob("*-2.regions"):
        with Journal(path, about_of(path)) as kept, pytest.raises(KeyError):
            kept.read(min(kept.done), "labels")
    events = []
    predicted(run, source, tmp_path / "many", events, tile=16, stream=ZARR)
    assert regions_of(events) == []
    found = shards_of(tmp_path / "many")
    assert [path.stat().st_mtime_ns for path in found] == list(written.values())
    assert {p.relative_to(tmp_path / "many"): data for p, data in by_path(tmp_path / "many")} == {
        p.relative_to(tmp_path / "one"): data for p, data in by_path(tmp_path / "one")
    }


def by_path(folder):
    return sorted((p, p.read_bytes()) for p in folder.rglob("*") if p.is_file())


def test_shards_that_are_damaged_or_gone_are_made_again(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    predicted(run, source, tmp_path / "one", tile=16, stream=ZARR)
    for number in (1, 2):
        predicted(run, source, tmp_path / "many", tile=16, stream=part(number, 2))
    here = shards_of(tmp_path / "many")
    here[3].unlink()
    data = bytearray(here[7].read_bytes())
    data[len(data) // 2] ^= 8
    here[7].write_bytes(data)
    here[9].write_bytes(here[8].read_bytes())  # whole, but of another place
    events = []
    predicted(run, source, tmp_path / "many", events, tile=16, stream=ZARR)
    assert len(regions_of(events)) == 3
    (said,) = [event["text"] for event in events if event.get("name") == "resume"]
    assert said == f"i0.tif: {len(here) - 3} of {len(here)} regions are there, 3 damaged"
    assert [data for _, data in by_path(tmp_path / "many")] == [data for _, data in by_path(tmp_path / "one")]


def test_killed_between_its_name_and_the_end_nothing_is_made_again(tmp_path, small_regions, monkeypatch):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    predicted(run, source, tmp_path / "one", tile=16, stream=ZARR)

    def killed(self, targets, source, flow):
        flow.journal.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(streaming.Streaming, "_done", killed)
        with pytest.raises(KeyboardInterrupt):
            predicted(run, source, tmp_path / "out", tile=16, stream=ZARR)
    assert (tmp_path / "out/i0.zarr").is_dir()
    events = []
    predicted(run, source, tmp_path / "out", events, tile=16, stream=ZARR)
    assert regions_of(events) == []
    assert [data for _, data in by_path(tmp_path / "out")] == [data for _, data in by_path(tmp_path / "one")]


def test_another_prediction_takes_nothing_of_one_before(tmp_path, small_regions):
    source = images(tmp_path / "in", (70, 53))
    predicted(predictor(), source, tmp_path / "out", tile=16, stream=ZARR)
    before = labels(tmp_path / "out/i0.zarr")
    other = predictor(seed=1)
    predicted(other, source, tmp_path / "out", tile=16, stream=part(1, 2), overwrite=True)
    assert np.array_equal(labels(tmp_path / "out/i0.zarr"), before)  # until the new one is whole
    predicted(other, source, tmp_path / "out", tile=16, stream=ZARR, overwrite=True)
    predicted(other, source, tmp_path / "new", tile=16, stream=ZARR)
    assert not np.array_equal(labels(tmp_path / "out/i0.zarr"), before)
    assert np.array_equal(labels(tmp_path / "out/i0.zarr"), labels(tmp_path / "new/i0.zarr"))
    assert not (tmp_path / "out/.resume").exists()


@pytest.mark.parametrize("task", ["objects", "multilabel"])
def test_what_is_not_known_region_by_region_is_written_at_the_end(tmp_path, small_regions, task):
    run, source = predictor(task), images(tmp_path / "in", (70, 53))
    plain(run, source, tmp_path / "plain")
    predicted(run, source, tmp_path / "out", tile=16, stream=ZARR)
    found = sorted((tmp_path / "out").rglob("i0.zarr"))
    assert len(found) == (3 if task == "multilabel" else 1)
    for path in found:
        tiff = tmp_path / "plain" / path.relative_to(tmp_path / "out").with_suffix(".tif")
        assert np.array_equal(labels(path), labels(tiff))


def test_of_several_processes_the_first_lays_the_folder_out(tmp_path):
    folder, sides = tmp_path / "a.zarr", (1, 16, 16)

    def write(k):
        growing = GrowingZarr.begin(folder, (1, 32, 128), np.dtype(np.uint8), sides)
        place = slice(0, 1), slice(0, 16), slice(16 * k, 16 * k + 16)
        growing.put(place, np.full((1, 16, 16), k + 1, np.uint8))

    writers = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    GrowingZarr(folder).finish(tmp_path / "b.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["b.zarr"]
    assert labels(tmp_path / "b.zarr")[0, 0, ::16].tolist() == [*range(1, 9)]
    assert not labels(tmp_path / "b.zarr")[0, 16:].any()


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    place = slice(0, 1), slice(0, 16), slice(0, 16)
    with pytest.raises(EnvironmentFault, match=r"a\.zarr: cannot be written: .* does not exist"):
        GrowingZarr(tmp_path / "a.zarr").put(place, np.zeros((1, 16, 16), np.uint8))
    assert not any(tmp_path.iterdir())


def test_workers_of_a_cluster_write_the_shards(tmp_path, monkeypatch):
    """Here they are threads; `test_parts` has processes, and kills one."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setitem(room.STORED, 2, 16)
    toys.one_thread()
    data = toys.draw(tmp_path / "data")
    for path in (data / "masks").iterdir():
        tifffile.imwrite(path, (tifffile.imread(path) > 0).astype(np.uint8))
    order = toys.order_of(data, tmp_path / "run", Request(**{**toys.TINY, "steps": 16}))
    api.train_run(replace(order, task="classes"), lambda _: None)
    run = api.load(tmp_path / "run")
    predicted(run, data / "images", tmp_path / "one", tile=16, stream=ZARR)
    kept, take = [], Journal.take
    monkeypatch.setattr(Journal, "take", lambda self, record: [kept.append(len(record)), take(self, record)])
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as here:
        two = StreamOptions(format="zarr", cluster=here.scheduler_address)
        predicted(run, data / "images", tmp_path / "many", tile=16, stream=two)
    assert len(kept) == 5 * 9
    assert max(kept) < 700  # without labels
    assert sum(labels(path).any() for path in (tmp_path / "many").glob("*.zarr")) == 5
    assert [data for _, data in by_path(tmp_path / "many")] == [data for _, data in by_path(tmp_path / "one")]
