"""Between the world of DICOM, ITK and NRRD (left, posterior, superior) and that of the affine (right, anterior)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import refused
from .geometry import Affine, Geometry

_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])


def from_lps(
    path: Path,
    spacing: Any,
    directions: Any,
    origin: Any,
    *,
    world: bool = True,
    known: bool = True,
    unit: str = "mm",
) -> Geometry:
    """Geometry of a volume.

    Args:
        path: For messages.
        spacing: Along (x, y, z), or (x, y).
        directions: (axes, axes), its columns where x, y and z point in LPS, each of length 1.
        origin: Centre of the first voxel, LPS, mm.
        world: Whether the file says where it lies.
        known: Whether it says how large a voxel is.
        unit: Of the spacing.

    Raises:
        DataError: a spacing that is not above 0, or directions that span no volume.
    """
    spacing, directions = np.asarray(spacing, np.float64), np.asarray(directions, np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        found = f"a spacing of {' × '.join(f'{s:g}' for s in spacing)} (x, y, z)"
        raise refused(
            path, found, "sizes above 0", "set the voxel size in the header, or export it again", "G07"
        )
    affine = None
    if world and len(spacing) == 3:
        matrix = np.eye(4)
        matrix[:3, :3] = directions * spacing
        matrix[:3, 3] = origin
        matrix = _TURN @ matrix
        if not np.isfinite(matrix).all() or abs(np.linalg.det(directions)) < 1e-12:
            fix = "set the directions in the header, or export it again"
            raise refused(path, "directions without volume", "three axes that span the world", fix, "G07")
        affine = as_affine(matrix)
    stated = {"lps": (spacing, directions, np.asarray(origin, np.float64))} if affine else {}
    return Geometry(tuple(float(s) for s in spacing[::-1]), unit if known else "", affine, stated)


def to_lps(
    geometry: Geometry | None, axes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Spacing (x, y, z), directions as columns, and origin: what a file in LPS says of a geometry.

    Args:
        geometry: Of the image; ones and zeros without it.
        axes: 2 or 3.
    """
    spacing = np.ones(axes)
    if geometry is not None:
        known = np.array(geometry.spacing[::-1])[:axes]
        spacing[: len(known)] = known
    if geometry is None or geometry.affine is None or axes == 2:
        return spacing, np.eye(axes), np.zeros(axes)
    if "lps" in geometry.header:  # as the file said it, so that no digit is lost
        spacing, directions, origin = geometry.header["lps"]
        return spacing, directions, origin
    matrix = _TURN @ np.array(geometry.affine)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    return lengths, matrix[:3, :3] / lengths, matrix[:3, 3] + 0.0


def as_affine(matrix: Any) -> Affine:
    """A matrix as plain numbers, without -0."""
    return tuple((float(a) + 0.0, float(b) + 0.0, float(c) + 0.0, float(d) + 0.0) for a, b, c, d in matrix)
