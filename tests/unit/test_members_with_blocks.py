"""What every member must survive, for those with other blocks, gates or strided encoders."""

import json

import pytest
import torch

from skipway import models
from skipway.nn.operations import count_macs
from skipway.nn.style import BLOCKS

MEMBERS = [
    *[("unet", {"block": block, "depth": 3}) for block in BLOCKS[1:]],
    ("unet", {"block": "recurrent", "up": "bilinear", "depth": 3}),
    ("unet", {"block": "residual_each", "padding": "valid", "norm": "none", "depth": 3}),
    ("unet", {"up": "nearest_conv", "bias": True, "activation": "prelu", "depth": 3}),
    ("unet", {"gate": True, "merge": "sum", "depth": 3}),
    ("unet", {"gate": True, "padding": "valid", "norm": "channel_layer", "depth": 3}),
    ("unet_plus_plus", {"gate": True, "supervised": True, "depth": 3, "dropout": 0.1}),
    ("unet_e", {"gate": True, "block": "preactivation", "depth": 3}),
    ("residual_unet", {}),
    ("residual_unet", {"ndim": 3, "depth": 3, "dropout": 0.1, "pools": [(1, 2, 2), (2, 2, 2)]}),
    ("attention_unet", {"depth": 3}),
    ("attention_unet", {"depth": 3, "ndim": 3, "pools": [(1, 2, 2), (2, 2, 2)]}),
    ("r2_unet", {"depth": 3}),
    ("r2_attention_unet", {"depth": 3, "recurrences": 1}),
    ("vnet", {"depth": 3}),
    ("vnet", {"in_channels": 3, "ndim": 2, "norm": "batch", "activation": "leaky_relu", "dropout": 0.1}),
    ("nnunet", {"depth": 3}),
    ("nnunet", {"ndim": 2, "dropout": 0.1}),
    (
        "nnunet",
        {"depth": 3, "pools": [(1, 2, 2), (2, 2, 2)], "kernels": [(1, 3, 3), (3, 3, 3), (3, 5, 5)]},
    ),
    ("nnunet_residual", {"depth": 3, "supervised": False}),
    ("nnunet_residual", {"ndim": 2, "blocks": [1, 2, 1], "depth": 3, "pools": [(1, 2), (2, 2)]}),
]


@pytest.fixture(params=MEMBERS, ids=str)
def member(request):
    name, options = request.param
    torch.manual_seed(0)
    return name, {"width": 2} | options


def image_for(model, batch=2):
    size = model.geometry.next_legal([2 * s for s in model.geometry.stride])
    return torch.randn(batch, model.in_channels, *size)


def test_gradient_reaches_every_parameter(member):
    name, options = member
    model = models.build(name, **options)
    sum(logits.square().mean() for logits in model(image_for(model))).backward()
    dead = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert dead == []


def test_the_same_weights_in_a_new_network_give_the_same_output(member):
    name, options = member
    config = json.loads(json.dumps(options))
    model, other = models.build(name, **options).eval(), models.build(name, **config).eval()
    image = image_for(model, batch=1)
    with torch.no_grad():
        before = other(image)[-1].clone()
        other.load_state_dict(model.state_dict())
        ours, theirs = model(image), other(image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(before, theirs[-1])


def test_outputs_have_the_sizes_of_the_geometry_and_one_channel_a_class(member):
    name, options = member
    model = models.build(name, classes=3, **options).double().eval()
    image = image_for(model, batch=1).double()
    with torch.no_grad():
        outputs = model(image)
    for node, logits in zip(model.topology.outputs, outputs, strict=True):
        assert logits.shape == (1, 3, *model.geometry.output_size(image.shape[2:], node.key))
        assert logits.isfinite().all()


def test_the_smallest_legal_size_runs(member):
    name, options = member
    model = models.build(name, **options).eval()
    with torch.no_grad():
        model(torch.randn(1, model.in_channels, *model.geometry.smallest))


def test_each_weight_stands_under_one_name(member):
    name, options = member
    values = models.build(name, **options).state_dict().values()
    pointers = [value.data_ptr() for value in values if value.numel()]
    assert len(pointers) == len(set(pointers))


def test_operations_are_counted_without_numbers(member):
    name, options = member
    with torch.device("meta"):
        model = models.build(name, **options)
    assert count_macs(model, model.geometry.smallest) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nnunet", {"ndim": 2}),
        ("nnunet_residual", {"ndim": 2, "depth": 4}),
        ("unet_plus_plus", {"gate": True, "supervised": True, "depth": 4}),
    ],
)
def test_pruned_network_equals_the_full_one_at_that_output(name, options):
    torch.manual_seed(0)
    model = models.build(name, width=2, **options).eval()
    image = image_for(model, batch=1)
    with torch.no_grad():
        for node, expected in zip(model.topology.outputs, model(image), strict=True):
            pruned = model.pruned(node.column)
            assert torch.equal(pruned(image)[0], expected)
            assert set(pruned.state_dict()) < set(model.state_dict())


def test_recurrent_convolutions_are_counted_as_often_as_they_run():
    once, thrice = (
        count_macs(models.r2_unet(width=2, depth=2, recurrences=times), (8, 8)) for times in (0, 2)
    )
    width, up = 8 * 8 * 9 * 2 * 2, 4 * 4 * 9 * 4 * 4  # one 3-wide convolution of each level
    assert thrice - once == 2 * (2 * width + 2 * up + 2 * width)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.vnet(width=2, convs=(1, 2)), "convs needs 5 numbers, 1 or more each"),
        (lambda: models.nnunet(width=2, kernels=[(3, 3)]), "kernels needs 6 sides of 3 axes at depth 6"),
        (lambda: models.nnunet(width=2, pools=[(2, 2)]), "pools needs 5 factors of 3 axes at depth 6"),
        (lambda: models.nnunet_residual(width=2, blocks=[0] * 6), "blocks needs 6 numbers, 1 or more each"),
        (
            lambda: models.nnunet_residual(width=2, depth=2, kernels=[(3, 3, 3), (1, 3, 3)]),
            "a block of stride .* needs a kernel as wide",
        ),
        (lambda: models.r2_unet(width=2, padding="valid"), "use padding 'same'"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
