"""Losses against numbers of the publications, numbers worked out by hand, and independent programs."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from skipway import losses
from skipway.losses import LOSSES, eta_weights, ms_ssim, soft_dice, soft_iou, soft_tversky

P = torch.tensor([[[0.8, 0.3, 0.6, 0.1]]], dtype=torch.float64)
Y = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]], dtype=torch.float64)
TARGET = Y[:, 0].long()
Z = (P / (1 - P)).log()
"""Logits whose sigmoid is P."""

BCE = 0.299001157
BOTH, ALL_P, ALL_Y = 0.8 + 0.6, 1.8, 2.0

BY_HAND = {
    "ce": BCE,
    "bce": BCE,
    "weighted-ce": BCE,
    "ce-dice": BCE + 1 - 0.791666687,
    "weighted-ce-dice": BCE + 1 - 0.791666687,
    "dice": 1 - 0.791666687,
    "dice-per-image": 1 - 0.791666687,
    "vnet-dice": 1 - 0.903225899,
    "iou": 1 - 0.583333433,
    "unet++-code": -0.642166138,
    # -(1/2 mean(y log p) + 2 sum(y p) / (sum y + sum p))
    "unet++": -((math.log(0.8) + math.log(0.6)) / 4 / 2 + 2 * BOTH / (ALL_Y + ALL_P)),
    # mean over pixels of log p_t + 2 p_t / (1 + p_t^2), p_t = .8, .7, .6, .9
    "unet++-2020": -sum(math.log(p) + 2 * p / (1 + p * p) for p in (0.8, 0.7, 0.6, 0.9)) / 4,
    # alpha_t (1 - p_t)^2 (-log p_t): .25 for foreground, .75 for background
    "focal": (
        0.25 * 0.2**2 * -math.log(0.8)
        + 0.75 * 0.3**2 * -math.log(0.7)
        + 0.25 * 0.4**2 * -math.log(0.6)
        + 0.75 * 0.1**2 * -math.log(0.9)
    )
    / 4,
    # TP 1.4, FP .4, FN .6
    "tversky": 1 - 1.4 / (1.4 + 0.3 * 0.4 + 0.7 * 0.6),
    # squares: foreground 1.10 + 2, background (.2, .7, .4, .9) 1.50 + 2, 1.6 shared
    "transunet": 0.5 * BCE + 0.5 * (1 - ((2.8 + 1e-5) / (3.1 + 1e-5) + (3.2 + 1e-5) / (3.5 + 1e-5)) / 2),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("channels", [1, 2])
def test_losses_have_the_published_values_on_four_pixels(name, channels):
    logits = Z if channels == 1 else torch.cat([torch.zeros_like(Z), Z], 1)
    assert LOSSES[name].function(logits, TARGET, None).item() == pytest.approx(BY_HAND[name], abs=1e-6)


def test_every_loss_has_a_golden_value():
    assert set(LOSSES) - set(BY_HAND) == {"ms-ssim", "unet3+"}  # below, on maps


def test_coefficients_have_the_published_values():
    assert soft_dice(P, Y).item() == pytest.approx(0.791666687, abs=1e-6)
    assert soft_dice(P, Y, smooth=0, squared=True).item() == pytest.approx(0.903225899, abs=1e-6)
    assert soft_iou(P, Y).item() == pytest.approx(0.583333433, abs=1e-6)
    assert soft_tversky(P, Y, alpha=0.5, beta=0.5, smooth=0).item() == pytest.approx(2.8 / 3.8, abs=1e-12)
    assert soft_tversky(P, Y, alpha=1, beta=1).item() == pytest.approx(soft_iou(P, Y).item(), abs=1e-12)


def test_batch_dice_and_dice_per_image_differ_as_written():
    p, y = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    assert soft_dice(p, y).tolist() == [pytest.approx(3 / 4)]
    assert soft_dice(p, y, per_image=True).tolist() == [[1.0], [0.5]]


def test_focal_without_focus_is_cross_entropy():
    plain = losses.focal(Z, TARGET, alpha=None, gamma=0)
    assert plain.item() == pytest.approx(BCE, abs=1e-8)
    assert losses.focal(Z, TARGET, alpha=0.5, gamma=0).item() == pytest.approx(BCE / 2, abs=1e-8)


def test_binary_cross_entropy_of_three_classes_is_each_class_against_the_rest():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])  # pixel by class; truth: 1, 2
    expected = -(np.log(0.3) + np.log(1 - 0.2) + np.log(1 - 0.1) + np.log(0.8)) / 4
    found = losses.binary_cross_entropy(torch.from_numpy(np.log(p.T))[None], torch.tensor([[1, 2]]))
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "n", "shares"),
    [
        ("equal", 1, (1.0,)),
        ("equal", 4, (0.25, 0.25, 0.25, 0.25)),
        ("halving", 1, (1.0,)),
        ("halving", 4, (1 / 15, 2 / 15, 4 / 15, 8 / 15)),
        ("last", 1, (1.0,)),
        ("last", 4, (0.0, 0.0, 0.0, 1.0)),
    ],
)
def test_shares_of_the_outputs(rule, n, shares):
    assert eta_weights(rule, n) == shares


# MS-SSIM ------------------------------------------------------------------------------------------------


def maps(*shape, seed=0):
    """A smooth map and a noisy copy of it, both from 0 to 1."""
    generator = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.linspace(0, 3 * (axis + 1), n) for axis, n in enumerate(shape)), indexing="ij")
    x = 0.5 + 0.5 * np.sin(sum(grids))
    return x, np.clip(0.8 * x + 0.1 + 0.1 * generator.standard_normal(shape), 0, 1)


def tensors(*arrays):
    return [torch.from_numpy(array)[None, None] for array in arrays]


def twin(x, y, scales):
    """MS-SSIM in plain float64 numpy, every window cut out and weighted on its own."""
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = line
    for _ in range(x.ndim - 1):
        window = window[..., None] * line
    window = window / window.sum()
    axes, spatial = tuple(range(-x.ndim, 0)), range(x.ndim)
    result = 1.0
    for scale, weight in enumerate(weights / weights.sum()):
        wx, wy = (np.lib.stride_tricks.sliding_window_view(m, (11,) * x.ndim) for m in (x, y))

        def mean(values, window=window):
            return (values * window).sum(axes)

        ux, uy = mean(wx), mean(wy)
        sx, sy, sxy = mean(wx * wx) - ux * ux, mean(wy * wy) - uy * uy, mean(wx * wy) - ux * uy
        factor = (2 * sxy + 0.0009) / (sx + sy + 0.0009)
        if scale == scales - 1:
            factor = factor * (2 * ux * uy + 0.0001) / (ux**2 + uy**2 + 0.0001)
        result *= factor.mean() ** weight
        for axis in spatial:
            n = x.shape[axis] // 2
            x, y = ((m.take(range(0, 2 * n, 2), axis) + m.take(range(1, 2 * n, 2), axis)) / 2 for m in (x, y))
    return result


@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        *[((21, 30), 1), ((22, 22), 2), ((45, 91), 3), ((88, 120), 4), ((176, 183), 5)],
        *[((13, 17, 12), 1), ((22, 25, 24), 2)],
    ],
)
def test_ms_ssim_equals_a_plain_computation_and_takes_the_scales_that_fit(shape, scales):
    x, y = maps(*shape)
    assert ms_ssim(*tensors(x, y)).item() == pytest.approx(twin(x, y, scales), rel=1e-11)


@pytest.mark.parametrize("shape", [(20, 21), (12, 13, 14)])
def test_one_scale_is_the_ssim_of_scikit_image(shape):
    x, y = maps(*shape)
    theirs = structural_similarity(
        x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ms_ssim(*tensors(x, y)).item() == pytest.approx(theirs, rel=1e-12)


def test_ms_ssim_of_a_side_below_the_window_uses_a_smaller_window():
    x, y = maps(6, 15)  # five pixels fit along the first axis
    windows = [np.exp(-((np.arange(n) - n // 2) ** 2) / 4.5) for n in (5, 11)]
    window = np.outer(*(w / w.sum() for w in windows))
    wx, wy = (np.lib.stride_tricks.sliding_window_view(m, (5, 11)) for m in (x, y))
    ux, uy, uxx, uyy, uxy = ((v * window).sum((-1, -2)) for v in (wx, wy, wx * wx, wy * wy, wx * wy))
    light = (2 * ux * uy + 1e-4) / (ux**2 + uy**2 + 1e-4)
    form = (2 * (uxy - ux * uy) + 9e-4) / (uxx - ux**2 + uyy - uy**2 + 9e-4)
    assert ms_ssim(*tensors(x, y)).item() == pytest.approx((light * form).mean(), rel=1e-12)
    assert ms_ssim(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2)).item() == 1


def test_ms_ssim_is_symmetric_one_for_equal_maps_and_floored_for_opposite_ones():
    x, y = tensors(*maps(48, 50))
    assert ms_ssim(x, x).item() == pytest.approx(1, abs=1e-12)
    assert ms_ssim(x, y).item() == pytest.approx(ms_ssim(y, x).item(), rel=1e-12)
    assert 0 <= ms_ssim(x, 1 - x).item() < 0.01


def test_ms_ssim_loss_is_one_minus_the_mean_over_images_and_classes_off_background():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 24, 25), generator=generator)
    logits = torch.randn(2, 3, 24, 25, dtype=torch.float64, generator=generator)
    logits += torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    p = logits.softmax(1).numpy()
    pairs = [(p[b, k], (target[b] == k).double().numpy()) for b in range(2) for k in (1, 2)]
    expected = 1 - np.mean([twin(x, y, 2) for x, y in pairs])
    assert losses.ms_ssim_loss(logits, target).item() == pytest.approx(expected, rel=1e-10)


def test_loss_of_unet_3_plus_is_the_sum_of_its_three_parts():
    x, y = maps(30, 31)
    logits, target = tensors(np.log((x + 0.01) / (1.01 - x)), (y > 0.5).astype(int))
    parts = [f(logits, target[:, 0]).item() for f in (losses.focal, losses.ms_ssim_loss, losses.iou_loss)]
    assert losses.unet_3_plus_loss(logits, target[:, 0]).item() == pytest.approx(sum(parts), rel=1e-12)
