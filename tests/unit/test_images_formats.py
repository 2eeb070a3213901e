"""BMP, GIF, WebP and PNM against Pillow; NumPy, HDF5 and Zarr against the libraries that wrote them."""

import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from skipway.errors import SecurityError
from skipway.images import is_image, open_image, open_mask, output_name

RNG = np.random.default_rng(4)


def read(path: Path, opener=open_image):
    """All pages, (P, C, H, W), and the closed file."""
    with opener(path) as file:
        pixels = np.stack([file.read(page) for page in range(file.pages)])
        top = file.read(0, (slice(1, 3), slice(2, 5)))
        assert np.array_equal(top, pixels[0, :, 1:3, 2:5])
        assert pixels.dtype == file.dtype
        return pixels, file


def bmp(path: Path, bits: int, palette: list, rows: np.ndarray, width: int) -> Path:
    """A BMP written by hand, its first row first (negative height); `rows` are bytes padded to 4."""
    colours = b"".join(bytes((*reversed(colour), 0)) for colour in palette)
    start = 54 + len(colours)
    body = rows.astype(np.uint8).tobytes()
    head = struct.pack("<IHHI", start + len(body), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, -len(rows), 1, bits, 0, len(body), 0, 0, len(palette), 0)
    path.write_bytes(b"BM" + head + info + colours + body)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_bmp_is_what_pillow_wrote(tmp_path, mode):
    array = RNG.integers(0, 255, (6, 7, 3), np.uint8)
    image = Image.fromarray(array).convert(mode)
    image.save(tmp_path / "a.bmp")
    again = Image.open(tmp_path / "a.bmp")
    assert again.mode == mode
    wanted = np.asarray(again.convert("RGB") if mode == "P" else again).astype(np.uint8)
    pixels, file = read(tmp_path / "a.bmp")
    assert np.array_equal(pixels[0], np.moveaxis(np.atleast_3d(wanted), -1, 0))
    assert file.format == "BMP"
    if mode != "RGB":
        assert np.array_equal(read(tmp_path / "a.bmp", open_mask)[0][0, 0], np.asarray(again))


def test_bmp_of_two_colours_in_8_bits_keeps_its_numbers(tmp_path):
    rows = RNG.integers(0, 2, (5, 8))
    path = bmp(tmp_path / "a.bmp", 8, [(0, 0, 0), (255, 255, 255)], rows, 7)
    assert not np.array_equal(np.asarray(Image.open(path)), rows[:, :7])  # what the usual reader makes of it
    assert np.array_equal(read(path, open_mask)[0][0, 0], rows[:, :7])
    assert np.array_equal(read(path)[0][0, 2], rows[:, :7] * 255)


def test_bmp_of_4_bits_keeps_its_numbers_and_has_colours(tmp_path):
    rows = RNG.integers(0, 256, (5, 4)) & 0x33
    palette = [(0, 0, 0), (9, 8, 7), (1, 2, 3), (250, 0, 5)]
    path = bmp(tmp_path / "a.bmp", 4, palette, rows, 7)
    numbers = np.stack((rows >> 4, rows & 15), -1).reshape(5, 8)[:, :7]
    assert np.array_equal(read(path, open_mask)[0][0, 0], numbers)
    assert np.array_equal(read(path)[0][0], np.moveaxis(np.array(palette)[numbers], -1, 0))
    assert np.array_equal(np.asarray(Image.open(path)), numbers)


def test_a_packed_or_cut_bmp_is_refused(tmp_path, refused):
    path = bmp(tmp_path / "a.bmp", 8, [(0, 0, 0)] * 256, np.zeros((4, 8)), 8)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-1])
    with refused("a.bmp", "ends at byte", code="F01"):
        open_image(path)
    data[30] = 1
    path.write_bytes(data)
    with refused("packing 1", code="A15"):
        open_image(path)
    struct.pack_into("<ii", data, 18, 60_000, 60_000)
    data[30] = 0
    path.write_bytes(data)
    with refused("60000 × 60000", code="F08"):
        open_image(path)


def test_gif_and_webp_stills_are_read_and_films_refused(tmp_path, refused):
    grey = RNG.integers(0, 256, (9, 7), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.gif")
    assert np.array_equal(read(tmp_path / "grey.gif", open_mask)[0][0, 0], grey)
    indices = Image.fromarray(grey % 3)
    indices.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 100])
    indices.save(tmp_path / "p.gif", optimize=False)
    with refused("p.gif", "whose numbers change", code="E07"):
        open_mask(tmp_path / "p.gif")
    assert np.array_equal(
        read(tmp_path / "p.gif")[0][0], np.moveaxis(np.asarray(indices.convert("RGB")), -1, 0)
    )
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    for name in ("film.gif", "film.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        with refused(name, "animated", code="C22"):
            open_image(tmp_path / name)


def test_lossless_webp_is_a_mask_and_lossy_is_not(tmp_path, refused):
    labels = RNG.integers(0, 4, (9, 7), np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read(tmp_path / "a.webp", open_mask)[0][0, 0], labels)
    Image.fromarray(labels * 60).save(tmp_path / "b.webp", quality=80)
    with refused("b.webp", "lossy WebP", code="E09"):
        open_mask(tmp_path / "b.webp")
    wanted = np.asarray(Image.open(tmp_path / "b.webp"))
    assert np.array_equal(read(tmp_path / "b.webp")[0][0], np.moveaxis(wanted, -1, 0))


def test_alpha_of_webp_follows_the_policy(tmp_path, refused):
    array = RNG.integers(0, 255, (9, 7, 4), np.uint8)
    array[..., 3] = 255
    Image.fromarray(array).save(tmp_path / "clean.webp", lossless=True)
    assert np.array_equal(read(tmp_path / "clean.webp")[0][0], np.moveaxis(array[..., :3], -1, 0))
    array[3, 3, 3] = 7
    Image.fromarray(array).save(tmp_path / "bad.webp", lossless=True, exact=True)
    with refused("bad.webp", "alpha", code="D03"):
        open_image(tmp_path / "bad.webp")


def test_pnm_values_are_as_stored(tmp_path):
    grey = RNG.integers(0, 101, (5, 7)).astype(np.uint8)
    (tmp_path / "a.pgm").write_bytes(b"P5 # made by hand\n7 5\n100\n" + grey.tobytes())
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "a.pgm")), grey)  # spread over 0…255
    assert np.array_equal(read(tmp_path / "a.pgm", open_mask)[0][0, 0], grey)
    deep = RNG.integers(0, 65536, (5, 7, 3)).astype(">u2")
    (tmp_path / "a.ppm").write_bytes(b"P6\n7 5\n65535\n" + deep.tobytes())
    pixels, file = read(tmp_path / "a.ppm")
    assert np.array_equal(pixels[0], np.moveaxis(deep, -1, 0))
    assert file.kind == "16-bit RGB"


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((6, 7), "YX"), ((6, 7, 3), "YXC"), ((9, 6, 7), "ZYX"), ((5, 6, 7, 2), "ZYXC"), ((1, 6, 7), "ZYX")],
)
def test_arrays_without_names_are_read_by_one_rule(tmp_path, suffix, shape, axes):
    array = RNG.normal(size=shape).astype(np.float32)
    path = stored(tmp_path / f"a{suffix}", array)
    pixels, file = read(path)
    full = array[None] if "Z" not in axes else array
    full = full[..., None] if "C" not in axes else full
    assert np.array_equal(pixels, np.moveaxis(full, -1, 1))
    assert (file.pages, file.channels) == pixels.shape[:2]


def stored(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("volume", data=array, chunks=True, compression="gzip")
    else:
        zarr.save_array(str(path), array)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
@pytest.mark.parametrize("shape", [(4, 4, 4), (3, 20, 30), (7,), (2, 3, 4, 5, 6), (3, 8, 8, 3)])
def test_arrays_that_could_mean_two_things_are_refused(tmp_path, suffix, shape, refused):
    path = stored(tmp_path / f"a{suffix}", np.ones(shape, np.uint8))
    with refused(f"a{suffix}"):
        open_image(path)
    if shape == (4, 4, 4):
        with refused("4 × 4 × 4", "rows, columns or channels", "(Z, H, W)", code="B17"):
            open_image(path)


def test_a_mask_of_three_pages_has_no_channels(tmp_path):
    labels = RNG.integers(0, 9, (3, 20, 30)).astype(np.int32)
    assert np.array_equal(read(stored(tmp_path / "a.npy", labels), open_mask)[0][:, 0], labels)


@pytest.mark.parametrize("dtype", [">u2", "<i8", "?", "<f2", "u1"])
def test_npy_types_and_orders_are_kept(tmp_path, dtype):
    array = np.asfortranarray(RNG.integers(0, 2, (6, 7)).astype(dtype))
    np.save(tmp_path / "a.npy", array)
    pixels, file = read(tmp_path / "a.npy")
    assert np.array_equal(pixels[0, 0], array)
    assert file.dtype == (np.uint8 if dtype == "?" else np.dtype(dtype).newbyteorder("="))


def test_a_huge_npy_header_is_refused_before_memory_is_taken(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.zeros((8, 8), np.uint8))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(
        data.replace(b"'shape': (8, 8), }" + b" " * 16, b"'shape': (900000000000, 8), }     ")
    )
    with refused("b.npy", "ends at byte"):
        open_image(tmp_path / "b.npy")


def test_pickled_objects_are_never_opened(tmp_path):
    evil = np.empty((2, 2), object)
    evil[:] = {}
    np.save(tmp_path / "a.npy", evil, allow_pickle=True)
    with pytest.raises(SecurityError, match="could run code"):
        open_image(tmp_path / "a.npy")


def test_complex_arrays_are_refused(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.ones((6, 7), complex))
    with refused("complex128", code="C06"):
        open_image(tmp_path / "a.npy")


def test_hdf5_takes_the_data_set_that_is_named(tmp_path, refused):
    image, labels = RNG.random((9, 6, 7)), RNG.integers(0, 5, (9, 6, 7))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"], file["volumes/labels"] = image, labels
        file["volumes/raw"].attrs["element_size_um"] = (2.0, 0.5, 0.25)
        file["notes"] = np.zeros(3)
    pixels, opened = read(tmp_path / "a.h5")
    assert np.array_equal(pixels[:, 0], image)
    assert (opened.geometry.spacing, opened.geometry.unit) == ((2.0, 0.5, 0.25), "µm")
    assert np.array_equal(read(tmp_path / "a.h5", open_mask)[0][:, 0], labels)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["volumes/image"] = image
    with refused("a.h5", "3 data sets", "/volumes/raw 9×6×7", code="B17"):
        open_image(tmp_path / "a.h5")


def test_hdf5_axes_and_links(tmp_path):
    array = RNG.integers(0, 9, (3, 6, 7), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("x", data=array)
        for axis, name in zip(data.dims, "cyx", strict=True):
            axis.label = name
    assert np.array_equal(read(tmp_path / "a.h5")[0][0], array)
    (tmp_path / "raw.bin").write_bytes(bytes(64))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (8, 8), "u1", external=[(str(tmp_path / "raw.bin"), 0, 64)])
    with pytest.raises(SecurityError, match="other files"):
        open_image(tmp_path / "b.h5")


def ome(path: Path, array: np.ndarray, axes: str, version: int, scale=None, unit=None) -> Path:
    """An OME-Zarr of one level, its metadata written by hand."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    made = group.create_array("0", shape=array.shape, chunks=(4,) * array.ndim, dtype=array.dtype)
    made[:] = array
    smaller = group.create_array("1", shape=(2,) * array.ndim, chunks=(2,) * array.ndim, dtype=array.dtype)
    smaller[:] = 0
    kinds = {"z": "space", "y": "space", "x": "space", "c": "channel", "t": "time"}
    named = [{"name": a, "type": kinds[a]} | ({"unit": unit} if unit and a in "zyx" else {}) for a in axes]
    levels = [{"path": name} for name in "01"]
    if scale:
        levels[0]["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    entry = {"multiscales": [{"version": "0.4", "axes": named, "datasets": levels}]}
    group.attrs.update({"ome": entry | {"version": "0.5"}} if version == 3 else entry)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_is_level_0_with_its_axes_and_scale(tmp_path, version):
    array = RNG.integers(0, 999, (1, 2, 5, 6, 7)).astype(np.uint16)
    path = ome(tmp_path / "a.ome.zarr", array, "tczyx", version, [1, 1, 3.0, 0.5, 0.25], "micrometer")
    assert is_image(path, folder=True)
    assert output_name(path) == "a.tif"
    pixels, file = read(path)
    assert np.array_equal(pixels, np.moveaxis(array[0], 0, 1))
    assert (file.geometry.spacing, file.geometry.unit) == ((3.0, 0.5, 0.25), "µm")


def test_ome_zarr_with_two_page_axes_is_refused(tmp_path, refused):
    path = ome(tmp_path / "a.zarr", np.zeros((2, 3, 6, 7), np.uint8), "tzyx", 2)
    with refused("axes TZYX of 2 × 3 × 6 × 7", code="B18"):
        open_image(path)


def test_ome_zarr_labels_are_the_mask(tmp_path, refused):
    image, labels = RNG.integers(0, 255, (6, 7), np.uint8), RNG.integers(0, 5, (6, 7)).astype(np.int32)
    path = ome(tmp_path / "a.zarr", image, "yx", 3)
    ome(path / "labels" / "cells", labels, "yx", 3)
    group = zarr.open_group(str(path / "labels"), mode="a", zarr_format=3)
    group.attrs["ome"] = {"labels": ["cells"]}
    assert np.array_equal(read(path)[0][0, 0], image)
    assert np.array_equal(read(path, open_mask)[0][0, 0], labels)
    ome(path / "labels" / "nuclei", labels, "yx", 3)
    group.attrs["ome"] = {"labels": ["cells", "nuclei"]}
    with refused("2 label images: cells, nuclei", code="B17"):
        open_mask(path)


def test_zarr_reads_no_more_chunks_than_asked(tmp_path):
    array = RNG.integers(0, 255, (64, 64), np.uint8)
    path = tmp_path / "a.zarr"
    made = zarr.create_array(str(path), shape=array.shape, chunks=(8, 8), dtype="u1")
    made[:] = array
    for chunk in (path / "c").rglob("*"):
        if chunk.is_file() and chunk.parent.name not in ("0", "1"):
            chunk.write_bytes(b"broken")
    with open_image(path) as file:
        assert np.array_equal(file.read(0, (slice(3, 16), slice(5, 60)))[0], array[3:16, 5:60])
        with pytest.raises(Exception, match="damaged") as caught:
            file.read()
    assert caught.value.exit_code == 3


def test_zarr_that_reaches_out_or_unpickles_is_refused(tmp_path, refused):
    path = ome(tmp_path / "a.zarr", np.zeros((6, 7), np.uint8), "yx", 2)
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["path"] = "../b.zarr"
    (path / ".zattrs").write_text(json.dumps(attributes))
    zarr.save_array(str(tmp_path / "b.zarr"), np.zeros((6, 7)))
    with pytest.raises(SecurityError, match="said to lie"):
        open_image(path)
    zarr.save_array(str(tmp_path / "c.zarr"), np.zeros((6, 7)), zarr_format=2)
    described = json.loads((tmp_path / "c.zarr" / ".zarray").read_text())
    (tmp_path / "c.zarr" / ".zarray").write_text(json.dumps(described | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(SecurityError, match="pickle"):
        open_image(tmp_path / "c.zarr")
    (tmp_path / "c.zarr" / ".zarray").write_text(json.dumps(described | {"dtype": "|O"}))
    with refused("|O pixels", code="C06"):
        open_image(tmp_path / "c.zarr")


def test_a_hollow_zarr_and_a_huge_chunk_are_refused(tmp_path, refused):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(10**6, 10**6), chunks=(1000, 1000), dtype="u1")
    with refused("1000000 × 1000000", "0 chunks", code="F09"):
        open_image(tmp_path / "a.zarr")
    zarr.create_array(str(tmp_path / "b.zarr"), shape=(10**6, 10**6), chunks=(10**5, 10**5), dtype="u1")
    with refused("a chunk of", code="F08"):
        open_image(tmp_path / "b.zarr")


@pytest.mark.parametrize("name", ["zstd", "blosc", "lz4", "gzip", "zlib", "bz2", "lzma"])
def test_a_chunk_that_unfolds_to_more_than_a_chunk_is_refused_before_it_does(tmp_path, refused, name):
    from numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd

    stated = {"zstd": Zstd(), "blosc": Blosc("zstd"), "lz4": LZ4()}
    codec = {**stated, "gzip": GZip(), "zlib": Zlib(), "bz2": BZ2(), "lzma": LZMA()}[name]
    path = tmp_path / "a.zarr"
    group = zarr.open_array(
        str(path), mode="w", shape=(40, 50), chunks=(20, 25), dtype="u1", zarr_format=2, compressor=codec
    )
    group[:] = np.arange(2000, dtype=np.uint8).reshape(40, 50)
    assert np.array_equal(read(path)[0][0, 0], group[:])
    (path / "1.0").write_bytes(codec.encode(bytes(50 << 20)))
    size = 50 << 20 if name in stated else 2 * 20 * 25 + (1 << 16) + 1  # counted no further
    with refused(f"a chunk 1.0 of {size} bytes or more", code="F08"):
        read(path)


def test_names_of_the_labels_of_each_format():
    names = {"a.bmp": "a.png", "a.GIF": "a.png", "a.webp": "a.png", "a.npy": "a.npy", "a.h5": "a.tif"}
    names |= {"a.ome.zarr": "a.tif", "b.pgm": "b.png"}
    assert {name: output_name(Path(name)) for name in names} == names
