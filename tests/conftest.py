"""Shared by all tests: real data where given, small data made on the spot, and how a refusal looks."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from skipway.errors import DataError
from skipway.machine import cores

settings.register_profile("skipway", deadline=None)  # how long one example takes depends on who else computes
settings.load_profile("skipway")


def pytest_addoption(parser):
    parser.addoption("--faults-json", help="Where `-m faults` writes what it found.")


def pytest_xdist_auto_num_workers(config):
    """`-n auto`: one process a core that is granted here, and no more than memory is sure to hold."""
    return min(cores(), 8)


def pytest_configure(config):
    """Processes that test side by side share the cores."""
    processes = config.workerinput["workercount"] if hasattr(config, "workerinput") else 1
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // processes)))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data sets, given by SKIPWAY_DATA."""
    root = os.environ.get("SKIPWAY_DATA")
    if not root:
        pytest.skip("set SKIPWAY_DATA to the folder of real data sets to run this")
    return Path(root)


@pytest.fixture
def save() -> Callable[[Path, np.ndarray], Path]:
    """Writes an array as PNG or TIFF by suffix, without skipway."""

    def write(path: Path, array: np.ndarray, **options) -> Path:
        import tifffile
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".tif", ".tiff"):
            tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
        else:
            Image.fromarray(array).save(path, **options)
        return path

    return write


@pytest.fixture
def make_pairs(save) -> Callable[..., Path]:
    """Twin folders of grey 8-bit images and {0, 255} masks of squares: `make_pairs(root, n)`."""

    def make(root: Path, n: int = 4, size: tuple[int, int] = (12, 20)) -> Path:
        rng = np.random.default_rng(n)
        for k in range(n):
            mask = np.zeros(size, np.uint8)
            mask[k % 4 : k % 4 + 5, k // 4 : k // 4 + 7] = 255
            save(root / "images" / f"a{k}.png", rng.integers(0, 255, size, np.uint8))
            save(root / "masks" / f"a{k}.png", mask)
        return root

    return make


def _digest(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob("*") if p.is_file() and os.access(p, os.R_OK))
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def refused(tmp_path) -> Callable[..., object]:
    """Context: a `DataError` (exit 3) whose text holds all of these, with no file under tmp_path changed."""

    @contextmanager
    def check(*texts: str, code: str | None = None) -> Iterator[None]:
        before = _digest(tmp_path)
        with pytest.raises(DataError) as caught:
            yield
        assert _digest(tmp_path) == before
        assert caught.value.exit_code == 3
        message = str(caught.value)
        for text in texts:
            assert text in message, message
        for problem in caught.value.problems:
            assert problem.found, problem
            assert problem.expected, problem
            assert problem.fix, problem
            assert "\n" not in str(problem)
        if code is not None:
            assert code in {problem.code for problem in caught.value.problems}

    return check
