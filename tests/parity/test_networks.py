"""skipway's graph against networks wired by hand: equal weights give equal outputs, difference 0."""

import sys
from pathlib import Path

import pytest
import torch

from skipway import models

sys.path.insert(0, str(Path(__file__).parent))
from twins import UNet3Plus, UNet2015, UNetPlusPlus


def unet_2015_name(key):
    """`down0.2.weight` of the twin for `encoder.stages.x0_0.block.conv2.weight`, and so on."""
    part, node, *rest = key.removeprefix("encoder.").split(".")
    level = node[1]
    if part == "heads":
        return f"head.{rest[-1]}"
    if part == "stages":
        name = "bottom" if level == "4" else f"down{level}"
    elif rest[0] == "branches":
        return f"up{level}.{rest[-1]}"
    else:
        name = f"right{level}"
    return f"{name}.{2 * (int(rest[-2][-1]) - 1)}.{rest[-1]}"


def unet_plus_plus_name(key):
    part, node, *rest = key.removeprefix("encoder.").split(".")
    if part == "heads":
        return f"head{node[-1]}.{rest[-1]}"
    if rest[0] == "branches":
        return f"up{node[1:]}.{rest[-1]}"
    return f"{node}.{2 * (int(rest[-2][-1]) - 1)}.{rest[-1]}"


def unet_3_plus_name(key):
    part, node, *rest = key.removeprefix("encoder.").split(".")
    level, layer = node[1], rest[-2]
    if part == "heads":
        return f"heads.{level}.{rest[-1]}"
    index = 3 * (int(layer[-1]) - 1) + layer.startswith("norm")
    if part == "stages":
        return f"encoder.{level}.{index}.{rest[-1]}"
    if rest[0] == "branches":
        return f"branches.{level}.{rest[1][1]}.{index}.{rest[-1]}"
    return f"fusions.{level}.{index}.{rest[-1]}"


CASES = {
    "unet_2015": (
        lambda: models.unet_2015(width=4),
        lambda: UNet2015(4),
        unet_2015_name,
        [(1, 1, 188, 188), (2, 1, 204, 220)],
    ),
    "unet_2015 released": (
        lambda: models.unet_2015(width=4, released=True),
        lambda: UNet2015(4, released=True),
        unet_2015_name,
        [(1, 1, 188, 188)],
    ),
    "unet_plus_plus": (
        lambda: models.unet_plus_plus(width=4, supervised=True),
        lambda: UNetPlusPlus(4),
        unet_plus_plus_name,
        [(1, 1, 64, 64), (2, 1, 48, 80)],
    ),
    "unet_3_plus": (
        lambda: models.unet_3_plus(width=4, supervised=True),
        lambda: UNet3Plus(4),
        unet_3_plus_name,
        [(1, 3, 64, 64), (2, 3, 48, 80)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_graph_equals_the_network_wired_by_hand(case):
    make, make_twin, name, shapes = CASES[case]
    torch.manual_seed(0)
    graph, twin = make(), make_twin()
    for key, value in graph.state_dict().items():
        if key.endswith(("bias", "running_mean")):
            value.copy_(torch.randn_like(value))
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) + 0.5)
    twin.load_state_dict({name(key): value for key, value in graph.state_dict().items()}, strict=True)
    graph.eval()
    twin.eval()
    for shape in shapes:
        image = torch.randn(shape)
        with torch.no_grad():
            ours, theirs = graph(image), twin(image)
        theirs = theirs if isinstance(theirs, tuple) else (theirs,)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
            assert float(a.std()) > 1e-3  # two dead networks would agree as well


@pytest.mark.parametrize(
    ("twin", "count"),
    [(UNet2015, 31_030_658), (UNetPlusPlus, 9_041_700), (UNet3Plus, 26_989_637)],
)
def test_the_twins_are_the_published_networks(twin, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in twin().parameters()) == count
