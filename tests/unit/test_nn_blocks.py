"""Blocks, resampling and the arithmetic read off them."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from skipway.nn.blocks import conv_block
from skipway.nn.nodes import MergeNode, Read, concat, plain_node
from skipway.nn.norms import ChannelLayerNorm
from skipway.nn.paths import path_of
from skipway.nn.resample import upsample
from skipway.nn.style import Style
from skipway.shapes import Grid, Spread, Transposed, Window, advance


def test_channel_layer_norm_is_the_formula_at_each_pixel():
    norm = ChannelLayerNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 8.0]]).reshape(1, 3, 1, 2)
    root = (3 / 2) ** 0.5  # 1, 2, 3 have variance 2/3
    expected = torch.tensor([[-root, -(0.5**0.5)], [1.0, 1 - 2 * 0.5**0.5], [3 * root - 1, 3 * 2**0.5 - 1]])
    assert torch.allclose(norm(x)[0, :, 0], expected, atol=1e-5)


def test_channel_layer_norm_does_not_see_the_neighbours():
    norm, x = ChannelLayerNorm(4), torch.randn(2, 4, 6, 5)
    assert torch.equal(norm(x)[:, :, 2:4, 1:3], norm(x[:, :, 2:4, 1:3]))


def test_residual_block_is_relu_of_body_plus_input():
    torch.manual_seed(0)
    block = conv_block(3, (3, 3), Style(block="residual", norm="none", padding="valid"))
    x = torch.randn(1, 3, 8, 8)
    a = nn.functional.conv2d(x, block.body.conv1.weight, block.body.conv1.bias).relu()
    b = nn.functional.conv2d(a, block.body.conv2.weight, block.body.conv2.bias)
    assert torch.allclose(block(x), (b + x[:, :, 2:-2, 2:-2]).relu(), atol=1e-6)


def test_bilinear_up_sampling_is_local_at_the_corner():
    module, width = upsample("bilinear", (2, 2), 1, 7)
    out = module(torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]]))
    assert width == 1
    assert out[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]  # align_corners=True would give 0, 4/3, 8/3, 4


def test_a_node_concatenates_in_the_order_of_reading_and_crops_the_centre():
    one = (Fraction(1),) * 2
    reads = [Read("x0_0", 1, one, (1, 2)), Read("x0_1", 2, one, (0, 0))]
    node = MergeNode(reads, {}, concat, nn.Identity(), 3)
    first = torch.arange(20.0).reshape(1, 1, 4, 5)
    features = [first, torch.zeros(1, 2, 2, 1)]
    merged = node(features)
    assert merged[0, 0].tolist() == [[7.0], [12.0]]
    assert features == []  # let go before the body runs


def test_sum_brings_all_reads_to_the_width_of_the_node():
    reads = [Read("x0_0", 4, (1, 1), (0, 0)), Read("x1_0", 8, (2, 2), (0, 0))]
    node = plain_node(reads, (4, 4), Style(), up="nearest", merge="sum")
    assert node.body.conv1.in_channels == 4
    assert node.branches["x1_0"].score.weight.shape == (4, 8, 1, 1)


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (nn.Conv2d(1, 1, 3, padding=1), ((Window(3, 1, 1),) * 2,)),
        (nn.Conv2d(1, 1, 3, dilation=2), ((Window(5),) * 2,)),
        (nn.MaxPool2d((1, 2)), ((Window(1, 1), Window(2, 2)),)),
        (nn.ConvTranspose2d(1, 1, 2, stride=2), ((Spread(2),) * 2,)),
        (nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1), ((Transposed(4, 2, 1),) * 2,)),
        (nn.Upsample(scale_factor=(1.0, 2.0), mode="bilinear"), ((Spread(1, True), Spread(2, True)),)),
        (nn.Sequential(nn.BatchNorm2d(1), nn.ReLU()), ()),
    ],
)
def test_paths_are_read_off_the_modules(module, path):
    assert path_of(module, 2) == path


@pytest.mark.parametrize(
    "module", [nn.AdaptiveAvgPool2d(1), nn.ConvTranspose2d(1, 1, 4, stride=2, output_padding=1)]
)
def test_a_module_of_unknown_arithmetic_is_refused(module):
    with pytest.raises(TypeError, match="is not known; give it an attribute `path`"):
        path_of(module, 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_strided_convolution_arithmetic_equals_torch(stride):
    module = nn.Conv1d(1, 1, 3, stride=stride, padding=1)
    (grid,) = advance((Grid(),), path_of(module, 1))
    for side in range(2, 20, 2):
        assert grid.size(side) == module(torch.zeros(1, 1, side)).shape[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "norm cannot be 'layer'; choose one of batch, channel_layer"),
        ({"padding": "full"}, "padding cannot be 'full'"),
        ({"ndim": 4}, "1 to 3, not 4"),
        ({"dropout": 1.0}, "dropout is a rate"),
    ],
)
def test_a_style_that_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Style(**options)
