"""Which images belong together: by a table, by folders, by names; and where names say nothing."""

from dataclasses import replace

import numpy as np
import pytest

from skipway.data.groups import find_groups, guessed
from skipway.data.layouts import Stated, find_pairs
from skipway.errors import UsageError


def names(*parts):
    """Names as a layout gives them, out of `prefix first-last`."""
    return [f"{prefix}{k:03}" for prefix, count in parts for k in range(count)]


@pytest.mark.parametrize(
    ("given", "rule", "groups"),
    [
        (names(("01_t", 3), ("02_t", 2)), "sequence before _t", ["01", "02"]),
        (
            ["mitosis_frame_1", "mitosis_frame_2", "death_frame_1"],
            "sequence before _frame",
            ["death", "mitosis"],
        ),
        (
            ["patient12_slice03", "patient12_slice04", "patient3_slice03"],
            "patient or case in the name",
            ["patient3", "patient12"],
        ),
        (["siteA/case_001_z04", "siteB/case_001_z05", "siteA/case_002_z00"], None, ["case_001", "case_002"]),
        (
            ["slideA_tile_0_512", "slideA_tile_0_0", "slideB_tile_0_0"],
            "slide in the name",
            ["slideA", "slideB"],
        ),
        (["liver_x0_y512", "liver_x0_y0", "heart_x0_y0"], "image before _x", ["heart", "liver"]),
        (["P01_1", "P01_2", "P02_1"], "patient before the last number", ["P01", "P02"]),
        (["A02_s1", "A02_s2", "B03_s1"], "name before _s", ["A02", "B03"]),
        (["01/t000", "01/t001", "02/t000"], "folder of each case", ["01", "02"]),
        (["case1/a", "case1/b", "case2/a"], None, ["case1", "case2"]),
        (names(("0006R0_f0", 3), ("0016E5_0", 4)), "name before the last number", ["0006R0", "0016E5"]),
    ],
)
def test_groups_are_read_from_names(given, rule, groups):
    found = guessed(given)
    assert found is not None
    assert list(found.members) == groups
    assert set(found.of) == set(given)
    if rule:
        assert found.rule == rule
    for group, members in found.members.items():
        assert all(group in name for name in members)


@pytest.mark.parametrize(
    "given",
    [
        names(("", 120)),
        names(("img_", 20)),
        names(("01_t", 40)),  # one movie leaves one group
        ["cat_1", "cat_2", "dog_1", "dog_2"],  # kinds, not cases
        ["site1/a", "site1/b", "site2/a", "site2/b"],
        ["train1/a", "train1/b", "val2/a"],
        ["fluo_img_1", "fluo_img_2", "phase_img_1"],
        ["0_0", "0_512", "512_0", "512_512"],
        ["A02_s1", "A16_s3", "B04_s2"],  # every well once
        ["01_t000", "01_t001", "02_t000", "overview"],  # one name that does not follow
        ["00071198d059ba7f", "003cee89357d9fe1", "1b44d22643830cd4"],
        ["case_001", "case_002", "case_003"],
    ],
)
def test_names_that_say_nothing_make_no_groups(given):
    assert guessed(given) is None


def test_ids_that_differ_in_case_or_spaces_are_one_group_and_asked_about():
    """L04."""
    found = guessed(["P01_1", "p01 _2", "P02_1", "P02_2"])
    assert {name: found.of[name] for name in ("P01_1", "p01 _2", "P02_1")} == {
        "P01_1": "P01",
        "p01 _2": "P01",
        "P02_1": "P02",
    }
    (line,) = found.warnings
    for text in ("'P01'", "'p01 '", "L04", "--groups FILE"):
        assert text in line
    assert guessed(["P01_1", "P01_2", "P02_1", "P02_2"]).warnings == ()


@pytest.fixture
def table(tmp_path):
    def write(text, name="groups.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_table_states_groups_and_overrides_the_names(tmp_path, make_pairs, table):
    pairs = find_pairs(make_pairs(tmp_path / "d", 4))
    found = find_groups(pairs, table("name,group\na0,x\na1.png,x\na2,y\na3,z\nb7,q\n"))
    assert found.of == {"a0": "x", "a1": "x", "a2": "y", "a3": "z"}
    assert found.certain
    assert found.rule == "group in groups.csv"
    found = find_groups(pairs, table("age;File;Patient\n3;a0;1\n4;a1;1\n5;a2;2\n6;a3;2\n"))
    assert (found.members, found.rule) == ({"1": ["a0", "a1"], "2": ["a2", "a3"]}, "patient in groups.csv")
    found = find_groups(pairs, table("name\tgroup\na0\tP01\na1\tp01 \na2\t P01\na3\tP02\n"))
    assert found.members == {"P01": ["a0", "a1", "a2"], "P02": ["a3"]}
    assert "[L04]" in found.warnings[0]


def test_a_table_that_lies_with_the_data_is_read(tmp_path, make_pairs):
    root = make_pairs(tmp_path / "d", 4)
    (root / "index.csv").write_text("file,patient\na0.png,x\na1.png,x\na2.png,y\na3.png,y\n")
    found = find_groups(find_pairs(root))
    assert (found.members, found.rule) == ({"x": ["a0", "a1"], "y": ["a2", "a3"]}, "patient in index.csv")
    assert find_groups(find_pairs(root), "none") is None
    for other in (
        "file,age\na0.png,x\na1.png,x\na2.png,y\na3.png,y\n",  # not of groups
        "file,patient\na0.png,x\na1.png,x\na2.png,y\n",  # not of all images
        "file,patient\na0.png,x\na1.png,x\na2.png,x\na3.png,x\n",  # all of one
        "file,patient\na0.png,1\na1.png,2\na2.png,3\na3.png,4\n",  # each of its own
    ):
        (root / "index.csv").write_text(other)
        assert find_groups(find_pairs(root)) is None


def test_a_movie_cut_over_folders_of_sides_is_one_group(tmp_path, make_pairs):
    names = [
        f"{side}/{movie}_{k:03}"
        for side, movie in (("train", "a1"), ("train", "b2"), ("val", "b2"))
        for k in (1, 2)
    ]
    root = make_pairs(tmp_path / "d", 1)
    image, mask = root / "images/a0.png", root / "masks/a0.png"
    for name in names:
        for source, kind in ((image, ""), (mask, "annot")):
            side, _, stem = name.partition("/")
            (root / f"{side}{kind}").mkdir(exist_ok=True)
            (root / f"{side}{kind}/{stem}.png").write_bytes(source.read_bytes())
    for kind in ("images", "masks"):
        (root / kind / "a0.png").unlink()
        (root / kind).rmdir()
    found = find_groups(find_pairs(root))
    assert found.members == {"a1": names[:2], "b2": names[2:]}


def test_the_groups_of_a_table_of_pairs_are_its_own(tmp_path, make_pairs):
    root = make_pairs(tmp_path / "d", 4)
    rows = [f"images/a{k}.png,masks/a{k}.png,P{k // 2}" for k in range(4)]
    (root / "pairs.csv").write_text("image,mask,Patient\n" + "\n".join(rows) + "\n")
    (root / "a_old.csv").write_text("file,patient\n" + "".join(f"a{k}.png,x{k % 2}\n" for k in range(4)))
    found = find_groups(find_pairs(root / "pairs.csv"))
    assert (found.members, found.rule) == (
        {"P0": ["images/a0", "images/a1"], "P1": ["images/a2", "images/a3"]},
        "as the data set states",
    )


def test_a_table_that_leaves_images_out_is_refused(tmp_path, make_pairs, table, refused):
    """L05, with a clean twin above."""
    pairs = find_pairs(make_pairs(tmp_path / "d", 4))
    for text, said in (
        ("name,group\na0,x\na1,x\n", "no group for 2 of 4 images: a2, a3"),
        ("name,group\na0,x\na1,x\na2,\na3,y\n", "no group for 1 of 4 images: a2"),
        ("name,group\na0,x\na0,y\na1,x\na2,y\na3,y\n", "two rows that differ in group for a0"),
        ("name,age\na0,3\n", "columns name, age"),
        ("", "a column name"),
    ):
        path = table(text)
        with refused("groups.csv", said, code="L05"):
            find_groups(pairs, path)
    with pytest.raises(UsageError, match="--groups"):
        find_groups(pairs, tmp_path / "nothing.csv")


def test_stated_groups_come_first_and_none_switches_guesses_off(tmp_path, make_pairs, save, refused):
    root = tmp_path / "d"
    for name in ("P01_1", "P01_2", "P02_1"):
        for kind in ("images", "masks"):
            save(root / kind / f"{name}.png", np.eye(12, dtype=np.uint8) * 255)
    pairs = find_pairs(root)
    assert list(find_groups(pairs).members) == ["P01", "P02"]
    assert find_groups(pairs, "none") is None
    stated = replace(pairs, stated=Stated(groups={"P01_1": "u", "P01_2": "v", "P02_1": "v"}))
    assert find_groups(stated).members == {"u": ["P01_1"], "v": ["P01_2", "P02_1"]}
    assert find_groups(stated, "none") is None
    with refused("no group for 2 of 3", code="L05"):
        find_groups(replace(pairs, stated=Stated(groups={"P01_1": "u"})))


def test_pages_of_a_stack_are_one_group_whatever_is_asked(tmp_path, save):
    rng = np.random.default_rng(0)
    for name in ("P01_a", "P02_a", "P02_b"):
        stack = rng.integers(0, 255, (3, 12, 20), np.uint8)
        save(tmp_path / f"images/{name}.tif", stack, metadata={"axes": "ZYX"})
        save(tmp_path / f"masks/{name}.tif", (stack > 99).astype(np.uint8), metadata={"axes": "ZYX"})
    pairs = find_pairs(tmp_path)
    for asked in (None, "none"):
        found = find_groups(pairs, asked)
        assert found.rule == "pages of one stack"
        assert found.of["P02_b#002"] == "P02_b"
        assert len(found.members) == 3
    (tmp_path / "g.csv").write_text("name,group\nP01_a.tif,1\nP02_a,2\nP02_b,2\n")
    found = find_groups(pairs, tmp_path / "g.csv")
    assert found.members["2"] == [f"P02_{s}#00{k}" for s in "ab" for k in range(3)]
    for name in ("P01_a", "P02_a"):
        for kind in ("images", "masks"):
            (tmp_path / kind / f"{name}.tif").unlink()
    assert find_groups(find_pairs(tmp_path)) is None
