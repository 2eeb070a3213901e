"""Faults planted into prediction itself, from the plan to the file: the check of exactness sees each, and nothing else.

Those of the planner alone are in `test_predict.py`, those inside the layers of strips in `test_strips.py`.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from test_predict import EXACT, picture, small, whole
from torch import nn

from members import MEMBERS, made
from skipway import models, tiles
from skipway import regions as region_lists
from skipway.predict import ArrayPixels, predict_array
from skipway.predict import stream as streams
from skipway.predict import strips as strip_reader
from skipway.predict.strips import Strips
from skipway.regions import Regions

SEEN = 1e-6
"""A fault must be a million times what rounding is allowed."""

CONSTANTS = (np.array([0.1]), np.array([1.3]))


class Verdict(NamedTuple):
    """Of a prediction: its largest error in spreads of the logits, and pixels that were not written once."""

    error: float
    not_once: int


def judged(model, image, run, normalise=CONSTANTS):
    """Compare with one pass that is worked out without skipway."""
    offset, scale = (np.reshape(values, (-1, *(1,) * model.ndim)) for values in normalise)
    size = image.shape[1:]
    wanted = whole(model, (image - offset) / scale)[:, *(slice(0, side) for side in size)]
    found, times = np.zeros_like(wanted), np.zeros(size, int)

    def keep(region, logits):
        found[:, *region] = np.asarray(logits)
        times[region] += 1

    run(model, image, keep)
    return Verdict(float(np.abs(found - wanted).max() / wanted.std()), int((times != 1).sum()))


def by_tiles(model, image, keep):
    predict_array(model, image, CONSTANTS, tile=8, on_logits=keep)


def by_strips(model, image, keep):
    predict_array(model, image, CONSTANTS, tile=8, on_logits=keep, engine="strips")


def by_regions(model, image, keep):
    size = image.shape[1:]
    regions = Regions(size, (24,) * model.ndim, (8,) * model.ndim)
    passes = [tile for number in regions for tile in regions.passes(number, model.geometry)]
    with streams.evaluating(model):
        for tile, logits in streams.predict_tiles(model, ArrayPixels(image), CONSTANTS, passes):
            keep(tile.write, logits)


CASES = [
    ("unet", {"depth": 3}, (61, 83)),
    ("unet_2015", {"depth": 3}, (61, 83)),
    ("unet", {"depth": 2, "ndim": 3, "up": "nearest"}, (26, 9, 31)),
]


def verdicts(run):
    return [judged(small(name, **config), picture(1, *size), run) for name, config, size in CASES]


# Faults of the engine that reads, runs and crops; each is a function of the monkeypatch.


def statistics_of_each_read(patch):
    """Normalisation by the tile in hand."""
    patch.setattr(streams, "normalised", lambda read, constants, kind: (read - read.mean()) / read.std())


def single_precision(patch):
    """1e-7, which no eye and no label would see."""
    given = streams._Run._given
    patch.setattr(streams._Run, "_given", lambda self, read: given(self, read.astype(np.float32)))


def seen_with(change):
    """What the network sees of a tile, after a change by `change(read, tile)`."""

    def plant(patch):
        seen = streams._Run.seen
        patch.setattr(streams._Run, "seen", lambda self, tile: change(seen(self, tile).copy(), tile))

    return plant


def core_of(tile):
    """Where the pixels that a tile decides lie in what it reads."""
    return tuple(
        slice(w.start - r.start, w.stop - r.start) for w, r in zip(tile.write, tile.region, strict=True)
    )


def zeros_instead_of_context(read, tile):
    found = np.zeros_like(read)
    found[:, *core_of(tile)] = read[:, *core_of(tile)]
    return found


def edge_instead_of_context(read, tile):
    core = core_of(tile)
    pad = [(c.start, side - c.stop) for c, side in zip(core, read.shape[1:], strict=True)]
    return np.pad(read[:, *core], [(0, 0), *pad], mode="edge")


def one_row_of_context_less(read, tile):
    """The farthest row before a tile that does not begin where the whole pass does."""
    if tile.write[0].start > 0:
        read[:, 0] = 0
    return read


def computed_with(change):
    """The logits of a tile, after a change by `change(logits, tile, again)`; `again` computes another tile."""

    def plant(patch):
        computed, seen = streams._Run.computed, streams._Run.seen

        def changed(self, tile, read, on_spread=None):
            return change(
                computed(self, tile, read), tile, lambda other: computed(self, other, seen(self, other))
            )

        patch.setattr(streams._Run, "computed", changed)

    return plant


def weights_that_do_not_sum_to_one(logits, tile, again):
    if tile.write[-1].start > 0:
        logits[..., 0] *= 0.99
    return logits


def blended_with_a_tile_beside(logits, tile, again):
    """The mean of two answers, one of a tile that ends at the seam, as every blending does."""
    write, region, crop = tile.write[-1], tile.region[-1], tile.crop[-1]
    before = write.start - region.start
    if (
        before == 0 or before % 4 or crop.start != before
    ):  # of a network without padding there is no such tile
        return logits
    cut, crop = range(write.start, region.stop), slice(0, write.stop - write.start)
    other = replace(tile, region=(*tile.region[:-1], cut), crop=(*tile.crop[:-1], crop))
    return (logits + again(other)) / 2


def planned_with(change):
    """The tiles of an image, after a change of their list by `change(plan, geometry)`."""

    def plant(patch):
        plan = streams.plan_tiles
        patch.setattr(streams, "plan_tiles", lambda *given: iter(change(list(plan(*given)), given[-1])))

    return plant


def cropped_from_the_other_end(plan, geometry):
    def crop(one):
        sides = zip(one.region, one.crop, geometry.margin, strict=True)
        return tuple(slice(len(r) - 2 * m - (c.stop - c.start), len(r) - 2 * m) for r, c, m in sides)

    return [replace(one, crop=crop(one)) for one in plan]


def half_a_stride_off(plan, geometry):
    """A tile that reads more than it needs, and starts where no pooling window of the coarsest level does."""
    off = geometry.stride[-1] // 2

    def moved(one):
        region, crop = one.region[-1], one.crop[-1]
        if region.start - off < 0 or region.stop + off > one.size[-1]:
            return one
        region, crop = range(region.start - off, region.stop + off), slice(crop.start + off, crop.stop + off)
        return replace(one, region=(*one.region[:-1], region), crop=(*one.crop[:-1], crop))

    return [moved(one) for one in plan]


def written_one_pixel_early(plan, geometry):
    def early(write):
        return tuple(slice(w.start - (w.start > 0), w.stop - (w.start > 0)) for w in write)

    return [replace(one, write=early(one.write)) for one in plan]


def every_other_tile_left_out(plan, geometry):
    return plan[::2]


def decided_twice(plan, geometry):
    """Where both are exact, nothing but the count can tell."""
    return [*plan, plan[-1]]


def of_another_tile(plan, geometry):
    """The last tile writes what belongs to the first."""
    first, last = plan[0], plan[-1]
    size = [min(a.stop - a.start, b.stop - b.start) for a, b in zip(first.write, last.write, strict=True)]
    write, crop = (
        tuple(slice(part.start, part.start + n) for part, n in zip(parts, size, strict=True))
        for parts in (last.write, first.crop)
    )
    return [*plan[:-1], replace(last, region=first.region, write=write, crop=crop)]


BY_TILES = {
    "statistics of each read": statistics_of_each_read,
    "single precision": single_precision,
    "zeros instead of context": seen_with(zeros_instead_of_context),
    "edge pixels instead of context": seen_with(edge_instead_of_context),
    "one row of context less": seen_with(one_row_of_context_less),
    "blend weights that do not sum to 1": computed_with(weights_that_do_not_sum_to_one),
    "blended with the tile beside": computed_with(blended_with_a_tile_beside),
    "cropped from the other end": planned_with(cropped_from_the_other_end),
    "half a stride off the pooling grid": planned_with(half_a_stride_off),
    "written one pixel early": planned_with(written_one_pixel_early),
    "every other tile left out": planned_with(every_other_tile_left_out),
    "decided twice": planned_with(decided_twice),
    "another tile's pixels": planned_with(of_another_tile),
}


# Faults of the region list.


def windows_with(change):
    """Windows of regions, after a change by `change(regions, number, window)`."""

    def plant(patch):
        window = Regions.window
        patch.setattr(Regions, "window", lambda self, number: change(self, number, window(self, number)))

    return plant


def one_off(regions, number, window):
    return tuple(slice(w.start + (w.start > 0), w.stop) for w in window)


def overlapping(regions, number, window):
    return tuple(slice(w.start, min(w.stop + 4, n)) for w, n in zip(window, regions.size, strict=True))


def last_region_missing(patch):
    count = Regions.__len__
    patch.setattr(Regions, "__iter__", lambda self: iter(range(count(self) - 1)))


def last_pass_missing(patch):
    pieces = region_lists._pieces
    patch.setattr(region_lists, "_pieces", lambda *given: pieces(*given)[:1])


def stale_read(patch):
    """A buffer that is filled too late: a read of the same shape as the one before is that one."""

    def ahead(work, items):
        last = None
        for item in items:
            read = work(item)
            last = read if last is None or last.shape != read.shape else last
            yield item, last

    patch.setattr(streams, "ahead", ahead)


BY_REGIONS = {
    "window off by one": windows_with(one_off),
    "two regions overlap": windows_with(overlapping),
    "last region missing": last_region_missing,
    "passes of a region missing": last_pass_missing,
    "a read of before": stale_read,
    "zeros instead of context": seen_with(zeros_instead_of_context),
}


# Faults of the strips.


def run_with(change):
    """What strips give, after a change of their list by `change(pieces, axis)`."""

    def plant(patch):
        run = Strips.run
        patch.setattr(Strips, "run", lambda self, *given: iter(change(list(run(self, *given)), self.axis)))

    return plant


def last_strip_lost(pieces, axis):
    return pieces[:-1]


def last_row_lost(pieces, axis):
    """The rows at the end that are no whole strip."""
    write, crop, outputs = pieces[-1]
    rows = write[axis].stop - write[axis].start - 1
    write = (*write[:axis], slice(write[axis].start, write[axis].start + rows), *write[axis + 1 :])
    return [*pieces[:-1], (write, (*crop[:axis], slice(0, rows), *crop[axis + 1 :]), outputs)]


def two_strips_exchanged(pieces, axis):
    (one, crop, first), (two, other, second) = pieces[1:3]
    return [pieces[0], (one, crop, second), (two, other, first), *pieces[3:]]


def one_row_ahead(patch):
    """The output stands one row beyond where it should."""
    plan = streams.plan_strips
    patch.setattr(
        streams,
        "plan_strips",
        lambda *given, **more: (
            lambda strips: replace(strips, ahead=tuple(rows + 1 for rows in strips.ahead))
        )(plan(*given, **more)),
    )


def end_of_the_image_repeated(patch):
    """Instead of mirrored."""
    patch.setattr(
        strip_reader,
        "mirror_index",
        lambda region, side: np.arange(region.start, region.stop).clip(0, side - 1),
    )


def row_read_twice(patch):
    """At the border of every strip."""
    window = strip_reader._Source._window
    patch.setattr(
        strip_reader._Source,
        "_window",
        lambda self, first, stop: window(self, first - (first > 0), stop - (first > 0)),
    )


BY_STRIPS = {
    "statistics of each strip": statistics_of_each_read,
    "last strip lost": run_with(last_strip_lost),
    "last row lost": run_with(last_row_lost),
    "two strips exchanged": run_with(two_strips_exchanged),
    "one row ahead": one_row_ahead,
    "edge repeated, not mirrored": end_of_the_image_repeated,
    "a row read twice": row_read_twice,
}

TABLE = [
    *((by_tiles, name, fault) for name, fault in BY_TILES.items()),
    *((by_regions, name, fault) for name, fault in BY_REGIONS.items()),
    *((by_strips, name, fault) for name, fault in BY_STRIPS.items()),
]


@pytest.mark.parametrize("run", [by_tiles, by_regions, by_strips], ids=lambda run: run.__name__)
def test_without_a_fault_prediction_is_exact(run):
    assert all(error <= EXACT and not not_once for error, not_once in verdicts(run))


@pytest.mark.parametrize(("run", "name", "fault"), TABLE, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_is_caught(run, name, fault, monkeypatch):
    fault(monkeypatch)
    found = verdicts(run)
    bound = SEEN if fault is not single_precision else 1e-9
    assert any(error > bound or not_once for error, not_once in found), found


LESS = {
    "a stride less": lambda context, stride: max(0, context - stride),
    "half": lambda context, stride: context // 2 // stride * stride,
}


def with_context(patch, change):
    context = tiles._context
    patch.setattr(tiles, "_context", lambda halo, margin, s: change(context(halo, margin, s), s))


@pytest.mark.parametrize(
    ("name", "ndim"),
    [case for case in MEMBERS if case[0] not in ("trans_unet_small", "unet_3d_2016", "unet_2015")],
)
def test_less_context_is_seen_in_every_member(name, ndim, monkeypatch):
    """But for those that see everything, and those that consume all they see."""
    model = made(name, ndim, torch.float64, **{"norm": "batch"} if name.startswith("nnunet") else {})
    size, tile = [3] * ndim, [*model.geometry.stride]
    size[-1], tile[-1] = 2 * model.geometry.halo[-1] + 5 * tile[-1] + 3, 2 * tile[-1]
    image = np.random.default_rng(0).normal(size=(1, *size))

    def logits(tile):
        found = np.full((2, *size), np.nan)
        predict_array(
            model, image, tile=tile, on_logits=lambda at, values: found.__setitem__((..., *at), values)
        )
        return found

    wanted = logits(1 << 14)
    assert np.abs(logits(tile) - wanted).max() <= EXACT * wanted.std()
    for name_of_it, change in LESS.items():
        if name_of_it == "half" or not name.startswith(
            "r2_"
        ):  # the outermost of 68 pixels is lost in rounding
            with monkeypatch.context() as patch:
                with_context(patch, change)
                assert np.abs(logits(tile) - wanted).max() > 1e-9 * wanted.std(), name_of_it


class Pointwise(nn.Module):
    """What tests of tiling elsewhere use: it looks at one pixel, and adds 1."""

    def __init__(self, like):
        super().__init__()
        self.geometry, self.ndim, self.classes = like.geometry, 2, 3
        self.bias = nn.Parameter(torch.ones(3, 1, 1, dtype=torch.float64))

    def forward(self, x):
        return (x + self.bias,)


def test_a_weaker_check_would_let_the_same_faults_pass(monkeypatch):
    """A network of single pixels sees no context, one without He weights too little of it for 1e-5."""
    torch.manual_seed(0)
    strong, image = small("unet", depth=4), picture(1, 131, 97)
    tame = models.build("unet", in_channels=1, classes=3, width=4, depth=4, norm="none").double().eval()
    for module in tame.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    with_context(monkeypatch, LESS["half"])
    pointwise, default, he = (judged(one, image, by_tiles) for one in (Pointwise(strong), tame, strong))
    assert pointwise == (0, 0)
    assert EXACT < default.error < 1e-5
    assert he.error > 0.1
