"""The rows of the family, and what follows from a table by reachability."""

import pytest

from skipway import topology
from skipway.errors import TopologyError
from skipway.topology import Node, Topology


def keys(nodes):
    return [node.key for node in nodes]


@pytest.mark.parametrize(
    ("row", "nodes", "reads"),
    [
        (topology.unet, 4, 8),
        (topology.unet_e, 10, 20),
        (topology.unet_plus, 10, 20),
        (topology.unet_plus_plus, 10, 30),
        (topology.unet_3_plus, 4, 20),
    ],
)
def test_rows_have_the_published_number_of_nodes_and_reads(row, nodes, reads):
    table = row(5)
    assert (len(table.reads), sum(map(len, table.reads.values()))) == (nodes, reads)


@pytest.mark.parametrize(
    ("row", "node", "reads"),
    [
        (topology.unet, Node(1, 3), ["x1_0", "x2_2"]),
        (topology.unet_e, Node(1, 2), ["x1_0", "x2_1"]),
        (topology.unet_plus, Node(1, 2), ["x1_1", "x2_1"]),
        (topology.unet_plus_plus, Node(0, 3), ["x0_0", "x0_1", "x0_2", "x1_2"]),
        (topology.unet_3_plus, Node(2, 2), ["x0_0", "x1_0", "x2_0", "x3_1", "x4_0"]),
    ],
)
def test_nodes_read_in_the_order_of_the_papers(row, node, reads):
    assert keys(row(5).reads[node]) == reads


def test_outputs_end_with_the_one_to_trust_most():
    assert keys(topology.unet(5).outputs) == ["x0_4"]
    assert keys(topology.unet_plus_plus(5).outputs) == ["x0_1", "x0_2", "x0_3", "x0_4"]
    assert keys(topology.unet_3_plus(5).outputs) == ["x4_0", "x3_1", "x2_2", "x1_3", "x0_4"]


def test_pruning_keeps_the_pyramid_below_the_output_and_cuts_the_encoder():
    pruned = topology.unet_plus_plus(5).pruned(Node(0, 2))
    assert sorted(keys(pruned.needed())) == ["x0_0", "x0_1", "x0_2", "x1_0", "x1_1", "x2_0"]
    assert pruned.depth == 3


def test_ensemble_of_depths_pruned_to_its_deepest_head_is_the_unet():
    assert topology.unet_e(5).pruned(Node(0, 4)).reads == topology.unet(5).reads


def test_schedule_goes_from_coarse_to_fine_and_says_what_is_spent():
    steps = [(node.key, sorted(keys(spent))) for node, spent in topology.unet_plus_plus(3).schedule()]
    assert steps == [
        ("x1_1", ["x2_0"]),
        ("x0_1", ["x1_0"]),
        ("x0_2", ["x0_0", "x0_1", "x0_2", "x1_1"]),
    ]


@pytest.mark.parametrize(
    ("reads", "outputs", "message"),
    [
        (
            {Node(0, 2): (Node(1, 3),)},
            (Node(0, 2),),
            "x0_2 reads x1_3; a node reads only columns left of its own",
        ),
        ({Node(0, 1): (Node(0, 1),)}, (Node(0, 1),), "x0_1 reads x0_1; a node reads only columns left"),
        ({Node(0, 2): (Node(1, 1),)}, (Node(0, 2),), "x0_2 reads x1_1, which this topology does not define"),
        ({Node(0, 1): (Node(0, 0),)}, (Node(0, 2),), "the output x0_2 is asked for, which this topology"),
        ({Node(0, 1): ()}, (Node(0, 1),), "x0_1 cannot be a decoder node"),
        ({Node(0, 1): (Node(0, 0),)}, (), "at least one output"),
    ],
)
def test_a_table_that_cannot_run_is_refused_by_name(reads, outputs, message):
    with pytest.raises(TopologyError, match=message):
        Topology(reads, outputs)


def test_a_depth_without_skips_is_refused():
    with pytest.raises(TopologyError, match="use a depth of 2 or more"):
        topology.unet(1)
