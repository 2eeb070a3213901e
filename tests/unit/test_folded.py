"""Problems that say the same of many files are one line; the list of them stays whole."""

import json

import numpy as np
import pytest
from PIL import Image

from skipway.doctor import check
from skipway.errors import Problem, folded

RNG = np.random.default_rng(0)


def lines(*problems):
    return [str(problem) for problem in folded(problems)]


def test_files_of_one_fault_are_one_line_in_their_place():
    blank = [Problem("is empty", f"in/{k}.png", "pixels", "copy it", "F01") for k in range(20)]
    other = Problem("no image", "in", code="A01")
    assert lines(blank[0], other, *blank[1:]) == [
        "in/0.png, 1.png, 2.png and 17 more: is empty, expected pixels. Fix: copy it",
        "in: no image",
    ]
    assert lines(blank[0], blank[1], Problem("is empty", "else/z.png", "pixels", "copy it", "F01")) == [
        "in/0.png, 1.png, else/z.png: is empty, expected pixels. Fix: copy it"
    ]
    assert lines(blank[0], other) == [str(blank[0]), str(other)]


def test_slices_are_counted_and_numbers_may_differ():
    slices = [Problem(f"mask value 0.{k}", "b.nii", code="E25") for k in range(1, 40)]
    assert lines(*slices) == ["b.nii: mask value 0.1 and others (39 times)"]
    pages = [Problem("NaN", f"m/b.tif page {k}") for k in range(4)]
    assert lines(*pages) == ["m/b.tif: NaN (4 times)"]
    masks = [Problem(f"{k + 90} values smeared", f"m/{k}.png", code="E11") for k in range(5)]
    assert lines(*masks) == ["m/0.png, 1.png, 2.png and 2 more: 90 values smeared in the first"]
    assert lines(*masks[:3]) == [str(mask) for mask in masks[:3]]  # few enough to be told in full


def test_what_differs_in_words_fix_code_or_danger_stays_apart():
    one = Problem("x", "a", "y", "z", "C01")
    others = (
        Problem("x2", "b", "y", "z", "C01"),
        Problem("x", "b", "y2", "z", "C01"),
        Problem("x", "b", "y", "z2", "C01"),
        Problem("x", "b", "y", "z", "C02"),
        Problem("x", "b", "y", "z", "C01", unsafe=True),
    )
    assert len(lines(one, *others)) == 6
    names = [Problem(f"no image case_{k}", "list.txt", code="L05") for k in range(9)]
    assert len(lines(*names)) == 9  # a number in a name is no number
    nowhere = [Problem(f"value {k} in two colours", code="E05") for k in range(9)]
    assert len(lines(*nowhere)) == 9


@pytest.fixture
def coloured(tmp_path):
    """Twenty masks in colours without a table."""
    for k in range(20):
        for folder, shape in (("images", (32, 32)), ("masks", (32, 32, 3))):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = RNG.integers(0, 3, shape, np.uint8) * 90
            Image.fromarray(pixels).save(tmp_path / folder / f"c{k:02}.png")
    return tmp_path


def test_page_and_error_fold_and_json_keeps_all(coloured):
    found = check(coloured / "images", coloured / "masks")
    assert len(found.problems) == len(found.error.problems) == len(found.to_json()["refusals"]) == 20
    assert "refusals   20, to be mended first" in str(found)
    page = [line for line in str(found).splitlines() if line.startswith("  E07")]
    assert len(page) == 1
    assert "c00.png, c01.png, c02.png and 17 more: a mask in 3-channel colours" in page[0]
    assert len(str(found.error).splitlines()) == len(found.error.lines) == 1
    assert found.error.lines[0].startswith("skipway: error E07: ")


def test_notes_that_count_are_added_up(tmp_path):
    (tmp_path / "images").mkdir()
    for k in range(5):
        Image.fromarray(RNG.integers(0, 255, (40, 40), np.uint8)).save(tmp_path / f"images/c{k}.png")
        square = {"label": "a", "points": [[2, 2], [12, 12]], "shape_type": "rectangle"}
        other = {"label": "b", "points": [[2, 2], [12, 3 + k]], "shape_type": "rectangle"}
        plain = {"shapes": [square, other], "imagePath": f"c{k}.png", "imageHeight": 40, "imageWidth": 40}
        (tmp_path / f"images/c{k}.json").write_text(json.dumps(plain))
    said = [s.text for s in check(tmp_path / "images").suspicions if "two shapes" in s.text]
    assert len(said) == 1
    assert said[0].startswith("c0.json, c1.json, c2.json and 2 more: ")
    pixels = sum(10 * (1 + k) for k in range(5))
    assert f": {pixels} pixels lie in two shapes" in said[0]
