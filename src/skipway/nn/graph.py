"""The executor: runs any topology over any encoder and knows no architecture by name."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from skipway.errors import ShapeError, TopologyError
from skipway.nn.bands import in_bands
from skipway.nn.encoders import Encoder
from skipway.nn.heads import AnyHead
from skipway.nn.nodes import MergeNode, Read, inside
from skipway.nn.paths import tile_exact
from skipway.nn.presence import gated
from skipway.shapes import IMAGE, Grid, Path, advance, align, crop_layer, measure
from skipway.topology import Node, Topology

MakeNode = Callable[[Node, Sequence[Read]], MergeNode]
"""From a decoder node and what it reads to its module."""
MakeHead = Callable[[Node, int, tuple[int, ...]], AnyHead]
"""From an output node, its width and its stride per axis to its head."""

Edge = tuple[str, Path]
ROUNDING = 1e-4
"""Of the largest logit: what the order of sums may change in float32."""


class SkipGraph(nn.Module):
    """A network of the U-Net family.

    An output that reaches beyond the image, as that of a padded FCN does, is cropped to it.

    Args:
        topology: What the decoder nodes read and which nodes carry a head.
        encoder: Maps of column 0.
        make_node: Builds the module of a decoder node.
        make_head: Builds the head of an output node.
        name: Name for messages.
        gate: An encoder node and the module that makes presence logits (B, 2) of its map; they come before
            the other outputs and empty them in the images that they call absent.

    Attributes:
        topology: As given, without the levels that the encoder has no map of and what the outputs do not need.
        geometry: Legal sizes, margin, halo, receptive field.
        classes: Channels of each output.
        in_channels: Channels of the image.
        ndim: Number of spatial axes.
        rounding: Of the largest logit, what the order of sums may change, as between tiles and the whole image.

    Raises:
        TopologyError: The topology needs more levels than the encoder has, an output would be left with nothing
            to read, or the gate's level is not there.
        ShapeError: The maps that a node reads cannot be brought to one size.
    """

    rounding = ROUNDING

    def __init__(
        self,
        topology: Topology,
        encoder: Encoder,
        make_node: MakeNode,
        make_head: MakeHead,
        *,
        name: str,
        gate: tuple[Node, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if topology.depth > len(encoder.widths):
            raise TopologyError(
                f"{name} needs {topology.depth} levels; the encoder has {len(encoder.widths)}"
            )
        self.name = name
        absent = [Node(level, 0) for level, width in enumerate(encoder.widths) if not width]
        self.topology = (table := topology.without(absent)).pruned(*table.outputs)
        self.encoder = encoder.truncated(self.topology.depth)
        self.in_channels = encoder.in_channels
        self.ndim = len(encoder.strides[0])
        self.nodes = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.gates = nn.ModuleDict({gate[0].key: gate[1]} if gate else {})
        self._gate = gate[0] if gate else None
        if gate and (gate[0].column or gate[0] not in self.topology.needed()):
            raise TopologyError(f"{name}: its gate reads {gate[0].key}, which no output needs of the encoder")
        self._crops: dict[str, tuple[Any, ...]] = {}
        self._maps = tuple(Node(level, 0) for level, width in enumerate(self.encoder.widths) if width)
        self._plan = _plan(self.topology, self._maps)
        edges = self._build(make_node, make_head)
        self._outputs = tuple(node.key for node in self.topology.outputs)
        self.geometry = measure(
            name,
            edges,
            {key: f"heads.{key}" for key in self._outputs},
            [Node(level, 0).key for level in range(len(self.encoder.widths))],
            self.ndim,
            tile_exact=tile_exact(self),
        )

    def _build(self, make_node: MakeNode, make_head: MakeHead) -> dict[str, tuple[Edge, ...]]:
        """Make nodes and heads in running order; give all edges for the geometry."""
        strides, widths = self.encoder.strides, self.encoder.widths
        grids: dict[str, tuple[Grid, ...]] = {IMAGE: (Grid(),) * self.ndim}
        edges: dict[str, tuple[Edge, ...]] = {}
        width: dict[str, int] = {}
        above = IMAGE
        for level, path in enumerate(self.encoder.paths):
            key = Node(level, 0).key
            edges[key] = ((above, path),)  # of a level without a map too: its size must be whole
            grids[key] = advance(grids[above], path)
            width[key] = widths[level]
            above = key if widths[level] else above
        for node, _ in self.topology.schedule():
            sources = self.topology.reads[node]
            crops = align(node.key, {s.key: grids[s.key] for s in sources}, strides[node.level])
            scales = [_scale(strides[s.level], strides[node.level]) for s in sources]
            reads = [
                Read(s.key, width[s.key], scale, crops[s.key])
                for s, scale in zip(sources, scales, strict=True)
            ]
            made = make_node(node, reads)
            self.nodes[node.key] = made
            edges[node.key] = tuple((read.key, path) for read, path in zip(reads, made.paths, strict=True))
            grids[node.key] = advance(grids[reads[0].key], made.paths[0])
            width[node.key] = made.width
        for node in self.topology.outputs:
            head = make_head(node, width[node.key], strides[node.level])
            self.heads[node.key] = cast("nn.Module", head)
            self.classes: int = head.classes
            path = head.path
            if any(beyond := _beyond(advance(grids[node.key], path))):
                self._crops[node.key] = inside(beyond)
                path = (*path, crop_layer(beyond))
            edges[f"heads.{node.key}"] = ((node.key, path),)
        return edges

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of every output of the topology, in its order, the last one to be trusted most.

        Args:
            x: Images (B, in_channels, *S) with S legal by `geometry`.

        Returns:
            One (B, classes, *S − 2 margin) per output; with a gate, presence logits (B, 2) before them.

        Raises:
            ShapeError: S is not legal, or the channels differ.
        """
        return self._run(x, lambda node, features: node(features))

    def frugal(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, ...]:
        """The same logits with less memory: decoder nodes run in bands of rows. For use without gradients.

        Args:
            x: As for a call.
            rows: Rows of a band, see `bands.in_bands`.
        """
        return self._run(x, partial(in_bands, rows=rows))

    def _run(self, x: Tensor, compute: Callable[[MergeNode, list[Tensor]], Tensor]) -> tuple[Tensor, ...]:
        self._check(x)
        live = self._encoded(x)  # hold no other reference to a map
        presence = [gate(live[key]) for key, gate in self.gates.items()]
        logits: dict[str, Tensor] = {}
        for key, sources, spent in self._plan:
            if sources:
                node = cast("MergeNode", self.nodes[key])
                live[key] = compute(node, [live.pop(s) if s in spent else live[s] for s in sources])
            if key in self.heads:
                logits[key] = self.heads[key](live[key])
                if key in self._crops:
                    logits[key] = logits[key][self._crops[key]]
            if key in spent:
                del live[key]
        found = tuple(logits[key] for key in self._outputs)
        return (*presence, *(gated(output, presence[0]) for output in found)) if presence else found

    def _encoded(self, x: Tensor) -> dict[str, Tensor]:
        return {node.key: found for node, found in zip(self._maps, self.encoder(x), strict=True)}

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.ndim + 2 or x.shape[1] != self.in_channels:
            wanted = f"(batch, {self.in_channels}, {'z, ' if self.ndim == 3 else ''}y, x)"
            raise ShapeError(f"{self.name} takes images of shape {wanted}, not {tuple(x.shape)}")
        self.geometry.check(x.shape[2:])

    def pruned(self, level: int) -> "SkipGraph":
        """The network that computes only the output in column `level` (L1, L2, … of UNet++).

        It shares its weights with this one, drops every node and encoder level that output does not need, and
        keeps the names of the rest. Its output equals this network's to the bit; a gate stays.

        Raises:
            TopologyError: No output stands in that column.
        """
        found = [node for node in self.topology.outputs if node.column == level]
        if not found:
            there = ", ".join(f"L{node.column}" for node in self.topology.outputs)
            only = "its only one is" if len(self.topology.outputs) == 1 else "it has"
            raise TopologyError(f"{self.name} has no output L{level}; {only} {there}")
        pruned = SkipGraph(
            self.topology.pruned(*found),
            self.encoder,
            lambda node, _: cast("MergeNode", self.nodes[node.key]),
            lambda node, *_: cast("AnyHead", self.heads[node.key]),
            name=self.name,
            gate=self._gate and (self._gate, self.gates[self._gate.key]),
        )
        pruned.rounding = self.rounding
        return pruned.train(self.training)


def _scale(source: Sequence[int], here: Sequence[int]) -> tuple[Fraction, ...]:
    return tuple(Fraction(a, b) for a, b in zip(source, here, strict=True))


def _beyond(grids: Sequence[Grid]) -> tuple[int, ...]:
    """Whole pixels per side and axis by which a map is larger than the image; a half is left for `measure`."""
    return tuple(max(0, int(-grid.loss / 2)) for grid in grids)


def _plan(
    topology: Topology, maps: Sequence[Node]
) -> tuple[tuple[str, tuple[str, ...], frozenset[str]], ...]:
    """(node, its reads, maps to let go) in running order, as ready strings: the loop formats nothing."""
    steps = topology.schedule()
    read = {source for sources in topology.reads.values() for source in sources}
    entries = [
        (node.key, (), frozenset() if node in read else frozenset({node.key}))
        for node in maps
        if node in topology.outputs or node not in read
    ]
    return (
        *entries,
        *(
            (n.key, tuple(s.key for s in topology.reads[n]), frozenset(s.key for s in spent))
            for n, spent in steps
        ),
    )
