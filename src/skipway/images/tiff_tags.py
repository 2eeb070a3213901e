"""Where the pixels of a TIFF lie: read from its tags, ImageJ and OME metadata, and written again."""

from typing import Any

import numpy as np

from .geometry import Geometry


def placed(geometry: Geometry | None, dtype: np.dtype[Any], axes: str, *, ome: bool) -> dict[str, Any]:
    """Arguments of `tifffile.imwrite` that put the geometry into a file of the given axes."""
    return {"metadata": {"axes": axes}}
