"""Messages in plain English: articles, singular and plural, one place said once."""

from pathlib import Path

import numpy as np
import pytest

from skipway.data.layouts.matching import refuse_unmatched
from skipway.data.layouts.pairs import Pairs
from skipway.data.suspicions import _better
from skipway.data.values import coding_problems, summarise
from skipway.errors import DataError, UsageError
from skipway.parts import Part
from skipway.report import pictures
from skipway.report.page import Case, _in_words


def test_the_article_fits_the_noun():
    one, none = {"a": Path("a.png")}, {}
    for images, masks, expected in ((one, none, "expected a mask for every image"),
                                    (none, one, "expected an image for every mask")):  # fmt: skip
        with pytest.raises(DataError, match=expected):
            refuse_unmatched(images, masks, Path("i"), Path("m"), "same name")


def test_one_mask_is_singular_and_two_are_not():
    masks = {name: summarise(np.array([[0, value]], np.uint8)) for name, value in zip("abc", (1, 255, 255))}  # noqa: B905
    (problem,) = coding_problems(masks, None, ())
    assert problem.found == "{0, 1} in 1 mask (a) and {0, 255} in 2 (b, c)"
    masks["d"] = masks["a"]
    assert coding_problems(masks, None, ())[0].found.startswith("{0, 1} in 2 masks (a, d)")
    assert (_better(1), _better(2)) == ("fits its image better", "fit their images better")


def test_one_folder_is_said_once():
    one, two = Path("data"), Path("data/masks")
    assert Pairs((), "", one, one).where == "in data"
    assert Pairs((), "", one, two).where == "of data and data/masks"


@pytest.mark.parametrize("text", ["6/5", "0/5", "x"])
def test_a_fold_says_how_it_is_written(text):
    with pytest.raises(UsageError, match="expected K/N with K from 1 to N, such as 2/5"):
        Part.parse(text, "--fold", least=2)


def test_of_classes_that_overlap_only_what_is_right_is_told():
    truth, found = (
        np.array([[3, 1, 0, 2]]),
        np.array([[3, 3, 1, 0]]),
    )  # right, one class too many, none there, missed
    kind = pictures.errors(truth, found)
    said = _in_words(kind, Case("a", truth, truth, found, sets=True))
    assert said == "of all pixels that truth or prediction give a class, 25 % have exactly the right ones"
    assert "25 % missed" in _in_words(kind, Case("a", truth, truth, found))
    assert [text for text, _ in pictures.legend(False, True)][3] == "not all classes right"
    assert [text for text, _ in pictures.legend(False)][3] == "wrong class"
