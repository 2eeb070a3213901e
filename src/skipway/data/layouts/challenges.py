"""Layouts that came with challenges: nnU-Net, the Medical Segmentation Decathlon, the Cell Tracking Challenge."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skipway.data.folders import data_error, empty, images_in, is_there, some, subfolders
from skipway.data.layouts.matching import keyed, refuse_unmatched
from skipway.data.layouts.pairs import Pairs, Reading, Stated, finished, natural
from skipway.data.layouts.tables import ignored
from skipway.data.sources import Source
from skipway.errors import DataError, Problem
from skipway.images import shown, stem_of

FACTS = "dataset.json"
_CHANNEL = re.compile(r"(.+)_(\d{4})$")
_FRAME = re.compile(r"t(\d+)$")
_MASK = re.compile(r"man_seg_?(\d+)$")


def is_nnunet(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether it is a raw data set of nnU-Net: `imagesTr`, `labelsTr`, and channels as `_0000`."""
    return masks is None and _is_set(root) and any(map(_cut, images_in(root / "imagesTr")[:3]))


def is_decathlon(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether it is a data set of the Decathlon: `imagesTr`, `labelsTr`, one file for each case."""
    return masks is None and _is_set(root) and not is_nnunet(root, masks, reading)


def nnunet(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`imagesTr/CASE_0000.nii.gz`, `_0001` and so on are the channels of the image of `labelsTr/CASE.nii.gz`."""
    _refuse_empty(root)
    facts = _facts(root)
    named = facts.get("channel_names", facts.get("modality"))
    channels = len(named) if isinstance(named, dict) and named else None
    images = _cases({stem_of(f): f for f in images_in(root / "imagesTr")}, root / "imagesTr", channels)
    labels = keyed(images_in(root / "labelsTr"), root / "labelsTr")
    rule = "nnU-Net raw: imagesTr/CASE_0000 with labelsTr/CASE"
    refuse_unmatched(
        {k: v.path for k, v in images.items()}, labels, root / "imagesTr", root / "labelsTr", rule
    )
    found = {name: (image, Source(labels[name])) for name, image in images.items()}
    count = max(len(image.parts) or 1 for image in images.values())
    rule += f", {count} channel{'s' if count > 1 else ''}"
    if isinstance(named, dict) and named:
        rule += f" ({', '.join(str(name) for name in named.values())})"
    names, ignore, note = _labels(facts, root)
    return finished(
        found, rule, root / "imagesTr", root / "labelsTr", notes=note, stated=Stated("classes", names, ignore)
    )


def decathlon(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """The list `training` of dataset.json, or the same names in `imagesTr` and `labelsTr` where it has none."""
    facts = _facts(root)
    listed = facts.get("training")
    if isinstance(listed, list) and listed:
        found, rule = _listed(root, listed), f"Medical Segmentation Decathlon: {len(listed)} cases of {FACTS}"
    else:
        _refuse_empty(root)
        images = keyed(images_in(root / "imagesTr"), root / "imagesTr")
        labels = keyed(images_in(root / "labelsTr"), root / "labelsTr")
        rule = "Medical Segmentation Decathlon: the same name in imagesTr and labelsTr"
        refuse_unmatched(images, labels, root / "imagesTr", root / "labelsTr", rule)
        found = {name: (Source(image), Source(labels[name])) for name, image in images.items()}
    there = {image.path.name for image, _ in found.values()}
    more = [file for file in images_in(root / "imagesTr") if file.name not in there]
    names, ignore, note = _labels(facts, root)
    notes = [*note, *([f"images that {FACTS} does not list are left aside: {some(more)}"] if more else [])]
    return finished(
        found,
        rule,
        root / "imagesTr",
        root / "labelsTr",
        notes=notes,
        stated=Stated("classes", names, ignore),
    )


def with_channels(path: Path, found: Mapping[str, Source]) -> Mapping[str, Source]:
    """Images to predict; files `_0000`, `_0001` of an nnU-Net folder as the channels of one image."""
    nnunet_folder = path.is_dir() and (
        path.name in ("imagesTr", "imagesTs", "imagesVal") or (path / FACTS).exists()
    )
    if not nnunet_folder or not all(_cut(source.path) for source in found.values()):
        return found
    return _cases({name: source.path for name, source in found.items()}, path, None)


def _refuse_empty(root: Path) -> None:
    for name, what in (("imagesTr", "images"), ("labelsTr", "masks")):
        if not images_in(root / name):
            raise empty(root / name, what)


def _is_set(root: Path) -> bool:
    return root.is_dir() and all((root / name).is_dir() for name in ("imagesTr", "labelsTr"))


def _cut(file: Path) -> tuple[str, int] | None:
    """Case and channel that a name says."""
    match = _CHANNEL.match(stem_of(file))
    return (match[1], int(match[2])) if match else None


def _cases(files: Mapping[str, Path], root: Path, channels: int | None) -> dict[str, Source]:
    """Images of one or several channels by case.

    Raises:
        DataError: a case lacks a channel that others have.
    """
    cases: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    odd = [file for file in files.values() if _cut(file) is None]
    for name, file in files.items():
        cut = _cut(file)
        if cut is not None:
            cases[(Path(name).parent / cut[0]).as_posix()][cut[1]] = file
    wanted = range(channels or 1 + max((k for case in cases.values() for k in case), default=0))
    problems = [
        Problem(
            f"case {shown(name)} has channels {', '.join(f'{k:04d}' for k in sorted(case))}",
            shown(root),
            f"{', '.join(f'{k:04d}' for k in wanted)} as {FACTS if channels else 'other cases'} says",
            "add the missing file, or move the case away",
            "D09",
        )
        for name, case in cases.items()
        if sorted(case) != list(wanted)
    ]
    if odd:
        where, fix = shown(root), "rename or move them"
        problems.append(Problem(f"names without channel: {some(odd)}", where, "CASE_0000", fix, "D09"))
    if problems:
        raise DataError(*problems)
    return {
        name: Source(case[0])
        if len(case) == 1
        else Source(case[0], kind="channels", parts=tuple(case[k] for k in sorted(case)))
        for name, case in cases.items()
    }


def _facts(root: Path) -> dict[str, Any]:
    path = root / FACTS
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise data_error(
            "not readable as JSON", path, "the facts of the data set", "write it again", "F01"
        ) from error
    return facts if isinstance(facts, dict) else {}


def _listed(root: Path, listed: list[Any]) -> dict[str, tuple[Source, Source]]:
    """The pairs that a list of {"image": …, "label": …} names."""
    found: dict[str, tuple[Source, Source]] = {}
    missing: list[Path] = []
    for entry in listed:
        try:
            image, label = root / entry["image"], root / entry["label"]
        except (TypeError, KeyError) as error:
            where = root / FACTS
            raise data_error(
                f"an entry of training without image and label: {str(entry)[:80]}",
                where,
                '{"image": …, "label": …}',
                "correct the list",
                "L05",
            ) from error
        missing += [file for file in (image, label) if not is_there(file)]
        found[stem_of(image)] = (Source(image), Source(label))
    if missing:
        raise data_error(
            f"{len(missing)} files that are not there: {some(missing)}",
            root / FACTS,
            "files below its folder",
            "add them, or take them off the list",
            "L05",
        )
    return found


def _labels(facts: Mapping[str, Any], root: Path) -> tuple[dict[int, str], int | None, tuple[str, ...]]:
    """Names by value, the value that is not annotated, and a note on regions, which nnU-Net builds of several."""
    given = facts.get("labels")
    names: dict[int, str] = {}
    regions = []
    for key, value in given.items() if isinstance(given, dict) else ():
        try:
            if isinstance(value, list):
                regions.append(str(key))
            elif isinstance(value, str):
                names[int(key)] = value
            else:
                names[int(value)] = str(key)
        except (TypeError, ValueError) as error:
            raise data_error(
                f"label {key!r}: {value!r}", root / FACTS, 'such as "1": "liver"', "correct it", "A33"
            ) from error
    note = (f"regions of {FACTS} are learned as their values: {', '.join(regions)}",) if regions else ()
    return dict(sorted(names.items())), ignored(names), note


def is_tracking(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether it is a movie of the Cell Tracking Challenge: `01` with `01_GT` or `01_ST`, or `01` alone."""
    return masks is None and root.is_dir() and bool(_movies(root))


def tracking(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`01/t007.tif` with `01_GT/SEG/man_seg007.tif`; silver truth only where a movie has no gold."""
    movies = _movies(root)
    if not movies:
        raise data_error(
            "no movie", root, "01 with 01_GT/SEG or 01_ST/SEG", "name the folder that holds 01", "A01"
        )
    found: dict[str, tuple[Source, Source]] = {}
    aside: dict[str, Source] = {}
    notes: list[str] = []
    problems: list[Problem] = []
    for movie, truth in movies.items():
        frames = _numbered(movie, _FRAME)
        labels = _numbered(truth, _MASK)
        slices = [file for file in images_in(truth) if not _MASK.match(stem_of(file))]
        if slices:
            notes.append(f"{shown(truth)}: masks of single slices are left aside: {some(slices)}")
        lonely = [labels[number] for number in labels if number not in frames]
        if lonely:
            problems.append(
                Problem(
                    f"{len(lonely)} of {len(labels)} masks without frame: {some(lonely)}",
                    shown(truth),
                    f"tNNN in {movie.name} for every man_segNNN",
                    "add the frames, or move these masks out of the folder",
                    "A03",
                )
            )
        for number, file in frames.items():
            name = f"{movie.name}/{stem_of(file)}"
            if number in labels:
                found[name] = (Source(file), Source(labels[number]))
            else:
                aside[name] = Source(file)
    if problems:
        raise DataError(*problems)
    if aside:
        notes.append(f"{len(aside)} of {len(aside) + len(found)} frames are not annotated and left aside")
    truths = ", ".join(f"{truth.parent.name}/{truth.name}" for truth in movies.values())
    kind = (
        "gold truth goes before silver"
        if any(t.parent.name.endswith("_GT") for t in movies.values())
        else "silver truth"
    )
    top = next(iter(movies)).parent
    return finished(
        found,
        f"Cell Tracking Challenge: tNNN with man_segNNN of {truths}, {kind}",
        top,
        top,
        notes=notes,
        stated=Stated("objects", groups={name: name.partition("/")[0] for name in found}),
        unannotated=aside.items(),
    )


def _movies(root: Path) -> dict[Path, Path]:
    """Folders of frames with the folder of their masks."""
    only = re.fullmatch(r"\d\d+", root.resolve().name)
    folders = [root] if only else [f for f in subfolders(root) if re.fullmatch(r"\d\d+", f.name)]
    found = {}
    for folder in sorted(folders, key=lambda f: natural(f.name)):
        beside = folder.resolve().parent if only else root
        for truth in ("GT", "ST"):
            place = beside / f"{folder.resolve().name}_{truth}" / "SEG"
            if place.is_dir() and images_in(place):
                found[folder] = place
                break
    return found


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Files by the number in their names."""
    cut = ((pattern.match(stem_of(file)), file) for file in images_in(folder))
    return {int(match[1]): file for match, file in cut if match}
