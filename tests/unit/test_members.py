"""What holds for every member of the family, in the plane and in space."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from members import FLAT, MEMBERS, axes, made, small
from skipway import models
from skipway.models import arguments, build
from skipway.predict.stream import predict_array


def legal(model, wanted):
    return model.geometry.next_legal((wanted,) * model.ndim)


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_a_small_member_answers_with_more_than_a_constant(name, ndim):
    """Or none of the tests below could fail."""
    model = made(name, ndim, torch.float64)
    image = torch.randn(1, 1, *legal(model, 20 if ndim == 3 else 48)).double()
    with torch.inference_mode():
        assert all(float(logits[0, 0].std()) > 1e-3 for logits in model(image) if logits.ndim > 2)


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_the_gradient_reaches_every_parameter(name, ndim):
    options = {"supervised": True} if "supervised" in arguments(name) else {}
    model = made(name, ndim, **options).train()
    image = torch.randn(2, 1, *legal(model, 24 if ndim == 3 else 48))
    sum((logits.float() ** 2).mean() for logits in model(image)).backward()
    untouched = [
        key
        for key, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not bool(p.grad.any()))
    ]
    dead = [key for key in untouched if model.get_parameter(key).grad is None]
    assert not dead
    # A bias in front of a norm has no effect, and a ReLU that nothing passes has no slope: few, never whole parts.
    assert len(untouched) < 0.3 * len(list(model.parameters()))


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_saved_and_loaded_is_equal(name, ndim):
    model, other = made(name, ndim), build(name, in_channels=1, classes=2, **small(name, **axes(name, ndim)))
    other.load_state_dict(model.state_dict())
    image = torch.randn(1, 1, *legal(model, 20))
    with torch.no_grad():
        for ours, theirs in zip(model(image), other.eval()(image), strict=True):
            assert torch.equal(ours, theirs)


SIDES = {2: ((1, 1), (7, 97), (33, 64), (97, 50)), 3: ((1, 1, 1), (5, 17, 30))}


def predicted(model, image, tile):
    """Logits and labels; not the labels alone, which are all of one class in some of the small members."""
    logits = np.full((2, *image.shape[1:]), np.nan)
    found = predict_array(
        model, image, tile=tile, on_logits=lambda region, values: logits.__setitem__((..., *region), values)
    )
    return logits, found.labels


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_every_size_is_predicted_and_tiles_change_nothing(name, ndim):
    model = made(name, ndim, torch.float64)
    for size in SIDES[ndim]:
        image = np.random.default_rng(sum(size)).normal(size=(1, *size))
        (whole, labels), (tiled, again) = (predicted(model, image, tile) for tile in (512, 16))
        assert labels.shape == again.shape == size
        assert np.isfinite(tiled).all()
        if model.geometry.tile_exact:
            assert np.abs(whole - tiled).max() <= 1e-12 * np.abs(whole).max()
            assert np.array_equal(labels, again)


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_bands_give_the_numbers_of_whole_maps(name, ndim):
    model = made(name, ndim, torch.float64)
    image = torch.randn(1, 1, *legal(model, 40 if ndim == 3 else 130)).double()
    with torch.inference_mode():
        for whole, banded in zip(model(image), model.frugal(image, 4), strict=True):
            assert float((whole - banded).abs().max()) <= 1e-12 * float(whole.abs().max())


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_bfloat16_stays_near_single(name, ndim):
    model = made(name, ndim)
    image = torch.rand(1, 1, *legal(model, 24))
    with torch.no_grad():
        exact = model(image)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image)[-1].float()
    bound = 0.3 if name.startswith("r2_") else 0.1  # what runs through the same weights again rounds again
    assert float((rough - exact).square().mean().sqrt()) < bound * float(exact.std())


@pytest.mark.parametrize(("name", "ndim"), MEMBERS)
def test_every_output_can_be_pruned_to_and_keeps_its_bits(name, ndim):
    options = {"supervised": True} if "supervised" in arguments(name) else {}
    model = made(name, ndim, **options)
    image = torch.randn(1, 1, *legal(model, 24))
    with torch.no_grad():
        whole = dict(zip(model.topology.outputs, model(image)[-len(model.topology.outputs) :], strict=True))
        for node, logits in whole.items():
            part = model.pruned(node.column)
            assert torch.equal(part(image)[-1], logits)
            assert part.state_dict().keys() <= model.state_dict().keys()


@pytest.mark.parametrize("name", FLAT)
def test_a_copy_is_a_network_of_its_own(name):
    model = made(name, 3 if arguments(name).get("ndim") == 3 else 2)
    twin = deepcopy(model)
    with torch.no_grad():
        next(p for p in twin.parameters() if p.requires_grad).add_(1)
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_every_builder_is_exported_under_its_name():
    for name, builder in models.BUILDERS.items():
        assert getattr(models, name) is builder
        assert name in models.__all__
