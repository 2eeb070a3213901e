"""Pages and drawings that are written from the code are those that the code writes today."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def maker():
    spec = importlib.util.spec_from_file_location("make_docs", DOCS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    return maker().pages()


def test_what_comes_from_the_code_is_up_to_date(pages):
    stale = [str(path) for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `uv run python docs/make.py`"


def test_no_drawing_is_left_over_or_unused(pages):
    drawings = set((DOCS / "concepts").glob("*.svg"))
    assert drawings == {path for path in pages if path.suffix == ".svg"}
    text = (DOCS / "concepts" / "the-grid.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.svg)\)", text)) == {path.name for path in drawings}


def test_the_reference_has_every_model_and_every_option(pages):
    from skipway import models

    page = pages[DOCS / "reference" / "models.md"]
    for name in models.BUILDERS:
        assert f"\n## {name}\n" in page
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for key, default in models.arguments(name).items():
            assert f"- `{key}`: " in (
                section if default is not None or "`**options`" not in section else page
            )
        assert "Source: " in section


def test_examples_of_the_concepts_run():
    found = doctest.testfile(str(DOCS / "concepts" / "the-grid.md"), module_relative=False, encoding="utf-8")
    assert found.attempted >= 7
    assert found.failed == 0


def test_links_of_the_pages_lead_somewhere():
    for path in (DOCS / "concepts" / "the-grid.md", DOCS / "reference" / "models.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), link
