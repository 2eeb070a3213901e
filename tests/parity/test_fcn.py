"""FCN, the 3-D U-Net and the teaching net against networks wired by hand, and VGG-16 against torchvision's."""

from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skipway import models


class VGG(nn.Module):
    """Simonyan and Zisserman 2015, column D, the image padded by 100 and the hidden layers as convolutions."""

    def __init__(self, w, hidden):
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, w, 3, padding=100)
        self.conv1_2 = nn.Conv2d(w, w, 3, padding=1)
        self.conv2_1 = nn.Conv2d(w, 2 * w, 3, padding=1)
        self.conv2_2 = nn.Conv2d(2 * w, 2 * w, 3, padding=1)
        self.conv3_1 = nn.Conv2d(2 * w, 4 * w, 3, padding=1)
        self.conv3_2 = nn.Conv2d(4 * w, 4 * w, 3, padding=1)
        self.conv3_3 = nn.Conv2d(4 * w, 4 * w, 3, padding=1)
        self.conv4_1 = nn.Conv2d(4 * w, 8 * w, 3, padding=1)
        self.conv4_2 = nn.Conv2d(8 * w, 8 * w, 3, padding=1)
        self.conv4_3 = nn.Conv2d(8 * w, 8 * w, 3, padding=1)
        self.conv5_1 = nn.Conv2d(8 * w, 8 * w, 3, padding=1)
        self.conv5_2 = nn.Conv2d(8 * w, 8 * w, 3, padding=1)
        self.conv5_3 = nn.Conv2d(8 * w, 8 * w, 3, padding=1)
        self.fc6 = nn.Conv2d(8 * w, hidden, 7)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)

    def forward(self, x):
        x = F.relu(self.conv1_2(F.relu(self.conv1_1(x))))
        x = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.relu(self.conv2_2(F.relu(self.conv2_1(x))))
        x = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.relu(self.conv3_3(F.relu(self.conv3_2(F.relu(self.conv3_1(x))))))
        pool3 = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.relu(self.conv4_3(F.relu(self.conv4_2(F.relu(self.conv4_1(pool3))))))
        pool4 = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.relu(self.conv5_3(F.relu(self.conv5_2(F.relu(self.conv5_1(pool4))))))
        pool5 = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.dropout(F.relu(self.fc6(pool5)), 0.5, self.training)
        x = F.dropout(F.relu(self.fc7(x)), 0.5, self.training)
        return pool3, pool4, x


def upscore(x, kernel):
    """Caffe's fixed deconvolution: classes · classes kernels of which those on the diagonal interpolate."""
    stride = kernel // 2
    row = [1 - abs(i - (stride - 0.5)) / stride for i in range(kernel)]
    weight = x.new_zeros(x.shape[1], x.shape[1], kernel, kernel)
    for c in range(x.shape[1]):
        weight[c, c] = torch.outer(x.new_tensor(row), x.new_tensor(row))
    return F.conv_transpose2d(x, weight, stride=stride)


def crop(x, like, offset):
    return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


class FCN(nn.Module):
    """Long et al. 2015, figure 3, with the offsets that the released networks crop by."""

    def __init__(self, stride, classes, w, hidden):
        super().__init__()
        self.stride = stride
        self.vgg = VGG(w, hidden)
        self.score_fr = nn.Conv2d(hidden, classes, 1)
        if stride < 32:
            self.score_pool4 = nn.Conv2d(8 * w, classes, 1)
        if stride < 16:
            self.score_pool3 = nn.Conv2d(4 * w, classes, 1)

    def forward(self, image):
        pool3, pool4, fc7 = self.vgg(image)
        score = self.score_fr(fc7)
        if self.stride == 32:
            return crop(upscore(score, 64), image, 19)
        up = upscore(score, 4)
        score = crop(self.score_pool4(pool4), up, 5) + up
        if self.stride == 16:
            return crop(upscore(score, 32), image, 27)
        up = upscore(score, 4)
        score = crop(self.score_pool3(pool3), up, 9) + up
        return crop(upscore(score, 16), image, 31)


SCORED = {"x2": "pool3", "x3": "pool4", "x4": "fr"}


def fcn_name(key):
    part, node, *rest = key.removeprefix("encoder.").split(".")
    if part == "stages":
        layer = rest[0]
        return f"vgg.{layer if layer.startswith('fc') else f'conv{int(node[1]) + 1}_{layer[-1]}'}.{rest[-1]}"
    source = rest[1] if part == "nodes" else node
    return f"score_{SCORED[source[:2]]}.{rest[-1]}"


class UNet3D(nn.Module):
    """Çiçek et al. 2016, figure 2."""

    def __init__(self, w, classes):
        super().__init__()

        def two(a, b, c):
            layers = [nn.Conv3d(a, b, 3), nn.BatchNorm3d(b), nn.ReLU()]
            return nn.Sequential(*layers, nn.Conv3d(b, c, 3), nn.BatchNorm3d(c), nn.ReLU())

        def up(a):
            return nn.ConvTranspose3d(a, a, 2, stride=2, bias=False)

        self.a, self.b = two(3, w, 2 * w), two(2 * w, 2 * w, 4 * w)
        self.c, self.d = two(4 * w, 4 * w, 8 * w), two(8 * w, 8 * w, 16 * w)
        self.up_c, self.right_c = up(16 * w), two(8 * w + 16 * w, 8 * w, 8 * w)
        self.up_b, self.right_b = up(8 * w), two(4 * w + 8 * w, 4 * w, 4 * w)
        self.up_a, self.right_a = up(4 * w), two(2 * w + 4 * w, 2 * w, 2 * w)
        self.head = nn.Conv3d(2 * w, classes, 1)

    def forward(self, x):
        def join(skip, x):
            cut = (skip.shape[-1] - x.shape[-1]) // 2
            assert skip.shape[2] - x.shape[2] == 2 * cut
            return torch.cat([skip[:, :, cut:-cut, cut:-cut, cut:-cut], x], 1)

        a = self.a(x)
        b = self.b(F.max_pool3d(a, 2))
        c = self.c(F.max_pool3d(b, 2))
        x = self.up_c(self.d(F.max_pool3d(c, 2)))
        x = self.up_b(self.right_c(join(c, x)))
        x = self.up_a(self.right_b(join(b, x)))
        return self.head(self.right_a(join(a, x)))


class TwoLevel(nn.Module):
    """Two poolings, one convolution at the bottom, maps repeated on the way up."""

    def __init__(self, w=64):
        super().__init__()

        def conv(a, b):
            return nn.Conv2d(a, b, 3, padding=1)

        self.a1, self.a2 = conv(1, w), conv(w, w)
        self.b1, self.b2 = conv(w, 2 * w), conv(2 * w, 2 * w)
        self.c = conv(2 * w, 4 * w)
        self.d1, self.d2 = conv(6 * w, 2 * w), conv(2 * w, 2 * w)
        self.e1, self.e2 = conv(3 * w, w), conv(w, w)
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, x):
        def twice(x):
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

        a = F.relu(self.a2(F.relu(self.a1(x))))
        b = F.relu(self.b2(F.relu(self.b1(F.max_pool2d(a, 2)))))
        x = F.relu(self.c(F.max_pool2d(b, 2)))
        x = F.relu(self.d2(F.relu(self.d1(torch.cat([b, twice(x)], 1)))))
        x = F.relu(self.e2(F.relu(self.e1(torch.cat([a, twice(x)], 1)))))
        return self.head(x)


def two_level_name(key):
    part, node, *rest = key.removeprefix("encoder.").split(".")
    if part == "heads":
        return f"head.{rest[-1]}"
    letter = "abc"[int(node[1])] if part == "stages" else "ed"[int(node[1])]
    return f"{letter}{'' if letter == 'c' else rest[-2][-1]}.{rest[-1]}"


def unet_3d_name(key):
    part, node, *rest = key.removeprefix("encoder.").split(".")
    letter = "abcd"[int(node[1])]
    if part == "heads":
        return f"head.{rest[-1]}"
    if rest[0] == "branches":
        return f"up_{letter}.{rest[-1]}"
    index = 3 * (int(rest[-2][-1]) - 1) + rest[-2].startswith("norm")
    return f"{'' if part == 'stages' else 'right_'}{letter}.{index}.{rest[-1]}"


CASES = {
    **{
        name: (
            lambda name=name: models.build(name, classes=5, width=3, hidden=7),
            lambda stride=stride: FCN(stride, 5, 3, 7),
            fcn_name,
            [(1, 3, 26, 26), (2, 3, 58, 90)],
        )
        for name, stride in (("fcn_32s", 32), ("fcn_16s", 16), ("fcn_8s", 8))
    },
    "unet_two_level": (
        lambda: models.unet_two_level(width=3),
        lambda: TwoLevel(3),
        two_level_name,
        [(1, 1, 4, 4), (2, 1, 24, 36)],
    ),
    "unet_3d_2016": (
        lambda: models.unet_3d_2016(width=1),
        lambda: UNet3D(1, 3),
        unet_3d_name,
        [(1, 3, 92, 92, 100)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_graph_equals_the_network_wired_by_hand(case):
    make, make_twin, name, shapes = CASES[case]
    torch.manual_seed(0)
    graph, twin = make().double().eval(), make_twin().double().eval()
    fixed = {key for key, _ in graph.named_buffers() if key.endswith("resample.weight")}
    assert len(fixed) == {"fcn_32s": 1, "fcn_16s": 2, "fcn_8s": 3}.get(case, 0)
    for key, value in graph.state_dict().items():
        if ".score." in key or key.endswith(("bias", "running_mean")):
            value.normal_()
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    twin.load_state_dict(
        {name(key): value for key, value in graph.state_dict().items() if key not in fixed}, strict=True
    )
    for shape in shapes:
        image = torch.randn(shape, dtype=torch.double)
        with torch.no_grad():
            (ours,), theirs = graph(image), twin(image)
        assert torch.equal(ours, theirs)
        assert float(theirs.std()) > 1e-3  # two dead networks would agree as well


@pytest.mark.slow  # 138 million parameters
def test_the_features_of_fcn_are_torchvisions_vgg_16():
    """A legal image of 26 pixels is 224 with its zeros, the size of VGG-16; its fc7 becomes one pixel."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    peer = vgg16(init_weights=False).eval()
    with torch.device("meta"):
        encoder = models.fcn_32s().encoder.eval()
    layers = [m for m in (*peer.features, *peer.classifier) if isinstance(m, (nn.Conv2d, nn.Linear))]
    values = [value for layer in islice(layers, 15) for value in (layer.weight, layer.bias)]
    keys = dict(encoder.state_dict())
    encoder.load_state_dict(
        {key: value.reshape(keys[key].shape) for key, value in zip(keys, values, strict=True)}, assign=True
    )
    image = torch.randn(1, 3, 26, 26)
    with torch.no_grad():
        padded = F.pad(image, (99,) * 4)
        pool3, pool4 = peer.features[:17](padded), peer.features[:24](padded)
        fc7 = peer.classifier[:5](peer.features(padded).flatten(1))
        ours = encoder(image)
    for a, b in zip(ours[2:], (pool3, pool4, fc7[:, :, None, None]), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.std()))
        assert float(b.std()) > 0
