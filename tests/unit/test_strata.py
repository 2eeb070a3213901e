"""Dividing by lot: parts are a partition, repeatable, stable, and no class is lost that need not be."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skipway.data.strata import EVEN, Unit, divide, drawn, lot

SPLIT = (0.8, 0.2)


@st.composite
def unit_lists(draw, most=30):
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=most))
    seed = draw(st.integers(0, 3))
    classes = st.frozensets(st.sampled_from("abcd"))
    return [
        Unit(tuple(f"{i}_{k}" for k in range(n)), lot(seed, str(i)), draw(classes))
        for i, n in enumerate(sizes)
    ]


@given(unit_lists(), st.integers(2, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_folds_are_a_partition_whatever_the_order(units, count, random):
    """L09: every unit is in exactly one part, no part is empty, and the order of the list does not matter."""
    if len(units) < count:
        return
    parts = divide(units, [1 / count] * count)
    assert len(parts) == len(units)
    assert set(parts) == set(range(count))
    assert divide(units, [1 / count] * count) == parts
    order = list(range(len(units)))
    random.shuffle(order)
    shuffled = divide([units[i] for i in order], [1 / count] * count)
    assert [shuffled[order.index(i)] for i in range(len(units))] == list(parts)


@given(unit_lists(most=9))
@settings(max_examples=60, deadline=None)
def test_a_class_is_on_both_sides_where_any_choice_could_put_all_there(units):
    def lacking(parts):
        sides = [
            [unit.holds for unit, part in zip(units, parts, strict=True) if part == side] for side in (0, 1)
        ]
        if not all(sides):
            return 99
        train, val = (frozenset().union(*side) for side in sides)
        often = {c for c in "abcd" if sum(c in unit.holds for unit in units) > 1}
        once = {c for c in "abcd" if sum(c in unit.holds for unit in units) == 1}
        return len(often - train) + len(often - val) + len(once - train)

    best = min(map(lacking, product((0, 1), repeat=len(units))))
    found = lacking(divide(units, SPLIT, home=0))
    assert found == best


@given(unit_lists(), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_what_is_given_stays_when_files_are_added(units, more):
    added = [Unit((f"new{k}",), lot(9, str(k)), frozenset("a")) for k in range(more)]
    before = divide(units, SPLIT, home=0)
    after = divide([*added, *units], SPLIT, fixed={more + i: part for i, part in enumerate(before)}, home=0)
    assert after[more:] == before


@given(st.integers(0, 10**6), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_in_a_large_set_files_that_are_added_move_nothing_from_scratch(seed, more):
    """Lots do not depend on the other images, and with many images nothing has to change over."""
    units = [Unit((str(k),), lot(seed, str(k)), frozenset({k % 3})) for k in range(600 + more)]
    before = divide(units[:600], SPLIT, home=0)
    assert divide(units, SPLIT, home=0)[:600] == before
    assert before == tuple(drawn(unit, SPLIT) for unit in units[:600])
    assert 60 <= sum(before) <= 180


def test_of_a_small_set_few_move():
    """Where the lots alone would leave a side too small, those nearest to the border change over."""
    moved = total = 0
    for seed in range(200):
        units = [Unit((str(k),), lot(seed, str(k)), frozenset({k % 2})) for k in range(21)]
        before, after = (divide(units[:n], SPLIT, home=0) for n in (20, 21))
        moved += sum(old != new for old, new in zip(before, after[:20], strict=True))
        total += 20
    assert moved / total < 0.01


def test_sizes_are_close_to_their_shares_and_another_seed_is_another_choice():
    choices = set()
    for seed in range(20):
        units = [Unit((str(k),), lot(seed, str(k))) for k in range(20)]
        parts = divide(units, SPLIT, home=0)
        assert 2 <= sum(parts) <= 6
        folds = np.bincount(divide(units, [0.2] * 5, tolerance=EVEN))
        assert folds.min() >= 3
        assert folds.max() <= 5
        choices.add(parts)
    assert len(choices) > 15


def test_what_one_unit_alone_has_is_learnt():
    for seed in range(20):
        units = [
            Unit((str(k),), lot(seed, str(k)), frozenset({"rare"} if k == 7 else {"usual"})) for k in range(9)
        ]
        assert divide(units, SPLIT, home=0)[7] == 0
