"""How the convolutions of a network are dressed: one value that every block, node, head and encoder takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NORMS = ("batch", "channel_layer", "instance", "group", "none")
PADDINGS = ("same", "valid")
RECURRENT = ("recurrent", "recurrent_residual")
BLOCKS = ("plain", "residual", "residual_each", "preactivation", *RECURRENT)
ACTIVATIONS = ("relu", "leaky_relu", "prelu")

Sides = int | Sequence[int]
"""A kernel or a stride: the same along each axis, or one number per axis."""


@dataclass(frozen=True)
class Style:
    """How every convolution of a network is dressed.

    Attributes:
        ndim: Number of spatial axes, 1 to 3.
        norm: `batch`, `channel_layer` (over the channels of one pixel), `instance`, `group` or `none`.
            Instance and group norm take statistics over space, so that a tile no longer gives what the whole
            image gives.
        padding: `same` (zeros) or `valid` (none: each 3-wide convolution takes a pixel off every side).
        bias: Whether the convolutions of blocks and gates have a bias; None means exactly when there is no
            norm, which has its own.
        dropout: Rate after each activation.
        block: `plain`; `residual`: the block adds its input (through a 1-wide convolution when widths differ)
            before its last activation; `residual_each`: each of its convolutions does;
            `preactivation`: norm and activation come before each convolution, the input is added last;
            `recurrent`: each convolution is used again on the sum of its input and its output;
            `recurrent_residual`: recurrent, and the block adds its input.
        activation: `relu`, `leaky_relu` (slope 0.01 below zero) or `prelu` (a learned slope per channel).
        recurrences: How often a recurrent convolution is used again. Its weights and its norm are those of the
            first use; a batch norm keeps running statistics of each use.
    """

    ndim: int = 2
    norm: str = "batch"
    padding: str = "same"
    bias: bool | None = None
    dropout: float = 0.0
    block: str = "plain"
    activation: str = "relu"
    recurrences: int = 2

    def __post_init__(self) -> None:
        choose("norm", self.norm, NORMS)
        choose("padding", self.padding, PADDINGS)
        choose("block", self.block, BLOCKS)
        choose("activation", self.activation, ACTIVATIONS)
        if self.padding == "valid" and self.block in RECURRENT:
            raise ValueError(
                f"a {self.block} block adds its output to its input, so it cannot lose pixels; "
                "use padding 'same'"
            )
        if self.recurrences < 0:
            raise ValueError(f"recurrences is a number of uses, 0 or more, not {self.recurrences}")
        if self.ndim not in (1, 2, 3):
            raise ValueError(f"ndim is the number of spatial axes, 1 to 3, not {self.ndim}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a rate from 0 up to but not including 1, not {self.dropout}")


def choose(what: str, value: str, choices: Sequence[str]) -> str:
    """`value` when it is one of `choices`.

    Raises:
        ValueError: It is not; the message names the choices.
    """
    if value not in choices:
        raise ValueError(f"{what} cannot be {value!r}; choose one of {', '.join(choices)}")
    return value


def has_bias(style: Style) -> bool:
    """Whether the convolutions of a style have a bias."""
    return style.norm == "none" if style.bias is None else style.bias


def per_axis(value: Any, ndim: int) -> tuple[Any, ...]:
    """One value per axis, of a value for all axes or one for each."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * ndim
