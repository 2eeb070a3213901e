"""Class masks: one label value a pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.data.values import regions
from skipway.losses import IGNORE
from skipway.metrics.pixel import confusion, mean_defined, scores
from skipway.weight_maps import border_weights


@dataclass(frozen=True)
class Classes:
    """Every pixel gets one of the user's label values.

    Attributes:
        labels: The user's values, class index 0 first.
        class_weights: w_c of each class.
        min_area: Not used by this task; every pixel counts.
    """

    labels: LabelMap
    class_weights: tuple[float, ...]
    min_area: int = 0

    @property
    def score_name(self) -> str:
        """A background counts for nothing; a class 0 with a name of its own, such as sky, counts."""
        return "mean Dice of the classes" + (" other than background" if self.labels.grounded else "")

    @property
    def outputs(self) -> int:
        """One channel a class."""
        return len(self.labels.values)

    def target(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Class index of every pixel."""
        return self.labels.encode(mask)

    def weights(self, mask: NDArray[Any]) -> NDArray[np.float32]:
        """w_c + the border term between connected regions of each class other than background."""
        target = self.target(mask)
        known = np.where(target == IGNORE, np.uint8(0), target)
        return by_class(target, self.class_weights) + border_weights(regions(known, diagonals=False))

    def decode(self, class_map: NDArray[Any]) -> NDArray[Any]:
        """The user's own label values."""
        return self.labels.decode(class_map)

    def score(self, decoded: NDArray[Any], mask: NDArray[Any]) -> float | None:
        """Mean Dice over the classes, other than a background, that occur in mask or prediction."""
        table = confusion(self._counted(mask), self._counted(decoded), self.outputs, ignore=self.outputs)
        return mean_defined(one.dice for one in scores(table)[self.labels.grounded :])[0]

    def _counted(self, mask: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Class indices, with the number of classes where nothing is annotated."""
        indices = self.labels.encode(mask)
        return np.where(indices == IGNORE, np.uint8(self.outputs), indices)


def by_class(target: NDArray[np.integer[Any]], class_weights: tuple[float, ...]) -> NDArray[np.float32]:
    """w_c(x): the weight of each pixel's class; 0 where the class is not known."""
    table = np.zeros(256, np.float32)
    table[: len(class_weights)] = class_weights
    return table[target]
