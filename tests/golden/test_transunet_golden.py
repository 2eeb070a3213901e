"""TransUNet has the parameters of the authors' code, part by part."""

import pytest
import torch

from skipway import models
from skipway.nn.operations import count_macs, count_parameters


def blank(**options):
    with torch.device("meta"):
        return models.trans_unet(**options)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 105_277_081),
        ({"in_channels": 3}, 105_277_081),  # an image of one channel is repeated to three
        ({"classes": 4}, 105_276_356),
        ({"classes": 2}, 105_276_066),
        ({"resnet": False}, 91_674_201),
        ({"layers": 24, "heads": 16}, 324_024_729),
    ],
    ids=str,
)
def test_parameters_are_those_of_the_published_code(options, count):
    assert count_parameters(blank(**options)) == count


def test_every_part_has_its_published_count():
    model = blank()
    *stages, last = model.encoder.stages.values()
    tokens = last.tokens
    assert {
        "ResNet": sum(count_parameters(part) for part in (*stages, last.units)),
        "patch embedding": count_parameters(tokens.embed),
        "positions": count_parameters(tokens.positions),
        "layers and norm": count_parameters(tokens.layers) + count_parameters(tokens.norm),
        "decoder": count_parameters(last.more) + count_parameters(model.nodes),
        "head": count_parameters(model.heads),
    } == {
        "ResNet": 11_894_848,
        "patch embedding": 787_200,
        "positions": 150_528,
        "layers and norm": 85_056_000,
        "decoder": 7_387_200,
        "head": 1_305,
    }


def test_the_small_one_is_small():
    with torch.device("meta"):
        model = models.trans_unet_small()
    assert count_parameters(model) == 767_482
    assert count_macs(model, (256, 256)) == 857_647_872


def test_the_decoder_is_the_row_of_the_unet_without_its_finest_skip():
    reads = blank().topology.reads
    assert {node.key: [read.key for read in sources] for node, sources in reads.items()} == {
        "x3_1": ["x3_0", "x4_0"],
        "x2_2": ["x2_0", "x3_1"],
        "x1_3": ["x1_0", "x2_2"],
        "x0_4": ["x1_3"],
    }
