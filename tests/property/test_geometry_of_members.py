"""How far each member of the family looks: by the arithmetic and by gradients, in the plane and in space."""

import pytest
import torch
from test_geometry import check_field

from members import MEMBERS, made

BATCH = {name: {"norm": "batch"} for name in ("nnunet", "nnunet_residual")}  # instance norm sees everything
LOCAL = [case for case in MEMBERS if case[0] != "trans_unet_small"]


@pytest.mark.parametrize(("name", "ndim"), LOCAL)
def test_receptive_field_and_halo_equal_those_measured_by_gradients(name, ndim):
    model = made(name, ndim, torch.float64, **BATCH.get(name, {}))
    shape = model.geometry
    assert shape.tile_exact
    axis = ndim - 1
    size = [1] * ndim
    size[axis] = shape.receptive_field[axis] + 4 * shape.stride[axis]
    check_field(model, shape.next_legal(size), axis)


@pytest.mark.parametrize(("name", "ndim"), [("trans_unet_small", 2), ("nnunet", 3), ("nnunet_residual", 3)])
def test_who_sees_everything_does_and_says_so(name, ndim):
    model = made(name, ndim, torch.float64)
    assert not model.geometry.tile_exact
    image = torch.randn(
        1, 1, *model.geometry.next_legal((32,) * ndim), dtype=torch.double, requires_grad=True
    )
    logits = model(image)[-1]
    (gradient,) = torch.autograd.grad(logits[(0, 0, *(0,) * ndim)], image)
    assert bool(gradient[(0, 0, *(-1,) * ndim)] != 0)
