"""Every loss by name under the rules that hold for all: gradients, ignored pixels, weights, extremes."""

import math
from pathlib import Path

import pytest
import torch

from skipway.losses import IGNORE, LOSSES, centre, cross_entropy, presence, supervised

NAMES = [name for name in LOSSES if not name.startswith("weighted-")]  # those share their functions
UNWEIGHTED = {"dice", "dice-per-image", "vnet-dice", "iou", "tversky", "ms-ssim"}
"""Losses without an entropy term, which refuse weights."""
CASES = ["plain", "ignored", "weights", "empty", "full"]


def example(case, channels, shape=(2, 4, 3), dtype=torch.float64):
    """Logits, target and weights; S is small, so that numeric gradients take milliseconds."""
    generator = torch.Generator().manual_seed(7)
    batch, *size = shape
    logits = torch.randn(batch, channels, *size, dtype=dtype, generator=generator)
    target = torch.randint(0, max(channels, 2), shape, generator=generator)
    weights = None
    if case == "ignored":
        target[0, 0] = IGNORE
    if case == "weights":
        weights = torch.rand(shape, dtype=dtype, generator=generator) * 5
    if case in ("empty", "full"):
        target.fill_(0 if case == "empty" else max(channels, 2) - 1)
    return logits, target, weights


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name, case, channels):
    logits, target, weights = example(case, channels)
    if weights is not None and name in UNWEIGHTED:
        with pytest.raises(ValueError, match="takes no weights"):
            LOSSES[name].function(logits, target, weights)
        return
    loss = LOSSES[name].function
    assert torch.autograd.gradcheck(lambda z: loss(z, target, weights), logits.requires_grad_())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_three_dimensions(name, channels):
    logits, target, _ = example("ignored", channels, shape=(1, 3, 2, 3))
    loss = LOSSES[name].function
    assert torch.autograd.gradcheck(lambda z: loss(z, target, None), logits.requires_grad_())


def test_gradient_of_ms_ssim_over_two_scales():
    logits, target, _ = example("plain", 1, shape=(1, 24, 22))
    loss = LOSSES["ms-ssim"].function
    assert torch.autograd.gradcheck(
        lambda z: loss(z, target, None), (3 * logits).requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("shape", [(2, 9), (2, 24, 26), (1, 12, 13, 11)])
@pytest.mark.parametrize("name", NAMES)
def test_one_channel_is_two_with_a_zero(name, shape):
    z, target, _ = example("ignored", 1, shape)
    loss = LOSSES[name].function
    two = loss(torch.cat([torch.zeros_like(z), z], 1), target, None)
    assert loss(z, target, None).item() == pytest.approx(two.item(), rel=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_ignored_pixels_change_nothing_and_get_no_gradient(name, channels):
    logits, target, _ = example("ignored", channels, shape=(2, 24, 23))
    loss = LOSSES[name].function
    other = logits.masked_fill((target == IGNORE).unsqueeze(1), 123.0).requires_grad_()
    value = loss(other, target, None)
    assert value.item() == loss(logits, target, None).item()
    value.backward()
    assert other.grad[0, :, 0].abs().max() == 0
    assert other.grad.abs().max() > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ms-ssim", "unet3+")])
def test_an_ignored_pixel_is_one_that_is_not_there(name):
    logits, target, _ = example("plain", 3, shape=(1, 8))
    loss = LOSSES[name].function
    padded = torch.cat([logits, 50 * torch.ones(1, 3, 5, dtype=logits.dtype)], 2)
    ignored = torch.cat([target, torch.full((1, 5), IGNORE)], 1)
    assert loss(padded, ignored, None).item() == pytest.approx(loss(logits, target, None).item(), rel=1e-14)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNWEIGHTED])
def test_weights_of_ignored_pixels_change_nothing(name):
    logits, target, _ = example("ignored", 3)
    weights = torch.where(target == IGNORE, 9.0, 1.0).double()
    loss = LOSSES[name].function
    assert loss(logits, target, weights).item() == pytest.approx(loss(logits, target, None).item(), rel=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_one_channel_knows_class_1_and_the_rest(name):
    z, target, _ = example("plain", 1)
    loss = LOSSES[name].function
    assert loss(z, torch.where(target == 0, 2, target), None).item() == loss(z, target, None).item()


@pytest.mark.parametrize("name", ["dice", "tversky", "transunet", "unet++-code", "ce-dice"])
def test_region_sums_over_the_batch_are_not_the_mean_of_its_images(name):
    assert abs(batch_minus_images(name)) > 1e-3


@pytest.mark.parametrize("name", ["dice-per-image", "vnet-dice", "iou", "ms-ssim", "unet++", "unet3+", "ce"])
def test_region_sums_per_image_are_the_mean_of_the_images(name):
    assert abs(batch_minus_images(name)) < 1e-14


def batch_minus_images(name):
    logits, target, _ = example("plain", 3)
    target[0] = target[0].clamp_max(1)  # an image without the last class
    loss = LOSSES[name].function
    images = [loss(z[None], t[None], None) for z, t in zip(logits, target, strict=True)]
    return (loss(logits, target, None) - sum(images) / len(images)).item()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNWEIGHTED])
def test_weights_of_one_change_nothing_and_others_do(name):
    logits, target, weights = example("weights", 3)
    loss = LOSSES[name].function
    plain = loss(logits, target, None).item()
    assert loss(logits, target, torch.ones_like(weights)).item() == pytest.approx(plain, rel=1e-14)
    assert loss(logits, target, 7 * weights).item() == pytest.approx(
        loss(logits, target, weights).item(), rel=1e-14
    )
    assert abs(loss(logits, target, weights).item() - plain) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_no_logits_and_no_target_give_a_value_that_is_not_finite(name, channels, dtype):
    loss = LOSSES[name].function
    shape = (2, 23, 4)
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (2, channels, 23, 4), generator=generator) * 2.0 - 1
    targets = [torch.full(shape, value) for value in (0, max(channels, 2) - 1, IGNORE)]
    targets.append(torch.randint(0, max(channels, 2), shape, generator=generator))
    targets.append(torch.where(torch.arange(2).view(2, 1, 1) == 0, IGNORE, targets[-1]))
    for target in targets:
        for scale in (0.0, 1.0, 30.0, 1e4):
            logits = (signs * scale).to(dtype).requires_grad_()
            value = loss(logits, target, None)
            value.backward()
            assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert math.isfinite(value.item())
            assert torch.isfinite(logits.grad).all()
            if (target == IGNORE).all():
                assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_right_class_everywhere_is_the_least_loss(name):
    _, target, _ = example("plain", 3, shape=(2, 24, 24))
    right = 40 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    loss = LOSSES[name].function
    least = -1 if name.startswith("unet++") else 0
    assert loss(right, target, None).item() == pytest.approx(least, abs=1e-5)
    assert loss(0 * right, target, None).item() > least + 0.05
    assert loss(-right, target, None).item() > loss(0 * right, target, None).item()


@pytest.mark.parametrize("name", NAMES)
def test_values_repeat_to_the_bit(name):
    logits, target, _ = example("ignored", 3, shape=(2, 30, 31), dtype=torch.float32)
    loss = LOSSES[name].function
    assert loss(logits, target, None).item() == loss(logits.clone(), target, None).item()


def test_every_loss_stands_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()
    assert [name for name in LOSSES if f"`{name}`" not in page] == []


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 4\) and \(1, 4, 4\)"):
        cross_entropy(torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))


# deep supervision ---------------------------------------------------------------------------------------


def parts(n=3):
    generator = torch.Generator().manual_seed(3)
    outputs = tuple(torch.randn(2, 2, 6, 5, dtype=torch.float64, generator=generator) for _ in range(n))
    return outputs, torch.randint(0, 2, (2, 6, 5), generator=generator)


@pytest.mark.parametrize(
    ("eta", "shares"),
    [("equal", (1 / 3, 1 / 3, 1 / 3)), ("halving", (1 / 7, 2 / 7, 4 / 7)), ("last", (0.0, 0.0, 1.0))],
)
def test_supervision_weighs_the_outputs_by_its_rule(eta, shares):
    outputs, target = parts()
    alone = [cross_entropy(logits, target).item() for logits in outputs]
    found = supervised(cross_entropy, outputs, target, None, eta=eta)
    assert found.item() == pytest.approx(sum(s * a for s, a in zip(shares, alone, strict=True)), rel=1e-14)
    assert found.dtype == torch.float64


def test_an_output_without_a_share_costs_nothing_and_learns_nothing():
    outputs, target = parts(2)
    first = (outputs[0] * math.nan).requires_grad_()
    last = outputs[1].clone().requires_grad_()
    supervised(cross_entropy, (first, last), target, None, eta="last").backward()
    assert first.grad is None
    assert torch.isfinite(last.grad).all()


def test_an_unknown_rule_is_refused_with_those_that_are_known():
    outputs, target = parts()
    with pytest.raises(ValueError, match="eta cannot be 'half'; choose one of equal, halving, last"):
        supervised(cross_entropy, outputs, target, None, eta="half")


def test_presence_logits_are_asked_whether_there_is_foreground():
    outputs, target = parts(2)
    target[1] = 0
    sure = torch.tensor([[0.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    plain = supervised(cross_entropy, outputs, target, None)
    found = supervised(cross_entropy, (sure, *outputs), target, None)
    asked = torch.nn.functional.cross_entropy(sure, torch.tensor([1, 0]))
    assert found.item() == pytest.approx((plain + asked).item(), rel=1e-14)


def test_presence_counts_what_the_network_calls_foreground():
    target = torch.tensor([[0, 2], [0, 1], [0, 0], [IGNORE, 0], [IGNORE, IGNORE]])
    assert presence(target, 3).tolist() == [1, 1, 0, IGNORE, IGNORE]
    assert presence(target, 1).tolist() == [0, 1, 0, IGNORE, IGNORE]


def test_presence_is_that_of_the_pixels_that_the_network_decides():
    target = torch.tensor([[1, 0, 0, 1]])  # foreground in the margin alone
    logits, sure = torch.zeros(1, 2, 2), torch.tensor([[30.0, -30.0]])
    assert centre(target, (2,)).max() == 0
    found = supervised(cross_entropy, (sure, logits), target, None)
    assert found.item() == pytest.approx(math.log(2), abs=1e-6)
