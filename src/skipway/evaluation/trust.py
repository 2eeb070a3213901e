"""Whether the probabilities beside predicted masks mean what they say, where the truth is there to tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.errors import OF_A_FILE
from skipway.evaluation.pages import Page
from skipway.images import open_image
from skipway.metrics.calibration import Reliability, choices, reliability

VALUES = 2_000_000
"""Probabilities that are looked at, at most: every n-th pixel along both axes, about equally many of each page."""

LEAST = 1e-12
"""A probability of 0 counts as this."""


@dataclass(frozen=True)
class Trusted:
    """What was found.

    Attributes:
        found: The error and the likelihood; None where no page could be judged.
        pixels: Annotated pixels that were looked at.
        pages: Pages that they lie in.
        strange: Pages whose probabilities cannot be those of their mask.
    """

    found: Reliability | None
    pixels: int = 0
    pages: int = 0
    strange: int = 0

    def to_json(self) -> dict[str, Any] | None:
        """Plain values, or None."""
        if self.found is None:
            return None
        return {"ece": self.found.ece, "nll": self.found.nll, "pixels": self.pixels, "pages": self.pages}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was passed over."""
        found = "probabilities that do not fit their mask are not judged"
        return (f"{found}: {self.strange} pages",) if self.strange else ()


def trusted(pages: Sequence[Page], labels: LabelMap) -> Trusted:
    """Hold the probabilities of `predict --probabilities` against the truth, whatever temperature they have.

    Args:
        pages: Those with probabilities are judged.
        labels: The label map of the run, whose classes are the channels.

    Returns:
        The expected calibration error, 15 bins; for objects the truth is what the network learns, objects drawn
        apart by a thin border; where classes overlap a pixel and a class are one decision.
    """
    with_them = [page for page in pages if page.probabilities is not None]
    quota = VALUES // max(1, len(labels.values) * len(with_them))
    logits, right, strange = [], [], 0
    for page in with_them:
        try:
            found = _page(page, labels, quota)
        except OF_A_FILE:
            found = None
        if found is None:
            strange += 1
        else:
            logits.append(found[0])
            right.append(found[1])
    pixels = sum(map(len, right))
    if not pixels:
        return Trusted(None, strange=strange)
    judged = choices(np.concatenate(logits), np.concatenate(right), overlapping=labels.overlapping)
    return Trusted(reliability(*judged), pixels, len(right), strange)


def _page(page: Page, labels: LabelMap, quota: int) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Logits (n, K) and classes (n,) of some pixels; None where the file cannot be that of the mask."""
    from skipway.tasks import make_task  # brings torch, which masks alone are scored without

    truth = make_task(labels, (), 0).target(page.read()[0]).astype(np.int64)
    step = ceil(sqrt(truth.size / max(1, quota)))
    grid = (slice(step // 2 if truth.shape[0] > step // 2 else 0, None, step), slice(None, None, step))
    assert page.probabilities is not None
    with open_image(page.probabilities) as file:
        if file.size != truth.shape or file.channels not in _channels(labels) or page.index >= file.pages:
            return None
        rows = np.arange(truth.shape[0])[grid[0]]
        parts = [
            band[:, rows[(rows >= at.start) & (rows < at.stop)] - at.start][:, :, grid[1]]
            for at, band in file.bands(page.index)
        ]
    p = np.moveaxis(np.concatenate(parts, axis=1).astype(np.float64), 0, -1)
    classes = truth[grid]
    known = classes != labels.unknown
    p = p[known]
    if not np.isfinite(p).all() or p.min(initial=0) < 0 or p.max(initial=0) > 1 + 1e-3:
        return None
    logits = np.log(np.maximum(p, LEAST))
    if labels.overlapping or p.shape[1] == 1:
        logits -= np.log(np.maximum(1 - p, LEAST))
    return logits, classes[known]


def _channels(labels: LabelMap) -> tuple[int, ...]:
    """Channels that a network of these classes may have: of two, one with a sigmoid will do."""
    count = len(labels.values)
    return (1, count) if count == 2 and not labels.overlapping else (count,)
