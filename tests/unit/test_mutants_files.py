"""Faults planted between the regions of an image and its file: each is seen by comparison with the plain way."""

import numpy as np
import pytest
import tifffile
from streams import images, plain, predicted, predictor

from skipway.predict import finish
from skipway.predict import flow as flows
from skipway.predict.journal import Journal
from skipway.predict.making import Making


def pages_in_another_order(patch):
    placed = finish._placed

    def reverse(flow, page, window):
        return placed(flow, flow.image.pages - 1 - page, window)

    patch.setattr(finish, "_placed", reverse)


def rows_read_one_off(patch):
    read = Journal.read
    patch.setattr(
        Journal,
        "read",
        lambda self, number, name, rows=slice(None): np.roll(read(self, number, name), 1, 0)[rows],
    )


def two_regions_exchanged(patch):
    """Each is kept under the number of another."""
    keep = flows.Flow._keep
    patch.setattr(flows.Flow, "_keep", lambda self, number, *rest: keep(self, number ^ 1, *rest))


def filled_from_the_other_end(patch):
    """A pass lands where its mirror image belongs."""
    fill = Making._fill

    def mirrored(self, room, window, region, logits):
        part, whole = region[-1], window[-1]
        stop = whole.stop - (part.start - whole.start)
        fill(self, room, window, (*region[:-1], slice(stop - (part.stop - part.start), stop)), logits)

    patch.setattr(Making, "_fill", mirrored)


def pixels_of_the_first_page(patch):
    """Every page is read from the first one."""
    of = Making.of.__func__

    def first(cls, predictor, image, pages, *given, **rest):
        pages = pages if predictor.ndim == 3 else range(1)
        return of(cls, predictor, image, pages, *given, **rest)

    patch.setattr(Making, "of", classmethod(first))


FAULTS = [
    pages_in_another_order,
    rows_read_one_off,
    two_regions_exchanged,
    filled_from_the_other_end,
    pixels_of_the_first_page,
]
IN_SPACE = FAULTS[:3]
"""The others do nothing there: a region is one pass, and a volume is read at once."""


@pytest.mark.parametrize(
    ("ndim", "fault"),
    [(2, None), *((2, fault) for fault in FAULTS), (3, None), *((3, fault) for fault in IN_SPACE)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_fault_is_seen_in_the_file(tmp_path, small_regions, monkeypatch, ndim, fault):
    run, source = predictor(ndim=ndim), images(tmp_path / "in", (48, 64), pages=4)
    plain(run, source, tmp_path / "plain")
    with monkeypatch.context() as patch:
        if fault is not None:
            fault(patch)
        predicted(run, source, tmp_path / "out", tile=8)
    wanted, found = (tifffile.imread(tmp_path / folder / "i0.tif") for folder in ("plain", "out"))
    assert len(np.unique(wanted)) == 3
    if fault is None:
        assert np.array_equal(found, wanted)
    else:
        assert (found != wanted).mean() > 0.01
