"""`skipway check`: the page, the JSON, the sheet, the exit code, and the memory of a run."""

import json
import re

import numpy as np
import pytest
from toys import draw, skipway, start

import skipway as package
from skipway.doctor import check
from skipway.doctor.codes import CODES
from skipway.doctor.deep import learnable
from skipway.doctor.sheet import choose, render, write_sheet
from skipway.testing import badset
from skipway.testing.cases import pairs_of


@pytest.fixture
def data(tmp_path):
    pairs_of(tmp_path, 0, number=10)
    return tmp_path


def test_the_page_says_what_is_there(data):
    found = package.check(data)
    assert found.ok
    text = str(found)
    assert "found      10 pairs of" in text
    assert "images     10 PNG, 8-bit grey, 48×64 pixels" in text
    assert "warnings   none" in text
    assert "refusals   none: these data can train" in text
    assert "split      8 train, 2 validate" in text
    ground, disc = found.label_rows
    masks = [record.values for record in found.records]
    assert disc.objects == sum(m.regions for m in masks)
    assert (disc.value, disc.files) == (255, 10)
    assert disc.share == pytest.approx(sum(m.share(255) for m in masks) / 10)
    assert ground.share + disc.share == pytest.approx(1)


def test_objects_of_each_class_are_counted_exactly(tmp_path, save):
    mask = np.zeros((30, 40), np.uint8)
    mask[2:5, 2:5] = mask[10:14, 2:6] = mask[20:25, 30:34] = 1
    mask[2:6, 20:29] = 4
    for k in range(3):
        save(tmp_path / f"images/a{k}.png", np.random.default_rng(k).integers(0, 255, (30, 40), np.uint8))
        save(tmp_path / f"masks/a{k}.png", np.roll(mask, k, 0) if k < 2 else mask * (mask == 4))
    rows = {row.value: row for row in check(tmp_path, task="classes").label_rows}
    assert (rows[1].objects, rows[1].files) == (6, 2)
    assert (rows[4].objects, rows[4].files) == (3, 3)
    assert rows[4].share == pytest.approx(36 / 1200)


def test_the_command_exits_0_or_3_and_writes_nothing(data, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = skipway("check", data)
    assert code == 0
    assert "these data can train" in out
    (data / "images/c1.png").write_bytes(b"")
    (data / "masks/c2.png").write_bytes(b"")
    code, out, _ = skipway("check", data, "--json")
    assert code == 3
    found = json.loads(out)
    assert found["ok"] is False
    assert {problem["code"] for problem in found["refusals"]} == {"F01"}
    assert len(found["refusals"]) == 2
    assert all(problem["fix"] for problem in found["refusals"])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_paired_is_one_refusal(data):
    (data / "masks/c3.png").unlink()
    found = check(data)
    assert not found.ok
    assert found.pairs is None
    assert "A03" in str(found)
    assert found.error.exit_code == 3


def test_the_sheet_shows_the_suspicious_first_and_escapes_names(data, tmp_path):
    from skipway.testing.cases import load, save

    save(data / "masks/c4.png", 255 - load(data / "masks/c4.png"))
    for folder in ("images", "masks"):
        (data / folder / "c4.png").rename(data / folder / "<img onerror=x>.png")
    found = check(data)
    order = dict(choose(found))
    first = next(iter(order))
    assert first == "<img onerror=x>"
    assert order[first][0].startswith("E03 ")
    assert list(order.values()).count(("drawn by lot",)) >= 3
    assert dict(choose(found)) == order
    page = render(found)
    assert "<img onerror" not in page
    assert len(re.findall(r'src="data:image/', page)) == 3 * len(order)
    path = write_sheet(tmp_path / "sheet.html", found)
    assert path.read_text("utf-8") == page


def test_every_code_of_the_corpus_is_explained():
    cases = [case for case in badset() if case.verdict != "R" and case.code]
    assert len(cases) > 60
    assert {case.code for case in cases} <= CODES.keys()


@pytest.mark.slow
def test_a_short_fit_tells_true_pairs_from_shuffled_ones(tmp_path):
    pairs_of(tmp_path, 0, number=16, size=(64, 64))
    found = check(tmp_path)
    verdict = learnable(found.pairs.pairs, found.labels, seconds=30)
    assert not verdict.suspicious, verdict.text
    paths = sorted((tmp_path / "masks").iterdir())
    held = [path.read_bytes() for path in paths]
    for path, data in zip(paths, [*held[5:], *held[:5]], strict=True):
        path.write_bytes(data)
    verdict = learnable(found.pairs.pairs, found.labels, seconds=30)
    assert verdict.suspicious, verdict.text


def test_a_run_keeps_what_its_check_saw(tmp_path, monkeypatch):
    from skipway.data import check as checking

    data = draw(tmp_path / "data")
    start(data, tmp_path / "run", steps=2)
    seen = []
    real = checking.look_at
    monkeypatch.setattr(checking, "look_at", lambda job, ignore: seen.append(job) or real(job, ignore))
    start(data, tmp_path / "run", steps=2)
    assert seen == []
    (tmp_path / "run" / "check.json").write_text("{")
    start(data, tmp_path / "run", steps=2)
    assert len(seen) == 5
