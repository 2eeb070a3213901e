"""skipway: the whole U-Net family on your own images.

>>> import skipway
>>> run = skipway.train("images", "masks", output="run")        # doctest: +SKIP
>>> labels = skipway.load("run").predict(array)                 # doctest: +SKIP

Nothing heavy is imported until one of these is called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skipway.api import Predictor, Trained, load, train
    from skipway.doctor import Findings, check
    from skipway.evaluation import Evaluation, evaluate
    from skipway.pruning import Pruned, prune

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "Findings",
    "Predictor",
    "Pruned",
    "Trained",
    "check",
    "evaluate",
    "load",
    "prune",
    "train",
]

_HOMES = {
    "Evaluation": "evaluation",
    "Findings": "doctor",
    "Pruned": "pruning",
    "check": "doctor",
    "evaluate": "evaluation",
    "prune": "pruning",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'skipway' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"skipway.{_HOMES.get(name, 'api')}"), name)
