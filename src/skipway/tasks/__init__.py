"""What a network is asked to learn: target, loss weights, decoding and score, one file a task."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.tasks.classes import Classes
from skipway.tasks.multilabel import Multilabel
from skipway.tasks.objects import Objects

__all__ = ["TASKS", "Classes", "Multilabel", "Objects", "Task", "make_task"]


class Task(Protocol):
    """The contract of a task. Masks are the user's own (*S) integer arrays, class maps are unsigned (*S).

    A class map holds class indices, or where `labels.overlapping` sets of them, Σ 2^k.
    """

    @property
    def labels(self) -> LabelMap:
        """The user's values and the class each became."""
        ...

    @property
    def outputs(self) -> int:
        """Channels of the network's head."""
        ...

    @property
    def score_name(self) -> str:
        """What `score` returns, as it is printed."""
        ...

    def target(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Class index of every pixel, or set of them; `labels.unknown` where nothing is known."""
        ...

    def weights(self, mask: NDArray[Any]) -> NDArray[np.float32]:
        """Loss weight of every pixel, w_c + border term of the 2015 paper."""
        ...

    def decode(self, class_map: NDArray[Any]) -> NDArray[Any]:
        """What is written for the user: their own values, or object ids."""
        ...

    def score(self, decoded: NDArray[Any], mask: NDArray[Any]) -> float | None:
        """Agreement of one decoded image with its mask, in [0, 1]; None where it is undefined."""
        ...


TASKS: Mapping[str, type[Classes] | type[Objects] | type[Multilabel]] = {
    "classes": Classes,
    "objects": Objects,
    "multilabel": Multilabel,
}


def make_task(labels: LabelMap, class_weights: tuple[float, ...], min_area: int) -> Task:
    """The task that `labels.task` names.

    Args:
        labels: The label map of the run.
        class_weights: w_c of each class, mean 1 over the training pixels.
        min_area: Objects smaller than this many pixels are not written.
    """
    return TASKS[labels.task](labels, class_weights, min_area)
