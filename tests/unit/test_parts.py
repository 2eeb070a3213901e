"""One prediction shared by processes: parts in any order, killed or never begun, and a cluster whose workers die."""

import os
import random
import signal
import threading

import numpy as np
import pytest
import tifffile
import toys
from streams import images, predicted, predictor

from skipway import api
from skipway.errors import UsageError
from skipway.parts import Part
from skipway.predict import room
from skipway.predict.journal import Journal, about_of, settled
from skipway.predict.options import StreamOptions
from skipway.predict.parts import journals_of_parts


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/0", "-1/4", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError, match="--part: found .* K from 1 to N"):
        Part.parse(text, "--part")


@pytest.mark.parametrize(("text", "fix"), [("0/8", "1/8"), ("9/8", "8/8"), ("a/b", "2/5"), ("1/0", "1/1")])
def test_the_nearest_part_is_offered(text, fix):
    with pytest.raises(UsageError, match=f"Fix: --part {fix}$"):
        Part.parse(text, "--part")


@pytest.mark.parametrize("count", [1, 7, 64])
@pytest.mark.parametrize("of", [1, 3, 16])
def test_parts_make_every_region_once(count, of):
    made = [n for number in range(1, of + 1) for n in Part(number, of).share(count)]
    assert made == list(range(count))


def test_the_first_of_several_processes_settles_the_regions(tmp_path):
    path = tmp_path / "a.regions"
    found = []
    racers = [threading.Thread(target=lambda k=k: found.append(settled(path, {"tile": k}))) for k in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len({one["tile"] for one in found}) == 1
    assert about_of(path) == found[0]
    assert [file.name for file in tmp_path.iterdir()] == ["a.regions"]


def test_two_processes_do_not_write_one_journal(tmp_path):
    with Journal(tmp_path / "a.regions", {"tile": 1}) as first:
        first.add(0, {"labels": np.ones((2, 2), np.uint8)})
        with pytest.raises(UsageError, match="another skipway predicts this image"):
            Journal(tmp_path / "a.regions", {"tile": 1})
    with Journal(tmp_path / "a.regions", {"tile": 1}) as again:
        assert again.done == {0}


@pytest.mark.parametrize("task", ["classes", "objects"])
@pytest.mark.parametrize("missing", [None, 2])
def test_parts_in_any_order_and_what_gathers_them_equal_one_process(tmp_path, small_regions, task, missing):
    """A part that never ran is made by the command that gathers."""
    run, source = predictor(task), images(tmp_path / "in", (70, 53), (33, 90), pages=2)
    predicted(run, source, tmp_path / "one", tile=20)
    order = [1, 2, 3, 4]
    random.Random(0).shuffle(order)
    for number in order:
        if number != missing:
            part = StreamOptions(part=Part(number, 4))
            summary = predicted(run, source, tmp_path / "many", tile=20, stream=part)
            assert summary.written == ()
    kept = tmp_path / "many" / ".resume"
    assert not list((tmp_path / "many").glob("*.tif"))
    assert len(list(kept.glob("*.regions"))) == 2 * (5 if missing is None else 4)
    events = []
    predicted(run, source, tmp_path / "many", events, tile=20)
    made = [event for event in events if event["event"] == "region"]
    assert (len(made) == 0) == (missing is None)
    for name in ("i0.tif", "i1.tif", "review.csv"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert not kept.exists()


def test_there_is_a_region_for_every_part_or_it_is_said(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    events = []
    predicted(run, source, tmp_path / "many", events, stream=StreamOptions(part=Part(1, 6)))
    assert not [event for event in events if event["event"] == "warning"]
    made = [event for event in events if event["event"] == "region"]
    (said,) = [event["text"] for event in events if event.get("name") == "stream"]
    assert int(said.split()[1]) >= 6
    assert [(event["done"], event["of"]) for event in made] == [(k + 1, len(made)) for k in range(len(made))]
    assert len(made) == len(Part(1, 6).share(int(said.split()[1])))
    events.clear()
    some = StreamOptions(part=Part(1, 3))
    predicted(run, source, tmp_path / "few", events, tile=80, stream=some)  # as the user says: one region
    (said,) = [event["text"] for event in events if event["event"] == "warning"]
    assert (
        said == "i0.tif: too few regions (1) for 3 parts, and part 1/3 has none; a smaller --tile makes more"
    )


def test_a_damaged_region_of_a_part_is_made_again(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    predicted(run, source, tmp_path / "one", tile=20)
    for number in (1, 2):
        predicted(run, source, tmp_path / "many", tile=20, stream=StreamOptions(part=Part(number, 2)))
    (first,) = (tmp_path / "many" / ".resume").glob("*.1-2.regions")
    damaged = bytearray(first.read_bytes())
    damaged[-20] ^= 4
    first.write_bytes(damaged)
    events = []
    predicted(run, source, tmp_path / "many", events, tile=20)
    assert len([event for event in events if event["event"] == "region"]) == 1
    assert (tmp_path / "many/i0.tif").read_bytes() == (tmp_path / "one/i0.tif").read_bytes()


def test_parts_of_other_options_are_refused_and_kept(tmp_path, small_regions):
    run, source = predictor(), images(tmp_path / "in", (70, 53))
    predicted(run, source, tmp_path / "many", tile=20, stream=StreamOptions(part=Part(1, 2)))
    for stream in (StreamOptions(part=Part(2, 2)), StreamOptions(always=True)):
        summary = None
        with pytest.raises(UsageError, match="parts of i0.tif were predicted with another tile"):
            summary = predicted(run, source, tmp_path / "many", tile=32, stream=stream)
        assert summary is None
    (main,) = [p for p in (tmp_path / "many" / ".resume").glob("*.regions") if p.stem.count(".") == 0]
    assert len(list(journals_of_parts(main))) == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    toys.one_thread()
    data = toys.draw(folder / "data", count=4)
    toys.start(data, folder / "run", steps=4)
    image = np.random.default_rng(0).integers(0, 255, (150, 170)).astype(np.uint8)
    (folder / "new").mkdir()
    tifffile.imwrite(folder / "new" / "a.tif", image, photometric="minisblack")
    return folder


def test_a_cluster_whose_worker_is_killed_gives_the_bits_of_one_process(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(room.STORED, 2, 16)
    run, source = api.load(trained / "run"), trained / "new"
    predicted(run, source, tmp_path / "one", tile=16)
    killed, count = [], [0]

    def hear(event):
        count[0] += event["event"] == "region"
        if event["event"] == "region" and not killed:
            from distributed import get_client

            pids = get_client().run(os.getpid)
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

    class Heard(list):
        append = staticmethod(hear)

    predicted(run, source, tmp_path / "many", Heard(), tile=16, stream=StreamOptions(cluster="2"))
    assert killed
    assert count[0] == 110
    for name in ("a.tif", "review.csv"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
