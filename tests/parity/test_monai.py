"""MONAI's BasicUNet and BasicUNetPlusPlus against ours, weights copied by name.

At the finest level MONAI's up-sampling keeps the channels of the level below (`halves=False`), where the published
networks, and ours, have those of the finest level itself. Two cases make that no difference:

* widths w, w, 2w, 4w, 8w, MONAI's defaults: both keep w. Put together here from the parts that builders use.
* widths w, 2w, 4w, 8w, 16w, those of our builders: MONAI's w further channels are set to zero, so that its network is
  ours and nothing more.

Nothing else differs but the slope of the activation, an argument of theirs, and two arguments of style that ours takes.

MONAI's AttentionUnet is another network than the one of the paper and of `attention_unet`: strided convolutions instead
of pooling, transposed convolutions 3 wide with norm and ReLU instead of up-sampling, one convolution after a merge
instead of two. Its gate is the same, and is compared in `test_attention.py`.
"""

import pytest
import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from torch import nn

from skipway import models, topology
from skipway.models.assemble import heads
from skipway.nn.encoders import plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.layers import LEAK
from skipway.nn.nodes import plain_node
from skipway.nn.style import Style

LEAKY = ("LeakyReLU", {"negative_slope": LEAK, "inplace": True})
DRESSES = {  # ours, and theirs
    "batch": (
        {"norm": "batch", "activation": "relu", "bias": False},
        {"norm": "batch", "act": "relu", "bias": False},
    ),
    "instance": (
        {"norm": "instance", "activation": "leaky_relu", "bias": True},
        {"norm": ("instance", {"affine": True}), "act": LEAKY, "bias": True},
    ),
}
PLAIN, NESTED = "unet", "unet_plus_plus"
ROWS = {PLAIN: topology.unet, NESTED: topology.unet_plus_plus}


def ours_of_widths(name, widths, ndim, dress):
    """A member over any widths; the builders double theirs."""
    style = Style(ndim=ndim, **dress)
    encoder = plain_encoder(1, widths, [(2,) * ndim] * (len(widths) - 1), style)

    def make_node(node, reads):
        return plain_node(reads, (widths[node.level],) * 2, style)

    return SkipGraph(ROWS[name](len(widths)), encoder, make_node, heads(2, style), name=name)


def theirs_of_widths(name, widths, ndim, dress):
    features = (*widths, widths[0])
    if name == PLAIN:
        return BasicUNet(ndim, 1, 2, features, **dress)
    return BasicUNetPlusPlus(ndim, 1, 2, features, deep_supervision=True, **dress)


def randomised(model):
    """Biases, scales and running statistics other than those that a wrong use would forgive."""
    torch.manual_seed(0)
    for key, value in model.state_dict().items():
        if value.ndim == 1:
            low, high = (0.5, 1.5) if key.endswith(("weight", "running_var")) else (-0.3, 0.3)
            nn.init.uniform_(value, low, high)
    return model.double().eval()


def monai_name(key, name):
    """`upcat_3.convs.conv_0.conv.weight` for `nodes.x2_2.body.conv1.weight`, and so on."""
    parts, leaf = key.removeprefix("encoder.").split("."), key.rsplit(".", 1)[1]
    level, column = (int(part) for part in parts[1][1:].split("_"))
    if parts[0] == "heads":
        return f"final_conv.{leaf}" if name == PLAIN else f"final_conv_0_{column}.{leaf}"
    if parts[0] == "nodes":
        where = f"upcat_{level + 1}" if name == PLAIN else f"upcat_{level}_{column}"
        if parts[2] == "branches":
            return f"{where}.upsample.deconv.{leaf}"
        where += ".convs"
    else:
        first = "conv_0" if name == PLAIN else "conv_0_0"
        down = f"down_{level}" if name == PLAIN else f"conv_{level}_0"
        where = f"{down}.convs" if level else first
    layer, number = parts[-2][:4], int(parts[-2][4:]) - 1
    return f"{where}.conv_{number}.{'conv' if layer == 'conv' else 'adn.N'}.{leaf}"


def embedded(value, shape):
    """`value` in the first places of each axis, zeros in what `shape` has more."""
    made = value.new_zeros(shape)
    made[tuple(slice(n) for n in value.shape)] = value
    return made


def copied(ours, theirs, name):
    """Their network with our weights; names of those that had to be filled up with zeros."""
    wanted = theirs.double().eval().state_dict()
    given = {monai_name(key, name): value for key, value in ours.state_dict().items()}
    assert len(given) == len(ours.state_dict())
    assert given.keys() == wanted.keys()
    wider = {key for key, value in given.items() if value.shape != wanted[key].shape}
    theirs.load_state_dict({key: embedded(value, wanted[key].shape) for key, value in given.items()})
    return wider


def assert_equal(ours, theirs, *, exact=False):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert float(b.std()) > 1e-3  # two dead networks would agree as well
        assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=0, atol=1e-12)


def outputs(theirs, image):
    found = theirs(image)
    return found if isinstance(found, list) else [found]


CASES = [(name, ndim, norm) for name in ROWS for ndim in (2, 3) for norm in DRESSES]
SIZES = {2: (32, 48), 3: (32, 16, 48)}  # MONAI's instance norm refuses a map of one pixel


@pytest.mark.parametrize(("name", "ndim", "norm"), CASES)
def test_the_same_network_where_the_widths_are_those_of_monai(name, ndim, norm):
    dress, their_dress = DRESSES[norm]
    widths = (2, 2, 4, 8, 16)
    ours = randomised(ours_of_widths(name, widths, ndim, dress))
    theirs = theirs_of_widths(name, widths, ndim, their_dress)
    assert copied(ours, theirs, name) == set()
    image = torch.randn(2, 1, *SIZES[ndim], dtype=torch.double)
    with torch.no_grad():
        # Our instance norm is a group norm, which rounds in another order; and so do convolutions of volumes.
        assert_equal(ours(image), outputs(theirs, image), exact=norm == "batch" and ndim == 2)


@pytest.mark.parametrize(("name", "ndim", "norm"), CASES)
def test_our_builder_is_the_network_of_monai_less_channels_at_the_finest_level(name, ndim, norm):
    dress, their_dress = DRESSES[norm]
    options = {"supervised": True, "dropout": 0.0} if name == NESTED else {}
    ours = randomised(models.build(name, in_channels=1, classes=2, width=2, ndim=ndim, **dress, **options))
    theirs = theirs_of_widths(name, (2, 4, 8, 16, 32), ndim, their_dress)
    finest = {1} if name == PLAIN else {1, 2, 3, 4}
    where = ["upcat_1"] if name == PLAIN else [f"upcat_0_{column}" for column in sorted(finest)]
    parts = ("upsample.deconv.weight", "upsample.deconv.bias", "convs.conv_0.conv.weight")
    assert copied(ours, theirs, name) == {f"{node}.{part}" for node in where for part in parts}
    image = torch.randn(2, 1, *SIZES[ndim], dtype=torch.double)
    with torch.no_grad():
        assert_equal(ours(image), outputs(theirs, image))  # sums over zeros round in another order too
