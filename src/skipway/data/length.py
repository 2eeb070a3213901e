"""How long to train on so many images, where nobody says."""

import math
from collections.abc import Sequence

from skipway.data.fingerprint import Fingerprint

FEWEST, MOST = 500, 5000
"""Steps when neither --steps nor --time is given: no fewer and no more than these, see `length`."""


def length(data: Fingerprint, patch: Sequence[int]) -> tuple[int, str]:
    """Steps of a training whose length nobody named, and why: 200 · √P for images of P patches in all.

    Four times the data get twice the steps, since new images teach less and less; from `FEWEST` to `MOST`.

    Args:
        data: What the training images look like.
        patch: Input side per axis.

    >>> few = Fingerprint(10, (512, 512), (512, 512), (512, 512), 1, "uint8", (1.0,), 0, 0.0, 0.0, 0.0, 1.0, 0.5)
    >>> length(few, (256, 256))
    (1250, '10 training images that 40 patches would cover')
    """
    size = data.size(len(patch))
    items = data.n if len(patch) == 2 else max(1, round(data.n / data.slices))
    patches = items * math.prod(max(1.0, n / p) for n, p in zip(size, patch, strict=True))
    steps = min(MOST, max(FEWEST, 50 * round(4 * math.sqrt(patches))))
    what = "image" if len(patch) == 2 else "volume"
    said = f"{items} training {what}{'s' * (items != 1)} that {max(1, round(patches))} patches would cover"
    return steps, said
