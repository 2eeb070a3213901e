"""What must hold for every table that can be written, not only for the published rows."""

from hypothesis import given
from hypothesis import strategies as st

from skipway import topology
from skipway.topology import Node, Topology


@st.composite
def tables(draw):
    """Random tables: decoder nodes anywhere on a 4 x 5 grid, reading anything left of them."""
    columns = range(1, 5)
    nodes = [Node(level, column) for column in columns for level in range(4) if draw(st.booleans())]
    reads, there = {}, [Node(level, 0) for level in range(4)]
    for node in nodes:
        left = [source for source in there if source.column < node.column]
        chosen = draw(st.lists(st.sampled_from(left), min_size=1, unique=True))
        reads[node] = tuple(chosen)
        there.append(node)
    outputs = draw(st.lists(st.sampled_from(there), min_size=1, max_size=4, unique=True))
    return Topology(reads, tuple(outputs))


@given(tables())
def test_every_read_happens_before_the_map_is_let_go(table):
    live = {node for node in table.needed() if not node.column}
    for node, spent in table.schedule():
        assert live.issuperset(table.reads[node])
        live.add(node)
        assert spent <= live
        live -= spent
    assert not any(node.column for node in live - set(table.outputs))


@given(tables())
def test_schedule_runs_exactly_what_is_needed(table):
    assert {node for node, _ in table.schedule()} == {node for node in table.needed() if node.column}


@given(tables(), st.data())
def test_pruning_is_idempotent_and_a_subset(table, data):
    chosen = tuple(data.draw(st.lists(st.sampled_from(table.outputs), min_size=1, unique=True)))
    pruned = table.pruned(*chosen)
    assert pruned.needed() <= table.needed()
    assert pruned.reads.items() <= table.reads.items()
    assert pruned.pruned(*chosen) == pruned


@given(st.integers(2, 8), st.integers(1, 7))
def test_level_d_of_unet_plus_plus_is_unet_plus_plus_of_depth_d_plus_one(depth, level):
    level = min(level, depth - 1)
    assert topology.unet_plus_plus(depth).pruned(Node(0, level)) == topology.unet_plus_plus(level + 1).pruned(
        Node(0, level)
    )
