"""Shapes in JSON instead of masks (COCO, LabelMe, GeoJSON), and masks in MATLAB files."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from skipway.data.folders import IMAGE_FOLDERS, data_error, empty, files_in, some, subfolders, twins, walk
from skipway.data.layouts.matching import matched
from skipway.data.layouts.pairs import SIDES, Pairs, Reading, Stated, finished
from skipway.data.layouts.tables import ignored
from skipway.data.names import key_of
from skipway.data.outlines import Coco, Drawing, categories, read_coco, read_geojson, read_labelme
from skipway.data.sources import Source
from skipway.errors import DataError, Problem
from skipway.images import is_image, shown, stem_of

_HEAD = 1 << 16


def coding_of(task: str | None, names: tuple[str, ...]) -> tuple[str, Stated]:
    """What shapes are written as: ids where all are of one category, classes where they are of several."""
    if task is None:
        task = "objects" if len(names) == 1 else "classes"
    if task == "objects":
        return "ids", Stated("objects")
    if task == "multilabel":
        return "bits", Stated("multilabel", {1 << k: name for k, name in enumerate(names)})
    values = {k + 1: name for k, name in enumerate(names)}
    return "classes", Stated("classes", {0: "background", **values}, ignored(values))


def _said(names: tuple[str, ...], coding: str) -> str:
    how = {"ids": "each shape one object", "classes": "one class a pixel", "bits": "classes may overlap"}[
        coding
    ]
    return f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''}; {how}"


def is_coco(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether a COCO file is named, or lies in the folder."""
    return bool(_coco_files(images, masks))


def coco(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """Images that a COCO file lists, with its polygons and run lengths; images without annotation are empty."""
    files = _coco_files(images, masks)
    if not files:
        raise data_error("no COCO file", images, "annotations.json", "name it as second path", "A02")
    held = {file: read_coco(file) for file in files}
    names = tuple(dict.fromkeys(name for one in held.values() for name in one.categories))
    if not names:
        raise data_error("no shape in it", files[0], "annotations with outlines", "export it again", "E20")
    coding, stated = coding_of(reading.task, names)
    found: dict[str, tuple[Source, Source]] = {}
    sides: dict[str, str] = {}
    problems: list[Problem] = []
    for file, one in held.items():
        side = _side_of(file)
        starts = _starts(images, file)
        placed = {key: _placed(name, starts) for key, (name, _) in one.images.items()}
        problems += _missing(file, one, placed)
        for key, image in placed.items():
            if image is None:
                continue
            name = key_of(image, images) if image.is_relative_to(images) else stem_of(image)
            if name in found:
                where = shown(file)
                problems.append(
                    Problem(f"{name} is listed twice", where, "one entry an image", "remove one", "A08")
                )
            mask = Source(file, None, "coco", (file, image), names, key=key, coding=coding)
            found[name] = (Source(image), mask)
            sides |= {name: side} if side else {}
    if problems:
        raise DataError(*problems)
    kept = {name: both for name, both in found.items() if sides.get(name) != "test"}
    both_sides = {"train", "val"} <= set(sides.values()) and len(sides) == len(found)
    count = sum(len(shapes) for one in held.values() for shapes in one.shapes.values())
    rule = f"COCO: {', '.join(file.name for file in files)}, {count} shapes of {_said(names, coding)}"
    bare = sum(key not in one.shapes for one in held.values() for key in one.images)
    notes = [f"{bare} images without shapes in the list are read as empty"] if bare else []
    notes += [f"{len(found) - len(kept)} images of test are left aside"] if len(kept) < len(found) else []
    said = {name: sides[name] for name in kept} if both_sides else {}
    stated = Stated(stated.task, stated.names, stated.ignore, {}, said)
    return finished(kept, rule, images, masks or files[0].parent, notes=notes, stated=stated)


def _missing(file: Path, held: Coco, placed: Mapping[str, Path | None]) -> list[Problem]:
    gone = [held.images[key][0] for key, image in placed.items() if image is None]
    if not gone:
        return []
    names = ", ".join(map(shown, gone[:8])) + (f" and {len(gone) - 8} more" if len(gone) > 8 else "")
    return [
        Problem(
            f"{len(gone)} of {len(placed)} listed images are not there: {names}",
            shown(file),
            "its images beside it or in the folder of the images",
            "add them, or name their folder as first path",
            "A03",
        )
    ]


def _coco_files(images: Path, masks: Path | None) -> list[Path]:
    """COCO files among those named: the file itself, or those in the folder, in `annotations/` and in the sides."""
    if masks is not None and masks.is_file():
        return [masks] if masks.suffix.lower() == ".json" and _is_coco(masks) else []
    root = masks or images
    if not root.is_dir():
        return []
    places = [root]
    if masks is None:
        places += [
            f for f in subfolders(root) if f.name.casefold() == "annotations" or f.name.casefold() in SIDES
        ]
    found = [file for place in places for file in files_in(place) if file.suffix.lower() == ".json"]
    return [file for file in found if _is_coco(file)]


def _is_coco(path: Path) -> bool:
    """By the first bytes where they tell; a file of this kind may begin with a long list."""
    if re.search(r"captions|keypoints|panoptic", path.name, re.I):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _HEAD))
            tail = file.read()
    except OSError:
        return False
    keys = (b'"images"', b'"annotations"', b'"categories"')
    entries = (
        b'"file_name"' in head or b'"image_id"' in head or b'"image_id"' in tail or b'"file_name"' in tail
    )
    return entries and sum(key in head or key in tail for key in keys) >= 2


def _side_of(file: Path) -> str:
    """The side that a COCO file's name or folder says: `instances_train2017.json`, `train/_annotations.coco.json`."""
    words = re.findall(r"[a-z]+", file.stem.casefold())
    found = [SIDES[word] for word in (*words, file.parent.name.casefold()) if word in SIDES]
    return found[0] if found else ""


def _starts(images: Path, file: Path) -> list[Path]:
    """Folders in which the images of a COCO file may lie."""
    top = file.parent.parent if file.parent.name.casefold() == "annotations" else file.parent
    roots = [path for path in (images, file.parent, top) if path.is_dir()]
    inside = [
        folder
        for root in dict.fromkeys(roots)
        for folder in subfolders(root)
        if folder.name.casefold() in IMAGE_FOLDERS or folder.name in file.stem
    ]
    return list(dict.fromkeys((*roots, *inside)))


def _placed(name: str, starts: Iterable[Path]) -> Path | None:
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    for start in starts:
        for skip in range(len(parts)):
            if (file := start.joinpath(*parts[skip:])).is_file():
                return file
    return None


def is_labelme(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether JSON files of LabelMe lie beside the images, or in the folder of the masks."""
    both = _sides(images, masks, ".json")
    return both is not None and b'"shapes"' in _ends(both[2][0])


def labelme(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """A LabelMe file of the same stem for each image."""
    return _by_stem(images, masks, reading, (".json",), "labelme", read_labelme, "LabelMe")


def is_geojson(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether GeoJSON files lie beside the images, or in the folder of the masks."""
    if _sides(images, masks, ".geojson") is not None:
        return True
    both = _sides(images, masks, ".json")
    return both is not None and b'"geometry"' in _ends(both[2][0])


def geojson(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """A GeoJSON file of the same stem for each image, as QuPath exports it in pixels."""
    return _by_stem(images, masks, reading, (".geojson", ".json"), "geojson", read_geojson, "GeoJSON")


def is_matlab(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether the folder of the masks holds MATLAB files and no pictures."""
    both = _sides(images, masks, ".mat")
    return both is not None and both[0] != both[1] and not walk(both[1])[0]


def matlab(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """A MATLAB file of the same stem for each image."""
    image_root, mask_root, files = _need(images, masks, (".mat",), "MATLAB")
    pictures = walk(image_root, without=mask_root)[0]
    if not pictures:
        raise empty(image_root, "images")
    paired, rule, _ = matched(pictures, files, image_root, mask_root)
    found = {name: (Source(image), Source(file, kind="mat")) for name, (image, file) in paired.items()}
    return finished(found, f"MATLAB label maps, {rule}", image_root, mask_root)


def _by_stem(
    images: Path,
    masks: Path | None,
    reading: Reading,
    suffixes: tuple[str, ...],
    kind: str,
    read: Callable[[Path], Drawing],
    title: str,
) -> Pairs:
    image_root, mask_root, files = _need(images, masks, suffixes, title)
    pictures = walk(image_root, without=mask_root)[0]
    if not pictures:
        raise empty(image_root, "images")
    paired, rule, _ = matched(pictures, files, image_root, mask_root)
    drawings = []
    problems: list[Problem] = []
    for file in files:
        try:
            drawings.append(read(file))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    names = categories(drawings)
    if not names:
        raise data_error("no shape in any file", mask_root, "outlines", "export them again", "E20")
    coding, stated = coding_of(reading.task, names)
    found = {
        name: (Source(image), Source(file, None, kind, (file, image), names, coding=coding))
        for name, (image, file) in paired.items()
    }
    count = sum(len(drawing.shapes) for drawing in drawings)
    bare = [file for file, drawing in zip(files, drawings, strict=True) if not drawing.shapes]
    return finished(
        found,
        f"{title}, {rule}: {count} shapes of {_said(names, coding)}",
        image_root,
        mask_root,
        notes=[f"{len(bare)} files without shapes are read as empty: {some(bare)}"] if bare else (),
        stated=stated,
    )


def _need(
    images: Path, masks: Path | None, suffixes: tuple[str, ...], title: str
) -> tuple[Path, Path, list[Path]]:
    """The folders and the files.

    Raises:
        DataError: there is none.
    """
    for suffix in suffixes:
        both = _sides(images, masks, suffix)
        if both is not None:
            return both
    raise data_error(
        f"no {title} files", masks or images, f"one for each image, {suffixes[0]}", "add them", "A02"
    )


def _sides(images: Path, masks: Path | None, suffix: str) -> tuple[Path, Path, list[Path]] | None:
    """The folder of the images, that of the files of such a suffix, and these files; None without any.

    Files directly among the images count where they are called as an image is.
    """
    if not images.is_dir() or (masks is not None and not masks.is_dir()):
        return None
    if masks is not None:
        places = [(images, masks)]
    else:
        try:
            twin = twins(images)
        except DataError:  # several folders of masks: a question that the plain layouts ask
            twin = None
        places = [*([twin] if twin else []), (images, images)]
    for image_root, root in places:
        inside = files_in(root)
        stems = {stem_of(file) for file in inside if is_image(file)}
        files = [
            file
            for file in inside
            if file.suffix.lower() == suffix
            and (root != image_root or stem_of(file) in stems or suffix == ".geojson")
        ]
        if files:
            return image_root, root, files
    return None


def _ends(path: Path) -> bytes:
    """The first and the last bytes: LabelMe puts the picture itself between them."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _HEAD))
            return head + file.read()
    except OSError:
        return b""
