"""Places of image and mask: planted faults beside clean twins."""

import nibabel
import numpy as np
import pytest

from skipway.data.check import inspect
from skipway.data.fingerprint import fingerprint
from skipway.data.labels import LabelMap
from skipway.data.layouts import find_images, find_pairs
from skipway.models.anisotropy import by_spacing
from skipway.plan import make_plan
from skipway.request import Request

RNG = np.random.default_rng(5)
PLAIN = np.array([[0.8, 0, 0, -10], [0, 0.8, 0, 20.5], [0, 0, 3, 7], [0, 0, 0, 1.0]])
SHAPE = (12, 10, 4)


def changed(**cells):
    affine = PLAIN.copy()
    for key, value in cells.items():
        affine[int(key[1]), int(key[2])] = value
    return affine


def turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = PLAIN.copy()
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ matrix[:3, :3]
    return matrix


def make(root, mask_affine=PLAIN, *, image_affine=PLAIN, n=2, qform=None):
    """Twin folders of volumes with a box; the last pair has the affines that are given."""
    for side in ("imagesTr", "labelsTr"):
        (root / side).mkdir(parents=True, exist_ok=True)
    for k in range(n):
        labels = np.zeros(SHAPE, np.uint8)
        labels[2:6, 3 : 7 + k % 2, 1:3] = 1
        image = RNG.integers(0, 900, SHAPE).astype([np.int16, np.float32][k % 2])  # of two types, as in MSD
        last = k == n - 1
        saved = nibabel.Nifti1Image(image, image_affine if last else PLAIN)
        if qform is not None and last:
            saved.set_sform(PLAIN, code=1)
            saved.set_qform(qform, code=1)
        nibabel.save(saved, root / "imagesTr" / f"v{k}.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image(labels, mask_affine if last else PLAIN), root / "labelsTr" / f"v{k}.nii.gz"
        )
    return root


def look(root):
    return inspect(find_pairs(root / "imagesTr", root / "labelsTr"))


@pytest.mark.parametrize(
    ("affine", "code", "words"),
    [
        (changed(c03=-9.9), "G01", "an origin at (-9.9, 20.5, 7)"),
        (changed(c22=2.5), "G02", "a spacing of 2.5 × 0.8 × 0.8"),
        (changed(c00=-0.8), "G03", "the other way along x (mirrored; LAS against RAS)"),
        (changed(c00=-0.8, c03=-1.2), "G03", "mirrored"),
        (changed(c11=-0.8, c00=-0.8), "G03", "along x and y"),
        (turned(1), "G03", "turned by up to 1°"),
    ],
)
def test_a_mask_that_lies_elsewhere_is_refused_once(tmp_path, refused, affine, code, words):
    make(tmp_path, affine)
    with refused(words, "v1.nii.gz", code=code) as _:
        look(tmp_path)


@pytest.mark.parametrize(
    "affine", [PLAIN, PLAIN + 1e-8, turned(1e-4), changed(c03=-10.00001), changed(c22=3.0001)], ids=range(5)
)
def test_noise_in_the_header_is_no_fault(tmp_path, affine):
    checked = look(make(tmp_path, affine))
    assert len(checked.records) == 8
    assert checked.records[0].spacing == pytest.approx((3, 0.8, 0.8))
    assert {record.dtype for record in checked.records} == {"float32"}
    assert not [s for s in checked.suspicions if s.code in ("G08", "C24")]


def test_two_transforms_that_differ_are_both_named(tmp_path, refused):
    make(tmp_path / "clean", qform=PLAIN)
    look(tmp_path / "clean")
    make(tmp_path / "bad", qform=changed(c00=-0.8))
    with refused("sform (RAS", "qform (LAS", code="G05"):
        look(tmp_path / "bad")


def test_voxels_of_several_sizes_are_a_warning(tmp_path):
    other = changed(c22=5)
    checked = look(make(tmp_path, other, image_affine=other))
    (text,) = [s.text for s in checked.suspicions if s.code == "G08"]
    assert "3 × 0.8 × 0.8 to 5 × 0.8 × 0.8 mm" in text


def test_volumes_train_a_network_of_three_axes_with_strides_by_their_spacing(tmp_path):
    described = fingerprint(look(make(tmp_path)))
    assert described.volumes
    assert described.spacing == pytest.approx((3, 0.8, 0.8))
    assert type(described).from_json(described.to_json()) == described
    labels = LabelMap("classes", (0, 1), ("background", "one"))

    def plan(**asked):
        return make_plan(Request(depth=3, steps=5, **asked), described, labels, on_cpu=True, fast_bf16=False)

    assert plan().ndim == 3
    assert plan().config["pools"] == [[1, 2, 2], [2, 2, 2]]
    assert plan(model="nnunet").config["kernels"] == [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert plan(options={"ndim": 2}).ndim == 2
    assert "pools" not in plan(options={"ndim": 2}).config
    assert plan(options={"pools": [[2, 2, 2], [1, 2, 2]]}).config["pools"] == [[2, 2, 2], [1, 2, 2]]
    assert plan(preset="2015").ndim == 2


def test_strides_follow_the_voxel_and_never_its_position():
    assert by_spacing((1, 1, 1), 5) == {}
    assert by_spacing((1, 1, 1.99), 3) == {}
    assert by_spacing((2, 1, 1), 3)["pools"] == [[1, 2, 2], [2, 2, 2]]
    assert by_spacing((0.5, 5, 0.5), 6)["pools"] == [[2, 1, 2]] * 3 + [[2, 2, 2]] * 2


pydicom = pytest.importorskip("pydicom")


def write_slice(path, pixels, position, series="1.2.3", **tags):
    """One file of DICOM, without skipway."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = MRImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.{abs(hash(path.name)) % 10**9}"
    made.SeriesInstanceUID, made.SeriesDescription = series, f"series {series}"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.SamplesPerPixel = 16, 12, 11, 1
    made.PixelRepresentation, made.PhotometricInterpretation = 0, "MONOCHROME2"
    made.ImagePositionPatient, made.ImageOrientationPatient = list(position), [0.6, 0.8, 0, -0.8, 0.6, 0]
    made.PixelSpacing = [0.9, 0.7]  # between rows, between columns
    for key, value in tags.items():
        setattr(made, key, value)
    made.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def write_series(root, order=(2, 0, 3, 1), gap=0.0, **tags):
    array = RNG.integers(0, 4096, (4, 5, 6))
    for name, k in enumerate(order):
        place = (-20, 30, 4 + 2.5 * k + (gap if k == 3 else 0))
        write_slice(root / f"{name}.dcm", array[k], place, **tags)
    return array


def test_a_series_is_one_volume_in_the_order_of_its_places_and_its_labels_lie_there(tmp_path):
    import SimpleITK as sitk  # noqa: N813

    from skipway.images import open_image, write_labels

    array = write_series(tmp_path / "in" / "1.2.840.7")
    ((name, source),) = find_images(tmp_path / "in")
    assert name == "1.2.840.7"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(source.path)))
    known = reader.Execute()
    with open_image(source.path) as file:
        found = np.stack([file.read(page)[0] for page in range(file.pages)])
        assert np.array_equal(found, array)
        assert np.array_equal(found, sitk.GetArrayFromImage(known))
        out = write_labels(tmp_path / "out.nii.gz", found.astype(np.uint16), geometry=file.geometry)
    written = sitk.ReadImage(out)
    assert np.allclose(written.GetSpacing(), known.GetSpacing(), atol=1e-6)
    assert np.allclose(written.GetOrigin(), known.GetOrigin(), atol=1e-5)
    assert np.allclose(written.GetDirection(), known.GetDirection(), atol=1e-6)


def test_physical_values_and_white_is_zero(tmp_path):
    from skipway.images import open_image, open_mask

    pixels = RNG.integers(0, 4096, (5, 6))
    scaled = {"RescaleSlope": "2.5", "RescaleIntercept": "-1024"}
    for name, tags in (("a.dcm", scaled), ("b.dcm", {**scaled, "PhotometricInterpretation": "MONOCHROME1"})):
        with open_image(write_slice(tmp_path / name, pixels, (0, 0, 0), **tags)) as file:
            stored = pixels if name == "a.dcm" else 4095 - pixels
            assert np.array_equal(file.read()[0], stored * 2.5 - 1024)
            assert bool(file.notes) == (name == "b.dcm")
        with open_mask(tmp_path / name) as mask:
            assert np.array_equal(mask.read()[0], pixels)


def test_series_that_are_no_volume_are_refused_by_name(tmp_path, refused):
    from skipway.images import open_image

    write_series(tmp_path / "clean")
    open_image(tmp_path / "clean").close()
    write_series(tmp_path / "gap", gap=2.5)
    with refused("2.5 mm apart, but 5 after", code="G02"):
        open_image(tmp_path / "gap")
    write_series(tmp_path / "two")
    for k in range(2):
        write_slice(tmp_path / "two" / f"x{k}.dcm", np.ones((5, 6)), (0, 0, k), series="1.2.4")
    with refused("2 DICOM series", "series 1.2.3 (4 files", "series 1.2.4 (2 files", code="B17"):
        open_image(tmp_path / "two")
    write_series(tmp_path / "double", order=(0, 1, 1))
    with refused("at one place", code="B17"):
        open_image(tmp_path / "double")


def test_files_of_many_series_are_images_of_their_own(tmp_path):
    for k in range(3):
        write_slice(tmp_path / "in" / "x" / f"{k}.dcm", np.ones((5, 6)), (0, 0, 0), series=f"1.2.{k}")
    assert [name for name, _ in find_images(tmp_path / "in")] == ["x/0", "x/1", "x/2"]


def test_a_packing_that_nothing_reads_is_named(tmp_path, refused):
    from pydicom.uid import MPEG2MPML

    from skipway.images import open_image

    path = write_slice(tmp_path / "a.dcm", np.ones((5, 6)), (0, 0, 0))
    data = path.read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", MPEG2MPML.encode()
    at = data.index(old, 132 + 60)
    assert len(new) > len(old)
    swapped = (
        data[: at - 2]
        + len(new + b"\0" * (len(new) % 2)).to_bytes(2, "little")
        + new
        + b"\0" * (len(new) % 2)
    )
    path.write_bytes(swapped + data[at + len(old) :])
    with refused("MPEG2", "1.2.840.10008.1.2.4.100", code="F21"):
        open_image(path)
