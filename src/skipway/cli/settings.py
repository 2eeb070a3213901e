"""KEY=VALUE on the command line: arguments of a network's builder."""

import json
from collections.abc import Sequence
from typing import Any

from skipway.errors import Problem, UsageError


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """Arguments of a builder out of `key=value` words.

    >>> parsed(["width=16", "up=bilinear", "supervised=true"])
    {'width': 16, 'up': 'bilinear', 'supervised': True}
    """
    config: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise UsageError(Problem(f"found {setting!r}", "--set", "KEY=VALUE, as in width=16"))
        if key in config:
            raise UsageError(Problem(f"{key} is set twice", "--set", fix="leave one out"))
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    return config
