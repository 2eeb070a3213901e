"""Images and masks in one folder: told apart by a mark, by a word of their names, or by their formats."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from skipway.data.folders import data_error, empty, is_one, walk
from skipway.data.layouts.matching import collisions, keyed, left_aside, refuse_unmatched
from skipway.data.layouts.pairs import Pairs, Reading, finished
from skipway.data.names import key_of
from skipway.data.sources import Source
from skipway.errors import OF_A_FILE, Problem, UsageError
from skipway.images import FORMATS, open_mask, shown, stem_of, suffix_of

MARKERS = (
    *(
        "_mask",
        "_masks",
        "-mask",
        "_label",
        "_labels",
        "-label",
        "_seg",
        "_segmentation",
        "_gt",
        "_groundtruth",
    ),
    *("_cp_masks", "_annotation", "_manual1", "_target"),
    *("mask_", "label_", "labels_", "seg_", "gt_"),
)
"""Marks of a mask beside its image; one that ends with `_` stands before the name, the others after it."""

IMAGE_WORDS = r"images?|imgs?|raw|volume|vol|scan|dicom|dcm|ct|mri?"
MASK_WORDS = r"masks?|labels?|lbl|seg|segmentation|gt|groundtruth|truth|annotations?"
FEW = 32
"""Most values of a picture that is taken for the mask of two."""


def has_marks(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether it is one folder; the last reading that is tried."""
    return masks is None and root.is_dir()


def marked(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """Images and masks in one folder, told apart by a marker in the mask's name."""
    files, others = walk(root)
    if not files:
        raise empty(root, "images")
    by_key = keyed(files, root)
    suffix = reading.suffix
    candidates = [suffix] if suffix else [m for m in MARKERS if any(_core(k, m) in by_key for k in by_key)]
    candidates = _longest(candidates, by_key)
    if not candidates and is_one(root):
        raise UsageError(Problem("one image without masks", shown(root), fix="name the masks as well"))
    if len(candidates) != 1:
        marks = f"several marks of masks ({', '.join(candidates)})" if candidates else "images without masks"
        raise data_error(
            f"{marks} among {len(files)} files",
            root,
            "images/ and masks/ inside it, masks with a mark such as `_mask`, or a layout of docs/layouts.md",
            "name the masks folder as second path, or the mark with --suffix, or a table with --pairs",
            "A09",
        )
    marker = candidates[0]
    by_mask = {core: file for key, file in by_key.items() if (core := _core(key, marker)) is not None}
    by_image = {key: file for key, file in by_key.items() if _core(key, marker) is None}
    if not by_mask:
        raise data_error(
            f"no file with the mark {marker!r}", root, "masks with that mark", "check --suffix", "A09"
        )
    pattern = f"{marker}X" if _leads(marker) else f"X{marker}"
    rule = f"one folder, mask of X is {pattern}"
    refuse_unmatched(by_image, by_mask, root, root, rule)
    found = {key: (Source(by_image[key]), Source(by_mask[key])) for key in by_image}
    return finished(found, rule, root, root, notes=(*left_aside(root, others), *collisions(by_image)))


def has_words(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether every name holds a word for images or for masks, and the rest of the names pairs them."""
    if masks is not None or reading.suffix or not root.is_dir():
        return False
    by_image, by_mask, _ = _worded(walk(root)[0], root)
    return bool(by_image) and by_image.keys() == by_mask.keys()


def worded(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`img3d.tif` with `mask3d.tif`, `train-volume.tif` with `train-labels.tif`."""
    files, others = walk(root)
    if not files:
        raise empty(root, "images")
    by_image, by_mask, words = _worded(files, root)
    rule = f"one folder, {', '.join(words)}"
    refuse_unmatched(by_image, by_mask, root, root, rule)
    found = {key_of(image, root): (Source(image), Source(by_mask[core])) for core, image in by_image.items()}
    return finished(found, rule, root, root, notes=left_aside(root, others))


def _worded(files: Sequence[Path], root: Path) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Images and masks by what is left of their names without the word, and which words stand for which."""
    sides: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    words: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for file in files:
        name = stem_of(file)
        found = [
            (side, match)
            for side, pattern in enumerate((IMAGE_WORDS, MASK_WORDS))
            if (match := re.search(rf"(?<![a-z])({pattern})(?![a-z])", name, re.I))
        ]
        if len(found) != 1:  # a name with both words, or with none, says nothing
            return {}, {}, []
        side, match = found[0]
        core = (file.relative_to(root).parent / f"{name[: match.start()]}*{name[match.end() :]}").as_posix()
        if core in sides[side]:
            return {}, {}, []
        sides[side][core], words[side][core] = file, match.group()
    pairs = {f"`{words[0][c]}` in an image is `{words[1][c]}` in its mask" for c in words[0] if c in words[1]}
    return *sides, sorted(pairs)


def has_formats(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether every name is there twice, always in the same two formats."""
    return masks is None and root.is_dir() and not reading.suffix and bool(_formats(walk(root)[0], root))


def by_format(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`001.bmp` with `001.png`: the lossless format of few values holds the masks."""
    files, others = walk(root)
    formats = _formats(files, root)
    if not formats:
        raise data_error(
            f"{len(files)} files",
            root,
            "every name twice, in the same two formats",
            "add or remove files until that is so",
            "A08",
        )
    mask_format = _mask_format(files, formats, root)
    image_format = next(form for form in formats if form != mask_format)
    sides: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in files:
        sides[suffix_of(file).lower()][key_of(file, root)] = file
    found = {
        key: (Source(file), Source(sides[mask_format][key])) for key, file in sides[image_format].items()
    }
    rule = f"one folder, mask of X{image_format} is X{mask_format}"
    return finished(found, rule, root, root, notes=left_aside(root, others))


def _formats(files: Sequence[Path], root: Path) -> tuple[str, ...]:
    """The two suffixes of all names; nothing where it is not so."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        groups[key_of(file, root)].append(suffix_of(file).lower())
    kinds = {tuple(sorted(suffixes)) for suffixes in groups.values()}
    only = next(iter(kinds)) if len(kinds) == 1 else ()
    return only if len(set(only)) == 2 else ()


def _mask_format(files: Sequence[Path], formats: Sequence[str], root: Path) -> str:
    """The one format whose first files hold few values in one channel."""
    fits = []
    for form in formats:
        of_it = [file for file in files if suffix_of(file).lower() == form][:3]
        if form not in LOSSY and all(map(_few_valued, of_it)):
            fits.append(form)
    if len(fits) != 1:
        could = "either could be the mask" if fits else "neither looks like a mask"
        raise data_error(
            f"two files of one name, {' and '.join(formats)}; {could}",
            root,
            f"one of them with at most {FEW} values in one channel",
            "put the images and the masks into two folders",
            "A08",
        )
    return fits[0]


LOSSY = frozenset(suffix for form in FORMATS if form.lossy for suffix in form.suffixes)


def _few_valued(file: Path) -> bool:
    try:
        with open_mask(file) as mask:
            values: set[int] = set()
            for _, band in mask.bands():
                values.update(set(band.ravel().tolist()))
                if len(values) > FEW:
                    return False
    except OF_A_FILE:
        return False
    return True


def _leads(marker: str) -> bool:
    return marker.endswith(("_", "-")) and not marker.startswith(("_", "-"))


def _core(key: str, marker: str) -> str | None:
    """The image's key for a mask's key, None where the key carries no such mark."""
    folder, slash, name = key.rpartition("/")
    core = name.removeprefix(marker) if _leads(marker) else name.removesuffix(marker)
    return f"{folder}{slash}{core}" if core and core != name else None


def _longest(markers: Sequence[str], keyed: Mapping[str, Path]) -> list[str]:
    """Drops a marker whose masks are all masks of a longer one (`_masks` of `_cp_masks`)."""
    masks = {m: {k for k in keyed if _core(k, m) is not None} for m in markers}
    return [m for m in markers if not any(m != o and o.endswith(m) and masks[m] <= masks[o] for o in markers)]
