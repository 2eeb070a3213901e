"""What real data sets are divided into, and that their documented default stays the same."""

import csv
from dataclasses import replace

import pytest

from skipway.data.check import inspect
from skipway.data.draws import is_series
from skipway.data.fingerprint import fingerprint
from skipway.data.groups import find_groups
from skipway.data.layouts import find_pairs
from skipway.data.splits import split


def some_of(root, images, masks, keep):
    pairs = find_pairs(root / images, root / masks)
    return replace(pairs, pairs=tuple(pair for pair in pairs.pairs if keep(pair.name)))


def test_one_movie_is_held_out_at_its_end(data_root):
    root = data_root / "ctc-phc-u373"
    data = inspect(find_pairs(root / "images", root / "labels_silver"))
    found = split(data)
    names = [record.name for record in data.records]
    assert found.groups == {}
    assert (found.train, found.val) == (tuple(names[:-7]), tuple(names[-7:]))
    assert found.rule == f"the last 7 of {len(names)} by name validate"
    middle = split(data, fold="3/5").val
    assert list(middle) == names[names.index(middle[0]) :][: len(middle)]


def test_slices_are_held_out_at_their_end(data_root):
    root = data_root / "isbi2012-em"
    data = inspect(find_pairs(root / "images", root / "labels"))
    found = split(data)
    assert found.val == ("16", "17", "18", "19")
    assert found.warnings == ()
    seen = fingerprint(data, found.train)
    assert (seen.n, seen.annotated, seen.present) == (16, 1.0, (16, 16))
    (levels,) = seen.intensity
    assert 0 <= levels[0] < levels[1] < levels[2] <= 255


def test_patients_of_a_table_stay_whole(data_root, tmp_path):
    root = data_root / "chest-xray-multilabel"
    data = inspect(find_pairs(root / "images", root / "masks/left-lung"), "classes")
    with (root / "index.csv").open() as file:
        patient = {row["file"].removesuffix(".png"): row["patient"] for row in csv.DictReader(file)}
    assert any(patient[a] == patient[b] for a in found_names(data) for b in found_names(data) if a < b)
    assert split(data).groups == {}
    for seed in range(5):
        found = split(data, groups=root / "index.csv", seed=seed)
        assert found.groups == {name: patient[name] for name in found_names(data)}
        sides = [{patient[name] for name in side} for side in (found.train, found.val)]
        assert not sides[0] & sides[1]
        assert 0.1 <= len(found.val) / len(data.records) <= 0.3
        assert "patient in index.csv" in found.rule


def found_names(data):
    return [record.name for record in data.records]


def test_names_without_order_are_drawn_by_lot(data_root):
    root = data_root / "dsb2018"
    with (root / "index.csv").open() as file:
        kinds = {row["id"]: row["kind"] for row in csv.DictReader(file)}
    chosen = {name for name, kind in kinds.items() if kind == "fluorescence" and name[0] in "0123"}
    data = inspect(some_of(root, "images", "labels", chosen.__contains__))
    found = split(data, seed=1)
    assert "drawn by lot" in found.rule
    assert 0.1 <= len(found.val) / len(data.records) <= 0.3
    assert found.val != tuple(found_names(data)[-len(found.val) :])
    more = inspect(
        some_of(root, "images", "labels", lambda name: kinds[name] == "fluorescence" and name[0] in "01234")
    )
    after = split(more, seed=1)
    assert [name for name in after.val if name in chosen] == list(found.val), (
        "images that are added move no other"
    )
    folds = [split(data, fold=f"{k}/5").val for k in range(1, 6)]
    assert sorted(name for fold in folds for name in fold) == sorted(chosen)


@pytest.mark.parametrize(
    ("folder", "images", "masks", "held"),
    [("crackforest", "images", "labels", 24), ("wbc-1", "images", "labels", 60)],
)
def test_numbered_lists_validate_their_end_as_documented(data_root, folder, images, masks, held):
    names = [pair.name for pair in find_pairs(data_root / folder / images, data_root / folder / masks).pairs]
    assert is_series(names)
    assert round(len(names) / 5) == held


def test_frames_of_several_movies_are_held_out_by_movie(data_root):
    root = data_root / "camvid"
    pairs = find_pairs(root / "train", root / "trainannot")
    found = find_groups(pairs)
    assert found.rule == "name before the last number"
    assert set(found.members) == {pair.name.rpartition("_")[0] for pair in pairs.pairs}
