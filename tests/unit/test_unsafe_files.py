"""One file that would be unsafe to trust: named with exit 6, and the others are looked at or predicted all the same."""

import json
import sys

import numpy as np
import pytest
from toys import WORDS, draw, skipway

import skipway as package
from skipway.data.scan import Scan, answer, scan
from skipway.errors import DataError, EnvironmentFault, Problem, SecurityError, refusal
from skipway.images import open_image

PICKLED = np.array([{"a": 1}], dtype=object)


@pytest.fixture
def folder(tmp_path, save):
    """Five pairs: NumPy images with PNG masks."""
    rng = np.random.default_rng(0)
    for k in range(5):
        mask = np.zeros((24, 28), np.uint8)
        mask[3 + k : 12, 5:17] = 255
        save(tmp_path / "d" / "masks" / f"c{k}.png", mask)
        (tmp_path / "d" / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "d" / "images" / f"c{k}.npy", rng.integers(0, 255, mask.shape, np.uint8))
    return tmp_path / "d"


@pytest.mark.parametrize("isolate", [False, True])
def test_check_lists_it_among_the_others_and_ends_with_6(folder, isolate):
    clean = package.check(folder, isolate=isolate)
    assert clean.ok
    whole = (folder / "images" / "c3.npy").read_bytes()
    (folder / "images" / "c3.npy").write_bytes(whole[:-100])
    assert package.check(folder, isolate=isolate).error.exit_code == 3
    np.save(folder / "images" / "c1.npy", PICKLED, allow_pickle=True)
    found = package.check(folder, isolate=isolate)
    assert found.error.exit_code == 6
    assert [(p.where[-6:], p.unsafe) for p in found.problems] == [("c1.npy", True), ("c3.npy", False)]
    assert [record.name for record in found.records] == ["c0", "c2", "c4"]


def test_the_command_ends_with_6_and_prints_the_page(folder):
    np.save(folder / "images" / "c1.npy", PICKLED, allow_pickle=True)
    code, out, _ = skipway("check", folder, "--json")
    assert code == 6
    assert [(r["code"], r["unsafe"]) for r in json.loads(out)["refusals"]] == [("I03", True)]
    code, _, err = skipway("train", folder, "-o", folder.parent / "run", *WORDS)
    assert code == 6
    assert "c1.npy" in err
    assert not (folder.parent / "run" / "model.safetensors").exists()


def test_predict_leaves_it_out_and_ends_with_6(tmp_path):
    data = draw(tmp_path / "data")
    run = tmp_path / "run"
    assert skipway("train", data, "-o", run, *WORDS)[0] == 0
    new = tmp_path / "new"
    new.mkdir()
    with open_image(data / "images" / "c0.tif") as image:
        np.save(new / "a.npy", image.read()[0])
    (new / "b.npy").write_bytes((new / "a.npy").read_bytes()[:300])
    code, out, _ = skipway("predict", run, new, "-o", tmp_path / "three")
    assert code == 3
    np.save(new / "c.npy", PICKLED, allow_pickle=True)
    code, out, err = skipway("predict", run, new, "-o", tmp_path / "out")
    assert code == 6
    assert "1 of 3 images predicted" in out
    assert all(name in err for name in ("b.npy", "c.npy"))
    files = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert files == {"a.npy", "labels.json", "review.csv"}


def test_the_gravest_problem_says_the_exit_code():
    plain, unsafe = Problem("x"), SecurityError("y").problems[0]
    assert type(refusal(plain)) is DataError
    both = refusal(plain, unsafe)
    assert type(both) is SecurityError
    assert [problem.unsafe for problem in both.problems] == [False, True]
    assert str(both) == "x\ny"


def test_a_package_that_is_missing_in_a_child_is_said_and_no_fault_of_a_file(folder):
    def look(job, ignore):
        raise EnvironmentFault(Problem("nibabel is missing", fix="pip install it"))

    line = answer(json.dumps({"ignore": None, "pairs": []}), look)
    child = (sys.executable, "-uc", f"print('ready')\nwhile input(): print({line!r})")
    jobs = [[pair] for pair in package.data.layouts.find_pairs(folder).pairs]
    with pytest.raises(EnvironmentFault, match="nibabel is missing"):
        scan(jobs, look, Scan(isolate=True, worker=child), None)
