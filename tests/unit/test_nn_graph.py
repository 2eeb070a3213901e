"""The executor: outputs, pruning, liveness, weights, refusals."""

import weakref
from copy import deepcopy

import pytest
import torch

from skipway import models, topology
from skipway.errors import ShapeError, TopologyError
from skipway.nn.encoders import plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.nodes import plain_node
from skipway.nn.style import Style
from skipway.topology import Node, Topology

SUPERVISED = {
    "unet_e": {},
    "unet_plus": {"supervised": True},
    "unet_plus_plus": {"supervised": True},
    "unet_3_plus": {"supervised": True},
}
VARIANTS = [
    *[(name, {"width": 2} | options) for name, options in SUPERVISED.items()],
    ("unet_2015", {"width": 2}),
    ("unet_2015", {"width": 2, "released": True}),
    *[("unet", {"width": 4, "depth": 3, "up": up}) for up in ("transposed", "bilinear", "nearest")],
    *[("unet", {"width": 4, "depth": 3, "norm": n}) for n in ("channel_layer", "instance", "group", "none")],
    ("unet", {"width": 4, "depth": 3, "merge": "sum", "padding": "valid"}),
    ("unet", {"width": 4, "depth": 3, "block": "residual", "padding": "valid"}),
    ("unet", {"width": 4, "depth": 3, "ndim": 3, "pools": [(1, 2, 2), (2, 2, 2)]}),
    ("unet_plus_plus", {"width": 2, "depth": 3, "ndim": 3, "padding": "valid", "supervised": True}),
    ("unet_3_plus", {"width": 2, "depth": 3, "ndim": 3}),
]


def image_for(model, batch=2, scale=2):
    size = model.geometry.next_legal([scale * s for s in model.geometry.stride])
    return torch.randn(batch, model.in_channels, *size)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_gradient_reaches_every_parameter(name, options):
    torch.manual_seed(0)
    model = models.build(name, **options)
    sum(logits.square().mean() for logits in model(image_for(model))).backward()
    dead = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert dead == []


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_outputs_have_the_sizes_of_the_geometry_and_one_channel_a_class(name, options):
    model = models.build(name, classes=3, **options).eval()
    image = image_for(model, batch=1)
    with torch.no_grad():
        outputs = model(image)
    assert len(outputs) == len(model.topology.outputs) == len(model.heads)
    for node, logits in zip(model.topology.outputs, outputs, strict=True):
        assert logits.shape == (1, 3, *model.geometry.output_size(image.shape[2:], node.key))


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_the_same_weights_in_a_new_network_give_the_same_output(name, options):
    torch.manual_seed(0)
    model = models.build(name, **options).eval()
    other = models.build(name, **options).eval()
    image = image_for(model, batch=1)
    with torch.no_grad():
        before = [logits.clone() for logits in other(image)]
        other.load_state_dict(model.state_dict())
        ours, theirs = model(image), other(image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(before[-1], theirs[-1])


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_each_weight_stands_under_one_name(name, options):
    model = models.build(name, **options)
    pointers = [value.data_ptr() for key, value in model.state_dict().items() if value.numel()]
    assert len(pointers) == len(set(pointers))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("name", SUPERVISED)
def test_pruned_network_equals_the_full_one_at_that_output(name, padding):
    options = {} if name == "unet_3_plus" else {"padding": padding}
    model = models.build(name, width=2, **SUPERVISED[name], **options).eval()
    image = image_for(model, batch=1)
    with torch.no_grad():
        full = model(image)
        for node, expected in zip(model.topology.outputs, full, strict=True):
            pruned = model.pruned(node.column)
            (logits,) = pruned(image)
            assert torch.equal(logits, expected)
            keys, all_keys = set(pruned.state_dict()), set(model.state_dict())
            assert keys < all_keys
            assert len(pruned.encoder.widths) == 1 + max(n.level for n in pruned.topology.needed())


def test_pruned_network_shares_weights_and_mode():
    model = models.unet_plus_plus(width=2, supervised=True).eval()
    pruned = model.pruned(2)
    assert not pruned.training
    assert (
        pruned.state_dict()["heads.x0_2.layers.conv.bias"].data_ptr()
        == model.heads["x0_2"].layers.conv.bias.data_ptr()
    )
    assert pruned.geometry.stride == (4, 4)
    assert deepcopy(pruned).state_dict().keys() == pruned.state_dict().keys()


def test_pruning_to_an_output_that_is_not_there_names_those_that_are():
    with pytest.raises(TopologyError, match="unet_plus_plus has no output L2; its only one is L4"):
        models.unet_plus_plus(width=2).pruned(2)


@pytest.mark.parametrize("name", [*SUPERVISED, "unet"])
def test_maps_are_freed_after_their_last_use(name):
    """Before the body of a node runs, every map that nobody reads any more is gone, and no other is."""
    model = models.build(name, width=2, **SUPERVISED.get(name, {})).eval()
    maps: dict[str, weakref.ref] = {}

    def remember(key):
        return lambda module, args, output: maps.update({key: weakref.ref(output)})

    for key, stage in [*model.encoder.stages.items(), *model.nodes.items()]:
        stage.register_forward_hook(remember(key))
    gone: set[str] = set()
    outputs = {node.key for node in model.topology.outputs}
    checked = 0
    for node, spent in model.topology.schedule():
        before = {source.key for source in spent} - {node.key}

        def check(module, args, key=node.key, before=before):
            nonlocal checked
            gone.update(before)
            assert {k for k, ref in maps.items() if ref() is None} == gone
            checked += 1
            gone.update(
                {key} & outputs
                if key not in {s.key for n in model.topology.reads.values() for s in n}
                else ()
            )

        model.nodes[node.key].body.register_forward_pre_hook(check)
    with torch.no_grad():
        model(image_for(model, batch=1))
    assert checked == len(model.nodes)


def test_a_new_architecture_is_a_table():
    """FCN-8s in outline: the U-Net's row ended at level 1, merged by sum, its head up-sampling the rest."""
    table = Topology(
        {Node(2, 1): (Node(2, 0), Node(3, 0)), Node(1, 2): (Node(1, 0), Node(2, 1))}, (Node(1, 2),)
    )
    style = Style(norm="none")
    model = SkipGraph(
        table,
        plain_encoder(1, [2, 4, 8, 16], [(2, 2)] * 3, style),
        lambda node, reads: plain_node(reads, (4,), style, merge="sum"),
        lambda node, width, stride: Head(width, 5, stride, style),
        name="fcn",
    ).eval()
    assert model(torch.randn(1, 1, 32, 48))[0].shape == (1, 5, 32, 48)
    assert model.geometry.stride == (8, 8)


def test_an_encoder_that_is_too_shallow_is_refused():
    style = Style()
    with pytest.raises(TopologyError, match="shallow needs 4 levels; the encoder has 3"):
        SkipGraph(
            topology.unet(4),
            plain_encoder(1, [2, 4, 8], [(2, 2)] * 2, style),
            lambda node, reads: plain_node(reads, (2, 2), style),
            lambda node, width, stride: Head(width, 2, stride, style),
            name="shallow",
        )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 64, 72), r"unet cannot take a side of 72: level 3 is 9 pixels, .* Nearest sides: 64, 80\."),
        ((1, 3, 64, 64), r"unet takes images of shape \(batch, 1, y, x\), not \(1, 3, 64, 64\)"),
        ((1, 64, 64), r"not \(1, 64, 64\)"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_before_it_runs(shape, message):
    with pytest.raises(ShapeError, match=message):
        models.unet(width=2)(torch.zeros(shape))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_stays_near_single(dtype, bound):
    torch.manual_seed(0)
    model = models.unet(width=4, depth=3).eval()
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        exact = model(image)[0]
        rough = deepcopy(model).to(dtype)(image.to(dtype))[0].float()
    assert float((rough - exact).abs().max() / exact.std()) < bound
