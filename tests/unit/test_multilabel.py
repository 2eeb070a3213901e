"""Classes that overlap: sets of bits from the mask to the file that is written, and what is refused on the way."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from overlapping import DISCS, pairs_of, save_discs
from PIL import Image

from skipway.api import train
from skipway.data.augment import Augmentation, Params, apply
from skipway.data.check import inspect
from skipway.data.class_folders import class_masks, folder_name
from skipway.data.fingerprint import fingerprint
from skipway.data.labels import IGNORE, UNKNOWN, LabelMap, has, infer_labels
from skipway.data.sampling import BatchPlan, Sample, choose_origin, generator, make_batch
from skipway.data.splits import split
from skipway.data.values import summarise
from skipway.errors import DataError, UsageError
from skipway.evaluation import evaluate
from skipway.evaluation.pages import _in_order
from skipway.evaluation.sets import evaluate_sets
from skipway.losses import LOSSES, each_class
from skipway.metrics.baseline import by_rule, simplest_rule
from skipway.models import build
from skipway.plan import make_plan
from skipway.predict.files import predict_files
from skipway.predict.logits import class_sets, combine, decided, log_odds, probabilities
from skipway.predict.options import FileOptions
from skipway.predict.predictor import Predictor
from skipway.predict.stream import predict_array
from skipway.report.pictures import label_colour, overlay_sets
from skipway.request import Request
from skipway.tasks import Multilabel, make_task
from skipway.training import session


def sets_map(count: int, ignore: int | None = None) -> LabelMap:
    return LabelMap(
        "multilabel", tuple(1 << k for k in range(count)), tuple(f"c{k}" for k in range(count)), ignore=ignore
    )


# The label map


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 62), st.data())
def test_sets_come_back_whatever_overlaps(count: int, data: st.DataObject) -> None:
    sets = data.draw(st.lists(st.integers(0, 2**count - 1), min_size=1, max_size=12))
    mask = np.array([sets], np.uint64)
    labels = sets_map(count)
    encoded = labels.encode(mask)
    assert encoded.dtype.kind == "i"
    assert [int(v) for v in encoded[0]] == sets
    assert [int(v) for v in labels.decode(encoded)[0]] == sets
    for k in range(count):
        assert has(encoded, k)[0].tolist() == [bool(v >> k & 1) for v in sets]


@pytest.mark.parametrize(
    ("count", "inside", "outside"),
    [
        *[(1, "int8", "uint8"), (7, "int8", "uint8"), (8, "int16", "uint8"), (9, "int16", "uint16")],
        *[(16, "int32", "uint16"), (20, "int32", "uint32"), (32, "int64", "uint32"), (62, "int64", "uint64")],
    ],
)
def test_types_hold_every_set_and_what_is_unknown(count: int, inside: str, outside: str) -> None:
    full = np.array([2**count - 1], np.uint64)
    labels = sets_map(count)
    assert (labels.encode(full).dtype.name, labels.decode(labels.encode(full)).dtype.name) == (
        inside,
        outside,
    )


@pytest.mark.parametrize("ignore", [255, 128, -7, 40_000])
def test_what_nobody_annotated_is_no_class_and_comes_back(ignore: int) -> None:
    labels = sets_map(3, ignore)
    mask = np.array([0, 5, ignore, 7], np.int32)
    assert labels.encode(mask).tolist() == [0, 5, UNKNOWN, 7]
    assert labels.decode(labels.encode(mask)).tolist() == mask.tolist()
    assert not has(labels.encode(mask), 0)[2]


def test_255_is_all_of_eight_classes_and_not_unknown() -> None:
    mask = np.array([[255, 0]], np.uint8)
    assert sets_map(8).encode(mask).tolist() == [[255, 0]]
    assert sets_map(8).unknown == UNKNOWN != IGNORE


def test_a_class_that_was_not_learnt_is_refused() -> None:
    with pytest.raises(DataError, match=r"mask values \{8\} that the training masks did not have"):
        sets_map(3).encode(np.array([0, 8], np.uint8))


def test_masks_name_their_classes_or_count_them() -> None:
    masks = {"a": summarise(np.array([[0, 1, 5]], np.uint8)), "b": summarise(np.array([[0, 2]], np.uint8))}
    counted = infer_labels(masks, "multilabel")
    assert (counted.values, counted.names) == ((1, 2, 4), ("class 1", "class 2", "class 3"))
    named = infer_labels(masks, "multilabel", names={1: "heart", 2: "lung", 4: "rib", 8: "tube"})
    assert (named.values, named.names) == ((1, 2, 4, 8), ("heart", "lung", "rib", "tube"))
    assert str(named) == "overlapping classes {1 heart, 2 lung, 4 rib, 8 tube}"
    with pytest.raises(DataError, match="a class 3, expected classes heart, lung"):
        infer_labels(masks, "multilabel", names={1: "heart", 2: "lung"})
    with pytest.raises(DataError, match="masks without any class"):
        infer_labels({"a": summarise(np.zeros((2, 2), np.uint8))}, "multilabel")
    with pytest.raises(DataError, match=f"value {2**62} in a mask of overlapping classes"):
        infer_labels({"a": summarise(np.array([[0, 2**62]], np.uint64))}, "multilabel")


def test_eight_classes_do_not_look_like_a_mask_that_was_smeared() -> None:
    """Twin: the same values as classes are refused."""
    rng = np.random.default_rng(0)
    sets = np.where(
        rng.random((64, 64)) < 0.5, rng.integers(0, 5, (64, 64)), 255 - rng.integers(0, 5, (64, 64))
    )
    masks = {"a": summarise(sets.astype(np.uint8))}
    with pytest.raises(DataError, match="smeared"):
        infer_labels(masks)
    assert len(infer_labels(masks, "multilabel").values) == 8


def test_the_map_comes_back_out_of_json_and_a_damaged_one_does_not() -> None:
    labels = sets_map(1, ignore=9)
    assert LabelMap.from_json(json.loads(json.dumps(labels.to_json()))) == labels
    with pytest.raises(DataError, match="damaged"):
        LabelMap.from_json({**labels.to_json(), "values": [2]})


# Losses


def by_hand(z: np.ndarray, sets: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Binary cross-entropy and 1 − soft Dice (smooth 1), each the mean over the classes, written out."""
    entropies, overlaps = [], []
    for k in range(z.shape[1]):
        p, y = 1 / (1 + np.exp(-z[:, k])), (sets >> k & 1).astype(float)
        entropies.append(-(y * np.log(p) + (1 - y) * np.log(1 - p))[known].mean())
        overlaps.append(1 - (2 * (p * y)[known].sum() + 1) / (p[known].sum() + y[known].sum() + 1))
    return float(np.mean(entropies)), float(np.mean(overlaps))


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (2, 3, 4, 5), sets of three classes, and which pixels are known."""
    rng = np.random.default_rng(5)
    return rng.normal(0, 2, (2, 3, 4, 5)), rng.integers(0, 8, (2, 4, 5)), rng.random((2, 4, 5)) > 0.2


def test_the_default_loss_is_binary_cross_entropy_and_dice_of_each_class() -> None:
    z, sets, known = example()
    target = torch.from_numpy(np.where(known, sets, UNKNOWN))
    entropy, overlap = by_hand(z, sets, known)
    for name, wanted in (
        ("ce", entropy),
        ("bce", entropy),
        ("dice", overlap),
        ("ce-dice", entropy + overlap),
    ):
        value = each_class(LOSSES[name].function)(torch.from_numpy(z), target, None).item()
        assert value == pytest.approx(wanted, abs=1e-12), name


def test_one_pixel_of_two_classes_by_hand() -> None:
    """p = 0.8 for a class that is there and 0.4 for one that is not."""
    z = torch.tensor([[[math.log(4)], [math.log(2 / 3)]]], dtype=torch.float64)
    value = each_class(LOSSES["ce-dice"].function)(z, torch.tensor([[1]]), None).item()
    entropy = (-math.log(0.8) - math.log(0.6)) / 2
    dice = ((1 - 2.6 / 2.8) + (1 - 1 / 1.4)) / 2
    assert value == pytest.approx(entropy + dice, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("ms-ssim", "unet3+")])
def test_gradients_of_every_loss_are_those_of_its_values(name: str) -> None:
    z, sets, known = example()
    logits = torch.from_numpy(z).requires_grad_()
    target = torch.from_numpy(np.where(known, sets, UNKNOWN))
    loss = each_class(LOSSES[name].function)
    assert torch.autograd.gradcheck(lambda given: loss(given, target, None), (logits,))
    (slope,) = torch.autograd.grad(loss(logits, target, None), logits)
    assert (slope.movedim(1, -1)[~torch.from_numpy(known)] == 0).all()
    assert (slope != 0).any()


def test_other_classes_do_not_pull_at_a_class() -> None:
    """A softmax would: the slope of one channel depends on its own class alone."""
    z, sets, _ = example()
    slopes = []
    for turned in (sets, sets ^ 6):  # the other two classes elsewhere
        logits = torch.from_numpy(z).requires_grad_()
        loss = each_class(LOSSES["ce-dice"].function)(logits, torch.from_numpy(turned), None)
        slopes.append(torch.autograd.grad(loss, logits)[0])
    assert torch.equal(slopes[0][:, 0], slopes[1][:, 0])
    assert not torch.equal(slopes[0][:, 1], slopes[1][:, 1])


# Sampling and augmentation


def test_augmentation_keeps_sets_of_sixty_two_classes_to_the_bit() -> None:
    rng = np.random.default_rng(2)
    known = np.array([0, 1, 2**61 + 1, 2**61 + 2**30, 2**53 + 1, UNKNOWN])
    target = known[rng.integers(0, len(known), (40, 40))]
    image = rng.random((1, 40, 40), np.float32)
    turned = Params(rotation=33.0, scale=1.2, flips=(True, False), displacements=(3.0, -2.0) * 9)
    for params in (Params(flips=(True, True)), turned):
        _, moved, _ = apply(params, image, target, None, (32, 32))
        assert set(np.unique(moved)) == set(known)


def test_patches_are_centred_on_classes_and_never_on_what_is_unknown() -> None:
    target = np.full((64, 64), UNKNOWN, np.int16)
    target[:8] = 0
    target[3, 60] = 255  # eight classes at once, which is no IGNORE
    plan = BatchPlan(0, 1, (8, 8), Augmentation(), 1, foreground=1.0, ignore=UNKNOWN)
    for number in range(20):
        top, left = choose_origin(target, plan, generator(0, number, 1))
        assert top <= 3 < top + 8
        assert left <= 60 < left + 8
    blind = dataclasses.replace(plan, foreground=0.0)
    for number in range(20):
        top, _ = choose_origin(target, blind, generator(0, number, 1))
        assert top < 8
    sample = Sample(np.zeros((1, 64, 64), np.float32), target)
    batch = make_batch([sample], plan, 0)
    assert batch.target.dtype == torch.int64
    assert batch.target.max() == 255


# From logits to sets


def test_each_class_is_decided_on_its_own_at_one_half() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.0, -9.0], [1.0, 2.0, -0.1, -9.0], [0.5, -2.0, -5.0, -9.0]])
    assert class_sets(logits).tolist() == [7, 2, 1, 0]
    assert decided(logits).tolist() == [0, 1, 0, 0]  # what an argmax says
    shares = probabilities(logits, overlapping=True)
    assert shares[:, 0].tolist() == pytest.approx([1 / (1 + math.exp(-v)) for v in (3, 1, 0.5)])
    assert log_odds(shares, overlapping=True).numpy() == pytest.approx(logits.numpy(), abs=1e-3)


def test_the_highest_of_many_classes_has_its_bit() -> None:
    for count in (8, 9, 20, 62):
        logits = -torch.ones(count, 1)
        logits[-1] = logits[0] = 1
        assert class_sets(logits).tolist() == [2 ** (count - 1) + 1]


def test_the_mean_of_outputs_is_that_of_each_class() -> None:
    first, second = torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[-1.0], [-3.0]]])
    both = combine((first, second), "mean", overlapping=True)
    wanted = (torch.sigmoid(first) + torch.sigmoid(second)) / 2
    assert torch.sigmoid(both).flatten().tolist() == pytest.approx(wanted.flatten().tolist(), rel=1e-6)


def test_tiles_give_the_sets_of_the_whole_in_a_type_that_holds_them() -> None:
    torch.manual_seed(4)
    model = build("unet", in_channels=1, classes=20, width=4, depth=3, norm="batch").double()
    image = np.random.default_rng(1).random((1, 120, 104))
    whole = predict_array(model, image, overlapping=True, tile=256)
    tiled = predict_array(model, image, overlapping=True, tile=32)
    assert whole.labels.dtype == tiled.labels.dtype == np.uint32
    assert tiled.tiles > 1
    assert np.array_equal(whole.labels, tiled.labels)
    assert tiled.certificate.changed_labels == 0
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(image)[None])[-1][0].numpy()
    wanted = ((logits >= 0) * (1 << np.arange(20))[:, None, None]).sum(0)
    assert np.array_equal(whole.labels, wanted)
    assert len(np.unique(wanted)) > 10
    kept = np.zeros((120, 104), np.uint8)
    with pytest.raises(UsageError, match="uint32"):
        predict_array(model, image, overlapping=True, labels=kept)


# Task, plan, scores


def test_the_score_is_the_mean_dice_of_the_classes_that_are_there() -> None:
    task = make_task(sets_map(3, ignore=99), (1.0,) * 3, 0)
    assert isinstance(task, Multilabel)
    assert task.outputs == 3
    truth = np.array([1, 3, 2, 0, 99, 0], np.uint8)
    found = np.array([1, 1, 2, 0, 7, 2], np.uint8)
    assert task.score(found, truth) == pytest.approx(
        (1 + 2 / 4) / 2
    )  # c2 is in neither; 7 lies in the unknown
    assert task.score(np.zeros(2, np.uint8), np.zeros(2, np.uint8)) is None
    assert task.weights(truth).tolist() == [1, 1, 1, 1, 0, 1]


def test_an_evaluation_names_the_classes_and_counts_whole_sets() -> None:
    truth, found = np.array([[1, 3, 2, 0]], np.uint8), np.array([[1, 1, 2, 2]], np.uint8)
    scored = evaluate_sets([("a", truth, found)], sets_map(2)).to_json()
    assert {name: one["dice"] for name, one in scored["classes"].items()} == {
        "no class": 0.0,
        "c0": 1.0,
        "c1": 0.5,
    }
    assert scored["pixel_error"] == 0.5


def test_the_baseline_is_the_best_plain_rule_of_each_class() -> None:
    image = np.array([[10, 11, 200, 210]], np.uint8)
    masks = {"bright": [0, 0, 1, 1], "dark": [1, 1, 0, 0], "everywhere": [1, 1, 1, 0]}
    for rule, mask in masks.items():
        assert simplest_rule([image], [np.array([mask], bool)]) == rule
    assert by_rule(image, "dark").tolist() == [[True, True, False, False]]


def test_the_picture_mixes_the_colours_of_classes_that_overlap() -> None:
    sets = np.zeros((9, 27), np.int8)
    sets[:, 0:9], sets[:, 9:18], sets[0, 26] = 1, 3, UNKNOWN
    black = overlay_sets(np.zeros((9, 27)), sets)
    red, green = np.array(label_colour(1)), np.array(label_colour(2))
    assert black[4, 4].tolist() == np.rint(0.35 * red).astype(int).tolist()
    assert black[4, 13].tolist() == np.rint(0.35 * (red + green) / 2).astype(int).tolist()
    assert black[4, 9].tolist() == green.tolist()  # where the second class begins
    assert not black[:, 20:].any()


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return save_discs(tmp_path / "discs", 8)


def test_the_check_and_the_fingerprint_know_the_classes(discs: Path) -> None:
    checked = inspect(pairs_of(discs))
    assert checked.labels == LabelMap("multilabel", (1, 2), DISCS)
    shares = fingerprint(checked).class_shares
    for name, share in zip(DISCS, shares, strict=True):
        files = [np.array(Image.open(path)) > 0 for path in (discs / "masks" / name).iterdir()]
        assert share == pytest.approx(sum(f.sum() for f in files) / (8 * 48 * 48))
    lacking = inspect(pairs_of(discs, "blue"))
    assert "no mask holds blue: it cannot be learnt" in lacking.warnings
    assert not any("blue" in line for line in checked.warnings)


def test_the_split_says_which_class_only_one_side_has(discs: Path) -> None:
    for path in sorted((discs / "masks" / "green").iterdir())[-2:]:
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(path)
    warnings = split(inspect(pairs_of(discs))).warnings
    assert any(line.startswith("green (value 1) is not in the validation images") for line in warnings)
    assert not any(line.startswith("red") for line in warnings)


def test_the_plan_gives_each_class_a_channel_and_refuses_what_needs_one_class_a_pixel(discs: Path) -> None:
    checked = inspect(pairs_of(discs))
    data = fingerprint(checked)

    def plan(**choices: object) -> object:
        return make_plan(Request(**choices), data, checked.labels, on_cpu=True, fast_bf16=False)

    assert (plan().loss, plan().config["classes"]) == ("ce-dice", 2)
    assert plan(model="unet_plus_plus").config["classes"] == 2  # published with one channel for two classes
    with pytest.raises(UsageError, match=r"--loss weighted-ce: .*--loss ce$"):
        plan(loss="weighted-ce")
    with pytest.raises(UsageError, match=r"--preset 2015: .*--loss ce$"):
        plan(preset="2015")
    assert plan(preset="2015", loss="ce").loss == "ce"
    with pytest.raises(UsageError, match="--set guided"):
        plan(model="unet_3_plus", options={"guided": True})


@pytest.mark.parametrize(
    ("names", "sided"),
    [(("left-lung", "heart"), True), (("Lung_Right",), True), (("cleft", "bright", "leftover"), False)],
)
def test_images_are_not_mirrored_where_names_tell_left_from_right(
    discs: Path, names: tuple[str, ...], sided: bool
) -> None:
    data = fingerprint(inspect(pairs_of(discs)))
    labels = LabelMap("multilabel", tuple(1 << k for k in range(len(names))), names)
    found = make_plan(Request(), data, labels, on_cpu=True, fast_bf16=False).augmentation
    assert found == ({"flips": False, "rotation": 20.0} if sided else {})


def test_a_class_is_a_folder_whatever_it_is_called(discs: Path) -> None:
    assert [folder_name(name) for name in ("left lung", "a/b\\c", "..", "x.", "è")] == [
        "left lung",
        "a_b_c",
        "_",
        "x_",
        "è",
    ]
    masks = dict(class_masks(discs / "masks", DISCS))
    assert sorted(masks) == [f"d{k:02d}" for k in range(8)]
    assert masks["d00"].files == (discs / "masks" / "green" / "d00.png",)


# From end to end


def test_a_training_leaves_out_what_is_unknown_and_not_255(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[BatchPlan] = []

    def noted(**fields: Any) -> BatchPlan:
        plans.append(BatchPlan(**fields))
        return plans[-1]

    monkeypatch.setattr(session, "BatchPlan", noted)
    train(discs, output=tmp_path / "run", steps=1, width=2, depth=2, patch=16, batch=1)
    assert {plan.ignore for plan in plans} == {UNKNOWN}  # those that are measured, and those that train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    """Data, run folder and what the run says of itself, after 60 steps."""
    root = tmp_path_factory.mktemp("overlap")
    save_discs(root, 12)
    choices = {"steps": 60, "width": 8, "depth": 3, "patch": 48, "batch": 4, "learning_rate": 0.01}
    run = train(root / "images", root / "masks", root / "run", **choices).run
    return root, run.path, run.read("evaluation")


def test_a_network_learns_what_a_threshold_cannot(trained: tuple[Path, Path, dict]) -> None:
    _, _, figures = trained
    assert figures["baseline"] < 0.8
    assert figures["score"] > figures["baseline"] + 0.08
    assert "Otsu" in figures["baseline_name"]


def test_predictions_overlap_and_read_back_as_they_were_scored(
    trained: tuple[Path, Path, dict], tmp_path: Path
) -> None:
    _, run, figures = trained
    new = save_discs(tmp_path / "new", 2, first=10)  # the two that validated
    predictor = Predictor.load(run, "cpu")
    summary = predict_files(
        predictor, new / "images", tmp_path / "out", FileOptions(probabilities=True), lambda _: None
    )
    assert len(summary.written) == 2
    files = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")
    )
    assert files == ["green/d10.png", "green/d11.png", "red/d10.png", "red/d11.png"]
    green, red = (np.array(Image.open(tmp_path / "out" / name / "d10.png")) for name in DISCS)
    assert set(np.unique([red, green])) == {0, 255}
    assert ((red > 0) & (green > 0)).sum() > 100  # an argmax could not
    array = predictor.predict(np.array(Image.open(new / "images" / "d10.png")))
    assert np.array_equal(array, (green > 0) + 2 * (red > 0).astype(np.uint8))
    scored = evaluate(tmp_path / "out", new)
    assert scored.to_json()["classes"] == figures["evaluation"]["classes"]
    both = np.array(Image.open(run / "validation" / "red" / "d10.png"))
    assert np.array_equal(both, red)
    assert (run / "report.html").stat().st_size > 10_000
    with pytest.raises(UsageError, match="--objects"):
        predict_files(predictor, new / "images", tmp_path / "o", FileOptions(objects=True), lambda _: None)
    with pytest.raises(UsageError, match="the classes overlap"):
        evaluate(tmp_path / "out", new, kinds=["objects"])


def test_probabilities_are_those_of_each_class(trained: tuple[Path, Path, dict], tmp_path: Path) -> None:
    import tifffile

    root, run, _ = trained
    options = FileOptions(probabilities=True, tile=16)
    predict_files(Predictor.load(run, "cpu"), root / "images" / "d03.png", tmp_path, options, lambda _: None)
    shares = tifffile.imread(tmp_path / "d03_probabilities.tif")
    assert shares.shape == (2, 48, 48)
    assert shares.sum(0).max() > 1.5  # a softmax adds up to 1
    for share, name in zip(shares, DISCS, strict=True):
        assert np.array_equal(share >= 0.5, np.array(Image.open(tmp_path / name / "d03.png")) > 0)


def test_truths_are_read_in_the_order_of_the_classes_whoever_lists_them(tmp_path: Path) -> None:
    """A truth without a folder for one of the classes is one mask a file, and is read as sets."""
    names = ("b", "a")
    sets = np.array([[0, 1, 2, 3]], np.uint8)
    for k, name in enumerate(names):
        for side in ("out", "truth"):
            (tmp_path / side / name).mkdir(parents=True)
            Image.fromarray((sets >> k & 1) * np.uint8(255)).save(tmp_path / side / name / "x.png")
    labels = LabelMap("multilabel", (1, 2), names)
    (tmp_path / "out" / "labels.json").write_text(json.dumps(labels.to_json()))
    (tmp_path / "sets").mkdir()
    Image.fromarray(sets).save(tmp_path / "sets" / "x.png")
    for truth in ("truth", "sets"):
        scored = evaluate(tmp_path / "out", tmp_path / truth)
        assert scored.pixel_error == 0
        assert [one.dice for one in scored.images[0].classes.values()] == [1, 1, 1]
    Image.fromarray(sets ^ 2).save(tmp_path / "sets" / "x.png")
    scored = evaluate(tmp_path / "out", tmp_path / "sets").images[0].classes
    assert (scored["b"].dice, scored["a"].dice) == (1, 0)
    ((_, other),) = _in_order(class_masks(tmp_path / "truth", ("a", "b")), names)
    with other.open_mask() as file:
        assert file.read()[0].tolist() == sets.tolist()
    with pytest.raises(DataError, match="masks of a, expected classes b"):
        list(_in_order(class_masks(tmp_path / "truth", ("a", "b")), ("b",)))


@pytest.mark.slow
def test_organs_of_real_chests_are_found_where_they_overlap(data_root: Path, tmp_path: Path) -> None:
    root = data_root / "chest-xray-multilabel"
    names = sorted(path.name for path in (root / "masks").iterdir())
    lines: dict[str, str] = {}

    def note(event: dict) -> None:
        lines[event.get("name", "")] = event.get("text", "")

    choices = {"steps": 60, "width": 8, "patch": 128, "seed": 1}
    found = train(
        root, output=tmp_path / "run", event=lambda e: lines.update({e.get("name"): e.get("text")}), **choices
    )
    assert set(found.evaluation["classes"]) == {"no class", *names}
    assert "not mirrored" in lines["moved"]
    predict_files(
        Predictor.load(found.run.path), root / "images", tmp_path / "out", FileOptions(), lambda _: None
    )
    scored = evaluate(tmp_path / "out", root)
    assert scored.n == 31
    assert [scored.images[0].classes[name].dice is not None for name in names] == [True] * 4
