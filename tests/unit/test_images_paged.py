"""Labels written from windows equal labels written as a whole; other libraries read them, pyramid and all."""

import json

import numpy as np
import pytest
import tifffile

from skipway.errors import EnvironmentFault
from skipway.images import open_image, open_mask, paged, write_labels
from skipway.images.geometry import Geometry
from skipway.images.paged import Paged, levels, write_paged
from skipway.images.zarr_labels import write_zarr


def paged_of(array, counted=None):
    pages = array[None] if array.ndim == 2 else array

    def read(page, rows, columns):
        part = pages[page, rows, columns]
        if counted is not None:
            counted.append(part.size)
        return part

    return Paged(pages.shape, pages.dtype, read)


def random(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.fixture
def streamed(monkeypatch):
    """Everything is large."""
    monkeypatch.setattr(paged, "SMALL", 0)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".nii.gz"])
def test_what_is_small_is_the_file_that_it_always_was(tmp_path, suffix):
    labels = random(90, 70)
    one = write_labels(tmp_path / f"a{suffix}", labels)
    two = write_paged(tmp_path / "x" / f"a{suffix}", paged_of(labels))
    if suffix == ".nii.gz":  # gzip keeps the time
        assert np.array_equal(open_mask(two).read(0), open_mask(one).read(0))
    else:
        assert two.read_bytes() == one.read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("shape", [(3000, 1100), (3, 1300, 700), (40, 50, 33)])
def test_tiffs_are_tiled_and_hold_levels_of_every_second_pixel(tmp_path, streamed, caplog, shape, dtype):
    labels, counted = random(*shape, dtype=dtype), []
    path = write_paged(tmp_path / "a.tif", paged_of(labels, counted))
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        assert len(series.levels) == levels(*shape[-2:]) + 1
        assert series.keyframe.is_tiled
        assert int(series.keyframe.compression) == 8
        for number, level in enumerate(series.levels):
            every = 1 << number
            assert np.array_equal(np.squeeze(level.asarray()), labels[..., ::every, ::every])
    with open_mask(path) as mask:
        assert np.array_equal(np.stack([mask.read(p)[0] for p in range(mask.pages)]).squeeze(), labels)
    assert len(shape) > 2 or not caplog.records  # tifffile says so where it takes a file for damaged
    assert max(counted) <= paged.TILE * paged.TILE * 8
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_spacing_and_colours_survive_in_a_streamed_tiff(tmp_path, streamed):
    labels = random(4, 600, 500)
    lies = Geometry((2.0, 0.5, 0.25), "µm")
    with open_mask(write_paged(tmp_path / "a.ome.tif", paged_of(labels), geometry=lies)) as mask:
        assert mask.geometry.spacing == (2.0, 0.5, 0.25)
        assert mask.geometry.unit == "µm"
    colours = np.arange(600).reshape(200, 3) % 256
    with open_mask(write_paged(tmp_path / "b.tif", paged_of(labels[0]), palette=colours)) as mask:
        assert np.array_equal(mask.palette[:200], colours)
        assert np.array_equal(mask.read(0)[0], labels[0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
@pytest.mark.parametrize("shape", [(5, 60, 41), (70, 50)])
def test_slabs_make_the_file_that_is_written_as_a_whole(tmp_path, streamed, monkeypatch, suffix, shape):
    monkeypatch.setattr(paged, "_SLAB", 700)
    labels = random(*shape, dtype=np.uint16)
    lies = Geometry((1.5, 0.5, 0.25)[-len(shape) :], "mm")
    one = write_labels(tmp_path / f"a{suffix}", labels, geometry=lies)
    two = write_paged(tmp_path / f"b{suffix}", paged_of(labels), geometry=lies)
    if suffix == ".nii.gz":
        import gzip

        assert gzip.decompress(two.read_bytes()) == gzip.decompress(one.read_bytes())
    else:
        assert two.read_bytes() == one.read_bytes()


@pytest.mark.parametrize("magic", ["1", "2"])
def test_a_nifti_is_put_where_the_image_was_by_slabs_too(tmp_path, streamed, magic):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[-0.7, 0.1, 0, 12], [0.2, 0.9, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1]])
    kind = nibabel.Nifti1Image if magic == "1" else nibabel.Nifti2Image
    kind(np.zeros((21, 30, 6), np.int16), affine).to_filename(tmp_path / "image.nii")
    labels = random(6, 30, 21)
    with open_image(tmp_path / "image.nii") as image:
        one = write_labels(tmp_path / "a.nii", labels, geometry=image.geometry)
        two = write_paged(tmp_path / "b.nii", paged_of(labels), geometry=image.geometry)
    assert two.read_bytes() == one.read_bytes()
    there = nibabel.load(two)
    assert np.allclose(there.affine, affine)
    assert np.array_equal(np.asarray(there.dataobj).T, labels)


@pytest.mark.parametrize("shape", [(2500, 1300), (3, 1100, 90)])
def test_zarr_labels_follow_the_ngff_and_come_back(tmp_path, shape):
    zarr = pytest.importorskip("zarr")
    labels = random(*shape, dtype=np.uint16)
    lies = Geometry((2.0, 0.5, 0.25)[-len(shape) :], "µm")
    path = write_zarr(tmp_path / "a.zarr", paged_of(labels), geometry=lies)
    write_zarr(path, paged_of(labels), geometry=lies)  # again, over itself
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    with open_mask(path) as mask:
        assert np.array_equal(np.stack([mask.read(p)[0] for p in range(mask.pages)]).squeeze(), labels)
        assert mask.geometry == lies
    group = zarr.open_group(path, mode="r")
    assert group["labels"].attrs["ome"]["labels"] == ["prediction"]
    image = group["labels/prediction"]
    described = image.attrs["ome"]
    assert "image-label" in described
    scales = described["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"][-len(shape) :]
    for number, dataset in enumerate(scales["datasets"]):
        every = 1 << number
        assert np.array_equal(image[dataset["path"]][:], labels[..., ::every, ::every])
        assert dataset["coordinateTransformations"][0]["scale"][-1] == 0.25 * every
    json.dumps(described)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_a_disk_that_gives_back_something_else_is_said_and_leaves_nothing(tmp_path, streamed, name):
    labels, times = random(700, 600), [0]

    def read(page, rows, columns):
        times[0] += 1
        part = labels[rows, columns].copy()
        part[0, 0] = 255 - times[0] % 7
        return part

    with pytest.raises(EnvironmentFault, match="differs from what was written"):
        write_paged(tmp_path / name, Paged((1, 700, 600), np.dtype(np.uint8), read))
    assert not any(tmp_path.iterdir())
