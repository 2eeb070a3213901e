"""Which images trained the network that predicts them: their score says nothing about new ones."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skipway.data.hashes import pixel_hash
from skipway.data.labels import TRAINED
from skipway.data.sources import Source, page_name
from skipway.data.splits import Split
from skipway.errors import OF_A_FILE, CheckpointError, DataError
from skipway.images import stem_of
from skipway.runs import Run


@dataclass(frozen=True)
class Trained:
    """Pages of a file that trained a network.

    Attributes:
        pages: Their numbers from 0, ascending.
        of: Pages of the file.
    """

    pages: tuple[int, ...] = ()
    of: int = 0

    def has(self, page: int | None) -> bool:
        """Whether a page trained; of None, whether any did."""
        return bool(self.pages) if page is None else page in self.pages

    def names(self, name: str) -> list[str]:
        """The file, where it trained whole, or the pages that did.

        >>> Trained((1, 2), of=5).names("stack")
        ['stack#001', 'stack#002']
        >>> Trained((0,), of=1).names("image")
        ['image']
        """
        whole = len(self.pages) == self.of
        return [name] * bool(self.pages) if whole else [page_name(name, k, self.of) for k in self.pages]


@dataclass(frozen=True)
class Known:
    """The images that a run trained on, by name and pixels, wherever they lie now.

    Only files of a name that trained are hashed, so that others cost nothing; a renamed copy is not recognised.

    Attributes:
        pages: By the stem of a file, pages that trained and the hashes of their pixels; None for all pages, of which
            the hash is that of the first.
        colour: What the run reads images as, see `Source.colour`.
    """

    pages: Mapping[str, tuple[tuple[int | None, str], ...]] = field(default_factory=dict)
    colour: str = ""

    @classmethod
    def of(cls, run: Run, colour: str) -> "Known":
        """What a run says of itself; nothing where its split is missing or damaged, for it only serves a remark."""
        try:
            split = Split.from_json(run.read("split"))
        except (CheckpointError, DataError):
            return cls()
        pages: dict[str, tuple[tuple[int | None, str], ...]] = {}
        for pair in split.train_pairs:
            stem = _stem(pair.image)
            pages[stem] = (*pages.get(stem, ()), (pair.image.page, split.hashes.get(pair.name, "")))
        return cls(pages, colour)

    def trained(self, source: Source) -> "Trained":
        """Which pages of a file trained the run; none of one that cannot be read."""
        pages = self.pages.get(_stem(source), ())
        if not pages:
            return Trained()
        try:
            with replace(source, colour=self.colour).open_image() as image:
                hashes = {
                    k: pixel_hash(image, k) for k in {page or 0 for page, _ in pages} if k < image.pages
                }
                found = {page for page, known in pages if hashes.get(page or 0) == known}
                numbers = range(image.pages) if None in found else sorted(page or 0 for page in found)
                return Trained(tuple(numbers), image.pages)
        except OF_A_FILE:
            return Trained()


def _stem(source: Source) -> str:
    return unicodedata.normalize("NFC", stem_of(source.path))


def noted(labels: Path, now: Iterable[str], trained: Iterable[str]) -> dict[str, Any]:
    """The entry for `labels.json`: those of `now` that trained, and what it says of predictions made before.

    Args:
        labels: The file, which need not exist.
        now: Names of the files that are predicted now.
        trained: Those of them, or of their pages, that trained.
    """
    try:
        before = json.loads(labels.read_text(encoding="utf-8"))[TRAINED]
    except (OSError, ValueError, KeyError, TypeError):
        before = []
    replaced = {*now}
    kept = {name for name in map(str, before) if not replaced & {name, name.rpartition("#")[0]}}
    names = sorted(kept | {*trained})
    return {TRAINED: names} if names else {}
