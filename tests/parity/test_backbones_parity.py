"""Networks over a backbone against segmentation_models_pytorch: equal weights give equal outputs."""

from collections.abc import Sequence

import pytest
import segmentation_models_pytorch as smp
import torch

from skipway import models, topology
from skipway.models.assemble import heads
from skipway.nn.backbones import backbone_encoder
from skipway.nn.blocks import Style
from skipway.nn.graph import SkipGraph
from skipway.nn.nodes import plain_node
from skipway.nn.operations import count_parameters
from skipway.topology import Node


def shake(model):
    """Weights and statistics that no two layers share, so that an exchange of two would show."""
    torch.manual_seed(0)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) + 0.5)
        elif key.endswith("running_mean"):
            value.copy_(0.1 * torch.randn_like(value))


def copy_encoder(ours, theirs):
    """By order: both run the same layers, but name them differently."""
    state, given = ours.state_dict(), list(theirs.state_dict().values())
    assert [tuple(value.shape) for value in state.values()] == [tuple(value.shape) for value in given]
    ours.load_state_dict(dict(zip(state, given, strict=True)))


def copy_block(ours, theirs, up, skip):
    """A node's two convolutions; smp stacks the up-sampled map (`up` channels) first, we stack it last."""
    peer = theirs.state_dict()
    state = {}
    for layer in ("1", "2"):
        state[f"conv{layer}.weight"] = peer[f"conv{layer}.0.weight"]
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"norm{layer}.{key}"] = peer[f"conv{layer}.1.{key}"]
    weight = state["conv1.weight"]
    read = weight[:, up:]
    missing = torch.zeros(len(weight), skip - read.shape[1], *weight.shape[2:], dtype=weight.dtype)
    state["conv1.weight"] = torch.cat([read, missing, weight[:, :up]], dim=1)
    ours.load_state_dict(state)


def copy_head(ours, theirs):
    ours.load_state_dict({"layers.conv.weight": theirs[0].weight, "layers.conv.bias": theirs[0].bias})


def equal(ours, theirs, image):
    with torch.no_grad():
        (a,), b = ours.eval()(image), theirs.eval()(image)
    assert float(b.std()) > 1e-3
    assert float((a - b).abs().max() / b.std()) < 1e-12


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("resnet34", "resnet34"),
        ("vgg19", "vgg19"),
        ("efficientnet_b0", "tu-efficientnet_b0"),
        ("convnext_atto", "tu-convnext_atto"),
        ("swin_tiny_patch4_window7_224", "tu-swin_tiny_patch4_window7_224"),
    ],
)
def test_unet_equals_smp(name, peer):
    """smp leaves the stride-1 map of VGG unread and puts two more convolutions below it; the test does without."""
    torch.manual_seed(0)
    options = {"img_size": None, "strict_img_size": False} if "swin" in name else {}
    theirs = smp.Unet(peer, encoder_weights=None, in_channels=3, classes=2, **options).double()
    theirs.decoder.center = torch.nn.Identity()
    shake(theirs)
    ours = models.unet(in_channels=3, classes=2, backbone=name).double()
    copy_encoder(ours.encoder.net, getattr(theirs.encoder, "model", theirs.encoder))
    for block, level in zip(theirs.decoder.blocks, reversed(range(5)), strict=True):
        up = (ours.encoder.widths[5], 256, 128, 64, 32)[4 - level]
        node = ours.nodes[Node(level, 5 - level).key]
        copy_block(node.body, block, up, node.body.conv1.in_channels - up)
    copy_head(ours.heads["x0_5"], theirs.segmentation_head)
    equal(ours, theirs, torch.randn(1, 3, 64, 96, dtype=torch.float64))


def test_unet_plus_plus_of_smp_is_a_row_of_its_own():
    """The triangle below level 0, each node but the last of its level as wide as its encoder; one node on top."""
    dense = topology.unet_plus_plus(6)
    last = Node(0, 5)
    table = topology.Topology(
        {n: reads for n, reads in dense.reads.items() if n.level} | {last: (Node(1, 4),)}, (last,)
    )
    style = Style()
    encoder = backbone_encoder("resnet34", 3)

    def make_node(node: Node, reads: Sequence):
        width = 16 * 2**node.level if node.level + node.column == 5 else encoder.widths[node.level]
        return plain_node(reads, (width, width), style, up="nearest")

    torch.manual_seed(0)
    ours = SkipGraph(table, encoder, make_node, heads(1, style, kernel=3), name="smp").double()
    theirs = smp.UnetPlusPlus("resnet34", encoder_weights=None).double()
    shake(theirs)
    assert count_parameters(ours) == count_parameters(theirs) == 26_078_609
    copy_encoder(ours.encoder.net, theirs.encoder)
    for key, node in ours.nodes.items():
        level, column = (int(part) for part in key[1:].split("_"))
        layer = 4 - level
        block = theirs.decoder.blocks[f"x_{layer - column + 1 if level else 0}_{layer}"]
        row = column if level else 0
        below = node.body.conv1.in_channels - row * encoder.widths[level]
        copy_reversed(node.body, block, below, encoder.widths[level], row)
    copy_head(ours.heads["x0_5"], theirs.segmentation_head)
    equal(ours, theirs, torch.randn(1, 3, 64, 96, dtype=torch.float64))


def copy_reversed(ours, theirs, up, width, columns):
    """smp stacks the up-sampled map, then the row from right to left; we stack the row from left to right."""
    weight = theirs.conv1[0].weight
    parts = [weight[:, up + k * width : up + (k + 1) * width] for k in reversed(range(columns))]
    skip = weight.shape[1] - up
    copy_block(ours, theirs, up, skip)
    state = ours.state_dict()
    state["conv1.weight"] = torch.cat([*parts, weight[:, :up]], dim=1)
    ours.load_state_dict(state)


COUNTS = {  # of smp 0.6.0, as its own code counts them
    ("resnet34", 3): 24_436_369,
    ("resnet34", 1): 24_430_097,
    ("resnet18", 3): 14_328_209,
    ("resnet152", 3): 67_156_881,
    ("densenet201", 3): 28_580_561,
    ("resnext50_32x4d", 3): 31_992_977,
}


@pytest.mark.parametrize(("name", "channels"), COUNTS)
def test_unet_has_as_many_parameters_as_in_smp(name, channels):
    with torch.device("meta"):
        assert (
            count_parameters(models.unet(in_channels=channels, classes=1, backbone=name))
            == COUNTS[name, channels]
        )


def test_unet_over_vgg19_differs_from_smp_by_what_is_drawn_differently():
    """Two convolutions of 512 under the encoder there; the skip of the stride-1 map, 64 to 16 channels, here."""
    with torch.device("meta"):
        ours = count_parameters(models.unet(in_channels=3, classes=1, backbone="vgg19"))
    assert ours == 29_057_937 - 2 * (512 * 512 * 9 + 2 * 512) + 16 * 64 * 9
