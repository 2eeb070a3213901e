"""TransUNet against timm's hybrid transformer and a decoder wired by hand: equal weights give equal outputs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import pad

from skipway import models
from skipway.pretrained import load_pretrained, load_vit, load_vit_npz

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from vit_archive import archive

OPTIONS = {"width": 64, "layers": 2, "heads": 2, "size": 64, "dropout": 0.0}


def peer(resnet=True):
    """timm's transformer with two layers of two heads, and the constants of TransUNet's code where they differ."""
    name = "vit_base_r50_s16_224" if resnet else "vit_base_patch16_224"
    theirs = timm.create_model(
        name,
        embed_dim=128,
        depth=2,
        num_heads=2,
        img_size=64,
        num_classes=0,
        class_token=False,
        global_pool="",
        fc_norm=False,
    )
    for key, module in theirs.named_modules():
        if type(module).__name__ == "StdConv2dSame":
            module.same_pad, module.eps = False, 1e-5
            module.padding = tuple(k // 2 for k in module.kernel_size)
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
            if "downsample" in key:
                module.num_groups, module.eps = module.num_channels, 1e-5
    if resnet:
        theirs.patch_embed.backbone.stem.pool = nn.MaxPool2d(3, 2)
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    return theirs.double().eval()


def features(theirs, image):
    """Maps of stride 2, 4 and 8, and the tokens as a map of stride 16."""
    maps = []
    if hasattr(theirs.patch_embed, "backbone"):
        trunk = theirs.patch_embed.backbone
        for module in (trunk.stem.norm, trunk.stages[0], trunk.stages[1]):
            module.register_forward_hook(lambda _, args, output: maps.append(output.clone()))
    with torch.no_grad():
        tokens = theirs.forward_features(image)
    maps = [pad(found, (0, -found.shape[3] % 2, 0, -found.shape[2] % 2)) for found in maps]
    rows, columns = (n // 16 for n in image.shape[2:])
    return [*maps, tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)]


def compare(ours, theirs):
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours = ours.double().eval()
    ours.encoder.stages["x4_0"].more = nn.Identity()
    with torch.no_grad():
        maps = ours.encoder(image)
    wanted = features(theirs, image)
    assert len(maps) == len(wanted)
    for a, b in zip(maps, wanted, strict=True):
        assert a.shape == b.shape
        assert float(b.std()) > 1e-3
        assert float((a - b).abs().max() / b.std()) < 1e-12


@pytest.mark.parametrize("resnet", [True, False])
def test_the_encoder_equals_the_transformer_of_timm(resnet):
    theirs = peer(resnet)
    ours = models.trans_unet(3, resnet=resnet, **OPTIONS).double()
    load_vit(ours, theirs.state_dict())
    compare(ours, theirs)


def test_an_archive_of_google_means_the_same_to_timm(tmp_path):
    """timm's own reader of these archives is independent of ours."""
    file = tmp_path / "R50+ViT-tiny.npz"
    given = {key: 0.1 * value for key, value in archive(64, (3, 4, 9), 2, 2, 4, token=False).items()}
    np.savez(file, **given)
    theirs = peer().float()
    theirs.load_pretrained(str(file))
    ours = models.trans_unet(3, **OPTIONS)
    load_vit_npz(ours, file)
    compare(ours, theirs.double())


def test_weights_of_timm_come_from_a_file_too(tmp_path):
    from safetensors.torch import save_file

    theirs = timm.create_model(
        "vit_base_r50_s16_224", embed_dim=128, depth=2, num_heads=2
    )  # with token and head
    file = tmp_path / "w.safetensors"
    save_file(theirs.state_dict(), file)
    ours = models.trans_unet(3, **(OPTIONS | {"size": 224}))
    load_pretrained(ours, file)
    state, given = ours.state_dict(), theirs.state_dict()
    assert torch.equal(
        state["encoder.stages.x4_0.tokens.positions.table"][0].flatten(1).T, given["pos_embed"][0, 1:]
    )
    key = "patch_embed.backbone.stages.2.blocks.8.conv3.weight"
    assert torch.equal(state["encoder.stages.x4_0.units.unit9.body.conv3.conv.weight"], given[key])


class Decoder(nn.Module):
    """The decoder of TransUNet by hand: [up-sampled, skip], then two convolutions, four times."""

    def __init__(self, width):
        super().__init__()
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)
        blocks, source = [], 8 * width
        for skip, out in ((8, 4), (4, 2), (1, 1), (0, 0.25)):
            out = int(out * width)
            blocks.append(nn.Sequential(*self.layers(source + skip * width, out), *self.layers(out, out)))
            source = out
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(source, 3, 3, padding=1)

    @staticmethod
    def layers(source, out):
        return nn.Conv2d(source, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()

    def forward(self, maps):
        *skips, x = maps
        for block, skip in zip(self.blocks, (*skips[::-1], None), strict=True):
            x = self.up(x)
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return self.head(x)


def test_the_decoder_equals_the_one_wired_by_hand():
    width = 4
    torch.manual_seed(0)
    ours = (
        models.trans_unet(classes=3, width=width, units=(1, 1, 1), layers=1, heads=2, size=64).double().eval()
    )
    for key, value in ours.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) + 0.5)
        elif key.endswith("running_mean"):
            value.copy_(torch.randn_like(value))
    theirs = Decoder(width).double().eval()
    for block, key in zip(theirs.blocks, ("x3_1", "x2_2", "x1_3", "x0_4"), strict=True):
        state = ours.nodes[key].body.state_dict()
        weight = state["conv1.weight"]
        skip = {"x3_1": 8, "x2_2": 4, "x1_3": 1, "x0_4": 0}[key] * width
        state["conv1.weight"] = torch.cat([weight[:, skip:], weight[:, :skip]], dim=1)
        block.load_state_dict(dict(zip(block.state_dict(), state.values(), strict=True)))
    theirs.head.load_state_dict(ours.heads["x0_4"].layers.conv.state_dict())
    image = torch.randn(2, 1, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        a, b = ours(image)[0], theirs(ours.encoder(image))
    assert float(b.std()) > 1e-3
    assert float((a - b).abs().max() / b.std()) < 1e-12
