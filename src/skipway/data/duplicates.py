"""Pictures that are nearly the same: saved twice, brightened, or neighbours in a film.

Each thumbnail becomes 64 bits, the signs of its slowest cosines. Two thumbnails that differ in at most three bits
share one of four groups of 16 bits, so candidates come from four look-ups in a table and the cost grows with the
number of pictures. A candidate counts when the thumbnails correlate, and is then verified on the sketches themselves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skipway.data.sketch import CELLS, Grey, detail, matrix, unit

ALIKE = 0.98
"""Correlation of thumbnails from which a pair is looked at closely."""

SAME = 0.9
"""Correlation of the details of two sketches from which they show the same thing."""

CROWD = 40
"""Pictures with the same 16 bits beyond which only neighbours by name are compared."""


def bits(thumbnails: Sequence[str]) -> NDArray[np.uint16]:
    """64 bits of each thumbnail as four numbers, (n, 4)."""
    cells = np.array([np.frombuffer(bytes.fromhex(text), np.uint8) for text in thumbnails], np.float32)
    slow = fft.dctn(cells.reshape(-1, CELLS, CELLS), axes=(1, 2))[:, :8, :8].reshape(-1, 64)
    slow[:, 0] = 0
    above = slow > np.median(slow, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint16).reshape(-1, 4)


def candidates(thumbnails: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of indices i < j whose thumbnails are alike; empty thumbnails are like nothing."""
    kept = [index for index, text in enumerate(thumbnails) if text]
    if len(kept) < 2:
        return []
    chosen = [thumbnails[index] for index in kept]
    keys, rows = bits(chosen), matrix(chosen)
    pairs = {pair for column in range(4) for pair in _together(keys[:, column])}
    alike = sorted((a, b) for a, b in pairs if float(rows[a] @ rows[b]) >= ALIKE)
    return [(kept[a], kept[b]) for a, b in alike]


def _together(keys: NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys.tolist()):
        groups[key].append(index)
    for members in groups.values():
        if len(members) <= CROWD:
            yield from combinations(members, 2)
        else:  # films of a still scene: the neighbours say it all
            for distance in (1, 2, 3):
                yield from zip(members, islice(members, distance, None), strict=False)


def near_copies(
    thumbnails: Mapping[str, str],
    read: Callable[[str], Grey],
    *,
    limit: int = 200,
    volume: Callable[[str], str] = str,
) -> list[tuple[str, str]]:
    """Names of pictures that show the same thing, (first, second).

    Args:
        thumbnails: By name, from `sketch.thumbnail`.
        read: The sketch of a name, for the few that must be looked at closely.
        limit: Candidates that are verified, the first ones by name.
        volume: The stack that a name is a slice of, or the name itself; slices of one stack are alike and not compared.
    """
    names = list(thumbnails)
    found, seen = [], dict[str, Grey]()

    def details(name: str) -> Grey:
        if name not in seen:
            seen[name] = unit(detail(read(name)))
        return seen[name]

    pairs = ((a, b) for a, b in candidates(list(thumbnails.values())) if volume(names[a]) != volume(names[b]))
    for a, b in islice(pairs, limit):
        first, second = details(names[a]), details(names[b])
        if first.shape == second.shape and float(np.vdot(first, second)) >= SAME:
            found.append((names[a], names[b]))
    return found


def spelled_alike(groups: Sequence[str]) -> list[tuple[str, ...]]:
    """Group names that differ only in case, spaces or punctuation, which a person would call one.

    >>> spelled_alike(["P1", "p1 ", "P2", "P-1"])
    [('P-1', 'P1', 'p1 ')]
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for group in groups:
        found["".join(c for c in group.casefold() if c.isalnum()) or group].add(group)
    return [tuple(sorted(alike)) for alike in found.values() if len(alike) > 1]
