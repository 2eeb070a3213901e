"""File names as keys, and the one rule that may stand between two names: a constant beginning and end."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import PurePath

from skipway.images import stem_of


@dataclass(frozen=True)
class Affix:
    """What stands before and after the shared part of the names on each side.

    >>> str(Affix(("img_", ""), ("", "_mask")))
    'img_X with X_mask'
    """

    image: tuple[str, str]
    mask: tuple[str, str]

    def image_core(self, key: str) -> str:
        """The shared part of an image's key; the key itself where it lacks the affix."""
        return _stripped(key, self.image)

    def mask_core(self, key: str) -> str:
        """The shared part of a mask's key; the key itself where it lacks the affix."""
        return _stripped(key, self.mask)

    def __str__(self) -> str:
        return f"{self.image[0]}X{self.image[1]} with {self.mask[0]}X{self.mask[1]}"


def key_of(path: PurePath, root: PurePath | None = None) -> str:
    """A path from `root` without its suffix, in Unicode's composed form so that é equals é.

    >>> key_of(PurePath("in/site1/a.b.nii.gz"), PurePath("in"))
    'site1/a.b'
    """
    folder = (path if root is None else path.relative_to(root)).parent
    return unicodedata.normalize("NFC", (folder / stem_of(path)).as_posix())


def best_rule(images: Sequence[str], masks: Sequence[str]) -> Affix | None:
    """The constant affixes under which most names match one to one, None where none does.

    A single pair proves no rule, so there one name must contain the other whole.

    >>> str(best_rule(["img_1", "img_2"], ["mask_2", "mask_1"]))
    'img_X with mask_X'
    """
    if len(images) == 1 or len(masks) == 1:
        return _contained(images, masks)
    best: tuple[int, int, Affix] | None = None
    for image, mask in product(_affixes(images), _affixes(masks)):
        affix = Affix(image, mask)
        cores = [affix.image_core(key) for key in images]
        others = [affix.mask_core(key) for key in masks]
        matched = len(set(cores) & set(others))
        shortest = -sum(map(len, (*image, *mask)))  # among equals, the affixes that take least away
        if matched and (best is None or (matched, shortest) > best[:2]):
            best = (matched, shortest, affix)
    return best[2] if best else None


def _contained(images: Sequence[str], masks: Sequence[str]) -> Affix | None:
    if len(images) != 1 or len(masks) != 1:
        return None
    image, mask = images[0], masks[0]
    for longer, shorter, swap in ((mask, image, False), (image, mask, True)):
        before, found, after = longer.partition(shorter)
        if found:
            return Affix((before, after), ("", "")) if swap else Affix(("", ""), (before, after))
    return None


def _affixes(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Beginnings and ends that all keys share, cut back to places where a name may be cut."""
    before = _shared_start(keys)
    after = _shared_start([key[len(before) :][::-1] for key in keys])[::-1]
    befores = {"", before, re.sub(r"\d+$", "", before), re.sub(r"[^\W_]+$", "", before)}
    longest_after = _shared_start([key[::-1] for key in keys])[::-1]
    afters = {"", after, re.sub(r"^\d+", "", longest_after), re.sub(r"^[^\W_]+", "", longest_after)}
    shortest = min(map(len, keys))  # an affix that fits every key takes two names never to one
    return [(b, a) for b in sorted(befores) for a in sorted(afters) if len(b) + len(a) <= shortest]


def _stripped(key: str, affix: tuple[str, str]) -> str:
    before, after = affix
    fits = len(key) >= len(before) + len(after) and key.startswith(before) and key.endswith(after)
    return key[len(before) : len(key) - len(after)] if fits else key


def _shared_start(keys: Sequence[str]) -> str:
    """The longest beginning that all keys share, letter by letter."""
    low, high = min(keys), max(keys)
    length = next(
        (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    return low[:length]
