"""The parts of the benchmarks that decide what a figure means: copies, rows, tables, verdicts, what a process took."""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = (
    "common",
    "series",
    "processes",
    "smaller",
    "training",
    "race_data",
    "race_page",
    "em_curve",
    "petabyte",
    "backends",
)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not part of a package")


@pytest.fixture(scope="module")
def bench():
    """Imports one of the scripts, which find each other in their own folder; nothing of it stays."""
    before = os.environ.copy()
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name, None)
    os.environ.clear()
    os.environ.update(before)


def test_small_images_are_means_and_small_masks_hold_no_new_value(bench):
    smaller = bench("smaller")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 9, 3), np.uint8)
    found = smaller.block_means(image, 3)
    for y in range(2):
        for x in range(3):
            block = image[3 * y : 3 * y + 3, 3 * x : 3 * x + 3].astype(float)
            assert found[y, x].tolist() == np.floor(block.mean(axis=(0, 1)) + 0.5).tolist()
    assert smaller.block_means(np.array([[0, 1], [0, 1]], np.uint8), 2).tolist() == [
        [1]
    ]  # a half is rounded up
    assert smaller.block_means(np.full((4, 4), 255, np.uint8), 4).tolist() == [[255]]  # and nothing overflows
    mask = rng.choice(np.array([0, 3, 11], np.uint8), (8, 12))
    assert np.array_equal(smaller.block_middles(mask, 2), mask[1::2, 1::2])
    with pytest.raises(ValueError, match="9 × 6 pixels cannot be divided by 2"):
        smaller.block_means(image, 2)


def test_a_smaller_copy_keeps_names_lists_and_classes_and_is_made_once(bench, tmp_path):
    smaller = bench("smaller")
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a").mkdir(parents=True)
    rng = np.random.default_rng(1)
    pictures = {name: rng.integers(0, 12, (4, 6), np.uint8) for name in ("1", "1m", "2", "2m")}
    for name, values in pictures.items():
        Image.fromarray(values).save(source / "a" / f"{name}.png")
    (source / "train.txt").write_text("a/1.png a/1m.png\n")
    (source / "val.txt").write_text("a/2.png a/2m.png\n")
    (source / "classes.csv").write_text("value,name\n0,sky\n")
    assert smaller.smaller_copy(source, target, 2) == target
    for name, values in pictures.items():
        with Image.open(target / "a" / f"{name}.png") as image:
            small = smaller.block_middles if name.endswith("m") else smaller.block_means
            assert np.array_equal(np.asarray(image), small(values, 2))
    for name in ("train.txt", "val.txt", "classes.csv"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    (target / "a" / "1.png").unlink()
    smaller.smaller_copy(source, target, 2)
    assert not (target / "a" / "1.png").exists()  # whole by its lists, and not made again
    (target / "val.txt").unlink()
    smaller.smaller_copy(source, target, 2)
    assert (target / "a" / "1.png").exists()


def test_rows_are_kept_one_by_one_and_replaced_by_key(bench, tmp_path):
    series = bench("series")
    path = tmp_path / "new" / "rows.json"
    assert series.rows_of(path) == []
    first, other = {"set": "a", "seed": 0, "score": 1 / 3}, {"set": "a", "seed": 1, "score": None}
    series.keep(path, [first, other])
    assert series.rows_of(path) == [{"set": "a", "seed": 0, "score": 0.333333}, other]
    again = series.replaced(series.rows_of(path), {"set": "a", "seed": 0, "score": 0.5}, ("set", "seed"))
    assert again == [other, {"set": "a", "seed": 0, "score": 0.5}]
    assert [child.name for child in path.parent.iterdir()] == ["rows.json"]


def test_a_page_keeps_what_others_wrote_around_the_marks(bench, tmp_path):
    series = bench("series")
    page = tmp_path / "page.md"
    series.fill(page, "one", "first", "\n# Title\n")
    series.fill(page, "two", "second", "# Not used\n")
    page.write_text(page.read_text().replace("# Title", "# Title\n\nBy hand.") + "\nThe end.\n")
    series.fill(page, "one", "changed", "# Not used\n")
    assert page.read_text() == (
        "# Title\n\nBy hand.\n\n<!-- written by benchmarks/one.py -->\nchanged\n<!-- end of benchmarks/one.py -->\n"
        "<!-- written by benchmarks/two.py -->\nsecond\n<!-- end of benchmarks/two.py -->\n\nThe end.\n"
    )


def test_what_a_command_took_is_its_own(bench, tmp_path):
    processes = bench("processes")
    work = "import time; block = bytearray(300 << 20); time.sleep(0.3); print('done')"
    log = tmp_path / "logs" / "one.log"
    spent = processes.spend([sys.executable, "-c", work], log)
    assert log.read_text() == "done\n"
    assert 0.3 < spent.seconds < 20
    assert spent.peak > 300
    assert 0 < spent.cpu < spent.seconds
    with pytest.raises(SystemExit, match=r"(?s)exit 3.*the reason"):
        processes.spend([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], log)


PLAN = {
    "model": "unet", "config": {"width": 16, "depth": 5}, "loss": "ce-dice", "patch": [48, 64, 48], "batch": 2,
    "steps": 40, "optimiser": "adamw", "learning_rate": 0.002, "precision": "bf16",
}  # fmt: skip


def training_row(**other):
    return {
        "set": "wbc-1", "time": "10m", "seed": 0, "asked": 600.0, "seconds": 612.0, "ratio": 1.02, "cpu": 1100.0,
        "peak": 900.0, "load": 2.0, "steps": 40, "score": 0.91, "score_name": "mean Dice", "baseline": 0.35,
        "baseline_name": "Otsu", "scored": 60, "train": 240, "validate": 60, "parameters": 1942611, "plan": PLAN,
        "command": "skipway train wbc-1 --time 10m", "images_path": "wbc-1/images", "machine": "here",
    } | other  # fmt: skip


def test_the_page_of_trainings(bench):
    training = bench("training")
    hippocampus = training_row(set="msd-hippocampus", volumes=29, volume_score=0.7, scored=1016, ratio=1.3)
    longer = [
        training_row(time="2m", asked=120.0, score=0.92),
        training_row(time="30m", asked=1800.0, score=0.95),
    ]
    text = training.report([hippocampus, training_row(), *longer])
    lines = text.splitlines()
    assert (
        "1 of 2 within 10 % of the time asked; 2 of 2 above the baseline, the smallest gain +0.560." in lines
    )
    assert (
        "| wbc-1 | 600 | 612 | 1.02 | 40 | **0.910** | 0.350 (Otsu) | mean Dice | 240 / 60 | 1100 | 900 | 2.0 |"
        in lines
    )
    assert (
        "| msd-hippocampus | 10m | unet | 16 | 5 | 1,942,611 | 48×64×48 | 2 | bf16 | 40 | ce-dice |" in text
    )
    assert "each volume scored as one image, the mean is 0.700" in text
    assert lines.index("## `--time 10m`") < lines.index("## wbc-1: more time") < lines.index("## Plans")
    assert "From 2m to 10m the score falls by 0.0100. From 10m to 30m the score rises by 0.0400." in text
    assert "    skipway train wbc-1 --time 10m -o RUN && skipway predict RUN wbc-1/images -o MASKS" in lines


def test_a_run_folder_and_its_log_become_a_row(bench, tmp_path):
    training = bench("training")
    plan = {**PLAN, "patch": [64, 64], "seed": 0}
    figures = {"score": 0.8, "scored": 4, "baseline": None, "baseline_name": "Otsu"}
    evaluation = {"evaluation": {"em": {"v_rand": 0.95, "v_info": 0.97}}, **figures}
    split = {"train": ["a", "b"], "val": ["c"], "rule": "by lot"}
    for name, value in {"plan": plan, "evaluation": evaluation, "split": split}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "metrics.csv").write_text(
        "step,loss,lr,seconds,val_score,val_loss\n10,0.5,0.1,3.5,,\n40,0.4,0.1,9.5,0.75,0.3\n"
    )
    log = "model      unet (width 16), 1,942,611 parameters [--model]\nscore      0.800, mean Dice, mean of 4 images\n"
    row = training.outcome(tmp_path, log)
    assert (row["steps"], row["score_name"], row["parameters"], row["v_rand"]) == (
        40,
        "mean Dice",
        1942611,
        0.95,
    )
    assert (row["train"], row["validate"], row["scored"], row["baseline"]) == (2, 1, 4, None)
    assert row["curve"] == [[9.5, 0.75]]
    assert row["plan"] == {key: plan[key] for key in training.PLAN}


def test_a_job_gives_every_peer_the_same_pixels(bench, tmp_path):
    data = bench("race_data")
    colour = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    Image.fromarray(colour).save(tmp_path / "image.png")
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "ids.png")
    Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    job = data.Job((("a", "b", "c"),), (), (0, 128, 255), False, True, 1.0, 0, str(tmp_path / "out"))
    assert data.Job.read(job.write(tmp_path / "jobs" / "job.json")).values == [0, 128, 255]
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    assert np.array_equal(job.image(str(tmp_path / "image.png")), (grey / np.float32(255))[None])
    assert job.target(str(tmp_path / "mask.png")).tolist() == [[0, 1, 2]]
    objects = data.Job((), (), (0, 1), True, False, 1.0, 0, "")
    assert objects.target(str(tmp_path / "ids.png")).tolist() == [[0, 1]]
    assert objects.image(str(tmp_path / "image.png"))[:, 0].tolist() == [[1, 0], [0, 0], [0, 1]]
    job.keep("folder/name", np.array([[2, 0]]))
    with Image.open(data.class_map_of(tmp_path / "out", "folder/name")) as image:
        assert np.asarray(image).tolist() == [[2, 0]]


def test_a_clock_stops_when_its_time_is_over(bench, monkeypatch):
    data = bench("race_data")
    moments = iter([100.5, 103.0, 103.0, 109.0, 109.5, 111.0, 111.5])
    monkeypatch.setattr(data.time, "perf_counter", lambda: next(moments))
    clock = data.Clock(10.0, began=100.0)
    assert list(clock.ticks()) == pytest.approx([0.05, 0.3, 0.95])
    assert (clock.steps, clock.used) == (3, 11.0)  # the last step began in time


def race_rows():
    mine, other = [0.90, 0.92, 0.94], [0.91, 0.90, 0.90]
    shared = {"set": "wbc-1", "time": "10m", "steps": 10, "seconds": 600.0, "load": 1.0, "machine": "here"}
    rows = [
        {
            **shared,
            "contestant": "skipway",
            "seed": seed,
            "score": score,
            "baseline": 0.3,
            "baseline_name": "Otsu",
        }
        for seed, score in enumerate(mine)
    ]
    rows += [
        {**shared, "contestant": "monai", "seed": seed, "score": score} for seed, score in enumerate(other)
    ]
    return [*rows, {**shared, "contestant": "smp", "seed": 0, "score": 0.5}]


def test_a_race_counts_whole_seeds_and_says_who_won(bench):
    races = bench("race_page")
    rows = race_rows()
    assert races.whole_seeds(rows) == [0]
    rows += [{**rows[-1], "seed": seed, "score": 0.6} for seed in (1, 2)]
    text = races.report(rows)
    assert "**Won** by 0.017 against MONAI BasicUNet" in text
    assert "ahead in 2 of 3 seeds (-0.010, +0.020, +0.040)." in text
    assert "| skipway | 0.900 | 0.920 | 0.940 | 0.920 ± 0.020 | 10 | 600 | 1.0 |" in text
    assert "| Otsu | 0.300 | 0.300 | 0.300 | 0.300 ± 0.000 |  |  |  |" in text
    assert "not an equal race" not in text
    assert "skipway took up to 1.20 times its budget" in races.report(
        [{**row, "seconds": 720.0} for row in rows]
    )
    for row in rows:
        if row["contestant"] == "skipway":
            row["score"] -= 0.1
    assert "**Lost** by 0.083 against MONAI BasicUNet" in races.report(rows)


def test_the_curve_has_every_point_and_the_aim(bench):
    curve = bench("em_curve")
    rows = [
        {"machine": "here", "seconds": s, "v_rand": v, "time": t}
        for s, v, t in ((62.0, 0.975, "1m"), (31.0, 0.93, "30s"))
    ]
    text = curve.curve(rows)
    assert text.count("<circle") == 2
    assert "0.97</text>" in text
    first, second = (
        tuple(map(float, point.split(",")))
        for point in text.partition('polyline points="')[2].partition('"')[0].split(" ")
    )
    assert first[0] < second[0]  # later is to the right
    assert first[1] > second[1]  # better is higher


@pytest.mark.parametrize("workers", [1, 10, 100])
@pytest.mark.parametrize("life", [float("inf"), 24.0, 2.0])
@pytest.mark.parametrize("regions", [1, 16])
def test_a_farm_on_paper_takes_as_long_as_the_simulated_one(bench, workers, life, regions):
    petabyte = bench("petabyte")
    work = petabyte.Work("", 400 * workers, 4e6, 2e5, (8.0, 9.0, 8.5, 12.0, 8.2))
    farm = petabyte.Farm(workers, regions=regions, life=life)
    played = petabyte.simulated(work, farm).seconds
    assert played == pytest.approx(petabyte.on_paper(work, farm).seconds, rel=0.05)
    assert played != pytest.approx(petabyte.on_paper(work, petabyte.Farm(2 * workers)).seconds, rel=0.05)


@pytest.mark.parametrize(
    ("change", "bound"),
    [({"store": 1e7}, "store"), ({"link": 1e5}, "link"), ({"dispatch": 1.0}, "scheduler")],
)
def test_what_limits_a_farm_is_named_and_the_simulation_agrees(bench, change, bound):
    petabyte = bench("petabyte")
    work, farm = petabyte.Work("", 20_000, 4e6, 2e5, (8.0, 9.0)), petabyte.Farm(200, **change)
    paper = petabyte.on_paper(work, farm)
    assert paper.bound == bound
    assert petabyte.simulated(work, farm).seconds == pytest.approx(paper.seconds, rel=0.05)
    assert paper.seconds > 1.05 * petabyte.on_paper(work, petabyte.Farm(200)).seconds


def test_many_tasks_are_simulated_by_a_smaller_farm_that_takes_as_long(bench):
    petabyte = bench("petabyte")
    work, farm = petabyte.Work("", 10**7, 4e6, 2e5, (8.0, 9.0)), petabyte.Farm(10_000, store=2e11)
    less, few = petabyte.smaller(work, farm)
    assert less.regions / few.regions <= 2 * petabyte.DRAWN
    assert petabyte.on_paper(less, few).seconds == pytest.approx(
        petabyte.on_paper(work, farm).seconds, rel=0.02
    )
    assert few.flow == pytest.approx(farm.flow)


def test_goals_of_the_backends_are_shares_of_time(bench):
    backends, common = bench("backends"), bench("common")
    seconds = {"eager, fp32": 2.0, "packed, fp32": 1.0, "openvino, fp32": 0.5, "packed, bf16": 0.7}
    found = backends.goals({name: common.Timing(cpu, 0.0, 3) for name, cpu in seconds.items()})
    assert [(row["goal"], row["found"], row["reached"]) for row in found] == [
        ("packed, fp32 over eager, fp32", 0.5, True),
        ("packed, fp32 over openvino, fp32", 2.0, False),
        ("packed, bf16 over eager, fp32", 0.35, False),
    ]


@pytest.mark.slow
def test_the_benchmark_of_the_backends_runs(bench, tmp_path, monkeypatch, capsys):
    backends, common = bench("backends"), bench("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    backends.main(["--width", "8", "--depth", "3", "--side", "64", "--rounds", "1"])
    saved = json.loads((tmp_path / "backends.json").read_text())
    rows = {row["peer"]: row for row in saved["rows"]}
    assert {"eager, fp32", "torch, fp32", "packed, fp32", "openvino, int8"} <= rows.keys()
    assert rows["packed, fp32"]["labels_that_differ"] == rows["openvino, fp32"]["labels_that_differ"] == 0
    assert 0 < rows["openvino, int8"]["labels_that_differ"] < 0.05
    assert "packed, fp32 over eager, fp32: " in capsys.readouterr().out
