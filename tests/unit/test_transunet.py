"""TransUNet: sizes, positions, gradients, saving, refusals, weights from archives."""

import io

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from vit_archive import archive

from skipway import models
from skipway.errors import CheckpointError, SecurityError, ShapeError, UsageError
from skipway.nn.transformer import Positions
from skipway.pretrained import load_pretrained, load_vit_npz

TINY = {"width": 4, "units": (1, 2, 1), "layers": 2, "heads": 2, "size": 32}


def tiny(**options):
    torch.manual_seed(0)
    return models.trans_unet(**(TINY | {"classes": 3} | options))


@pytest.mark.parametrize("options", [{}, {"in_channels": 2}, {"resnet": False}], ids=str)
def test_gradient_reaches_every_parameter(options):
    model = tiny(**options)
    model(torch.randn(2, model.in_channels, 32, 48))[0].square().mean().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("options", [{}, {"resnet": False}], ids=str)
@pytest.mark.parametrize("sides", [(16, 16), (32, 32), (48, 80), (224, 16)])
def test_every_multiple_of_16_goes_in_and_comes_out(options, sides):
    model = tiny(**options).eval()
    assert model.geometry.smallest == model.geometry.stride == (16, 16)
    with torch.no_grad():
        assert model(torch.randn(1, 1, *sides))[0].shape == (1, 3, *sides)
    with pytest.raises(
        ShapeError, match="cannot take a side of 40: level 3 is 5 pixels.*Nearest sides: 32, 48"
    ):
        model(torch.zeros(1, 1, 40, 32))


def test_positions_on_their_own_grid_are_added_to_the_bit():
    torch.manual_seed(0)
    positions = Positions(5, (14, 14))
    torch.nn.init.normal_(positions.table)
    x = torch.randn(2, 5, 14, 14)
    assert torch.equal(positions(x), x + positions.table)
    assert positions(torch.zeros(1, 5, 9, 20)).shape == (1, 5, 9, 20)


def test_an_image_of_one_channel_is_one_of_three_equal_channels():
    grey, colour = tiny().eval(), tiny(in_channels=3).eval()
    colour.load_state_dict(grey.state_dict())
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(grey(image)[0], colour(image.repeat(1, 3, 1, 1))[0])


def test_it_says_that_tiles_are_not_exact_and_they_are_not():
    model = tiny().eval().double()
    assert not model.geometry.tile_exact
    image = torch.randn(1, 1, 32, 640, dtype=torch.float64)
    with torch.no_grad():
        whole, half = model(image)[0], model(image[..., :320])[0]
    assert not torch.allclose(whole[..., :16], half[..., :16], rtol=0, atol=1e-9)


def test_same_weights_give_the_same_output_and_pruning_keeps_it():
    model, other = tiny().eval(), models.trans_unet(**TINY, classes=3).eval()
    other.load_state_dict(model.state_dict())
    image = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        assert torch.equal(model(image)[0], other(image)[0])
        assert torch.equal(model(image)[0], model.pruned(4)(image)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "a multiple of 16, not 100"),
        ({"units": (1, 2)}, "one number for each of 3 stages"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_the_small_one_learns_on_a_cpu():
    torch.manual_seed(0)
    model = models.trans_unet_small(width=8, layers=2, size=32, dropout=0.0)
    image = torch.nn.functional.interpolate(torch.randn(4, 1, 4, 4), scale_factor=8, mode="bilinear")
    target = (image[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(image)[0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("resnet", [True, False])
def test_every_array_of_the_archive_goes_where_it_belongs(resnet, tmp_path):
    given = archive(resnet=resnet)
    np.savez(tmp_path / "w.npz", **given)
    model = tiny(resnet=resnet)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    source = load_pretrained(model, tmp_path / "w.npz")
    assert source.file == tmp_path / "w.npz"
    after = model.state_dict()
    kept = {key for key in after if torch.equal(after[key], before[key])}
    trained = {key for key in after if key.startswith("encoder.stages") and ".more." not in key}
    assert kept == after.keys() - trained
    last = "encoder.stages.x4_0.tokens."
    query = given["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"]
    row = after[f"{last}layers.1.attention.qkv.weight"][5]  # output 1 of head 1 of the queries
    assert np.array_equal(row, query[:, 1, 1])
    value = given["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/value/bias"]
    assert np.array_equal(after[f"{last}layers.0.attention.qkv.bias"][16:], value.ravel())
    out = given["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/out/kernel"]
    assert np.array_equal(after[f"{last}layers.0.attention.out.weight"][3], out[:, :, 3].ravel())
    assert np.array_equal(
        after[f"{last}layers.0.norm2.weight"], given["Transformer/encoderblock_0/LayerNorm_2/scale"]
    )
    if resnet:
        kernel = given["block2/unit1/conv2/kernel"]
        assert np.array_equal(
            after["encoder.stages.x3_0.unit1.body.conv2.conv.weight"][1, 3], kernel[:, :, 3, 1]
        )
        norm = given["block2/unit1/gn_proj/bias"]
        assert np.array_equal(after["encoder.stages.x3_0.unit1.shortcut.norm.bias"], norm.ravel())


@pytest.mark.parametrize("token", [True, False])
def test_positions_of_another_grid_are_interpolated_with_the_corners_in_place(token, tmp_path):
    """24 x 24 to 14 x 14: a plane stays a plane, so place (i, j) reads row 23 i / 13 and column 23 j / 13."""
    given = archive(grid=24, token=token)
    rows, columns = np.mgrid[:24, :24].astype(np.float32)
    plane = np.stack([100 * rows + columns] * 8, axis=-1).reshape(1, 576, 8)
    if token:
        plane = np.concatenate([np.full((1, 1, 8), -999, np.float32), plane], axis=1)
    given["Transformer/posembed_input/pos_embedding"] = plane
    np.savez(tmp_path / "w.npz", **given)
    model = tiny(size=224)
    load_vit_npz(model, tmp_path / "w.npz")
    table = model.encoder.stages["x4_0"].tokens.positions.table[0].detach().numpy()
    places = np.arange(14) * 23 / 13
    assert np.allclose(table, (100 * places[:, None] + places)[None], atol=1e-3)
    assert table[0, 13, 13] == pytest.approx(2323)
    assert table[0, 1, 0] == pytest.approx(176.923, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("block1/unit1/gn2/bias"), "missing: block1/unit1/gn2/bias"),
        (
            lambda a: a.update({"block3/unit2/conv1/kernel": np.zeros(1)}),
            "unexpected: block3/unit2/conv1/kernel",
        ),
        (
            lambda a: a.update({"embedding/bias": np.zeros(9)}),
            r"shape differs: embedding/bias .*\(\[9\]→\[8\]\)",
        ),
        (
            lambda a: a.update({"Transformer/posembed_input/pos_embedding": np.zeros((1, 7, 8))}),
            "no square grid",
        ),
        (lambda a: a.update({"conv_root/kernel": np.zeros(4)}), "conv_root/kernel cannot become"),
    ],
)
def test_an_archive_of_another_network_is_refused_and_changes_nothing(change, message, tmp_path):
    given = archive()
    change(given)
    np.savez(tmp_path / "w.npz", **given)
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_vit_npz(model, tmp_path / "w.npz")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_pickled_objects_and_other_files_are_refused(tmp_path):
    model = tiny()
    np.savez(tmp_path / "evil.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SecurityError, match="found pickled objects"):
        load_vit_npz(model, tmp_path / "evil.npz")
    (tmp_path / "not.npz").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="not an archive of arrays"):
        load_vit_npz(model, tmp_path / "not.npz")
    with pytest.raises(CheckpointError, match="file is missing"):
        load_pretrained(model, tmp_path / "none.npz")
    buffer = io.BytesIO()
    np.savez(buffer, **archive())
    data = bytearray(buffer.getvalue())
    data[200:260] = bytes(60)
    (tmp_path / "hurt.npz").write_bytes(data)
    with pytest.raises(CheckpointError):
        load_vit_npz(model, tmp_path / "hurt.npz")
    with pytest.raises(UsageError, match="unet has no transformer"):
        load_vit_npz(models.unet(width=2), tmp_path / "evil.npz")


def test_a_safetensors_file_that_is_no_transformer_is_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the encoder: missing"):
        load_pretrained(tiny(), tmp_path / "w.safetensors")
