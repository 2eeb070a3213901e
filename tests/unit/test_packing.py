"""A folded or packed network computes what the network itself computes, and tiles stay exact with it."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from members import MEMBERS, made
from skipway import models
from skipway.models import arguments
from skipway.nn.folding import folded, followed
from skipway.nn.norms import BATCH_NORMS
from skipway.nn.packing import ACTIVATIONS, PackedConv, packed
from skipway.predict import predict_array

KEPT = {"residual_unet": 4}
"""Norms that stay: those before an activation before a convolution, and one that nothing precedes."""


def trained(name, ndim=2, dtype=torch.float32, **config):
    """A member with numbers in the statistics of every norm, wide enough to say something."""
    width = {"width": 4} if "width" in arguments(name) else {}
    model = made(name, ndim, dtype, **{**width, **config})
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def image(model, dtype=torch.float32, periods=2):
    shape = model.geometry
    sides = [least + periods * stride for least, stride in zip(shape.smallest, shape.stride, strict=True)]
    return torch.randn(2, model.in_channels, *sides, dtype=dtype)


def even(model, array):
    """Shift the logits of the last head so that no class wins everywhere."""
    seen = torch.zeros(2, *array.shape[1:])
    predict_array(model, array, tile=1024, on_logits=lambda region, logits: seen[:, *region].copy_(logits))
    head = [m for m in model.heads[model.topology.outputs[-1].key].modules() if hasattr(m, "bias")][-1]
    head.bias.data -= seen.flatten(1).mean(1)


def apart(ours, theirs):
    """Largest difference in units of the spread of what was wanted."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert float(b.std()) > 1e-3  # two dead networks would agree as well
    return max(float((a - b).abs().max() / b.std()) for a, b in zip(ours, theirs, strict=True))


def count(model, kinds):
    return sum(isinstance(module, kinds) for module in model.modules())


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_a_folded_and_a_packed_member_compute_what_the_member_computes(name, ndim):
    model = trained(name, ndim, torch.float64)
    x = image(model, torch.float64)
    light = folded(model)
    with torch.no_grad():
        wanted = model(x)
        assert apart(light(x), wanted) <= 1e-12
        model, x = model.float(), x.float()
        fast, own = packed(model), apart(model(x), wanted)
        assert own <= 1e-4  # float32 itself, with instance norms and where weights are used again
        bound = max(1e-5, 4 * own)
        assert apart(fast(x), wanted) <= bound
        assert apart(fast.frugal(x, rows=8), wanted) <= bound
    assert count(light, BATCH_NORMS) == KEPT.get(name, 0)
    assert count(fast, PackedConv) == count(light, (nn.Conv2d, nn.Conv3d)) + sum(
        isinstance(m, (nn.ConvTranspose2d, nn.ConvTranspose3d)) and m.groups == 1 for m in light.modules()
    )


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_encoders_of_others_fold_too(name):
    torch.manual_seed(0)
    model = models.unet(backbone=name, width=2, stem=True, depth=4).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x = image(model, torch.float64, periods=4)
    with torch.no_grad():
        wanted = model(x)
        light = folded(model)
        assert apart(light(x), wanted) <= 1e-12
        assert apart(packed(model.float())(x.float()), wanted) <= 1e-5
    assert count(light, BATCH_NORMS) == 0


def test_the_original_is_left_as_it_was():
    model = trained("r2_attention_unet").train()
    before = deepcopy(model.state_dict())
    fast = packed(model)
    assert model.training
    assert not fast.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in fast.parameters())
    assert (fast.geometry, fast.topology, fast.in_channels, fast.classes) == (
        *(model.geometry, model.topology),
        *(model.in_channels, model.classes),
    )


def test_a_level_of_a_packed_network_is_the_level_of_the_network():
    model = trained("unet_plus_plus", supervised=True, norm="batch")
    x = image(model)
    with torch.no_grad():
        assert apart(packed(model).pruned(1)(x), model.pruned(1)(x)) <= 1e-5


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_each_activation_is_that_of_torch(kind, ndim, transposed):
    torch.manual_seed(0)
    act = {nn.LeakyReLU: lambda: nn.LeakyReLU(0.2), nn.Hardtanh: lambda: nn.Hardtanh(-0.5, 0.25)}.get(
        kind, kind
    )()
    if transposed:
        conv = (nn.ConvTranspose2d, nn.ConvTranspose3d)[ndim - 2](3, 5, 2, stride=2)
    else:
        conv = (nn.Conv2d, nn.Conv3d)[ndim - 2](3, 5, 3, padding=1, bias=False)
    x = torch.randn(2, 3, *(7, 9, 6)[:ndim])
    with torch.no_grad():
        assert torch.allclose(PackedConv(conv, act)(x), act(conv(x)), atol=1e-5)
        assert torch.allclose(PackedConv(conv)(x), conv(x), atol=1e-5)


def test_without_the_operators_the_folded_copy_is_given(monkeypatch):
    model = trained("unet")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = packed(model)
    assert count(plain, PackedConv) == count(plain, BATCH_NORMS) == 0
    x = image(model)
    with torch.no_grad():
        assert apart(plain(x), model(x)) <= 1e-5


class Net(nn.Module):
    """Two convolutions with norms; the map of the first is also read by something else where it says so."""

    in_channels = 1

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.geometry = models.unet_2015(width=2, depth=2).geometry
        self.conv1, self.norm1, self.act1 = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)
        self.conv2, self.norm2 = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x):
        a = self.conv1(x)
        if self.how == "read before":
            side = a * 2
        if self.how == "activated before":
            a = F.relu_(a)
        y = self.conv2(self.act1(self.norm1(a)))
        z = self.norm2(y)
        if self.how == "read after":
            side = a + 1
        if self.how == "used twice":
            z = z + self.norm2(self.conv2(self.norm1(a)))
        return z + side.mean() if "read" in self.how else z


@pytest.mark.parametrize(
    ("how", "pairs"),
    [
        ("clean", {("conv1", "norm1"), ("conv2", "norm2")}),
        ("read before", {("conv2", "norm2")}),
        ("read after", {("conv2", "norm2")}),
        ("activated before", {("conv2", "norm2")}),
        ("used twice", set()),
    ],
)
def test_a_norm_is_folded_only_where_it_alone_reads_the_convolution(how, pairs):
    found = followed(Net(how).eval(), (nn.Conv2d,), (nn.BatchNorm2d,))
    assert set(found.pairs) == pairs
    assert found.called == (("conv1",) if how == "used twice" else ("conv1", "conv2"))


@pytest.mark.parametrize(
    ("name", "ndim", "tiles"),
    [("unet", 2, (32, 48, 72)), ("unet_plus_plus", 2, (32, 64)), ("r2_unet", 2, (64,)), ("unet", 3, (8, 12))],
)
def test_tiles_stay_exact(name, ndim, tiles):
    model = trained(name, ndim, width=8)
    rng = np.random.default_rng(0)
    array = rng.normal(size=(1, *((150, 131) if ndim == 2 else (20, 23, 18)))).astype(np.float32)
    even(model, array)
    fast, seen = packed(model), {}

    def keep(which):
        seen[which] = torch.zeros(2, *array.shape[1:])
        return lambda region, logits: seen[which][:, *region].copy_(logits)

    wanted = predict_array(model, array, tile=1024, on_logits=keep("model")).labels
    assert 0.02 < wanted.mean() < 0.98
    largest = seen["model"].abs().max()
    for tile in (1024, *tiles):
        found = predict_array(fast, array, tile=tile, on_logits=keep(tile))
        assert np.array_equal(found.labels, wanted)
        assert found.certificate.changed_labels == 0
        assert found.certificate.holds
        assert float((seen[tile] - seen[1024]).abs().max() / largest) <= 1e-6
        assert float((seen[tile] - seen["model"]).abs().max() / largest) <= 1e-5


@pytest.mark.parametrize("ndim", [2, 3])
def test_bfloat16_is_near(ndim):
    model = trained("unet", ndim, width=16)
    x = image(model, periods=4)
    fast = packed(model, torch.bfloat16)
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        wanted, found = model(x)[-1], fast(x.bfloat16())[-1]
    assert found.dtype == torch.bfloat16
    off = (found.float() - wanted).pow(2).mean().sqrt() / wanted.std()
    assert 1e-5 < float(off) < 0.03  # rounding to 8 bits, and nothing worse


def test_averages_of_volumes_work_in_bfloat16():
    model = trained("nnunet_residual", 3)
    fast, x = packed(model, torch.bfloat16), image(model)
    with torch.no_grad():
        wanted, found = model(x)[-1], fast(x.bfloat16())[-1].float()
    assert float((found - wanted).pow(2).mean().sqrt() / wanted.std()) < 0.05
