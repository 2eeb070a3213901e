"""From the finished regions of an image to its files, window by window."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import has
from skipway.images import write_paged, write_planes, write_zarr
from skipway.images.paged import Paged
from skipway.predict.flow import Flow
from skipway.predict.journal import Journal
from skipway.predict.making import stored_as
from skipway.regions import Regions
from skipway.tasks.objects import Objects
from skipway.tasks.streamed_objects import Joined, Joining

Read = Callable[[int, slice, slice], NDArray[Any]]


def write_flow(
    flow: Flow, masks: Sequence[Path], classes: Path | None, *, objects: bool = False
) -> tuple[Path, ...]:
    """Write the masks of an image, and what is asked for of its classes.

    Args:
        flow: All of whose regions are finished.
        masks: One path; one a class where classes overlap. A name that ends in `.zarr` becomes an OME-Zarr.
        classes: TIFF of the probabilities or logits; None for none.
        objects: Write object ids even where the run learned classes.

    Returns:
        The masks that were written.

    Raises:
        DataError: a region was damaged on the disk.
        EnvironmentFault: the disk refused.
    """
    if classes is not None:
        _write_classes(flow, classes)
    if flow.shards is not None:
        return (flow.shards.finish(masks[0]),)
    read, task, geometry = _stitched(flow), flow.predictor.task, flow.image.geometry
    shape = (flow.image.pages, *flow.image.size)
    with ExitStack() as stack:
        if task.labels.overlapping:
            one = np.dtype(np.uint8)
            found = [Paged(shape, one, partial(_of_class, read, k)) for k in range(len(masks))]
        elif objects or task.labels.task == "objects":
            found = [_objects(flow, stack)]
        else:
            decode = task.decode
            kind = decode(np.zeros(1, np.uint8)).dtype
            found = [Paged(shape, kind, lambda page, rows, columns: decode(read(page, rows, columns)))]
        colours = task.labels.palette if not (objects or task.labels.overlapping) else None
        palette = None if colours is None else np.asarray(colours)
        written = []
        for path, labels in zip(masks, found, strict=True):
            if path.name.endswith(".zarr"):
                written.append(write_zarr(path, labels, geometry=geometry))
            else:
                written.append(write_paged(path, labels, palette=palette, geometry=geometry))
    return tuple(written)


def _of_class(read: Read, k: int, page: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
    return np.where(has(read(page, rows, columns), k), np.uint8(255), np.uint8(0))


def _stitched(flow: Flow) -> Read:
    """Class indices, or sets, of a window of a page."""

    def read(page: int, rows: slice, columns: slice) -> NDArray[Any]:
        unit, window = _placed(flow, page, (rows, columns))
        found = patchwork(flow.regions, window, lambda n, part: flow.classes(unit + n, part))
        return found.reshape(found.shape[-2:])

    return read


def _placed(flow: Flow, page: int, window: tuple[slice, slice]) -> tuple[int, tuple[slice, ...]]:
    """First region of the unit of a page, and a window of that page in it."""
    if flow.predictor.ndim == 3:
        return 0, (slice(page, page + 1), *window)
    return page * len(flow.regions), window


def patchwork(
    regions: Regions, window: Sequence[slice], read: Callable[[int, slice], NDArray[Any]]
) -> NDArray[Any]:
    """A window put together from regions.

    Args:
        regions: The list.
        window: With starts and stops inside the image.
        read: `read(number, rows)` gives rows of the first axis of a region; further axes are whole.
    """
    found: NDArray[Any] | None = None
    for number in regions.touching(tuple(window)):
        block = regions.window(number)
        both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, block, strict=True)]
        there = [slice(o.start - b.start, o.stop - b.start) for o, b in zip(both, block, strict=True)]
        here = tuple(slice(o.start - w.start, o.stop - w.start) for o, w in zip(both, window, strict=True))
        part = read(number, there[0])[(slice(None), *there[1:])]
        if found is None:
            found = np.empty([w.stop - w.start for w in window], part.dtype)
        found[here] = part
    if found is None:
        raise ValueError(f"an empty window {tuple(window)}")
    return found


def _objects(flow: Flow, stack: ExitStack) -> Paged:
    """Object ids, by a pass over the class map that joins the pieces of the regions."""
    task = flow.predictor.task
    learned = isinstance(task, Objects)
    least, close = (task.min_area, task.labels.ids) if isinstance(task, Objects) else (0, False)
    scratch = Journal(flow.journal.path.with_suffix(".pieces"), {}, fresh=True)
    stack.callback(scratch.remove)
    per = len(flow.regions)
    joined: list[Joined] = []
    for unit in range(len(flow.units)):
        joining = Joining(flow.regions)
        for number in flow.regions:
            classes = flow.classes(unit * per + number)
            pieces = joining.add(number, classes == 1 if learned else classes > 0)
            scratch.add(unit * per + number, {"pieces": pieces})
        joined.append(joining.joined(least, close=close))
    kind = max((one.dtype for one in joined), key=lambda dtype: dtype.itemsize)

    def read(page: int, rows: slice, columns: slice) -> NDArray[Any]:
        first, window = _placed(flow, page, (rows, columns))
        ids = joined[first // per].read(window, lambda n, part: scratch.read(first + n, "pieces", part))
        return ids.reshape(ids.shape[-2:]).astype(kind)

    return Paged((flow.image.pages, *flow.image.size), kind, read)


def _write_classes(flow: Flow, path: Path) -> None:
    """A TIFF of (K, H, W) or (P, K, H, W)."""
    deep = flow.predictor.ndim == 3
    shape = (flow.image.pages, flow.predictor.model.classes, *flow.image.size)

    def read(page: int, k: int, rows: slice, columns: slice) -> NDArray[Any]:
        first, window = _placed(flow, page, (rows, columns))

        def part(number: int, along: slice) -> NDArray[Any]:
            if deep:  # (Z, K, Y, X)
                return flow.journal.read(first + number, "classes", along)[:, k]
            return flow.journal.read(first + number, "classes", slice(k, k + 1))[0, along]

        found = patchwork(flow.regions, window, part)
        return found.reshape(found.shape[-2:])

    write_planes(path, shape, stored_as(flow.quantity), read, geometry=flow.image.geometry)
