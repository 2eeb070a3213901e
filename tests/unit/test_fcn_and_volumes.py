"""FCN, the wide, the teaching and the 3-D U-Net: sizes, tiles, gradients, weights, refusals."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_predict import EXACT, amplifying, picture, relative_error
from torch import nn

from skipway import models, topology
from skipway.errors import ShapeError, TopologyError
from skipway.nn.encoders import PlainEncoder
from skipway.nn.graph import SkipGraph
from skipway.nn.heads import ScoreHead
from skipway.nn.init import bilinear_init
from skipway.nn.nodes import Read, score_node
from skipway.nn.resample import overlapping
from skipway.nn.style import Style
from skipway.predict import predict_array
from skipway.topology import Node

UNEVEN = [(1, 2, 2), (2, 2, 2)]
TINY = [
    ("fcn_32s", {"width": 2, "hidden": 4}),
    ("fcn_16s", {"width": 2, "hidden": 4}),
    ("fcn_8s", {"width": 2, "hidden": 4}),
    ("fcn_8s", {"width": 2, "hidden": 4, "learned_up": True}),
    ("fcn", {"width": 2, "depth": 5}),
    ("fcn", {"width": 2, "depth": 2}),
    ("fcn", {"width": 2, "depth": 3, "stop": 0, "up": "nearest"}),
    ("fcn", {"width": 2, "depth": 3, "stop": 2, "norm": "none", "block": "residual"}),
    ("fcn", {"width": 2, "depth": 3, "stop": 1, "padding": "valid"}),
    ("fcn", {"width": 2, "depth": 3, "stop": 1, "ndim": 3, "pools": UNEVEN}),
    ("wide_unet", {"width": 3, "depth": 3}),
    ("wide_unet", {"width": 4, "depth": 3, "up": "bilinear"}),
    ("unet_two_level", {"width": 2}),
    ("unet_3d_2016", {"width": 2, "depth": 2}),
    ("unet_3d_2016", {"width": 2, "depth": 3, "padding": "same", "pools": UNEVEN}),
    ("unet_3d_2016", {"width": 2, "depth": 3, "ndim": 2, "norm": "none"}),
]
VGG = [(name, options) for name, options in TINY if "hidden" in options]


def build(name, options, *, classes=3):
    """The network with scores that are not zero, so that they show what they read."""
    torch.manual_seed(0)
    model = models.build(name, in_channels=1, classes=classes, **options)
    for key, parameter in model.named_parameters():
        if ".score." in key:
            nn.init.normal_(parameter)
    return model


def image_for(model, batch=1):
    size = model.geometry.next_legal([2 * s for s in model.geometry.stride])
    return torch.randn(batch, 1, *size)


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_a_gradient_that_is_not_zero_reaches_every_parameter(name, options):
    model = build(name, options).eval()  # dropout could close the only path there is
    sum(logits.square().mean() for logits in model(image_for(model, 2))).backward()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_outputs_have_the_sizes_of_the_geometry_and_one_channel_a_class(name, options):
    model = build(name, options).eval()
    image = image_for(model)
    with torch.no_grad():
        (logits,) = model(image)
    assert logits.shape == (1, 3, *model.geometry.output_size(image.shape[2:]))
    assert model.classes == 3
    assert float(logits.std()) > 0


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_the_same_weights_in_a_new_network_give_the_same_output_to_the_bit(name, options):
    model = build(name, options).eval()
    other = models.build(name, in_channels=1, classes=3, **options).eval()
    image = image_for(model)
    with torch.no_grad():
        assert not torch.equal(model(image)[0], other(image)[0])
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(image)[0], other(image)[0])


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_a_network_without_numbers_has_the_same_names_shapes_and_geometry(name, options):
    with torch.device("meta"):
        blank = models.build(name, **options)
    model = models.build(name, **options)
    assert all(value.is_meta for value in blank.state_dict().values())
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (blank, model)]
    assert shapes[0] == shapes[1]
    assert blank.geometry == model.geometry


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_pruning_to_the_only_output_changes_nothing(name, options):
    model = build(name, options).eval()
    pruned = model.pruned(model.topology.outputs[0].column)
    image = image_for(model)
    with torch.no_grad():
        assert torch.equal(pruned(image)[0], model(image)[0])
    assert pruned.state_dict().keys() == model.state_dict().keys()
    assert pruned.geometry == model.geometry


SIZES = {2: [(1, 1), (97, 3), (26, 61)], 3: [(1, 1, 1), (5, 11, 15), (13, 2, 19)]}


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_every_size_is_predicted_and_tiles_equal_the_whole_in_float64(name, options):
    model = amplifying(build(name, options))
    shape = model.geometry
    reach = max(shape.halo[0], shape.margin[0]) + 3 * shape.stride[0]
    long = (2 * reach + 1, *[9] * (model.ndim - 1))  # several tiles along the first axis
    for size in [*SIZES[model.ndim], long]:
        array = picture(1, *size)
        error, changed = relative_error(model, array, shape.stride)
        assert (error <= EXACT, changed) == (True, 0), (size, error)
        found = predict_array(model, array, tile=shape.stride)
        assert found.labels.shape == size
        assert found.tiles > 1 or size != long
        assert (found.certificate.changed_labels, found.certificate.holds) == (0, True)


def test_the_smallest_halo_of_fcn_is_needed():
    """One period of 32 pixels less and tiles differ from the whole."""
    model = amplifying(build("fcn_8s", {"width": 2, "hidden": 4}))
    shape = model.geometry
    array = picture(1, 700, 20)
    assert relative_error(model, array, 32)[0] <= EXACT
    model.geometry = replace(shape, halo=tuple(h - s for h, s in zip(shape.halo, shape.stride, strict=True)))
    assert relative_error(model, array, 32)[0] > 1e-9


@pytest.mark.parametrize("name", ["unet", "wide_unet", "unet_e", "unet_plus", "unet_plus_plus", "fcn"])
@pytest.mark.parametrize("pools", [UNEVEN, [(1, 1, 2), (1, 3, 2)]], ids=str)
def test_every_plain_member_takes_volumes_with_uneven_voxels(name, pools):
    model = build(name, {"width": 2, "depth": 3, "ndim": 3, "pools": pools})
    stride = tuple(np.prod(pools, axis=0).tolist())
    assert model.geometry.stride == model.geometry.smallest == stride
    assert relative_error(amplifying(model), picture(1, 5, 11, 15), 4) <= (EXACT, 0)


# ---- weights that are fixed, weights that start at zero


def fixed(model):
    return {key: value for key, value in model.named_buffers() if key.endswith("resample.weight")}


@pytest.mark.parametrize(("name", "options"), VGG, ids=str)
def test_fixed_kernels_are_saved_but_no_optimiser_can_reach_them(name, options):
    model = build(name, options)
    kept = {key: value.clone() for key, value in fixed(model).items()}
    (last,) = (f"heads.{node.key}.layers.resample.weight" for node in model.topology.outputs)
    between = {
        "nodes.x3_1.branches.x4_0.resample.weight",
        "nodes.x2_2.branches.x3_1.resample.weight",
    } & model.state_dict().keys()
    learned = options.get("learned_up", False)
    assert len(between) == {"fcn_32s": 0, "fcn_16s": 1, "fcn_8s": 2}[name]
    assert kept.keys() == ({last} if learned else {last, *between})
    assert kept.keys() <= model.state_dict().keys()
    assert all(p.requires_grad for p in model.parameters())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(image_for(model))[0].square().mean().backward()
    optimiser.step()
    assert all(torch.equal(value, kept[key]) for key, value in fixed(model).items())
    for key in between:
        assert torch.equal(model.state_dict()[key], before[key]) is not learned


@pytest.mark.parametrize("learned", [False, True])
def test_a_fresh_up_sampling_interpolates_linearly(learned):
    """Cropped to what its input covers, it is torch's interpolation but for the outermost pixels."""
    up = overlapping((2, 8), 3, learned=learned)
    bilinear_init(up)
    scores = torch.randn(2, 3, 5, 7)
    with torch.no_grad():
        wide = up(scores)
    assert wide.shape == (2, 3, 2 * 6, 8 * 8)
    expected = F.interpolate(scores, scale_factor=(2.0, 8.0), mode="bilinear")
    inside = (..., slice(1, -1), slice(4, -4))
    assert torch.allclose(wide[..., 1:-1, 4:-4][inside], expected[inside], atol=1e-6)


@pytest.mark.parametrize(("name", "options"), VGG, ids=str)
def test_scores_start_at_zero_and_leave_it_in_the_first_step(name, options):
    torch.manual_seed(0)
    model = models.build(name, **options).eval()
    image = torch.randn(2, 3, 58, 26)
    target = torch.randint(21, (2, 58, 26))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        (logits,) = model(image)
        losses.append(F.cross_entropy(logits, target))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0].item() == pytest.approx(np.log(21), rel=1e-6)  # nothing is known yet
    assert losses[0] > losses[1] > losses[2]
    scores = [value for key, value in model.named_parameters() if key.endswith("score.weight")]
    assert len(scores) == {"fcn_32s": 1, "fcn_16s": 2, "fcn_8s": 3}[name]
    assert all(value.any() for value in scores)


def test_every_level_read_changes_the_scores_and_no_other_does():
    """FCN-16s does not see pool3 but through pool4, FCN-8s adds it: with the rest silent, its score alone speaks."""
    for name, key, speaks in (
        ("fcn_8s", "nodes.x2_2.branches.x2_0.score.weight", True),
        ("fcn_16s", "nodes.x3_1.branches.x3_0.score.weight", True),
        ("fcn_16s", "nodes.x2_2.branches.x2_0.score.weight", False),
    ):
        model = models.build(name, width=2, hidden=4).eval()
        assert (key in model.state_dict()) is speaks
        if speaks:
            image = torch.randn(1, 3, 26, 26)
            with torch.no_grad():
                assert not model(image)[0].any()
                model.get_parameter(key).normal_()
                assert model(image)[0].any()


def test_dropout_stands_after_fc6_and_fc7():
    model = models.fcn_8s(width=1, hidden=2)
    dropped = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert dropped == {"encoder.stages.x4_0.drop6": 0.5, "encoder.stages.x4_0.drop7": 0.5}
    assert len([m for m in models.wide_unet(width=2).modules() if isinstance(m, nn.Dropout)]) == 18


# ---- the row


def test_the_row_of_fcn_is_the_unets_diagonal_ended_early():
    whole = topology.unet(5)
    for stop in range(5):
        row = topology.fcn(5, stop)
        assert row.reads == {node: reads for node, reads in whole.reads.items() if node.level >= stop}
        assert row.outputs == (Node(stop, 4 - stop),)
        assert row.depth == 5
    assert topology.fcn(5, 0) == whole


@pytest.mark.parametrize("stop", [-1, 3])
def test_a_row_cannot_stop_where_there_is_no_level(stop):
    with pytest.raises(TopologyError, match=f"an FCN of 3 levels stops at level 0 to 2, not at {stop}"):
        models.fcn(width=2, depth=3, stop=stop)


def test_the_light_fcn_stops_two_levels_above_the_deepest_unless_told():
    stops = {depth: models.fcn(width=1, depth=depth).topology.outputs[0].level for depth in range(2, 7)}
    assert stops == {2: 0, 3: 0, 4: 1, 5: 2, 6: 3}


def test_sums_of_scores_have_no_convolution_after_them():
    model = models.fcn(width=2, depth=4, stop=0)
    assert all(isinstance(node.body, nn.Identity) for node in model.nodes.values())
    assert list(model.heads["x0_3"].state_dict()) == []


# ---- refusals


def test_a_size_that_fcn_cannot_take_is_refused_with_the_nearest_ones():
    model = models.fcn_8s(width=1, hidden=1)
    with pytest.raises(
        ShapeError, match=r"a side of 224: level 0 is 211 pixels, .*Nearest sides: 218, 250\."
    ):
        model(torch.zeros(1, 3, 224, 26))
    with pytest.raises(ShapeError, match="the smallest side is 26"):
        model(torch.zeros(1, 3, 10, 26))


def test_pools_of_another_depth_are_refused():
    with pytest.raises(ValueError, match="pools needs 2 factors of 3 axes at depth 3"):
        models.unet_3d_2016(width=1, depth=3, pools=[(1, 2, 2)])
    with pytest.raises(ValueError, match="up cannot be 'transposed'; choose one of bilinear, nearest"):
        models.fcn(width=1, up="transposed")


def test_a_branch_that_shifts_by_half_a_pixel_is_refused():
    """A factor of 3 makes a map three pixels larger than what it covers, which two sides cannot share."""
    reads = [Read("x0_0", 2, (1,) * 2, (0, 0)), Read("x1_0", 2, (3,) * 2, (0, 0))]
    with pytest.raises(ShapeError, match="cannot be split evenly"):
        score_node(reads, {"x0_0", "x1_0"}, 2, Style(), lambda factor: overlapping(factor, 2))


@pytest.mark.parametrize(("padding", "grid"), [(2, True), (3, False)])
def test_an_output_larger_than_the_image_is_cropped_when_both_sides_can_share(padding, grid):
    def network(last):
        stage = nn.Sequential(nn.Conv2d(1, 2, 3, padding=padding), last)
        encoder = PlainEncoder(1, {"x0_0": stage}, [2], [(1, 1)])
        table = topology.Topology({}, (Node(0, 0),))
        style = Style()
        return SkipGraph(
            table,
            encoder,
            None,
            lambda node, width, stride: ScoreHead(width, 1, style, score=True, resample=None),
            name="padded",
        )

    last = nn.Identity() if grid else nn.Conv2d(2, 2, 2)
    if not grid:
        with pytest.raises(ShapeError, match="the output x0_0 is not on the grid of the input"):
            network(last)
        return
    model = network(last)
    image = torch.randn(1, 1, 5, 9)
    assert model(image)[0].shape == image.shape
    assert torch.equal(model(image)[0], model.heads["x0_0"](model.encoder(image)[0])[..., 1:-1, 1:-1])


def test_a_copy_keeps_the_fixed_kernels_and_precision_changes_them_too():
    model = build("fcn_8s", {"width": 2, "hidden": 4})
    assert all(value.dtype == torch.double for value in fixed(deepcopy(model).double()).values())
    assert deepcopy(model).state_dict().keys() == model.state_dict().keys()
