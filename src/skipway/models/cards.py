"""What is said about a network: where it comes from, what it costs, how far it looks, node by node."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, cast

from torch import nn

from skipway.errors import ShapeError
from skipway.models.assemble import Options
from skipway.models.registry import BUILDERS, Builder, arguments, sketch
from skipway.nn.graph import SkipGraph
from skipway.nn.nodes import MergeNode
from skipway.nn.norms import norm_of
from skipway.nn.operations import count_macs, count_parameters
from skipway.shapes import IMAGE, Grid, Path, Window, advance
from skipway.topology import Node

MOST_PIXELS = 2**26
"""Largest size that costs are told at; they are counted by a run with one channel of zeros."""


@dataclass(frozen=True)
class NodeCard:
    """One node of a network at one input size.

    Attributes:
        key: `x0_4`, say.
        reads: Keys of the maps it takes in, in order; `image` stands for the input.
        crops: Per read and axis, pixels taken off each side.
        width: Channels.
        stride: Per axis, input pixels per feature pixel.
        size: Of its map.
        parameters: Trainable numbers, those of its branches and of no head.
    """

    key: str
    reads: tuple[str, ...]
    crops: tuple[tuple[int, ...], ...]
    width: int
    stride: tuple[int, ...]
    size: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class HeadCard:
    """One output of a network at one input size.

    Attributes:
        key: Of the node that carries it.
        classes: Channels.
        size: Of the output.
        parameters: Trainable numbers.
    """

    key: str
    classes: int
    size: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class ModelCard:
    """What `skipway models` says about a builder, at its defaults.

    Attributes:
        name: Name of the builder.
        summary: One line.
        source: Paper, with equation, figure or section.
        in_channels: Channels of the image.
        classes: Channels of each output.
        outputs: Keys of the nodes with a head.
        parameters: Trainable numbers.
        size: Input size at which the rest is counted.
        output_size: Size of the last output.
        macs: Multiplications in the convolutions, for one image of `size`.
        receptive_field: Side of the window one output pixel depends on, per axis.
        halo: Context a tile needs on each side, per axis.
        smallest: Smallest legal input.
        stride: Legal sides repeat with this period.
        norm: Norms of the blocks, see `nn.norms.norm_of`.
        tile_exact: Whether tiles give what the whole image gives.
        nodes: Every node, the encoder first, then the decoder in running order.
        heads: Every output, in order.
    """

    name: str
    summary: str
    source: str
    in_channels: int
    classes: int
    outputs: tuple[str, ...]
    parameters: int
    size: tuple[int, ...]
    output_size: tuple[int, ...]
    macs: int
    receptive_field: tuple[int, ...]
    halo: tuple[int, ...]
    smallest: tuple[int, ...]
    stride: tuple[int, ...]
    norm: str
    tile_exact: bool
    nodes: tuple[NodeCard, ...]
    heads: tuple[HeadCard, ...]

    def to_json(self) -> dict[str, Any]:
        """The card as a dictionary for JSON."""
        return asdict(self)


def describe(name: str, size: int | Sequence[int] | None = None, **config: Any) -> ModelCard:
    """Card of a network: what it is, where it comes from, what it costs. No weights are made.

    Args:
        name: Name of the builder.
        size: Input size, one side for all axes or a side per axis; see `legal_size`.
        **config: As for `build`.

    Raises:
        UsageError: No builder has that name.
    """
    model = sketch(name, **config)
    shape = model.geometry
    at = legal_size(model, size)
    summary, source = documented(BUILDERS[name])
    return ModelCard(
        name=name,
        summary=summary,
        source=source,
        in_channels=model.in_channels,
        classes=model.classes,
        outputs=tuple(node.key for node in model.topology.outputs),
        parameters=count_parameters(model),
        size=at,
        output_size=shape.output_size(at),
        macs=count_macs(model, at),
        receptive_field=shape.receptive_field,
        halo=shape.halo,
        smallest=shape.smallest,
        stride=shape.stride,
        norm=norm_of(model),
        tile_exact=shape.tile_exact,
        nodes=node_cards(model, at),
        heads=head_cards(model, at),
    )


def legal_size(model: SkipGraph, size: int | Sequence[int] | None = None) -> tuple[int, ...]:
    """The next legal input size.

    Args:
        model: Network.
        size: One side for all axes or a side per axis. Unless given, 256, or the 572 of the 2015 paper for valid
            padding; in a volume 128, or the 132 of the 2016 one.

    Raises:
        ShapeError: It has another number of axes, or more pixels than can be counted with.
    """
    if size is None:
        valid = any(model.geometry.margin)
        size = (132 if valid else 128) if model.ndim == 3 else (572 if valid else 256)
    legal = model.geometry.next_legal((size,) * model.ndim if isinstance(size, int) else size)
    if prod(legal) > MOST_PIXELS:
        raise ShapeError(f"{'x'.join(map(str, legal))} is too large: {MOST_PIXELS:,} pixels in all at most")
    return legal


def node_cards(model: SkipGraph, size: Sequence[int]) -> tuple[NodeCard, ...]:
    """What each node of a network is at an input of a legal size: encoder first, decoder in running order.

    Levels that the encoder has no map of, where a backbone starts at a stride above 1, are left out.
    """
    encoder = model.encoder
    strides = [tuple(int(s) for s in stride) for stride in encoder.strides]
    grids: dict[str, tuple[Grid, ...]] = {}
    cards: list[NodeCard] = []
    before, above = 0, IMAGE
    for level, (width, grid) in enumerate(zip(encoder.widths, model.geometry.levels, strict=True)):
        if not width:
            continue
        key, stage = Node(level, 0).key, encoder.truncated(level + 1)
        until = count_parameters(cast("nn.Module", stage))
        grids[key] = grid
        here = _sizes(grid, size)
        cards.append(
            NodeCard(key, (above,), ((0,) * model.ndim,), width, strides[level], here, until - before)
        )
        before, above = until, key
    for node, _ in model.topology.schedule():
        module = cast("MergeNode", model.nodes[node.key])
        reads = tuple(source.key for source in model.topology.reads[node])
        grids[node.key] = advance(grids[reads[0]], module.paths[0])
        cards.append(
            NodeCard(
                key=node.key,
                reads=reads,
                crops=tuple(_crop(path, model.ndim) for path in module.paths),
                width=module.width,
                stride=strides[node.level],
                size=_sizes(grids[node.key], size),
                parameters=count_parameters(module),
            )
        )
    return tuple(cards)


def head_cards(model: SkipGraph, size: Sequence[int]) -> tuple[HeadCard, ...]:
    """What each output of a network is at an input of a legal size."""
    return tuple(
        HeadCard(
            node.key,
            model.classes,
            model.geometry.output_size(size, node.key),
            count_parameters(model.heads[node.key]),
        )
        for node in model.topology.outputs
    )


def _sizes(grids: Sequence[Grid], size: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(grid.size(n)) for grid, n in zip(grids, size, strict=True))


def _crop(path: Path, ndim: int) -> tuple[int, ...]:
    """Pixels that the crops on a path take off each side: a crop is a window of one pixel, padded by less than 0."""
    return tuple(
        sum(
            -step.padding
            for step in (layer[axis] for layer in path)
            if isinstance(step, Window) and step.kernel == 1 and step.padding < 0
        )
        for axis in range(ndim)
    )


def documented(builder: Builder) -> tuple[str, str]:
    """First line and `Source:` paragraph of a builder's docstring, which is the one place that has them."""
    summary, *paragraphs = (inspect.getdoc(builder) or "").split("\n\n")
    sources = [" ".join(text.split()) for text in paragraphs if text.startswith("Source: ")]
    return summary, "".join(sources).removeprefix("Source: ")


def explained(name: str) -> dict[str, str]:
    """What each option of a builder means, out of the docstrings that have it."""
    own = dict(entries(inspect.getdoc(BUILDERS[name]) or "", "Args:"))
    passed_on = dict(entries(inspect.getdoc(Options) or "", "Attributes:"))
    return {key: own.get(key) or passed_on.get(key, "") for key in arguments(name)}


def entries(doc: str, section: str) -> list[tuple[str, str]]:
    """(name, text) of each entry of a section of a Google docstring."""
    _, _, after = doc.partition(f"{section}\n")
    block = re.split(r"\n\s*\n", after, maxsplit=1)[0]
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        if start := re.match(r"    (\*{0,2}\w+): (.*)", line):
            found.append((start[1], start[2]))
        elif found:
            name, text = found.pop()
            found.append((name, f"{text} {line.strip()}"))
    return found
