"""Published counts of parameters and operations, and the names in the state dict."""

from pathlib import Path

import pytest
import torch
from torch import nn

from skipway import models
from skipway.nn.operations import count_macs, count_parameters

COUNTS = [
    ("unet_2015", {}, 31_030_658),
    ("unet_2015", {"classes": 1}, 31_030_593),
    ("unet_2015", {"in_channels": 3, "classes": 1}, 31_031_745),
    ("unet_2015", {"in_channels": 3}, 31_031_810),
    ("unet_2015", {"released": True}, 31_100_354),
    ("unet", {"in_channels": 3, "classes": 2}, 31_037_698),
    ("unet", {"in_channels": 3, "classes": 1}, 31_037_633),
    ("unet", {"in_channels": 1, "classes": 1}, 31_036_481),
    ("unet", {"in_channels": 1, "classes": 2}, 31_036_546),
    ("unet", {"in_channels": 1, "classes": 2, "norm": "none"}, 31_030_658),
    ("unet", {"in_channels": 3, "classes": 2, "up": "bilinear"}, 17_263_042),
    ("unet", {"in_channels": 3, "classes": 1, "up": "bilinear"}, 17_262_977),
    ("unet", {"in_channels": 1, "classes": 1, "up": "nearest"}, 17_261_825),
    ("unet", {"in_channels": 1, "classes": 2, "up": "bilinear"}, 17_261_890),
    ("unet", {"width": 32, "classes": 1, "norm": "none"}, 7_759_521),
    ("unet", {"width": 32, "in_channels": 3, "classes": 1, "norm": "none"}, 7_760_097),
    ("unet", {"width": 35, "classes": 1, "norm": "none"}, 9_282_246),
    ("unet_e", {}, 8_728_356),
    ("unet_plus", {}, 8_728_257),
    ("unet_plus", {"supervised": True}, 8_728_356),
    ("unet_plus_plus", {}, 9_041_601),
    ("unet_plus_plus", {"supervised": True}, 9_041_700),
    ("unet_plus_plus", {"in_channels": 3}, 9_042_177),
    ("unet_3_plus", {}, 26_971_777),
    ("unet_3_plus", {"in_channels": 1}, 26_970_625),
    ("unet_3_plus", {"supervised": True}, 26_989_637),
]


def blank(name, **config):
    """The network without numbers."""
    with torch.device("meta"):
        return models.build(name, **config)


@pytest.mark.parametrize(("name", "config", "count"), COUNTS, ids=lambda value: str(value))
def test_parameter_counts_of_the_papers_and_their_codes(name, config, count):
    assert count_parameters(blank(name, **config)) == count


def test_the_network_of_2015_has_23_convolutions():
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    assert sum(isinstance(module, kinds) for module in blank("unet_2015").modules()) == 23


PER_NODE = """
    9568   35936   45152   54368   63584
   55424  143552  180416  217280
  221440  573824  721280
  885248 2294528
 3539968
"""


def test_every_node_of_unet_plus_plus_has_the_published_count():
    model = blank("unet_plus_plus")
    parts = dict(model.encoder.stages.items()) | dict(model.nodes.items())
    table = [[int(n) for n in line.split()] for line in PER_NODE.split("\n") if line]
    published = {f"x{i}_{j}": n for i, row in enumerate(table) for j, n in enumerate(row)}
    assert {key: count_parameters(part) for key, part in parts.items()} == published


@pytest.mark.parametrize(("level", "count"), [(1, 100_961), (2, 511_105), (3, 2_204_961), (4, 9_041_601)])
def test_pruned_networks_have_the_published_counts(level, count):
    pruned = blank("unet_plus_plus", supervised=True).pruned(level)
    assert count_parameters(pruned) == count


@pytest.mark.parametrize(
    ("name", "config", "side", "macs"),
    [
        ("unet_2015", {}, 572, 150_428_424_448),
        ("unet", {"in_channels": 3, "classes": 1}, 256, 48_167_387_136),
        ("unet", {"in_channels": 3, "classes": 9}, 224, 36_903_845_888),
        ("unet", {"in_channels": 1, "classes": 1, "width": 32}, 96, 1_692_205_056),
    ],
)
def test_operations_at_the_published_sizes(name, config, side, macs):
    assert count_macs(blank(name, **config), (side, side)) == macs


@pytest.mark.slow  # the import of torch's counter
def test_operations_equal_those_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    for name in models.BUILDERS:
        model = models.build(name, width=2, in_channels=1).eval()
        size = model.geometry.next_legal((64, 80, 32)[: model.ndim])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 1, *size))
        assert counter.get_total_flops() == 2 * count_macs(model, size)


@pytest.mark.parametrize("name", models.BUILDERS)
def test_names_in_the_state_dict_do_not_drift(name):
    kept = Path(__file__).with_name("keys.txt").read_text().split("\n\n")
    golden = {block.splitlines()[0]: block.splitlines()[1:] for block in kept}
    assert sorted(blank(name).state_dict()) == golden[name]


@pytest.mark.parametrize(
    ("weight", "incoming"),
    [
        ("encoder.stages.x0_0.block.conv2.weight", 576),  # the paper's own example: 9 · 64
        ("nodes.x0_4.branches.x1_3.resample.weight", 128),  # one tap of a 2x2 kernel with stride 2
        ("nodes.x0_4.body.conv1.weight", 9 * 128),
        ("heads.x0_4.layers.conv.weight", 64),
    ],
)
def test_weights_start_from_the_normal_of_the_paper(weight, incoming):
    torch.manual_seed(0)
    drawn = models.unet_2015(depth=5 if "x0_4" in weight else 2).state_dict()[weight]
    std = (2 / incoming) ** 0.5
    assert abs(float(drawn.std()) - std) < 4 * std / (2 * drawn.numel()) ** 0.5
    assert abs(float(drawn.mean())) < 4 * std / drawn.numel() ** 0.5
