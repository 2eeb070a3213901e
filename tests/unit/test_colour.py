"""Grey and colour in one data set: one flag reads all as one kind, the same in check, train and predict."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tifffile import imread, imwrite
from toys import TINY, WORDS, digest, draw, order_of, skipway

import skipway as package
from skipway.api import train_run
from skipway.data.check import inspect
from skipway.data.fingerprint import Normalisation
from skipway.data.layouts import Reading, find_pairs
from skipway.data.sources import Source
from skipway.errors import DataError, UsageError
from skipway.images import in_colour, open_image, recoloured
from skipway.request import Request

STAIN = np.array([[[0.9, 0.6, 0.8]]])
"""Shares of red, green and blue of the coloured half of the toy data."""


@pytest.fixture
def mixed(tmp_path):
    """Six drawn images, half of them as 8-bit RGB in a stain, with their masks."""
    root = draw(tmp_path / "data", count=6)
    for k, path in enumerate(sorted((root / "images").iterdir())):
        grey = imread(path).astype(float)
        grey = 255 * (grey - grey.min()) / np.ptp(grey)
        pixels = np.rint(grey[..., None] * STAIN if k % 2 else grey).astype(np.uint8)
        path.unlink()
        Image.fromarray(pixels).save(path.with_suffix(".png"))
    return root


def rgb_of(path):
    """An image as three equal channels in another file."""
    pixels = np.asarray(Image.open(path))
    return np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, np.float64])
def test_grey_is_rec_601_without_rounding_and_keeps_the_value_of_three_equal_channels(dtype):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (3, 9, 11)).astype(dtype)
    grey = recoloured(pixels, "grey")
    exact = sum(
        share * channel.astype(np.longdouble)
        for share, channel in zip((0.299, 0.587, 0.114), pixels, strict=True)
    )
    assert grey.shape == (1, 9, 11)
    assert float(np.abs(grey[0] - exact).max()) < 1e-5
    assert np.any(grey != np.rint(grey))
    same = recoloured(np.repeat(pixels[:1], 3, axis=0), "grey")
    np.testing.assert_allclose(same, pixels[:1], rtol=1e-15 if dtype is np.float64 else 0)
    assert recoloured(pixels[:1], "grey").dtype == same.dtype == grey.dtype


def test_grey_is_what_pillow_rounds(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    other = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    ours = recoloured(np.moveaxis(pixels, -1, 0), "grey")[0]
    assert float(np.abs(ours - other).max()) <= 0.5 + 1e-3


def test_every_sixteen_bit_number_is_exact_in_grey():
    ramp = np.arange(65536, dtype=np.uint16)[None]
    np.testing.assert_array_equal(recoloured(np.repeat(ramp, 3, axis=0), "grey"), ramp)


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_of_a_tiled_file_are_windows_of_the_whole(tmp_path, colour, channels):
    pixels = np.random.default_rng(2).integers(0, 4000, (5, 96, 80, channels), np.uint16)
    path = tmp_path / "a.tif"
    photometric = "rgb" if channels == 3 else "minisblack"
    imwrite(path, pixels.squeeze(-1) if channels == 1 else pixels, tile=(16, 16), photometric=photometric)
    with Source(path, colour=colour).open_image() as image:
        assert (image.pages, image.channels, image.size) == (5, {"grey": 1, "rgb": 3}[colour], (96, 80))
        assert str(image.own_dtype) == "uint16"
        whole = recoloured(np.moveaxis(pixels[1], -1, 0), colour)
        np.testing.assert_array_equal(image.read(1), whole)
        np.testing.assert_array_equal(image.read(1, (slice(5, 40), slice(33, 61))), whole[:, 5:40, 33:61])
        np.testing.assert_array_equal(np.concatenate([b for _, b in image.bands(1, limit=3000)], 1), whole)


def test_the_whole_is_not_read_for_a_window(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(16, 16), photometric="rgb")
    image = in_colour(open_image(path), "grey")
    asked, read = [], type(image).read
    monkeypatch.setattr(
        type(image), "read", lambda self, *words: (asked.append(words), read(self, *words))[1]
    )
    with image:
        image.read(0, (slice(3, 9), slice(10, 20)))
    assert asked == [(0, (slice(3, 9), slice(10, 20)))] * 2  # of the grey image, and of the file under it


def test_mixed_data_is_refused_and_the_line_names_the_flag(mixed):
    code, out, _ = skipway("check", mixed / "images", mixed / "masks")
    assert code == 3
    assert "D01" in out
    assert "--colour grey" in out
    assert "--colour rgb" in out


@pytest.mark.parametrize(("colour", "kinds"), [
    ("grey", {"8-bit grey": 3, "8-bit RGB as grey": 3}),
    ("rgb", {"8-bit grey as RGB": 3, "8-bit RGB": 3}),
])  # fmt: skip
def test_the_flag_makes_them_one_kind_and_says_which_were_changed(mixed, colour, kinds):
    code, out, _ = skipway("check", mixed / "images", mixed / "masks", "--colour", colour, "--json")
    found = json.loads(out)
    assert code == 0
    assert {kind["name"]: kind["images"] for kind in found["kinds"]} == kinds
    assert not [w for w in found["warnings"] if w["code"] == "C24"]  # floats of a reading are no banding


def test_types_that_differ_are_refused_with_the_flag_as_well(mixed):
    path = mixed / "images" / "c1.png"
    imwrite(path.with_suffix(".tif"), np.asarray(Image.open(path)).astype(np.uint16) * 257, photometric="rgb")
    path.unlink()
    with pytest.raises(DataError) as caught:
        inspect(find_pairs(mixed / "images", mixed / "masks", Reading(colour="grey")))
    assert [problem.code for problem in caught.value.problems] == ["C07"]


def test_a_picture_in_grey_and_as_three_equal_channels_is_one_picture(mixed):
    Image.fromarray(rgb_of(mixed / "images" / "c0.png")).save(mixed / "images" / "d.png")
    imwrite(mixed / "masks" / "d.tif", imread(mixed / "masks" / "c0.tif"))
    found = package.check(mixed / "images", mixed / "masks", colour="grey")
    assert ("A25", ("c0", "d")) in {(s.code, s.names) for s in found.suspicions}


def test_five_channels_have_no_grey(mixed):
    imwrite(
        mixed / "images" / "e.tif",
        np.zeros((5, 48, 48), np.uint8),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    imwrite(mixed / "masks" / "e.tif", imread(mixed / "masks" / "c0.tif"))
    found = package.check(mixed / "images", mixed / "masks", colour="grey")
    assert [(p.code, p.found) for p in found.problems] == [("D01", "5 channels")]


def test_a_word_that_is_none(mixed):
    for words, says in ((("--colour", "gray"), "grey or rgb"), (("--colour", "table.csv"), "--colours"),
                        (("--colours", "grey"), "--colour grey")):  # fmt: skip
        code, _, err = skipway("check", mixed / "images", mixed / "masks", *words)
        assert code == 2
        assert says in err


def test_a_run_keeps_its_colour_and_predicts_grey_and_colour_alike(mixed, tmp_path):
    """Trained once on both kinds; RGB of equal channels and the grey file give the same bytes, in any tiles."""
    run = tmp_path / "run"
    words = ("train", mixed / "images", mixed / "masks", "-o", run, *WORDS, "--colour", "grey")
    code, _, err = skipway(*words)
    assert code == 0, err
    assert json.loads((run / "normalisation.json").read_text())["colour"] == "grey"
    assert json.loads((run / "plan.json").read_text())["config"]["in_channels"] == 1
    assert "--colour grey" in (run / "report.html").read_text()
    first, twin = tmp_path / "first", tmp_path / "twin"
    twin.mkdir()
    for path in (mixed / "images").iterdir():
        Image.fromarray(rgb_of(path)).save(twin / path.name)
    outputs = {}
    for name, images, tile in (
        ("first", mixed / "images", ()),
        ("tiles", twin, ("--tile", "24")),
    ):
        out = tmp_path / f"out-{name}"
        code, _, err = skipway("predict", run, images, "-o", out, "--device", "cpu", *tile)
        assert code == 0, err
        outputs[name] = {p.name: p.read_bytes() for p in out.glob("*.png")}
    assert len(outputs["first"]) == 6
    assert outputs["first"] == outputs["tiles"]
    predictor = package.load(run, device="cpu")
    for name in ("c0.png", "c1.png"):
        array = np.asarray(Image.open(mixed / "images" / name))
        written = np.asarray(Image.open(tmp_path / "out-first" / name))
        np.testing.assert_array_equal(predictor.predict(array), written)
        np.testing.assert_array_equal(predictor.predict(rgb_of(mixed / "images" / name)), written)
    assert not first.exists()
    code, _, err = skipway(*words[:-2])
    assert code == 2
    assert "colour grey (now not given)" in err


def test_an_rgb_run_reads_grey_files_and_arrays(mixed, tmp_path):
    trained = package.train(
        mixed / "images", mixed / "masks", tmp_path / "run", colour="rgb", device="cpu", steps=2, **TINY
    )
    grey = np.asarray(Image.open(mixed / "images" / "c0.png"))
    assert trained.run.read("plan")["config"]["in_channels"] == 3
    np.testing.assert_array_equal(trained.predict(grey), trained.predict(np.stack([grey] * 3, axis=-1)))
    code, _, err = skipway(
        "predict", tmp_path / "run", mixed / "images", "-o", tmp_path / "out", "--device", "cpu"
    )
    assert code == 0, err
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


def test_a_run_without_a_colour_still_refuses_the_other_kind_and_names_the_flag(tmp_path):
    data = draw(tmp_path / "data")
    assert skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *WORDS)[0] == 0
    imwrite(tmp_path / "new.tif", np.zeros((48, 48, 3), np.uint8), photometric="rgb")
    code, _, err = skipway(
        "predict", tmp_path / "run", tmp_path / "new.tif", "-o", tmp_path / "out", "--device", "cpu"
    )
    assert code == 3
    assert "3 channels" in err
    assert "--colour grey" in err


@pytest.mark.parametrize("grey", [True, False])
def test_grey_stored_as_rgb_is_named_so_with_the_way_to_convert_it(tmp_path, grey):
    data = draw(tmp_path / "data")
    assert skipway("train", data / "images", data / "masks", "-o", tmp_path / "run", *WORDS)[0] == 0
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 1), np.uint8).repeat(3, axis=2)
    pixels[7, 5, 2] ^= not grey  # one pixel of a colour
    Image.fromarray(pixels).save(tmp_path / "new.webp", lossless=True)
    words = ("predict", tmp_path / "run", tmp_path / "new.webp", "-o", tmp_path / "out", "--device", "cpu")
    code, _, err = skipway(*words)
    assert code == 3
    assert ("it is grey stored as RGB" in err) == grey
    assert "--colour grey" in err
    if grey:  # what it says works, and loses nothing
        assert '(Pillow: Image.open("new.webp").convert("L").save("new.png"))' in err
        Image.open(tmp_path / "new.webp").convert("L").save(tmp_path / "new.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "new.png")), pixels[..., 0])
        assert skipway(*words[:2], tmp_path / "new.png", *words[3:])[0] == 0


def test_a_stop_and_a_start_give_the_bytes_of_a_run_without(mixed, tmp_path):
    class Stop(Exception):
        pass

    def go(run, event=lambda _: None):
        request = Request(steps=12, **TINY)
        order = order_of(mixed, run, request)
        return train_run(replace(order, reading=Reading(colour="grey")), event)

    def stop(event):
        if event["event"] == "step" and event["step"] == 7:
            raise Stop

    go(tmp_path / "whole")
    with pytest.raises(Stop):
        go(tmp_path / "parted", stop)
    go(tmp_path / "parted")
    assert digest(tmp_path / "whole") == digest(tmp_path / "parted")


def test_validation_data_of_the_other_kind(mixed, tmp_path):
    """A folder of RGB images validates a training on grey ones only with the flag."""
    for folder in ("images", "masks"):
        (tmp_path / "val" / folder).mkdir(parents=True)
        for name in ("c1", "c3", "c5"):
            path = next((mixed / folder).glob(f"{name}.*"))
            path.rename(tmp_path / "val" / folder / path.name)
    found = package.check(mixed / "images", mixed / "masks", val=tmp_path / "val")
    assert [p.code for p in found.problems] == ["D01"]
    assert "--colour grey" in str(found.problems[0])
    assert package.check(mixed / "images", mixed / "masks", val=tmp_path / "val", colour="grey").ok


def test_a_normalisation_of_an_unknown_colour_is_damaged():
    known = Normalisation(colour="grey")
    assert Normalisation.from_json(known.to_json()) == known
    assert Normalisation.from_json({"kind": "percentile", "low": 1, "high": 99.8}).colour == ""
    with pytest.raises(DataError, match="no such colour"):
        Normalisation.from_json({**known.to_json(), "colour": "sepia"})


def test_an_unknown_colour_is_a_usage_error(mixed):
    with pytest.raises(UsageError, match="grey or rgb"):
        find_pairs(mixed / "images", mixed / "masks", Reading(colour="Grey"))


def test_some_of_the_real_bowl(data_root, tmp_path):
    """Fluorescence and stained tissue of one real set, which is refused without the flag."""
    root = data_root / "dsb2018"
    names = {}
    for path in sorted((root / "images").iterdir()):
        with Image.open(path) as image:
            names.setdefault(image.mode, []).append(path.name)
    for name in (*names["L"][:12], *names["RGB"][:8]):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).symlink_to(root / folder / name)
    assert [p.code for p in package.check(tmp_path / "images", tmp_path / "labels").problems] == ["D01"]
    for colour, changed in (("grey", "8-bit RGB as grey"), ("rgb", "8-bit grey as RGB")):
        found = package.check(tmp_path / "images", tmp_path / "labels", colour=colour)
        assert found.ok, found.problems
        assert {kind.name: kind.images for kind in found.kinds}[changed] == (8 if colour == "grey" else 12)


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_the_whole_real_bowl_passes_the_check(data_root, colour):
    found = package.check(data_root / "dsb2018" / "images", data_root / "dsb2018" / "labels", colour=colour)
    assert found.ok, found.problems
    assert sorted(kind.images for kind in found.kinds) == [80, 363]
    assert sum(row.objects for row in found.label_rows) == 20124
