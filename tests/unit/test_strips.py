"""Strips: every row of every layer once, equal to one pass over the whole image, in memory that length does not change."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from members import MEMBERS, made
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from skipway import models
from skipway.errors import UsageError
from skipway.nn import strips as engine
from skipway.nn.rows import NotInRows
from skipway.nn.strips import stream
from skipway.nn.tape import record
from skipway.predict import ArrayPixels, predict_array
from skipway.predict.strips import plan_strips
from skipway.tiles import tile_around

LOCAL = [
    (name, ndim, {}) for name, ndim in MEMBERS if name != "trans_unet_small" and not name.startswith("nnunet")
]
LOCAL += [(name, 3, {"norm": "batch"}) for name in ("nnunet", "nnunet_residual")]
LOCAL += [
    ("unet", 2, {"up": "bilinear", "block": "residual"}),
    ("unet", 2, {"up": "nearest", "block": "preactivation", "norm": "channel_layer"}),
    ("unet", 2, {"pools": [(3, 1), (2, 4)], "merge": "sum"}),
    ("unet_plus_plus", 2, {"supervised": True, "padding": "valid"}),
    ("unet_3_plus", 2, {"supervised": True, "depth": 4}),
]


def whole_pass(model, pixels):
    """All outputs for an image (1, *S) of any size by one pass, cropped to the last one and to the image."""
    tile = tile_around(pixels.shape[1:], [slice(0, n) for n in pixels.shape[1:]], model.geometry)
    with torch.inference_mode():
        found = model(torch.from_numpy(tile.take(pixels[:, *tile.read]))[None])
    side = [n - 2 * m for n, m in zip(map(len, tile.region), model.geometry.margin, strict=True)]
    middle = [
        [
            slice((have - want) // 2, (have - want) // 2 + want)
            for have, want in zip(one.shape[2:], side, strict=True)
        ]
        for one in found
    ]
    return [one[:, :, *mid][0, :, *tile.crop] for one, mid in zip(found, middle, strict=True)]


def streamed(model, pixels, rows, axis, outputs="mean"):
    """The same strip by strip."""
    plan = plan_strips(model, pixels.shape[1:], outputs=outputs, rows=rows, axis=axis)
    pieces = []
    with torch.inference_mode():
        for write, crop, found in plan.run(ArrayPixels(pixels), lambda part: torch.from_numpy(part)[None]):
            shape = found[-1].shape[2:]
            cut = [
                [slice((h - w) // 2, (h - w) // 2 + w) for h, w in zip(f.shape[2:], shape, strict=True)]
                for f in found
            ]
            pieces.append((write, [f[:, :, *c][0, :, *crop] for f, c in zip(found, cut, strict=True)]))
    starts = [write[axis] for write, _ in pieces]
    assert [s.start for s in starts] == [0, *[s.stop for s in starts[:-1]]]
    assert starts[-1].stop == pixels.shape[1 + axis]
    return [torch.cat(parts, 1 + axis) for parts in zip(*(parts for _, parts in pieces), strict=True)]


def picture(ndim, length, axis, seed=0):
    size = [5, 7, 6][:ndim]
    size[axis] = length
    return np.random.default_rng(seed).normal(size=(1, *size))


def error(found, wanted):
    return max(
        float((a - b).abs().max() / max(float(b.std()), 1e-9)) for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize(("name", "ndim", "config"), LOCAL, ids=lambda value: str(value))
def test_strips_are_the_whole_pass(name, ndim, config):
    model = made(name, ndim, torch.float64, **config)
    for axis, length, rows in ((0, 75, 1), (0, 61, 6), (ndim - 1, 70, 64)):
        pixels = picture(ndim, length, axis)
        found, wanted = streamed(model, pixels, rows, axis), whole_pass(model, pixels)
        assert len(found) == len(wanted)
        assert error(found, wanted) <= 1e-12, (axis, length, rows)
        assert all(torch.equal(a.argmax(0), b.argmax(0)) for a, b in zip(found, wanted, strict=True))
        assert error([found[-1]], streamed(model, pixels, rows, axis, "last")) == 0


@pytest.mark.parametrize("name", ["unet", "unet_2015", "fcn_8s"])
def test_every_length_from_1_to_40(name):
    model = made(name, 2, torch.float64)
    for length in range(1, 41):
        pixels = picture(2, length, 0, seed=length)
        assert error(streamed(model, pixels, 5, 0), whole_pass(model, pixels)) <= 1e-12, length
