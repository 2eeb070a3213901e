"""Three planes: the mean over slices along the three axes, tiles that equal the whole, and who may ask."""

import math

import nibabel
import numpy as np
import pytest
import torch
from scipy import special
from streams import images, plain, predicted, predictor
from test_tta import logits_of
from tifffile import imread
from torch import nn
from toys import skipway

from skipway.errors import UsageError
from skipway.models import build
from skipway.parts import Part
from skipway.predict.ensemble import Ensemble
from skipway.predict.files import predict_files
from skipway.predict.options import FileOptions, StreamOptions
from skipway.predict.planes import Planes, in_space
from skipway.predict.predictor import Predictor
from skipway.predict.turns import Turns
from skipway.predict.views import Views, views_of

VALID = {"padding": "valid", "up": "bilinear", "depth": 2}


def small(name="unet", seed=3, **config):
    torch.manual_seed(seed)
    model = build(name, **{"in_channels": 1, "classes": 3, "width": 4, "depth": 2, **config}).eval()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.3)
    return model.to(torch.float64)


def volume(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def by_slices(model, image, overlapping=False):
    """Probabilities (planes, K, *S), slice by slice: mirrored by numpy, one pass each, no tiles."""
    geometry, size = model.geometry, image.shape[1:]
    before = geometry.margin[0]
    legal = geometry.next_legal([2 * before + side for side in (max(size), max(size))])[0]
    found = []
    for axis in range(3):
        slices = []
        for number in range(size[axis]):
            plane = np.take(image[0], number, axis)
            sides = geometry.next_legal([side + 2 * before for side in plane.shape])
            assert max(sides) <= legal
            pads = [(before, n - side - before) for n, side in zip(sides, plane.shape, strict=True)]
            given = torch.from_numpy(np.pad(plane, pads, mode="reflect"))[None, None]
            with torch.inference_mode():
                logits = model(given)[-1][0].numpy()[:, : plane.shape[0], : plane.shape[1]]
            slices.append(special.expit(logits) if overlapping else special.softmax(logits, 0))
        found.append(np.stack(slices, axis=1 + axis))
    return np.stack(found)


def shares(logits, overlapping=False):
    return special.expit(logits) if overlapping else special.softmax(logits, 0)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize(
    ("name", "config", "size"),
    [("unet", {"depth": 3}, (13, 22, 18)), ("unet_2015", {}, (9, 14, 11)), ("unet", VALID, (10, 14, 9))],
)
def test_three_planes_are_the_mean_over_slices_along_each_axis(name, config, size, overlapping):
    model, image = small(name, **config), volume(1, *size)
    wanted = by_slices(model, image, overlapping)
    logits, spread, _ = logits_of(Planes(model), image, overlapping=overlapping)
    np.testing.assert_allclose(shares(logits, overlapping), wanted.mean(0), atol=1e-12)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01
    p = np.stack([wanted, 1 - wanted], 1) if overlapping else wanted
    if overlapping:
        apart = (special.rel_entr(p, p.mean(0)).sum(1).mean(0) / math.log(2)).mean(0)
    else:
        apart = special.rel_entr(p, p.mean(0)).sum(1).mean(0) / math.log(3)
    np.testing.assert_allclose(spread, apart, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "config", "size"),
    [
        ("unet", {"depth": 3}, (10, 62, 58)),
        ("unet_2015", {}, (20, 33, 26)),
        ("unet", VALID, (20, 33, 26)),
        ("nnunet", {"norm": "batch", "ndim": 2}, (17, 39, 30)),
        ("unet_plus_plus", {"supervised": True}, (17, 39, 30)),
    ],
)
def test_tiles_equal_the_whole_volume(name, config, size):
    outputs = "mean" if "supervised" in config else "last"
    planes, image = Planes(small(name, **config)), volume(1, *size)
    whole, apart, _ = logits_of(planes, image, outputs=outputs)
    for tile in (8, (4, 8, 12)):
        tiled, again, found = logits_of(planes, image, tile, outputs=outputs)
        assert found.tiles > 1
        np.testing.assert_allclose(tiled, whole, atol=1e-12)
        np.testing.assert_allclose(again, apart, atol=1e-12)
        assert found.certificate.max_difference < 1e-12
    assert whole.std() > 0.1


def test_a_halo_that_is_too_small_is_seen():
    planes, image = Planes(small(depth=3)), volume(1, 37, 50, 42)
    planes.geometry = type(planes.geometry)(**{**planes.geometry.__dict__, "halo": (4, 4, 4)})
    whole, tiled = (logits_of(planes, image, tile)[0] for tile in (4096, 8))
    assert np.abs(whole - tiled).max() > 1e-6


def test_slices_around_a_tile_are_read_and_not_computed():
    class Counting(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.seen = model, 0
            self.geometry, self.in_channels, self.classes = model.geometry, 1, model.classes
            self.rounding = model.rounding

        def forward(self, x):
            self.seen += x.shape[0] * x.shape[2] * x.shape[3]
            return self.model(x)

    planes = Planes(Counting(small()))
    image = volume(1, 64, 64, 64)
    logits_of(planes, image, 32)
    windows = 8 * 32 * 40**2  # of eight tiles, each of 32 slices that are kept and 40 that are read
    assert planes.model.seen >= 3 * windows
    planes.model.seen = 0
    wanted = (slice(3, 11), slice(0, 16), slice(8, 9))
    with torch.inference_mode():
        x = torch.from_numpy(image[None, :, :16, :16, :16])
        every = [found[-1] for found in planes.opinions(x, (0, 0, 0))]
        assert planes.model.seen == 3 * 16**3
        some = [found[-1] for found in planes.opinions(x, (0, 0, 0), wanted)]
    assert planes.model.seen == 3 * 16**3 + (8 + 16 + 1) * 16**2
    for axis, (whole, part) in enumerate(zip(every, some, strict=True)):
        assert torch.equal(part[:, :, *wanted], whole[:, :, *wanted])
        assert bool(part.any()), axis
        assert bool(part.movedim(2 + axis, 0)[wanted[axis].stop :].any()) is False


def test_views_and_members_have_a_voice_in_every_plane():
    members = [small(seed=seed) for seed in (1, 2)]
    image, views = volume(1, 8, 12, 16), views_of("mirror", 2)
    p = [
        by_slices(Mirrored(member, view), image)[axis]
        for axis in range(3)
        for member in members
        for view in views
    ]
    logits, spread, _ = logits_of(Planes(Views(Ensemble(members), views)), image)
    np.testing.assert_allclose(shares(logits), np.mean(p, 0), atol=1e-12)
    apart = special.rel_entr(np.stack(p), np.mean(p, 0)).sum(1).mean(0) / math.log(3)
    np.testing.assert_allclose(spread, apart, atol=1e-12)


class Mirrored(nn.Module):
    """A network that sees a view of what it is given, by flips alone."""

    def __init__(self, model, view):
        super().__init__()
        self.model, self.dims, self.geometry = model, [axis + 2 for axis in view.mirrored], model.geometry

    def forward(self, x):
        return tuple(output.flip(self.dims) for output in self.model(x.flip(self.dims)))


def test_seven_rotations_turn_every_plane():
    model, image = small(), volume(1, 9, 12, 10)
    turned = Turns(model)
    p = []
    for axis in range(3):
        slices = [logits_of(turned, np.take(image, n, 1 + axis))[0] for n in range(image.shape[1 + axis])]
        p.append(np.stack([shares(one) for one in slices], axis=1 + axis))
    whole, tiled = (logits_of(Planes(turned), image, tile)[0] for tile in (4096, 4))
    np.testing.assert_allclose(shares(whole), np.mean(p, 0), atol=1e-10)
    np.testing.assert_allclose(tiled, whole, atol=1e-9)


def test_what_is_no_plane_is_refused():
    with pytest.raises(UsageError, match=r"--planes 3: unet sees volumes as a whole.*leave it out"):
        Planes(small(ndim=3))
    uneven = small(pools=[[2, 1], [2, 2]], depth=3)
    with pytest.raises(UsageError, match="rows and columns differently.*predict slice by slice"):
        in_space(uneven.geometry)


@pytest.fixture
def stack(tmp_path):
    return images(tmp_path / "new", (40, 33), pages=11)


def test_the_command_predicts_a_stack_as_the_planes_say(tmp_path, stack):
    """Values are those of the range of the volume, along all three axes."""
    run = predictor()
    events = []
    summary = predicted(
        run, stack, tmp_path / "a", events, planes=3, tile=8, stream=StreamOptions(quantity="float32")
    )
    assert "labels changed" in str(summary.certificate)
    assert any(e.get("name") == "planes" and "3 × the time" in e["text"] for e in events)
    plain(run, stack, tmp_path / "b", planes=3, probabilities=True)
    masks = [imread(tmp_path / name / "i0.tif") for name in "ab"]
    np.testing.assert_array_equal(*masks)
    maps = [imread(tmp_path / name / "i0_probabilities.tif") for name in "ab"]
    np.testing.assert_allclose(*maps, atol=1e-6)
    image = imread(stack / "i0.tif").astype(np.float64)
    low, high = np.percentile(image, [1, 99.8], method="inverted_cdf")
    model = run.model.double()
    p = by_slices(model, ((image - low) / (high - low))[None]).mean(0)
    np.testing.assert_allclose(maps[0], np.moveaxis(p, 0, 1), atol=1e-5)
    values = np.array(run.task.labels.values)
    sure = np.diff(np.sort(p, 0)[-2:], axis=0)[0] > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(masks[0][sure], values[p.argmax(0)][sure])
    model.float()
    np.testing.assert_array_equal(run.in_planes().predict(imread(stack / "i0.tif")), masks[0])


def test_another_number_of_planes_begins_anew_and_parts_agree(tmp_path, stack):
    run, out = predictor(), tmp_path / "out"
    for part in (2, 1):
        stream = StreamOptions(part=Part(part, 2))
        predicted(run, stack, out, planes=3, tile=8, backend="packed", stream=stream)
    events = []
    with pytest.raises(UsageError, match="with another planes"):
        predicted(run, stack, out, tile=8, backend="packed")
    predicted(run, stack, out, events, planes=3, tile=8, backend="packed")
    assert any("regions are there" in e.get("text", "") for e in events)
    predicted(run, stack, tmp_path / "one", planes=3, tile=8, backend="packed")
    plain(run, stack, tmp_path / "slices")
    both = [imread(folder / "i0.tif") for folder in (out, tmp_path / "one", tmp_path / "slices")]
    np.testing.assert_array_equal(both[0], both[1])
    assert (both[0] != both[2]).mean() > 0.05


def test_a_page_fails_alone_and_long_voxels_are_named(tmp_path):
    folder = images(tmp_path / "new", (20, 24))
    data = np.random.default_rng(0).integers(0, 255, (24, 20, 9)).astype(np.int16)
    for name, deep in (("long", 3.0), ("fair", 1.9)):
        made = nibabel.Nifti1Image(data, np.diag([1.0, 1.0, deep, 1.0]))
        made.header.set_xyzt_units("mm")
        nibabel.save(made, folder / f"{name}.nii.gz")
    events = []
    summary = predict_files(predictor(), folder, tmp_path / "out", FileOptions(planes=3), events.append)
    (failed,) = summary.failed
    assert "an image of one page" in str(failed)
    assert "i0.tif" in str(failed)
    assert sorted(path.name for path in summary.written) == ["fair.nii.gz", "long.nii.gz"]
    said = [e["text"] for e in events if e["event"] == "warning" and "voxels" in e["text"]]
    assert said == [
        "long.nii.gz: voxels of 3 × 1 × 1 mm (Z, Y, X) are stretched 3 times in two of the three planes"
    ]


@pytest.mark.parametrize("backend", ["packed", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_a_packed_network_and_a_runtime_see_planes_too(stack, backend):
    run = predictor()
    image = imread(stack / "i0.tif")
    wanted = run.in_planes().predict(image)
    found = run.running(backend).in_planes().predict(image)
    assert (found != wanted).mean() < 1e-3


def test_numbers_and_neighbours_of_the_option():
    run = predictor()
    assert run.in_planes(1) is run
    with pytest.raises(UsageError, match="--planes: found 2, expected 1 or 3"):
        run.in_planes(2)
    for both in (lambda: run.in_planes().of_whole_image(), lambda: run.of_whole_image().in_planes()):
        with pytest.raises(UsageError, match="both --whole-norms and --planes are given"):
            both()
    shown = run.viewed("mirror", unseen=True).in_planes()
    assert (shown.views, shown.planes, shown.networks, shown.ndim) == (4, 3, 1, 3)
    assert isinstance(shown, Predictor)
    with pytest.raises(UsageError, match="sees volumes as a whole"):
        predictor(ndim=3).in_planes()


def test_the_option_is_shown_with_all_others():
    assert "--planes" in skipway("predict", "--help-all")[1]
    assert "--planes" not in skipway("predict", "--help")[1]
