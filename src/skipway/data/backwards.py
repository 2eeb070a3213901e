"""Stacks whose masks lie in the opposite order of their images: `mask[::-1]` along the axis that no slice shows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skipway.data import alignment
from skipway.data.layouts import Pair
from skipway.data.sketch import sketch, step_of, thinned

FEWEST = 12
"""Slices with edges and outlines that a judgement needs."""

MOST = 64
"""Slices that are looked at, from all of the stack."""

FITS = 0.75
"""Mean score of the reversed order, which a mask that is moved or turned as well does not reach."""

SURE = 5.0
"""Standard errors by which the reversed order fits better; neighbours are alike, so chance reaches 3 of them."""


def reversed_better(slices: Sequence[Pair], ignore: int | None = None) -> bool:
    """Whether the masks of a stack fit the images of its slices n-1-k clearly better than their own, k.

    Args:
        slices: Of one stack: pages of one image file and the same pages of one mask file.
        ignore: Value of pixels without annotation.
    """
    own, other = fits(slices, ignore).T
    if len(own) < FEWEST or other.mean() < FITS:
        return False
    gains = other - own
    return float(gains.mean()) > SURE * float(gains.std(ddof=1)) / len(gains) ** 0.5


def fits(slices: Sequence[Pair], ignore: int | None = None) -> NDArray[np.float64]:
    """How well each image k fits mask k and mask n-1-k, of slices where both can be told, shape (N, 2)."""
    pages = {pair.image.page: pair for pair in slices}
    files = {(pair.image.whole, pair.mask.whole) for pair in slices}
    if len(files) != 1 or any(pair.image.page != pair.mask.page for pair in slices):
        return np.empty((0, 2))
    (image_file, mask_file), found = files.pop(), []
    with image_file.open_image() as image, mask_file.open_mask() as mask:
        last = image.pages - 1
        halves = [k for k in range((last + 1) // 2) if k in pages and last - k in pages]
        step = step_of(image.size)
        for k in halves[:: max(1, -(-2 * len(halves) // MOST))]:
            both = (k, last - k)
            greys = [sketch(image, page) for page in both]
            labels = [thinned(mask.read(page)[0], step, greys[0].shape) for page in both]
            for grey, (own, other) in zip(greys, (labels, labels[::-1]), strict=True):
                tried = [alignment.edge_maps(grey, outline, ignore) for outline in (own, other)]
                scores = [alignment.score(*maps) for maps in tried if maps is not None]
                found += [scores] if len(scores) == 2 else []
    return np.array(found).reshape(-1, 2)
