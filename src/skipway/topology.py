"""Skip topologies as data: which nodes of the grid X[level, column] exist, and what each of them reads.

Every member of the U-Net family is one row at the end of this file. Pruning, deep supervision, dead parts and
the order of running follow from the table by reachability alone, so this module needs nothing but the
standard library.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from skipway.errors import TopologyError


class Node(NamedTuple):
    """X[level, column] of the UNet++ paper: level 0 is the finest grid, column 0 is the encoder.

    >>> Node(0, 3).key
    'x0_3'
    """

    level: int
    column: int

    @property
    def key(self) -> str:
        """Name of the node in the state dict, in messages and in drawings."""
        return f"x{self.level}_{self.column}"


@dataclass(frozen=True)
class Topology:
    """Which decoder nodes exist, what each reads, and which nodes carry a head.

    Attributes:
        reads: Decoder node -> the nodes it takes in. The order is the order of concatenation, so it fixes the
            layout of the weights.
        outputs: Nodes with a head, the one to trust most last. Deep supervision is "more outputs"; encoder
            nodes may be named too.

    Raises:
        TopologyError: A node reads to its right (or itself), or reads or outputs a node that does not exist.

    >>> unet(3).reads[Node(0, 2)]
    (Node(level=0, column=0), Node(level=1, column=1))
    """

    reads: Mapping[Node, tuple[Node, ...]]
    outputs: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.outputs:
            raise TopologyError("a topology needs at least one output")
        for node, sources in self.reads.items():
            if not node.column or not sources:
                raise TopologyError(
                    f"{node.key} cannot be a decoder node: it needs a column above 0 and a read"
                )
            for source in sources:
                if source.column >= node.column:  # left to right only, so no cycle can be written
                    raise TopologyError(
                        f"{node.key} reads {source.key}; a node reads only columns left of its own"
                    )
                self._must_exist(source, f"{node.key} reads {source.key}")
        for node in self.outputs:
            self._must_exist(node, f"the output {node.key} is asked for")

    def _must_exist(self, node: Node, what: str) -> None:
        if node.level < 0 or (node.column and node not in self.reads):
            raise TopologyError(f"{what}, which this topology does not define")

    @property
    def depth(self) -> int:
        """Number of encoder levels in use: one more than the deepest level that reaches an output."""
        return 1 + max(node.level for node in self.needed())

    def needed(self) -> frozenset[Node]:
        """Nodes from which an output can be reached; everything else is dead."""
        found: set[Node] = set()
        waiting = list(self.outputs)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self.reads.get(node, ())
        return frozenset(found)

    def pruned(self, *outputs: Node) -> "Topology":
        """This topology with only `outputs` as outputs, and without what they do not need.

        >>> sorted(node.key for node in unet_plus_plus(5).pruned(Node(0, 2)).reads)
        ['x0_1', 'x0_2', 'x1_1']
        """
        kept = replace(self, outputs=outputs).needed()
        return Topology({node: sources for node, sources in self.reads.items() if node in kept}, outputs)

    def without(self, missing: Collection[Node]) -> "Topology":
        """This topology where the `missing` nodes do not exist, such as levels that an encoder has no map of.

        Nobody reads them; a node with nothing left to read is missing as well.

        Raises:
            TopologyError: An output would have nothing to read.

        >>> unet(3).without([Node(0, 0)]).reads[Node(0, 2)]
        (Node(level=1, column=1),)
        """
        gone, reads = set(missing), {}
        for node in sorted(self.reads, key=lambda node: node.column):  # reads go left
            if node not in gone and (kept := tuple(s for s in self.reads[node] if s not in gone)):
                reads[node] = kept
            else:
                gone.add(node)
        if lost := [node.key for node in self.outputs if node in gone]:
            lacks = ", ".join(node.key for node in sorted(missing))
            raise TopologyError(f"the output {lost[0]} has nothing to read without {lacks}")
        return Topology({node: reads[node] for node in self.reads if node in reads}, self.outputs)

    def schedule(self) -> tuple[tuple[Node, frozenset[Node]], ...]:
        """Running order of the decoder: (node, features that nobody reads after it).

        Among the nodes whose reads are ready the coarsest goes first, then the leftmost. A node that carries
        a head and is read by nobody is in its own set: it can go as soon as its head has run.
        """
        waiting = self.needed() & self.reads.keys()
        order: list[Node] = []
        while waiting:
            ready = [node for node in waiting if not waiting.intersection(self.reads[node])]
            order.append(min(ready, key=lambda node: (-node.level, node.column)))
            waiting -= {order[-1]}
        last = {node: node for node in order}
        last.update({source: node for node in order for source in self.reads[node]})
        return tuple((node, frozenset(s for s, at in last.items() if at == node)) for node in order)


def diagonal(depth: int) -> tuple[Node, ...]:
    """The decoder of the U-Net, finest node first: one node a level, a column further right each level up."""
    _at_least_two(depth)
    return tuple(Node(level, depth - 1 - level) for level in range(depth - 1))


def triangle(depth: int) -> tuple[Node, ...]:
    """Every decoder node with level + column < depth: the decoders of U-Nets of all depths, overlaid."""
    _at_least_two(depth)
    return tuple(Node(level, column) for column in range(1, depth) for level in range(depth - column))


def finest(depth: int) -> tuple[Node, ...]:
    """The decoder nodes on the finest grid, shallowest first: the heads L1, L2, … of UNet++."""
    return tuple(Node(0, column) for column in range(1, depth))


def _at_least_two(depth: int) -> None:
    if depth < 2:
        raise TopologyError(f"a U-Net of {depth} level has nothing to skip; use a depth of 2 or more")


def _encoder(node: Node) -> Node:
    return Node(node.level, 0)


def _below(node: Node) -> Node:
    return Node(node.level + 1, node.column - 1)


def _left(node: Node) -> Node:
    return Node(node.level, node.column - 1)


def _row(node: Node) -> tuple[Node, ...]:
    return tuple(Node(node.level, column) for column in range(node.column))


def _full_scale(node: Node, depth: int) -> tuple[Node, ...]:
    return tuple(Node(k, 0 if k <= node.level else depth - 1 - k) for k in range(depth))


def unet(depth: int) -> Topology:
    """X[i,j] reads X[i,0] and up X[i+1,j-1], on the diagonal. Source: Ronneberger et al. 2015, fig. 1."""
    return Topology({n: (_encoder(n), _below(n)) for n in diagonal(depth)}, finest(depth)[-1:])


def unet_e(depth: int) -> Topology:
    """U-Net^e, U-Nets of all depths on one encoder: the U-Net's reads on the triangle. Zhou et al. 2020."""
    return Topology({n: (_encoder(n), _below(n)) for n in triangle(depth)}, finest(depth))


def unet_plus(depth: int) -> Topology:
    """UNet+, short skips only: X[i,j] reads X[i,j-1] and up X[i+1,j-1]. Source: Zhou et al. 2020."""
    return Topology({n: (_left(n), _below(n)) for n in triangle(depth)}, finest(depth))


def unet_plus_plus(depth: int) -> Topology:
    """UNet++: X[i,j] reads the whole row X[i,0..j-1] and up X[i+1,j-1]. Source: Zhou et al. 2018, eq. 1."""
    return Topology({n: (*_row(n), _below(n)) for n in triangle(depth)}, finest(depth))


def fcn(depth: int, stop: int) -> Topology:
    """FCN: the U-Net's diagonal ended at level `stop`; at the deepest level no node is left and nothing is read.

    Source: Long et al. 2015, fig. 3: five poolings are five levels, which FCN-32s, 16s and 8s end at 4, 3, 2.

    >>> [node.key for node in fcn(5, stop=3).reads], fcn(5, stop=4).outputs
    (['x3_1'], (Node(level=4, column=0),))
    """
    if not 0 <= stop < depth:
        raise TopologyError(f"an FCN of {depth} levels stops at level 0 to {depth - 1}, not at {stop}")
    nodes = [Node(level, depth - 1 - level) for level in range(stop, depth - 1)]
    return Topology({n: (_encoder(n), _below(n)) for n in nodes}, (Node(stop, depth - 1 - stop),))


def unet_3_plus(depth: int) -> Topology:
    """UNet 3+: each decoder node reads every scale once, finest first. Source: Huang et al. 2020, eq. 1.

    Down to its own level it reads the encoder, below that the decoder and at last the bottom of the encoder.
    The outputs go from the bottom up.
    """
    nodes = diagonal(depth)
    return Topology({n: _full_scale(n, depth) for n in nodes}, (Node(depth - 1, 0), *reversed(nodes)))
