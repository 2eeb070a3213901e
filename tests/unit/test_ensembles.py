"""Several networks as one: the mean of their probabilities, in tiles as in one piece."""

import numpy as np
import pytest
import torch
from scipy import special
from tifffile import imread
from toys import WORDS, draw, one_thread, skipway

from skipway import api
from skipway.errors import CheckpointError, UsageError
from skipway.models import build
from skipway.predict.ensemble import Ensemble
from skipway.predict.logits import averaged, combine, probabilities
from skipway.predict.stream import predict_array
from skipway.runs import Run, write_json


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three folds of a UNet++ with two outputs."""
    folder = tmp_path_factory.mktemp("ensemble")
    draw(folder / "data", count=6)
    draw(folder / "new", count=2, size=96, first=40)
    words = [*WORDS]
    words[words.index("--depth") + 1] = "3"
    code, _, err = skipway(
        "train", folder / "data" / "images", folder / "data" / "masks", "-o", folder / "run",
        "--task", "objects", "--model", "unet_plus_plus", *words, "--steps", 8, "--folds", 3,
    )  # fmt: skip
    assert code == 0, err
    return folder


def nets(count, name="unet", **config):
    torch.manual_seed(3)
    config = {"in_channels": 1, "classes": 3, "width": 4, "depth": 3, "norm": "batch", **config}
    return [build(name, **config).eval() for _ in range(count)]


def shares(logits, sigmoid):
    logits = logits.double().numpy()
    return special.expit(logits) if sigmoid else special.softmax(logits, 1)


@pytest.mark.parametrize(("classes", "overlapping"), [(3, False), (1, False), (3, True)])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_the_mean_is_that_of_probabilities(classes, overlapping, scale):
    members = nets(3, classes=classes)
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for member in members:
            for head in member.heads.values():
                for parameter in head.parameters():
                    parameter *= scale
        single = [member(image)[-1] for member in members]
        found = Ensemble(members, overlapping=overlapping)(image)[-1]
    wanted = np.mean([shares(one, overlapping or classes == 1) for one in single], axis=0)
    got = probabilities(found[0], overlapping=overlapping).numpy()
    np.testing.assert_allclose(got, wanted[0], atol=2e-6)
    assert torch.isfinite(found).all()
    assert not np.allclose(
        got, shares(torch.stack(single).mean(0), overlapping or classes == 1)[0], atol=1e-3
    )


def test_one_network_is_its_own_ensemble():
    (member,) = nets(1)
    image = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    kept = []
    for model in (member, Ensemble([member])):
        found = predict_array(model, image, on_probabilities=lambda _, p: kept.append(p.copy()))
        kept.append(found.labels)
    np.testing.assert_array_equal(kept[1], kept[3])
    np.testing.assert_allclose(kept[0], kept[2], atol=1e-6)


@pytest.mark.parametrize("name", ["unet", "unet_plus_plus"])
def test_tiles_of_an_ensemble_are_exact_and_the_certificate_says_so(name):
    ensemble = Ensemble(nets(3, name)).eval()
    image = np.random.default_rng(0).normal(size=(1, 150, 170)).astype(np.float32)
    whole, tiled = (predict_array(ensemble, image, tile=tile) for tile in (512, 32))
    assert (whole.tiles, tiled.tiles > 9) == (1, True)
    np.testing.assert_array_equal(whole.labels, tiled.labels)
    assert len(np.unique(whole.labels)) > 1
    assert tiled.certificate.holds
    assert tiled.certificate.changed_labels == 0


def test_the_certificate_of_an_ensemble_sees_a_fault_of_one_member():
    members = nets(3)

    def leaning(logits):  # adds to one class what depends on the tile, not on the pixel
        return logits + torch.tensor([1.0, 0, 0])[:, None, None] * torch.linspace(0, 3, logits.shape[-1])

    ensemble = Ensemble(members).eval()
    whole = members[1].frugal
    members[1].frugal = lambda x: tuple(map(leaning, whole(x)))
    image = np.random.default_rng(0).normal(size=(1, 150, 170)).astype(np.float32)
    assert not predict_array(ensemble, image, tile=32).certificate.holds


def test_networks_of_two_kinds_are_refused():
    with pytest.raises(CheckpointError, match="not networks of one kind"):
        Ensemble([*nets(1), *nets(1, classes=2)])


def test_a_running_mean_is_the_mean():
    logits = [3 * torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    wanted = torch.stack([torch.softmax(one.double(), 1) for one in logits]).mean(0)
    torch.testing.assert_close(torch.softmax(averaged(iter(logits)), 1).double(), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(averaged(iter(logits)).exp().sum(1), torch.ones(2, 5))
    stacked = [one[..., None] for one in logits]
    torch.testing.assert_close(combine(stacked, "mean")[..., 0], averaged(iter(logits)))


def predicted(run, out, *words):
    code, text, err = skipway(
        "predict",
        run / "run",
        run / "new" / "images",
        "-o",
        out,
        "--probabilities",
        "--no-calibration",
        *words,
    )
    assert code == 0, err
    return imread(out / "c1_probabilities.tif"), imread(out / "c1.tif"), text + err


@pytest.mark.parametrize("outputs", ["last", "mean"])
def test_the_run_of_folds_predicts_the_mean_of_its_folds(run, tmp_path, outputs):
    words = ("--outputs", outputs)
    together, labels, said = predicted(run, tmp_path / "all", *words)
    single = [predicted(run, tmp_path / str(k), "--member", k, *words) for k in (1, 2, 3)]
    np.testing.assert_allclose(together, np.mean([one[0] for one in single], axis=0), atol=2e-6)
    assert np.abs(single[0][0] - single[1][0]).max() > 1e-3
    tiled, again, certificate = predicted(run, tmp_path / "tiled", *words, "--tile", 32)
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_allclose(tiled, together, atol=1e-5)
    assert "tiled = whole: window" in certificate
    assert "WARNING" not in certificate
    assert "networks   3, the mean of their probabilities: 3 × the time of one" in said
    assert "networks" not in single[0][2]


def test_outputs_mean_of_a_fold_is_that_of_its_levels(run, tmp_path):
    levels = [predicted(run, tmp_path / f"{k}", "--member", 1, "--level", k)[0] for k in (1, 2)]
    mean = predicted(run, tmp_path / "mean", "--member", 1, "--outputs", "mean")[0]
    np.testing.assert_allclose(mean, np.mean(levels, axis=0), atol=2e-6)
    all_folds = [predicted(run, tmp_path / f"all{k}", "--level", k)[0] for k in (1, 2)]
    np.testing.assert_allclose(
        predicted(run, tmp_path / "all", "--outputs", "mean")[0], np.mean(all_folds, axis=0), atol=2e-6
    )


def test_a_member_is_its_run_folder(run, tmp_path):
    by_number = predicted(run, tmp_path / "a", "--member", 2)[0]
    code, _, _ = skipway(
        "predict", run / "run" / "fold-2", run / "new" / "images", "-o", tmp_path / "b",
        "--probabilities", "--no-calibration",
    )  # fmt: skip
    assert code == 0
    np.testing.assert_array_equal(imread(tmp_path / "b" / "c1_probabilities.tif"), by_number)
    for words, text in ((("--member", 4), "1 to 3"), (("--member", 0), "1 to 3")):
        code, _, err = skipway("predict", run / "run", run / "new" / "images", "-o", tmp_path / "c", *words)
        assert (code, text in err) == (2, True)
    code, _, err = skipway(
        "predict", run / "run" / "fold-1", run / "new" / "images", "-o", tmp_path / "c", "--member", 1
    )
    assert (code, "a run of one network" in err) == (2, True)


def test_python_predicts_with_all_of_them(run):
    image = imread(run / "new" / "images" / "c0.tif")
    loaded = api.load(run / "run", device="cpu")
    assert (loaded.networks, api.load(run / "run", device="cpu", member=3).networks) == (3, 1)
    assert loaded.predict(image).shape == image.shape


def test_every_image_of_the_folds_counts_as_seen(run, tmp_path):
    for words, count in (((), 6), (("--member", "1"), 4)):
        out = tmp_path / f"out{count}"
        code, text, _ = skipway("predict", run / "run", run / "data" / "images", "-o", out, *words)
        assert code == 0
        assert f"{count} of 6 images trained this network" in text


def test_folds_that_are_not_finished_do_not_predict(run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run / "run", copy)
    mark = Run(copy / "fold-3").read("run")
    write_json(copy / "fold-3" / "run.json", {**mark, "finished": False})
    found = api.load(copy, device="cpu")
    assert (found.networks, "2 of 3 folds" in found.remarks["networks"]) == (2, True)
    for number in (1, 2):
        write_json(copy / f"fold-{number}" / "run.json", {**mark, "finished": False})
    with pytest.raises(UsageError, match=r"none of its 3 folds is finished.*fold-1 as it stands"):
        api.load(copy, device="cpu")
