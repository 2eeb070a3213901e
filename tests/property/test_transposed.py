"""The size arithmetic of transposed convolutions whose kernel is not their stride, against what torch does."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skipway.nn.paths import path_of
from skipway.shapes import Grid, Spread, Transposed, advance


@given(
    kernel=st.integers(1, 9),
    stride=st.integers(1, 5),
    padding=st.integers(0, 3),
    side=st.integers(1, 9),
)
def test_a_transposed_convolution_has_the_size_and_reads_what_torch_says(kernel, stride, padding, side):
    module = nn.ConvTranspose1d(1, 1, kernel, stride=stride, padding=padding, bias=False).double()
    nn.init.ones_(module.weight)
    ((step,),) = path_of(module, 1)
    (grid,) = advance((Grid(),), ((step,),))
    size = grid.size(side)
    assert size == (side - 1) * stride + kernel - 2 * padding
    if size < 1:
        return
    image = torch.ones(1, 1, side, dtype=torch.double, requires_grad=True)
    out = module(image)
    assert out.shape[-1] == size
    for pixel in range(int(size)):
        (gradient,) = torch.autograd.grad(out[0, 0, pixel], image, retain_graph=True)
        seen = gradient.flatten().nonzero().flatten().tolist()
        first, last = step.reads(pixel, pixel)
        assert seen == list(range(max(first, 0), min(last, side - 1) + 1))


@given(factor=st.integers(1, 8), pixel=st.integers(-50, 50), extra=st.integers(0, 20))
def test_a_kernel_of_one_stride_is_a_spread(factor, pixel, extra):
    grid = Grid()
    assert Transposed(factor, factor).grid(grid) == Spread(factor).grid(grid)
    assert Transposed(factor, factor).reads(pixel, pixel + extra) == Spread(factor).reads(
        pixel, pixel + extra
    )
