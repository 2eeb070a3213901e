"""Volumes: each format read equal to a second library, written where the image was, refused where damaged."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from skipway.errors import EnvironmentFault
from skipway.images import open_image, open_mask, output_name, write_labels
from skipway.images.voxels import CONVERTED

RNG = np.random.default_rng(4)
OBLIQUE = np.array([[0.6, 0.8, 0, -17.3], [-0.8, 0.6, 0, 40.25], [0, 0, 1, 3.7], [0, 0, 0, 1.0]]) @ np.diag(
    [0.7, 0.8, 2.5, 1.0]
)
"""x, y and z of a slanted volume, in RAS."""


def pages(file):
    return np.stack([file.read(page) for page in range(file.pages)])


def save(path, array, affine=OBLIQUE, kind=nibabel.Nifti1Image, **header):
    """An array (X, Y, Z, …) as NIfTI, without skipway."""
    image = kind(array, affine, dtype=array.dtype)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def itk_affine(image):
    found = np.eye(4)
    found[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    found[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ found


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_is_what_nibabel_reads_slice_by_slice(tmp_path, suffix, dtype, kind):
    array = RNG.integers(0, 100, (5, 6, 7)).astype(dtype)
    image = kind(array, OBLIQUE, kind.header_class(endianness=">" if dtype[0] == ">" else "<"))
    image.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / f"a{suffix}")
    again = nibabel.load(tmp_path / f"a{suffix}")
    with open_image(tmp_path / f"a{suffix}") as file:
        assert (file.pages, file.channels, file.size, file.dtype) == (7, 1, (6, 5), np.float32)
        assert np.array_equal(pages(file)[:, 0], again.get_fdata().transpose(2, 1, 0))
        assert np.array_equal(file.read(3, (slice(1, 4), slice(2, 5)))[0], array[2:5, 1:4, 3].T)
        assert np.array_equal(file.geometry.affine, again.affine)
        assert file.geometry.spacing == pytest.approx((2.5, 0.8, 0.7))
        assert file.geometry.unit == ""
    with open_mask(tmp_path / f"a{suffix}") as mask:
        assert mask.dtype.kind == ("i" if dtype in ("f4", "f8") else np.dtype(dtype).kind)
        assert np.array_equal(pages(mask)[:, 0], array.transpose(2, 1, 0))


def test_slope_and_intercept_are_applied(tmp_path):
    path = save(tmp_path / "ct.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    data = bytearray(path.read_bytes())
    struct.pack_into("<2f", data, 112, 2.5, -1024)
    path.write_bytes(data)
    with open_image(path) as file:
        assert np.array_equal(pages(file)[:, 0], nibabel.load(path).get_fdata().transpose(2, 1, 0))
        assert file.read(0).min() == -1024


def test_a_fourth_axis_is_channels_of_an_image_and_refused_in_a_mask(tmp_path, refused):
    array = RNG.integers(0, 9, (5, 6, 7, 2)).astype(np.uint8)
    path = save(tmp_path / "a.nii.gz", array)
    with open_image(path) as file:
        assert "fourth axis of 2" in file.notes[0]
        assert np.array_equal(pages(file), array.transpose(2, 3, 1, 0))
    with refused("four axes", code="G06"):
        open_mask(path)
    single = save(tmp_path / "b.nii.gz", array[..., :1])
    with open_mask(single) as mask:
        assert np.array_equal(pages(mask)[:, 0], array[..., 0].transpose(2, 1, 0))


def test_colours_of_nifti(tmp_path):
    array = RNG.integers(0, 255, (5, 6, 7, 3)).astype(np.uint8)
    coloured = array.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    with open_image(save(tmp_path / "a.nii", coloured)) as file:
        assert (file.channels, file.dtype) == (3, np.uint8)
        assert np.array_equal(pages(file), array.transpose(2, 3, 1, 0))


def header_of(path, offset, form, *values):
    data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("offset", "form", "values", "code"),
    [
        (42, "<3h", (30000, 30000, 30000), "F11"),  # sizes that the file cannot hold
        (42, "<3h", (5, -6, 7), "F11"),
        (42, "<h", (0,), "F11"),
        (108, "<f", (1e9,), "F11"),  # voxels past the end
        (108, "<f", (12,), "F11"),  # voxels inside the header
        (108, "<f", (float("nan"),), "F01"),
        (70, "<h", (32,), "C06"),  # complex numbers
        (70, "<h", (12345,), "F01"),  # no such type
        (80, "<f", (0.0,), "G07"),
        (80, "<f", (-0.7,), "G07"),
        (84, "<f", (float("nan"),), "G07"),
        (280, "<4f", (0, 0, 0, 0), "G07"),  # an sform whose first row is nothing
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(
    tmp_path, refused, suffix, offset, form, values, code
):
    array = RNG.integers(0, 9, (5, 6, 7)).astype(np.int16)
    path = save(tmp_path / f"a{suffix}", array)
    open_image(path).close()  # the clean twin
    header_of(path, offset, form, *values)
    with refused("a.nii", code=code):
        open_image(path)


def test_a_packed_volume_is_held_to_a_limit_and_a_plain_one_is_not(tmp_path, refused):
    array = np.zeros((50, 50, 50), np.uint8)
    for name in ("a.nii.gz", "a.nii"):
        save(tmp_path / name, array)
    with refused("unpacked at once", code="F10"):
        open_image(tmp_path / "a.nii.gz", max_pixels=20_000)
    with open_image(tmp_path / "a.nii", max_pixels=20_000) as file:
        assert not file.read(49).any()


def test_damaged_voxels_are_found(tmp_path, refused):
    path = save(tmp_path / "a.nii.gz", RNG.integers(0, 9999, (20, 20, 20)).astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with refused(code="F01"), open_image(path) as file:
        file.read()
    broken = bytearray(whole)
    broken[-6] ^= 1  # the checksum at its end
    path.write_bytes(broken)
    with refused(code="F01"), open_image(path) as file:
        file.read()
    path.write_bytes(whole)
    with open_image(path) as file:
        file.read()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_what_itk_writes_is_read_equal(tmp_path, suffix, compressed, dtype):
    array = RNG.integers(0, 100, (4, 5, 6)).astype(dtype)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((17.3, -40.25, 3.7))
    image.SetDirection((0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
    sitk.WriteImage(image, tmp_path / f"a{suffix}", useCompression=compressed)
    with open_image(tmp_path / f"a{suffix}") as file:
        assert file.format in CONVERTED
        assert np.array_equal(pages(file)[:, 0], array)
        assert np.allclose(file.geometry.affine, itk_affine(image), rtol=0, atol=1e-12)
        assert file.geometry.spacing == pytest.approx((2.5, 0.8, 0.7), abs=1e-12)
    with open_mask(tmp_path / f"a{suffix}") as mask:
        assert np.array_equal(pages(mask)[:, 0], array)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_colour_volumes_of_itk(tmp_path, suffix):
    array = RNG.integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), tmp_path / f"a{suffix}")
    with open_image(tmp_path / f"a{suffix}") as file:
        assert np.array_equal(pages(file), np.moveaxis(array, -1, 1))


def test_a_header_names_no_file_elsewhere(tmp_path, refused):
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.uint8)), tmp_path / "in" / "a.mhd")
    (tmp_path / "in" / "a.raw").rename(tmp_path / "a.raw")
    header = (tmp_path / "in" / "a.mhd").read_text().replace("= a.raw", "= ../a.raw")
    (tmp_path / "in" / "a.mhd").write_text(header)
    with refused("../a.raw", code="F17"):
        open_image(tmp_path / "in" / "a.mhd")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"DimSize = 6 5 4", b"DimSize = 6 5 9", "F11"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 x", "F01"),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = 0 1 1", "G07"),
        (b"ElementType = MET_UCHAR", b"ElementType = MET_OTHER", "F01"),
        (b"NDims = 3", b"NDims = 7", "B17"),
        (b"TransformMatrix = 1 0 0", b"TransformMatrix = 0 0 0", "G07"),
    ],
)
def test_headers_of_metaimage_that_lie_are_refused(tmp_path, refused, old, new, code):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.uint8)), path)
    data = path.read_bytes()
    assert old in data
    open_image(path).close()
    path.write_bytes(data.replace(old, new))
    with refused("a.mha", code=code):
        open_image(path)


def test_a_metaimage_whose_stream_is_cut_or_longer_than_stated(tmp_path, refused):
    path = tmp_path / "a.mha"
    array = RNG.integers(0, 255, (9, 30, 30)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), path, useCompression=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 2000])
    with refused(code="F01"), open_image(path) as file:
        file.read()
    head = data[: data.index(b"LOCAL\n") + 6]
    path.write_bytes(
        head + zlib.compress(array.tobytes() + bytes(10**7))
    )  # ten million more than the header says
    with open_image(path) as file:
        assert np.array_equal(pages(file)[:, 0], array)


@pytest.mark.parametrize("source", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("goal", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_labels_lie_where_the_image_lay_for_itk_and_nibabel(tmp_path, source, goal):
    array = RNG.integers(0, 9, (6, 5, 4)).astype(np.int16)
    save(tmp_path / "in.nii.gz", array)
    path = tmp_path / f"in{source}"
    if source != ".nii.gz":
        sitk.WriteImage(sitk.ReadImage(tmp_path / "in.nii.gz"), path)
    labels = np.where(RNG.random((4, 5, 6)) < 0.5, 300, 7).astype(np.uint16)
    with open_image(path) as image:
        written = write_labels(tmp_path / f"out{goal}", labels, geometry=image.geometry)
        place = image.geometry
    assert written.name == f"out{goal}"
    read = sitk.ReadImage(written)
    assert np.array_equal(sitk.GetArrayFromImage(read), labels)
    assert read.GetPixelID() == sitk.sitkUInt16
    assert np.allclose(itk_affine(read), place.affine, rtol=0, atol=1e-5)
    with open_mask(written) as mask:
        assert np.allclose(mask.geometry.affine, place.affine, rtol=0, atol=1e-6)
        if source == goal:
            assert mask.geometry.affine == place.affine  # to the bit
    if goal.startswith(".nii"):
        found = nibabel.load(written)
        assert np.array_equal(np.asarray(found.dataobj), labels.transpose(2, 1, 0))


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 2), (1, 1), (4, 4)])
def test_both_transforms_codes_and_units_of_nifti_survive_to_the_bit(tmp_path, qform, sform):
    image = nibabel.Nifti1Image(RNG.integers(0, 9, (6, 5, 4)).astype(np.int16), OBLIQUE)
    image.set_qform(OBLIQUE, code=qform)
    image.set_sform(OBLIQUE, code=sform)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(3, 4)
    nibabel.save(image, tmp_path / "a.nii")
    with open_image(tmp_path / "a.nii") as file:
        assert (file.geometry.affine is None) == (qform == sform == 0)
        write_labels(tmp_path / "b.nii.gz", np.ones((4, 5, 6), np.uint8), geometry=file.geometry)
    before, after = (nibabel.load(tmp_path / name).header for name in ("a.nii", "b.nii.gz"))
    keys = ("qform_code", "sform_code", "pixdim", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "dim")
    for key in (*keys, "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        assert before[key].tobytes() == after[key].tobytes(), key
    assert after.get_slope_inter() in ((None, None), (1, 0))


def test_two_dimensional_and_single_slice_volumes_keep_their_shape(tmp_path):
    for name, shape in (("a.nii.gz", (6, 5)), ("b.nii.gz", (6, 5, 1))):
        save(tmp_path / name, np.ones(shape, np.int16))
        with open_image(tmp_path / name) as file:
            assert (file.pages, file.size) == (1, (5, 6))
            out = write_labels(tmp_path / f"out_{name}", np.ones((5, 6), np.uint8), geometry=file.geometry)
        assert nibabel.load(out).shape == shape


def test_64_bit_labels_are_written_in_32_bits_where_they_fit(tmp_path):
    for top, bits in ((9, 4), (2**40, 8)):
        path = write_labels(tmp_path / "a.nii.gz", np.full((2, 3, 4), top, np.int64))
        assert nibabel.load(path).get_data_dtype().itemsize == bits
        assert np.asarray(nibabel.load(path).dataobj).max() == top


def test_names_of_labels():
    names = ["a.nii.gz", "a.nii", "a.nhdr", "a.nrrd", "a.mhd", "a.mha", "a.dcm"]
    goals = ["a.nii.gz", "a.nii", "a.nrrd", "a.nrrd", "a.mha", "a.mha", "a.nii.gz"]
    assert [output_name(Path(name)) for name in names] == goals


def test_a_library_that_is_missing_is_named_with_what_to_type(tmp_path, monkeypatch):
    save(tmp_path / "a.nii", np.ones((2, 3, 4), np.uint8))
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), tmp_path / "a.nrrd")
    for library, path in (("nibabel", "a.nii"), ("nrrd", "a.nrrd")):
        monkeypatch.setitem(__import__("sys").modules, library, None)
        with pytest.raises(EnvironmentFault, match=r"pip install 'skipway\[medical\]'"):
            open_image(tmp_path / path)
