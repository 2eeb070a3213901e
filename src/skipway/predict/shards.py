"""Labels that become an OME-Zarr: whoever makes a region writes its shard, and the journal keeps only its checksum.

A region is one shard, one file of the folder, so that processes of any number write without waiting for each other.
What was written is compared with its checksum before the folder gets its name; a shard that is missing or damaged is a
region that is made again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.images import GrowingZarr, ImageFile, marked
from skipway.predict.journal import Journal
from skipway.predict.making import Arrays
from skipway.regions import Regions

DIGEST = "shard"
"""What a journal keeps in the place of "labels"."""


@dataclass(frozen=True)
class Shards:
    """The labels of all units of an image.

    Attributes:
        folder: Where they lie until all are there.
        regions: Of one unit.
        labels: What class indices are written as; classes that do not overlap.
    """

    folder: Path
    regions: Regions
    labels: LabelMap

    @classmethod
    def begin(
        cls,
        journal: Path,
        goal: Path | None,
        about: Mapping[str, Any],
        regions: Regions,
        labels: LabelMap,
        image: ImageFile,
    ) -> "Shards":
        """Those of a journal, begun by whoever is first.

        Args:
            journal: That gathers what all processes make; the folder lies beside it.
            goal: A finished folder that is taken back if it is of the same labels: its process was killed too early.
            about: What they depend on, regions and all.
            regions: Of one unit.
            labels: See the class.
            image: Of which they are.

        Raises:
            EnvironmentFault: zarr is not installed, or the disk refused.
        """
        mark = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        folder = journal.with_suffix(f".{mark}.zarr")
        if goal is not None and not folder.is_dir() and marked(goal, mark):
            goal.rename(folder)
        pages, rows, columns = (1, *regions.block)[-3:]
        shape, kind = (image.pages, *image.size[-2:]), labels.decode(np.zeros(1, np.uint8)).dtype
        GrowingZarr.begin(folder, shape, kind, (pages, rows, columns), geometry=image.geometry, mark=mark)
        return cls(folder, regions, labels)

    def keep(self, number: int, arrays: Arrays) -> Arrays:
        """Write the labels of a region; what is left for a journal.

        Args:
            number: Of the region; those of unit u begin at u · len(regions).
            arrays: See `Arrays`.

        Raises:
            EnvironmentFault: the disk refused.
        """
        rest = {**arrays}
        values = self.labels.decode(rest.pop("labels"))
        block = self._block(number)
        GrowingZarr(self.folder).put(block, values.reshape([side.stop - side.start for side in block]))
        return {**rest, DIGEST: _digest(values)}

    def classes(self, number: int) -> NDArray[Any]:
        """Class indices of a region, (*S).

        Raises:
            EnvironmentFault: its shard cannot be read.
            DataError: it holds other values than were written.
        """
        values = GrowingZarr(self.folder).read(self._block(number))
        return self.labels.encode(values.reshape(values.shape[-len(self.regions.size) :]))

    def forget_damaged(self, journal: Journal) -> int:
        """Let a journal forget the regions whose shard is not what was written; how many they are."""
        damaged = [n for n in journal.done if not self._holds(n, journal.read(n, DIGEST))]
        for number in damaged:
            journal.forget(number)
        return len(damaged)

    def finish(self, goal: Path) -> Path:
        """See `GrowingZarr.finish`."""
        return GrowingZarr(self.folder).finish(goal)

    def _holds(self, number: int, digest: NDArray[np.uint8]) -> bool:
        try:
            return np.array_equal(_digest(GrowingZarr(self.folder).read(self._block(number))), digest)
        except Exception:  # whatever a decoder makes of a damaged file
            return False

    def _block(self, number: int) -> tuple[slice, slice, slice]:
        unit, number = divmod(number, len(self.regions))
        window = self.regions.window(number)
        first = window[0] if len(window) == 3 else slice(unit, unit + 1)
        return first, window[-2], window[-1]


def _digest(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(values).data.cast("B")).digest(), np.uint8)
