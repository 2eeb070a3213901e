"""Outlines in JSON as shapes: COCO, LabelMe, and GeoJSON as QuPath writes it.

One rule for all: a pixel belongs to a shape if its centre lies inside it, with the corner of the first pixel at
(0, 0) and its centre at (½, ½). Polygons of one shape are united, holes are cut out, and crossing outlines count
as even and odd.
"""

import base64
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import SkipwayError
from skipway.images import refused

Ring = NDArray[np.float64]
"""Corners (N, 2) as (x, y)."""

UNNAMED = "object"
"""Category of shapes without one."""


@dataclass(frozen=True)
class Shape:
    """One annotation.

    Attributes:
        category: What it is called.
        polygons: Outlines, each with its holes.
        bitmap: Pixels that are given as such, and where they begin as (row, column).
        crowd: Whether it covers several objects that nobody told apart.
        group: Shapes of one name are one object.
    """

    category: str
    polygons: tuple[tuple[Ring, ...], ...] = ()
    bitmap: NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)
    crowd: bool = False
    group: str = ""

    def inside(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """The box of an image of (H, W) that it lies in, and which pixels of the box belong to it."""
        if self.bitmap is not None:
            (top, left), (height, width) = self.corner, self.bitmap.shape
            box = _within((top, left), (top + height, left + width), size)
            rows, columns = box
            return box, self.bitmap[
                rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
        corners = np.concatenate([outline for outline, *_ in self.polygons] or [np.zeros((1, 2))])
        limit = 1 + max(size)
        low, high = (
            np.clip(side, -1, limit)[::-1].astype(int) for side in (corners.min(0), corners.max(0) + 1)
        )
        box = _within((low[0], low[1]), (high[0], high[1]), size)
        rows, columns = box
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        for polygon in self.polygons:
            outline, *holes = (filled(ring - (columns.start, rows.start), found.shape) for ring in polygon)
            for hole in holes:
                outline &= ~hole
            found |= outline
        return box, found


@dataclass(frozen=True)
class Drawing:
    """The shapes of one image.

    Attributes:
        shapes: In the order in which they are drawn.
        size: (H, W) that the file says, None where it does not.
        notes: What was left out, for people.
    """

    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coco:
    """What a COCO file holds.

    Attributes:
        images: By id: file name and size.
        shapes: By id of the image.
        categories: Names in the order of their numbers.
        notes: What was left out, by id of the image.
    """

    images: Mapping[str, tuple[str, tuple[int, int]]]
    shapes: Mapping[str, tuple[Shape, ...]]
    categories: tuple[str, ...]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def filled(ring: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside an outline.

    >>> filled(np.array([(1, 0), (3, 0), (3, 1), (1, 1)], float), (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    from skimage.draw import polygon  # slow to import

    found = np.zeros(size, bool)
    if len(ring) > 2:
        found[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, size)] = True
    return found


def read_coco(path: Path) -> Coco:
    """A COCO file, parsed once for each change of the file."""
    return _coco(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _coco(path: Path, changed: int) -> Coco:
    held = read_json(path)
    with _plain(path, "images, annotations and categories as COCO has them"):
        numbered = {c["id"]: str(c["name"]) for c in held.get("categories", ())}
        images = {
            str(i["id"]): (str(i["file_name"]), (int(i["height"]), int(i["width"]))) for i in held["images"]
        }
        shapes: defaultdict[str, list[Shape]] = defaultdict(list)
        boxes: defaultdict[str, int] = defaultdict(int)
        for entry in held["annotations"]:
            key = str(entry["image_id"])
            if not entry.get("segmentation"):
                boxes[key] += 1
                continue
            name = numbered[entry["category_id"]]
            shapes[key].append(_coco_shape(entry, name, images[key][1]))
    used = {shape.category for found in shapes.values() for shape in found}
    names = tuple(name for _, name in sorted(numbered.items()) if name in used)
    notes = {key: (f"{count} boxes without outline are left out",) for key, count in boxes.items()}
    return Coco(
        images, {key: tuple(found) for key, found in shapes.items()}, tuple(dict.fromkeys(names)), notes
    )


def _coco_shape(entry: Mapping[str, Any], name: str, size: tuple[int, int]) -> Shape:
    outline = entry["segmentation"]
    crowd = bool(entry.get("iscrowd"))
    if isinstance(outline, dict):
        height, width = (int(side) for side in outline["size"])
        if (height, width) != size:
            raise ValueError(f"run lengths for {height} × {width} in an image of {size[0]} × {size[1]}")
        return Shape(name, bitmap=run_lengths(outline["counts"], size), crowd=crowd)
    return Shape(name, tuple((_ring(np.reshape(flat, (-1, 2))),) for flat in outline), crowd=crowd)


def run_lengths(counts: str | Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A bitmap from COCO's run lengths: column by column, beginning with those outside.

    Text holds the runs in base 32, five bits a letter from the lowest up, each letter 48 more than its number; bit 6
    says that another follows, bit 5 of the last is the sign; from the fourth run on, the difference to the run before
    the last is written.

    Raises:
        ValueError: they do not fill the picture.

    >>> run_lengths([1, 2, 1], (2, 2)).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    runs = np.asarray(_run_text(counts) if isinstance(counts, str) else counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise ValueError(f"run lengths of {int(runs.sum())} pixels for {size[0]} × {size[1]}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    found: NDArray[np.bool_] = flat.reshape(size[1], size[0]).T
    return found


def _run_text(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("letters that are no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def read_labelme(path: Path) -> Drawing:
    """A LabelMe file, parsed once for each change of the file."""
    return _labelme(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _labelme(path: Path, changed: int) -> Drawing:
    held = read_json(path)
    left: defaultdict[str, int] = defaultdict(int)
    shapes = []
    with _plain(path, "shapes as LabelMe has them"):
        for entry in held["shapes"]:
            kind = entry.get("shape_type", "polygon")
            draw = _LABELME.get(kind)
            if draw is None:
                left[kind] += 1
                continue
            group = "" if entry.get("group_id") is None else f"{entry['group_id']} {entry['label']}"
            shapes.append(draw(entry, str(entry["label"]), group))
        sides = held.get("imageHeight"), held.get("imageWidth")
        size = None if None in sides else (int(sides[0]), int(sides[1]))
    notes = tuple(f"{count} shapes of type {kind} are left out" for kind, count in left.items())
    return Drawing(tuple(shapes), size, notes)


def _polygon(entry: Mapping[str, Any], name: str, group: str) -> Shape:
    return Shape(name, ((_ring(entry["points"]),),), group=group)


def _rectangle(entry: Mapping[str, Any], name: str, group: str) -> Shape:
    (left, top), (right, bottom) = _ring(entry["points"])
    return Shape(name, ((_ring([(left, top), (right, top), (right, bottom), (left, bottom)]),),), group=group)


def _circle(entry: Mapping[str, Any], name: str, group: str) -> Shape:
    """Centre and a point on the rim; a polygon of 256 corners."""
    centre, rim = _ring(entry["points"])
    turns = np.arange(256) * (2 * np.pi / 256)
    ring = centre + np.hypot(*(rim - centre)) * np.stack((np.cos(turns), np.sin(turns)), 1)
    return Shape(name, ((_ring(ring),),), group=group)


def _bitmap(entry: Mapping[str, Any], name: str, group: str) -> Shape:
    """Pixels as a PNG in base 64, with the corners of its box."""
    from PIL import Image

    (left, top), _ = _ring(entry["points"])
    with Image.open(io.BytesIO(base64.b64decode(entry["mask"], validate=True)), formats=["PNG"]) as picture:
        bits = np.asarray(picture.convert("L")) > 0
    return Shape(name, bitmap=bits, corner=(int(top), int(left)), group=group)


_LABELME: Mapping[str, Callable[[Mapping[str, Any], str, str], Shape]] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _bitmap,
}


def read_geojson(path: Path) -> Drawing:
    """A GeoJSON file, parsed once for each change of the file."""
    return _geojson(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _geojson(path: Path, changed: int) -> Drawing:
    held = read_json(path)
    left: defaultdict[str, int] = defaultdict(int)
    shapes = []
    with _plain(path, "features as GeoJSON has them"):
        for feature in features(held):
            geometry = feature["geometry"]
            kind = geometry["type"]
            polygons = {
                "Polygon": lambda g: [g["coordinates"]],
                "MultiPolygon": lambda g: g["coordinates"],
            }.get(kind)
            if polygons is None:
                left[kind] += 1
                continue
            said = (feature.get("properties") or {}).get("classification") or {}
            name = str(said.get("name") or UNNAMED)
            rings = tuple(tuple(_ring(ring) for ring in polygon) for polygon in polygons(geometry))
            shapes.append(Shape(name, rings))
    notes = tuple(f"{count} shapes of type {kind} are left out" for kind, count in left.items())
    return Drawing(tuple(shapes), None, notes)


def features(held: Any) -> list[Any]:
    """The features of a collection, a list, or a single one."""
    if isinstance(held, list):
        return held
    return list(held["features"]) if "features" in held else [held]


def categories(drawings: Iterable[Drawing]) -> tuple[str, ...]:
    """The names in several drawings, sorted."""
    return tuple(sorted({shape.category for drawing in drawings for shape in drawing.shapes}))


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is none.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise refused(
            path, "not readable as JSON", "a complete JSON file", "export it again", "F01"
        ) from error


def _ring(points: Any) -> Ring:
    ring = np.asarray(points, np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError("points that are not pairs of finite numbers")
    return ring[:, :2]


def _within(low: tuple[int, int], high: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """The part of a box from `low` to before `high` (row, column) that lies in an image."""
    starts = [min(max(0, int(one)), side) for one, side in zip(low, size, strict=True)]
    stops = [min(max(start, int(one)), side) for one, start, side in zip(high, starts, size, strict=True)]
    return slice(starts[0], stops[0]), slice(starts[1], stops[1])


@contextmanager
def _plain(path: Path, expected: str) -> Iterator[None]:
    """Turns whatever odd JSON raises into one `DataError`."""
    try:
        yield
    except (SkipwayError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # a missing key, text for a number, a picture that is none: all one to the user
        reason = " ".join(str(error).split())[:80]
        raise refused(path, f"{type(error).__name__} {reason}", expected, "export it again", "F01") from error
