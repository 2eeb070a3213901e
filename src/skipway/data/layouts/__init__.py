"""Which mask belongs to which image: by name, never by order, by a rule that is said.

`LAYOUTS` lists the ways in which people keep their data, in the order in which they are tried. A new one is a
row: its name, what tells it (names of files only), and what reads it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from skipway.data import exchanged
from skipway.data.folders import data_error, empty, images_in, is_one, some, subfolders, twins, walk
from skipway.data.layouts import cases, challenges, folders, lists, marked, shapes
from skipway.data.layouts.pairs import Pair, Pairs, Reading, Stated, Volume, natural, volumes
from skipway.data.layouts.tables import with_tables
from skipway.data.sources import Source
from skipway.errors import DataError, Problem, SkipwayError, UsageError
from skipway.images import CHANNELS, output_name, shown, stem_of

__all__ = [
    "LAYOUTS",
    "Layout",
    "Pair",
    "Pairs",
    "Reading",
    "Source",
    "Stated",
    "Volume",
    "find_images",
    "find_masks",
    "find_pairs",
    "list_files",
    "natural",
    "volumes",
]


@dataclass(frozen=True)
class Layout:
    """A way in which images and masks are kept.

    Attributes:
        name: What `--layout` calls it.
        recognise: Whether it is this one, from (images, masks, reading); looks at names only.
        read: The pairs, from the same.
        own: Whether its signs belong to no other layout; two such at once are a question for the user.
        beside_masks: Whether its files may lie beside masks that are pictures, and then are a question too.
    """

    name: str
    recognise: Callable[[Path, Path | None, Reading], bool]
    read: Callable[[Path, Path | None, Reading], Pairs]
    own: bool = True
    beside_masks: bool = False


LAYOUTS = (
    Layout("pairs", lists.is_table, lists.table),
    Layout("nnunet", challenges.is_nnunet, challenges.nnunet),
    Layout("decathlon", challenges.is_decathlon, challenges.decathlon),
    Layout("tracking", challenges.is_tracking, challenges.tracking),
    Layout("voc", lists.is_voc, lists.voc),
    Layout("lists", lists.is_lists, lists.lists),
    Layout("objects", cases.is_objects, cases.objects),
    Layout("classes", cases.is_classes, cases.classes),
    Layout("coco", shapes.is_coco, shapes.coco, beside_masks=True),
    Layout("labelme", shapes.is_labelme, shapes.labelme, beside_masks=True),
    Layout("geojson", shapes.is_geojson, shapes.geojson, beside_masks=True),
    Layout("matlab", shapes.is_matlab, shapes.matlab),
    Layout("splits", folders.is_splits, folders.splits, own=False),
    Layout("sites", folders.is_sites, folders.sites, own=False),
    Layout("files", folders.is_files, folders.two_files, own=False),
    Layout("folders", folders.is_folders, folders.folders, own=False),
    Layout("partly", lambda images, masks, reading: False, folders.partly, own=False),
    Layout("formats", marked.has_formats, marked.by_format, own=False),
    Layout("words", marked.has_words, marked.worded, own=False),
    Layout("marked", marked.has_marks, marked.marked, own=False),
)
SETS = ("splits", "sites", "formats", "words")
"""General layouts that are told by both sides, so that of such a folder one side is predicted or compared."""

UNPAIRED = ("A01", "A02", "A03", "A05")
"""Refusals that may come of images and masks in the wrong order."""

NAMES: Mapping[str, Layout] = {layout.name: layout for layout in LAYOUTS}


def find_pairs(images: Path, masks: Path | None = None, reading: Reading | None = None) -> Pairs:
    """Pairs images with masks.

    Args:
        images: A folder of images, a folder that holds a whole data set, a table of pairs, or a stack.
        masks: A folder of masks, a stack, or a file of shapes; left out, it is looked for inside and beside `images`.
        reading: What the user says about the layout.

    Raises:
        DataError: nothing to pair, names without partner (all of them listed), names that are not unique,
            stacks of different page counts, a folder that can be read in several ways, or images and masks in the
            wrong order.
        UsageError: a path that does not exist, a layout that does not, or options that exclude each other.
    """
    reading = reading or Reading()
    images, masks = Path(images), Path(masks) if masks is not None else None
    _refuse_options(images, masks, reading)
    try:
        return _coloured(_read(images, masks, reading), reading.colour)
    except DataError as error:
        unpaired = all(problem.code in UNPAIRED for problem in error.problems)
        if masks is not None and unpaired and _exchanged(images, masks, reading):
            raise DataError(exchanged.refusal(images, masks)) from error
        raise


def _exchanged(images: Path, masks: Path, reading: Reading) -> bool:
    """Whether two folders that do not pair are in the wrong order: they look so, or pair the other way round."""
    try:
        sides = ([source for _, source in list_files(folder)] for folder in (images, masks))
        if exchanged.in_folders(*sides):
            return True
    except SkipwayError:  # such as shapes in JSON, which are no pictures
        pass
    try:
        return bool(_read(masks, images, reading).pairs)
    except SkipwayError:
        return False


def _read(images: Path, masks: Path | None, reading: Reading) -> Pairs:
    layout, root = _layout(images, masks, reading)
    if layout is None:
        raise UsageError(Problem("one image file without masks", shown(images), fix="name the masks as well"))
    found = layout.read(root, masks, reading)
    if not found.pairs:
        raise data_error(
            f"no pair of image and mask in the layout {layout.name!r}",
            root,
            "images with masks as docs/layouts.md draws them",
            "leave out --layout, or name another",
            "A01",
        )
    return with_tables(found, reading)


def find_images(path: Path, reading: Reading | None = None) -> tuple[tuple[str, Source], ...]:
    """Images to predict: a file, or all images in a folder and below.

    Args:
        path: File or folder. Of a folder that holds a data set, its images, annotated or not.
        reading: What the user says about the layout.

    Returns:
        (name, source) in natural order; the name is the path from the folder, without suffix.

    Raises:
        DataError: no image, or two images whose labels would get one file name.
        UsageError: no such path.
    """
    path = Path(path)
    found = _whole(path, reading or Reading())
    if found is not None:
        images = {_base(pair.name, pair.image): pair.image.whole for pair in found.pairs}
        return _ordered({**images, **dict(found.unannotated)})
    twin = twins(path, beside=False) if path.is_dir() else None
    files = list_files(twin[0] if twin else path)
    return _ordered(challenges.with_channels(path, dict(files)))


def find_masks(path: Path, reading: Reading | None = None) -> tuple[tuple[str, Source], ...]:
    """Masks to compare with: as `find_images`, and of a folder that holds a data set, its masks."""
    path = Path(path)
    found = _whole(path, reading or Reading())
    if found is not None:
        return _ordered({_base(pair.name, pair.image): pair.mask.whole for pair in found.pairs})
    twin = twins(path, beside=False) if path.is_dir() else None
    return list_files(twin[1] if twin else path)


def list_files(root: Path) -> tuple[tuple[str, Source], ...]:
    """One file, or every image file in a folder and below, whatever its sub-folders are called.

    Returns and raises as `find_images`.
    """
    root = Path(root)
    if not root.exists():
        raise UsageError(Problem("no such file or folder", shown(root), fix="check the path"))
    if is_one(root):
        return ((stem_of(root), Source(root)),)
    files, _ = walk(root)
    if not files:
        raise empty(root, "images")
    goals = Counter(str(file.relative_to(root).with_name(output_name(file))).casefold() for file in files)
    clashes = [f for f in files if goals[str(f.relative_to(root).with_name(output_name(f))).casefold()] > 1]
    if clashes:
        raise data_error(
            f"{some(clashes)} would be written under one name",
            root,
            "names that differ",
            "rename one of them",
            "A08",
        )
    return _ordered({(f.relative_to(root).parent / stem_of(f)).as_posix(): Source(f) for f in files})


def _coloured(found: Pairs, colour: str | None) -> Pairs:
    """The same, with images that are read as grey or as RGB."""
    if colour is None:
        return found
    pairs = (replace(pair, image=replace(pair.image, colour=colour)) for pair in found.pairs)
    return replace(found, pairs=tuple(pairs))


def _ordered(found: Mapping[str, Source]) -> tuple[tuple[str, Source], ...]:
    return tuple(sorted(found.items(), key=lambda item: natural(item[0])))


def _base(name: str, image: Source) -> str:
    """The name of a whole file, of that of its page."""
    return name if image.page is None else name.rpartition("#")[0]


def _refuse_options(images: Path, masks: Path | None, reading: Reading) -> None:
    if reading.colour is not None and reading.colour not in CHANNELS:
        fix = "--colours names a table of the colours of masks" if "." in reading.colour else ""
        raise UsageError(Problem(f"found {reading.colour!r}", "--colour", "grey or rgb", fix))
    if reading.colours is not None and str(reading.colours) in CHANNELS and not reading.colours.exists():
        fix = f"--colour {reading.colours} to read all images so"
        raise UsageError(Problem(f"found {reading.colours}", "--colours", "a table name,r,g,b", fix))
    for path in filter(None, (images, masks, reading.pairs, reading.colours)):
        if not path.exists():
            raise UsageError(Problem("no such file or folder", shown(path), fix="check the path"))
    if masks is not None and reading.suffix is not None:
        raise UsageError("--suffix is for images and masks in one folder; leave out either it or MASKS")
    if masks is not None and images.resolve() == masks.resolve():
        raise data_error("images and masks are the same path", images, "two places", "name the masks", "A31")
    if reading.layout is not None and reading.layout not in NAMES:
        raise UsageError(Problem(f"found {reading.layout!r}", "--layout", f"one of {', '.join(NAMES)}"))
    if reading.pairs is not None and reading.layout not in (None, "pairs"):
        raise UsageError("--pairs is a layout of its own; leave out either it or --layout")


def _layout(images: Path, masks: Path | None, reading: Reading) -> tuple[Layout | None, Path]:
    """The layout to read, and the folder it begins in: what is named, or a single folder in it.

    Raises:
        DataError: several readings are possible; the error lists them.
    """
    if reading.layout is not None:
        layout = NAMES[reading.layout]
        return layout, _inner(images, masks, layout, reading)
    own = [layout for layout in LAYOUTS if layout.own]
    for root in _starts(images, masks):
        found = [layout for layout in own if layout.recognise(root, masks, reading)]
        names = [layout.name for layout in found]
        if len(found) == 1 and found[0].beside_masks and _has_masks(root, masks):
            names.append("folders")
        if len(names) > 1:
            raise data_error(
                f"several readings are possible: {', '.join(names)}",
                root,
                "one",
                " or ".join(f"--layout {name}" for name in names),
                "A09",
            )
        if found:
            return found[0], root
    if reading.suffix:
        return NAMES["marked"], images
    general = (layout for layout in LAYOUTS if not layout.own)
    return next((layout for layout in general if layout.recognise(images, masks, reading)), None), images


def _starts(images: Path, masks: Path | None) -> list[Path]:
    """The folder that is named, and where nothing but one folder lies in it, that one, and so on."""
    starts = [images]
    while masks is None and starts[-1].is_dir() and len(starts) < 5 and not images_in(starts[-1]):
        inside = subfolders(starts[-1])
        if len(inside) != 1:
            break
        starts.append(inside[0])
    return starts


def _inner(images: Path, masks: Path | None, layout: Layout, reading: Reading) -> Path:
    fits = (root for root in _starts(images, masks) if layout.recognise(root, masks, reading))
    return next(fits, images)


def _has_masks(root: Path, masks: Path | None) -> bool:
    """Whether masks lie there as pictures."""
    both = (root, masks) if masks is not None else twins(root) if root.is_dir() else None
    return bool(both and both[1] is not None and both[1].is_dir() and walk(both[1], without=both[0])[0])


def _whole(path: Path, reading: Reading) -> Pairs | None:
    """The pairs of a folder that is a data set of a layout of its own, or of one that the user names."""
    if not path.exists() or (not path.is_dir() and path.suffix.lower() != ".csv"):
        return None
    layout, root = _layout(path, None, reading)
    if layout is None or not (layout.own or reading.layout or layout.name in SETS):
        return None
    try:
        return with_tables(layout.read(root, None, reading), reading)
    except DataError:
        if layout.name == "formats" and reading.layout is None:
            return None  # pictures of one name are a question, which the plain list asks better
        raise
