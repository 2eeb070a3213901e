"""KEY=VALUE on the command line: arguments of a network's builder."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from skipway.errors import Problem, UsageError


def settings(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Key and value of each word; a value is JSON where it can be read as JSON, else text.

    Raises:
        UsageError: A word without an equals sign.

    >>> dict(settings(["up=bilinear", "ndim=3", "pools=[[1, 2, 2]]", "supervised=true"]))
    {'up': 'bilinear', 'ndim': 3, 'pools': [[1, 2, 2]], 'supervised': True}
    """
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise UsageError(Problem(f"found {word!r}", "--set", "KEY=VALUE such as up=bilinear"))
        try:
            yield key, json.loads(text)
        except ValueError:
            yield key, text
