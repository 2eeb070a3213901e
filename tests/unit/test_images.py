"""The reading policy of PNG and JPEG, and what is refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipway.errors import UsageError
from skipway.images import open_image, open_mask, shown

RNG = np.random.default_rng(0)

UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}
"""What the eight orientation codes ask for, in rotations and mirrors of numpy."""


def read(path: Path, opener=open_image):
    with opener(path) as file:
        pixels = file.read()
        assert pixels.shape == (file.channels, *file.size)
        assert pixels.dtype == file.dtype
        return pixels, file


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path: Path, array: np.ndarray, depth: int, kind: int, *extra: bytes) -> Path:
    """A PNG written by hand, for what Pillow cannot write."""
    rows = array.astype(">u2") if depth == 16 else array
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, kind, 0, 0, 0)
    blocks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(blocks))
    return path


def test_grey_png_of_8_and_16_bits_is_read_as_stored(tmp_path, save):
    for dtype in (np.uint8, np.uint16):
        array = RNG.integers(0, np.iinfo(dtype).max, (5, 7), dtype, endpoint=True)
        pixels, file = read(save(tmp_path / "a.png", array))
        assert np.array_equal(pixels[0], array)
        assert file.kind == f"{array.itemsize * 8}-bit grey"


def test_16_bit_colour_png_is_not_narrowed(tmp_path):
    array = RNG.integers(0, 65535, (5, 7, 3), np.uint16)
    path = png(tmp_path / "a.png", array, 16, 2)
    assert np.asarray(Image.open(path)).dtype == np.uint8  # what the usual reader makes of it
    pixels, file = read(path)
    assert np.array_equal(pixels, np.moveaxis(array, -1, 0))
    assert file.kind == "16-bit RGB"


def test_palette_is_colours_in_an_image_and_indices_in_a_mask(tmp_path):
    indices = RNG.integers(0, 4, (6, 8), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    pixels, _ = read(tmp_path / "a.png")
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    assert np.array_equal(pixels, np.moveaxis(table[indices], -1, 0))
    mask, file = read(tmp_path / "a.png", open_mask)
    assert np.array_equal(mask[0], indices)
    assert np.array_equal(file.palette[:4], table)


def test_a_mask_of_few_bits_keeps_its_stored_numbers(tmp_path):
    packed = np.array([[0b00011011], [0b11100100]], np.uint8)  # 0 1 2 3 / 3 2 1 0 in two bits each
    header = struct.pack(">IIBBBBB", 4, 2, 2, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read(tmp_path / "a.png", open_mask)[0].tolist() == [[[0, 1, 2, 3], [3, 2, 1, 0]]]
    assert read(tmp_path / "a.png")[0].tolist() == [[[0, 85, 170, 255], [255, 170, 85, 0]]]


def test_one_bit_is_0_and_1(tmp_path, save):
    array = RNG.integers(0, 2, (6, 9)).astype(bool)
    save(tmp_path / "a.png", array)
    for opener in (open_image, open_mask):
        assert np.array_equal(read(tmp_path / "a.png", opener)[0][0], array)


def test_opaque_alpha_is_dropped_and_varying_alpha_refused(tmp_path, save, refused):
    array = RNG.integers(0, 255, (5, 7, 4), np.uint8)
    array[..., 3] = 255
    pixels, _ = read(save(tmp_path / "clean.png", array))
    assert np.array_equal(pixels, np.moveaxis(array[..., :3], -1, 0))
    array[4, 6, 3] = 254
    save(tmp_path / "bad.png", array)
    with refused("bad.png", "alpha channel that varies", code="D03"):
        open_image(tmp_path / "bad.png")


def test_a_transparency_key_adds_no_channel(tmp_path):
    array = RNG.integers(0, 65535, (5, 7, 3), np.uint16)
    path = png(tmp_path / "a.png", array, 16, 2, chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0)))
    pixels, file = read(path)
    assert np.array_equal(pixels, np.moveaxis(array, -1, 0))
    assert "transparency key" in file.notes[0]


@pytest.mark.parametrize("code", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_orientation_is_applied_and_said(tmp_path, code, suffix, save):
    from PIL import ImageOps

    array = RNG.integers(0, 255, (5, 7), np.uint8)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        exif = Image.Exif()
        exif[0x0112] = code
        save(path, array, exif=exif)
    else:
        save(path, array, extratags=[(274, 3, 1, code, True)])
    expected = UPRIGHT[code](array)
    if suffix == ".png":
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(path))), expected)
    for opener in (open_image, open_mask):
        pixels, file = read(path, opener)
        assert np.array_equal(pixels[0], expected)
        assert bool(file.notes) == (code != 1)
        with opener(path) as file:
            window = file.read(0, (slice(1, 4), slice(2, 5)))
        assert np.array_equal(window[0], expected[1:4, 2:5])


def test_jpeg_is_an_image_but_never_a_mask(tmp_path, refused):
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / "a.jpg", quality=95)
    pixels, file = read(tmp_path / "a.jpg")
    assert abs(int(pixels.mean()) - 200) <= 2
    assert file.format == "JPEG"
    with refused("a.jpg", "JPEG", "lossless", code="E09"):
        open_mask(tmp_path / "a.jpg")


def test_content_counts_and_a_wrong_name_is_said(tmp_path, refused):
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert "holds JPEG" in read(tmp_path / "a.png")[1].notes[0]
    with refused("JPEG", code="E09"):
        open_mask(tmp_path / "a.png")


def test_cmyk_is_refused(tmp_path, refused):
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.jpg")
    with refused("CMYK", "grey or RGB"):
        open_image(tmp_path / "a.jpg")


def test_colour_masks_are_read_only_where_colour_says_nothing(tmp_path, save, refused):
    labels = RNG.integers(0, 3, (6, 8), np.uint8)
    grey = np.repeat(labels[..., None], 3, axis=-1)
    red = grey * np.array([1, 0, 0], np.uint8)
    for name, array in (("grey", grey), ("red", red)):
        mask, file = read(save(tmp_path / f"{name}.png", array), open_mask)
        assert np.array_equal(mask[0], labels)
        assert "colour file" in file.notes[0]
    mixed = grey.copy()
    mixed[0, 0] = (9, 0, 0)
    save(tmp_path / "mixed.png", mixed)
    with refused("colours", "one number a pixel", code="E07"):
        open_mask(tmp_path / "mixed.png")


def test_a_window_is_a_part_and_an_array_of_its_own(tmp_path, save):
    array = RNG.integers(0, 255, (11, 13, 3), np.uint8)
    save(tmp_path / "a.png", array)
    with open_image(tmp_path / "a.png") as file:
        part = file.read(0, (slice(2, 9), slice(3, 20)))
        part[:] = 0
        again = file.read(window=(slice(2, 9), slice(3, None)))
        joined = np.concatenate([band for _, band in file.bands(0, limit=100)], axis=1)
        with pytest.raises(UsageError):
            file.read(1)
        with pytest.raises(UsageError):
            file.read(0, (slice(0, 4, 2), slice(None)))
    assert np.array_equal(again, np.moveaxis(array, -1, 0)[:, 2:9, 3:])
    assert np.array_equal(joined, np.moveaxis(array, -1, 0))


def test_damaged_files_are_refused_and_their_clean_twin_is_read(tmp_path, save, refused):
    noise = RNG.integers(0, 255, (64, 64), np.uint8)
    clean = save(tmp_path / "clean.png", noise).read_bytes()
    Image.fromarray(noise).save(tmp_path / "clean.jpg")
    photo = (tmp_path / "clean.jpg").read_bytes()
    assert np.array_equal(read(tmp_path / "clean.png")[0][0], noise)
    read(tmp_path / "clean.jpg")
    flipped = bytearray(clean)
    flipped[len(clean) // 2] ^= 1
    cases = {
        "empty.png": (b"", "0 bytes"),
        "half.png": (clean[: len(clean) // 2], "PNG ends"),
        "flip.png": (bytes(flipped), "checksum"),
        "half.jpg": (photo[: len(photo) // 2], "truncated"),
        "html.png": (b"<!DOCTYPE html><title>404</title>", "HTML"),
        "json.png": (b'{"annotations": []}', "JSON"),
        "zero.png": (bytes(600), "zero bytes"),
        "text.tif": (b"II*\0" + bytes(100), "damaged"),
    }
    for name, (data, text) in cases.items():
        (tmp_path / name).write_bytes(data)
        with refused(name, text), open_image(tmp_path / name) as file:
            file.read()


def test_what_is_no_file_is_refused_without_waiting(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for name, text in (("pipe", "not a regular file"), ("loop", "broken link"), ("gone", "broken link")):
        with pytest.raises(Exception, match=text) as caught:
            open_image(tmp_path / f"{name}.png")
        assert caught.value.exit_code == 3


def test_a_bomb_is_refused_before_memory_is_taken(tmp_path, refused):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with refused("60000 × 60000", "million pixels", code="F08"):
        open_image(tmp_path / "bomb.png")


def test_an_animated_png_is_refused(tmp_path, refused):
    frames = [Image.new("L", (4, 4), k) for k in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with refused("animated", code="C22"):
        open_image(tmp_path / "a.png")


def test_names_are_shown_on_one_line():
    assert shown("a\nb\x1b[0m.png") == "a\\nb\\x1b[0m.png"
    assert shown(os.fsdecode(b"\xff.png")) == "\\udcff.png"


def test_fixture_files_are_read_equal_or_refused(data_root, capsys):
    """Odd and broken files in a process with a memory limit, their pixels compared with those of other readers."""
    import json
    import subprocess
    import sys

    script = Path(__file__).with_name("read_everything.py")
    root = data_root / "fixtures"
    done = subprocess.run(
        [sys.executable, str(script), str(root)], capture_output=True, text=True, timeout=120, check=True
    )
    tally = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\nfixtures: {tally}")
    assert tally["wrong"] == tally["untyped"] == tally["slow"] == tally["no second reader"] == []
    assert tally["read, not compared"] == 0
    assert tally["read equal"] >= 310
    assert tally["read equal"] + tally["refused typed"] == tally["files"]
