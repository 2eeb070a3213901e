"""Losses against numbers worked out elsewhere, and against their own gradient written out."""

import math

import pytest
import torch

from skipway.losses import (
    IGNORE,
    centre,
    cross_entropy,
    cross_entropy_dice,
    soft_dice,
    soft_dice_loss,
    supervised,
)

P = torch.tensor([[[0.8, 0.3, 0.6, 0.1]]], dtype=torch.float64)
Y = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]], dtype=torch.float64)


def two_class(p):
    """Logits whose softmax gives probability p to class 1."""
    return torch.cat([torch.zeros_like(p), (p / (1 - p)).log()], 1)


def test_cross_entropy_golden():
    # PAPERS' toy vector: BCE .299001157
    loss = cross_entropy(two_class(P), Y[:, 0].long())
    assert loss.item() == pytest.approx(0.299001157, abs=1e-8)


def test_dice_golden():
    assert soft_dice(P, Y).item() == pytest.approx(0.791666687, abs=1e-7)
    assert soft_dice_loss(two_class(P), Y[:, 0].long()).item() == pytest.approx(1 - 0.791666687, abs=1e-7)


def test_default_is_the_sum_of_both():
    logits, target = two_class(P), Y[:, 0].long()
    both = cross_entropy(logits, target) + soft_dice_loss(logits, target)
    assert cross_entropy_dice(logits, target).item() == pytest.approx(both.item(), abs=1e-12)


def test_gradient_of_weighted_cross_entropy_is_weight_times_error():
    logits = two_class(P).clone().requires_grad_()
    target, w = Y[:, 0].long(), torch.tensor([[1.0, 10.0, 0.5, 3.0]], dtype=torch.float64)
    cross_entropy(logits, target, w).backward()
    expected = w * (P[:, 0] - Y[:, 0]) / w.sum()
    torch.testing.assert_close(logits.grad[:, 1], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", [cross_entropy, soft_dice_loss, cross_entropy_dice])
def test_gradcheck(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 3), generator=generator)
    target[0, 0] = IGNORE
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("loss", [cross_entropy, soft_dice_loss])
def test_ignored_pixels_change_nothing(loss):
    logits, target = (
        torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([[0, 1] * 4]),
    )
    padded = torch.cat([logits, 50 * torch.ones(1, 2, 3)], 2)
    ignored = torch.cat([target, torch.full((1, 3), IGNORE)], 1)
    assert loss(padded, ignored).item() == pytest.approx(loss(logits, target).item(), abs=1e-6)


def test_all_ignored_is_zero_with_zero_gradient():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    loss = cross_entropy_dice(logits, torch.full((1, 5), IGNORE))
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad.abs().max() == 0


def test_loss_falls_to_zero_as_the_right_class_wins():
    target = torch.tensor([[0, 1, 1, 0]])
    sure = 40 * torch.stack([1.0 - target, 1.0 * target], 1)
    assert cross_entropy(sure, target).item() < 1e-15
    assert cross_entropy(-sure, target).item() > 30


def test_supervised_averages_outputs_and_crops_the_target():
    target = torch.tensor([[9, 0, 1, 9]])  # the margin holds values no output may see
    logits = torch.tensor([[[3.0, -1.0], [0.0, 2.0]]])
    alone = cross_entropy(logits, target[:, 1:3])
    again = cross_entropy(2 * logits, target[:, 1:3])
    found = supervised(cross_entropy, (logits, 2 * logits), target, None)
    assert found.item() == pytest.approx((alone + again).item() / 2, abs=1e-7)


def test_centre_takes_the_middle():
    assert centre(torch.arange(10)[None], (4,)).tolist() == [[3, 4, 5, 6]]
