"""`skipway models` and `skipway draw` as a user types them."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from toys import contents, skipway

from skipway import models
from skipway.cli import models as verb
from skipway.errors import EnvironmentFault, Problem


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_draw_writes_a_file_named_after_the_network_and_says_so(here):
    code, out, err = skipway("draw", "unet", "--set", "width=4")
    assert (code, out, err) == (0, "unet.svg\n", "")
    text = (here / "unet.svg").read_text(encoding="utf-8")
    assert ET.fromstring(text).find("{http://www.w3.org/2000/svg}title").text == "unet width=4"
    assert [path.name for path in here.iterdir()] == ["unet.svg"]


def test_a_dash_prints_the_drawing_and_writes_nothing(here):
    code, out, _ = skipway("draw", "unet_2015", "-o", "-")
    assert code == 0
    assert ET.fromstring(out) is not None
    assert out.count("crop 88") == 4  # in the description, in the titles of node and arrow, on the arrow
    assert list(here.iterdir()) == []


def test_a_file_that_exists_is_kept_unless_told_otherwise(here):
    (here / "mine.svg").write_text("drawn by hand")
    before = contents(here)
    code, _, err = skipway("draw", "unet", "-o", "mine.svg")
    assert code == 2
    assert "--overwrite" in err
    assert contents(here) == before
    assert skipway("draw", "unet", "-o", "mine.svg", "--overwrite")[0] == 0
    assert ET.parse(here / "mine.svg")


def test_settings_are_json_or_else_words(here):
    words = ["--set", "ndim=3", "--set", "up=nearest", "--set", "depth=3", "--set", "pools=[[1,2,2],[2,2,2]]"]
    code, out, _ = skipway("draw", "unet", *words, "--size", "8x16x24", "-o", "-")
    assert code == 0
    assert "÷1×2×2" in out
    assert "8×16×24" in out
    assert "Upsample" in out


def test_a_size_that_is_not_legal_becomes_the_next_one(here):
    _, out, _ = skipway("draw", "unet_2015", "--size", "573", "-o", "-")
    assert "588×588" in out
    assert "404×404" in out


def test_a_level_greys_what_pruning_drops(here):
    _, out, _ = skipway("draw", "unet_plus_plus", "--set", "supervised=true", "--level", 2, "-o", "-")
    assert "511,105 of 9,041,700 parameters" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["unet_plusplus"], "use unet_plus_plus"),
        (["unet", "--set", "wdith=3"], "use width"),
        (["unet", "--set", "width"], "KEY=VALUE"),
        (["unet", "--set", "width=4", "--set", "width=5"], "set twice"),
        (["unet", "--set", "width=wide"], "width=wide"),
        (["unet", "--set", "width=-4"], "width=-4"),
        (["unet", "--set", "norm=layer"], "channel_layer"),
        (["unet", "--set", "depth=1"], "depth of 2 or more"),
        (["unet", "--size", "0"], "--size"),
        (["unet", "--size", "wide"], "--size"),
        (["unet", "--size", "99999999999999999999"], "--size"),
        (["unet", "--size", "99999"], "too large: 67,108,864 pixels in all at most"),
        (["unet", "--set", "gate=maybe"], "gate cannot be 'maybe'; it is true or false"),
        (["unet", "--size", "8x8x8"], "2 spatial axes"),
        (["unet_plus_plus", "--level", "2"], "supervised=true"),
        (["unet", "--level", "2"], "its only one is L4. Fix: leave --level out"),
        (
            ["unet_plus_plus", "--set", "supervised=true", "--level", "9"],
            "it has L1, L2, L3, L4. Fix: one of",
        ),
        (["unet", "-o", "nowhere/unet.svg"], "no such folder"),
        (["unet", "-o", "unet.png"], "ends in .svg"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_drawn_is_refused_with_what_would_work(here, words, says):
    code, out, err = skipway("draw", *words)
    assert code == 2
    assert says in err
    assert out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", [["draw", "--help"], ["models", "--help"], ["--help"]])
def test_help_is_short_and_does_not_load_torch(words):
    program = """
import sys
from skipway.cli.app import app
try:
    app(sys.argv[1:])
finally:
    print("torch" in sys.modules)
"""
    child = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    *lines, loaded = child.stdout.splitlines()
    assert loaded == "False"
    assert 1 <= sum(line.lstrip().startswith("-") for line in lines) <= 12


def test_the_table_has_every_network_and_fits_a_terminal():
    code, out, _ = skipway("models")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(models.BUILDERS)]] == list(models.BUILDERS)
    assert max(map(len, lines)) <= 140
    row = next(line for line in lines if line.startswith("unet_2015 "))
    assert re.split(r"  +", row) == [
        *("unet_2015", "31,030,658", "150.4", "1×572×572", "2×388×388", "204", "96", "exact"),
        "Ronneberger, Fischer, Brox 2015",
    ]


def test_the_size_changes_what_depends_on_it():
    _, out, _ = skipway("models", "--size", "64", "--json")
    cards = {card["name"]: card for card in json.loads(out)}
    assert cards["unet"]["size"] == [64, 64]
    assert cards["unet"]["macs"] * 16 == models.describe("unet").macs
    assert cards["unet_2015"]["size"] == [188, 188]
    assert cards["unet_2015"]["halo"] == [96, 96]


def test_one_network_is_shown_node_by_node():
    code, out, _ = skipway("models", "unet_plus_plus")
    assert code == 0
    for text in (
        "9,041,601",
        "dropout",
        "Zhou et al. 2018, eq. 1; Zhou et al. 2020 (9,041,601",
        "16, 32, 48, …",
    ):
        assert text in out
    nodes = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.startswith("X[")}
    assert len(nodes) == 15
    assert nodes["X[0,4]"] == "63,584"
    _, out, _ = skipway("models", "unet_plus_plus", "--json")
    assert json.loads(out)["nodes"][0]["key"] == "x0_0"


def test_a_variant_is_counted_before_it_is_trained():
    code, out, _ = skipway("models", "unet", "--set", "block=residual", "--set", "depth=3")
    assert code == 0
    assert out.startswith("unet block=residual depth=3")
    assert len([line for line in out.splitlines() if line.startswith("X[")]) == 5
    assert "residual, residual_each, preactivation, recurrent or recurrent_residual" in " ".join(out.split())
    for words, says in (
        (["unet", "--set", "blck=plain"], "use block"),
        (["unet", "--set", "norm=layer"], "channel_layer"),
        (["--set", "depth=3"], "skipway models NAME --set"),
    ):
        code, out, err = skipway("models", *words)
        assert (code, out) == (2, "")
        assert says in err


def test_one_unknown_network_is_refused():
    code, _, err = skipway("models", "unet++")
    assert code == 2
    assert "U201" in err
    code, _, err = skipway("models", "unet", "--size", "8x8x8")
    assert code == 2
    assert "2 spatial axes" in err


def test_a_network_that_cannot_be_built_here_does_not_hide_the_others(monkeypatch):
    def broken(**_):
        """A network on a backbone.

        Source: Somebody et al. 2031, fig. 1.
        """
        raise EnvironmentFault(Problem("timm is not installed", fix="pip install skipway[backbones]"))

    def missing(**_):
        """Another one.

        Source: Nobody 2032.
        """
        raise ModuleNotFoundError("No module named 'timm'")

    builders = {"broken": broken, "missing": missing, "unet": models.unet}
    monkeypatch.setattr(verb, "BUILDERS", builders)
    monkeypatch.setattr("skipway.models.cards.BUILDERS", builders)
    monkeypatch.setattr("skipway.models.registry.BUILDERS", builders)
    code, out, _ = skipway("models")
    assert code == 0
    assert "31,036,546" in out
    assert "Somebody et al. 2031\n" in out
    assert "pip install skipway[backbones]" in out
    assert "No module named 'timm'" in out
    found = {card["name"]: card for card in json.loads(skipway("models", "--json")[1])}
    assert "timm" in found["broken"]["problem"]
    assert found["unet"]["parameters"] == 31_036_546
