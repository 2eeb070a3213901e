"""Labels written are labels read back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from skipway.errors import EnvironmentFault
from skipway.images import open_image, open_mask, open_probabilities, output_name, write_labels, writing

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


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colours_of_16_bits_are_written_with_8(tmp_path, name):
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    palette = np.zeros((300, 3), np.int64)  # as a label map holds it, longer than 8 bits can number
    palette[1], palette[2] = (65535, 300, 0), (0x1234, 0, 255)
    path = write_labels(tmp_path / name, labels, palette=palette)
    with open_image(path) as file:
        assert file.dtype == np.uint8
        assert file.read()[:, 0, 1].tolist() == [255, 1, 0]
        assert file.read()[:, 1, 0].tolist() == [0x12, 0, 0]
    assert np.array_equal(read_back(path)[0], labels)


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


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 4, 5), (6, 2, 4, 5), (2, 3, 4, 5)])
def test_probabilities_are_written_by_region_and_come_back_as_channels_of_pages(tmp_path, shape):
    values = RNG.random(shape).astype(np.float32)
    path = tmp_path / "new" / "a_probabilities.tif"
    with open_probabilities(path, shape) as out:
        assert not path.exists()
        out[..., :2, :] = values[..., :2, :]
        out[..., 2:, :] = values[..., 2:, :]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZCYX"[-len(shape) :]
    pages = values if values.ndim == 4 else values[None]
    with open_image(path) as file:
        assert (file.pages, file.channels, file.dtype) == (*pages.shape[:2], np.float32)
        for page, expected in enumerate(pages):
            assert np.array_equal(file.read(page), expected)


def test_probabilities_take_no_memory_of_their_own(tmp_path):
    shape = (3, 2000, 3000)
    with open_probabilities(tmp_path / "a.tif", shape) as out:
        assert isinstance(out, np.memmap)
        assert (tmp_path / out.filename).stat().st_blocks * 512 >= out.nbytes  # a full disk shows here


def test_probabilities_that_fail_leave_the_old_file_and_no_stray(tmp_path):
    path = tmp_path / "a.tif"
    with open_probabilities(path, (2, 4, 5)) as out:
        out[:] = 1

    def interrupted():
        with open_probabilities(path, (2, 4, 5)) as out:
            out[:] = 0
            (tmp_path / "nowhere").read_bytes()

    with pytest.raises(FileNotFoundError):  # the caller's trouble keeps its own name
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert tifffile.imread(path).min() == 1
    with pytest.raises(ValueError, match="K, H, W"), open_probabilities(path, (4, 5)):
        pass


def test_a_full_disk_is_said_before_pixels_are_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "posix_fallocate", full, raising=False)
    with (
        pytest.raises(EnvironmentFault, match="No space left"),
        open_probabilities(tmp_path / "a.tif", (2, 4, 5)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.tif", "ä" * 120 + ".tif", "長" * 80 + ".png"])
def test_what_a_killed_writer_left_is_gone_after_the_next_write(tmp_path, name):
    code = """
import os, sys
from pathlib import Path
import numpy as np
from skipway.images import open_probabilities, write_labels, writing
writing.os.fsync = lambda _: os._exit(9)
if sys.argv[2] == "labels":
    write_labels(Path(sys.argv[1]), np.ones((4, 5), np.uint8))
with open_probabilities(Path(sys.argv[1]), (2, 4, 5)):
    pass
"""
    labels = tmp_path / name
    probabilities = tmp_path / f"b{name[:60]}_probabilities.tif"
    for path, what in ((labels, "labels"), (probabilities, "probabilities")):
        assert subprocess.run([sys.executable, "-c", code, path, what], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    write_labels(labels, np.ones((4, 5), np.uint8))
    with open_probabilities(probabilities, (2, 4, 5)):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([labels, probabilities])


def test_targets_of_long_names_are_made_in_places_of_their_own():
    names = [Path("x" * 90 + end) for end in ("1.tif", "2.tif", "1.png")]
    assert len({writing.hidden_for(name) for name in names}) == 3


def test_output_names_keep_lossless_suffixes(tmp_path):
    names = {"a.png": "a.png", "a.TIF": "a.TIF", "a.b.jpeg": "a.b.png", "a.tiff": "a.tiff"}
    assert {name: output_name(tmp_path / name) for name in names} == names
