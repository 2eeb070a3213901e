"""Any local network of plain nodes, image, axis and height of strips: strips give what one pass gives."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipway.models import build
from skipway.predict import ArrayPixels
from skipway.predict.strips import plan_strips
from skipway.tiles import tile_around

POOLS = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 2))


@st.composite
def networks(draw):
    """A network with odd pools, blocks, kernels and up-sampling."""
    depth, ndim = draw(st.integers(2, 4)), draw(st.sampled_from((2, 2, 3)))
    flat = draw(st.lists(st.sampled_from(POOLS), min_size=depth - 1, max_size=depth - 1))
    config = {"in_channels": 1, "classes": 2, "width": 3, "depth": depth, "ndim": ndim}
    config["pools"] = [[*pool, *(2,) * (ndim - 2)] for pool in flat]
    if draw(st.booleans()):
        sides = st.sampled_from((1, 3, 5))
        kernels = [[draw(sides) for _ in range(ndim)] for _ in range(depth)]
        if draw(st.booleans()):
            return "nnunet_residual", config | {"norm": "batch", "pools": None}
        return "nnunet", config | {"norm": "batch", "kernels": kernels}
    config |= {
        "up": draw(st.sampled_from(("transposed", "bilinear", "nearest", "nearest_conv"))),
        "norm": draw(st.sampled_from(("batch", "channel_layer", "none"))),
        "block": draw(st.sampled_from(("plain", "residual", "residual_each", "preactivation", "recurrent"))),
        "merge": draw(st.sampled_from(("concat", "sum"))),
        "dropout": 0.0,
    }
    return draw(st.sampled_from(("unet", "unet_e", "unet_plus", "unet_plus_plus"))), config


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 24), st.integers(1, 90), st.integers(0, 2), st.integers(0, 3), st.data())
def test_strips_give_the_numbers_of_one_pass(network, rows, length, axis, seed, data):
    name, config = network
    torch.manual_seed(seed)
    model = build(name, **config).double().eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    size = [7, 9, 5][: model.ndim]
    size[axis % model.ndim] = length
    pixels = np.random.default_rng(seed).normal(size=(1, *size))
    tile = tile_around(size, [slice(0, side) for side in size], model.geometry)
    start = data.draw(st.integers(0, length - 1))
    wanted = slice(start, data.draw(st.integers(start + 1, length)))
    plan = plan_strips(model, size, rows=rows, axis=axis % model.ndim, stretch=wanted)
    found = np.full((2, *size), np.nan)
    with torch.inference_mode():
        whole = model(torch.from_numpy(tile.take(pixels[:, *tile.read]))[None])[-1][0][:, *tile.crop]
        for write, crop, outputs in plan.run(ArrayPixels(pixels), lambda part: torch.from_numpy(part)[None]):
            found[:, *write] = outputs[-1][0][:, *crop].numpy()
    cut = (slice(None), *[wanted if i == axis % model.ndim else slice(None) for i in range(model.ndim)])
    assert np.isnan(found).sum() == found.size // length * (length - (wanted.stop - wanted.start))
    assert float((whole[cut] - torch.from_numpy(found[cut])).abs().max()) <= 1e-12 * float(
        whole.abs().max() + 1
    )
