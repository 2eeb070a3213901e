"""What a person should look at first: how good each prediction should be, and how far its image is from training.

The expected score is that of the probabilities themselves: were each pixel of class k with the probability p_k that the
network gives, then with M the pixels it calls k

    expected Dice of k = 2 Σ_M p_k / (|M| + Σ p_k).

It is as good as the probabilities are, so it is believed less the further an image lies from the training images:

    look first = 1 − expected score · min(1, `familiar.STRANGE` / drift)

Everything is summed tile by tile while the image is predicted; memory is a byte a pixel of the windows of `data.looks`.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipway.data.fingerprint import Constants
from skipway.data.labels import LabelMap
from skipway.data.looks import Window, looks, shares, size_of, windows
from skipway.disk import replacing, utf8
from skipway.predict.familiar import STRANGE, Drift, Familiar
from skipway.predict.logits import decided, log_parts
from skipway.predict.opinions import doubt
from skipway.predict.pixels import Pixels

FILE = "review.csv"
"""Written beside the masks."""

NOTHING = 0.5
"""What an image counts for in which nothing was found: its score is either 0 or not defined."""

AT_ONCE = 4
"""Classes of which every pixel is summed; with n times as many every √n-th row and column of a large image."""

ENOUGH = 2**14
"""Pixels that are summed at least."""

SAID = 3
"""Differences that are put into words at most."""


@dataclass(frozen=True)
class Row:
    """One image or page, as `review.csv` has it.

    Attributes:
        look_first: From 0 to 1, the rows are sorted by it.
        file: Name from the folder, without suffix.
        page: Of a stack that is predicted page by page, from 0; None otherwise.
        expected_score: Mean expected Dice of the classes that were found; None where there are none.
        entropy: Mean over the pixels, as a share of that of knowing nothing.
        spread: How far networks, levels or views lie apart, mean over the pixels; None where there is one.
        drift: Largest distance from the training images, in standard deviations; None where nothing is known of them.
        trained: Whether the image trained the network.
        reason: In words.
    """

    look_first: float
    file: str
    page: int | None
    expected_score: float | None
    entropy: float
    spread: float | None
    drift: float | None
    trained: bool
    reason: str


class Review:
    """Sees one image being predicted.

    Args:
        labels: The classes.
        familiar: What the training images look like; None where that is not known.
        temperature: T of the probabilities.
    """

    def __init__(self, labels: LabelMap, familiar: Familiar | None = None, temperature: float = 1.0) -> None:
        self._labels = labels
        self._familiar = familiar
        self._temperature = temperature
        self._names = labels.names if labels.overlapping else labels.names[labels.grounded :]
        self._found: dict[str, float] = {}
        self._parts: list[tuple[Window, NDArray[Any]]] = []
        self._sums = torch.zeros(3, len(self._names), dtype=torch.float64)
        self._doubt = self._apart = 0.0
        self._pixels = self._compared = 0
        self._step = 1

    def look(self, pixels: Pixels, constants: Constants) -> None:
        """Look at the image, before it is predicted.

        Args:
            pixels: The image (C, *S).
            constants: Those of its normalisation.
        """
        self.begin(pixels.shape[1:])
        if self._familiar is not None:
            self._found = looks(pixels.read, pixels.shape[1:], constants)

    def begin(self, size: Sequence[int]) -> None:
        """Learn the size of the image, one number an axis; all that `see` needs, and `look` does it too."""
        room = math.sqrt(math.prod(size) / ENOUGH), math.sqrt(len(self._names) / AT_ONCE)
        self._step = max(1, min(int(room[0]), math.ceil(room[1])))
        dtype = np.int64 if self._labels.overlapping else np.uint8
        self._parts = [
            (window, np.zeros([w.stop - w.start for w in window], dtype)) for window in windows(size)
        ]

    def see(
        self, region: tuple[slice, ...], logits: Tensor, outside: NDArray[np.bool_] | None = None
    ) -> None:
        """Logits (K, *region) of a region that no other call covers; `outside` (*region) nobody looks."""
        overlapping, logits = self._labels.overlapping, _counted(logits)
        classes = decided(logits, overlapping=overlapping)
        grid = self._grid(region)
        seen, chosen = logits[:, *grid].float(), classes[grid]
        if outside is not None:
            classes[torch.from_numpy(outside).to(classes.device)] = 0
            inside = torch.from_numpy(~outside[grid]).to(classes.device)
            seen, chosen = seen[:, inside], chosen[inside]
        parts = log_parts(seen[None] / self._temperature, overlapping=overlapping)
        self._doubt += float(doubt(parts).sum(dtype=torch.float64))
        logs = parts[0][0]
        if len(logits) == 1 and not overlapping:
            logs = torch.stack([parts[1][0, 0], logs[0]])
        p = logs.exp_().flatten(1)
        own = (p * (seen >= 0).flatten(1)) if overlapping else p.amax(0)
        sums = _by_class(own, chosen.flatten().long(), len(p), overlapping=overlapping)
        every = torch.stack([*sums, p.sum(1, dtype=torch.float64)])
        self._sums += every[:, len(p) - len(self._names) :].cpu()
        self._pixels += chosen.numel()
        self._keep(region, classes)

    def taken(self) -> NDArray[np.float64]:
        """What was seen since the last call, as numbers that `add` takes; it is forgotten here."""
        rest = [self._doubt, self._apart, self._pixels, self._compared]
        found = np.concatenate([self._sums.numpy().ravel(), np.asarray(rest, np.float64)])
        self._sums.zero_()
        self._doubt = self._apart = 0.0
        self._pixels = self._compared = 0
        return found

    def add(self, taken: NDArray[np.float64], region: tuple[slice, ...], classes: NDArray[Any]) -> None:
        """What another review has seen of a region.

        Args:
            taken: Of `taken`.
            region: Where it lies.
            classes: Class of each pixel, or the set of them, (*region).
        """
        sums, (doubt_, apart, pixels, compared) = taken[:-4], taken[-4:]
        self._sums += torch.from_numpy(sums.reshape(tuple(self._sums.shape)))
        self._doubt += float(doubt_)
        self._apart += float(apart)
        self._pixels += int(pixels)
        self._compared += int(compared)
        self._keep(region, torch.from_numpy(classes))

    def _grid(self, region: tuple[slice, ...]) -> tuple[slice, ...]:
        """Every n-th row and column of the image, as far as they lie in a region."""
        n = self._step
        plane = tuple(slice(-side.start % n, None, n) for side in region[-2:])
        return (*(slice(None) for _ in region[:-2]), *plane)

    def _keep(self, region: tuple[slice, ...], classes: Tensor) -> None:
        """Copy what lies in the windows."""
        for window, part in self._parts:
            both = [
                slice(max(r.start, w.start), min(r.stop, w.stop)) for r, w in zip(region, window, strict=True)
            ]
            if all(b.start < b.stop for b in both):
                here, there = (
                    tuple(
                        slice(b.start - o.start, b.stop - o.start) for b, o in zip(both, whole, strict=True)
                    )
                    for whole in (window, region)
                )
                part[here] = classes[there].cpu().numpy()

    def apart(
        self, region: tuple[slice, ...], spread: Tensor, outside: NDArray[np.bool_] | None = None
    ) -> None:
        """How far opinions lie apart, (*region), see `opinions.agreed`; `outside` nobody looks."""
        if outside is not None:
            spread = spread[torch.from_numpy(~outside).to(spread.device)]
        self._compared += spread.numel()
        self._apart += float(_counted(spread).sum(dtype=torch.float64))

    def row(self, file: str, page: int | None = None, *, trained: bool = False) -> Row:
        """What came of it, after the last region."""
        score = self._score()
        drifts = self._drifts()
        largest = abs(drifts[0].distance) if drifts else None
        trust = 1.0 if largest is None else min(1.0, STRANGE / max(largest, STRANGE))
        return Row(
            look_first=1 - (NOTHING if score is None else score) * trust,
            file=file,
            page=page,
            expected_score=score,
            entropy=self._doubt / max(self._pixels, 1),
            spread=self._apart / self._compared if self._compared else None,
            drift=largest,
            trained=trained,
            reason=self._reason(score, drifts, trained=trained),
        )

    def _score(self) -> float | None:
        """Mean expected Dice of the classes that were found."""
        found, own, total = self._sums.numpy()
        there = found > 0
        return float((2 * own[there] / (found[there] + total[there])).mean()) if there.any() else None

    def _drifts(self) -> tuple[Drift, ...]:
        if self._familiar is None:
            return ()
        background = 0 if self._labels.overlapping or self._labels.grounded else None
        counts = self._sums[0].tolist()
        sizes = size_of([part for _, part in self._parts], background)
        return self._familiar.drift({**self._found, **shares(counts, self._pixels), **sizes})

    def _reason(self, score: float | None, drifts: Sequence[Drift], *, trained: bool) -> str:
        strange = [drift.said(self._names) for drift in drifts if abs(drift.distance) >= STRANGE]
        said = [f"{', '.join(strange[:SAID])} than all training images"] if strange else []
        if score is None:
            said.append("nothing found")
        if drifts and not strange:
            said.append("like the training images")
        if self._familiar is None:
            said.append("not compared: the run does not say what its training images look like")
        if trained:
            said.append("trained the network, which says nothing about new ones")
        return "; ".join(said)


def write_review(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, what to look at first on top; those of a file before that are not predicted again stay.

    Args:
        path: The file.
        rows: Of the images that were predicted now.
    """
    new = [_plain(row) for row in rows]
    now = {row["file"] for row in new}
    every = [*new, *(row for row in _before(path) if row["file"] not in now)]
    every.sort(key=lambda row: (-float(row["look_first"]), row["file"], int(row["page"] or 0)))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    text = utf8(buffer.getvalue())
    with replacing(path, needed=len(text)) as file:
        file.write(text)


def said(rows: Sequence[Row], *, compared: bool) -> str:
    """The rows in one line.

    Args:
        rows: At least one.
        compared: Whether the run says what its training images look like.
    """
    first = max(rows, key=lambda row: row.look_first)
    place = first.file if first.page is None else f"{first.file}, page {first.page}"
    strange = sum(row.drift is not None and row.drift >= STRANGE for row in rows)
    kind = f"{strange} of {len(rows)} unlike the training images" if compared else first.reason
    return f"look at {place} first" + (f" ({first.reason}); {kind}" if compared else f"; {kind}")


Reviews = Sequence[tuple[int | None, Review]]
"""Of each page, or of None for all pages, what saw it."""


def _counted(values: Tensor) -> Tensor:
    """Where it can be summed in double precision: not every accelerator knows that."""
    return values if values.is_cuda else values.cpu()


def _by_class(own: Tensor, chosen: Tensor, classes: int, *, overlapping: bool) -> tuple[Tensor, Tensor]:
    """Pixels of each class, and the sum of what each pixel of it says for it, (K,) in double precision.

    Args:
        own: Probability of the class of each pixel, (n,); of sets that of each class, 0 where it is not in, (K, n).
        chosen: Class of each pixel, or the set of them, (n,).
        classes: K.
        overlapping: Whether `chosen` holds sets.
    """
    if overlapping:
        count = [(chosen >> k & 1).sum(dtype=torch.float64) for k in range(classes)]
        return torch.stack(count), own.sum(1, dtype=torch.float64)
    return (
        torch.bincount(chosen, minlength=classes).double(),
        torch.bincount(chosen, weights=own.double(), minlength=classes),
    )


COLUMNS = tuple(field.name for field in fields(Row))


def _plain(row: Row) -> dict[str, str]:
    def text(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    return {name: text(value) for name, value in asdict(row).items()}


def _before(path: Path) -> list[Mapping[str, str]]:
    """Rows of an earlier prediction; none where the file is missing or of another make."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        for row in rows:
            float(row["look_first"])
            int(row["page"] or 0)
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []
    return [row for row in rows if set(row) == set(COLUMNS)]
