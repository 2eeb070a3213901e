"""Decoders that die or hang cost their own file, and what was seen once is not decoded again unless it changed."""

import json
import os
import sys
import textwrap

import numpy as np
import pytest

from skipway.data import check as checking
from skipway.data.check import examine, inspect
from skipway.data.layouts import find_pairs
from skipway.data.scan import Scan

PLANTED = textwrap.dedent(
    """
    import os, time
    from skipway.data import check, sources, worker

    def planted(path, real=sources.open_image):
        if path.name == "a2.png":
            {fault}
        return real(path)

    sources.open_image = planted
    worker.serve()
    """
)


def planted(fault, seconds=60.0):
    """Children in which one file makes the decoder do this."""
    return Scan(isolate=True, seconds=seconds, worker=(sys.executable, "-c", PLANTED.format(fault=fault)))


@pytest.fixture
def pairs(tmp_path, make_pairs):
    return find_pairs(make_pairs(tmp_path / "data", 5))


def test_children_see_what_this_process_sees(pairs):
    here, there = (examine(pairs, how=Scan(isolate=isolate)) for isolate in (False, True))
    assert there.records == here.records
    assert there.problems == here.problems == ()
    assert there.labels == here.labels


@pytest.mark.parametrize(
    ("fault", "said"),
    [("os.kill(os.getpid(), 11)", "died (SIGSEGV)"), ("os._exit(7)", "died (exit 7)")],
)
def test_a_decoder_that_dies_is_one_problem_that_names_the_file(pairs, fault, said):
    found = examine(pairs, how=planted(fault))
    (problem,) = found.problems
    assert said in problem.found
    assert "images/a2.png" in problem.where
    assert problem.code == "F20"
    assert [record.name for record in found.records] == ["a0", "a1", "a3", "a4"]


def test_a_decoder_that_hangs_is_stopped_and_named(pairs):
    found = examine(pairs, how=planted("time.sleep(600)", seconds=2.0))
    (problem,) = found.problems
    assert "took more than 2 s" in problem.found
    assert "images/a2.png" in problem.where
    assert len(found.records) == 4


def test_problems_travel_from_a_child(pairs, tmp_path, save):
    (tmp_path / "data/images/a1.png").write_bytes(b"")
    save(tmp_path / "data/masks/a3.png", np.zeros((20, 12), np.uint8))
    here, there = (examine(pairs, how=Scan(isolate=isolate)) for isolate in (False, True))
    assert {p.code for p in there.problems} == {"F01", "B02"}
    assert there.problems == here.problems


@pytest.fixture
def decoded(monkeypatch):
    """Names of the pairs that were decoded."""
    names = []
    real = checking.look_at
    monkeypatch.setattr(
        checking, "look_at", lambda job, ignore: names.extend(p.name for p in job) or real(job, ignore)
    )
    return names


def again(pairs, seen):
    """A second check that starts from what the first saw, through JSON as in a run folder."""
    return inspect(pairs, how=Scan(before=json.loads(json.dumps(dict(seen)))))


def test_what_was_seen_is_not_decoded_again(pairs, decoded):
    first = inspect(pairs)
    assert decoded == ["a0", "a1", "a2", "a3", "a4"]
    decoded.clear()
    second = again(pairs, first.seen)
    assert decoded == []
    assert second == first
    assert json.loads(json.dumps(second.seen)) == json.loads(json.dumps(first.seen))


def test_a_touched_file_is_hashed_and_not_decoded(pairs, decoded):
    first = inspect(pairs)
    decoded.clear()
    os.utime(pairs.pairs[1].image.path, (1, 1))
    assert again(pairs, first.seen).records == first.records
    assert decoded == []


def test_a_change_is_seen_even_with_size_and_time_restored(pairs, decoded, save):
    first = inspect(pairs)
    path = pairs.pairs[3].image.path
    before = path.stat()
    data = path.read_bytes()
    pixels = np.zeros((12, 20), np.uint8)
    pixels[4] = 99
    save(path, pixels)
    path.write_bytes(
        path.read_bytes().ljust(len(data), b"\0")[: len(data)]
    )  # zero bytes behind the end are no fault
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    decoded.clear()
    second = again(pairs, first.seen)
    assert decoded == ["a3"]
    assert second.records[3].high == 99
    assert second.records[:3] == first.records[:3]


def test_another_mask_value_without_annotation_is_another_question(pairs, decoded):
    first = inspect(pairs)
    decoded.clear()
    inspect(pairs, ignore=7, how=Scan(before=first.seen))
    assert len(decoded) == 5


@pytest.mark.parametrize("damage", [{}, {"version": "0"}, {"pairs": []}, {"pairs": {}, "version": 3}])
def test_a_damaged_memory_is_no_memory(pairs, decoded, damage):
    first = inspect(pairs)
    decoded.clear()
    assert again(pairs, {**first.seen, **damage} if damage else {}).records == first.records
    assert len(decoded) == 5


def test_problems_are_never_remembered(pairs, tmp_path):
    (tmp_path / "data/images/a1.png").write_bytes(b"")
    seen = examine(pairs).seen
    assert len(seen["pairs"]) == 4
    assert not any("a1.png" in key for key in seen["pairs"])


def test_a_name_that_is_no_utf_8_is_looked_at_each_time(tmp_path, make_pairs):
    make_pairs(tmp_path / "data", 3)
    for folder in ("images", "masks"):
        path = tmp_path / "data" / folder / "a1.png"
        path.rename(path.with_name(os.fsdecode(b"\xff.png")))
    for isolate in (False, True):
        checked = inspect(find_pairs(tmp_path / "data"), how=Scan(isolate=isolate))
        assert len(checked.records) == 3
        json.dumps(checked.seen, ensure_ascii=False).encode()
        assert len(checked.seen["pairs"]) == 2
