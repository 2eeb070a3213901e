"""Which images trained the network that predicts them: their score says nothing about new ones."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skipway.data.hashes import pixel_hash
from skipway.data.labels import TRAINED
from skipway.data.sources import Source
from skipway.data.splits import Split
from skipway.errors import OF_A_FILE, CheckpointError, DataError
from skipway.images import stem_of
from skipway.runs import Run


@dataclass(frozen=True)
class Known:
    """The images that a run trained on, by name and pixels, wherever they lie now.

    Only files of a name that trained are hashed, so that others cost nothing; a renamed copy is not recognised.

    Attributes:
        pages: By the stem of a file, pages that trained and the hashes of their pixels.
        colour: What the run reads images as, see `Source.colour`.
    """

    pages: Mapping[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    colour: str = ""

    @classmethod
    def of(cls, run: Run, colour: str) -> "Known":
        """What a run says of itself; nothing where its split is missing or damaged, for it only serves a remark."""
        try:
            split = Split.from_json(run.read("split"))
        except (CheckpointError, DataError):
            return cls()
        pages: dict[str, tuple[tuple[int, str], ...]] = {}
        for pair in split.train_pairs:
            stem, page = _stem(pair.image), (pair.image.page or 0, split.hashes.get(pair.name, ""))
            pages[stem] = (
                (*pages.get(stem, ()), page) if pair.image.page is None else pages.get(stem, (page,))
            )
        return cls(pages, colour)

    def has(self, source: Source) -> bool:
        """Whether an image, or the first page that trained of a stack, trained the run.

        False for a file that cannot be read.
        """
        pages = self.pages.get(_stem(source), ())
        try:
            if not pages:
                return False
            with replace(source, colour=self.colour).open_image() as image:
                numbers = {page for page, _ in pages if page < image.pages}
                return any((page, pixel_hash(image, page)) in pages for page in numbers)
        except OF_A_FILE:
            return False


def _stem(source: Source) -> str:
    return unicodedata.normalize("NFC", stem_of(source.path))


def noted(labels: Path, now: Iterable[str], trained: Iterable[str]) -> dict[str, Any]:
    """The entry for `labels.json`: those of `now` that trained, and what it says of predictions made before.

    Args:
        labels: The file, which need not exist.
        now: Names that are predicted now.
        trained: Those of them that trained.
    """
    try:
        before = json.loads(labels.read_text(encoding="utf-8"))[TRAINED]
    except (OSError, ValueError, KeyError, TypeError):
        before = []
    names = sorted({*map(str, before)} - {*now} | {*trained})
    return {TRAINED: names} if names else {}
