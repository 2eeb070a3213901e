"""Prediction of images: any size, any source, classes without a logit volume, and an honest certificate."""

import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from skipway import models
from skipway.errors import DataError, NumericalError, UsageError
from skipway.images import open_image
from skipway.predict import (
    ArrayPixels,
    class_map,
    combine,
    predict_array,
    predict_page,
    predict_pixels,
    probabilities,
)
from skipway.tiles import plan_tiles


def small(name="unet", dtype=torch.float32, **config):
    torch.manual_seed(3)
    model = models.build(name, **{"in_channels": 1, "classes": 3, "width": 4, "depth": 3} | config).eval()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.3)
    return model.to(dtype)


def picture(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mirrored_whole(model, image):
    """Classes of one pass over the image, mirrored by numpy as far as the definition says."""
    geometry = model.geometry
    lengths = geometry.next_legal([n + 2 * m for n, m in zip(image.shape[1:], geometry.margin, strict=True)])
    pads = zip(image.shape[1:], lengths, geometry.margin, strict=True)
    image = np.pad(image, [(0, 0), *((m, length - n - m) for n, length, m in pads)], mode="reflect")
    with torch.inference_mode():
        return model(torch.from_numpy(image)[None])[-1][0].argmax(0).numpy()


def cropped(labels, image):
    return labels[tuple(slice(0, n) for n in image.shape[1:])]


@pytest.mark.parametrize("name", ["unet", "unet_2015"])
def test_every_side_from_1_to_97(name):
    model = small(name, torch.float64, depth=3)
    for side in range(1, 98):
        image = picture(1, side, 98 - side).astype(np.float64)
        prediction = predict_array(model, image, tile=24)
        assert np.array_equal(prediction.labels, cropped(mirrored_whole(model, image), image)), side
        assert prediction.certificate.changed_labels == 0


def test_every_side_from_1_to_97_in_volumes():
    model = small(dtype=torch.float64, ndim=3, depth=2, width=2)
    for side in range(1, 98):
        sides = (side, 1 + side * 7 % 13, 1 + side * 5 % 11)
        size = np.roll(sides, side)
        image = picture(1, *size).astype(np.float64)
        prediction = predict_array(model, image, tile=12)
        assert np.array_equal(prediction.labels, cropped(mirrored_whole(model, image), image)), size


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_any_number_of_channels(channels):
    model = small(dtype=torch.float64, in_channels=channels)
    image = picture(channels, 37, 50).astype(np.float64)
    assert np.array_equal(
        predict_array(model, image, tile=8).labels, cropped(mirrored_whole(model, image), image)
    )


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize(("name", "up"), [("unet", "transposed"), ("unet", "nearest"), ("unet_2015", None)])
def test_float32_is_equal_to_the_bit_on_one_set_of_kernels(name, up):
    # oneDNN takes convolutions of more than 20,480 numbers, torch's own kernels the smaller ones.
    model = small(name, width=8, **({"up": up} if up else {}))
    image = picture(1, 141, 203)
    with torch.backends.mkldnn.flags(enabled=False):
        prediction = predict_array(model, image, tile=32)
        whole = mirrored_whole(model, image)
    assert prediction.tiles > 4
    assert prediction.certificate.changed_labels == 0
    assert np.array_equal(prediction.labels, cropped(whole, image))
    if platform.machine() == "x86_64":
        assert prediction.certificate.max_difference == 0


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_float32_across_kernels_differs_by_rounding_only(up):
    prediction = predict_array(small(width=8, up=up), picture(1, 141, 203), tile=32)
    assert prediction.certificate.changed_labels == 0
    assert prediction.certificate.holds
    assert "WARNING" not in str(prediction.certificate)


@given(
    arrays(
        np.float32, st.tuples(st.integers(2, 6), st.integers(1, 9)), elements=st.sampled_from([-1.0, 0, 1, 2])
    )
)
def test_class_map_is_argmax_with_the_same_ties(logits):
    found = class_map(torch.from_numpy(logits))
    assert found.dtype == torch.uint8
    assert found.tolist() == logits.argmax(0).tolist()


def test_class_map_of_one_channel_is_above_zero_and_of_256_classes_still_fits():
    assert class_map(torch.tensor([[-1.0, 0.0, 1e-30]])).tolist() == [0, 0, 1]
    assert class_map(torch.eye(256)).tolist() == list(range(256))
    with pytest.raises(ValueError, match="256 classes at most, found 257"):
        class_map(torch.zeros(257, 2))


@pytest.mark.parametrize("channels", [1, 4])
def test_mean_of_outputs_averages_probabilities(channels):
    outputs = [torch.randn(1, channels, 5, 7, dtype=torch.float64) * 4 for _ in range(3)]
    wanted = torch.stack([probabilities(one[0]) for one in outputs]).mean(0)
    assert torch.allclose(probabilities(combine(outputs, "mean")[0]), wanted, rtol=1e-12)
    assert combine(outputs, "last") is outputs[-1]
    with pytest.raises(ValueError, match="'last' or 'mean', not 'all'"):
        combine(outputs, "all")


def test_mean_of_outputs_of_valid_networks_takes_the_middle_of_the_larger_ones():
    large, last = torch.randn(1, 2, 12, 9), torch.randn(1, 2, 8, 5)
    assert torch.equal(combine([large, last], "mean"), combine([large[:, :, 2:10, 2:7], last], "mean"))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_mean_over_supervised_outputs_does_not_depend_on_tiles(padding):
    model = small("unet_plus_plus", torch.float64, supervised=True, padding=padding)
    image = picture(1, 61, 45).astype(np.float64)
    tiled, whole = (predict_array(model, image, tile=tile, outputs="mean") for tile in (8, 400))
    assert tiled.tiles > whole.tiles == 1
    assert np.array_equal(tiled.labels, whole.labels)
    assert not np.array_equal(tiled.labels, predict_array(model, image, tile=8).labels)


def test_probabilities_and_progress_arrive_tile_by_tile():
    model, image = small(), picture(1, 50, 70)
    volume, seen = np.full((3, 50, 70), np.nan, np.float32), []
    prediction = predict_array(
        model,
        image,
        tile=16,
        on_probabilities=lambda region, p: volume.__setitem__((slice(None), *region), p),
        on_progress=lambda done, tiles: seen.append((done, tiles)),
    )
    assert np.allclose(volume.sum(0), 1, atol=1e-6)
    assert np.array_equal(volume.argmax(0), prediction.labels)
    assert seen == [(i + 1, prediction.tiles) for i in range(prediction.tiles)]
    assert prediction.tiles == len(list(plan_tiles((50, 70), 16, model.geometry)))


def test_constants_are_those_of_the_whole_image_and_integers_are_read_as_they_are():
    model = small(dtype=torch.float64, in_channels=2)
    counts = np.random.default_rng(0).integers(0, 65535, (2, 40, 52), dtype=np.uint16)
    offset, scale = np.array([100.0, 3.0]), np.array([3e4, 5e4])
    kept = counts.copy()
    counts.flags.writeable = False
    found = predict_array(model, np.asfortranarray(counts), (offset, scale), tile=8)
    image = (counts.astype(float) - offset[:, None, None]) / scale[:, None, None]
    assert np.array_equal(found.labels, cropped(mirrored_whole(model, image), image))
    assert np.array_equal(counts, kept)


def test_an_array_of_floats_is_never_written_to():
    image = picture(1, 40, 52)
    kept = image.copy()
    predict_array(small(), image, (np.array([0.5]), np.array([2.0])), tile=8)
    assert np.array_equal(image, kept)


class Recording(ArrayPixels):
    def read(self, window):
        reads.append(window)
        return super().read(window)


reads = []


def test_only_windows_of_a_tile_are_read():
    reads.clear()
    model = small()
    predict_pixels(model, Recording(picture(1, 200, 320)), tile=32)
    most = 32 + 2 * model.geometry.halo[0]
    assert len(reads) > 9
    assert all(
        0 <= w.start < w.stop <= side for one in reads for w, side in zip(one, (200, 320), strict=True)
    )
    assert max(w.stop - w.start for one in reads for w in one) <= most


def test_a_page_of_a_file_is_predicted_like_its_array(tmp_path):
    pages = np.random.default_rng(0).integers(0, 60000, (3, 150, 130), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "stack.tif", pages, tile=(64, 64), photometric="minisblack", metadata={"axes": "ZYX"}
    )
    model, constants = small(), (np.array([5.0]), np.array([2e4]))
    with open_image(tmp_path / "stack.tif") as image:
        found = predict_page(model, image, constants, page=2, tile=32)
    assert found.tiles > 4
    assert np.array_equal(found.labels, predict_array(model, pages[2:], constants, tile=64).labels)
    assert not np.array_equal(found.labels, predict_array(model, pages[:1], constants).labels)


def test_labels_go_into_the_array_that_is_given(tmp_path):
    image = picture(1, 40, 52)
    out = np.memmap(tmp_path / "labels", np.uint8, "w+", shape=(40, 52))
    prediction = predict_array(small(), image, tile=8, labels=out)
    assert prediction.labels is out
    assert np.array_equal(out, predict_array(small(), image).labels)
    for wrong in (np.empty((40, 51), np.uint8), np.empty((40, 52), np.int64)):
        with pytest.raises(UsageError, match="expected uint8"):
            predict_array(small(), image, labels=wrong)


def test_modes_are_restored_module_by_module():
    model = small().train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    predict_array(model, picture(1, 20, 20))
    assert [module.training for module in model.modules()] == before
    with pytest.raises(DataError):
        predict_array(model, picture(2, 20, 20))
    assert [module.training for module in model.modules()] == before


def test_dropout_is_off():
    model = small("unet_2015", dropout=0.5).train()
    first, second = (predict_array(model, picture(1, 30, 30)).labels for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("fault", ["pixel", "weight"])
def test_what_is_not_finite_is_refused_with_its_place(fault):
    model, image = small(), picture(1, 90, 90)
    if fault == "pixel":
        image[0, 80, 80] = np.nan
    else:
        with torch.no_grad():
            next(model.heads.parameters())[1] = np.inf
    with pytest.raises(NumericalError, match=r"output for region \[\d+:\d+, \d+:\d+\] is not finite"):
        predict_array(model, image, tile=16)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="2 channels, expected 1"):
        predict_array(small(), picture(2, 9, 9))
    with pytest.raises(DataError, match="2 spatial axes"):
        predict_array(small(), picture(1, 9, 9, 9))
    with pytest.raises(DataError, match="none of them empty"):
        predict_array(small(), picture(1, 0, 9))
    with pytest.raises(UsageError, match="at least 1 pixel"):
        predict_array(small(), picture(1, 9, 9), tile=0)


def test_certificate_lies_across_seams_and_is_the_same_every_time():
    model, image = small(), picture(1, 300, 200)
    certificates = [predict_array(model, image, tile=64).certificate for _ in range(2)]
    other = predict_array(model, image, (np.array([0.1]), np.array([1.0])), tile=64).certificate
    cuts = {
        one.write[axis].start for axis in (0, 1) for one in plan_tiles((300, 200), 64, model.geometry)
    } - {0}
    assert certificates[0] == certificates[1]
    assert certificates[0].window != other.window
    assert all(any(w.start < cut < w.stop for cut in cuts) for w in certificates[0].window)
    assert "0 of 1024 labels changed" in str(certificates[0])


def test_certificate_of_one_tile_says_so():
    certificate = predict_array(small(), picture(1, 60, 60)).certificate
    assert (certificate.tiles, certificate.max_difference) == (1, 0)
    assert str(certificate) == "tiled = whole: predicted in one pass, no tiles to compare"


@pytest.mark.parametrize("halo", [0, 4, 8, 12, 16])
def test_certificate_sees_a_halo_that_is_too_small(halo):
    model = small()
    assert predict_array(model, picture(1, 300, 200), tile=64).certificate.holds
    model.geometry = replace(model.geometry, halo=(halo, halo))
    certificate = predict_array(model, picture(1, 300, 200), tile=64).certificate
    assert not certificate.holds
    assert "WARNING: more than rounding" in str(certificate)


def test_certificate_warns_of_a_norm_that_looks_at_the_tile():
    certificate = predict_array(small(norm="instance"), picture(1, 300, 200), tile=64).certificate
    assert not certificate.holds
    assert certificate.max_difference > 1e-2
    assert "statistics over the tile" in str(certificate)


PEAK = """
import numpy as np, torch
from pathlib import Path
from skipway.models import unet
from skipway.predict import predict_pixels

class Endless:
    def __init__(self, height):
        self.shape = (8, height, 256)
    def read(self, window):
        return np.ones((8, *(w.stop - w.start for w in window)), np.float32)

def peak(height):
    predict_pixels(model, Endless(height), tile=128)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

torch.set_num_threads(1)
model = unet(8, 32, width=4, depth=2)
print(peak(1024), peak(8192))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_does_not_grow_with_the_image():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    low, high = map(int, run.stdout.split())
    pixels = (8192 - 1024) * 256
    image, logits, noise = pixels * 8 * 4 / 1024, pixels * 32 * 4 / 1024, 30_000
    assert high - low < pixels / 1024 + noise < image < logits


def test_prediction_loads_neither_the_compiler_nor_other_heavy_packages():
    code = """
import sys, numpy as np
from skipway.models import unet
from skipway.predict import predict_array
predict_array(unet(1, 2, width=4, depth=2), np.ones((1, 40, 40), np.float32), tile=8)
heavy = ("torch._dynamo", "torch._inductor", "torchvision", "timm", "matplotlib", "skimage", "pandas")
print([name for name in heavy if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
