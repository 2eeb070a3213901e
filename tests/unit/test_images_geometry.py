"""Where pixels lie: read from each kind of TIFF, written again, and read back by a second library."""

from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image

from skipway.data.check import inspect
from skipway.data.layouts import find_pairs
from skipway.images import Geometry, open_image, open_mask, open_probabilities, write_labels

RNG = np.random.default_rng(6)
LABELS = RNG.integers(0, 9, (3, 6, 7)).astype(np.uint16)

GEO = (
    (33550, 12, 3, (0.5, 0.25, 0.0)),
    (33922, 12, 6, (0.0, 0.0, 0.0, 444720.0, 3751320.0, 0.0)),
    (34735, 3, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32611)),
    (34737, 2, 0, "WGS 84 / UTM zone 11N|"),
)
"""Pixel scale, tie point, keys (projected, EPSG 32611) and their text, as the GeoTIFF standard numbers them."""


def geometry(path):
    with open_image(path) as file:
        return file.geometry


def test_imagej_pixel_size_and_unit_are_read(tmp_path):
    stack = {"axes": "ZYX", "spacing": 2.0, "unit": "micron"}
    tifffile.imwrite(tmp_path / "a.tif", LABELS, imagej=True, resolution=(4.0, 2.0), metadata=stack)
    assert geometry(tmp_path / "a.tif") == Geometry((2.0, 0.5, 0.25), "µm")
    tifffile.imwrite(
        tmp_path / "b.tif", LABELS[0], imagej=True, resolution=(4.0, 2.0), metadata={"unit": "pixel"}
    )
    assert geometry(tmp_path / "b.tif") is None


def test_ome_pixel_size_and_unit_are_read(tmp_path):
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (3.0, 2.0, 7.5), strict=True)}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    meta = {"axes": "ZYX", **sizes, **units}
    tifffile.imwrite(tmp_path / "a.ome.tif", LABELS, metadata=meta)
    assert geometry(tmp_path / "a.ome.tif") == Geometry((7.5, 2.0, 3.0), "nm")
    tifffile.imwrite(tmp_path / "b.ome.tif", LABELS[0], metadata={"axes": "YX"})
    assert geometry(tmp_path / "b.ome.tif") is None


@pytest.mark.parametrize(
    ("dots", "unit", "found"), [(300, 2, None), (118.11, 3, None), (1, 3, None), (40000, 3, 0.25)]
)
def test_a_print_resolution_is_no_pixel_size(tmp_path, dots, unit, found):
    tifffile.imwrite(tmp_path / "a.tif", LABELS[0], resolution=(dots, dots), resolutionunit=unit)
    seen = geometry(tmp_path / "a.tif")
    assert seen is None if found is None else np.allclose(seen.spacing, found) and seen.unit == "µm"


def test_a_turned_picture_turns_its_pixel_size(tmp_path):
    options = {"resolution": (40000, 20000), "resolutionunit": 3, "extratags": [(274, 3, 1, 6, True)]}
    tifffile.imwrite(tmp_path / "a.tif", LABELS[0], **options)
    assert np.allclose(geometry(tmp_path / "a.tif").spacing, (0.25, 0.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_are_written_for_imagej(tmp_path, dtype):
    labels, place = LABELS.astype(dtype), Geometry((2.0, 0.5, 0.25), "µm")
    path = write_labels(tmp_path / "a.tif", labels, geometry=place)
    assert geometry(path) == place
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata["unit"] == "um"
        assert file.imagej_metadata["spacing"] == 2.0
        assert np.array_equal(file.asarray(), labels)
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        assert (float(picture.tag_v2[282]), float(picture.tag_v2[283])) == (4.0, 2.0)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_ids_beyond_16_bits_are_written_for_ome(tmp_path, name):
    labels, place = LABELS.astype(np.uint32) + 70_000, Geometry((2.0, 0.5, 0.25), "mm")
    path = write_labels(tmp_path / name, labels, geometry=place)
    assert path.name == name
    assert geometry(path) == place
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZYX"
        assert np.array_equal(file.asarray(), labels)
        pixels = next(n for n in ElementTree.fromstring(file.ome_metadata).iter() if n.tag.endswith("Pixels"))
    assert {k: pixels.get(k) for k in ("PhysicalSizeX", "PhysicalSizeZ", "PhysicalSizeZUnit", "Type")} == {
        "PhysicalSizeX": "0.25", "PhysicalSizeZ": "2.0", "PhysicalSizeZUnit": "mm", "Type": "uint32",
    }  # fmt: skip


def test_ids_of_64_bits_keep_the_pixel_size_in_tags(tmp_path):
    path = write_labels(tmp_path / "a.tif", LABELS.astype(np.int64), geometry=Geometry((0.5, 0.25), "mm"))
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZYX"
        assert file.pages[0].tags[296].value == 3
        assert np.allclose(np.divide(*file.pages[0].tags[282].value), 40)


def test_palette_large_and_single_labels_keep_their_place(tmp_path):
    palette = np.array([[0, 0, 0], *[[k * 20, 255 - k, k] for k in range(1, 9)]], np.uint8)
    path = write_labels(
        tmp_path / "a.tif", LABELS[0].astype(np.uint8), palette=palette, geometry=Geometry((2.0, 3.0), "nm")
    )
    assert geometry(path) == Geometry((2.0, 3.0), "nm")
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), LABELS[0])
        assert np.array_equal(np.reshape(picture.getpalette(), (-1, 3))[:9], palette)
    large = np.zeros((4200, 4100), np.uint8)
    path = write_labels(tmp_path / "b.tif", large, geometry=Geometry((2.0, 3.0), "µm"))
    assert geometry(path) == Geometry((2.0, 3.0), "µm")


def test_geotiff_tags_are_kept(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", LABELS[0], extratags=[(*tag, True) for tag in GEO], metadata=None)
    place = geometry(tmp_path / "a.tif")
    assert place.spacing == (0.25, 0.5)
    path = write_labels(tmp_path / "b.tif", LABELS[1], geometry=place)
    with open_probabilities(tmp_path / "c.tif", (2, 6, 7), geometry=place) as maps:
        maps[:] = 0.5
    for written in (path, tmp_path / "c.tif"):
        with tifffile.TiffFile(written) as file, tifffile.TiffFile(tmp_path / "a.tif") as before:
            assert file.geotiff_metadata == before.geotiff_metadata
            assert file.geotiff_metadata["ProjectedCSTypeGeoKey"] == 32611
        with Image.open(tmp_path / "b.tif") as picture:
            assert picture.tag_v2[33922][3:5] == (444720.0, 3751320.0)
    assert np.array_equal(tifffile.imread(path), LABELS[1])


def test_probabilities_keep_the_pixel_size(tmp_path):
    with open_probabilities(tmp_path / "a.tif", (2, 6, 7), geometry=Geometry((0.5, 0.25), "µm")) as maps:
        maps[:] = 0.5
    assert np.allclose(geometry(tmp_path / "a.tif").spacing, (0.5, 0.25))
    assert tifffile.imread(tmp_path / "a.tif").min() == 0.5


def nodata_pairs(root, save, values, stated):
    for k, value in enumerate(stated):
        mask = np.array([[0, 1, 1, 0]] * 4, np.int32)
        mask[k % 4, 0] = values[k]
        save(root / "images" / f"a{k}.tif", RNG.integers(0, 255, (4, 4), np.uint8))
        tag = [] if value is None else [(42113, 2, 0, str(value), True)]
        save(root / "masks" / f"a{k}.tif", mask, extratags=tag)
    return find_pairs(root / "images", root / "masks")


def test_nodata_of_masks_is_ignored(tmp_path, save, refused):
    pairs = nodata_pairs(tmp_path / "clean", save, (-9999, 1, -9999, 0), (-9999,) * 4)
    labels = inspect(pairs).labels
    assert (labels.values, labels.ignore) == ((0, 1), -9999)
    with open_mask(tmp_path / "clean" / "masks" / "a0.tif") as file:
        assert file.nodata == -9999
        assert "-9999" in file.notes[0]
    pairs = nodata_pairs(tmp_path / "zero", save, (0, 1, 0, 0), (0, 0, 0, 0))  # 0 is the background here
    assert inspect(pairs).labels.values == (0, 1)
    assert inspect(pairs).labels.ignore is None
    pairs = nodata_pairs(tmp_path / "bad", save, (-9999, 1, 7, 0), (-9999, -9999, 7, -9999))
    with refused("a2.tif", "pixels of 7, which it calls empty", code="E06"):
        inspect(pairs)
