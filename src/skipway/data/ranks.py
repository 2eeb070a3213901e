"""Exact order statistics of images without sorting or holding them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.errors import DataError, Problem


def order_statistics(bands: Iterable[NDArray[Any]], shares: Sequence[float], name: str) -> list[list[float]]:
    """Exact order statistics of each channel without sorting or holding the image.

    Values become unsigned keys of the same order; each pass over the bands decides 16 bits of the key by a
    histogram, so 8- and 16-bit images take one pass, 32-bit ones two, 64-bit ones four.

    Args:
        bands: (C, …) arrays of one type; iterated once for each pass.
        shares: In [0, 1]; share q picks the ceil(q · n)-th smallest value, at least the first.
        name: For messages.

    Returns:
        One list for each channel, values in the order of `shares`.

    Raises:
        DataError: NaN or infinite values.
    """
    first = next(iter(bands))
    dtype = first.dtype
    passes = max(1, dtype.itemsize // 2)
    channels = first.shape[0]
    prefixes = [[0] * len(shares) for _ in range(channels)]
    ranks: list[list[int]] = []
    for step in range(passes):
        tables = _histograms(bands, prefixes, passes - step, dtype, name)
        if not ranks:
            total = int(tables[0][0].sum())
            ranks = [[max(1, math.ceil(q * total)) for q in shares] for _ in range(channels)]
        for channel in range(channels):
            for index, prefix in enumerate(prefixes[channel]):
                running = np.cumsum(tables[channel][prefix])
                digit = int(np.searchsorted(running, ranks[channel][index]))
                ranks[channel][index] -= int(running[digit - 1]) if digit else 0
                prefixes[channel][index] = (prefix << 16) | digit
    keys = np.array(prefixes, np.uint64)
    return [[float(_value(key, dtype)) for key in row] for row in keys]


def _histograms(
    bands: Iterable[NDArray[Any]],
    prefixes: Sequence[Sequence[int]],
    left: int,
    dtype: np.dtype[Any],
    name: str,
) -> list[dict[int, NDArray[np.int64]]]:
    """Counts of the next 16 key bits, among the values whose decided bits equal a prefix."""
    tables = [{prefix: np.zeros(1 << 16, np.int64) for prefix in set(row)} for row in prefixes]
    whole = left * 16 >= dtype.itemsize * 8
    for band in bands:
        if dtype.kind == "f" and not np.isfinite(band).all():
            raise DataError(
                Problem(
                    f"{int(np.sum(~np.isfinite(band)))} values that are NaN or infinite",
                    name,
                    "finite numbers",
                    "replace them, or leave the image out",
                    "C09",
                )
            )
        for channel, table in enumerate(tables):
            keys = _keys(np.ascontiguousarray(band[channel]).ravel())
            digits = keys if whole and left == 1 else (keys >> keys.dtype.type(16 * (left - 1))) & 0xFFFF
            for prefix, counts in table.items():
                chosen = digits if whole else digits[keys >> keys.dtype.type(16 * left) == prefix]
                counts += np.bincount(chosen.astype(np.int64), minlength=1 << 16)
    return tables


def _keys(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers in the order of the values: the sign bit turned, negative floats complemented."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits = values.view(unsigned)
    if values.dtype.kind == "u":
        return bits
    sign = unsigned.type(1 << (values.dtype.itemsize * 8 - 1))
    if values.dtype.kind == "i":
        return bits ^ sign
    return np.where(bits & sign, ~bits, bits | sign)


def _value(key: np.uint64, dtype: np.dtype[Any]) -> Any:
    """The value of a key."""
    if dtype.kind == "b":
        return int(key)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    bits = np.array([key]).astype(unsigned)
    sign = unsigned.type(1 << (dtype.itemsize * 8 - 1))
    if dtype.kind == "i":
        bits = bits ^ sign
    elif dtype.kind == "f":
        bits = np.where(bits & sign, bits ^ sign, ~bits)
    return bits.view(dtype)[0]
