"""Endings of two parts and folders that are one image, from the table of formats through layouts to outputs."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from test_places import write_series

from skipway import api
from skipway.data.check import inspect
from skipway.data.folders import walk
from skipway.data.groups import find_groups
from skipway.data.layouts import find_images, find_pairs
from skipway.data.scan import Scan
from skipway.data.splits import Split, split
from skipway.errors import UsageError
from skipway.evaluation import evaluate
from skipway.images import FORMATS, IMAGE_SUFFIXES, is_unread_image, labels_suffix, open_image, output_name
from skipway.images.formats import _UNREAD_SUFFIXES
from skipway.images.writers import WRITERS
from skipway.predict.options import FileOptions
from skipway.request import Request

RNG = np.random.default_rng(8)
SIZE = (4, 6, 5)
"""Z, Y, X."""


def volume(path, array=None, affine=None):
    """A NIfTI file of an array (Z, Y, X), without skipway."""
    array = RNG.integers(0, 999, SIZE).astype(np.int16) if array is None else array
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.eye(4) if affine is None else affine), path)
    return path


def labels(k=0):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 1 : 3 + k % 2, 1:4] = 1
    mask[1, 4, 1] = 2
    return mask


def ome(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, metadata={"axes": "ZYX"})


def ome_zarr(path, array):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", shape=array.shape, chunks=array.shape, dtype=array.dtype)[:] = array
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]


def quiet(event):
    pass


MAKERS = {".nii.gz": volume, ".ome.tif": ome, ".ome.zarr": ome_zarr}


def stems(found):
    return {pair.name.partition("#")[0]: (pair.image.path.name, pair.mask.path.name) for pair in found.pairs}


def test_each_ending_has_one_meaning_and_labels_that_can_be_written():
    assert not {*IMAGE_SUFFIXES} & {*_UNREAD_SUFFIXES}
    assert sum(len(form.suffixes) for form in FORMATS) == len(IMAGE_SUFFIXES)
    for suffix in IMAGE_SUFFIXES:
        assert labels_suffix(Path(f"a.b{suffix.upper()}")).lower() in WRITERS, suffix
        assert not is_unread_image(Path(f"a{suffix}"))


def test_what_is_not_read_is_left_aside_and_what_is_read_is_not(tmp_path):
    for name in ("a.nii.gz", "b.dcm", "c.nrrd", "d.png", "e.czi", "f.JP2", "g.svs", "h.txt"):
        (tmp_path / name).touch()
    read, left = walk(tmp_path)
    assert [path.name for path in read] == ["a.nii.gz", "b.dcm", "c.nrrd", "d.png"]
    assert [path.name for path in left] == ["e.czi", "f.JP2", "g.svs"]


@pytest.mark.parametrize("suffix", MAKERS)
def test_names_lose_their_whole_ending_wherever_they_are_paired(tmp_path, suffix):
    make = MAKERS[suffix]
    for k in (1, 2, 10):
        for root, name in (
            ("one", f"case_{k}"),
            ("twins/images", f"p.{k}"),
            ("twins_0/images", f"p{k}_0000"),
        ):
            make(tmp_path / root / f"{name}{suffix}", RNG.integers(0, 999, SIZE).astype(np.uint16))
        for root, name in (("one", f"case_{k}_seg"), ("twins/masks", f"p.{k}"), ("twins_0/masks", f"p{k}")):
            make(tmp_path / root / f"{name}{suffix}", labels(k))
    found = find_pairs(tmp_path / "one")
    assert found.rule.startswith("one folder, mask of X is X_seg")
    assert stems(found)["case_2"] == (f"case_2{suffix}", f"case_2_seg{suffix}")
    assert [*stems(found)] == ["case_1", "case_2", "case_10"]
    assert stems(find_pairs(tmp_path / "twins"))["p.10"] == (f"p.10{suffix}",) * 2
    assert stems(find_pairs(tmp_path / "twins_0"))["p2_0000"] == (f"p2_0000{suffix}", f"p2{suffix}")
    goal = ".tif" if suffix == ".ome.zarr" else suffix
    assert [output_name(s.path) for _, s in find_images(tmp_path / "twins")] == [
        f"p.{k}{goal}" for k in (1, 2, 10)
    ]


def test_a_series_a_folder_with_masks_as_nifti(tmp_path):
    """Also where the folder's name has a dot, as the names of patients and the numbers of studies have."""
    for name in ("Doe.John", "1.2.840.7", "p3"):
        write_series(tmp_path / "images" / name)
        volume(tmp_path / "masks" / f"{name}.nii.gz", np.ones((4, 5, 6), np.uint8))
    found = find_pairs(tmp_path)
    assert stems(found) == {name: (name, f"{name}.nii.gz") for name in ("Doe.John", "1.2.840.7", "p3")}
    assert len(found.pairs) == 12
    images = find_images(tmp_path)
    assert sorted(output_name(source.path) for _, source in images) == sorted(
        f"{name}.nii.gz" for name in ("Doe.John", "1.2.840.7", "p3")
    )
    assert sorted(name for name, _ in images) == ["1.2.840.7", "Doe.John", "p3"]


def test_a_table_may_name_folders_that_are_images(tmp_path):
    write_series(tmp_path / "scans" / "a.b")
    ome_zarr(tmp_path / "c.ome.zarr", RNG.integers(0, 9, (4, 5, 6)).astype(np.uint8))
    for name in "ac":
        volume(tmp_path / f"{name}_mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    (tmp_path / "pairs.csv").write_text("image,mask\nscans/a.b,a_mask.nii.gz\nc.ome.zarr,c_mask.nii.gz\n")
    assert stems(find_pairs(tmp_path / "pairs.csv")) == {
        "scans/a.b": ("a.b", "a_mask.nii.gz"),
        "c": ("c.ome.zarr", "c_mask.nii.gz"),
    }


@pytest.fixture
def cases(tmp_path):
    """Four volumes of two patients."""
    for k in range(4):
        volume(tmp_path / "d" / "imagesTr" / f"pat{k // 2}_scan{k}.nii.gz")
        volume(tmp_path / "d" / "labelsTr" / f"pat{k // 2}_scan{k}.nii.gz", labels(k))
    return tmp_path / "d"


def test_groups_lists_split_and_memory_go_by_the_whole_stem(cases, tmp_path):
    pairs = find_pairs(cases)
    found = find_groups(pairs)
    assert {key.partition("#")[0]: group for key, group in found.of.items()} == {
        f"pat{k // 2}_scan{k}": f"pat{k // 2}" for k in range(4)
    }
    data = inspect(pairs, how=Scan(before={}))
    for line in ("pat1_scan2.nii.gz\npat1_scan3.nii.gz", "pat1_scan2\npat1_scan3"):
        (tmp_path / "val.txt").write_text(line)
        made = split(data, val=tmp_path / "val.txt")
        assert {name.partition("#")[0] for name in made.val} == {"pat1_scan2", "pat1_scan3"}
    again = Split.from_json(json.loads(json.dumps(made.to_json())))
    assert again.val_pairs == made.val_pairs
    assert again.val_pairs[0].image.path.name == "pat1_scan2.nii.gz"
    seen = inspect(pairs, how=Scan(before=json.loads(json.dumps(data.seen)))).seen
    assert json.loads(json.dumps(seen)) == json.loads(json.dumps(data.seen))
    assert all(name.endswith(".nii.gz") for entry in seen["pairs"].values() for name in entry["files"])


def test_a_series_without_masks_is_one_image(tmp_path):
    write_series(tmp_path / "scan")
    with pytest.raises(UsageError, match="one image without masks"):
        find_pairs(tmp_path / "scan")
    volume(tmp_path / "mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    assert stems(find_pairs(tmp_path / "scan", tmp_path / "mask.nii.gz")) == {"scan": ("scan", "mask.nii.gz")}


def test_a_folder_a_case_with_a_series_and_a_mask(tmp_path):
    for name in ("p1", "p2"):
        write_series(tmp_path / name / "DICOM")
        volume(tmp_path / name / "mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    assert stems(find_pairs(tmp_path)) == {f"{name}/DICOM": ("DICOM", "mask.nii.gz") for name in ("p1", "p2")}


def test_channels_of_nnunet_in_nifti(tmp_path):
    root = tmp_path / "Dataset007"
    arrays = {(k, c): RNG.integers(0, 999, SIZE).astype(np.int16) for k in (1, 2) for c in (0, 1)}
    for (k, c), array in arrays.items():
        volume(root / "imagesTr" / f"case_{k:03}_{c:04}.nii.gz", array)
        volume(root / "imagesTs" / f"new_{k:03}_{c:04}.nii.gz", array)
        volume(root / "labelsTr" / f"case_{k:03}.nii.gz", labels(k))
    found = find_pairs(root)
    assert "nnU-Net raw" in found.rule
    assert "2 channels" in found.rule
    assert len(found.pairs) == 8
    assert found.pairs[4].name == "case_002#000"
    with found.pairs[4].image.open_image() as image:
        for z in range(4):
            assert np.array_equal(image.read(z), [arrays[2, 0][z], arrays[2, 1][z]])
    assert [(name, len(s.parts)) for name, s in find_images(root / "imagesTs")] == [
        ("new_001", 2),
        ("new_002", 2),
    ]


@pytest.mark.parametrize("form", ["series", "channels"])
def test_training_and_prediction_keep_names_and_place(tmp_path, form):
    """Through every part that makes a name: split.json, the cache, outputs, probabilities, evaluation."""
    root = tmp_path / "d"
    tilt = np.array([[0.7, 0, 0, -3], [0, 0.9, 0, 5], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    names = [f"Doe.{k}x" for k in range(3)] if form == "series" else [f"case_{k}" for k in range(3)]
    for k, name in enumerate(names):
        if form == "series":
            array = write_series(root / "images" / name, ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
            with open_image(root / "images" / name) as image:
                where = np.array(image.geometry.affine)
            volume(root / "masks" / f"{name}.nii.gz", (array > 999).astype(np.uint8), where)
        else:
            for c in (0, 1):
                volume(root / "imagesTr" / f"{name}_{c:04}.nii.gz", affine=tilt)
            volume(root / "labelsTr" / f"{name}.nii.gz", labels(k), tilt)
    run, out = tmp_path / "run", tmp_path / "out"
    request = Request(width=4, depth=2, batch=1, steps=1)
    api.train_run(api.Order(root, None, run, request, device="cpu"), quiet)
    kept = json.loads((run / "split.json").read_text())
    assert {name.partition("#")[0] for name in (*kept["train"], *kept["val"])} == set(names)
    folder = root / ("images" if form == "series" else "imagesTr")
    summary = api.predict_files(
        api.load(run, device="cpu"), folder, out, FileOptions(probabilities=True), quiet
    )
    assert [path.name for path in summary.written] == [f"{name}.nii.gz" for name in names]
    assert {path.name for path in out.iterdir()} == {
        "labels.json", "review.csv", *(f"{n}.nii.gz" for n in names), *(f"{n}_probabilities.tif" for n in names)
    }  # fmt: skip
    written = nibabel.load(summary.written[0])
    truth = root / ("masks" if form == "series" else "labelsTr")
    assert np.allclose(written.affine, nibabel.load(truth / f"{names[0]}.nii.gz").affine, atol=1e-5)
    assert {case.name.partition("#")[0] for case in evaluate(out, truth).images} == set(names)
