"""Kinds of blocks, activations, gates and up-sampling, on examples that can be checked by hand."""

import pytest
import torch
from torch import nn

from skipway import models
from skipway.nn.blocks import conv_block, residual_block
from skipway.nn.layers import Repeat, activation
from skipway.nn.nodes import AttentionGate, Read, plain_node
from skipway.nn.norms import GroupNorm
from skipway.nn.paths import path_of
from skipway.nn.resample import upsample_in_style
from skipway.nn.style import BLOCKS, Style
from skipway.shapes import Grid, advance

X = (1.0, -2.0, 3.0, 1.0)
BARE = {"ndim": 1, "norm": "none"}


def line(*values):
    return torch.tensor(values).reshape(1, 1, -1)


def fill(module, weight, bias=0.0):
    """One-channel convolution with a kernel given by hand."""
    with torch.no_grad():
        module.weight.copy_(line(*weight))
        if module.bias is not None:
            module.bias.fill_(bias)


def values(tensor):
    return tensor.detach().flatten().tolist()


def test_residual_each_adds_its_input_to_every_convolution():
    block = conv_block(1, (1, 1), Style(block="residual_each", **BARE))
    fill(block.unit1.body.conv1, (1, 0, 0))  # the left neighbour: 0, 1, -2, 3
    fill(block.unit2.body.conv1, (0, 2, 0), bias=-3)
    assert values(block.unit1(line(*X))) == [1, 0, 1, 4]
    assert values(block(line(*X))) == [0, 0, 0, 9]  # relu(2 y - 3 + y)


def test_residual_each_takes_other_widths_through_a_1_wide_convolution_and_crops_valid_ones():
    block = conv_block(1, (2, 2), Style(block="residual_each", padding="valid", **BARE))
    x = torch.randn(1, 1, 9)
    first, second = block.unit1, block.unit2
    assert first.shortcut.conv.weight.shape == (2, 1, 1)
    assert len(second.shortcut) == 0
    y = (first.body.conv1(x) + first.shortcut.conv(x[..., 1:-1])).relu()
    assert torch.equal(block(x), (second.body.conv1(y) + y[..., 1:-1]).relu())
    assert block(x).shape == (1, 2, 5)


def test_preactivation_works_on_activated_input_and_adds_the_bare_one():
    block = conv_block(1, (1, 1), Style(block="preactivation", **BARE))
    fill(block.body.conv1, (1, 0, 0))
    fill(block.body.conv2, (0, 2, 0), bias=-1)
    assert values(block(line(*X))) == [0, -1, 2, 6]  # 2 relu(0, 1, 0, 3) - 1, plus x; no relu after


def test_an_opening_preactivation_block_does_not_cut_the_image_at_zero():
    style = Style(block="preactivation", **BARE)
    results = []
    for opening in (True, False):
        block = conv_block(1, (1, 1), style, opening=opening)
        fill(block.body.conv1, (0, -1, 0))
        fill(block.body.conv2, (0, 2, 0))
        results.append(values(block(line(*X))))
    assert results == [[1, 2, 3, 1], [1, -2, 3, 1]]
    encoder = models.unet(width=2, depth=2, block="preactivation").encoder
    names = [[name for name, _ in stage.block.body.named_children()] for stage in encoder.stages.values()]
    assert names[0] == ["conv1", "norm2", "act2", "conv2"]
    assert names[1] == ["norm1", "act1", *names[0]]


@pytest.mark.parametrize(("times", "expected"), [(0, [1, 0, 5]), (1, [3, 0, 15]), (2, [7, 0, 35])])
def test_a_recurrent_convolution_is_used_again_on_the_sum_of_input_and_output(times, expected):
    style = Style(block="recurrent", recurrences=times, **BARE)
    block = conv_block(1, (1,), style)
    fill(block.enter, (1,))
    fill(block.units.unit1.body.conv1, (0, 2, 0), bias=-1)
    assert values(block(line(1.0, -2.0, 3.0))) == expected  # relu(2 (x + y) - 1)
    assert sum(p.numel() for p in block.parameters()) == 2 + 4


def test_a_recurrent_residual_block_adds_what_its_first_unit_reads():
    block = conv_block(1, (1,), Style(block="recurrent_residual", **BARE))
    fill(block.enter, (1,))
    fill(block.units.body.unit1.body.conv1, (0, 2, 0), bias=-1)
    assert values(block(line(1.0, -2.0, 3.0))) == [8, -2, 38]


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_leaves_its_input_as_it_was_and_gradient_reaches_all_of_it(block, norm):
    torch.manual_seed(0)
    module = conv_block(2, (2, 2), Style(block=block, norm=norm, activation="leaky_relu"))
    x = torch.randn(2, 2, 5, 6, requires_grad=True)
    before = x.detach().clone()
    module(x).square().sum().backward()
    assert torch.equal(x.detach(), before)
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in module.parameters())


@pytest.mark.parametrize("stride", [1, 2, (1, 2)])
@pytest.mark.parametrize("kernel", [3, 5, (3, 5)])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_says_the_sizes_torch_gives(block, kernel, stride):
    module = conv_block(2, (3, 4), Style(block=block), kernel=kernel, stride=stride)
    grids = advance((Grid(), Grid()), path_of(module, 2))
    for size in ((8, 12), (14, 6)):
        there = tuple(module(torch.zeros(2, 2, *size)).shape)
        assert there == (2, 4, *(grid.size(n) for grid, n in zip(grids, size, strict=True)))


def test_a_strided_block_adds_every_second_pixel_or_the_mean_of_two():
    x = line(1.0, 3.0, 5.0, 9.0)
    results = []
    for pooled in (False, True):
        block = residual_block(1, (1,), Style(**BARE), stride=2, pooled=pooled)
        fill(block.body.conv1, (0, 0, 0))
        if pooled:
            assert list(dict(block.shortcut.named_children())) == ["pool"]  # no weights: widths are equal
        else:
            fill(block.shortcut.conv, (1,))
        results.append(values(block(x)))
    assert results == [[1, 5], [2, 7]]


@pytest.mark.parametrize(
    ("name", "expected"), [("relu", [0.0, 3.0]), ("leaky_relu", [-0.02, 3.0]), ("prelu", [-0.5, 3.0])]
)
def test_activations(name, expected):
    module = activation(1, Style(activation=name))
    assert module(torch.tensor([[[-2.0, 3.0]]])).flatten().tolist() == pytest.approx(expected)


def test_a_prelu_learns_one_slope_a_channel():
    model = models.unet(width=2, depth=2, activation="prelu")
    assert model.encoder.stages["x1_0"].block.act2.weight.shape == (4,)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_instance_norm_is_that_of_torch(ndim):
    torch.manual_seed(0)
    norm = GroupNorm(3, groups=3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    theirs = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[ndim - 1](3, affine=True).double()
    theirs.load_state_dict(norm.state_dict())
    x = 5 + torch.randn(2, 3, *(7, 5, 6)[:ndim], dtype=torch.double)
    assert float((norm(x) - theirs(x)).detach().abs().max()) < 1e-13


def test_instance_norm_keeps_channels_last_and_takes_a_single_pixel():
    norm = GroupNorm(3, groups=3)
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert norm(x).is_contiguous(memory_format=torch.channels_last)
    assert norm(torch.full((1, 3, 1, 1), 7.0)).flatten().tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert not models.unet(width=2, depth=2, norm="instance").geometry.tile_exact


def test_group_norm_is_that_of_torch_and_takes_a_single_pixel():
    norm, theirs = GroupNorm(6, groups=3).double(), nn.GroupNorm(3, 6).double()
    x = 5 + torch.randn(2, 6, 4, 5, dtype=torch.double)
    assert torch.equal(norm(x), theirs(x))
    model = models.unet(width=2, depth=3, norm="group")
    smallest = torch.ones(1, 1, *model.geometry.smallest)
    assert bool(torch.isfinite(model(smallest)[-1]).all())
    assert not model.geometry.tile_exact


def test_repeated_channels_come_in_turn():
    x = torch.tensor([1.0, 2.0]).reshape(1, 2, 1)
    assert values(Repeat(5)(x)) == [1, 2, 1, 2, 1]


def gate_of_ones():
    gate = AttentionGate(2, 1, Style(**BARE))
    for parameter in gate.parameters():
        nn.init.ones_(parameter)
    return gate


def test_a_gate_weighs_each_pixel_by_the_sigmoid_of_what_both_maps_say():
    gate = gate_of_ones()
    x = torch.tensor([[[1.0, -4.0], [2.0, 0.0]]])
    signal = torch.tensor([[[-1.0, 1.0]]])
    # relu(1 + 2 + 1, and -1 + 1) = 4; relu(-4 + 0 + 1, and 1 + 1) = 0; psi adds 1
    alpha = torch.sigmoid(torch.tensor([5.0, 1.0]))
    assert torch.allclose(gate(x, signal), x * alpha)


def test_a_gated_node_gates_every_skip_and_not_what_is_up_sampled():
    torch.manual_seed(0)
    reads = [Read("x0_0", 2, (1,), (1,)), Read("x0_1", 2, (1,), (0,)), Read("x1_1", 3, (2,), (0,))]
    node = plain_node(reads, (4,), Style(**BARE), up="nearest", gate=True)
    node.body = nn.Identity()
    a, b, below = torch.randn(1, 2, 10), torch.randn(1, 2, 8), torch.randn(1, 3, 4)
    up = below.repeat_interleave(2, dim=2)
    expected = [node.merge.gates["x0_0"](a[..., 1:-1], up), node.merge.gates["x0_1"](b, up), up]
    assert torch.equal(node([a, b, below]), torch.cat(expected, dim=1))
    assert list(node.merge.gates) == ["x0_0", "x0_1"]


def test_a_gate_without_an_up_sampled_map_is_refused():
    with pytest.raises(ValueError, match="a gate needs one read that is up-sampled to decide, not 0"):
        plain_node([Read("x0_0", 2, (1,), (0,))], (4,), Style(**BARE), gate=True)


def test_a_gate_learns_under_the_norm_over_channels_too():
    torch.manual_seed(0)
    gate = AttentionGate(4, 4, Style(norm="channel_layer"))
    gate(torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in gate.parameters())


def test_nearest_conv_repeats_pixels_then_convolves_in_the_style():
    module, width = upsample_in_style("nearest_conv", (2,), 1, 1, Style(**BARE))
    fill(module.block.conv1, (1, 0, -1))
    assert width == 1
    assert values(module(line(1.0, 5.0, 2.0))) == [0, 0, 0, 3, 3, 2]  # of 1 1 5 5 2 2
    with pytest.raises(ValueError, match="up cannot be 'cubic'; choose one of .*nearest_conv"):
        upsample_in_style("cubic", (2,), 1, 1, Style(**BARE))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Style(block="recurrent", padding="valid"), "recurrent block adds its output to its input"),
        (lambda: Style(block="recurrent_residual", padding="valid"), "so it cannot lose pixels"),
        (
            lambda: Style(block="dense"),
            "block cannot be 'dense'; choose one of plain, residual, residual_each",
        ),
        (
            lambda: Style(activation="gelu"),
            "activation cannot be 'gelu'; choose one of relu, leaky_relu, prelu",
        ),
        (lambda: Style(recurrences=-1), "recurrences is a number of uses, 0 or more, not -1"),
        (
            lambda: conv_block(1, (1,), Style(block="residual", padding="valid"), stride=2),
            "a block with a stride that adds its input needs same padding",
        ),
        (
            lambda: conv_block(1, (1,), Style(block="preactivation"), kernel=(1, 3), stride=2),
            r"a block of stride 2 that adds its input needs a kernel as wide, not \(1, 3\)",
        ),
        (
            lambda: conv_block(1, (1,), Style(), kernel=4),
            "a convolution needs odd kernels to stay on its grid, not 4",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
