"""Test-time augmentation: what each view is, the mean of them, and tiles that equal the whole image."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, special
from tifffile import imread
from torch import nn
from toys import WORDS, draw, skipway

from members import made
from skipway import api
from skipway.data.augment import Augmentation
from skipway.errors import UsageError
from skipway.models import build
from skipway.predict.ensemble import Ensemble
from skipway.predict.opinions import agreed
from skipway.predict.stream import predict_array
from skipway.predict.turns import Turns
from skipway.predict.views import View, Views, views_of
from skipway.runs import Run

DOUBLE = torch.float64


def small(name="unet", seed=3, **config):
    torch.manual_seed(seed)
    config = {"in_channels": 1, "classes": 3, "width": 4, "depth": 3, **config}
    model = build(name, **config).eval()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.3)
    return model.to(DOUBLE)


def picture(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def logits_of(model, image, tile=4096, **options):
    """All logits (K, *S) and how far opinions lie apart (*S), and the certificate."""
    logits = np.full((model.classes, *image.shape[1:]), np.nan)
    spread = np.full(image.shape[1:], np.nan)

    def keep(region, found):
        logits[:, *region] = found.numpy()

    def apart(region, found):
        spread[region] = found.numpy()

    found = predict_array(model, image, tile=tile, on_logits=keep, on_spread=apart, **options)
    return logits, spread, found


VALID = {"padding": "valid", "up": "bilinear"}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("unet", {}),
        ("unet_2015", {}),
        ("unet", VALID),
        ("unet_3_plus", {}),
        ("nnunet", {"norm": "batch", "ndim": 2}),
    ],
)
def test_tiles_equal_the_whole_image_in_every_view(name, config):
    model = small(name, **config)  # nnU-Net's strided convolutions look further to one side than to the other
    image = picture(1, 87, 150)
    views = Views(model, views_of("all", 2))
    for view in views.views:  # each alone: a mean would hide half of a fault
        one = Views(model, [view])
        whole, tiled = (logits_of(one, image, tile)[0] for tile in (4096, 24))
        np.testing.assert_allclose(tiled, whole, atol=1e-9)
        assert whole.std() > 0.1
    whole, spread, _ = logits_of(views, image, 4096)
    tiled, again, found = logits_of(views, image, (40, 24))
    assert found.tiles > 1
    np.testing.assert_allclose(tiled, whole, atol=1e-9)
    np.testing.assert_allclose(again, spread, atol=1e-9)
    assert found.certificate.max_difference < 1e-9


@pytest.mark.parametrize(("name", "kind"), [("unet", "all"), ("vnet", "rotations")])
def test_tiles_equal_the_whole_volume(name, kind):
    views = Views(made(name, 3, DOUBLE), views_of(kind, 3))
    image = picture(1, 21, 34, 27) if name == "unet" else picture(1, 11, 20, 17)
    whole, tiled = (logits_of(views, image, tile)[0] for tile in (4096, 8))
    np.testing.assert_allclose(tiled, whole, atol=1e-9)


def test_a_fault_of_the_grid_is_seen():
    model = small()
    view = Views(model, [View((1,))])
    view.geometry = type(view.geometry)(**{**view.geometry.__dict__, "halo": (4, 4)})
    image = picture(1, 87, 150)
    whole, tiled = (logits_of(view, image, tile)[0] for tile in (4096, 24))
    assert np.abs(whole - tiled).max() > 1e-6


def by_numpy(ndim, kind):
    """The same views by numpy's own words."""
    plane = (ndim - 2, ndim - 1)
    flips = [axes for bits in np.ndindex(*(2,) * ndim) for axes in [tuple(np.flatnonzero(bits).tolist())]]
    if kind == "mirror":
        return [(lambda a, f=f: np.flip(a, f), lambda a, f=f: np.flip(a, f)) for f in flips]
    turns = [(lambda a, k=k: np.rot90(a, k, plane), lambda a, k=k: np.rot90(a, -k, plane)) for k in range(4)]
    if kind == "rotations":
        return turns
    return [
        (lambda a, t=t, f=f: np.flip(t(a), f), lambda a, b=b, f=f: b(np.flip(a, f)))
        for t, b in turns
        for f in ([(), (0,)] if ndim == 2 else [(), (0,), (1,), (0, 1)])
    ]


@pytest.mark.parametrize(
    ("ndim", "kind"), [(2, "mirror"), (2, "rotations"), (2, "all"), (3, "all"), (3, "mirror")]
)
@pytest.mark.parametrize("overlapping", [False, True])
def test_the_mean_over_views_is_that_of_turned_images(ndim, kind, overlapping):
    model = small(ndim=ndim, depth=2)
    image = picture(1, *(24, 16) if ndim == 2 else (8, 12, 16))
    found = []
    for there, back in by_numpy(ndim, kind):
        turned = np.ascontiguousarray(there(image[0]))[None]
        with torch.inference_mode():
            logits = model(torch.from_numpy(turned)[None])[-1][0].numpy()
        p = special.expit(logits) if overlapping else special.softmax(logits, 0)
        found.append(np.stack([back(one) for one in p]))
    views = Views(model, views_of(kind, ndim))
    assert len(views.views) == len(found)
    logits, spread, _ = logits_of(views, image, 4096, overlapping=overlapping)
    got = special.expit(logits) if overlapping else special.softmax(logits, 0)
    np.testing.assert_allclose(got, np.mean(found, axis=0), atol=1e-12)
    np.testing.assert_allclose(spread, information(np.stack(found), overlapping), atol=1e-12)
    assert 0 < spread.mean() < spread.max() <= 1


def information(p, sigmoid):
    """Mutual information between class and member of p (members, K, *S), by its definition as a divergence."""
    if sigmoid:
        p = np.stack([p, 1 - p], axis=1)  # (members, 2, K, *S)
        return (special.rel_entr(p, p.mean(0)).sum(1).mean(0) / math.log(2)).mean(0)
    return special.rel_entr(p, p.mean(0)).sum(1).mean(0) / math.log(p.shape[1])


def test_members_and_views_count_alike():
    members = [small(seed=seed) for seed in (1, 2)]
    image = picture(1, 32, 48)
    views = views_of("mirror", 2)
    together, spread, _ = logits_of(Views(Ensemble(members), views), image, 4096)
    alone = [logits_of(Views(member, [view]), image, 4096)[0] for member in members for view in views]
    p = np.stack([special.softmax(one, 0) for one in alone])
    np.testing.assert_allclose(special.softmax(together, 0), p.mean(0), atol=1e-12)
    np.testing.assert_allclose(spread, information(p, False), atol=1e-12)


def test_the_levels_of_a_network_are_opinions_too():
    model = small("unet_plus_plus", supervised=True)
    image = picture(1, 32, 48)
    with torch.inference_mode():
        outputs = [special.softmax(one[0].numpy(), 0) for one in model(torch.from_numpy(image)[None])]
    logits, spread, _ = logits_of(model, image, 4096, outputs="mean")
    np.testing.assert_allclose(special.softmax(logits, 0), np.mean(outputs, 0), atol=1e-12)
    np.testing.assert_allclose(spread, information(np.stack(outputs), False), atol=1e-12)
    assert np.isnan(logits_of(model, image, 4096)[1]).all()  # one opinion: nothing to tell


def test_who_says_the_same_does_not_lie_apart():
    unsure = torch.zeros(1, 3, 5, dtype=DOUBLE)
    assert agreed([unsure, unsure, unsure], apart=True)[1].max() < 1e-12
    one = torch.tensor([[[40.0], [0.0], [0.0]]], dtype=DOUBLE)
    shifted = [one.roll(k, 1) for k in range(3)]
    assert abs(agreed(shifted, apart=True)[1].item() - 1) < 1e-12
    assert agreed([one])[0] is one


def test_axes_that_differ_are_not_exchanged():
    model = small(pools=[[2, 1], [2, 2]])
    with pytest.raises(UsageError, match="treats rows and columns differently"):
        Views(model, views_of("all", 2))
    views = Views(model, views_of("mirror", 2))
    image = picture(1, 70, 90)
    whole, tiled = (logits_of(views, image, tile)[0] for tile in (4096, 24))
    np.testing.assert_allclose(tiled, whole, atol=1e-9)


def by_scipy(model, image, angle):
    """View of `turns` over the whole image, by other means: mirrored by numpy, sampled by scipy, one pass."""
    geometry = model.geometry
    (h, w), stride = image.shape[1:], geometry.stride[0]
    around = geometry.halo[0] + 3 * stride
    rows, columns = np.mgrid[:h, :w].astype(float)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    u = np.tensordot(turn.T, np.stack([rows, columns]), 1)
    low = [math.floor((axis.min() - around) / stride) * stride for axis in u]
    need = [int(axis.max()) + around + 2 - start for axis, start in zip(u, low, strict=True)]
    sides = geometry.next_legal([n + 2 * m for n, m in zip(need, geometry.margin, strict=True)])
    grid = np.mgrid[: sides[0], : sides[1]].astype(float) + (np.array(low) - geometry.margin)[:, None, None]
    at = np.tensordot(turn, grid, 1)
    pad = int(max(-at.min(), at.max() - min(h, w))) + 2
    padded = np.pad(image[0], pad, mode="reflect")
    shown = ndimage.map_coordinates(padded, at + pad, order=1)
    with torch.inference_mode():
        logits = model(torch.from_numpy(shown)[None, None])[-1][0].numpy()
    back = u - np.array(low)[:, None, None]
    return np.stack([ndimage.map_coordinates(one, back, order=1) for one in logits])


@pytest.mark.parametrize(("name", "config"), [("unet", {}), ("unet_2015", {"depth": 2}), ("unet", VALID)])
def test_seven_rotations_are_those_of_the_definition(name, config):
    model = small(name, **config)
    image = picture(1, 41, 30)
    found = [special.softmax(by_scipy(model, image, 2 * math.pi * k / 7), 0) for k in range(7)]
    logits, spread, _ = logits_of(Turns(model), image, 4096)
    np.testing.assert_allclose(special.softmax(logits, 0), np.mean(found, 0), atol=1e-8)
    np.testing.assert_allclose(spread, information(np.stack(found), False), atol=1e-8)


@pytest.mark.parametrize(
    ("name", "config"), [("unet", {}), ("unet_2015", {"depth": 2}), ("unet_plus_plus", {"supervised": True})]
)
def test_tiles_of_seven_rotations_equal_the_whole_image(name, config):
    turned = Turns(small(name, **config))
    image = picture(1, 61, 90)
    outputs = "mean" if name == "unet_plus_plus" else "last"
    whole, tiled = (logits_of(turned, image, tile, outputs=outputs) for tile in (4096, (17, 40)))
    assert tiled[2].tiles > 4
    assert whole[0].std() > 0.1
    np.testing.assert_allclose(tiled[0], whole[0], atol=1e-9)
    assert tiled[2].certificate.max_difference < 1e-9


def test_volumes_are_not_turned_by_sevenths():
    with pytest.raises(UsageError, match=r"sees volumes, and seven rotations turn a plane.*--tta mirror"):
        Turns(small(ndim=3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two folds of a tiny network, and two new images."""
    folder = tmp_path_factory.mktemp("tta")
    draw(folder / "data", count=4)
    draw(folder / "new", count=2, size=60, first=40)
    code, _, err = skipway(
        "train", folder / "data" / "images", folder / "data" / "masks", "-o", folder / "run",
        "--task", "objects", *WORDS, "--folds", 2,
    )  # fmt: skip
    assert code == 0, err
    return folder


@pytest.mark.parametrize("kind", ["all", "seven"])
def test_the_command_writes_the_mean_over_views_whatever_the_tile(run, tmp_path, kind):
    found = []
    for tile in (512, 16):
        out = tmp_path / str(tile)
        code, text, err = skipway(
            "predict", run / "run", run / "new" / "images", "-o", out, "--tta", kind, "--tile", tile,
            "--probabilities", "--no-calibration",
        )  # fmt: skip
        assert code == 0, err
        count = {"all": 8, "seven": 7}[kind]
        assert f"views      {count}, the mean of their probabilities: {count} × the time of one" in text + err
        assert "WARNING" not in text
        found.append(imread(out / "c1_probabilities.tif"))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert "tiled = whole: window" in text
    image = imread(run / "new" / "images" / "c1.tif")
    loaded = api.load(run / "run", device="cpu", calibrated=False)
    shares = []
    for member in loaded.model.networks:
        alone = replace(loaded, model=member).viewed(kind)
        constants = loaded.normalisation.constants(image[None])
        predict_array(
            alone.model, image[None], constants, on_probabilities=lambda _, p: shares.append(p.astype(float))
        )
    np.testing.assert_allclose(np.mean(shares, axis=0), found[0], atol=1e-5)
    assert np.abs(shares[0] - shares[1]).max() > 1e-3


def test_python_predicts_with_views(run):
    loaded = api.load(run / "run", device="cpu")
    turned = loaded.viewed("mirror")
    assert (loaded.views, turned.views, turned.networks) == (1, 4, 2)
    image = np.random.default_rng(0).integers(0, 255, (50, 60), np.uint8)
    assert turned.predict(image).shape == image.shape
    with pytest.raises(UsageError, match="a run of 2 networks"):
        _ = turned.network


@pytest.mark.parametrize(
    ("kind", "shown", "said"),
    [
        ("mirror", Augmentation(flips=False), "never mirrored"),
        ("all", Augmentation(flips=False, rotation=20), "never mirrored and turned by at most 20°"),
        ("rotations", Augmentation(rotation=20), "turned by at most 20°"),
        ("seven", Augmentation(rotation=150), "turned by at most 150°"),
    ],
)
def test_views_that_training_never_showed_are_refused_unless_asked(run, kind, shown, said):
    loaded = replace(api.load(run / "run", device="cpu"), augmentation=shown)
    with pytest.raises(UsageError, match=f"in training images were {said}.*--tta-unseen"):
        loaded.viewed(kind)
    assert loaded.viewed(kind, unseen=True).views > 1
    for other, allowed in (("seven", Augmentation(False, 155.0)), ("mirror", Augmentation(True, 0.0))):
        assert replace(loaded, augmentation=allowed).viewed(other).views > 1


def test_what_a_plan_says_of_left_and_right_is_read(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run / "run" / "fold-1", copy)
    plan = Run(copy).read("plan")
    Run(copy).write("plan", {**plan, "augmentation": {"flips": False, "rotation": 20.0}})
    words = ("predict", copy, run / "new" / "images", "-o", tmp_path / "out", "--tta")
    code, _, err = skipway(*words, "mirror")
    assert (code, "never mirrored" in err, (tmp_path / "out").exists()) == (2, True, False)
    assert skipway(*words, "mirror", "--tta-unseen")[0] == 0
    code, _, err = skipway(*words, "flips")
    assert (code, "mirror, rotations, all, seven" in err) == (2, True)
