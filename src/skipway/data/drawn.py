"""Masks that are drawn when they are opened, from the shapes of `outlines`.

What "inside" is written as is the source's coding: "ids", "classes" or "bits".
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skipway.data.composites import smallest
from skipway.data.outlines import Drawing, Shape, read_coco, read_geojson, read_labelme
from skipway.images import ImageFile, in_memory, open_image, refused, shown

if TYPE_CHECKING:
    from skipway.data.sources import Source


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
        raise refused(
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
        box, inside = shape.inside(size)
        part = mask[box]
        empty += not inside.any()
        if source.coding == "bits":
            part[inside] |= np.asarray(value, mask.dtype)
        else:
            overlap += int(np.count_nonzero((part[inside] != 0) & (part[inside] != value)))
            part[inside] = value
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
        raise refused(
            source.path, f"category {strange[0]!r}", f"one of {', '.join(source.names)}", "train again", "E01"
        )
    return [1 << places[s.category] if source.coding == "bits" else places[s.category] + 1 for s in shapes]
