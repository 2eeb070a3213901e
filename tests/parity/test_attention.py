"""Gates, recurrent and residual members against networks wired by hand and against MONAI."""

import sys
from pathlib import Path

import pytest
import torch
from monai.networks.nets import VNet
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn

from skipway import models
from skipway.nn.blocks import Style
from skipway.nn.nodes import AttentionGate
from skipway.nn.norms import BATCH_NORMS, RepeatedBatchNorm

sys.path.insert(0, str(Path(__file__).parent))
from attention_twins import AttentionUNet, Pair, RecurrentPair, ResidualUNet


def randomise(model):
    """Weights of He, other biases and running statistics than those a wrong use would forgive.

    All uses of a norm get the same statistics, as the published code has it.
    """
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            if isinstance(module, RepeatedBatchNorm):
                module.running_mean[1:] = module.running_mean[0]
                module.running_var[1:] = module.running_var[0]
        elif getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.2)
    return model.double().eval()


def in_order(target, source):
    """Copy the weights of one network to another that lists the same shapes in the same order.

    Of the statistics of several uses the first are copied; the number of batches seen is left out.
    """
    ours, theirs = (
        {
            key: value[0] if "running" in key and value.ndim == 2 else value
            for key, value in network.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        for network in (source, target)
    )
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    target.load_state_dict({**target.state_dict(), **dict(zip(theirs, ours.values(), strict=True))})
    return target.double().eval()


CASES = {
    "attention_unet": (lambda: models.attention_unet(width=4), lambda: AttentionUNet(4), 2),
    "attention_unet 3-D": (
        lambda: models.attention_unet(width=2, ndim=3),
        lambda: AttentionUNet(2, ndim=3),
        3,
    ),
    "attention_unet without gates": (
        lambda: models.attention_unet(width=4, gate=False),
        lambda: AttentionUNet(4, gated=False),
        2,
    ),
    "r2_unet": (lambda: models.r2_unet(width=4), lambda: AttentionUNet(4, RecurrentPair, gated=False), 2),
    "r2_attention_unet": (
        lambda: models.r2_attention_unet(width=4),
        lambda: AttentionUNet(4, RecurrentPair),
        2,
    ),
    "residual_unet": (lambda: models.residual_unet(width=4), lambda: ResidualUNet(4), 2),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_graph_equals_the_network_wired_by_hand(case, training):
    make, make_twin, ndim = CASES[case]
    graph = randomise(make())
    twin = in_order(make_twin(), graph).train(training)
    graph.train(training)
    image = torch.randn(2, 3, *(48, 32, 16)[:ndim], dtype=torch.double)
    with torch.no_grad():
        (ours,), theirs = graph(image), twin(image)
    assert torch.equal(ours, theirs)
    assert float(ours.std()) > 1e-3  # two dead networks would agree as well


@pytest.mark.parametrize(
    ("block", "gated", "count"),
    [
        (Pair, False, 34_527_041),
        (Pair, True, 34_878_573),
        (RecurrentPair, False, 39_091_393),
        (RecurrentPair, True, 39_442_925),
    ],
)
def test_the_twins_have_the_published_counts(block, gated, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in AttentionUNet(64, block, gated).parameters()) == count


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_gate_equals_that_of_monai(ndim):
    gate = randomise(AttentionGate(6, 5, Style(ndim=ndim, bias=True)))
    theirs = AttentionBlock(spatial_dims=ndim, f_int=3, f_g=5, f_l=6)
    names = {"skip": "W_x", "signal": "W_g", "psi": "psi"}
    layers = {"conv": "0.conv", "norm": "1"}
    state = {}
    for key, value in gate.state_dict().items():
        part, layer, *rest = key.split(".")
        state[".".join([names[part], layers[layer], *rest])] = value
    theirs.double().eval().load_state_dict(state, strict=True)
    x = torch.randn(2, 6, *(7, 5, 4)[:ndim], dtype=torch.double)
    g = torch.randn(2, 5, *(7, 5, 4)[:ndim], dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(gate(x, g), theirs(g=g, x=x))


def monai_vnet_name(key):
    """`down_tr64.ops.1.conv_block.conv.weight` for `encoder.stages.x2_0.block.body.conv2.weight`, and so on."""
    parts = key.removeprefix("encoder.").split(".")
    level, leaf = int(parts[1][1]), parts[-1]
    down = f"down_tr{16 * 2**level}" if level else "in_tr"
    where = f"up_tr{32 * 2**level}" if parts[0] == "nodes" else down
    if "down" in parts or "branches" in parts:
        change = "up_conv" if "branches" in parts else "down_conv"
        return f"{where}.{change if parts[-2] == 'conv' else 'bn1'}.{leaf}"
    layer, number = parts[-2][:4], int(parts[-2][4:])
    inner = "" if where == "in_tr" else f"ops.{number - 1}."
    return f"{where}.{inner}conv_block.{'conv' if layer == 'conv' else 'adn.N'}.{leaf}"


def swapped(value, *dims):
    """The halves of the channels exchanged: MONAI concatenates the up-sampled map before the skip."""
    for dim in dims:
        value = value.roll(value.shape[dim] // 2, dims=dim)
    return value


def for_monai(key, value):
    if not key.startswith("nodes") or value.ndim == 0:
        return value
    if ".body." in key:  # a stage of the decoder has all its channels in the other order, in and out
        return swapped(value, *range(min(value.ndim, 2)))
    from_decoder = ".x4_0." not in key and key.endswith("conv.weight")
    return swapped(value, 0) if from_decoder else value


@pytest.mark.parametrize("in_channels", [1, 2])
@pytest.mark.parametrize(
    ("ndim", "side"),
    [(2, 48), pytest.param(3, 16, marks=pytest.mark.slow)],  # of MONAI's fixed width
)
def test_vnet_equals_that_of_monai_where_both_follow_the_paper(ndim, side, in_channels):
    """MONAI's network differs in four details, taken away here.

    It has batch norm (`norm`), other numbers of convolutions (`convs`, `up_convs`) and another head (left
    out), and it activates the last convolution of a stage before the sum as well: with weights and biases
    above zero, that is no change.
    """
    torch.manual_seed(0)
    stages = {"convs": [1, 1, 2, 3, 2], "up_convs": [1, 1, 2, 2]}
    ours = models.vnet(in_channels, ndim=ndim, norm="batch", activation="relu", **stages)
    theirs = VNet(spatial_dims=ndim, in_channels=in_channels, act="relu")
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith("out_tr")}
    for key, value in ours.state_dict().items():
        if key.endswith(("weight", "bias")):
            value.uniform_(0.5, 1.5).div_(max(1, value[0].numel()))
        if not key.startswith("heads"):
            state[monai_vnet_name(key)] = for_monai(key, value)
    theirs.load_state_dict(state, strict=True)
    seen = {}
    theirs.up_tr32.register_forward_hook(lambda module, args, out: seen.update(monai=out))
    ours.nodes["x0_4"].register_forward_hook(lambda module, args, out: seen.update(skipway=out))
    image = torch.rand(2, in_channels, *[side] * ndim, dtype=torch.double)
    with torch.no_grad():
        ours.double().eval()(image)
        theirs.double().eval()(image)
    assert float(seen["skipway"].std()) > 1e-2
    assert torch.allclose(seen["skipway"], swapped(seen["monai"], 1), rtol=1e-12, atol=0)
