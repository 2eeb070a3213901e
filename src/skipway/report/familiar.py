"""At the end of a training: what its images look like, for the images that will be predicted."""

from skipway.data.fingerprint import MEASURED
from skipway.data.layouts import Volume
from skipway.data.looks import looks, shares, size_of, windows
from skipway.errors import OF_A_FILE
from skipway.predict.familiar import Familiar
from skipway.predict.pixels import seen
from skipway.training.dataset import read_masks
from skipway.training.prepare import Prepared
from skipway.training.session import spread


def familiar(prepared: Prepared) -> Familiar:
    """The numbers of training images, spread evenly over all; files that cannot be read any more are passed over."""
    found = []
    for volume in spread(prepared.train_volumes, MEASURED):
        try:
            found.append(_numbers(prepared, volume))
        except OF_A_FILE:
            continue
    return Familiar.of_images(found)


def _numbers(prepared: Prepared, volume: Volume) -> dict[str, float]:
    """Of one image or volume: its grey values, and the classes that the network is to find in it."""
    labels, ndim = prepared.labels, prepared.plan.ndim
    with volume.image.open_image() as file:
        pixels, constants = seen(file, volume.pages, ndim, prepared.normalisation)
        numbers = looks(pixels.read, pixels.shape[1:], constants)
    target = prepared.task.target(read_masks(volume, ndim))
    known = target != labels.unknown
    if not known.any():
        return numbers
    kinds = range(len(labels.values))
    if labels.overlapping:
        counts = [int(((target >> k) & known).astype(bool).sum()) for k in kinds]
    else:
        counts = [int((target == k).sum()) for k in kinds][labels.grounded :]
    grounded = labels.overlapping or labels.grounded
    plain = target.copy()
    plain[~known] = 0
    sizes = size_of([plain[window] for window in windows(target.shape)], 0 if grounded else None)
    return {**numbers, **shares(counts, int(known.sum())), **sizes}
