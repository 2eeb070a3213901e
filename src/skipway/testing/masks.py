"""E: masks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.testing.cases import Case, case, classes, load, numbered, pairs_of, save, square, ten

Change = Callable[[NDArray[Any]], NDArray[Any]]
COLOURS = [0, 0, 0, 200, 30, 30, 30, 200, 30, 30, 30, 200]


def masks(change: Change, *names: str, suffix: str = "", **options: Any) -> Any:
    """Every mask, or the named ones, changed, under another suffix where one is given."""

    def spoil(root: Path) -> None:
        for path in sorted((root / "masks").iterdir()):
            if not names or path.name in names:
                changed = np.ascontiguousarray(change(load(path)))
                goal = path.with_suffix(suffix) if suffix else path
                path.unlink()
                save(goal, changed, **options)

    return spoil


def _one_palette(path: Path, indices: NDArray[Any], colours: list[int]) -> None:
    from PIL import Image

    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(colours)
    image.save(path)


def _palettes(*, other: bool) -> Any:
    def spoil(root: Path) -> None:
        for number, path in enumerate(sorted((root / "masks").iterdir())):
            swapped = COLOURS[:3] + COLOURS[6:9] + COLOURS[3:6] + COLOURS[9:]
            _one_palette(path, load(path), swapped if other and number == 3 else COLOURS)

    return spoil


def _alpha(root: Path) -> None:
    path = root / "masks/c2.png"
    mask = load(path)
    save(path, np.dstack([np.zeros((*mask.shape, 3), np.uint8), mask]))


def _resaved(root: Path) -> None:
    """Through JPEG and back to PNG."""
    from PIL import Image

    path = root / "masks/c2.png"
    through = path.with_suffix(".jpg")
    Image.fromarray(load(path)).save(through, quality=60)
    Image.open(through).save(path)
    through.unlink()


def _smoothed(root: Path) -> None:
    """One mask smaller and back, each time between its pixels."""
    from PIL import Image

    path = root / "masks/c2.png"
    mask = Image.open(path).convert("L")
    half = mask.resize((mask.width // 3, mask.height // 3), Image.Resampling.BILINEAR)
    half.resize(mask.size, Image.Resampling.BILINEAR).save(path)


def _seams(root: Path) -> None:
    """Where 1 meets 3, one pixel of 2, as interpolation and rounding leave it."""
    from scipy import ndimage

    for path in sorted((root / "masks").iterdir()):
        mask = load(path).copy()
        core = ndimage.binary_erosion(mask == 3, np.ones((3, 3)))
        mask[(mask == 3) & ~core] = 2
        save(path, mask)


def _seams_in_one(root: Path) -> None:
    """A mask without class 1 gets one pixel of it around its discs; all others keep theirs."""
    from scipy import ndimage

    path = root / "masks/c2.png"
    discs = load(path) == 3
    save(path, np.where(discs, 3, ndimage.binary_dilation(discs)).astype(np.uint8))


def _specks(mask: NDArray[Any]) -> NDArray[Any]:
    """Three pixels of a value that is no class, in two places."""
    changed = mask.copy()
    changed[3, 5:7] = changed[40, 50] = 7
    return changed


def _clean_classes(root: Path, seed: int) -> None:
    """{0, 1, 3}: broad bands of 1 around discs of 3."""
    from scipy import ndimage

    pairs_of(
        root, seed,
        mask=lambda a: np.where(a > 0, 3, ndimage.binary_dilation(a > 0, iterations=5)).astype(np.uint8),
    )  # fmt: skip


def _some_value(value: int, dtype: Any = np.uint8) -> Change:
    """A column of another value in a mask of 0 and 1."""

    def change(mask: NDArray[Any]) -> NDArray[Any]:
        changed = (mask > 0).astype(dtype)
        changed[:, -6:] = value
        return changed

    return change


def _three_classes(mask: NDArray[Any]) -> NDArray[np.uint8]:
    changed = (mask > 0).astype(np.uint8)
    changed[:8] = 2
    changed[:, -6:] = 255
    return changed


def _only_last(root: Path) -> None:
    path = root / "masks/c5.png"
    mask = load(path).copy()
    mask[:9, :9] = 7
    save(path, mask)


def _many_ids(mask: NDArray[Any]) -> NDArray[np.uint16]:
    """More than 255 numbers, each a single place."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = (rows % 3 > 0) & (columns % 3 > 0)
    return np.where(inside, rows // 3 * 22 + columns // 3 + 1, 0).astype(np.uint16)


def _same(root: Path) -> None:
    first = (root / "masks/c0.png").read_bytes()
    for path in (root / "masks").iterdir():
        path.write_bytes(first)


def _rotated(root: Path) -> None:
    """Each image gets the mask of the next."""
    paths = sorted((root / "masks").iterdir())
    held = [path.read_bytes() for path in paths]
    for path, data in zip(paths, [*held[1:], held[0]], strict=True):
        path.write_bytes(data)


def _swapped(root: Path) -> None:
    """Two masks exchanged."""
    one, two = root / "masks/c2.png", root / "masks/c5.png"
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)


def _coco(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()
    files = [{"id": k, "file_name": f"c{k}.png", "height": 48, "width": 64} for k in range(6)]
    shapes = [{"id": k, "image_id": k, "category_id": 1, "iscrowd": 0, "area": 100, "bbox": [3, 3, 10, 10],
               "segmentation": [[3, 3, 13, 3, 13, 13, 3, 13]]} for k in range(6)]  # fmt: skip
    table = {"images": files, "annotations": shapes, "categories": [{"id": 1, "name": "disc"}]}
    (root / "masks/annotations.json").write_text(json.dumps(table))


def _overlapping(root: Path) -> None:
    for path in sorted((root / "masks").iterdir()):
        mask = load(path)
        for name, shift in (("cell", 0), ("halo", 3)):
            save(root / "masks" / name / path.name, np.roll(mask, shift, 1))
        path.unlink()


def _values(*values: int) -> Any:
    return lambda found: found.labels is not None and found.labels.values == values


CASES: tuple[Case, ...] = (
    case(
        "E01",
        "{0, 1} in one mask, {0, 255} elsewhere",
        "E",
        masks(lambda m: m // 255, "c2.png"),
        says=("c2.png", "255"),
    ),
    case("E03", "one mask of ten inverted", "W", masks(lambda m: 255 - m, "c4.png"), ten, says=("c4",)),
    case("E04", "palette masks", "R", _palettes(other=False), classes, holds=_values(0, 1, 2, 3)),
    case("E05", "palettes that differ", "E", _palettes(other=True), classes, says=("c3.png",)),
    case(
        "E07",
        "RGB with R = G = B",
        "W",
        masks(lambda m: np.dstack([m] * 3), "c2.png"),
        says=("c2.png", "R=G=B"),
    ),
    case("E08", "classes in the alpha plane", "E", _alpha, code="D03", says=("c2.png", "alpha")),
    case(
        "E09",
        "a JPEG mask",
        "E",
        masks(lambda m: m, "c2.png", suffix=".jpg", quality=95),
        says=("c2.jpg", "JPEG"),
    ),
    case("E11", "through JPEG, then PNG", "E", _resaved, says=("c2.png", "JPEG")),
    case("E11-smooth", "one mask resized smoothly", "E", _smoothed, says=("c2.png", "smeared")),
    case("E13", "a seam of 2 between 1 and 3", "W", _seams, _clean_classes, says=("value 2", "seam")),
    case(
        "E12",
        "three pixels of 7 in one mask",
        "W",
        masks(_specks, "c2.png"),
        classes,
        says=("value 7 is in 1 of 6 masks, 3 pixels: a stray value?: c2",),
    ),
    case("E13-one", "a seam of 1 in one mask", "W", _seams_in_one, _clean_classes, says=("in 1 of 6", "c2")),
    case(
        "E15",
        "numbers up to 2^31 - 1",
        "R",
        masks(lambda m: np.where(m > 0, 2**31 - 1, 0).astype(np.int32), suffix=".tif"),
        holds=_values(0, 2**31 - 1),
    ),
    case("E16", "-1", "E", masks(_some_value(-1, np.int32), suffix=".tif"), says=("-1", "--ignore")),
    case("E18", "255 beside small classes", "E", masks(_three_classes), says=("255", "--ignore")),
    case(
        "E19",
        "a mask of ignored pixels only",
        "W",
        masks(lambda m: np.full_like(m, 9), "c2.png"),
        classes,
        options={"ignore": 9},
        says=("c2", "not annotated"),
    ),
    case(
        "E20",
        "a mask of background only",
        "R",
        masks(np.zeros_like, "c2.png"),
        code="",
        holds=lambda f: [s.text for s in f.suspicions] == ["1 of 6 masks hold background only: c2"],
    ),
    case("E20-all", "no mask holds anything", "E", masks(np.zeros_like), code="E20"),
    case(
        "E21",
        "a mask of foreground only",
        "R",
        masks(lambda m: np.full_like(m, 255), "c2.png"),
        holds=_values(0, 255),
    ),
    case("E22", "a class in validation only", "W", _only_last, classes, says=("value 7",)),
    case(
        "E24",
        "whole numbers as floats",
        "R",
        masks(lambda m: (m / 255).astype(np.float32), suffix=".tif"),
        holds=_values(0, 1),
    ),
    case(
        "E25",
        "halves",
        "E",
        masks(lambda m: (m / 510).astype(np.float32), "c2.png", suffix=".tif"),
        says=("c2.tif", "0.5"),
    ),
    case(
        "E26",
        "NaN in a mask",
        "E",
        masks(lambda m: np.where(m > 0, np.nan, 0).astype(np.float32), "c2.png", suffix=".tif"),
        says=("c2.tif", "NaN"),
    ),
    case(
        "E27",
        "numbered objects as classes",
        "E",
        masks(_many_ids),
        says=("objects",),
        options={"task": "classes"},
    ),
    case(
        "E28",
        "more than 255 numbers",
        "R",
        masks(_many_ids, suffix=".tif"),
        numbered,
        holds=lambda f: (
            f.labels.task == "objects" and f.labels.ids and min(r.values.ids for r in f.records) > 255
        ),
    ),
    case("E29", "1-bit masks", "R", masks(lambda m: m > 0), holds=_values(0, 1)),
    case(
        "E30", "classes that overlap, a folder each", "R", _overlapping, holds=lambda f: len(f.records) == 6
    ),
    case("E31", "COCO instead of masks", "R", _coco, holds=lambda f: len(f.records) == 6),
    case("E37", "one mask for all", "W", _same, says=("c0", "6 images")),
    case("E38", "every mask of another image", "W", _rotated, square, says=("fit",)),
    case(
        "E38-two",
        "two masks exchanged",
        "W",
        _swapped,
        square,
        says=("c2 with the mask of c5", "c5 with the mask of c2"),
    ),
    case(
        "E39",
        "a mask of two pages",
        "E",
        masks(lambda m: np.stack([m, m]), "c2.png", suffix=".tif", metadata={"axes": "ZYX"}),
        code="B15",
        says=("c2", "pages"),
    ),
)
