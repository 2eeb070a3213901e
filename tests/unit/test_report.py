import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from skipway.errors import EnvironmentFault
from skipway.report import curves, pictures, scores
from skipway.report.page import Baseline, Case, LabelRow, ReportInput, SplitFacts, render, write_report

HOSTILE = """<img src=x onerror="alert(1)">'&</style><script>"""
label_maps = arrays(np.int64, (6, 7), elements=st.integers(0, 4))


# ---------------------------------------------------------------- pictures


def test_stretch_maps_the_percentiles_to_black_and_white_in_each_channel():
    ramp = np.arange(101, dtype=np.uint16).reshape(1, 101)
    grey = pictures.stretch(ramp, 10, 60)[0, :, 0]
    assert (grey[10], grey[35], grey[60]) == (0, 128, 255)
    assert (np.diff(grey.astype(int)) >= 0).all()
    dim = np.stack([ramp, ramp // 2, 7 * ramp])
    np.testing.assert_allclose(pictures.stretch(dim)[..., 0], pictures.stretch(dim)[..., 2], atol=1)


def test_stretch_shows_what_is_not_finite_as_black_and_a_constant_image_without_fault():
    image = np.array([[np.nan, 1.0], [np.inf, 3.0]])
    assert pictures.stretch(image, 0, 100)[..., 1].tolist() == [[0, 0], [0, 255]]
    assert not pictures.stretch(np.full((3, 3), 7)).any()
    assert not pictures.stretch(np.full((3, 3), np.nan)).any()


def test_two_channels_become_green_and_magenta():
    first, second = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    picture = pictures.stretch(np.stack([first, second]), 0, 100)
    assert picture.tolist() == [[[255, 0, 255], [0, 255, 0]]]


def test_a_label_has_one_colour_everywhere_and_neighbouring_numbers_differ_visibly():
    colours = pictures.colour_labels(np.arange(300)[None])[0].astype(int)
    assert len(np.unique(colours, axis=0)) == 300
    assert colours[0].tolist() == [0, 0, 0]
    assert (np.abs(np.diff(colours[1:], axis=0)).sum(axis=1) > 100).all()
    assert colours[1:].max(axis=1).min() > 150  # never lost on black
    assert pictures.label_colour(137) == tuple(colours[137].tolist())
    assert pictures.colour_labels(np.array([[2**31, 0]]))[0, 0].any()


def test_edges_lie_inside_the_labels_on_both_sides_of_a_contact():
    labels = np.array([[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2]])
    assert pictures.edges(labels).astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1],
        [0, 1, 0, 1, 1, 0],
        [0, 1, 0, 1, 1, 0],
    ]


def test_errors_of_classes_are_right_missed_false_and_confused():
    truth = np.array([[0, 1, 1, 2, 0, 255]])
    prediction = np.array([[0, 1, 0, 1, 2, 1]])
    assert pictures.errors(truth, prediction, ignore=255).tolist() == [[0, 1, 2, 4, 3, 0]]


@given(label_maps, label_maps)
def test_errors_of_objects_agree_with_matching_by_hand(truth, prediction):
    expected = np.zeros(truth.shape, int)
    for index in np.ndindex(truth.shape):
        t, p = truth[index], prediction[index]
        if t and p:
            overlap = ((truth == t) & (prediction == p)).sum() / ((truth == t) | (prediction == p)).sum()
            expected[index] = 1 if overlap > 0.5 else 4
        elif t or p:
            expected[index] = 2 if t else 3
    assert pictures.errors(truth, prediction, objects=True).tolist() == expected.tolist()


@given(label_maps, label_maps)
def test_follow_only_renames_and_gives_matched_objects_the_true_id(prediction, truth):
    renamed = pictures.follow(prediction, truth)
    pairs = set(zip(prediction.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
    assert ((renamed == 0) == (prediction == 0)).all()
    right = pictures.errors(truth, prediction, objects=True) == 1
    assert (renamed[right] == truth[right]).all()


@given(arrays(np.uint8, (7, 9), elements=st.integers(0, 4)), st.integers(1, 10))
def test_window_of_most_errors_holds_the_most(kind, side):
    height, width = min(side, 7), min(side, 9)
    counts = [
        (kind[y : y + height, x : x + width] > 1).sum() for y in range(8 - height) for x in range(10 - width)
    ]
    window = pictures.window_of_most_errors(kind, side)
    assert kind[window].shape == (height, width)
    assert (kind[window] > 1).sum() == max(counts)


def test_error_overlay_outlines_what_is_right_and_fills_what_is_wrong():
    truth, prediction = np.zeros((12, 12), int), np.zeros((12, 12), int)
    truth[1:6, 1:6] = prediction[1:6, 1:6] = 1
    truth[8:11, 1:4], prediction[8:11, 8:11] = 2, 9
    picture = pictures.error_overlay(np.zeros((12, 12)), truth, prediction, objects=True).astype(int)
    assert picture[1, 1].tolist() == list(pictures.HIT)
    assert picture[3, 3].tolist() == [0, 0, 0]
    assert picture[9, 2].tolist() == [round(0.75 * c) for c in pictures.MISS]
    assert picture[9, 9].tolist() == [round(0.75 * c) for c in pictures.FALSE_ALARM]


def test_overlay_draws_outlines_or_a_veil():
    labels = np.pad(np.ones((5, 5), int), 2)
    drawn = pictures.overlay(np.zeros((9, 9)), labels)
    assert (drawn == pictures.OUTLINE).all(axis=-1).sum() == 16
    veil = pictures.overlay(np.zeros((9, 9)), labels, outline=False)
    assert (veil.any(axis=-1) == (labels > 0)).all()


def test_pictures_refuse_an_image_and_labels_of_different_size():
    for draw in (pictures.overlay, lambda i, t: pictures.error_overlay(i, t, t)):
        with pytest.raises(ValueError, match=r"same size, got \(4, 4\) and \(4, 5\)"):
            draw(np.zeros((4, 4)), np.zeros((4, 5), int))


def test_contact_sheet_puts_each_picture_in_its_place_and_scales_small_ones_in_whole_steps():
    red, blue = np.full((10, 10, 3), (255, 0, 0), np.uint8), np.full((10, 10, 3), (0, 0, 255), np.uint8)
    sheet = pictures.contact_sheet([[red, blue], [blue]], ("one", "two"), side=25)
    assert sheet.shape == (30 + 2 * 20 + 3 * 8, 2 * 20 + 3 * 8, 3)
    assert sheet[40, 10].tolist() == [255, 0, 0]
    assert sheet[40, 40].tolist() == [0, 0, 255]
    assert sheet[70, 10].tolist() == [0, 0, 255]
    assert sheet[70, 40].tolist() == [255, 255, 255]
    assert (sheet[:30] < 100).any()  # the titles


def test_result_strip_of_a_huge_image_stays_small():
    labels = np.zeros((40, 3000), np.uint16)
    strip = pictures.result_strip(np.zeros((1, 40, 3000), np.uint16), labels, labels, side=100)
    assert strip.shape[1] == 4 * 100 + 5 * 8
    assert strip.dtype == np.uint8


def test_data_uris_decode_to_the_picture():
    picture = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    head, body = pictures.data_uri(picture).split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))), picture)
    assert pictures.data_uri(picture, photo=True).startswith("data:image/jpeg;base64,")


# ---------------------------------------------------------------- curves


def test_read_columns_leaves_out_what_is_empty_or_not_finite(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,val_score\n1,0.5,\n2,nan,0.25\n3,oops,inf\n4,0.125,0.5\n")
    assert curves.read_columns(path) == {
        "loss": ((1.0, 0.5), (4.0, 0.125)),
        "val_score": ((2.0, 0.25), (4.0, 0.5)),
    }
    assert curves.read_columns(tmp_path / "none.csv") == {}


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_enclose_the_values(low, span):
    ticks = curves.nice_ticks(low, low + span)
    rounding = 1e-9 * (abs(low) + span)
    assert ticks[0] <= low + rounding
    assert ticks[-1] >= low + span - rounding
    assert 2 <= len(ticks) <= 6


@given(st.floats(1e-6, 1e3), st.floats(20.5, 1e8))
def test_log_ticks_enclose_the_values(low, factor):
    ticks = curves.log_ticks(low, low * factor)
    assert ticks[0] <= low * 1.0001
    assert ticks[-1] >= low * factor * 0.9999
    assert list(ticks) == sorted(set(ticks))


def test_a_chart_places_points_where_its_ticks_say():
    chart = curves.draw_chart("Score", [curves.Line("validation", ((0, 0.0), (100, 1.0)))], bounds=(0, 1))
    right, bottom = curves.WIDTH - curves.RIGHT, curves.HEIGHT - curves.BOTTOM
    assert chart.lines[0][2] == f"{curves.LEFT},{bottom} {right},{curves.TOP}"
    assert (chart.y_ticks[0], chart.y_ticks[-1]) == (curves.Tick(bottom, "0"), curves.Tick(curves.TOP, "1"))
    assert not chart.log
    falling = curves.draw_chart("Loss", [curves.Line("training", ((1, 10.0), (2, 1.0), (3, 0.1)))])
    assert falling.log
    assert (
        float(falling.lines[0][2].split()[1].split(",")[1]) == (bottom + curves.TOP) / 2
    )  # 1 is the log middle
    assert curves.draw_chart("none", [curves.Line("training", ())]) is None


def test_long_curves_are_thinned_to_means():
    line = curves.Line("training", tuple((float(k), float(k % 2)) for k in range(4000)))
    chart = curves.draw_chart("Loss", [line], bounds=(0, 1))
    heights = {point.split(",")[1] for point in chart.lines[0][2].split()}
    assert len(chart.lines[0][2].split()) == curves.MOST_POINTS
    assert len(heights) == 1  # every mean is 0.5


# ---------------------------------------------------------------- scores

EVALUATION = {
    "n": 3,
    "pixel_error": 0.0625,
    "warnings": ["one mask was empty"],
    "classes": {
        "0": {"dice": 0.99, "iou": 0.98, "n": 3},
        "7": {"dice": 0.9, "iou": 0.8, "n": 2},
        "9": {"dice": 0.5, "iou": None, "n": 1},
    },
    "objects": {"ap50": 0.75, "pq": 0.625},
    "convention": "per image, then mean",
    "images": [
        {"name": "good", "classes": {"7": {"dice": 0.9}}, "objects": {"ap50": 0.9}},
        {"name": "undefined", "classes": {"7": {"dice": None}}, "objects": {"ap50": None}},
        {"name": "bad", "classes": {"7": {"dice": 0.2}}, "objects": {"ap50": 0.1}},
    ],
}


def test_worst_images_come_first_and_undefined_ones_last():
    assert [image["name"] for image in scores.worst_first(EVALUATION)] == ["bad", "good", "undefined"]
    without_objects = {**EVALUATION, "objects": {}}
    without_objects["images"] = [
        {"name": n, "classes": {"7": {"dice": d}}} for n, d in (("a", 0.9), ("b", 0.3))
    ]
    assert [image["name"] for image in scores.worst_first(without_objects)] == ["b", "a"]


def test_headline_averages_the_classes_that_are_not_background():
    figures = scores.headline(EVALUATION, {"classes": {"7": {"dice": 0.4}, "9": {"dice": 0.6}}})
    assert [(f.name, f.value) for f in figures] == [("AP at 0.5", 0.75), ("Dice", 0.7), ("PQ", 0.625)]
    assert [f.baseline for f in figures] == [None, 0.5, None]


def test_tables_put_the_baseline_under_each_class_and_n_first():
    otsu = {"classes": {"7": {"dice": 0.25}}}
    classes, objects = scores.summary_tables(EVALUATION, otsu, "Otsu", {"7": "nucleus"})
    assert classes.columns == ("n", "Dice", "IoU")
    assert classes.rows[1] == ("7 · nucleus", False, (2, 0.9, 0.8))
    assert classes.rows[2] == ("Otsu, 7 · nucleus", True, (None, 0.25, None))
    assert objects.rows == (("this run", False, (0.75, 0.625)),)


def test_the_table_of_images_is_bounded_and_says_what_it_leaves_out():
    images = [{"name": f"i{k}", "classes": {"1": {"dice": k / 1000}}} for k in range(1000)]
    table = scores.image_table({"classes": {"1": {"dice": 0.5}}, "images": images})
    assert len(table.rows) == scores.MOST_ROWS
    assert table.rows[0][0] == "i0"
    assert table.note.startswith("800 better ones")


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """Tags with attributes, the visible text, and whether every tag that was opened was closed."""

    void = frozenset({"meta", "img", "rect", "line", "circle", "polyline"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture
def report(tmp_path):
    truth = np.zeros((40, 50), np.uint16)
    truth[5:15, 5:15], truth[20:30, 20:35] = 1, 2
    image = np.random.default_rng(0).normal(truth > 0, 0.2)
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,loss,lr,seconds,val_score,val_loss\n10,0.9,0.1,1,,\n20,0.5,0.1,2,0.4,0.6\n")
    return ReportInput(
        title="run seven",
        facts={"pairs": "12 pairs, by equal stem"},
        score_name="AP of objects at IoU 0.5",
        metrics_csv=metrics,
        validation=EVALUATION,
        cases=[Case("bad", image, truth, np.roll(truth, 3), objects=True)],
        plan={
            "model": {"name": "unet", "config": {"width": 24}},
            "seed": 3,
            "dropout": None,
            "patch": [128, 96],
        },
        labels=[LabelRow(0, 0, "background"), LabelRow(7, 1, "nucleus")],
        split=SplitFacts(["t1", "t2"], ["v1"], "the last fifth by name"),
        versions={"skipway": "0.1.0"},
        command="skipway train images masks -o run",
        baseline=Baseline("Otsu", {"classes": {"7": {"dice": 0.4}}, "objects": {"ap50": 0.125}}, 0.125),
        warnings=["few images"],
    )


def test_page_needs_no_network_no_script_and_no_second_file(report):
    text = render(report)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_page_shows_what_a_sceptic_asks_for(report):
    text = Page(render(report)).text
    for wanted in (
        "run seven",
        "3 validation images",
        "12 pairs, by equal stem",
        "skipway train images masks -o run",
        "few images",
        "one mask was empty",
        "per image, then mean",
        "wrong class: 0.0625",
        "the last fifth by name",
        "7 · nucleus",
        "Otsu 0.125",
        "0.750",
        "model.config.width",
        "128, 96",
        "2 pairs to train on, 1 to validate on",
        "merged, split or misshapen",
    ):
        assert wanted in text, wanted
    assert text.index("bad", text.index("Image by image")) < text.index("good", text.index("Image by image"))


def test_page_is_described_for_those_who_do_not_see_it(report):
    page = Page(render(report))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    assert all(image["alt"].startswith("bad, ") for image in images)
    assert "% right" in images[3]["alt"]
    charts = [a["aria-label"] for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert charts[0] == (
        "Loss over training steps: training goes from 0.9 to 0.5 at step 20, lowest 0.5, highest 0.9; "
        "validation goes from 0.6 to 0.6 at step 20, lowest 0.6, highest 0.6"
    )
    assert charts[1].endswith("Otsu 0.125")


def test_hostile_names_stay_text_wherever_they_appear(report):
    evaluation = {
        **EVALUATION,
        "images": [{**EVALUATION["images"][0], "name": HOSTILE}],
        "convention": HOSTILE,
    }
    page = Page(
        render(
            replace(
                report,
                title=HOSTILE,
                facts={HOSTILE: HOSTILE},
                score_name=HOSTILE,
                validation=evaluation,
                cases=[replace(report.cases[0], name=HOSTILE)],
                plan={HOSTILE: HOSTILE},
                labels=[LabelRow(7, 1, HOSTILE)],
                split=SplitFacts([HOSTILE], [HOSTILE], HOSTILE),
                versions={HOSTILE: HOSTILE},
                command=HOSTILE,
                baseline=replace(report.baseline, name=HOSTILE),
                warnings=[HOSTILE],
            )
        )
    )
    plain = Page(render(report))
    assert [tag for tag, _ in page.tags].count("img") == [tag for tag, _ in plain.tags].count("img")
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 18


def test_a_run_without_curves_cases_or_baseline_still_has_its_page(report, tmp_path):
    bare = replace(report, metrics_csv=tmp_path / "none.csv", cases=(), baseline=None, warnings=())
    text = Page(render(bare)).text
    assert "No step was recorded" in text
    assert "Look at these first" not in text
    assert "Otsu" not in text
    empty = {
        "n": 1,
        "convention": "none",
        "images": [],
        "classes": {"7": {"dice": None, "iou": float("nan")}},
    }
    assert "–" in Page(render(replace(bare, validation=empty))).text


def test_a_large_case_is_shown_at_full_resolution_where_it_is_wrong(report):
    truth = np.zeros((900, 700), np.uint8)
    truth[800:830, 600:630] = 1
    page = Page(render(replace(report, cases=[Case("large", truth, truth, np.zeros_like(truth))])))
    assert "448 × 448 pixels at x 182, y 382 of 700 × 900" in page.text
    image = next(a["src"] for tag, a in page.tags if tag == "img" and "truth" in a["alt"])
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))))
    assert shown.shape == (448, 448, 3)
    assert shown.any(axis=-1).sum() == 900


def test_write_report_leaves_the_page_and_nothing_else(report, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    path = write_report(folder / "report.html", report)
    assert path.read_text(encoding="utf-8") == render(report)
    assert [entry.name for entry in folder.iterdir()] == ["report.html"]
    with pytest.raises(EnvironmentFault, match="cannot write"):
        write_report(tmp_path / "nowhere" / "report.html", report)
