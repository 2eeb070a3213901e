"""Masks of overlapping classes: one file a class, read as sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipway.data.class_folders import class_mask, files_by_class
from skipway.data.sources import Source
from skipway.errors import DataError


def saved(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def source_of(*parts: Path | None) -> Source:
    """A mask of a class for each part; None where there is no file."""
    names = tuple(f"c{k}" for k in range(len(parts)))
    files = {name: part for name, part in zip(names, parts, strict=True) if part is not None}
    return class_mask(files, names)


def test_one_file_a_class_becomes_a_set_of_classes(tmp_path: Path) -> None:
    a = saved(tmp_path / "a" / "1.png", np.array([[0, 255, 255], [0, 0, 255]], np.uint8))
    c = saved(tmp_path / "c" / "1.png", np.array([[7, 0, 7], [0, 0, 7]], np.uint16))
    with source_of(a, None, c).open_mask() as mask:
        assert (mask.dtype, mask.channels) == (np.uint8, 1)
        assert mask.read()[0].tolist() == [[4, 1, 5], [0, 0, 5]]
        assert mask.read(0, (slice(1, 2), slice(1, 3)))[0].tolist() == [[0, 5]]


@pytest.mark.parametrize(("count", "name"), [(8, "uint8"), (9, "uint16"), (17, "uint32"), (62, "uint64")])
def test_the_last_class_has_the_highest_bit_whatever_the_number(
    tmp_path: Path, count: int, name: str
) -> None:
    one = saved(tmp_path / "one.png", np.array([[0, 1]], np.uint8))
    with source_of(*[None] * (count - 1), one).open_mask() as mask:
        assert mask.dtype.name == name
        assert [int(v) for v in mask.read()[0, 0]] == [0, 2 ** (count - 1)]


def test_what_cannot_be_one_mask_is_refused(tmp_path: Path) -> None:
    small = saved(tmp_path / "small.png", np.zeros((2, 3), np.uint8))
    large = saved(tmp_path / "large.png", np.zeros((3, 3), np.uint8))
    smooth = saved(tmp_path / "smooth.png", np.array([[0, 128, 255]], np.uint8))
    with pytest.raises(DataError, match=r"large\.png"):
        source_of(small, large).open_mask()
    with pytest.raises(DataError, match="63 classes that overlap, expected at most 62"):
        source_of(*[small] * 63).open_mask()
    with source_of(smooth).open_mask() as mask, pytest.raises(DataError, match="values 0, 128, 255"):
        mask.read()


def test_a_source_comes_back_out_of_json_and_names_only_files_that_exist(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.png", np.zeros((2, 3), np.uint8))
    source = source_of(None, one)
    assert Source.from_json(source.to_json()) == source
    assert source.files == (one,)
    assert files_by_class(source) == {"c1": one}
