"""Sides by groups, lots, folds, tables and split files; what leaks is refused beside a clean twin (L01 to L09)."""

import json
from dataclasses import replace

import numpy as np
import pytest

from skipway.data.check import inspect
from skipway.data.draws import is_series
from skipway.data.fingerprint import fingerprint
from skipway.data.layouts import Stated, find_pairs
from skipway.data.splits import Split, split
from skipway.errors import UsageError
from skipway.parts import Part

PATIENTS = [f"patient{p}_slice{s:02}" for p in range(1, 7) for s in range(4)]
TILES = [f"slide{s}_tile_{x}_0" for s in "ABCD" for x in (0, 512, 1024)]
MOVIES = [f"{m}_t{t:03}" for m in ("01", "02", "03") for t in range(6)]
HASHES = [f"{name}x" for name in ("q", "7fe", "b1", "zz", "k9c", "w3", "aa", "p2p", "m", "0c", "e5", "hh")]


@pytest.fixture
def drawn(tmp_path, save):
    """`drawn(names)` makes a checked folder of pictures of squares; more calls add to it."""

    def make(names, values=None, root="d"):
        for name in names:
            rng = np.random.default_rng(sum(ord(c) * 31**i for i, c in enumerate(name)))
            mask = np.zeros((12, 20), np.uint8)
            mask[2:7, 3:9] = mask[1, 15] = 4 if values else 255
            for value in (values or {}).get(name, ()):
                mask[8:10, 3 * value : 3 * value + 3] = value
            save(tmp_path / root / f"images/{name}.png", rng.integers(0, 255, (12, 20), np.uint8))
            save(tmp_path / root / f"masks/{name}.png", mask)
        return inspect(find_pairs(tmp_path / root), "classes" if values else None)

    return make


@pytest.fixture
def write(tmp_path):
    def text(name, *lines):
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    return text


@pytest.mark.parametrize(("names", "count"), [(PATIENTS, 6), (TILES, 4), (MOVIES, 3)])
def test_groups_are_never_parted_by_the_default(drawn, names, count):
    data = drawn(names)
    seen = set()
    for seed in range(12):
        found = split(data, seed=seed)
        sides = [{found.groups[name] for name in side} for side in (found.train, found.val)]
        assert len(sides[0]) + len(sides[1]) == len(sides[0] | sides[1]) == count
        assert sorted((*found.train, *found.val)) == sorted(names)
        assert f"of {count} whole groups" in found.rule
        assert found == split(data, seed=seed)
        assert found.warnings == ()
        seen.add(found.val)
    assert len(seen) > 1


def test_a_list_that_parts_a_patient_or_slide_is_refused(drawn, write, refused):
    """L01 and L02."""
    for names, whole, parted in (
        (PATIENTS, PATIENTS[:4], PATIENTS[2:6]),
        (TILES, TILES[:3], [TILES[0], TILES[4]]),
    ):
        data = drawn(names, root=names[0])
        assert split(data, val=write("val.txt", *whole)).val == tuple(whole)
        listed = write("val.txt", *parted)
        with refused("on both sides", "val.txt", "--groups none", code="L01"):
            split(data, val=listed)
        assert set(split(data, val=listed, groups="none").val) == set(parted)


def test_groups_of_a_table_hold_for_lists_and_folders_alike(drawn, write, refused):
    data = drawn(HASHES)
    table = write("g.csv", "name,group", *(f"{name},{k // 3}" for k, name in enumerate(HASHES)))
    found = split(data, groups=table)
    assert len(found.val) == 3
    assert len({HASHES.index(name) // 3 for name in found.val}) == 1
    assert split(data, groups=table, val=write("val.txt", *HASHES[3:6])).val == tuple(sorted(HASHES[3:6]))
    listed = write("val.txt", HASHES[0])
    with refused("0 (group in g.csv) is on both sides: 2 images train, 1 validate", code="L01"):
        split(data, groups=table, val=listed)
    drawn(["new1", "new2"], root="v")
    folder = write("g.csv").parent / "v"
    lines = ["name,group", *(f"{name},{k // 3}" for k, name in enumerate(HASHES))]
    assert split(data, groups=write("g.csv", *lines, "new1,8", "new2,9"), val=folder).val == (
        "v/new1",
        "v/new2",
    )
    short = write("g.csv", *lines, "new1,8")
    with refused("no group for 1 of 2 images: new2", code="L05"):
        split(data, groups=short, val=folder)
    parted = write("g.csv", *lines, "new1,8", "new2,3")
    with refused("3 (group in g.csv) is on both sides", code="L01"):
        split(data, groups=parted, val=folder)


def test_one_movie_alone_is_cut_in_time_with_a_warning(drawn, write):
    names = [f"t{t:03}" for t in range(10)]
    data = drawn(names)
    movie = replace(data, pairs=replace(data.pairs, stated=Stated(groups=dict.fromkeys(names, "01"))))
    for found in (split(movie), split(movie, val=write("val.txt", *names[8:]))):
        assert found.val == ("t008", "t009")
        assert found.groups == dict.fromkeys(names, "01")
        (line,) = found.warnings
        assert "all images are of one group, 01" in line
        assert line.endswith("[L01]")
    assert split(movie, fold="1/5").val == ("t000", "t001")
    assert split(data).warnings == ()


def test_frames_between_frames_that_train_are_warned_of(drawn, write):
    """L03: one movie, every second frame validates; the end of it in one piece is the clean twin."""
    names = [f"01_t{t:03}" for t in range(20)]
    data = drawn(names)
    (line,) = split(data, val=write("val.txt", *names[::2])).warnings
    assert line.startswith("10 of 10 frames or slices that validate are next to one that trains")
    assert split(data, val=write("val.txt", *names[14:])).warnings == ()
    assert split(data).val == tuple(names[-4:])
    assert split(data).warnings == ()
    lines = split(drawn(MOVIES, root="m"), val=write("val.txt", "01_t001", "01_t004")).warnings
    assert [line[-5:] for line in lines if "[L02]" in line] == ["[L02]"]
    assert len(lines) == 2
    plain = [f"{k:03}" for k in range(20)]  # numbers alone may be anything
    assert split(drawn(plain, root="p"), val=write("val.txt", *plain[::2])).warnings == ()


def test_ids_in_two_spellings_stay_on_one_side_with_a_question(drawn, write):
    """L04."""
    table = write("g.csv", "name,group", *(f"{n},{'P01' if k % 2 else 'p01 '}" for k, n in enumerate(HASHES[:6])),
                  *(f"{n},P0{k}" for k, n in enumerate(HASHES[6:], 2)))  # fmt: skip
    found = split(drawn(HASHES), groups=table)
    assert len({found.groups[name] for name in HASHES[:6]}) == 1
    assert {n in found.val for n in HASHES[:6]} in ({True}, {False})
    assert "[L04]" in found.warnings[0]


def test_the_fingerprint_does_not_see_what_validates(drawn, save, tmp_path):
    """L06: other pixels and another mask in validation change no number; in training they do."""
    data = drawn([f"a{k}" for k in range(10)])
    held = split(data)
    before = fingerprint(data, held.train)
    bright, full = np.full((12, 20), 255, np.uint8), np.full((12, 20), 255, np.uint8)
    bright[0, 0] = full[0, 0] = 0

    def changed(name):
        bright[0, 1] = int(name[1:])
        save(tmp_path / f"d/images/{name}.png", bright)
        save(tmp_path / f"d/masks/{name}.png", full)
        again = inspect(find_pairs(tmp_path / "d"))
        return fingerprint(again, split(again).train)

    assert held.val == ("a8", "a9")
    assert changed("a9") == before
    after = changed("a1")
    for field in ("class_shares", "mean", "intensity"):
        assert getattr(after, field) != getattr(before, field)


@pytest.mark.parametrize(
    "names", [PATIENTS, HASHES, [f"a{k}" for k in range(13)]], ids=["groups", "lots", "series"]
)
def test_folds_validate_every_image_once(drawn, names):
    """L09."""
    data = drawn(names)
    folds = [split(data, fold=f"{k}/5") for k in range(1, 6)]
    held = [name for fold in folds for name in fold.val]
    assert sorted(held) == sorted(names)
    for k, fold in enumerate(folds, 1):
        assert not {*fold.val} & {*fold.train}
        assert len(fold.val) + len(fold.train) == len(names)
        assert fold.fold == f"{k}/5"
        assert fold.rule.startswith(f"fold {k}/5")
        assert Split.from_json(json.loads(json.dumps(fold.to_json()))).fold == f"{k}/5"


def test_folds_that_cannot_be(drawn):
    data = drawn(MOVIES)
    for text in ("0/5", "6/5", "1/1", "2", "x", "1/0", "2/4"):
        with pytest.raises(UsageError, match="--fold"):
            split(data, fold=text)
    assert Part.parse(" 3 / 7 ", "--fold") == Part(3, 7)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_on_both_sides_and_one_of_its_own_trains(drawn, seed):
    values = {HASHES[1]: [1, 2], HASHES[5]: [2], HASHES[8]: [1], HASHES[3]: [3]}
    data = drawn(HASHES, values)
    found = split(data, seed=seed)
    sides = [{v for name in side for v in values.get(name, ())} for side in (found.train, found.val)]
    assert sides == [{1, 2, 3}, {1, 2}]
    assert found.warnings == ("class 3 (value 3) is not in the validation images: its score stays unknown",)


def test_one_picture_under_two_names_is_drawn_as_one(drawn, tmp_path):
    drawn(HASHES)
    for kind in ("images", "masks"):
        source = (tmp_path / f"d/{kind}/{HASHES[0]}.png").read_bytes()
        for name in ("copy", "again"):
            (tmp_path / f"d/{kind}/{name}.png").write_bytes(source)
    data = inspect(find_pairs(tmp_path / "d"))
    for seed in range(12):
        assert {name in split(data, seed=seed).val for name in (HASHES[0], "copy", "again")} in (
            {True},
            {False},
        )


def test_an_earlier_split_stays_when_files_are_added_or_renamed(drawn, tmp_path, write, refused):
    before = split(drawn(HASHES), seed=3)
    stored = write("split.json", json.dumps(before.to_json()))
    for kind in ("images", "masks"):
        (tmp_path / f"d/{kind}/{HASHES[2]}.png").rename(tmp_path / f"d/{kind}/renamed.png")
    added = [f"{'xyz'[k % 3]}{k * 977 % 83}n" for k in range(20)]
    data = drawn(added)
    after = split(data, val=stored)
    old = {name if name != HASHES[2] else "renamed" for name in before.val}
    assert old <= {*after.val}
    assert {*after.val} - old <= {*added}
    assert 0 < len({*after.val} & {*added}) < 20
    assert after.rule.startswith("as in ")
    assert "of 20 new images" in after.rule
    damaged = write("damaged.json", json.dumps({"hashes": {}, "train": ["a"], "val": ["b"]}))
    with refused("damaged", code="L05"):
        split(data, val=damaged)
    strange = drawn(["u1", "u7", "v"], root="other")
    with refused("none of its images on one side", code="L05"):
        split(strange, val=stored)


def test_images_added_to_a_group_go_where_it_is(drawn, write):
    before = split(drawn(PATIENTS))
    stored = write("split.json", json.dumps(before.to_json()))
    after = split(drawn([f"patient{p}_slice{s:02}" for p in range(1, 7) for s in (4, 5)]), val=stored)
    assert {after.groups[name] for name in after.val} == {before.groups[name] for name in before.val}
    assert len(after.val) == len(before.val) * 6 // 4


def test_a_series_that_grows_validates_what_it_did(drawn, write):
    names = [f"t{k:02}" for k in range(10)]
    stored = write("split.json", json.dumps(split(drawn(names)).to_json()))
    after = split(drawn(["t10", "t11"]), val=stored)
    assert after.val == ("t08", "t09")
    assert after.train == (*names[:8], "t10", "t11")


def test_a_table_with_a_column_of_sides(drawn, write, refused):
    data = drawn([f"a{k}" for k in range(5)])
    sides = ("train", "Validation", "test", "TRAIN", "val")
    found = split(
        data, val=write("s.csv", "file,split", *(f"a{k}.png,{side}" for k, side in enumerate(sides)))
    )
    assert (found.train, found.val) == (("a0", "a3"), ("a1", "a4"))
    assert "1 of the test side are left aside" in found.rule
    assert split(data, val=write("s.csv", "name", "a1", "a2")).val == ("a1", "a2")
    for lines, said in (
        (["a0,train", "a1,val"], "no side for 3 of 5 images: a2, a3, a4"),
        ([f"a{k},train" for k in range(5)], "no name is left over to validate"),
        ([f"a{k},{'left' if k else 'val'}" for k in range(5)], "sides left"),
    ):
        table = write("s.csv", "name,split", *lines)
        with refused("s.csv", said, code="L05"):
            split(data, val=table)


def test_sides_that_the_data_set_states_need_no_flag(drawn, write):
    data = drawn([f"a{k}" for k in range(5)])
    sides = {"a0": "val", "a1": "train", "a2": "train", "a3": "val", "a4": "train"}
    stated = replace(data, pairs=replace(data.pairs, stated=Stated(sides=sides)))
    assert split(stated).val == ("a0", "a3")
    assert split(stated).rule == "as the data set states"
    assert split(stated, val=write("val.txt", "a1")).val == ("a1",)
    assert split(stated, fold="5/5").val == ("a4",)
    one_side = replace(data, pairs=replace(data.pairs, stated=Stated(sides=dict.fromkeys(sides, "train"))))
    assert split(one_side).val == ("a4",)


def test_nnunets_file_of_folds(drawn, write, refused):
    data = drawn([f"case_{k:03}" for k in range(6)])
    folds = [{"train": [f"case_{k:03}" for k in range(6) if k % 3 != f], "val": [f"case_{k:03}" for k in (f, f + 3)]}
             for f in range(3)]  # fmt: skip
    path = write("splits_final.json", json.dumps(folds))
    for number in range(3):
        found = split(data, val=path, fold=str(number))
        assert found.val == tuple(folds[number]["val"])
        assert found.train == tuple(folds[number]["train"])
        assert (found.rule, found.fold) == (f"fold {number} of splits_final.json validates", str(number))
    for fold in (None, "3", "1/3", "-1"):
        with pytest.raises(UsageError, match=r"3 folds|0 to 2"):
            split(data, val=path, fold=fold)
    folds[0]["train"].remove("case_001")
    found = split(data, val=write("splits_final.json", json.dumps(folds)), fold="0")
    assert "case_001" not in (*found.train, *found.val)
    assert "case_001: left aside" in found.warnings[0]
    folds[0]["train"].append("case_000")
    folds[1]["val"].append("case_999")
    path = write("splits_final.json", json.dumps(folds))
    with refused("on both sides: case_000", code="L09"):
        split(data, val=path, fold="0")
    with refused("case_999", code="L05"):
        split(data, val=path, fold="1")
    for text in ("{", "[]", "[1]", '{"train": 3}', '[{"train": [], "val": 2}]'):
        path = write("splits_final.json", text)
        with refused("splits_final.json", code="L05"):
            split(data, val=path, fold="0")


def test_a_fold_with_a_folder_or_a_list_is_one_too_many(drawn, write, make_pairs, tmp_path):
    data = drawn(HASHES)
    for val in (write("val.txt", HASHES[0]), make_pairs(tmp_path / "v", 2)):
        with pytest.raises(UsageError, match="--fold"):
            split(data, val=val, fold="1/5")


def test_one_stack_is_cut_with_a_warning_and_several_are_not(tmp_path, save):
    rng = np.random.default_rng(0)
    for count in (1, 2):
        stack = rng.integers(0, 255, (5, 12, 20), np.uint8)
        save(tmp_path / f"images/s{count}.tif", stack, metadata={"axes": "ZYX"})
        save(tmp_path / f"masks/s{count}.tif", (stack > 99).astype(np.uint8), metadata={"axes": "ZYX"})
        found = split(inspect(find_pairs(tmp_path)))
        if count == 1:
            assert found.val == ("s1#004",)
            assert found.warnings[0].startswith("one stack only")
        else:
            assert {name[:2] for name in found.val} != {name[:2] for name in found.train}
            assert len(found.val) == len(found.train) == 5
            assert found.warnings == ()


def test_what_is_a_series():
    assert is_series([f"{k:03}" for k in range(119)])
    gaps = (0, 1, 5, 6, 7, 10, 15, 20, 92)  # 93 places for 9 names
    assert is_series([f"01_t{t:03}" for t in gaps])
    assert not is_series([f"01_{t:03}" for t in gaps])
    assert is_series([f"01_t{t:03}" for t in range(0, 900, 30)])
    assert is_series(["s#000", "s#001"])
    for names in (HASHES, PATIENTS, ["a1", "b2"], ["1_1", "1_2", "2_1"], ["a1", "a01"]):
        assert not is_series(names)
