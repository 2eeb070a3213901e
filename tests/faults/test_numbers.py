"""Numbers that are none, memory that is not there."""

import json

import pytest
from harness import step_of, strays, unreadable, whole_files, words

from skipway.runs import read_tensors

pytestmark = pytest.mark.faults
quick = pytest.mark.quick

LONG = 24


@pytest.fixture(scope="module")
def ends(nursery, data, tmp_path_factory):
    """Results by fault of runs in which one step was poisoned."""
    root, found = tmp_path_factory.mktemp("poisoned"), {}

    def run(what, first, last):
        key = f"{what} {first} {last}"
        if key not in found:
            life = nursery.live(words(data, root / key / "run", steps=LONG), ["poisoned", what, first, last])
            found[key] = (root / key / "run", life)
        return found[key]

    return run


def finite_files(run):
    for name in ("model.safetensors", "state.safetensors"):
        if (run / name).is_file():
            for value in read_tensors(run / name)[0].values():
                assert value.dtype.kind != "f" or abs(value).max(initial=0) < 1e9


@pytest.mark.row("X21", "X22")
@pytest.mark.parametrize("what", ["image", "loss", "gradient", "huge", "weight"])
def test_one_step_that_is_not_finite(ends, row, what):
    run, life = ends(what, 8, 8)
    assert life["code"] == 0, life["err"]
    (rewound,) = [e for e in life["events"] if e["event"] == "rewound"]
    assert (rewound["from"], rewound["to"], rewound["batch"]) == (7, 6, 7)
    assert rewound["images"].startswith("c")
    assert rewound["what"].startswith("weights" if what == "weight" else "a loss or gradient")
    finite_files(run)
    other, _ = ends("weight" if what != "weight" else "loss", 8, 8)
    assert read_tensors(run / "model.safetensors")[1]["step"] == LONG
    from harness import bytes_of

    assert bytes_of(run / "model.safetensors") == bytes_of(other / "model.safetensors")
    row("X22" if what == "weight" else "X21", f"{what} of step 8 not finite" if what != "huge" else "loss × 1e30", 1,
        "rewound, images named, batch left out; same weights whichever fault it was")  # fmt: skip


@quick
@pytest.mark.row("X21", "X22")
@pytest.mark.parametrize("what", ["image", "weight"])
def test_when_it_persists(ends, row, what):
    run, life = ends(what, 8, 1000)
    assert life["code"] == 5
    assert "2 batches of 24 could not be learned from" in life["err"]
    assert "Fix: a lower --lr, or look at those images" in life["err"]
    assert step_of(run) == 6
    finite_files(run)
    assert unreadable(run)[0] == []
    row(
        "X22" if what == "weight" else "X21",
        f"{what} not finite from step 8 on",
        2,
        "exit 5 at more than 5 %; what is saved is finite",
    )


@pytest.mark.row("X19")
def test_no_memory(nursery, data, whole, tmp_path, tally, row):
    once, often = tmp_path / "once", tmp_path / "often"
    life = nursery.live(words(data, once), ["no_memory", 8, 8])
    assert life["code"] == 0, life["err"]
    plan = json.loads((once / "plan.json").read_text())
    assert (plan["micro"], plan["batch"]) == (1, 2)
    assert "memory ran out with 2 in step 8" in plan["reasons"]["micro"]
    life = nursery.live(words(data, often), ["no_memory", 8, 1000])
    assert life["code"] == 4
    assert "memory ran out in step" in life["err"]
    whole_files(tally, often)
    assert nursery.live(words(data, often))["code"] == 0
    assert strays(once) == strays(often) == []
    row("X19", "an allocation fails in a step (the kernel's kill is X01; the estimate is the planner's)", 2,
        "once: half as many patches at once, the batch stays; again: exit 4, the last save stands")  # fmt: skip
