"""What is said about a network: where it comes from, what it costs, how far it looks."""

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from skipway.models.registry import BUILDERS, Builder, build
from skipway.nn.blocks import norm_of
from skipway.nn.operations import count_macs, count_parameters


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
        smallest: Smallest legal input.
        stride: Legal sides repeat with this period.
        norm: Norm of the blocks.
        tile_exact: Whether tiles give what the whole image gives.
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
    smallest: tuple[int, ...]
    stride: tuple[int, ...]
    norm: str
    tile_exact: bool

    def to_json(self) -> dict[str, Any]:
        """The card as a dictionary for JSON."""
        return asdict(self)


def describe(name: str, size: Sequence[int] | None = None, **config: Any) -> ModelCard:
    """Card of a network: what it is, where it comes from, what it costs. No weights are made.

    Args:
        name: Name of the builder.
        size: Input size; the next legal one is taken. Unless given, 256 along each axis, or the 572 of the
            2015 paper for valid padding; in a volume the 132 of the 2016 one.
        **config: As for `build`.

    Raises:
        UsageError: No builder has that name.
    """
    with torch.device("meta"):
        model = build(name, **config)
    shape = model.geometry
    side = 132 if model.ndim == 3 else 572 if any(shape.margin) else 256
    at = shape.next_legal(size or (side,) * model.ndim)
    summary, source = _documented(BUILDERS[name])
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
        smallest=shape.smallest,
        stride=shape.stride,
        norm=norm_of(model),
        tile_exact=shape.tile_exact,
    )


def _documented(builder: Builder) -> tuple[str, str]:
    """First line and `Source:` paragraph of a builder's docstring, which is the one place that has them."""
    summary, *paragraphs = (inspect.getdoc(builder) or "").split("\n\n")
    sources = [" ".join(text.split()) for text in paragraphs if text.startswith("Source: ")]
    return summary, "".join(sources).removeprefix("Source: ")
