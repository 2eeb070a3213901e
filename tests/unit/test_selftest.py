"""The self-test: each planted fault is named, with its files, and its clean twin is not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tifffile import imread, imwrite
from toys import TINY, digest, draw, one_thread, order_of, skipway, start

from skipway import api
from skipway.data.layouts import Reading
from skipway.errors import DataError, NumericalError
from skipway.request import Request
from skipway.runs import Run
from skipway.training import overfit, selftest
from skipway.training.prepare import check_data, prepare
from skipway.training.state import undisturbed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    one_thread()


def masks_changed(folder, change, *names):
    for name in names:
        path = folder / "masks" / f"{name}.tif"
        mask = imread(path)
        imwrite(path, change(mask).astype(mask.dtype))


def said(data, run, **choices):
    """Warnings of a training of two steps."""
    events = []
    start(data, run, steps=2, event=events.append, **choices)
    return [event["text"] for event in events if event["event"] == "warning"]


@pytest.fixture
def cells(tmp_path):
    return draw(tmp_path / "data", count=15, size=96)


def test_a_clean_set_has_no_warning_and_says_what_must_be_beaten(cells, tmp_path):
    assert said(cells, tmp_path / "run") == []
    found = json.loads((tmp_path / "run/selftest.json").read_text())
    assert found["warnings"] == []
    assert set(found["figures"]["to_beat"]) == {"Otsu threshold, bright side", "everything background"}
    assert found["figures"]["to_beat"]["everything background"] == 0
    page = (tmp_path / "run/report.html").read_text()
    assert found["lines"]["to beat"] in page
    assert "AP of objects at IoU 0.5, 3 validation images" in page


def test_exchanged_pairs_are_named(cells, tmp_path):
    one, other = (imread(cells / f"masks/c{k}.tif") for k in (3, 7))
    masks_changed(cells, lambda _: other, "c3")
    masks_changed(cells, lambda _: one, "c7")
    warnings = said(cells, tmp_path / "run")
    assert any("c3 with the mask of c7, c7 with the mask of c3" in text for text in warnings), warnings
    assert "mend first" in warnings[-1]
    assert "(c3, c7)" in warnings[-1]
    assert "E38" in warnings[-1]
    assert warnings[-1] in (tmp_path / "run/report.html").read_text()


def test_shifted_masks_are_named(cells, tmp_path):
    def shifted(mask):
        moved = np.zeros_like(mask)
        moved[12:] = mask[:-12]
        return moved

    masks_changed(cells, shifted, "c2", "c5", "c9")
    warnings = said(cells, tmp_path / "run")
    assert any("about 12 px up" in text and "c2, c5, c9" in text for text in warnings), warnings
    assert "(c2, c5, c9)" in warnings[-1]


@pytest.mark.parametrize("crowded", [False, True])
def test_inverted_masks_are_named(tmp_path, crowded):
    """Also where half of the image is marked, so that shares say nothing."""
    from skipway.synthetic import draw_cells

    data = tmp_path / "data"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    for k in range(12):
        image, labels = draw_cells(96, density=0.55 if crowded else 0.2, touching=0.2, diameter=20, seed=k)
        imwrite(data / f"images/c{k}.tif", image)
        imwrite(data / f"masks/c{k}.tif", (labels > 0).astype(np.uint8))
    assert said(data, tmp_path / "clean") == []
    masks_changed(data, lambda mask: 1 - mask, "c1", "c4")
    warnings = said(data, tmp_path / "run")
    assert any("exchanged: c1, c4" in text for text in warnings), warnings
    assert "(c1, c4)" in warnings[-1]
    assert "E03" in warnings[-1]


def test_masks_of_objects_that_are_all_inverted_are_told_by_their_one_piece(tmp_path):
    data = draw(tmp_path / "data", count=6, size=96)
    masks_changed(data, lambda mask: mask > 0, *(f"c{k}" for k in range(6)))
    assert said(data, tmp_path / "clean") == []
    masks_changed(data, lambda mask: mask == 0, *(f"c{k}" for k in range(6)))
    warnings = said(data, tmp_path / "run")
    assert any("in one piece" in text for text in warnings), warnings


def test_a_pixel_that_is_no_number_is_refused(tmp_path, cells):
    words = (
        "train",
        cells / "images",
        cells / "masks",
        "-o",
        tmp_path / "run",
        "--device",
        "cpu",
        "--steps",
        "1",
    )
    for k in range(15):
        path = cells / f"images/c{k}.tif"
        imwrite(path, imread(path).astype(np.float32) / 7)
    image = imread(cells / "images/c6.tif")
    spoilt = image.copy()
    spoilt[4, 5] = np.nan
    imwrite(cells / "images/c6.tif", spoilt)
    code, _, text = skipway(*words)
    assert code == 3
    assert "C09" in text
    assert "c6.tif" in text
    imwrite(cells / "images/c6.tif", image)
    tiny = [word for key, value in TINY.items() for word in (f"--{key}", value)]
    code, _, text = skipway(*words, *tiny, "--no-self-test")
    assert code == 0
    assert "self-test  left out, as asked" in text
    assert "left out, as asked" in (tmp_path / "run/report.html").read_text()


def test_masks_of_one_class_are_refused(tmp_path, cells):
    masks_changed(cells, np.zeros_like, *(f"c{k}" for k in range(15)))
    code, _, text = skipway(
        "train", cells / "images", cells / "masks", "-o", tmp_path / "run", "--steps", "1"
    )
    assert code == 3
    assert "E20" in text
    assert not (tmp_path / "run").exists()


def test_training_masks_of_one_class_are_refused_and_the_folder_stays_free(tmp_path):
    data = draw(tmp_path / "data", count=6, size=48)
    val = tmp_path / "val.csv"
    val.write_text("name,split\n" + "".join(f"c{k},{'val' if k > 3 else 'train'}\n" for k in range(6)))
    kept = {k: imread(data / f"masks/c{k}.tif") for k in range(4)}
    masks_changed(data, np.zeros_like, *(f"c{k}" for k in range(4)))
    order = replace(order_of(data, tmp_path / "run", Request(steps=2, **TINY)), val=val)
    with pytest.raises(
        DataError, match=r"c0, c1, c2 and 1 more.*4 masks of nothing but background"
    ) as caught:
        api.train_run(order, lambda _: None)
    assert caught.value.problems[0].code == "E20"
    for k, mask in kept.items():
        imwrite(data / f"masks/c{k}.tif", mask)
    assert api.train_run(order, lambda _: None).run.exists


def prepared_for(data, **choices):
    order = order_of(data, data.parent / "never", Request(**{"steps": 300, **TINY, **choices}))
    return prepare(order, check_data(order), CPU)


DEEP = {"width": 8, "depth": 4, "patch": 32, "batch": 2, "steps": 120}
"""Deep enough that a rate 1000 times too high keeps it from learning one batch."""


@pytest.mark.parametrize(("optimiser", "rate"), [("adamw", 0.002), ("sgd", 0.01)])
def test_a_learning_rate_a_thousand_times_too_high_is_named(tmp_path, optimiser, rate):
    data = draw(tmp_path / "data", count=6, size=64)
    clean = selftest.self_test(prepared_for(data, **DEEP, optimiser=optimiser), CPU, 120)
    assert clean.warnings == ()
    assert clean.lines["self-test"].startswith("passed")
    assert clean.figures["agreement"] > 0.9
    spoilt = prepared_for(data, **DEEP, optimiser=optimiser, learning_rate=1000 * rate)
    found = selftest.self_test(spoilt, CPU, 120)
    (warning,) = found.warnings
    assert f"the learning rate is too high: --lr {1000 * rate:g} is planned, {10 * rate:g} learns" in warning
    assert found.lines["self-test"].startswith("in doubt")


@pytest.fixture
def unhurried(monkeypatch):
    """A self-test of any training, however short, with time on a machine that others use, too."""
    monkeypatch.setattr(selftest, "SHORT", 10)
    monkeypatch.setattr(selftest, "BY_STEPS", (60.0, 180.0))


@pytest.mark.usefixtures("unhurried")
def test_the_whole_training_keeps_what_the_self_test_said(tmp_path):
    data = draw(tmp_path / "data", count=6, size=64)
    events = []
    found = start(data, tmp_path / "run", event=events.append, **{**DEEP, "steps": 12}, learning_rate=2.0)
    named = [e["text"] for e in events if e["event"] == "warning" and "too high" in e["text"]]
    assert len(named) == 1
    assert selftest.Verdict.read(Run(found.run.path)).warnings == tuple(named)
    assert named[0] in (tmp_path / "run/report.html").read_text()
    order = [e.get("name", e["event"]) for e in events]
    assert order.index("self-test") < order.index("step")
    events.clear()
    start(data, tmp_path / "run", event=events.append, **{**DEEP, "steps": 12}, learning_rate=2.0)
    assert "self-test" not in [e.get("name") for e in events]


@pytest.mark.usefixtures("unhurried")
def test_it_changes_no_bit_of_the_training(tmp_path):
    data = draw(tmp_path / "data", count=5)
    runs = {}
    for wanted in (True, False):
        order = order_of(data, tmp_path / f"run{wanted}", Request(**{**TINY, "steps": 16}))
        api.train_run(replace(order, self_test=wanted), lambda _: None)
        runs[wanted] = digest(tmp_path / f"run{wanted}")
    assert runs[True] == runs[False]
    tested, left = (json.loads((tmp_path / f"run{w}/selftest.json").read_text()) for w in (True, False))
    assert tested["figures"]["losses"]
    assert "left out" in left["lines"]["self-test"]


def test_random_states_are_put_back():
    import random

    def drawn():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    def seeded():
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)

    seeded()
    wanted = drawn()
    seeded()
    with undisturbed():
        drawn()
    assert drawn() == wanted


def test_a_gradient_that_is_no_number_is_refused_by_name(tmp_path, monkeypatch):
    data = draw(tmp_path / "data", count=5)
    prepared = prepared_for(data)
    first = selftest.first_weights

    def spoilt(plan):
        model = first(plan)
        model.get_parameter("encoder.stages.x0_0.block.conv1.weight").register_hook(
            lambda g: g * float("nan")
        )
        return model

    monkeypatch.setattr(selftest, "first_weights", spoilt)
    monkeypatch.setattr(selftest.copy, "deepcopy", lambda model: model)
    with pytest.raises(
        NumericalError, match=r"gradient of encoder.stages.x0_0.block.conv1.weight is not"
    ) as caught:
        selftest.self_test(prepared, CPU, 20)
    assert caught.value.exit_code == 5


def test_a_parameter_without_gradient_is_named(tmp_path, monkeypatch):
    data = draw(tmp_path / "data", count=5)
    prepared = prepared_for(data)
    first = selftest.first_weights

    def cut(plan):
        model = first(plan)
        model.spare = torch.nn.Linear(2, 2)
        return model

    assert selftest.self_test(prepared, CPU, 30).warnings == ()
    monkeypatch.setattr(selftest, "first_weights", cut)
    (warning,) = selftest.self_test(prepared, CPU, 30).warnings
    assert warning == "no gradient reaches spare.weight, spare.bias: these never learn"


def test_a_class_that_hardly_any_patch_will_show_is_named(tmp_path):
    data = draw(tmp_path / "data", count=25, size=48)
    masks_changed(data, lambda mask: np.where(mask > 0, 1, 0), *(f"c{k}" for k in range(25)))
    order = replace(order_of(data, tmp_path / "never", Request(**{**TINY, "steps": 4})), task="classes")
    split = prepare(order, check_data(order), CPU).split
    rare = split.train[0]
    masks_changed(data, lambda mask: np.where(np.arange(48) < 6, 2, mask), rare)
    checked = check_data(order)
    prepared = prepare(replace(order, request=replace(order.request, steps=4)), checked, CPU)
    (warning,) = selftest.self_test(prepared, CPU).warnings
    assert warning.startswith(
        f"class 2 is in 1 of {len(prepared.split.train)} images that train, and 8 patches"
    )
    more = replace(prepared, plan=replace(prepared.plan, steps=90))
    assert selftest.self_test(more, CPU).warnings == ()


def test_an_image_of_next_to_one_value_is_named(tmp_path):
    data = draw(tmp_path / "data", count=6, size=48)
    prepared = prepared_for(data, steps=2)
    name = prepared.split.train[1]
    image = np.full((48, 48), 500, np.uint16)
    image[3, 3] = 4000
    imwrite(data / f"images/{name}.tif", image)
    (warning,) = selftest.self_test(prepared_for(data, steps=2), CPU).warnings
    assert warning.startswith(f"next to one value everywhere once normalised: {name};")


def attempt(*losses, rate=1.0, agreement=0.0, finite=True):
    return overfit.Attempt(rate, losses, agreement, (), (), finite)


def test_only_a_lower_rate_that_is_far_better_speaks_against_the_planned_one():
    slow, fast = attempt(*[1.0] * 40), attempt(*[0.3] * 40, rate=0.01)
    assert overfit.too_high(slow, 1.1, lambda rate: fast) is fast
    assert overfit.too_high(slow, 1.1, lambda rate: attempt(*[0.6] * 40)) is None
    assert overfit.too_high(attempt(*[0.4] * 40), 1.1, lambda rate: fast) is None  # learnt: nothing is tried
    assert overfit.too_high(replace(slow, agreement=0.95), 1.1, lambda rate: fast) is None
    assert overfit.too_high(attempt(*[1.0] * 5), 1.1, lambda rate: fast) is None  # too few steps to tell
    assert overfit.too_high(attempt(finite=False), 1.1, lambda rate: fast) is fast
    tried = []
    assert overfit.too_high(slow, 1.1, lambda rate: tried.append(rate)) is None  # no time is left
    assert tried == [0.01]


def test_the_best_constant_is_the_share_of_the_classes():
    from skipway.data.sampling import Batch
    from skipway.losses import LOSSES

    target = torch.zeros(1, 10, 10, dtype=torch.int64)
    target[0, :3] = 1
    batch = Batch(torch.zeros(1, 1, 10, 10), target, None, (0,))
    entropy = -(0.3 * np.log(0.3) + 0.7 * np.log(0.7))
    for channels in (1, 2):
        assert overfit.constant_loss(batch, LOSSES["ce"].function, channels) == pytest.approx(
            entropy, abs=2e-3
        )


SETS = {
    "dsb2018": {"colour": "grey"},
    "isbi2012-em": {},
    "wbc-1": {},
    "camvid": {},
    "chest-xray-multilabel": {},
    "crackforest": {},
    "msd-hippocampus/Task04_Hippocampus": {},
}
"""Real data and how they are read."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_real_data_give_no_alarm(name, data_root, tmp_path):
    order = api.Order(
        data_root / name, None, tmp_path / "run", Request(seconds=600), reading=Reading(**SETS[name])
    )
    checked = check_data(order)
    found = selftest.self_test(prepare(order, checked, CPU), CPU, odd=checked.suspicions)
    assert found.warnings == ()
    assert found.figures["seconds"] < 60
