"""UNet 3+ with its classification-guided module: presence logits, and the gate that follows from them."""

import pytest
import torch

from skipway import models, topology
from skipway.errors import TopologyError
from skipway.losses import cross_entropy_dice, supervised
from skipway.nn.encoders import plain_encoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import Head
from skipway.nn.nodes import plain_node
from skipway.nn.operations import count_macs, count_parameters
from skipway.nn.presence import Presence, gated
from skipway.nn.style import Style
from skipway.predict.logits import combine
from skipway.topology import Node

CONV = "gates.x4_0.layers.conv"


def guided(**options):
    """A tiny guided network, double precision, with what its gate says drawn at random."""
    torch.manual_seed(0)
    return models.unet_3_plus(**({"width": 2, "supervised": True, "guided": True} | options)).double()


def saying(model, *, present):
    """The network with a gate that says the same of every image."""
    with torch.no_grad():
        model.state_dict()[f"{CONV}.weight"].zero_()
        model.state_dict()[f"{CONV}.bias"].copy_(torch.tensor([0.0, 1.0 if present else -1.0]))
    return model


def images(model, batch=3, side=32):
    return torch.randn(batch, model.in_channels, *[side] * model.ndim, dtype=torch.float64)


def test_the_published_count():
    with torch.device("meta"):
        assert count_parameters(models.unet_3_plus(supervised=True, guided=True)) == 26_991_687
        assert count_parameters(models.unet_3_plus(guided=True)) == 26_971_777 + 2_050


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_presence_logits_come_first_and_the_most_trusted_output_last(classes, training):
    model = guided(classes=classes).train(training)
    presence, *outputs = model(images(model))
    assert presence.shape == (3, 2)
    assert [tuple(logits.shape) for logits in outputs] == [(3, classes, 32, 32)] * 5
    assert model.topology.outputs[-1] == Node(0, 4)


def test_presence_is_the_maximum_of_a_linear_map_of_the_bottom():
    model = guided().eval()
    image = images(model)
    with torch.no_grad():
        bottom = model.encoder(image)[-1]
        conv = model.gates["x4_0"].layers.conv
        expected = torch.einsum("bc...,kc->bk...", bottom, conv.weight[:, :, 0, 0]).amax((2, 3)) + conv.bias
        torch.testing.assert_close(model(image)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_gate_that_says_absent_leaves_background_everywhere(classes, training):
    model = saying(guided(classes=classes), present=False).train(training)
    _, *outputs = model(images(model))
    for logits in outputs:
        assert torch.isfinite(logits).all()
        if classes == 1:
            assert (logits == -30).all()
        else:
            assert (logits.argmax(1) == 0).all()
            assert logits.softmax(1)[:, 0].min() > 1 - 1e-12


@pytest.mark.parametrize("classes", [1, 3])
def test_a_gate_that_says_present_changes_nothing(classes):
    model = saying(guided(classes=classes), present=True).eval()
    plain = models.unet_3_plus(classes=classes, width=2, supervised=True).double().eval()
    left = plain.load_state_dict(model.state_dict(), strict=False)
    assert left.missing_keys == []
    assert sorted(left.unexpected_keys) == [f"{CONV}.bias", f"{CONV}.weight"]
    image = images(model)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(image)[1:], plain(image), strict=True))


def test_each_image_is_gated_by_its_own_presence():
    logits = torch.randn(2, 3, 4, 5)
    found = gated(logits, torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    assert found[0, :, 0, 0].tolist() == [30, -30, -30]
    assert torch.equal(found[1], logits[1])


def test_gradient_reaches_the_gate_and_only_open_images_teach_the_segmentation():
    model = guided().train()
    image, target = images(model, 2), torch.ones(2, 32, 32, dtype=torch.long)
    for present in (True, False):
        model.zero_grad()
        supervised(cross_entropy_dice, saying(model, present=present)(image), target, None).backward()
        grads = {key: parameter.grad for key, parameter in model.named_parameters()}
        assert all(torch.isfinite(grad).all() for grad in grads.values())
        assert grads[f"{CONV}.weight"].abs().max() > 0
        assert grads[f"{CONV}.bias"].abs().max() > 0
        assert (grads["heads.x0_4.layers.conv.weight"].abs().max() > 0) == present


def test_gradient_reaches_every_parameter():
    model = guided().train()
    sum(logits.square().mean() for logits in model(images(model))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


def test_pruned_network_keeps_the_gate_and_equals_the_full_one():
    model = guided().eval()
    image = images(model, 8)
    with torch.no_grad():
        shift = model(image)[0].diff(dim=1).median()
        model.gates["x4_0"].layers.conv.bias[0] += shift
        presence, *full = model(image)
        assert len(set(presence.argmax(1).tolist())) == 2  # both answers occur
        for node, expected in zip(model.topology.outputs, full, strict=True):
            pruned = model.pruned(node.column)
            again, logits = pruned(image)
            assert torch.equal(again, presence)
            assert torch.equal(logits, expected)
            assert set(pruned.state_dict()) < set(model.state_dict())


def test_tiles_are_not_exact_with_a_gate_and_are_without():
    assert not guided().geometry.tile_exact
    assert guided(guided=False).geometry.tile_exact


def test_the_same_weights_in_a_new_network_give_the_same_output():
    model, other = guided().eval(), models.unet_3_plus(width=2, supervised=True, guided=True).double().eval()
    other.load_state_dict(model.state_dict())
    image = images(model)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(image), other(image), strict=True))


def test_volumes_are_gated_too():
    model = guided(ndim=3, depth=3, classes=2)
    presence, *outputs = model.eval()(images(model, 2, 8))
    assert presence.shape == (2, 2)
    assert outputs[-1].shape == (2, 2, 8, 8, 8)


def test_operations_are_counted_with_a_gate():
    plain, gate = guided(guided=False), guided()
    assert count_macs(gate, (32, 48)) - count_macs(plain, (32, 48)) == 2 * 32 * (2 * 3)


def test_prediction_takes_the_mean_over_maps_alone():
    model = saying(guided(classes=2), present=True).eval()
    with torch.no_grad():
        presence, *outputs = model(images(model))
    assert torch.equal(combine((presence, *outputs), "mean"), combine(outputs, "mean"))
    assert torch.equal(combine((presence, *outputs)), outputs[-1])


def test_a_gate_on_a_level_that_is_cut_off_is_refused():
    style = Style()

    def build(node):
        return SkipGraph(
            topology.unet(2),
            plain_encoder(1, [2, 4, 8], [(2, 2)] * 2, style),
            lambda node, reads: plain_node(reads, (2, 2), style),
            lambda node, width, stride: Head(width, 2, stride, style),
            name="shallow",
            gate=(node, Presence(4, style)),
        )

    assert len(build(Node(1, 0))(torch.randn(1, 1, 8, 8))) == 2
    for node in (Node(2, 0), Node(0, 1)):
        with pytest.raises(TopologyError, match=f"shallow: its gate reads {node.key}"):
            build(node)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiles_into_one_graph():
    model = guided(depth=2).float().eval()
    torch._dynamo.reset()
    assert_equal_at_two_sizes(torch.compile(model, backend="eager", fullgraph=True), model)


@pytest.mark.slow  # the exporter takes seconds
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_exports_with_any_batch_and_any_legal_size():
    model = guided(depth=3).float().eval()
    sides = {2 + axis: 4 * torch.export.Dim(f"n{axis}", min=1, max=500) for axis in range(2)}
    shapes = {"x": {0: torch.export.Dim("batch"), **sides}}
    program = torch.export.export(model, (images(model, 2, 8).float(),), dynamic_shapes=shapes)
    assert_equal_at_two_sizes(program.module(), model)


def assert_equal_at_two_sizes(other, model):
    with torch.no_grad():
        for batch, side in ((1, 8), (3, 20)):
            image = images(model, batch, side).float()
            for a, b in zip(other(image), model(image), strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_guided_network_learns_which_images_are_empty():
    torch.manual_seed(1)
    model = models.unet_3_plus(1, width=4, depth=3, supervised=True, guided=True)
    image = 0.1 * torch.randn(4, 1, 16, 16)
    target = torch.zeros(4, 16, 16, dtype=torch.long)
    target[:2, 4:10, 5:12] = 1
    image[:2, :, 4:10, 5:12] += 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        supervised(cross_entropy_dice, model.train()(image), target, None).backward()
        optimiser.step()
    with torch.no_grad():
        for _ in range(20):  # running statistics of the norms
            model.train()(image)
        presence, *outputs = model.eval()(image)
    assert presence.argmax(1).tolist() == [1, 1, 0, 0]
    assert (outputs[-1][2:] == -30).all()
    assert ((outputs[-1][:2, 0] > 0).long() == target[:2]).float().mean() > 0.98
