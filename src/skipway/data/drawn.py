"""Masks that are drawn when they are opened, from shapes in JSON: COCO, LabelMe, and GeoJSON as QuPath writes it.

One rule for all: a pixel belongs to a shape if its centre lies inside it, with the corner of the first pixel at
(0, 0) and its centre at (½, ½). Polygons of one shape are united, holes are cut out, and crossing outlines count
as even and odd. What "inside" is written as is the source's coding: "ids", "classes" or "bits".
"""

import base64
import binascii
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.composites import smallest
from skipway.errors import DataError, Problem
from skipway.images import ImageFile, in_memory, open_image, shown

if TYPE_CHECKING:
    from skipway.data.sources import Source

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

    def inside(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels of an image of (H, W) that belong to it."""
        found = np.zeros(size, bool)
        for outline, *holes in self.polygons:
            part = filled(outline, size)
            for hole in holes:
                part &= ~filled(hole, size)
            found |= part
        if self.bitmap is not None:
            top, left = self.corner
            room = found[max(0, top) :, max(0, left) :]
            bits = self.bitmap[max(0, -top) :, max(0, -left) :][: room.shape[0], : room.shape[1]]
            room[: bits.shape[0], : bits.shape[1]] |= bits
        return found


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


def coco(source: "Source") -> ImageFile:
    """The annotations of one image of a COCO file."""
    held = read_coco(source.path)
    _, size = held.images[source.key]
    return _drawn(source, Drawing(held.shapes.get(source.key, ()), size, held.notes.get(source.key, ())))


def labelme(source: "Source") -> ImageFile:
    """The shapes of one LabelMe file."""
    return _drawn(source, read_labelme(source.path))


def geojson(source: "Source") -> ImageFile:
    """The features of one GeoJSON file, in pixels."""
    return _drawn(source, read_geojson(source.path))


def _drawn(source: "Source", drawing: Drawing) -> ImageFile:
    """The mask; later shapes lie over earlier ones, and where they do is said, unless bits keep both."""
    with open_image(source.parts[-1]) as image:
        size = image.size
    if drawing.size not in (None, size):
        raise _refusal(
            source.path,
            f"shapes for {drawing.size[0]} × {drawing.size[1]} pixels" if drawing.size else "",
            f"{size[0]} × {size[1]} like its image {shown(source.parts[-1])}",
            "export the shapes for this image; a picture turned by its orientation tag is saved again first",
            "B04",
        )
    shapes = [s for s in drawing.shapes if not (source.coding == "ids" and s.crowd)]
    values = _values(source, shapes)
    mask = np.zeros(size, smallest(max(values, default=1) if source.coding == "ids" else _highest(source)))
    overlap = empty = 0
    for shape, value in zip(shapes, values, strict=True):
        inside = shape.inside(size)
        empty += not inside.any()
        if source.coding == "bits":
            mask[inside] |= np.asarray(value, mask.dtype)
        else:
            overlap += int(np.count_nonzero((mask[inside] != 0) & (mask[inside] != value)))
            mask[inside] = value
    notes = list(drawing.notes)
    for count, text in (
        (overlap, "pixels lie in two shapes; the later has them"),
        (empty, "shapes cover no pixel centre"),
        (len(drawing.shapes) - len(shapes), "crowd regions are left out: they are no single objects"),
    ):
        notes += [f"{count} {text}"] if count else []
    return in_memory(source.path, mask[None, None], "JSON", notes)


def _highest(source: "Source") -> int:
    return (1 << len(source.names)) - 1 if source.coding == "bits" else len(source.names)


def _values(source: "Source", shapes: Sequence[Shape]) -> list[int]:
    """What each shape is written as."""
    if source.coding == "ids":
        groups: dict[str, int] = {}
        values = []
        for k, shape in enumerate(shapes):
            values.append(
                groups.setdefault(f"group {shape.group}" if shape.group else f"shape {k}", len(groups) + 1)
            )
        return values
    places = {name: k for k, name in enumerate(source.names)}
    strange = sorted({shape.category for shape in shapes} - places.keys())
    if strange:
        raise _refusal(
            source.path, f"category {strange[0]!r}", f"one of {', '.join(source.names)}", "train again", "E01"
        )
    return [1 << places[s.category] if source.coding == "bits" else places[s.category] + 1 for s in shapes]


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
        raise _refusal(
            path, "not readable as JSON", "a complete JSON file", "export it again", "F01"
        ) from error


def _ring(points: Any) -> Ring:
    ring = np.asarray(points, np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError("points that are not pairs of finite numbers")
    return ring[:, :2]


class _plain:  # noqa: N801 (reads as a word of the language)
    """Turns whatever odd JSON raises into one `DataError`."""

    def __init__(self, path: Path, expected: str) -> None:
        self.path, self.expected = path, expected

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        kinds = (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            OSError,
            OverflowError,
            binascii.Error,
        )
        if isinstance(error, kinds):
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            found = f"{type(error).__name__} {reason}" if isinstance(error, KeyError) else reason
            raise _refusal(self.path, found, self.expected, "export it again", "F01") from error


def _refusal(path: Path, found: str, expected: str, fix: str, code: str) -> DataError:
    return DataError(Problem(found, shown(path), expected, fix, code))
