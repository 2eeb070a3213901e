"""Networks of three axes through the commands: pages stay the unit of the data, the network sees volumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_plan import geometry, looks, planned
from test_resume import stop_and_go_on
from tifffile import TiffFile, imread, imwrite
from toys import digest, one_thread, skipway, start, strays

from skipway import api
from skipway.data.fingerprint import Normalisation
from skipway.data.layouts import Pair, Source, find_pairs, volumes
from skipway.images import open_image
from skipway.predict.pixels import seen
from skipway.request import Request
from skipway.runs import Run
from skipway.tasks import make_task
from skipway.training.dataset import TrainingSet
from skipway.training.prepare import Prepared

SMALL = ["--set", "ndim=3", "--width", 2, "--depth", 2, "--patch", 16, "--batch", 2, "--device", "cpu"]
SMALL += ["--loss", "weighted-ce-dice", "--task", "objects"]


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


def balls(size, n=9, seed=0):
    """A noisy stack (uint16) of bright balls of radius 3 to 5, and their ids."""
    rng = np.random.default_rng(seed)
    grid = np.indices(size)
    ids = np.zeros(size, np.uint16)
    for number in range(1, n + 1):
        centre = [rng.uniform(2, side - 3) for side in size]
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
        ids[(distance < rng.uniform(3, 5)) & (ids == 0)] = number
    image = rng.normal(100, 8, size) + 90 * (ids > 0)
    return image.astype(np.uint16), ids


def draw_stacks(folder, *sizes):
    """Twin folders of stacks, one a size."""
    for number, size in enumerate(sizes):
        for name, array in zip(("images", "masks"), balls(size, seed=number), strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            imwrite(folder / name / f"s{number}.tif", array, metadata={"axes": "ZYX"})
    return folder


def train(data, run, *words):
    code, out, err = skipway("train", data / "images", data / "masks", "-o", run, *SMALL, *words)
    assert code == 0, err
    return out, err


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """One stack of 20 slices, 33 × 40 pixels."""
    return draw_stacks(tmp_path_factory.mktemp("stack"), (20, 33, 40))


@pytest.fixture(scope="module")
def trained(stack, tmp_path_factory):
    """A run on that stack, and what the command said."""
    run = tmp_path_factory.mktemp("trained") / "run"
    return run, train(stack, run, "--steps", 12)


def pages(name, *numbers, mask=None):
    other = mask or f"{name}-mask"
    return [Pair(f"{name}#{k:03d}", Source(Path(name), k), Source(Path(other), k)) for k in numbers]


def test_consecutive_pages_of_one_file_are_a_volume():
    single = Pair("c", Source(Path("c")), Source(Path("d")))
    pairs = [*pages("a", 0, 1, 2), *pages("b", 3, 4, 6), *pages("b", 7, mask="x"), single, single]
    found = volumes(pairs, 3)
    assert [v.name for v in found] == ["a#000…002", "b#003…004", "b#006", "b#007", "c", "c"]
    assert [(str(v.image), str(v.mask), v.pages) for v in found[1:4]] == [
        ("b", "b-mask", range(3, 5)),
        ("b", "b-mask", range(6, 7)),
        ("b", "x", range(7, 8)),
    ]
    assert [pair for v in found for pair in v.pairs] == pairs


def test_two_axes_see_every_page_alone():
    pairs = pages("a", 0, 1, 2)
    assert [v.pairs for v in volumes(pairs, 2)] == [(pair,) for pair in pairs]
    assert volumes([], 2) == volumes([], 3) == ()


def test_a_window_of_a_volume_reads_its_pages_alone(stack, monkeypatch):
    array = imread(stack / "images/s0.tif")
    with open_image(stack / "images/s0.tif") as file:
        pixels, (offset, scale) = seen(file, range(4, 15), 3, Normalisation())
        read = []
        honest = type(file).read
        monkeypatch.setattr(
            type(file), "read", lambda self, page, window: read.append(page) or honest(self, page, window)
        )
        window = (slice(2, 5), slice(7, 30), slice(0, 40))
        assert np.array_equal(pixels.read(window), array[None, 6:9, 7:30])
    assert pixels.shape == (1, 11, 33, 40)
    assert read == [6, 7, 8]
    whole = Normalisation().constants(array[None])
    assert (offset.tolist(), scale.tolist()) == tuple(value.tolist() for value in whole)


def test_part_of_a_stack_and_all_of_it_are_the_same_numbers(stack):
    """Slices that grow brighter: what trains, what validates and what is predicted agree voxel by voxel."""
    image = imread(stack / "images/s0.tif") * np.arange(1, 21, dtype=np.uint16)[:, None, None]
    imwrite(stack / "bright.tif", image, metadata={"axes": "ZYX"})
    prepared = checked(stack / "bright.tif", stack / "masks/s0.tif", {"ndim": 3})
    sides = [
        TrainingSet(pairs, prepared.task, prepared.normalisation, weighted=False, ndim=3)
        for pairs in (prepared.split.train_pairs, prepared.split.val_pairs)
    ]
    assert [len(side) for side in sides] == [1, 1]
    low, width = (v.reshape(1, 1, 1, 1) for v in Normalisation().constants(image[None]))
    found = np.concatenate([side[0].image for side in sides], axis=1)
    seen = np.delete(image, 15, axis=0)  # the page between the two sides
    np.testing.assert_allclose(found, (seen[None] - low) / width, rtol=1e-6, atol=1e-6)


def checked(images, masks, options):
    from skipway.training.order import Order
    from skipway.training.prepare import check_data, prepare

    order = Order(images, masks, images.parent / "run", Request(options=options), task="objects")
    return prepare(order, check_data(order), torch.device("cpu"))


def test_a_sample_is_a_volume_with_target_and_weights_in_three_axes(stack):
    _, ids = balls((20, 33, 40))
    prepared = checked(stack / "images", stack / "masks", {"ndim": 3})
    assert prepared.fingerprint.slices == 15
    assert prepared.fingerprint.size(3) == (15, 33, 40)
    task = make_task(prepared.labels, (1.0, 1.0), 0)
    pairs = find_pairs(stack / "images", stack / "masks").pairs
    sample = TrainingSet(pairs, task, Normalisation(), weighted=True, ndim=3)[0]
    assert (sample.image.shape, sample.target.shape) == ((1, 20, 33, 40), (20, 33, 40))
    assert np.array_equal(sample.target, task.target(ids))
    assert np.array_equal(sample.weights, task.weights(ids))
    by_slice = np.stack([task.target(page) for page in ids])
    assert (sample.target <= by_slice).all(), "objects that touch through a slice are drawn apart as well"
    assert (sample.target < by_slice).any()


@pytest.mark.parametrize(
    ("size", "on_cpu", "patch", "batch"),
    [
        ((100, 512, 512), True, (64, 64, 64), 2),
        ((100, 512, 512), False, (96, 96, 96), 2),
        ((31, 61, 57), True, (32, 64, 64), 2),
        ((12, 1024, 1024), True, (12, 144, 144), 2),
        ((1, 48, 48), True, (1, 48, 48), 32),
        ((400, 20, 20), True, (256, 20, 20), 2),
    ],
)
def test_a_patch_of_a_volume_fits_into_the_room_of_a_batch(size, on_cpu, patch, batch):
    data = looks(slices=size[0], median=size[1:])
    plan = planned(Request(options={"ndim": 3}), data, on_cpu=on_cpu)
    assert (plan.patch, plan.batch, plan.ndim) == (patch, batch, 3)
    assert geometry(plan).legal(plan.patch)


def test_anisotropic_pools_and_a_named_side_keep_to_legal_sizes():
    options = {"ndim": 3, "pools": [[1, 2, 2], [2, 2, 2]]}
    data = looks(slices=7, median=(90, 90))
    assert planned(Request(depth=3, options=options), data).patch == (8, 92, 92)
    assert planned(Request(depth=3, options=options, patch=33), data).patch == (34, 36, 36)


def test_a_valid_network_decides_at_least_as_much_as_its_margin():
    options = {"ndim": 3, "padding": "valid"}
    plan = planned(Request(depth=4, options=options), looks(slices=60))
    margin = geometry(plan).margin[0]
    assert min(plan.patch) >= 3 * margin
    assert plan.batch == 1
    thin = planned(Request(depth=4, options=options), looks(slices=10))
    assert thin.patch[0] < thin.patch[1] == plan.patch[1]
    assert thin.patch[0] - 2 * margin >= 10


def test_train_says_that_it_sees_volumes(trained):
    run, (out, err) = trained
    assert "volumes    1 of 15 slices train, 1 of 4 validate" in err
    assert "20 pairs" in err
    assert "mean of 4 validation images" in out
    assert Run(run).read("split")["val"] == [f"s0#{k:03d}" for k in range(16, 20)]
    assert Run(run).read("plan")["patch"] == [16, 16, 16]
    assert "--set ndim=3" in (run / "report.html").read_text()


def test_validation_is_decoded_as_a_volume_and_written_by_page(trained, stack):
    run, _ = trained
    predictor = api.load(run, "cpu")
    with open_image(stack / "images/s0.tif") as image:
        found = predictor.predict_pages(image, range(16, 20))
    expected = predictor.task.decode(found.labels)
    written = np.stack([imread(run / f"validation/s0#{k:03d}.tif") for k in range(16, 20)])
    assert np.array_equal(written, expected)
    assert expected.max() > 0


def test_a_stack_is_predicted_as_one_volume(trained, stack, tmp_path):
    run, _ = trained
    code, _, err = skipway(
        "predict", run, stack / "images", "-o", tmp_path, "--device", "cpu", "--probabilities"
    )
    assert code == 0, err
    ids, image = imread(tmp_path / "s0.tif"), imread(stack / "images/s0.tif")
    assert (ids.shape, ids.dtype) == ((20, 33, 40), np.uint16)
    assert np.array_equal(ids, api.load(run, "cpu").predict(image))
    inside = ids == ids[10][ids[10] > 0][0]
    assert inside[9].any() or inside[11].any(), "an object keeps its id from slice to slice"
    with TiffFile(tmp_path / "s0_probabilities.tif") as file:
        series = file.series[0]
        assert (series.axes, series.shape) == ("ZCYX", (20, 2, 33, 40))
        np.testing.assert_allclose(series.asarray().sum(1), 1, atol=1e-6)
        classes = series.asarray().argmax(1)
    with open_image(stack / "images/s0.tif") as opened:
        assert np.array_equal(classes, api.load(run, "cpu").predict_pages(opened, range(20)).labels)


def test_tiles_of_a_volume_equal_the_whole(trained, stack, tmp_path):
    run, _ = trained
    for name, words in (("whole", ()), ("tiled", ("--tile", 8))):
        code, out, err = skipway(
            "predict",
            run,
            stack / "images",
            "-o",
            tmp_path / name,
            "--probabilities",
            "--device",
            "cpu",
            *words,
        )
        assert code == 0, err
    assert "predicted again without tiles" in out
    assert "WARNING" not in out
    whole, tiled = (imread(tmp_path / name / "s0.tif") for name in ("whole", "tiled"))
    assert np.array_equal(whole, tiled)
    whole, tiled = (imread(tmp_path / name / "s0_probabilities.tif") for name in ("whole", "tiled"))
    np.testing.assert_allclose(whole, tiled, atol=1e-5)


def test_a_single_image_is_a_volume_of_one_slice(trained, stack, tmp_path, save):
    run, _ = trained
    image = imread(stack / "images/s0.tif")[3]
    save(tmp_path / "in/a.png", image)
    words = ("-o", tmp_path / "out", "--device", "cpu", "--probabilities")
    code, _, err = skipway("predict", run, tmp_path / "in", *words)
    assert code == 0, err
    assert imread(tmp_path / "out/a_probabilities.tif").shape == (2, 33, 40)
    with open_image(tmp_path / "out/a.png") as file:
        assert np.array_equal(file.read()[0], api.load(run, "cpu").predict(image[None])[0])


def test_arrays_of_volumes_in_either_order_of_axes(trained):
    predictor = api.load(trained[0], "cpu")
    image, _ = balls((9, 17, 21))
    found = predictor.predict(image)
    assert found.shape == (9, 17, 21)
    for same in (image[None], image[..., None]):
        assert np.array_equal(predictor.predict(same), found)
    with pytest.raises(Exception, match=r"\(Z, H, W\) with 1 channels"):
        predictor.predict(image[0])


def test_a_stopped_training_on_volumes_ends_with_the_same_bytes(stack, tmp_path):
    choices = {"options": {"ndim": 3}, "patch": 16, "steps": 8}
    start(stack, tmp_path / "whole", **choices)
    assert stop_and_go_on(stack, tmp_path / "run", 3, 5, **choices) == list(range(1, 9))
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    assert strays(tmp_path) == []


def test_of_several_stacks_a_whole_one_validates(tmp_path):
    data = draw_stacks(tmp_path / "data", *[(6, 20, 24)] * 5)
    _, err = train(data, tmp_path / "run", "--steps", 2, "--set", "pools=[[1,2,2]]")
    assert "volumes    4 of 6 slices train, 1 of 6 validate" in err
    assert "groups     5, pages of one stack: s0, s1, s2, s3 and 1 more" in err
    prepared = Prepared.read(Run(tmp_path / "run"))
    sides = [v.name for v in (*prepared.val_volumes, *prepared.train_volumes)]
    assert sorted(sides) == [f"s{k}#000…005" for k in range(5)]


def test_volumes_of_one_slice_train_with_a_warning(tmp_path, make_pairs):
    data = make_pairs(tmp_path / "data", 4)
    _, err = train(data, tmp_path / "run", "--steps", 2)
    assert "volumes    3 of 1 slices train, 1 of 1 validate" in err
    assert "warning: most volumes are one slice" in err
    code, _, err = skipway("predict", tmp_path / "run", data / "images", "-o", tmp_path / "out")
    assert code == 0, err
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_levels_of_a_network_of_volumes_are_pruned(stack, tmp_path):
    choices = {
        "model": "unet_plus_plus",
        "options": {"ndim": 3},
        "patch": 16,
        "depth": 3,
        "width": 2,
        "steps": 2,
    }
    start(stack, tmp_path / "run", **choices)
    code, out, err = skipway("prune", tmp_path / "run", "--level", 1, "--device", "cpu")
    assert code == 0, err
    assert "16×36×40" in out
    assert len(list((tmp_path / "run-L1/validation").glob("*.tif"))) == 4


def test_real_nuclei_in_a_volume(data_root, tmp_path):
    folder = data_root / "nuclei3d-mini"
    words = ["--set", "ndim=3", "--width", 4, "--depth", 2, "--patch", 24, "--steps", 30, "--device", "cpu"]
    code, _, err = skipway(
        "train", folder / "img3d.tif", folder / "mask3d.tif", "-o", tmp_path / "run", *words
    )
    assert code == 0, err
    assert "1 of 23 slices train, 1 of 6 validate" in err
    scores = Run(tmp_path / "run").read("evaluation")["evaluation"]
    nothing = np.mean(
        imread(folder / "mask3d.tif")[25:] > 0
    )  # the pixel error of all background; its Dice is 0
    assert scores["pixel_error"] < nothing
    assert scores["classes"]["1"]["dice"] > 0.2
