"""Following maps through a foreign network: known functions pass their reach on, all others count as global."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skipway.nn.reach import Reach, Watch, window


def watched(function):
    image = torch.randn(1, 2, 16, 24)
    with Watch(image) as watch:
        result = function(image)
    return watch.local, watch.reach(result)


def test_windows_add_up_and_branches_take_the_larger():
    narrow, wide = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, (5, 1), padding=(2, 0), dilation=(2, 1))

    def net(x):
        x = F.max_pool2d(F.relu(narrow(x)), 2)
        return x + F.conv2d(wide(x), torch.ones(2, 2, 3, 3), padding=(3, 1))

    local, reach = watched(net)
    assert local
    assert reach == Reach(stride=(2, 2), before=(1 + 2 * 5, 1 + 2), after=(2 + 2 * 5, 2 + 2))


@pytest.mark.parametrize(
    "net",
    [
        lambda x: x * x.mean((2, 3), keepdim=True),
        lambda x: x + x.flip(2),
        lambda x: x + x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], dim=2),
        lambda x: F.instance_norm(x),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.layer_norm(x, (24,)),
        lambda x: F.linear(x, torch.ones(24, 24)),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: x + x.permute(0, 1, 3, 2).permute(0, 1, 3, 2).reshape(x.shape),
        lambda x: x + F.interpolate(F.max_pool2d(x, 2), scale_factor=2),
    ],
)
def test_what_is_not_known_to_be_local_counts_as_global(net):
    assert not watched(net)[0]


class Hidden(torch.autograd.Function):
    """Calls that torch's dispatch of functions does not see."""

    @staticmethod
    def forward(ctx, x):
        return x * x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_what_hides_from_the_watch_counts_as_global():
    convolution = nn.Conv2d(2, 2, 1)

    def net(x):
        x = convolution(x)
        return x + Hidden.apply(x)

    assert not watched(net)[0]


@pytest.mark.parametrize(
    "net",
    [
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (2,)).permute(0, 3, 1, 2),
        lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(2, 2)).permute(0, 3, 1, 2),
        lambda x: F.batch_norm(x, torch.zeros(2), torch.ones(2)),
        lambda x: torch.cat([x, F.silu(x)], dim=1) * torch.ones(4, 1, 1),
    ],
)
def test_what_sees_one_pixel_passes_on(net):
    assert watched(net) == (True, Reach())


def test_padding_moves_the_window():
    local, reach = watched(lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 0)), 3, stride=2))
    assert local
    assert (reach.before, reach.after) == ((1, 0), (1, 2))


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(-1, 9))
def test_a_step_covers_the_reach_and_divides_the_side(stride, before, after):
    outer, inner = Reach((2, 2), (1, 1), (2, 2)), Reach((2 * stride,) * 2, (before,) * 2, (after,) * 2)
    step = window(outer, inner, 0)
    first, last = step.reads(0, 0)
    assert 2 * first - 1 <= -before
    assert 2 * last + 2 >= after
    for n in (4, 8, 12):
        assert (n + 2 * step.padding - step.kernel) // step.stride + 1 == n // stride
