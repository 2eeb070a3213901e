"""The nursery, the data, a run that nothing happened to, and the tally."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys
from harness import Nursery, Tally, words

TALLY = pytest.StashKey()


def pytest_configure(config):
    config.stash[TALLY] = Tally()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    mark = item.get_closest_marker("row")
    if mark and outcome.get_result().failed:
        item.config.stash[TALLY].failed.update(mark.args)


def pytest_terminal_summary(terminalreporter, config):
    tally = config.stash[TALLY]
    if not tally.rows:
        return
    terminalreporter.write_line(tally.line)
    if path := config.getoption("--faults-json"):
        tally.save(Path(path))
        terminalreporter.write_line(f"written: {path}")


@pytest.fixture
def tally(request):
    return request.config.stash[TALLY]


@pytest.fixture
def row(request, tally):
    """Notes what was done for a row, how often, and what came of it; only rows that the test is marked with."""
    named = request.node.get_closest_marker("row").args
    began = time.monotonic()

    def note(name, done, n, figure, fired=None):
        assert name in named
        tally.note(name, done, n, figure, n if fired is None else fired, time.monotonic() - began)

    return note


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return toys.draw(tmp_path_factory.mktemp("faults") / "data")


@pytest.fixture(scope="session")
def nursery(data, tmp_path_factory, request):
    folder = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, str(folder / "nursery.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = Nursery(child, request.config.stash[TALLY])
        root = tmp_path_factory.mktemp("first")
        life = found.live(words(data, root / "run"), ["modules", str(root / "modules")])
        assert life["code"] == 0, life["err"]
        found({"import": json.loads((root / "modules").read_text())})
        yield found
    finally:
        child.stdin.close()
        child.wait(30)
        child.stdout.close()


@pytest.fixture(scope="session")
def whole(nursery, data, tmp_path_factory):
    """The folder of a run that was never stopped, with its last state."""
    run = tmp_path_factory.mktemp("whole") / "run"
    (life,) = nursery([{"words": words(data, run), "plant": [["keep_states"]]}])
    assert life["code"] == 0, life["err"]
    return run
