"""The instance norm in the channels-last layout, and which network trains in which layout."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from skipway.models import build
from skipway.nn.layout import channels_last, for_prediction, layout_of
from skipway.nn.norms import GroupNorm
from skipway.training.step import layout_for, optimiser_of, placed

TORCH_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def passes(norm, x, towards):
    """Output, and gradients of input, scale and shift when `towards` is the gradient of the output."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    y.backward(towards)
    return y.detach(), x.grad, norm.weight.grad, norm.bias.grad


def dressed(norm):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_instance_norm_in_channels_last_is_that_of_torch(ndim, images, dtype, close):
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(images, 6, *(9, 8, 7)[:ndim], dtype=dtype, generator=generator) + 1
    towards = torch.randn(x.shape, dtype=dtype, generator=generator)
    theirs = passes(dressed(TORCH_NORMS[ndim](6, affine=True)).double(), x.double(), towards.double())
    last = x.contiguous(memory_format=channels_last(ndim))
    ours = passes(dressed(GroupNorm(6, 6)).to(dtype), last, towards)
    assert layout_of(ours[0]) == layout_of(ours[1]) == channels_last(ndim)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert (mine - other).abs().max() <= close * other.abs().max()
    terms = towards.abs().sum().item()  # scale and shift have sums for gradients, and their rounding
    for mine, other in zip(ours[2:], theirs[2:], strict=True):
        assert (mine - other).abs().max() <= close * terms


def test_the_backward_pass_in_channels_last_is_the_one_of_batch_norm():
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    norm = GroupNorm(4, 4)
    assert "GroupNorm" not in type(norm(x).grad_fn).__name__  # the slow one
    assert "GroupNorm" in type(norm(x.contiguous()).grad_fn).__name__
    assert "GroupNorm" in type(norm.eval()(x).grad_fn).__name__
    assert "GroupNorm" in type(GroupNorm(4, 2)(x).grad_fn).__name__  # another function
    assert torch.equal(norm.train()(x), norm.eval()(x))


def test_a_network_with_instance_norm_has_the_same_gradients_in_both_layouts():
    torch.manual_seed(0)
    model = build("nnunet", in_channels=1, classes=2, width=4, depth=3, ndim=2).double()
    image = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=layout)
        model.zero_grad()
        sum(output.square().mean() for output in model(image.contiguous(memory_format=layout))).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, last in zip(*found, strict=True):
        torch.testing.assert_close(last, plain, rtol=1e-9, atol=1e-12)


def test_a_half_precision_gradient_is_that_of_single_precision_up_to_rounding():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 8, 16, 16, generator=generator).to(torch.bfloat16)
    towards = torch.randn(x.shape, generator=generator).to(torch.bfloat16)
    exact = passes(dressed(GroupNorm(8, 8)), x.float(), towards.float())
    last = passes(dressed(GroupNorm(8, 8)), x.contiguous(memory_format=torch.channels_last), towards)
    for mine, other in zip(last, exact, strict=True):
        assert (mine.float() - other).abs().max() <= 2**-7 * other.abs().max()


@pytest.mark.parametrize(
    ("norm", "ndim", "precision", "expected"),
    [
        ("batch", 2, "fp32", torch.channels_last),
        ("instance", 2, "bf16", torch.channels_last),
        ("group", 2, "bf16", torch.contiguous_format),
        ("batch", 3, "fp32", torch.contiguous_format),
        ("instance", 3, "bf16", torch.channels_last_3d),
    ],
)
def test_the_layout_goes_by_norm_axes_and_precision(norm, ndim, precision, expected):
    model = build("unet", in_channels=1, classes=1, width=20, depth=3, norm=norm, ndim=ndim)
    plan = SimpleNamespace(ndim=ndim, precision=precision)
    assert layout_for(model, plan) == expected
    placed(model, plan, torch.device("cpu"))
    kernels = [p for p in model.parameters() if p.ndim == ndim + 2 and min(p.shape) > 1]
    assert {layout_of(kernel) for kernel in kernels} == {expected}
    for_prediction(model, ndim)
    predicting = torch.channels_last if ndim == 2 else torch.contiguous_format
    assert {layout_of(kernel) for kernel in kernels} == {predicting}


def test_adamw_on_a_cpu_is_the_plain_one_up_to_rounding():
    """One pass rounds where ten passes rounded otherwise: the last digits may differ, the training may not."""
    plan = SimpleNamespace(optimiser="adamw", learning_rate=1e-2, weight_decay=1e-2)
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = build("unet", in_channels=1, classes=1, width=4, depth=2)
        optimiser = optimiser_of(plan, model)
        assert all(group["fused"] for group in optimiser.param_groups)
        for group in optimiser.param_groups:
            group["fused"] = fused
        for step in range(5):
            for parameter in model.parameters():
                parameter.grad = torch.sin(parameter.detach() * 50 + step)
            optimiser.step()
        found.append(list(model.parameters()))
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
