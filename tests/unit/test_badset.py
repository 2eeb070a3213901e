"""Every fault of the corpus is met as the catalogue says, and every clean twin passes without a word."""

import os
from pathlib import Path

import pytest
import torch
from toys import draw, start

from skipway import api
from skipway.doctor import check
from skipway.errors import SkipwayError
from skipway.request import Request
from skipway.testing import ELSEWHERE, badset, digest

CASES = badset()
ROOT = os.name == "posix" and os.geteuid() == 0
READY = [case for case in CASES if not case.slow and (case.root_sees_it or not ROOT)]
SLOW = [case for case in CASES if case.slow]


@pytest.fixture(scope="module", autouse=True)
def tally():
    """Printed at the end; `-s` shows it."""
    counted = {"detected": 0, "faults": 0, "alarms": 0, "twins": 0}
    yield counted
    print("\ndetected {detected}/{faults}, false alarms {alarms}/{twins}".format(**counted))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network of one grey channel."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trained")
    start(draw(root / "data"), root / "run", steps=2)
    return root / "run"


def looked_at(case, root):
    """The findings of the check."""
    options = dict(case.options)
    if "val" in options:
        options["val"] = root / options["val"]
    return check(root / case.images, None if case.masks is None else root / case.masks, **options)


def lines(found):
    """(code, text) of what was refused, and of what was warned of."""
    return [(p.code, str(p)) for p in found.problems], [(s.code, s.text) for s in found.suspicions]


def meets(case, root, said):
    """Whether one line has the code, and one has every word."""
    texts = [text for code, text in said if code == case.code or not case.code]
    return bool(texts) and all(
        any(word.casefold() in text.casefold() for text in texts) for word in case.says
    )


def refused_by_training(case, root):
    """No folder is made by a training that is refused."""
    out = root.parent / f"{root.name}-run"
    with pytest.raises(SkipwayError) as caught:
        api.train_run(
            api.Order(
                root / case.images,
                None if case.masks is None else root / case.masks,
                out,
                Request(steps=1),
                task=case.options.get("task"),
                val=root / case.options["val"] if "val" in case.options else None,
                device="cpu",
            ),
            lambda _: None,
        )
    return caught.value.exit_code in (2, 3) and not out.exists()


def judged(case, root, run):
    """What is wrong with how this case is met; nothing where all is right."""
    case.make(root)
    before = digest(root)
    wrong = predicted(case, root, run) if case.via == "predict" else checked(case, root)
    if digest(root) != before:
        wrong.append("the input was changed")
    return wrong


def checked(case, root):
    found = looked_at(case, root)
    problems, warnings = lines(found)
    if case.verdict == "E":
        wrong = [] if meets(case, root, problems) else [f"not refused as it should: {problems} {warnings}"]
        wrong += [f"no remedy: {p}" for p in found.problems if not p.fix]
        return wrong + ([] if found.ok or refused_by_training(case, root) else ["training left a folder"])
    if problems:
        return [f"refused: {problems}"]
    if case.verdict == "W":
        return [] if meets(case, root, warnings) else [f"not warned: {warnings}"]
    wrong = [f"warned: {w}" for w in warnings if w[0] == case.code]
    return wrong + ([] if case.holds is None or case.holds(found) else [f"not right: {found.to_json()}"])


def predicted(case, root, run):
    from skipway.images import open_image, open_mask
    from skipway.predict.options import FileOptions

    options = dict(case.options)
    out = root / options.pop("output", "../" + root.name + "-out")
    try:
        summary = api.predict_files(
            api.load(run, "cpu"), root / case.images, out, FileOptions(**options), lambda _: None
        )
    except SkipwayError as error:
        summary, said = None, [("", str(error))]
    else:
        said = [("", str(error)) for error in summary.failed]
    written = list(out.rglob("*.tif")) if out.exists() else []
    if case.verdict == "E":
        return [] if meets(case, root, said) and not written else [f"not refused: {said} {written}"]
    if said:
        return [f"refused: {said}"]
    wrong = []
    for path in (root / case.images).iterdir():
        with open_image(path) as image, open_mask(next(out.glob(f"{path.stem}.*"))) as mask:
            wrong += [] if image.size == mask.size else [f"{path.name}: {mask.size} for {image.size}"]
    return wrong


def met(case, tmp_path, run, tally):
    tally["faults"] += 1
    assert judged(case, tmp_path / "bad", run) == []
    tally["detected"] += 1


@pytest.mark.parametrize("case", READY, ids=lambda case: case.name)
def test_a_fault_is_met_as_the_catalogue_says(case, tmp_path, request, tally):
    run = request.getfixturevalue("run") if case.via == "predict" else None
    met(case, tmp_path, run, tally)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.name)
def test_a_large_fault_is_met_as_the_catalogue_says(case, tmp_path, tally):
    met(case, tmp_path, None, tally)


TWINS = {(case.base, case.images, case.masks): case for case in CASES if case.via == "check"}


@pytest.mark.parametrize("case", TWINS.values(), ids=lambda case: case.base.__name__)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_clean_twin_passes_without_a_word(case, seed, tmp_path, tally):
    case = case.seeded(seed)
    case.twin(tmp_path)
    tally["twins"] += 1
    masks = None if not (tmp_path / "masks").exists() else tmp_path / "masks"
    found = check(tmp_path / case.images if (tmp_path / case.images).is_dir() else tmp_path, masks)
    tally["alarms"] += bool(found.problems or found.suspicions)
    assert lines(found) == ([], [])


def test_every_row_of_the_catalogue_has_a_case_or_a_reason():
    catalogue = os.environ.get("SKIPWAY_CATALOGUE")
    rows = {case.row for case in CASES}
    assert not rows & ELSEWHERE.keys()
    assert len({case.name for case in CASES}) == len(CASES)
    if catalogue:
        import re

        pattern = re.compile(r"^- ([A-GL]\d\d) \| ", re.M)
        assert set(pattern.findall(Path(catalogue).read_text())) == rows | ELSEWHERE.keys()


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    case = next(case for case in CASES if case.name == "B03")
    for folder, seed in (("one", 3), ("two", 3), ("three", 4)):
        case.seeded(seed).make(tmp_path / folder)
    one, two, three = (list(digest(tmp_path / name).values()) for name in ("one", "two", "three"))
    assert sorted(one) == sorted(two)
    assert not set(one) & set(three)
