"""What to look at first: expected scores, distances from the training images, and the table of them."""

import csv
import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage, special, stats
from skimage.draw import disk
from tifffile import imread, imwrite
from torch import nn
from toys import WORDS, skipway

from skipway import api
from skipway.data.fingerprint import Normalisation
from skipway.data.labels import LabelMap
from skipway.data.looks import looks, shares, size_of, windows
from skipway.errors import CheckpointError
from skipway.metrics.objects import match, overlap_table
from skipway.predict.familiar import STRANGE, Familiar
from skipway.predict.options import FileOptions
from skipway.predict.pixels import ArrayPixels
from skipway.predict.review import Review, Row, write_review
from skipway.runs import Run
from skipway.shapes import Geometry

CLASSES = LabelMap("classes", (0, 1, 2), ("background", "cell", "core"))
SETS = LabelMap("multilabel", (1, 2, 4), ("a", "b", "c"))


def table(path):
    """Rows of review.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What an image looks like


def numbers_of(image, low=0.0, high=100.0):
    return looks(ArrayPixels(image).read, image.shape[1:], Normalisation(low=low, high=high).constants(image))


@pytest.mark.parametrize("size", [(5, 7), (256, 1024), (700, 300), (3, 90, 600), (1, 1)])
def test_small_images_are_looked_at_as_a_whole(size):
    seen = np.zeros(size, int)
    for window in windows(size):
        seen[window] += 1
    np.testing.assert_array_equal(seen, 1)


def test_large_images_are_looked_at_in_a_bounded_part():
    for size in ((10**6, 10**6), (5000, 10**5, 10**5)):
        every = list(windows(size))
        assert sum(math.prod(w.stop - w.start for w in window) for window in every) <= 4 * 16 * 256**2
        assert len({str(window) for window in every}) == len(every)
        assert min(w.start for window in every for w in window) >= 0
        assert all(w.stop <= side for window in every for w, side in zip(window, size, strict=True))


def test_numbers_of_noise_are_those_of_theory():
    rng = np.random.default_rng(0)
    image = np.stack([rng.normal(100, 3, (512, 512)), rng.normal(-7, 3, (512, 512))])
    image[:, 0, 0], image[:, 0, 1] = 0, 300  # the range
    found = numbers_of(image)
    assert found["brightness 1"] == pytest.approx(100, abs=0.05)
    assert found["brightness 2"] == pytest.approx(-7, abs=0.05)
    assert found["contrast 1"] == pytest.approx(math.log2(300))
    assert found["tone 1"] == pytest.approx(100 / 300, abs=1e-3)
    low = image[1].min()
    sigma = np.mean([3 / 300, 3 / (300 - low)])
    assert found["noise"] == pytest.approx(math.log2(sigma * math.sqrt(2 / math.pi)), abs=0.05)
    assert found["sharpness"] == pytest.approx(0, abs=0.02)


def test_a_straight_ramp_has_no_noise_and_is_a_quarter_as_steep():
    ramp = np.add.outer(np.arange(40.0), 2 * np.arange(60.0))[None]
    found = numbers_of(ramp)
    assert found["noise"] == math.log2(1e-4)
    assert found["sharpness"] == pytest.approx(-2, abs=0.02)
    assert found["tone 1"] == pytest.approx(0.5)


def test_flat_and_tiny_images_have_numbers_too():
    flat = numbers_of(np.full((1, 30, 30), 9, np.uint8))
    assert (flat["brightness 1"], flat["contrast 1"], "sharpness" in flat) == (9, 0, False)
    assert set(numbers_of(np.full((1, 1, 2), 9, np.uint8))) == {"brightness 1", "contrast 1", "tone 1"}


def test_a_volume_is_measured_in_its_slices():
    rng = np.random.default_rng(0)
    volume = np.repeat(rng.normal(size=(1, 3, 1, 1)) * 100, 64, 2) + rng.normal(size=(1, 3, 64, 80))
    alone = [numbers_of(volume[:, z])["sharpness"] for z in range(3)]
    assert numbers_of(volume)["sharpness"] == pytest.approx(
        np.mean(alone), abs=0.02
    )  # steps between slices: no


def test_sizes_are_mean_runs():
    blocks = np.kron(np.array([[1, 0], [0, 2]]), np.ones((4, 6), int))
    pixels, runs = 2 * 2 * 24, 2 * 4 + 2 * 6
    assert size_of([blocks], 0)["size"] == pytest.approx(math.log2(pixels / runs))
    every = (2 * 8 + 2 * 12, 2 * blocks.size)
    assert size_of([blocks], None)["size"] == pytest.approx(math.log2(every[1] / every[0]))
    assert size_of([np.zeros((3, 3), int)], 0) == {}
    assert shares([25, 50], 100) == {"share 1": 0.5, "share 2": math.sqrt(0.5)}


# How far an image lies from the training images


def test_distances_are_robust_and_small_within_the_range():
    known = Familiar.of_images([{"noise": float(v)} for v in (*range(11), 100)])
    assert known.values["noise"] == (*map(float, range(11)), 100.0)
    spread = max(1.4826 * 3, (9.9 - 1.1) / 2.563) * (1 + 3 / 12)
    (far,) = known.drift({"noise": 200.0})
    assert far.distance == pytest.approx((200 - 5.5) / spread)
    (below,) = known.drift({"noise": -50.0, "unheard of": 3.0})
    assert below.distance == pytest.approx((-50 - 5.5) / spread)
    assert known.drift({"noise": 99.0})[0].distance == 2  # another image was further out
    assert known.drift({"noise": 5.5})[0].distance == 0


def test_images_that_happen_to_be_alike_do_not_make_others_strange():
    known = Familiar.of_images([{"size": 3.0}] * 4)
    assert known.drift({"size": 3.3})[0].distance == pytest.approx(0.3 / (0.15 * (1 + 3 / 4)))


def test_brightness_is_measured_by_the_contrast():
    known = Familiar.of_images([{"brightness 1": 50.0, "contrast 1": 7.0}] * 300)
    found = {one.name: one.distance for one in known.drift({"brightness 1": 114.0, "contrast 1": 7.0})}
    assert found["brightness 1"] == pytest.approx(64 / (0.05 * 128 * 1.01))


def test_folds_are_familiar_with_the_images_of_all(tmp_path):
    whole = Run(tmp_path)
    whole.write("run", {"format": 1, "asked": {"folds": 3}})
    assert Familiar.of(whole) is None
    for k, values in ((1, [1.0, 5.0]), (3, [2.0, 9.0])):
        (tmp_path / f"fold-{k}").mkdir()
        Run(tmp_path / f"fold-{k}").write("familiar", {"noise": values})
    assert Familiar.of(whole).values == {"noise": (1.0, 2.0, 5.0, 9.0)}


# What is seen of one image


def seen_by(labels, logits, cuts=(), temperature=1.0, familiar=None, image=None):
    """The row of random logits (K, H, W), told in parts."""
    review = Review(labels, familiar, temperature)
    size = logits.shape[1:]
    image = np.random.default_rng(0).normal(size=(1, *size)) if image is None else image
    review.look(ArrayPixels(image), Normalisation().constants(image))
    ends = [0, *cuts, size[0]]
    for low, high in pairwise(ends):
        for part in (slice(0, size[1] // 3), slice(size[1] // 3, size[1])):
            review.see((slice(low, high), part), torch.from_numpy(logits[:, low:high, part]).float())
    return review.row("x")


def dice(p, own):
    return 2 * (p * own).sum() / (p.sum() + own.sum())


def test_expected_score_and_entropy_of_classes():
    logits = 3 * np.random.default_rng(1).normal(size=(3, 40, 50))
    p = special.softmax(logits / 1.7, axis=0)
    row = seen_by(CLASSES, logits, (7, 23), temperature=1.7)
    assert row.expected_score == pytest.approx(
        np.mean([dice(p[k], p.argmax(0) == k) for k in (1, 2)]), abs=1e-6
    )
    assert row.entropy == pytest.approx(stats.entropy(p, base=3).mean(), abs=1e-6)
    assert row.look_first == pytest.approx(1 - row.expected_score)
    assert (row.spread, row.drift) == (None, None)
    named = replace(CLASSES, names=("sky", "cell", "core"))  # no background: it counts
    wanted = np.mean([dice(p[k], p.argmax(0) == k) for k in range(3)])
    assert seen_by(named, logits, temperature=1.7).expected_score == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("overlapping", [False, True])
def test_expected_score_of_sigmoids(overlapping):
    logits = 3 * np.random.default_rng(1).normal(size=(3 if overlapping else 1, 40, 50))
    p = special.expit(logits)
    labels = SETS if overlapping else LabelMap("objects", (0, 1), ("background", "object"))
    row = seen_by(labels, logits, (10,))
    assert row.expected_score == pytest.approx(np.mean([dice(one, one > 0.5) for one in p]), abs=1e-6)
    binary = stats.entropy(np.stack([p, 1 - p]), base=2)
    assert row.entropy == pytest.approx(binary.mean(), abs=1e-6)
    if not overlapping:
        both = replace(labels, task="classes", names=("sky", "sea"))
        wanted = (dice(p[0], p[0] > 0.5) + dice(1 - p[0], p[0] <= 0.5)) / 2
        assert seen_by(both, logits).expected_score == pytest.approx(wanted, abs=1e-6)


def test_the_expected_score_is_the_mean_score_where_probabilities_are_true():
    rng = np.random.default_rng(3)
    logits = ndimage.gaussian_filter(rng.normal(size=(1, 64, 64)), (0, 3, 3)) * 30
    labels = LabelMap("classes", (0, 1), ("background", "cell"))
    p = special.expit(logits[0])
    found = [dice(rng.random(p.shape) < p, p > 0.5) for _ in range(200)]
    assert seen_by(labels, logits).expected_score == pytest.approx(np.mean(found), abs=2e-3)


def test_parts_do_not_matter():
    logits = np.random.default_rng(1).normal(size=(3, 300, 700))
    known = Familiar.of_images([{"size": 1.0, "share 1": 0.5, "noise": 0.0}] * 20)
    one, other = (seen_by(CLASSES, logits, cuts, familiar=known) for cuts in ((), (1, 17, 255, 256, 290)))
    assert one.drift == other.drift
    assert one.expected_score == pytest.approx(other.expected_score, rel=1e-9)
    sizes = size_of([logits.argmax(0)[window] for window in windows((300, 700))], 0)
    found = dict(shares([(logits.argmax(0) == k).sum() for k in (1, 2)], 300 * 700), **sizes)
    assert max(abs(d.distance) for d in known.drift(found)) <= one.drift


def test_of_many_classes_every_third_row_and_column_is_summed():
    logits = 5 * np.random.default_rng(1).normal(size=(20, 400, 500)).astype(np.float32)
    labels = LabelMap("classes", tuple(range(20)), ("background", *map(str, range(1, 20))))
    part = logits[:, ::3, ::3]
    p = special.softmax(part.astype(float), axis=0)
    wanted = np.mean([dice(p[k], part.argmax(0) == k) for k in range(1, 20)])
    for cuts in ((), (1, 2, 100, 101, 300)):
        row = seen_by(labels, logits, cuts)
        assert row.expected_score == pytest.approx(wanted, abs=1e-6)
        assert row.entropy == pytest.approx(stats.entropy(p, base=20).mean(), abs=1e-6)
    small = seen_by(labels, logits[:, :100, :100])  # all of it
    p = special.softmax(logits[:, :100, :100].astype(float), axis=0)
    assert small.entropy == pytest.approx(stats.entropy(p, base=20).mean(), abs=1e-6)


def test_the_spread_is_a_mean_over_all_pixels():
    review = Review(CLASSES)
    for rows, value in ((slice(0, 3), 0.5), (slice(3, 4), 0.1)):
        review.apart((rows, slice(0, 5)), torch.full((rows.stop - rows.start, 5), value))
    assert review.row("x").spread == pytest.approx(0.4)


def test_an_image_without_anything_has_no_score():
    row = seen_by(CLASSES, np.stack([np.full((9, 9), 5.0), np.zeros((9, 9)), np.zeros((9, 9))]))
    assert (row.expected_score, row.look_first) == (None, 0.5)
    assert row.reason.startswith("nothing found")


# A table of many


def row(file, look_first, page=None, **changes):
    return replace(Row(look_first, file, page, 0.5, 0.1, None, None, False, "because"), **changes)


def test_rows_are_sorted_and_older_ones_stay(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, [row("a", 0.1), row("b", 0.9, 3), row("b", 0.95, 12)])
    assert [one["file"] + one["page"] for one in table(path)] == ["b12", "b3", "a"]
    write_review(path, [row("b", 0.05), row("c, d\n", 0.5, reason='with "quotes", too')])
    found = table(path)
    assert [one["file"] for one in found] == ["c, d\n", "a", "b"]
    assert found[0]["reason"] == 'with "quotes", too'
    assert (found[0]["spread"], found[0]["trained"], found[0]["look_first"]) == ("", "no", "0.5000")
    for strange in ("hello", "look_first,file\n1,2\n", "\x00"):
        path.write_text(strange)
        write_review(path, [row("a", 0.1)])
        assert len(table(path)) == 1


# The whole way, with a network that needs no training


class Bright(nn.Module):
    """Says cell where the mean of 5 × 5 pixels is bright: log odds 24 (mean − 0.5)."""

    classes, in_channels, ndim = 2, 1, 2
    topology = SimpleNamespace(outputs=(SimpleNamespace(column=1),))

    def __init__(self):
        super().__init__()
        self.mean = nn.Conv2d(1, 1, 5, padding=2, padding_mode="zeros", bias=False)
        nn.init.constant_(self.mean.weight, 1 / 25)
        one = (1, 1)
        self.geometry = Geometry("bright", one, one, (0, 0), (2, 2), (5, 5), {"x": (0, 0)}, ())

    def forward(self, x):
        odds = 24 * (self.mean(x) - 0.5)
        return torch.cat([-odds / 2, odds / 2], 1)


def scene(seed, size=96, radius=9):
    """Discs on a darker ground as a camera sees them, and their numbers."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint16)
    light = np.full((size, size), 60.0 + rng.normal(0, 3))
    for number in range(1, 3 + seed % 4 + int(size / radius / 3)):
        r = radius * rng.uniform(0.8, 1.2)
        here = disk(rng.uniform(r, size - r, 2), r, shape=labels.shape)
        if not labels[here].any():
            labels[here], light[here] = number, 150 + rng.normal(0, 8)
    light = ndimage.gaussian_filter(light, 1) + rng.normal(0, 5, light.shape)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8), labels


def shifted(seed=77):
    image, _ = scene(seed)
    values, rng = image.astype(float), np.random.default_rng(5)
    changed = {
        "inverted": 210 - values,
        "blurred": ndimage.gaussian_filter(values, 2),
        "noisy": values + rng.normal(0, 25, values.shape),
        "magnified": ndimage.zoom(values, 3, order=1)[40:136, 40:136],
        "reduced": scene(seed, radius=3)[0].astype(float),
        "brightened": values + 80,
        "dimmed": values * 0.4,
    }
    return {name: np.clip(np.rint(one), 0, 255).astype(np.uint8) for name, one in changed.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A run on discs that stopped after two steps, whose network the tests put in place, and new images."""
    folder = tmp_path_factory.mktemp("review")
    for name, first, count in (("data", 0, 16), ("new", 100, 10)):
        for part in ("images", "masks"):
            (folder / name / part).mkdir(parents=True)
        for k in range(count):
            image, labels = scene(first + k)
            imwrite(folder / name / "images" / f"c{k:02}.tif", image)
            imwrite(folder / name / "masks" / f"c{k:02}.tif", labels)
    code, _, err = skipway(
        "train", folder / "data" / "images", folder / "data" / "masks", "-o", folder / "run", "--task", "objects",
        "--no-self-test", *WORDS,
    )  # fmt: skip
    assert code == 0, err
    return folder


@pytest.fixture
def predictor(data):
    return replace(api.load(data / "run", device="cpu"), model=Bright().eval(), calibration=None)


def predicted(predictor, images, out, **options):
    events = []
    found = api.predict_files(predictor, images, out, FileOptions(**options), events.append)
    assert not found.failed
    return table(out / "review.csv"), events


@pytest.mark.parametrize("shift", sorted(shifted()))
def test_a_planted_shift_ranks_on_top(data, predictor, tmp_path, shift):
    shutil.copytree(data / "new" / "images", tmp_path / "in")
    imwrite(tmp_path / "in" / "m5.tif", shifted()[shift])
    rows, events = predicted(predictor, tmp_path / "in", tmp_path / "out")
    assert rows[0]["file"] == "m5"
    assert float(rows[0]["drift"]) >= STRANGE > max(float(one["drift"]) for one in rows[1:])
    words = {
        "inverted": "tone", "blurred": "blurrier", "noisy": "noisier", "magnified": "coarser", "reduced": "finer",
        "brightened": "brighter", "dimmed": "darker",
    }  # fmt: skip
    assert words[shift] in rows[0]["reason"]
    assert "than all training images" in rows[0]["reason"]
    assert {one["reason"] for one in rows[1:]} == {"like the training images"}
    (line,) = [event["text"] for event in events if event.get("name") == "review"]
    assert line.startswith("look at m5 first (")
    assert "1 of 11 unlike the training images" in line


def test_the_expected_score_follows_the_true_one(data, predictor, tmp_path):
    (tmp_path / "in").mkdir()
    rng, truths = np.random.default_rng(1), {}
    for k in range(24):
        image, truths[f"h{k:02}"] = scene(200 + k)
        hard = ndimage.gaussian_filter(image.astype(float), k / 8) + rng.normal(0, 5 * k, image.shape)
        imwrite(tmp_path / "in" / f"h{k:02}.tif", np.clip(np.rint(hard), 0, 255).astype(np.uint8))
    rows, _ = predicted(predictor, tmp_path / "in", tmp_path / "out")
    expected = {one["file"]: float(one["expected_score"]) for one in rows}
    masks = {name: imread(tmp_path / "out" / f"{name}.tif") for name in truths}
    true = [dice(masks[name] > 0, truths[name] > 0) for name in sorted(truths)]
    objects = [match(overlap_table(truths[name], masks[name]), 0.5).ap or 0.0 for name in sorted(truths)]
    found = [expected[name] for name in sorted(truths)]
    assert stats.spearmanr(found, true)[0] > 0.9
    assert stats.spearmanr(found, objects)[0] > 0.7
    assert float(rows[0]["look_first"]) == max(float(one["look_first"]) for one in rows)


def test_the_same_bytes_twice_and_whatever_the_tile(data, predictor, tmp_path):
    texts = []
    for number, tile in enumerate((None, None, 32)):
        predicted(predictor, data / "new" / "images", tmp_path / str(number), tile=tile)
        texts.append((tmp_path / str(number) / "review.csv").read_bytes())
    assert texts[0] == texts[1] == texts[2]


def test_an_old_run_predicts_and_says_what_it_lacks(data, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(data / "run", old)
    (old / "familiar.json").unlink()
    code, _, err = skipway("predict", old, data / "new" / "images", "-o", tmp_path / "out")
    assert code == 0
    rows = table(tmp_path / "out" / "review.csv")
    assert {one["drift"] for one in rows} == {""}
    assert "not compared: the run does not say what its training images look like" in rows[0]["reason"]
    assert "the run does not say what its training images look like" in err
    for damage in ("{", '["a"]', '{"noise": []}', '{"noise": ["x"]}', '{"noise": [NaN]}'):
        (old / "familiar.json").write_text(damage)
        with pytest.raises(CheckpointError, match=r"familiar\.json"):
            api.load(old)


def test_what_a_run_keeps_are_numbers_of_its_training_images(data):
    kept = Run(data / "run").read("familiar")
    trained = Run(data / "run").read("split")["train"]
    assert {len(values) for values in kept.values()} == {len(trained)}
    read = [imread(data / "data" / "images" / f"{name}.tif") for name in trained]
    assert kept["brightness 1"] == sorted(float(np.median(image)) for image in read)
    assert json.dumps(kept) == json.dumps(Familiar.of(Run(data / "run")).to_json())


def test_spread_trained_and_no_review(data, tmp_path):
    name = Run(data / "run").read("split")["train"][0]
    words = ("predict", data / "run", data / "data" / "images" / f"{name}.tif", "-o", tmp_path / "out")
    assert skipway(*words, "--tta", "mirror")[0] == 0
    (found,) = table(tmp_path / "out" / "review.csv")
    assert (found["trained"], 0 < float(found["spread"]) < 1) == ("yes", True)
    assert "trained the network" in found["reason"]
    (tmp_path / "out" / "review.csv").unlink()
    assert skipway(*words, "--overwrite", "--no-review")[0] == 0
    assert not (tmp_path / "out" / "review.csv").exists()
    assert skipway(*words, "--overwrite")[0] == 0
    (found,) = table(tmp_path / "out" / "review.csv")
    assert found["spread"] == ""


def test_pages_of_a_stack_have_rows_of_their_own(data, predictor, tmp_path):
    (tmp_path / "in").mkdir()
    pages = [scene(300)[0], scene(301)[0], shifted()["inverted"], scene(302)[0]]
    imwrite(tmp_path / "in" / "s.tif", np.stack(pages), photometric="minisblack", metadata={"axes": "ZYX"})
    rows, events = predicted(predictor, tmp_path / "in", tmp_path / "out")
    assert sorted(one["page"] for one in rows) == ["0", "1", "2", "3"]
    assert (rows[0]["file"], rows[0]["page"]) == ("s", "2")
    assert any("look at s, page 2 first" in str(event.get("text")) for event in events)
