"""Overlapping classes: a pixel may be of several, and each is decided on its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import UNKNOWN, LabelMap
from skipway.metrics.pixel import mean_defined
from skipway.metrics.sets import class_scores


@dataclass(frozen=True)
class Multilabel:
    """Every pixel gets a set of the user's classes: those whose probability is at least one half.

    Attributes:
        labels: A bit for each class.
        class_weights: Not used by this task; the classes are learnt side by side.
        min_area: Not used by this task; every pixel counts.
    """

    labels: LabelMap
    class_weights: tuple[float, ...] = ()
    min_area: int = 0

    score_name = "mean Dice of the classes"

    @property
    def outputs(self) -> int:
        """One channel a class, each with a sigmoid of its own."""
        return len(self.labels.values)

    def target(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Set of the classes of every pixel, Σ 2^k."""
        return self.labels.encode(mask)

    def weights(self, mask: NDArray[Any]) -> NDArray[np.float32]:
        """1 where anything is known: a border between sets that overlap means nothing."""
        return (self.target(mask) != UNKNOWN).astype(np.float32)

    def decode(self, class_map: NDArray[Any]) -> NDArray[Any]:
        """The user's own sets."""
        return self.labels.decode(class_map)

    def score(self, decoded: NDArray[Any], mask: NDArray[Any]) -> float | None:
        """Mean Dice over the classes that occur in mask or prediction."""
        found = class_scores(self.labels.encode(mask), self.labels.encode(decoded), self.outputs)
        return mean_defined(one.dice for one in found)[0]
