"""The training pairs as samples: decoded once, kept in memory as far as a budget goes."""

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.fingerprint import Normalisation, normalised
from skipway.data.layouts import Pair, Volume, volumes
from skipway.data.patience import SECONDS, patiently
from skipway.data.sampling import Sample
from skipway.predict.pixels import seen
from skipway.tasks import Task

CACHE_BYTES = 2 * 1024**3
"""Samples beyond this much memory are decoded again each time; the batches are the same bytes either way."""


class TrainingSet:
    """Samples by index, one a page or one a volume; safe to read from several threads."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        task: Task,
        normalisation: Normalisation,
        *,
        weighted: bool,
        ndim: int = 2,
        cache_bytes: int = CACHE_BYTES,
        seconds: float = SECONDS,
    ) -> None:
        self._volumes = volumes(pairs, ndim)
        self._ndim = ndim
        self._task = task
        self._normalisation = normalisation
        self._weighted = weighted
        self._room = cache_bytes
        self._seconds = seconds
        self._kept: dict[int, Sample] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, index: int) -> Sample:
        """Image (C, *S) float32, target (*S), loss weights (*S) or None.

        Raises:
            DataError: a file cannot be read any more, or not in time.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        volume = self._volumes[index]
        files = (*volume.image.files, *volume.mask.files)
        sample = patiently(lambda: self._decode(volume), files, self._seconds)
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
        """Name of the page or volume, for messages."""
        return self._volumes[index].name

    def _decode(self, volume: Volume) -> Sample:
        image = read_image(volume, self._ndim, self._normalisation)
        mask = read_masks(volume, self._ndim)
        target = self._task.target(mask)
        weights = self._task.weights(mask) if self._weighted else None
        return Sample(image, target, weights)


def read_image(volume: Volume, ndim: int, normalisation: Normalisation) -> NDArray[np.float32]:
    """A page (C, H, W) or volume (C, Z, H, W) as a network of `ndim` axes sees it."""
    with volume.image.open_image() as file:
        pixels, constants = seen(file, volume.pages, ndim, normalisation)
        return normalised(pixels.read((slice(None),) * ndim), constants)


def read_masks(volume: Volume, ndim: int) -> NDArray[Any]:
    """The user's masks as a network of `ndim` axes learns them: (H, W) of one page, or (Z, H, W)."""
    with volume.mask.open_mask() as file:
        masks = np.stack([file.read(page)[0] for page in volume.pages])
    return masks if ndim == 3 else masks[0]
