"""Decoder nodes in bands of rows: the same numbers in less memory."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from skipway import models
from skipway.nn.operations import peak_bytes
from skipway.shapes import Bands, Spread, Window, bands_of

ROWS = {
    "unet": {},
    "unet bilinear": {"up": "bilinear"},
    "unet nearest": {"up": "nearest", "block": "residual"},
    "unet sum": {"merge": "sum", "norm": "channel_layer"},
    "unet 3-D": {"ndim": 3, "depth": 3, "pools": [(1, 2, 2), (2, 2, 2)]},
    "unet_e": {},
    "unet_plus_plus": {"supervised": True},
    "unet_3_plus": {"supervised": True, "depth": 4},
}


def network(row, dtype=torch.float64):
    torch.manual_seed(0)
    model = models.build(row.split()[0], in_channels=1, width=4, **ROWS[row]).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def image(model, dtype=torch.float64):
    size = (24, 16, 16) if model.ndim == 3 else (208, 48)
    return torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("rows", [1, 6, 40, None])
def test_bands_give_the_numbers_of_whole_maps(row, rows):
    model = network(row)
    x = image(model)
    with torch.inference_mode():
        for whole, banded in zip(model(x), model.frugal(x, rows), strict=True):
            assert float((whole - banded).abs().max() / whole.std()) < 1e-13


@pytest.mark.parametrize("row", ["unet", "unet_plus_plus"])
def test_bands_change_no_bit_of_single_precision(row):
    model = network(row, torch.float32).to(memory_format=torch.channels_last)
    x = torch.randn(1, 1, 656, 128).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(model(x), model.frugal(x), strict=True))


@pytest.mark.parametrize("row", ["unet", "unet_plus_plus", "unet_3_plus"])
def test_one_step_less_of_halo_is_too_little(row):
    model = network(row)
    x = image(model)
    with torch.inference_mode():
        whole = model(x)[-1]
        node = model.nodes[model.topology.outputs[-1].key]
        node.bands = replace(node.bands, halo=node.bands.halo - node.bands.step)
        assert float((model.frugal(x, 6)[-1] - whole).abs().max() / whole.std()) > 1e-6


def test_a_map_smaller_than_what_it_reads_has_no_bands():
    assert bands_of([((Window(3),),)], [Fraction(1)]) is None
    assert all(node.bands is None for node in models.unet_2015(width=2).nodes.values())


def test_statistics_over_space_have_no_bands():
    assert all(node.bands is None for node in models.unet(width=2, norm="instance").nodes.values())


def test_linear_upsampling_looks_one_row_further():
    three = (Window(3, padding=1),)
    assert bands_of([(three,), ((Spread(2),), three)], [Fraction(1), Fraction(2)]) == Bands(
        2, 2, (Fraction(1), Fraction(2))
    )
    assert bands_of([((Spread(4, linear=True),), three)], [Fraction(4)]).halo == 4


def keeping(model, x):
    """The same network with every map of every node held until the end."""
    held = []
    modules = [*model.encoder.stages.values(), *model.nodes.values()]
    hooks = [module.register_forward_hook(lambda *a: held.append(a[-1])) for module in modules]
    model(x)
    for hook in hooks:
        hook.remove()


def test_unet_plus_plus_predicts_in_half_the_memory_of_keeping_everything():
    torch.manual_seed(0)
    model = models.unet_plus_plus(width=8, supervised=True).eval()
    x = torch.randn(1, 1, 512, 256)
    everything = peak_bytes(lambda x: keeping(model, x), x)
    freed, banded = peak_bytes(model, x), peak_bytes(model.frugal, x)
    assert freed < 0.95 * everything
    assert banded < 0.5 * everything, (banded / everything, freed / everything)


def test_the_peak_of_a_chain_is_two_maps():
    """Each of three steps makes a map of 4,096 bytes out of the one before, which is freed after it."""
    x = torch.zeros(1024)
    assert peak_bytes(lambda x: (x + 1).mul(2).add(3).sum(), x) == 2 * 4096
    assert peak_bytes(lambda x: [x + 1, x + 2, x.view(32, 32)], x) == 2 * 4096
    assert peak_bytes(lambda x: x.add_(1), x) == 0
