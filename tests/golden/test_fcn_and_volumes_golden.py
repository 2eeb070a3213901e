"""Published numbers of FCN, of the 3-D U-Net and of the wide U-Net; hand-counted ones of the teaching net."""

import pytest
import torch
from torch import nn

from skipway import models
from skipway.nn.init import bilinear_init, bilinear_row
from skipway.nn.operations import count_parameters
from skipway.nn.resample import overlapping
from skipway.shapes import advance

COUNTS = [
    ("fcn_32s", {}, 134_346_581),
    ("fcn_16s", {}, 134_357_354),
    ("fcn_8s", {}, 134_362_751),
    ("fcn_16s", {"learned_up": True}, 134_357_354 + 21 * 21 * 4 * 4),
    ("fcn_8s", {"learned_up": True}, 134_362_751 + 2 * 21 * 21 * 4 * 4),
    ("wide_unet", {}, 9_282_246),
    ("wide_unet", {"in_channels": 3}, 9_282_876),
    # down: 1·9·64+64, 64·9·64+64, 64·9·128+128, 128·9·128+128; bottom: 128·9·256+256;
    # up: (128+256)·9·128+128, 128·9·128+128, (64+128)·9·64+64, 64·9·64+64; head: 64+1
    # = 640 + 36,928 + 73,856 + 147,584 + 295,168 + 442,496 + 147,584 + 110,656 + 36,928 + 65
    ("unet_two_level", {}, 1_291_905),
    ("unet_3d_2016", {"norm": "none"}, 19_069_955),  # the paper's counting, without batch norm
    ("unet_3d_2016", {}, 19_074_627),
    ("unet_3d_2016", {"padding": "same"}, 19_074_627),
    # weights of ten convolutions, scales and shifts 4·(64 + … + 1024), scores 2·(256 + 512 + 1024 + 3)
    ("fcn", {}, 18_838_080 + 7_936 + 3_590),
]


def blank(name, **config):
    """The network without numbers."""
    with torch.device("meta"):
        return models.build(name, **config)


@pytest.mark.parametrize(("name", "config", "count"), COUNTS, ids=str)
def test_parameter_counts(name, config, count):
    assert count_parameters(blank(name, **config)) == count


@pytest.mark.parametrize(
    ("name", "dense"), [("fcn_32s", 136_152_917), ("fcn_16s", 134_815_994), ("fcn_8s", 134_489_759)]
)
def test_counts_of_fcn_with_its_fixed_kernels_stored_as_caffe_does(name, dense):
    """Caffe keeps classes · classes kernels, all zero off the diagonal; here there is one a class."""
    model = blank(name)
    kernels = [module.weight for module in model.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert all(kernel.shape[:2] == (21, 1) for kernel in kernels)
    assert count_parameters(model) + sum(21 * kernel.numel() for kernel in kernels) == dense


def test_both_countings_of_the_3d_unet():
    model = blank("unet_3d_2016")
    norms = sum(count_parameters(m) for m in model.modules() if isinstance(m, nn.BatchNorm3d))
    assert (count_parameters(model) - norms, norms) == (19_069_955, 2 * (1440 + 896))
    assert model.nodes["x0_3"].branches["x1_2"].resample.bias is None
    widths = [
        module.out_channels
        for module in model.modules()
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))
    ]
    encoder, decoder = (32, 64, 64, 128, 128, 256, 256, 512), (512, 256, 256, 256, 128, 128, 128, 64, 64)
    assert tuple(widths) == (*encoder, *decoder, 3)


def test_sizes_of_the_3d_unet():
    shape = blank("unet_3d_2016").geometry
    assert shape.output_size((116, 132, 132)) == (28, 44, 44)
    assert (shape.smallest, shape.stride, shape.margin) == ((92,) * 3, (8,) * 3, (44,) * 3)
    same = blank("unet_3d_2016", padding="same").geometry
    assert same.output_size((16, 24, 8)) == (16, 24, 8)


def crops(model):
    """Pixels cut off each side of every read, and off every output."""
    reads = {
        f"{key}<-{source}": path[-1][0].padding
        for key, node in model.nodes.items()
        for (source, _), path in zip(node._reads, node.paths, strict=True)
    }
    return {key: -padding for key, padding in reads.items()}


@pytest.mark.parametrize(
    ("name", "skips", "last"),
    [
        ("fcn_32s", {}, 19),
        ("fcn_16s", {"x3_1<-x3_0": 5, "x3_1<-x4_0": 0}, 27),
        ("fcn_8s", {"x3_1<-x3_0": 5, "x3_1<-x4_0": 0, "x2_2<-x2_0": 9, "x2_2<-x3_1": 0}, 31),
    ],
)
def test_crop_offsets_of_fcn_fall_out_of_the_arithmetic(name, skips, last):
    model = blank(name, width=1, hidden=1)
    (output,) = model.topology.outputs
    (cut,) = {(s.start, s.stop) for s in model._crops[output.key][1:]}
    assert (crops(model), cut) == (skips, (last, -last))
    shape = model.geometry
    assert (shape.smallest, shape.stride, shape.margin) == ((26, 26), (32, 32), (0, 0))


def test_the_receptive_field_of_fc7_is_404_and_up_sampling_widens_it():
    """The paper's 404 is that of the features; each pixel of FCN-32s sees two of them, 32 pixels apart."""
    model = blank("fcn_32s", width=1, hidden=1)
    first, last = 0, 0
    for path in reversed(model.encoder.paths):
        for layer in reversed(path):
            first, last = layer[0].reads(first, last)
    assert last - first + 1 == 404
    assert model.geometry.receptive_field == (404 + 32,) * 2
    for name in ("fcn_16s", "fcn_8s"):  # from sum to sum two of 32, and from there two of 16 or 8
        assert blank(name, width=1, hidden=1).geometry.receptive_field == (404 + 2 * 32,) * 2


def test_grids_of_fcn_at_the_size_of_a_pascal_image():
    """500 pixels, as in VOC, become 506; the first map is 704 wide because of 100 zeros on either side."""
    model = blank("fcn_8s", width=1, hidden=1)
    (side, _) = model.geometry.next_legal((500, 375))
    assert side == 506
    sizes = [int(level[0].size(side)) for level in model.geometry.levels]
    assert sizes == [352, 176, 88, 44, 16]
    head = model.heads["x2_2"].path
    pool3 = model.geometry.levels[2]
    assert advance(pool3, head)[0].size(side) == 8 * (88 + 1)  # before the crops: 9 of pool3, 31 of this


@pytest.mark.parametrize(
    ("kernel", "row"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear_rows(kernel, row):
    assert bilinear_row(kernel).tolist() == pytest.approx(row)


def test_the_fixed_kernel_of_fcn_is_the_outer_product_on_the_diagonal():
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    for learned in (False, True):
        up = overlapping((2, 2), 3, learned=learned)
        bilinear_init(up)
        for a in range(3):
            for b in range(3 if learned else 1):
                expected = torch.outer(row, row) if not learned or a == b else torch.zeros(4, 4)
                assert torch.equal(up.weight[a, b], expected)
