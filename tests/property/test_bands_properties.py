"""Decoder nodes in bands of rows give the numbers of whole maps, whatever the network."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipway.models import build

ROWS = ("unet", "unet_e", "unet_plus", "unet_plus_plus", "wide_unet", "attention_unet")
POOLS = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 2))


@st.composite
def networks(draw):
    """A small network of plain nodes with odd pools, blocks and up-sampling, or one of the other members."""
    kind = draw(st.sampled_from(("plain", "unet_3_plus", "fcn", "nnunet")))
    depth = draw(st.integers(2, 4))
    ndim = 2 if kind == "unet_3_plus" else draw(st.sampled_from((2, 2, 3)))
    flat = draw(st.lists(st.sampled_from(POOLS), min_size=depth - 1, max_size=depth - 1))
    pools = [[*pool, *(2,) * (ndim - 2)] for pool in flat]
    config = {"in_channels": 1, "classes": 1, "width": 2, "depth": depth}
    if kind == "unet_3_plus":
        return kind, config | {"up": draw(st.sampled_from(("bilinear", "nearest"))), "supervised": True}
    config |= {"ndim": ndim, "pools": pools}
    if kind == "fcn":
        up = draw(st.sampled_from(("bilinear", "nearest")))
        return kind, config | {"up": up, "stop": draw(st.integers(0, depth - 1))}
    if kind == "nnunet":
        sides = st.sampled_from((1, 3, 5))
        kernels = [[draw(sides) for _ in range(ndim)] for _ in range(depth)]
        return kind, config | {"norm": "batch", "kernels": kernels}
    config |= {
        "up": draw(st.sampled_from(("transposed", "bilinear", "nearest", "nearest_conv"))),
        "norm": draw(st.sampled_from(("batch", "channel_layer", "none"))),
        "block": draw(st.sampled_from(("plain", "residual", "residual_each", "preactivation", "recurrent"))),
        "merge": draw(st.sampled_from(("concat", "sum"))),
        "gate": draw(st.booleans()) and all(max(pool) > 1 for pool in pools),
        "dropout": 0.0,
    }
    return draw(st.sampled_from(ROWS)), config


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 24), st.integers(0, 60), st.integers(0, 3))
def test_bands_give_the_numbers_of_whole_maps(network, rows, more, seed):
    name, config = network
    torch.manual_seed(seed)
    model = build(name, **config).double().eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    sides = (40 + more, 9, 9)[: model.ndim]
    image = torch.randn(1, 1, *model.geometry.next_legal(sides), dtype=torch.double)
    assert any(node.bands for node in model.nodes.values()) or not model.nodes
    with torch.inference_mode():
        for whole, banded in zip(model(image), model.frugal(image, rows), strict=True):
            assert float((whole - banded).abs().max()) <= 1e-12 * float(whole.abs().max() + 1)
