"""Labels written are labels read back."""

import numpy as np
import pytest
import tifffile

from skipway.errors import EnvironmentFault
from skipway.images import open_image, open_mask, output_name, write_labels, write_probabilities, writing

RNG = np.random.default_rng(2)


def read_back(path):
    with open_mask(path) as file:
        return np.stack([file.read(page)[0] for page in range(file.pages)])


@pytest.mark.parametrize("top", [1, 255, 256, 65535, 65536, 2**31 - 1, 2**31])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_no_id_is_lost_whatever_its_size(tmp_path, top, suffix):
    labels = np.zeros((6, 7), np.int64)
    labels[2, 3], labels[5, 6] = top, top - 1
    path = write_labels(tmp_path / f"a{suffix}", labels)
    assert path.suffix == (suffix if top <= 65535 else ".tif")
    assert np.array_equal(read_back(path)[0], labels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_type_never_narrows(tmp_path, dtype, suffix):
    path = write_labels(tmp_path / f"a{suffix}", np.ones((4, 5), dtype))
    with open_mask(path) as file:
        assert file.dtype == dtype


def test_negative_ids_and_pages_go_to_tiff(tmp_path):
    path = write_labels(tmp_path / "a.png", np.full((4, 5), -1, np.int32))
    assert path.name == "a.tif"
    assert read_back(path).min() == -1
    pages = RNG.integers(0, 99, (3, 4, 5)).astype(np.uint16)
    assert np.array_equal(read_back(write_labels(tmp_path / "b.tif", pages)), pages)


def test_a_palette_colours_the_file_and_keeps_the_numbers(tmp_path):
    labels = RNG.integers(0, 3, (6, 7)).astype(np.uint8)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    for name in ("a.png", "a.tif"):
        path = write_labels(tmp_path / name, labels, palette=palette)
        assert np.array_equal(read_back(path)[0], labels)
        with open_image(path) as file:
            assert np.array_equal(file.read(), np.moveaxis(palette[labels], -1, 0))


def test_large_labels_are_tiled_and_equal(tmp_path):
    labels = np.zeros((4200, 4100), np.uint8)
    labels[4199, 4099] = 7
    path = write_labels(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].is_tiled
    assert read_back(path)[0, 4199, 4099] == 7


def test_a_write_that_fails_leaves_the_old_file_and_no_stray(tmp_path, monkeypatch):
    write_labels(tmp_path / "a.png", np.ones((4, 5), np.uint8))
    monkeypatch.setattr(writing, "_reads_back", lambda *_: False)
    with pytest.raises(EnvironmentFault, match="differs"):
        write_labels(tmp_path / "a.png", np.zeros((4, 5), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert read_back(tmp_path / "a.png").min() == 1


def test_what_is_no_label_map_is_a_programming_error(tmp_path):
    with pytest.raises(TypeError, match="float32"):
        write_labels(tmp_path / "a.png", np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match="shape"):
        write_labels(tmp_path / "a.png", np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match=r"\.jpg"):
        write_labels(tmp_path / "a.jpg", np.zeros((4, 5), np.uint8))


def test_probabilities_come_back_as_channels(tmp_path):
    values = RNG.random((3, 4, 5)).astype(np.float32)
    path = write_probabilities(tmp_path / "a.png", values)
    assert path.name == "a.tif"
    with open_image(path) as file:
        assert file.pages == 1
        assert np.array_equal(file.read(), values)
    two = write_probabilities(tmp_path / "b.tif", values[:2])
    with open_image(two) as file:
        assert file.channels == 2


def test_output_names_keep_lossless_suffixes(tmp_path):
    names = {"a.png": "a.png", "a.TIF": "a.TIF", "a.b.jpeg": "a.b.png", "a.tiff": "a.tiff"}
    assert {name: output_name(tmp_path / name) for name in names} == names
