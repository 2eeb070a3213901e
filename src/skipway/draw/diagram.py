"""What there is to draw, before anything has a place: nodes, outputs, and the wires between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from torch import nn

from skipway.draw.parts import Way
from skipway.draw.words import node_of, once, show, times
from skipway.models.cards import HeadCard, NodeCard, head_cards, node_cards
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.nodes import MergeNode
from skipway.shapes import IMAGE, Grid, advance
from skipway.topology import Node


@dataclass(frozen=True)
class Wire:
    """An arrow before it has a place; see `parts.Arrow`."""

    source: str
    target: str
    way: Way
    label: str
    kept: bool
    title: str


@dataclass(frozen=True)
class Diagram:
    """What is drawn of a network.

    Attributes:
        size: Of the input.
        in_channels: Of the image.
        nodes: Key -> what it is, encoder first, then in running order.
        heads: Key of the box (`heads.x0_4`) -> output.
        rises: Key of the box -> by how much the head up-samples, per axis.
        wires: Arrows to be.
        kept: Keys of all boxes that pruning leaves.
    """

    size: tuple[int, ...]
    in_channels: int
    nodes: Mapping[str, NodeCard]
    heads: Mapping[str, HeadCard]
    rises: Mapping[str, tuple[int, ...]]
    wires: tuple[Wire, ...]
    kept: frozenset[str]

    @cached_property
    def place(self) -> Mapping[str, Node]:
        """Key of a node -> its level and column."""
        return {key: node_of(key) for key in self.nodes}

    def between(self, wire: Wire) -> bool:
        """Whether nodes of the same row stand between the ends of a wire."""
        a, b = self.place[wire.source], self.place[wire.target]
        return any(n.level == b.level and a.column < n.column < b.column for n in self.place.values())

    def above(self, key: str) -> bool:
        """Whether an output stands above its node: in rows where not each output is the last of its row."""
        row = [self.place[head.key] for head in self.heads.values()]
        level = self.place[self.heads[key].key].level
        last = max(node.column for node in self.place.values() if node.level == level)
        return any(node.level == level and node.column != last for node in row)

    def words(self, key: str) -> list[str]:
        """The lines in a box, the first one bold."""
        if key == IMAGE:
            channels = f"{self.in_channels} channel{'s' * (self.in_channels != 1)}"
            return ["image", channels, times(self.size)]
        if head := self.heads.get(key):
            classes = f"{head.classes} class{'es' * (head.classes != 1)}"
            up = [f"up ×{once(self.rises[key])}"] if set(self.rises[key]) != {1} else []
            return ["output", classes, times(head.size), *up]
        card = self.nodes[key]
        return [show(key), f"{card.width} ch", times(card.size)]

    def title(self, key: str) -> str:
        """A box in words."""
        if key == IMAGE:
            return f"Image: {self.words(key)[1]}, {times(self.size)}"
        if head := self.heads.get(key):
            return f"Output of {show(head.key)}: {self.words(key)[1]}, {times(head.size)}"
        card = self.nodes[key]
        reads = ", ".join(
            show(source) + (f" (crop {once(crop)})" if any(crop) else "")
            for source, crop in zip(card.reads, card.crops, strict=True)
        )
        counts = f"{card.width} channels, {times(card.size)}, {card.parameters:,} parameters"
        return f"{show(key)}: {counts}, reads {reads}"


def diagram(model: SkipGraph, size: tuple[int, ...], small: SkipGraph) -> Diagram:
    """What is drawn of a network at a legal input size, of which `small` is the part that is kept."""
    nodes = {card.key: card for card in node_cards(model, size)}
    heads = {f"heads.{card.key}": card for card in head_cards(model, size)}
    levels = (Node(level, 0).key for level in range(len(small.encoder.widths)))
    kept = frozenset([IMAGE, *levels, *small.nodes, *(f"heads.{key}" for key in small.heads)])
    reads = [
        _wire(model, nodes, card, source, crop, card.key in kept)
        for card in nodes.values()
        for source, crop in zip(card.reads, card.crops, strict=True)
    ]
    outputs = [
        Wire(head.key, key, "head", "", key in kept, f"Output of {show(head.key)}")
        for key, head in heads.items()
    ]
    return Diagram(
        size=size,
        in_channels=model.in_channels,
        nodes=nodes,
        heads=heads,
        rises={key: _rise(model, head.key) for key, head in heads.items()},
        wires=(*reads, *outputs),
        kept=kept,
    )


def _wire(
    model: SkipGraph,
    nodes: Mapping[str, NodeCard],
    card: NodeCard,
    source: str,
    crop: tuple[int, ...],
    kept: bool,
) -> Wire:
    """One read of a node, or one step of the encoder."""
    here = node_of(card.key)
    if here.column == 0:
        way: Way = "input" if source == IMAGE else "encoder"
        usual, before = (1, (1,) * len(crop)) if source == IMAGE else (2, nodes[source].stride)
        factor = [a // b for a, b in zip(card.stride, before, strict=True)]
        label = "" if set(factor) == {usual} else f"÷{once(factor)}"
        return Wire(source, card.key, way, label, kept, f"{show(card.key)} follows {show(source)}")
    label = f"crop {once(crop)}" if any(crop) else ""
    through = _through(model.nodes[card.key], source)
    text = ", ".join([f"{show(card.key)} reads {show(source)}", *filter(None, (label, through))])
    return Wire(source, card.key, _way(node_of(source), here), label, kept, text)


def _way(source: Node, here: Node) -> Way:
    if source.level == here.level:
        return "skip"
    return "up" if source.level > here.level else "down"


def _through(module: nn.Module, source: str) -> str:
    """What a read goes through on its way in, by the names of the modules."""
    branches = cast("MergeNode", module).branches
    parts = branches[source].modules() if source in branches else ()
    names = [type(part).__name__ for part in parts if not list(part.children())]
    return f"through {' + '.join(names)}" if names else ""


def _rise(model: SkipGraph, key: str) -> tuple[int, ...]:
    """By how much a head up-samples, per axis."""
    path = cast("Head", model.heads[key]).path
    return tuple(int(1 / grid.stride) for grid in advance((Grid(),) * model.ndim, path))
