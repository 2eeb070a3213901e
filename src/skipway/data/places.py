"""Whether an image and its mask lie at one place: the rules of volumes that say where they are.

Shapes alone prove nothing: a mask that a tool has mirrored, moved or resampled to the same shape trains a network on
the wrong voxels. Nothing is turned or resampled here; what differs is refused with both values.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from skipway.errors import Problem
from skipway.images import Geometry

TOLERANCE = 1e-4
"""Between cosines, relative between spacings, and of an origin relative to its distance from 0, at least 1 mm."""

_AXES = ("x", "y", "z")


def place_problems(
    image: str, image_at: Geometry | None, mask: str, mask_at: Geometry | None
) -> list[Problem]:
    """What is wrong with the places of a pair.

    Args:
        image: The image, for messages.
        image_at: Where it lies; None where its format does not say.
        mask: The mask, for messages.
        mask_at: Where it lies.

    Returns:
        Problems of each file alone, else of both together; none where one of them has no place.
    """
    alone = [*_alone(image, image_at), *_alone(mask, mask_at)]
    if alone or image_at is None or mask_at is None:
        return alone
    return list(_between(image, image_at, mask, mask_at))[
        :1
    ]  # one fault shows as several: the first names it


def _alone(name: str, where: Geometry | None) -> Iterator[Problem]:
    """Two places in one file: tools differ in which of them they read."""
    if where is None or not {"sform", "qform"} <= where.header.keys():
        return
    sform, qform = np.array(where.header["sform"]), np.array(where.header["qform"])
    if not _same_place(sform, qform):
        yield Problem(
            f"its sform ({_words(sform)}) and its qform ({_words(qform)}) differ",
            name,
            "one place, or one of the two codes 0",
            "keep the right one: in nibabel image.set_qform(image.affine) and save again",
            "G05",
        )


def _between(image: str, image_at: Geometry, mask: str, mask_at: Geometry) -> Iterator[Problem]:
    if image_at.affine is not None and mask_at.affine is not None:
        ours, theirs = np.array(image_at.affine), np.array(mask_at.affine)
        turned = _turned(_directions(ours), _directions(theirs))
        if turned:
            fix = "save the mask on the grid of its image (in ITK: resample, nearest neighbour)"
            yield Problem(turned, mask, f"directions like its image {image}", fix, "G03")
    sizes = tuple(np.array(at.spacing) for at in (image_at, mask_at))
    if len(sizes[0]) == len(sizes[1]) and image_at.unit == mask_at.unit:
        ours, theirs = sizes
        if (np.abs(ours - theirs) > TOLERANCE * ours).any():
            fix = "resample the mask onto its image, nearest neighbour"
            yield Problem(
                f"a spacing of {_sizes(theirs)} (z, y, x)",
                mask,
                f"{_sizes(ours)} like its image {image}",
                fix,
                "G02",
            )
    if image_at.affine is not None and mask_at.affine is not None:
        ours, theirs = np.array(image_at.affine)[:3, 3], np.array(mask_at.affine)[:3, 3]
        if np.abs(ours - theirs).max() > _room(ours):
            fix = "check that the two belong together, or resample the mask onto its image"
            yield Problem(
                f"an origin at {_point(theirs)}", mask, f"{_point(ours)} like its image {image}", fix, "G01"
            )


def mixed_spacing(spacings: Iterable[tuple[float, ...]]) -> str | None:
    """A line about volumes of several voxel sizes, which a network sees as several sizes of everything.

    >>> mixed_spacing([(1.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
    """
    sizes = np.array([spacing for spacing in spacings if len(spacing) == 3])
    if not len(sizes):
        return None
    low, high = sizes.min(axis=0), sizes.max(axis=0)
    if (high <= low * 1.05).all():
        return None
    return (
        f"voxels of different sizes, {_sizes(low)} to {_sizes(high)} mm (z, y, x): they are not resampled; "
        "a network learns all sizes at once"
    )


def _same_place(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    lengths = np.linalg.norm(one[:3, :3], axis=0)
    close = np.abs(one[:3, :3] - other[:3, :3]).max() <= 10 * TOLERANCE * lengths.max()  # a qform has 32 bits
    return bool(close and np.abs(one[:3, 3] - other[:3, 3]).max() <= 10 * _room(one[:3, 3]))


def _directions(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))


def _turned(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> str:
    """How the directions of two volumes differ, "" where they do not."""
    if np.abs(ours - theirs).max() <= TOLERANCE:
        return ""
    flipped = [axis for k, axis in enumerate(_AXES) if np.abs(ours[:, k] + theirs[:, k]).max() <= TOLERANCE]
    same = [axis for k, axis in enumerate(_AXES) if np.abs(ours[:, k] - theirs[:, k]).max() <= TOLERANCE]
    if len(flipped) + len(same) == 3:
        axes = " and ".join(flipped)
        return f"it runs the other way along {axes} (mirrored; {_letters(theirs)} against {_letters(ours)})"
    degrees = np.degrees(np.arccos(np.clip((ours * theirs).sum(axis=0), -1, 1))).max()
    return f"it is turned by up to {degrees:.2g}° ({_letters(theirs)} against {_letters(ours)})"


def _letters(directions: NDArray[np.float64]) -> str:
    """Where x, y and z point, such as `RAS`."""
    largest = np.abs(directions).argmax(axis=0)
    return "".join("LPI"[k] if directions[k, axis] < 0 else "RAS"[k] for axis, k in enumerate(largest))


def _room(origin: NDArray[np.float64]) -> float:
    return TOLERANCE * max(1.0, float(np.abs(origin).max()))


def _sizes(spacing: NDArray[np.float64]) -> str:
    return " × ".join(f"{s:.5g}" for s in spacing)


def _point(place: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{p:.6g}" for p in place) + ")"


def _words(affine: NDArray[np.float64]) -> str:
    return f"{_letters(_directions(affine))}, origin {_point(affine[:3, 3])}"
