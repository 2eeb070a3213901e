"""The arithmetic against what torch does: sizes, receptive field, halo."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skipway import models

FAMILY = ["unet", "unet_e", "unet_plus", "unet_plus_plus", "unet_3_plus"]
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def build(name, **options):
    if name == "unet_3_plus":
        options = {"up": "bilinear"} | options
        options["up"] = "bilinear" if options["up"] == "transposed" else options["up"]
        for key in {"padding", "dropout", "pools"} & options.keys():
            del options[key]
    elif name not in ("unet", "unet_2015"):
        options = {"dropout": 0.0} | options
    return models.build(name, in_channels=1, classes=2, width=2, **options).double().eval()


def randomise(model, seed):
    """He weights and biases that are not zero, so that a wrong border cannot hide."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5, generator=draw)
        elif parameter.ndim > 1:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=(2 / fan_in) ** 0.5, generator=draw)
    return model


def relative(a, b):
    return float((a - b).abs().max() / b.std())


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(FAMILY),
    depth=st.integers(2, 4),
    up=st.sampled_from(["transposed", "bilinear", "nearest"]),
    padding=st.sampled_from(["same", "valid"]),
    side=st.integers(1, 110),
)
def test_a_size_is_legal_exactly_when_torch_can_run_it_and_the_output_has_the_size_said(
    name, depth, up, padding, side
):
    model = build(name, depth=depth, up=up, padding=padding, ndim=1)
    model._check = lambda x: None  # let torch decide
    if model.geometry.legal((side,)):
        with torch.no_grad():
            out = model(torch.zeros(1, 1, side, dtype=torch.double))
        for key, logits in zip(model.geometry.margins, out, strict=True):
            assert tuple(logits.shape[2:]) == model.geometry.output_size((side,), key)
    else:
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 1, side, dtype=torch.double))


def measured_windows(model, size, axis):
    """First and last input pixel with a gradient, for every position of the last output on the pooling grid.

    Positive weights keep every ReLU open, averages let every pixel of a pooling window through.
    """
    model = deepcopy(model)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)):
                setattr(parent, name, AVERAGES[model.ndim - 1](child.kernel_size))
    image = torch.rand(1, 1, *size, dtype=torch.double, requires_grad=True)
    logits = model(image)[-1]
    stride = model.geometry.stride[axis]
    first = logits.shape[2 + axis] // 2 // stride * stride
    centre = [n // 2 for n in logits.shape[2:]]
    for phase in range(stride):
        centre[axis] = first + phase
        (gradient,) = torch.autograd.grad(logits[(0, 0, *centre)], image, retain_graph=True)
        others = [i for i in range(gradient.ndim) if i != 2 + axis]
        seen = gradient.abs().sum(others).nonzero().flatten()
        yield int(seen[0]) - centre[axis], int(seen[-1]) - centre[axis], phase


def check_field(model, size, axis=0):
    shape = model.geometry
    windows = list(measured_windows(model, size, axis))
    stride, margin = shape.stride[axis], shape.margin[axis]
    assert max(last - first + 1 for first, last, _ in windows) == shape.receptive_field[axis]
    before = max(margin - first - phase for first, last, phase in windows)
    after = max(last - margin + phase - (stride - 1) for first, last, phase in windows)
    needed = -(-max(before, after) // stride) * stride
    assert needed <= shape.halo[axis]
    if len(shape.margins) == 1:  # with more outputs the halo covers the others as well
        assert needed == shape.halo[axis]


@pytest.mark.parametrize("up", ["transposed", "bilinear", "nearest"])
@pytest.mark.parametrize("name", FAMILY)
def test_receptive_field_and_halo_equal_those_measured_by_gradients(name, up):
    check_field(build(name, ndim=1, depth=5, up=up), (32 * 16,))


def test_receptive_field_of_the_paper_equals_that_measured_by_gradients():
    check_field(build("unet_2015"), (396, 204), axis=0)


@pytest.mark.parametrize(
    ("ndim", "pools", "size", "axis"),
    [
        (2, [(2, 2), (2, 2)], (96, 64), 0),
        (2, [(3, 2), (2, 2)], (180, 64), 0),
        (3, [(1, 2, 2), (2, 2, 2)], (60, 8, 8), 0),
        (3, [(1, 2, 2), (2, 2, 2)], (8, 96, 8), 1),
    ],
)
def test_receptive_field_holds_on_every_axis(ndim, pools, size, axis):
    check_field(build("unet", ndim=ndim, depth=3, pools=pools, up="bilinear"), size, axis)


CASES = [
    ("unet", {"depth": 5, "ndim": 2}, 256, 16),
    ("unet", {"depth": 3, "ndim": 2, "up": "bilinear"}, 96, 8),
    ("unet", {"depth": 3, "ndim": 2, "up": "nearest", "norm": "channel_layer", "block": "residual"}, 96, 8),
    ("unet", {"depth": 3, "ndim": 2, "merge": "sum"}, 96, 8),
    ("unet", {"depth": 2, "ndim": 3}, 28, 4),
    ("unet_e", {"depth": 3, "ndim": 2}, 96, 8),
    ("unet_plus", {"depth": 3, "ndim": 2, "supervised": True}, 96, 8),
    ("unet_plus_plus", {"depth": 4, "ndim": 2, "supervised": True}, 128, 8),
    ("unet_3_plus", {"depth": 4, "ndim": 2, "supervised": True}, 160, 8),
]


def tile_error(model, side, core, halo):
    """Largest difference, in standard deviations, between tiles (corners, middle) and the whole image."""
    torch.manual_seed(1)
    image = torch.randn(1, 1, *[side] * model.ndim, dtype=torch.double)
    stride = model.geometry.stride[0]
    worst = 0.0
    with torch.no_grad():
        whole = model(image)
        for start in (0, side // 2 // stride * stride, side - core):
            first, last = max(0, start - halo), min(side, start + core + halo)
            tile = model(image[(..., *[slice(first, last)] * model.ndim)])
            here = (..., *[slice(start - first, start - first + core)] * model.ndim)
            there = (..., *[slice(start, start + core)] * model.ndim)
            worst = max(worst, *(relative(t[here], w[there]) for t, w in zip(tile, whole, strict=True)))
    return worst


@pytest.mark.parametrize(("name", "options", "side", "core"), CASES)
def test_a_crop_with_its_halo_gives_what_the_whole_image_gives(name, options, side, core):
    model = randomise(build(name, **options), seed=0)
    assert model.geometry.tile_exact
    halo = model.geometry.halo[0]
    assert halo + core < side // 2 + halo < side  # or the tile would be the image
    assert tile_error(model, side, core, halo) <= 1e-12


@pytest.mark.parametrize(("name", "options", "side", "core"), CASES[:3])
def test_one_stride_less_of_halo_is_not_enough(name, options, side, core):
    model = randomise(build(name, **options), seed=0)
    assert tile_error(model, side, core, model.geometry.halo[0] - model.geometry.stride[0]) > 1e-10


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norms_over_space_are_said_not_to_be_tile_exact_and_are_not(norm):
    model = randomise(build("unet", depth=3, norm=norm), seed=0)
    assert not model.geometry.tile_exact
    assert tile_error(model, 96, 8, model.geometry.halo[0]) > 1e-3


@pytest.mark.parametrize(("name", "padding"), [("unet", "valid"), ("unet_plus_plus", "valid")])
def test_valid_tiles_on_multiples_of_the_stride_equal_the_whole_and_others_do_not(name, padding):
    model = randomise(build(name, depth=3, padding=padding), seed=0)
    shape = model.geometry
    size = shape.next_legal((120, 120))
    tile = shape.next_legal((60, 60))[0]
    torch.manual_seed(1)
    image = torch.randn(1, 1, *size, dtype=torch.double)
    with torch.no_grad():
        whole = model(image)[-1]
        for origin, exact in [(0, True), (4, True), (32, True), (1, False), (2, False)]:
            part = model(image[..., origin : origin + tile, origin : origin + tile])[-1]
            n = part.shape[-1]
            error = relative(part, whole[..., origin : origin + n, origin : origin + n])
            assert (error <= 1e-12) if exact else (error > 1e-3)
