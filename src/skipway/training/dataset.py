"""The training pairs as samples: decoded once, kept in memory as far as a budget goes."""

from collections.abc import Sequence
from threading import Lock

from skipway.data.fingerprint import Normalisation, normalised
from skipway.data.layouts import Pair
from skipway.data.sampling import Sample
from skipway.images import open_image, open_mask
from skipway.tasks import Task

CACHE_BYTES = 2 * 1024**3
"""Samples beyond this much memory are decoded again each time; the batches are the same bytes either way."""


class TrainingSet:
    """Samples by index; safe to read from several threads."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        task: Task,
        normalisation: Normalisation,
        *,
        weighted: bool,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._pairs = tuple(pairs)
        self._task = task
        self._normalisation = normalisation
        self._weighted = weighted
        self._room = cache_bytes
        self._kept: dict[int, Sample] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        """Image (C, *S) float32, target (*S), loss weights (*S) or None."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._decode(self._pairs[index])
        size = (
            sample.image.nbytes
            + sample.target.nbytes
            + (0 if sample.weights is None else sample.weights.nbytes)
        )
        with self._lock:
            if index not in self._kept and size <= self._room:
                self._room -= size
                self._kept[index] = sample
        return sample

    def name(self, index: int) -> str:
        """Name of the pair, for messages."""
        return self._pairs[index].name

    def _decode(self, pair: Pair) -> Sample:
        with open_image(pair.image.path) as file:
            page = pair.image.page or 0
            image = normalised(file.read(page), self._normalisation.constants(file, page))
        with open_mask(pair.mask.path) as file:
            mask = file.read(pair.mask.page or 0)[0]
        target = self._task.target(mask)
        weights = self._task.weights(mask) if self._weighted else None
        return Sample(image, target, weights)
