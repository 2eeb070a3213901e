"""Published counts and receptive fields of the members with other blocks, gates and strided encoders."""

import pytest
import torch
from torch import nn

from skipway import models
from skipway.nn.operations import count_parameters
from skipway.nn.paths import path_of

COUNTS = [
    # LeeJunHyun/Image_Segmentation, 3 -> 1
    ("attention_unet", {}, 34_878_573),
    ("attention_unet", {"gate": False}, 34_527_041),
    ("unet", {"in_channels": 3, "classes": 1, "up": "nearest_conv", "bias": True}, 34_527_041),
    ("r2_unet", {}, 39_091_393),
    ("r2_unet", {"recurrences": 3}, 39_091_393),
    ("r2_attention_unet", {}, 39_442_925),
    # nnU-Net's dynamic-network-architectures, heads on every level of the decoder
    ("nnunet", {}, 31_195_594),
    ("nnunet", {"in_channels": 4, "classes": 4}, 31_199_796),
    ("nnunet", {"depth": 5}, 16_547_592),
    ("nnunet", {"ndim": 2, "depth": 8}, 46_324_558),
    ("nnunet", {"ndim": 2, "depth": 7}, 33_471_820),
    ("nnunet", {"ndim": 2, "depth": 6}, 20_619_082),
    ("nnunet_residual", {}, 102_349_770),
    ("nnunet_residual", {"depth": 7}, 141_889_612),
    ("nnunet_residual", {"ndim": 2, "depth": 8}, 140_017_038),
]


def blank(name, **config):
    """The network without numbers."""
    with torch.device("meta"):
        return models.build(name, **config)


@pytest.mark.parametrize(("name", "config", "count"), COUNTS, ids=str)
def test_parameter_counts_of_the_papers_and_their_codes(name, config, count):
    assert count_parameters(blank(name, **config)) == count


def test_all_five_heads_belong_to_the_published_count_of_nnunet():
    model = blank("nnunet")
    assert list(model.heads) == ["x4_1", "x3_2", "x2_3", "x1_4", "x0_5"]
    without = count_parameters(blank("nnunet", supervised=False))
    assert 31_195_594 - without == 2 * (320 + 256 + 128 + 64) + 4 * 2


def weights(model, *, shortcuts):
    convolutions = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return sum(m.weight.numel() for name, m in convolutions if ("shortcut" in name) == shortcuts)


def test_the_residual_unet_has_the_weights_of_its_paper():
    model = blank("residual_unet")
    assert weights(model, shortcuts=False) == 7_780_096  # the paper's 7.8 M
    assert weights(model, shortcuts=True) == 430_272


def test_the_residual_unet_has_the_layers_of_its_paper():
    """Table 1 of the paper: (channels, stride) of every 3-wide convolution; no pooling."""
    model = blank("residual_unet")
    layers = [
        (m.out_channels, m.stride[0])
        for m in model.modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    down = [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]
    assert layers == [*down, *[(w, 1) for w in (256, 256, 128, 128, 64, 64)]]
    assert not any(isinstance(m, (nn.MaxPool2d, nn.AvgPool2d)) for m in model.modules())


def vnet_by_hand(kernel, down):
    """Weights, biases and slopes of the figure: `kernel` taps a convolution, `down` taps a change of grid."""
    total = 0
    for level, (width, convs) in enumerate([(16, 1), (32, 2), (64, 3), (128, 3), (256, 3)]):
        source = width if level else 1
        total += sum((source if i == 0 else width) * width * kernel + 2 * width for i in range(convs))
        if level:
            total += width // 2 * width * down + 2 * width
    below = 256
    for width, convs in [(128, 3), (64, 3), (32, 2), (16, 1)]:
        both = 2 * width
        total += below * width * down + 2 * width + convs * (both * both * kernel + 2 * both)
        below = both
    return total + below * 2 + 2


@pytest.mark.parametrize(("ndim", "count"), [(3, 65_175_314), (2, 13_275_346)])
def test_vnet_has_the_parameters_its_figure_gives(ndim, count):
    """The paper prints no count. Other code has fewer because its decoder has 2, 2, 1, 1 convolutions."""
    assert vnet_by_hand(5**ndim, 2**ndim) == count
    assert count_parameters(blank("vnet", ndim=ndim)) == count


def field_of(path):
    """Receptive field of a path of windows: 1 + the sum of (kernel - 1) times the stride before."""
    field, stride = 1, 1
    for step, *_ in path:
        field += (step.kernel - 1) * stride
        stride *= step.stride
    return field


def test_the_stages_of_vnet_see_as_far_as_table_1_of_the_paper_says():
    model = blank("vnet")
    path, fields = (), []
    for stage in model.encoder.stages.values():
        path += path_of(stage, 3)
        fields.append(field_of(path))
    assert fields == [5, 22, 72, 172, 372]


@pytest.mark.parametrize(
    ("name", "options", "stride", "field"),
    [
        ("residual_unet", {}, (8, 8), (79, 79)),
        ("attention_unet", {}, (16, 16), (236, 236)),
        ("r2_unet", {}, (16, 16), (612, 612)),
        ("vnet", {}, (16, 16, 16), (548, 548, 548)),
        ("nnunet", {"supervised": False}, (32, 32, 32), (319, 319, 319)),
        ("nnunet", {"pools": [(1, 2, 2)] + [(2, 2, 2)] * 4, "width": 2}, (16, 32, 32), (163, 319, 319)),
    ],
)
def test_strides_and_receptive_fields(name, options, stride, field):
    shape = blank(name, **options).geometry
    assert (shape.stride, shape.smallest, shape.receptive_field) == (stride, stride, field)


def test_only_the_members_with_instance_norm_say_that_tiles_are_not_exact():
    names = ["residual_unet", "attention_unet", "r2_unet", "r2_attention_unet", "vnet"]
    assert all(blank(name).geometry.tile_exact for name in names)
    assert not any(blank(name).geometry.tile_exact for name in ("nnunet", "nnunet_residual"))
    assert blank("nnunet", norm="batch").geometry.tile_exact


def test_a_level_of_nnunet_has_one_kernel_on_the_way_down_and_up():
    kernels = [(1, 3, 3), (3, 3, 3), (3, 5, 5)]
    for name in ("nnunet", "nnunet_residual"):
        model = blank(name, width=2, depth=3, kernels=kernels)
        for node in ("x0_2", "x1_1"):
            assert model.nodes[node].body.conv1.kernel_size == kernels[int(node[1])]
        for level, stage in enumerate(model.encoder.stages.values()):
            sides = {m.kernel_size for m in stage.modules() if isinstance(m, nn.Conv3d)}
            assert sides - {(1, 1, 1)} == {kernels[level]}
