"""nnU-Net's networks: the plain one against MONAI's DynUNet, the residual encoder against one wired by hand."""

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import nn

from skipway import models


def randomised(model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
        elif parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.double().eval()


def without_useless_biases(model):
    """DynUNet's convolutions have no bias; before an instance norm it is without effect."""
    for name, parameter in model.named_parameters():
        if "conv" in name and "heads" not in name and name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def dyn_unet_name(key, depth):
    """`upsamples.0.conv_block.conv1.conv.weight` for `nodes.x4_1.body.conv1.weight`, and so on."""
    parts, leaf = key.removeprefix("encoder.").split("."), key.rsplit(".", 1)[1]
    level = int(parts[1][1])
    if parts[0] == "heads":
        part = f"deep_supervision_heads.{level - 1}" if level else "output_block"
        return f"{part}.conv.conv.{leaf}"
    if "branches" in parts:
        return f"upsamples.{depth - 2 - level}.transp_conv.conv.{leaf}"
    if parts[0] == "nodes":
        part = f"upsamples.{depth - 2 - level}.conv_block"
    elif level:
        part = f"downsamples.{level - 1}" if level < depth - 1 else "bottleneck"
    else:
        part = "input_block"
    return f"{part}.{parts[-2]}.{'conv.' if parts[-2].startswith('conv') else ''}{leaf}"


CUBES = {"depth": 4, "ndim": 3}
IMAGES = {"depth": 5, "ndim": 2}
UNEVEN = {
    "depth": 4,
    "ndim": 3,
    "pools": [(1, 2, 2), (2, 2, 2), (1, 2, 2)],
    "kernels": [(3, 5, 3)] * 4,  # MONAI's decoder takes those of the level below, nnU-Net's and ours its own
}


@pytest.mark.parametrize(
    ("options", "size"), [(CUBES, (24, 32, 16)), (IMAGES, (48, 80)), (UNEVEN, (6, 24, 40))]
)
def test_nnunet_equals_dyn_unet_of_monai(options, size):
    """Weights by name. MONAI concatenates the up-sampled map first; its coarse heads are not up-sampled."""
    depth, ndim = options["depth"], options["ndim"]
    ours = without_useless_biases(randomised(models.nnunet(2, 3, width=4, **options)))
    factors = options.get("pools", [(2,) * ndim] * (depth - 1))
    theirs = DynUNet(
        spatial_dims=ndim,
        in_channels=2,
        out_channels=3,
        kernel_size=options.get("kernels", [(3,) * ndim] * depth),
        strides=[(1,) * ndim, *factors],
        upsample_kernel_size=factors,
        filters=[4 * 2**level for level in range(depth)],
        deep_supervision=True,
        deep_supr_num=depth - 2,
        trans_bias=True,
    ).double()
    state, named = theirs.state_dict(), {}
    for key, value in ours.state_dict().items():
        name = dyn_unet_name(key, depth)
        if name in state:
            swap = ".body.conv1." in key
            named[name] = value.roll(value.shape[1] // 2, dims=1) if swap else value
        else:
            assert key.endswith("bias")
            assert not value.any()
    assert {key for key in state if not key.startswith("skip_layers")} == named.keys()
    theirs.load_state_dict(named, strict=False)  # `skip_layers` holds the same modules again
    logits = {}
    for key, head in ours.heads.items():
        head.layers.conv.register_forward_hook(lambda m, args, out, key=key: logits.update({key: out}))
    image = torch.randn(2, 2, *size, dtype=torch.double)
    with torch.no_grad():
        outputs = ours(image)
        finest = theirs.eval()(image)
    assert torch.equal(outputs[-1], logits[f"x0_{depth - 1}"])
    expected = [finest, *theirs.heads]
    assert len(outputs) == len(expected) == depth - 1
    for level, theirs_there in enumerate(expected):
        assert float(theirs_there.std()) > 1e-2
        assert torch.allclose(logits[f"x{level}_{depth - 1 - level}"], theirs_there, rtol=0, atol=1e-12)


class Block(nn.Module):
    """ResNet-D: a strided block averages what it adds; 1-wide convolution with norm where widths differ."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.a = nn.Conv2d(width_in, width, 3, stride, padding=1)
        self.na = nn.InstanceNorm2d(width, affine=True)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.nb = nn.InstanceNorm2d(width, affine=True)
        self.stride, self.wider = stride, width != width_in
        if self.wider:
            self.way = nn.Conv2d(width_in, width, 1, bias=False)
            self.nway = nn.InstanceNorm2d(width, affine=True)

    def forward(self, x):
        y = self.nb(self.b(F.leaky_relu(self.na(self.a(x)), 0.01)))
        x = F.avg_pool2d(x, 2) if self.stride == 2 else x
        x = self.nway(self.way(x)) if self.wider else x
        return F.leaky_relu(y + x, 0.01)


class Dressed(nn.Module):
    def __init__(self, width_in, width):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm = nn.InstanceNorm2d(width, affine=True)

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)


class ResidualEncoderUNet(nn.Module):
    """Stem, residual stages, one convolution a level on the way up, a head on every level."""

    def __init__(self, width, widest, blocks):
        super().__init__()
        f = [min(width * 2**i, widest) for i in range(len(blocks))]
        self.stem = Dressed(1, width)
        self.stages = nn.ModuleList()
        for i, number in enumerate(blocks):
            first = Block(f[max(i - 1, 0)], f[i], 2 if i else 1)
            self.stages.append(nn.Sequential(first, *[Block(f[i], f[i], 1) for _ in range(number - 1)]))
        self.ups, self.merges, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(len(blocks) - 1)):
            self.ups.append(nn.ConvTranspose2d(f[i + 1], f[i], 2, 2))
            self.merges.append(Dressed(2 * f[i], f[i]))
            self.heads.append(nn.Conv2d(f[i], 2, 1))

    def forward(self, x):
        x, skips, outputs = self.stem(x), [], []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        for up, merge, head in zip(self.ups, self.merges, self.heads, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
            outputs.append(head(x))
        return outputs


def test_nnunet_residual_equals_the_network_wired_by_hand():
    ours = randomised(models.nnunet_residual(width=4, widest=20, depth=5, ndim=2, blocks=[1, 2, 3, 2, 2]))
    twin = ResidualEncoderUNet(4, 20, [1, 2, 3, 2, 2]).double()
    parts = {"nodes": [], "heads": [], "encoder": []}
    for key, value in ours.state_dict().items():
        parts[key.split(".")[0]].append(value)
    nodes = [parts["nodes"][6 * i : 6 * i + 6] for i in range(4)]  # up-sampling (2), convolution and norm (4)
    order = [
        *parts["encoder"],
        *[value for node in nodes for value in node[:2]],
        *[value for node in nodes for value in node[2:]],
        *parts["heads"],
    ]
    twin.load_state_dict(dict(zip(twin.state_dict(), order, strict=True)))
    image = torch.randn(2, 1, 64, 48, dtype=torch.double)
    with torch.no_grad():
        logits, expected = ours(image), twin(image)
    for level, (a, b) in enumerate(zip(logits[::-1], expected[::-1], strict=True)):
        up = F.interpolate(b, scale_factor=2**level, mode="bilinear") if level else b
        assert float(up.std()) > 1e-2
        assert torch.allclose(a, up, rtol=0, atol=1e-12)


def test_the_twin_has_the_published_count():
    with torch.device("meta"):
        twin = ResidualEncoderUNet(32, 512, [1, 3, 4, 6, 6, 6, 6, 6])
    assert sum(p.numel() for p in twin.parameters()) == 140_017_038
