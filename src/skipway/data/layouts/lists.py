"""Text files and tables that name the images and masks: `train.txt`, VOC's ImageSets, a CSV of pairs."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from skipway.data.folders import data_error, empty, files_in, images_in, is_there
from skipway.data.layouts.matching import keyed
from skipway.data.layouts.pairs import GROUPINGS, SIDES, Pairs, Reading, Stated, finished
from skipway.data.layouts.tables import rows_of
from skipway.data.names import key_of
from skipway.data.sources import Source
from skipway.errors import DataError, Problem
from skipway.images import is_image, shown, stem_of

VOC_BORDER = 255
"""Value of the border around objects in masks of PASCAL VOC, which nobody annotated."""

Both = tuple[Source, Source]


def is_table(images: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether a table of pairs is named, as `--pairs` or in the place of the images."""
    return reading.pairs is not None or (images.suffix.lower() == ".csv" and images.is_file())


def table(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    """A CSV with columns image and mask, and optionally group, split and page; paths begin at its folder.

    Where a file is not there, its path is tried from the folder of the images too.
    """
    path = reading.pairs or images
    if path.suffix.lower() not in (".csv", ".tsv", ".txt") or not path.is_file():
        raise data_error("no table", path, "a CSV with columns image and mask", "name it with --pairs", "A33")
    rows = rows_of(path)
    if not rows or not {"image", "mask"} <= rows[0].keys():
        columns = ", ".join(rows[0]) if rows else "no rows"
        raise data_error(f"columns {columns}", path, "image and mask", "correct its first line", "A33")
    grouping = next((head for head in GROUPINGS if head in rows[0]), "group")
    starts = [path.parent, *([images] if images.is_dir() else [])]
    found: dict[str, Both] = {}
    groups: dict[str, str] = {}
    sides: dict[str, str] = {}
    missing: list[str] = []
    held = 0
    for row in rows:
        files = [_placed(row[column], starts) for column in ("image", "mask")]
        missing += [
            row[column] for column, file in zip(("image", "mask"), files, strict=True) if file is None
        ]
        side = _side(row.get("split", ""), path)
        held += side == "test"
        if None in files or side == "test":
            continue
        image, mask = files
        assert image is not None
        assert mask is not None
        page = _page(row.get("page", ""), path)
        name = _row_name(row["image"], image, page)
        if name in found:
            raise data_error(f"{row['image']} stands there twice", path, "once", "remove one row", "A08")
        found[name] = (Source(image, page), Source(mask, page))
        groups |= {name: row[grouping]} if row.get(grouping) else {}
        sides |= {name: side} if side else {}
    _refuse_missing(missing, path, "A03")
    if sides and len(sides) < len(found):
        lonely = sorted(found.keys() - sides.keys())[:5]
        raise data_error(
            f"no split for {', '.join(lonely)}", path, "train, val or test", "fill the column", "L05"
        )
    said = [f"column {c}" for c, there in ((grouping, groups), ("split", sides)) if there]
    notes = [f"{held} rows of split test are left aside: evaluate on them"] if held else []
    rule = f"{path.name} lists {len(found)} pairs" + (f", {' and '.join(said)} read" if said else "")
    return finished(
        found, rule, path.parent, path.parent, notes=notes, stated=Stated(groups=groups, sides=sides)
    )


def _row_name(image: str, file: Path, page: int | None) -> str:
    path = PurePosixPath(image.replace("\\", "/"))
    folders = [part for part in path.parts[:-1] if part not in ("..", ".", "/")]
    name = unicodedata.normalize("NFC", PurePosixPath(*folders, stem_of(file)).as_posix())
    return name if page is None else f"{name}#{page:03d}"


def _page(text: str, path: Path) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise data_error(f"page {text!r}", path, "a number from 0", "correct the column", "A33")
    return int(text)


def _side(text: str, path: Path) -> str:
    side = SIDES.get(text.casefold(), "")
    if text and not side:
        raise data_error(f"split {text!r}", path, "train, val or test", "correct the column", "L05")
    return side


def _placed(text: str, starts: Sequence[Path]) -> Path | None:
    """The file that a path in a table means."""
    given = text.replace("\\", "/")
    for start in starts:
        for form in ("NFC", "NFD"):
            file = start / unicodedata.normalize(form, given)
            if given and is_there(file):
                return file
    return None


def _refuse_missing(missing: Sequence[str], path: Path, code: str) -> None:
    if missing:
        names = ", ".join(shown(name) or "an empty cell" for name in missing[:8])
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise data_error(
            f"{len(missing)} files that are not there: {names}{more}",
            path,
            "paths that begin at its folder",
            "correct the paths",
            code,
        )


def is_voc(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether it is a data set in the form of PASCAL VOC."""
    return masks is None and all((root / name).is_dir() for name in ("JPEGImages", "SegmentationClass"))


def voc(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`JPEGImages/a.jpg` with `SegmentationClass/a.png`; ImageSets/Segmentation says which train and validate."""
    images = keyed(images_in(root / "JPEGImages"), root / "JPEGImages")
    labels = keyed(images_in(root / "SegmentationClass"), root / "SegmentationClass")
    folder = root / "ImageSets" / "Segmentation"
    files = [folder / f"{side}.txt" for side in ("train", "val") if (folder / f"{side}.txt").is_file()]
    sides = {name: file.stem for file in files for name in _lines(file)}
    names = list(sides) or list(labels)
    if not images or not names:
        raise empty(root / "JPEGImages", "images")
    missing = [name for name in names if name not in images or name not in labels]
    _refuse_missing(missing, files[0] if files else root / "SegmentationClass", "L05" if files else "A03")
    found = {name: (Source(images[name]), Source(labels[name])) for name in names}
    aside = {name: Source(file) for name, file in images.items() if name not in found}
    rule = "PASCAL VOC: JPEGImages with SegmentationClass"
    if files:
        rule += f", sides by ImageSets/Segmentation/{' and '.join(file.name for file in files)}"
    both = {"train", "val"} <= set(sides.values())
    return finished(
        found,
        f"{rule}; {VOC_BORDER} is not annotated",
        root / "JPEGImages",
        root / "SegmentationClass",
        notes=[f"{len(aside)} images without mask in these lists are left aside"] if aside else (),
        stated=Stated("classes", ignore=VOC_BORDER, sides=sides if both else {}),
        unannotated=aside.items(),
    )


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise data_error("not a text file", path, "names, one a line", "save it again", "A33") from error
    return [unicodedata.normalize("NFC", line.strip()) for line in text.splitlines() if line.strip()]


def is_lists(root: Path, masks: Path | None, reading: Reading) -> bool:
    """Whether train.txt, val.txt and the like hold lines of an image and a mask."""
    return masks is None and root.is_dir() and bool(_pair_lists(root))


def lists(root: Path, masks: Path | None, reading: Reading) -> Pairs:
    """`train.txt` with lines `train/a.png trainannot/a.png`; paths begin at the folder, or lose what stands before."""
    found: dict[str, Both] = {}
    sides: dict[str, str] = {}
    problems: list[Problem] = []
    notes = []
    files = _pair_lists(root)
    if not files:
        raise data_error("no train.txt with lines `image mask`", root, "one", "write it", "A09")
    for file, side in files.items():
        lines = [_two(line) for line in _lines(file)]
        if side == "test":
            notes.append(f"{file.name} is left aside: evaluate on its {len(lines)} pairs")
            continue
        placed = [
            (image, _below(root, image), _below(root, mask), mask) for image, mask in filter(None, lines)
        ]
        broken = sum(line is None for line in lines)
        missing = [t for image, a, b, mask in placed for t, f in ((image, a), (mask, b)) if f is None]
        try:
            _refuse_missing([*missing, *["a line without two paths"] * broken], file, "L05")
        except DataError as error:
            problems += error.problems
        for _, image, mask, _ in placed:
            if image is None or mask is None:
                continue
            name = key_of(image, root)
            if name in found and sides.get(name) != side:
                problems.append(Problem(f"{name} is in two lists", shown(file), "one", "remove it", "A25"))
            found[name], sides[name] = (Source(image), Source(mask)), side
    if problems:
        raise DataError(*problems)
    both = {"train", "val"} <= set(sides.values())
    names = " and ".join(file.name for file, side in files.items() if side != "test")
    stated = Stated(sides=sides if both else {})
    return finished(found, f"{names} list images and masks", root, root, notes=notes, stated=stated)


def _pair_lists(root: Path) -> dict[Path, str]:
    """Lists of two paths a line, with the side their names say; `trainval.txt` only where there is no other."""
    found = {
        file: SIDES[file.stem.casefold()]
        for file in files_in(root)
        if file.suffix.lower() == ".txt" and file.stem.casefold() in SIDES and _is_pair(root, file)
    }
    whole = root / "trainval.txt"
    if found or not whole.is_file() or not _is_pair(root, whole):
        return found
    return {whole: "train"}


def _is_pair(root: Path, file: Path) -> bool:
    try:
        lines = _lines(file)
    except DataError:
        return False
    return bool(lines) and _two(lines[0]) is not None


def _two(line: str) -> tuple[str, str] | None:
    """Two paths of images, apart by a tab, a comma or a space."""
    for between in ("\t", ",", " "):
        parts = [part.strip() for part in line.split(between)]
        for cut in range(1, len(parts)):
            two = between.join(parts[:cut]), between.join(parts[cut:])
            if all(is_image(PurePosixPath(part)) for part in two):
                return two
    return None


def _below(root: Path, text: str) -> Path | None:
    """The file in the folder that a path from another computer means: without its first folders, one by one."""
    parts = [part for part in re.split(r"[/\\]", text) if part not in ("", ".", "..")]
    return next((file for skip in range(len(parts)) if is_there(file := root.joinpath(*parts[skip:]))), None)
