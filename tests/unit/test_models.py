"""Builders by name, their cards, and dropout where the papers have it."""

import json

import pytest
import torch
from torch import nn

from skipway import models
from skipway.errors import UsageError


@pytest.mark.parametrize("name", models.BUILDERS)
def test_a_card_says_what_it_is_and_where_it_comes_from(name):
    card = models.describe(name)
    assert card.name == name
    assert card.summary.endswith(".")
    assert "et al." in card.source or "Ronneberger" in card.source
    assert card.tile_exact == (card.norm not in ("instance", "group") and not name.startswith("trans_unet"))
    assert card.macs > card.parameters
    assert json.loads(json.dumps(card.to_json()))["parameters"] == card.parameters


def test_the_card_of_the_paper():
    card = models.describe("unet_2015")
    assert (card.size, card.output_size, card.macs) == ((572, 572), (388, 388), 150_428_424_448)
    assert (card.receptive_field, card.smallest, card.stride) == ((204, 204), (188, 188), (16, 16))
    assert (card.parameters, card.norm, card.outputs) == (31_030_658, "none", ("x0_4",))


def test_a_card_at_another_size_takes_the_next_legal_one():
    assert models.describe("unet_2015", size=(300, 189)).size == (300, 204)


def test_a_config_from_json_builds_the_same_network():
    config = {
        "in_channels": 2,
        "classes": 3,
        "width": 4,
        "depth": 3,
        "ndim": 3,
        "pools": [[1, 2, 2], [2, 2, 2]],
    }
    again = json.loads(json.dumps(config))
    torch.manual_seed(0)
    a = models.build("unet", **config)
    torch.manual_seed(0)
    b = models.build("unet", **again)
    assert a.geometry == b.geometry
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"no model is called 'unet\+\+'.*Fix: ") as refusal:
        models.build("unet++")
    assert refusal.value.exit_code == 2
    with pytest.raises(UsageError, match="Fix: use unet_2015"):
        models.build("unet2015")


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="wdith"):
        models.unet(wdith=3)


def test_pools_must_fit_the_depth():
    with pytest.raises(ValueError, match="pools needs 2 factors of 3 axes at depth 3"):
        models.unet(width=2, depth=3, ndim=3, pools=[(2, 2)])


def dropped(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Dropout)]


def test_dropout_stands_at_the_end_of_the_contracting_path():
    model = models.unet_2015(width=2)
    assert dropped(model) == ["encoder.stages.x3_0.drop", "encoder.stages.x4_0.drop"]
    assert model.encoder.stages["x3_0"][-1].p == 0.5
    assert dropped(models.unet_2015(width=2, dropout=0.0)) == []


def test_dropout_stands_after_each_relu_of_unet_plus_plus_and_nowhere_in_the_unet():
    convolutions = 2 * 15
    assert len(dropped(models.unet_plus_plus(width=2))) == convolutions
    assert dropped(models.unet(width=2)) == []
