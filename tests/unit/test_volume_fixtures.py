"""Real NIfTI and DICOM files: equal to nibabel and pydicom, or refused in one typed line; the tally is printed."""

import warnings

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from read_everything import by_pydicom

from skipway.data.layouts import find_pairs
from skipway.errors import DataError
from skipway.images import open_image, open_mask, write_labels


def read(path):
    with open_image(path) as file:
        return np.stack([file.read(page) for page in range(file.pages)]), file


def known_by_pydicom(path):
    try:
        return by_pydicom(path)
    except Exception:  # whatever it raises, it has no pixels
        return None


def test_each_nifti_equals_nibabel_and_writes_its_place_back(data_root, tmp_path):
    files = sorted((data_root / "fixtures" / "nifti").rglob("*.nii*"))
    for path in files:
        known = nibabel.load(path)
        values = known.get_fdata(dtype=np.float64).reshape(*known.shape, *(1,) * (4 - len(known.shape)))
        pixels, file = read(path)
        assert np.array_equal(pixels, values.transpose(2, 3, 1, 0).astype(np.float32)), path.name
        assert np.array_equal(file.geometry.affine, known.affine), path.name
        out = write_labels(
            tmp_path / "a.nii.gz", np.ones(pixels[:, 0].shape, np.uint8), geometry=file.geometry
        )
        assert nibabel.load(out).affine.tobytes() == known.affine.tobytes(), path.name
    print(f"\nNIfTI: {len(files)} of {len(files)} equal to nibabel")
    assert len(files) >= 8


def test_each_dicom_equals_pydicom_or_is_refused_in_one_line(data_root):
    equal, alone, refusals = 0, [], {}
    for path in sorted((data_root / "fixtures" / "dicom").glob("*.dcm")):
        with warnings.catch_warnings():  # pydicom warns of values that break a rule
            warnings.simplefilter("ignore")
            known = known_by_pydicom(path)
            try:
                pixels, _ = read(path)
            except DataError as error:
                refusals[path.name] = error.problems[0].code if "\n" not in str(error) else "several lines"
                continue
        if known is None:
            alone.append(path.name)
        else:
            assert np.array_equal(pixels, known.astype(pixels.dtype)), path.name
            equal += 1
    print(
        f"\nDICOM: {equal} equal to pydicom, {len(alone)} that it does not read, {len(refusals)} refused: {refusals}"
    )
    assert equal >= 24
    assert set(alone) == {"JPEGLSNearLossless_08.dcm", "JPGExtended.dcm", "SC_rgb_jls_lossy_sample.dcm"}
    assert set(refusals.values()) <= {"A15", "F01", "F21"}
    assert refusals["test-SR.dcm"] == "A15"
    assert len(refusals) <= 12


def test_a_real_series_is_the_volume_that_itk_reads(data_root):
    folder = data_root / "fixtures" / "dicom" / "series-hippocampus-crop"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    known = reader.Execute()
    pixels, file = read(folder)
    assert np.array_equal(pixels[:, 0], sitk.GetArrayFromImage(known))
    assert file.geometry.spacing == pytest.approx(known.GetSpacing()[::-1])
    affine = np.array(file.geometry.affine)
    assert np.allclose(affine[:3, 3], np.array(known.GetOrigin()) * (-1, -1, 1))


def test_the_decathlon_pairs_by_name_and_reads_as_nibabel(data_root):
    root = data_root / "msd-hippocampus" / "Task04_Hippocampus"
    pairs = find_pairs(root / "imagesTr", root / "labelsTr")
    assert len({pair.image.path for pair in pairs.pairs}) == 120
    assert all(pair.image.path.name == pair.mask.path.name for pair in pairs.pairs)
    for path in sorted((root / "labelsTr").iterdir())[:3]:
        with open_mask(path) as mask:
            found = np.stack([mask.read(page)[0] for page in range(mask.pages)])
        assert np.array_equal(found.transpose(2, 1, 0), np.asarray(nibabel.load(path).dataobj))
