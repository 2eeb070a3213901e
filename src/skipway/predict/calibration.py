"""The temperature of a run's probabilities, as its folder keeps it."""

from dataclasses import asdict, dataclass
from typing import Any

from skipway.errors import CheckpointError, Problem
from skipway.runs import Run

NAME = "calibration"
"""Of the file: calibration.json."""


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a run hold on images that did not train it.

    Errors and likelihoods "after" are those of images that did not choose the temperature they were divided by.

    Attributes:
        temperature: T > 0; the probabilities given out are those of logits / T.
        pixels: Pixels that it was fitted on.
        images: Validation images that they lie in.
        rule: What was fitted on what, for people.
        ece: Expected calibration error of the probabilities as they come; None where nothing could be measured.
        ece_after: The same with T.
        nll: Mean negative log likelihood of the true class as they come.
        nll_after: The same with T.
        bins: Of each bin of confidence: (pixels, mean confidence, share that is right), as they come.
        bins_after: The same with T.
    """

    temperature: float = 1.0
    pixels: int = 0
    images: int = 0
    rule: str = ""
    ece: float | None = None
    ece_after: float | None = None
    nll: float | None = None
    nll_after: float | None = None
    bins: tuple[tuple[int, float, float], ...] = ()
    bins_after: tuple[tuple[int, float, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for calibration.json."""
        return asdict(self)

    @classmethod
    def of(cls, run: Run) -> "Calibration | None":
        """What a run says of itself; None for one that never got so far.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = run.path / f"{NAME}.json"
        if not path.is_file():
            return None
        stored = run.read(NAME)
        try:
            value = dict(stored)
            for name in ("bins", "bins_after"):
                value[name] = tuple((int(n), float(a), float(b)) for n, a, b in value[name])
            found = cls(**value)
            if not 0 < float(found.temperature) < float("inf"):
                raise ValueError(f"a temperature of {found.temperature}")
        except (KeyError, TypeError, ValueError) as error:
            problem = Problem(
                f"damaged ({error})", str(path), fix="copy it again, or predict --no-calibration"
            )
            raise CheckpointError(problem) from error
        return found

    def __str__(self) -> str:
        """One line."""
        if self.ece is None:
            return f"T = {self.temperature:.3g} ({self.rule})"
        after = "n/a" if self.ece_after is None else f"{self.ece_after:.4f}"
        return (
            f"T = {self.temperature:.3f}, expected calibration error {self.ece:.4f} → {after} ({self.rule})"
        )
