"""Receptive field and halo of FCN, of the teaching net and of the 3-D U-Net, against gradients."""

import pytest
from test_geometry import check_field

from skipway import models


@pytest.mark.parametrize("name", ["fcn_32s", "fcn_16s", "fcn_8s"])
def test_receptive_field_and_halo_of_fcn_equal_those_measured_by_gradients(name):
    model = models.build(name, in_channels=1, classes=1, width=1, hidden=1).double().eval()
    check_field(model, (26 + 32 * 20, 26))


@pytest.mark.parametrize("up", ["bilinear", "nearest"])
@pytest.mark.parametrize(("depth", "stop"), [(2, 0), (4, 0), (4, 2), (4, 3)])
def test_receptive_field_and_halo_of_the_light_fcn_equal_those_measured_by_gradients(depth, stop, up):
    model = models.fcn(classes=1, width=2, depth=depth, stop=stop, up=up, ndim=1, norm="none")
    check_field(model.double().eval(), (256,))


def test_receptive_field_of_the_two_level_net_equals_that_measured_by_gradients():
    check_field(models.unet_two_level(width=2).double().eval(), (64, 8))


def test_receptive_field_of_the_3d_unet_equals_that_measured_by_gradients():
    model = models.unet_3d_2016(in_channels=1, width=1, depth=3, padding="same").double().eval()
    check_field(model, (64, 4, 4))
