"""Norms over the map with the statistics of the whole image: any tile grid gives what one pass gives."""

import numpy as np
import pytest
import torch

from skipway.errors import UsageError
from skipway.models import build
from skipway.predict import whole_norms
from skipway.predict.pixels import ArrayPixels
from skipway.predict.stream import predict_array
from skipway.predict.whole_norms import KnownNorm, Moments, with_whole_norms


def network(name="unet", *, size=None, **config):
    torch.manual_seed(0)
    model = build(name, **{"in_channels": 1, "classes": 3, "width": 4, "depth": 3, **config}).double().eval()
    for norm in model.modules():
        if isinstance(norm, whole_norms.GroupNorm):
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
            torch.nn.init.normal_(norm.bias)
    return model


def image(*size):
    """Brighter to one side, so that the statistics of tiles differ from those of the whole."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(1, *size)) + np.linspace(0, 5, size[-1])).astype(np.float64)


def logits(model, picture, tile):
    found = np.empty((3, *picture.shape[1:]))

    def keep(region, values):
        found[:, *region] = values.numpy()

    predict_array(model, picture, tile=tile, on_logits=keep)
    return found


CASES = {
    "unet, instance": ("unet", {"norm": "instance"}, (61, 83)),
    "unet, group": ("unet", {"norm": "group"}, (61, 83)),
    "nnunet": ("nnunet", {"ndim": 2}, (61, 83)),
    "unet_plus_plus": ("unet_plus_plus", {"norm": "instance"}, (61, 83)),
    "r2, a norm used several times": ("r2_unet", {"norm": "instance", "depth": 2}, (30, 150)),
    "nnunet, 3-D": ("nnunet", {"ndim": 3, "depth": 2}, (9, 14, 75)),
}


@pytest.mark.parametrize("case", CASES)
def test_any_tile_gives_what_one_pass_gives(case):
    name, config, size = CASES[case]
    model, picture = network(name, **config), image(*size)
    whole = logits(model, picture, 1000)
    spread = whole.std()
    apart = np.abs(logits(model, picture, 8) - whole).max() / spread
    assert apart > 1e-2, "tiles of this network must differ, or the test sees nothing"
    for step in (8, 16, 24):
        known = with_whole_norms(model, ArrayPixels(picture), tile=step)
        assert known.geometry.tile_exact
        for tile in (8, 24, 1000):
            assert np.abs(logits(known, picture, tile) - whole).max() / spread < 1e-11
    again = predict_array(known, picture, tile=8)
    assert np.array_equal(again.labels, predict_array(model, picture, tile=1000).labels)
    assert again.certificate.holds
    assert "WARNING" not in str(again.certificate)


def test_the_network_itself_is_not_changed():
    model, picture = network(norm="instance"), image(40, 40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with_whole_norms(model, ArrayPixels(picture), tile=8)
    assert not any(isinstance(module, KnownNorm) for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.geometry.tile_exact
    batch = network(norm="batch")
    assert with_whole_norms(batch, ArrayPixels(picture)) is batch


def test_pixels_that_two_tiles_read_count_once(monkeypatch):
    model, picture = network(norm="instance"), image(61, 83)
    whole = logits(model, picture, 1000)
    monkeypatch.setattr(
        whole_norms, "_owns", lambda tile, last: [slice(r.start, r.stop) for r in tile.region]
    )
    planted = with_whole_norms(model, ArrayPixels(picture), tile=8)
    assert np.abs(logits(planted, picture, 8) - whole).max() / whole.std() > 1e-4


def test_the_mirrored_end_counts_as_in_one_pass(monkeypatch):
    model, picture = network(norm="instance"), image(61, 83)
    whole = logits(model, picture, 1000)
    monkeypatch.setattr(
        whole_norms,
        "_owns",
        lambda tile, last: [slice(w.start, w.stop // 4 * 4) for w in tile.write],
    )
    planted = with_whole_norms(model, ArrayPixels(picture), tile=8)
    assert np.abs(logits(planted, picture, 8) - whole).max() / whole.std() > 1e-6


def test_moments_lose_no_digits_where_the_mean_is_large():
    rng = np.random.default_rng(1)
    values = rng.normal(1e7, 1.0, (2, 4000))
    parts = [Moments.of(torch.from_numpy(part)) for part in np.split(values, [10, 1000, 1001], axis=1)]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.joined(part)
    assert joined.count == 4000
    np.testing.assert_allclose(joined.mean.numpy(), values.mean(1), rtol=1e-15)
    np.testing.assert_allclose(joined.variance.numpy(), values.var(1), rtol=1e-9)


def test_a_network_without_padding_is_refused():
    model = build("unet_3d_2016", in_channels=1, classes=3, width=4, depth=2, norm="instance")
    assert any(model.geometry.margin)
    with pytest.raises(UsageError, match="without padding"):
        with_whole_norms(model, ArrayPixels(image(30, 30, 30)))
