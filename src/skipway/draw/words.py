"""How keys and sizes are printed, in drawings and in tables."""

from collections.abc import Iterable, Sequence

from skipway.shapes import IMAGE
from skipway.topology import Node


def node_of(key: str) -> Node:
    """The node of a key.

    >>> node_of("x0_4")
    Node(level=0, column=4)
    """
    level, column = key.removeprefix("x").split("_")
    return Node(int(level), int(column))


def show(key: str) -> str:
    """A key as it is printed: `x0_4` is X[0,4].

    >>> show("x0_4"), show("image")
    ('X[0,4]', 'image')
    """
    if key == IMAGE:
        return key
    node = node_of(key)
    return f"X[{node.level},{node.column}]"


def times(sides: Iterable[int]) -> str:
    """A size in words.

    >>> times((16, 128, 96))
    '16×128×96'
    """
    return "×".join(map(str, sides))


def once(sides: Sequence[int]) -> str:
    """The same, with one number where all axes agree.

    >>> once((2, 2)), once((1, 2, 2))
    ('2', '1×2×2')
    """
    return times(sides[:1] if len(set(sides)) == 1 else sides)
