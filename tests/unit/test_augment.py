import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from skipway.data.augment import (
    LIMIT,
    NONE,
    Augmentation,
    Params,
    apply,
    cubic_basis,
    draw,
    mirror,
    positions,
    recolour,
)

ELASTIC_ONLY = replace(NONE, elastic=10.0, elastic_probability=1.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(size, channels=1, seed=0):
    """Smooth random values, labels above 2^24, weights."""
    source = rng(seed)
    image = ndimage.gaussian_filter(source.standard_normal((channels, *size)), (0, *[2.0] * len(size)))
    labels = source.integers(2**24, 2**24 + 5, size)
    return image.astype(np.float32), labels, source.random(size, np.float32)


@pytest.mark.parametrize("patch", [(64, 48), (33, 57), (24, 16, 20)])
def test_field_is_the_bicubic_interpolation_of_the_nodes(patch):
    axes = len(patch)
    params = draw(ELASTIC_ONLY, patch, rng(1))
    nodes = torch.tensor(params.displacements, dtype=torch.float64).reshape(axes, *[3] * axes)
    if axes == 2:
        field = F.interpolate(nodes[None], patch, mode="bicubic", align_corners=True)[0]
    else:  # tricubic: the planes first, then along the first axis, by torch's own bicubic
        planes = F.interpolate(nodes.flatten(0, 1)[None], patch[1:], mode="bicubic", align_corners=True)[0]
        lines = planes.reshape(3, 3, -1)
        field = F.interpolate(lines[None], (patch[0], lines.shape[-1]), mode="bicubic", align_corners=True)[0]
        field = field.reshape(3, *patch)
    bases = [cubic_basis(side) for side in patch]
    for axis in range(axes):
        ours = nodes[axis]
        for basis in bases:
            ours = torch.tensordot(ours, basis, ([0], [1]))
        torch.testing.assert_close(ours, field[axis], rtol=0, atol=1e-12)
    grid = torch.stack(
        torch.meshgrid(*[torch.arange(p, dtype=torch.float64) - (p - 1) / 2 for p in patch], indexing="ij")
    )
    torch.testing.assert_close(positions(params, patch).double(), grid + field, rtol=0, atol=3e-5)


def test_displacements_at_the_nodes_are_normal_with_ten_pixels():
    source = rng(7)
    corners, values = [], []
    for _ in range(400):
        params = draw(ELASTIC_ONLY, (257, 257), source)
        moved = positions(params, (257, 257)).numpy()
        corners.append(moved[:, ::128, ::128] - np.mgrid[-128:129:128, -128:129:128])
        values.extend(params.displacements)
    np.testing.assert_allclose(np.ravel(corners), values, atol=1e-4)
    assert abs(np.std(values) - 10) < 0.25
    assert abs(np.mean(values)) < 0.4
    assert abs(np.mean(np.abs(values) < 10) - 0.6827) < 0.02


def test_small_patches_are_held_back_from_folding():
    source = rng(3)
    values = np.array([draw(ELASTIC_ONLY, (65, 65), source).displacements for _ in range(300)])
    assert abs(values.std() / (LIMIT * 32) - 1) < 0.05
    folded = 0
    for row in values:
        field = positions(Params(displacements=tuple(row)), (65, 65))
        (yy, yx), (xy, xx) = (torch.gradient(line) for line in field)
        folded += bool((yy * xx - yx * xy).min() <= 0)
    assert folded <= 5


@pytest.mark.parametrize("size", [(40, 52), (1, 1), (1, 9), (14, 10, 12)])
def test_identity_gives_the_same_bits(size):
    image, labels, weights = picture(size, 2)
    for params in (Params(), draw(NONE, size, rng())):
        out, moved, weighed = apply(params, image, labels, weights, size)
        np.testing.assert_array_equal(out.numpy(), image)
        np.testing.assert_array_equal(moved.numpy(), labels)
        np.testing.assert_array_equal(weighed.numpy(), weights)
        assert out.numpy().flags.c_contiguous
        out.zero_()  # a copy: the sample must survive what is done to the patch
        assert image.any()


@pytest.mark.parametrize("size", [(21, 32), (7, 8, 9)])
def test_flips_are_exact_and_undo_themselves(size):
    image, labels, weights = picture(size)
    for axis in range(len(size)):
        params = Params(flips=tuple(a == axis for a in range(len(size))))
        out, moved, weighed = apply(params, image, labels, weights, size)
        np.testing.assert_array_equal(out.numpy(), np.flip(image, axis + 1))
        np.testing.assert_array_equal(moved.numpy(), np.flip(labels, axis))
        np.testing.assert_array_equal(weighed.numpy(), np.flip(weights, axis))
        again, *_ = apply(params, out.numpy(), moved.numpy(), weighed.numpy(), size)
        np.testing.assert_array_equal(again.numpy(), image)


def test_image_labels_and_weights_move_by_one_map_equal_to_scipy():
    image, labels, weights = picture((90, 110), 2, seed=4)
    params = Params((50.0, 41.5), (True, False), 33.0, 1.2, tuple(rng(1).normal(0, 6, 18).tolist()))
    out, moved, weighed = apply(params, image, labels, weights, (64, 72))
    at = positions(params, (64, 72)).double().numpy() + np.reshape(params.centre, (2, 1, 1))
    for ours, theirs in ((out[0], image[0]), (out[1], image[1]), (weighed, weights)):
        expected = ndimage.map_coordinates(theirs.astype(float), at, order=1, mode="mirror")
        np.testing.assert_allclose(ours.numpy(), expected, atol=2e-4)
    nearest = ndimage.map_coordinates(labels, at, order=0, mode="mirror", output=np.int64)
    undecided = (np.abs(at % 1 - 0.5) < 1e-3).any(0)
    np.testing.assert_array_equal(moved.numpy()[~undecided], nearest[~undecided])


def test_rotation_and_scale_mean_what_they_say():
    image = np.zeros((1, 41, 41), np.float32)
    image[0, 20, 30] = 1  # ten to the right of the centre
    labels = np.zeros((41, 41), int)
    turned, *_ = apply(Params(rotation=90.0), image, labels, None, (41, 41))
    assert np.unravel_index(int(turned[0].argmax()), (41, 41)) == (30, 20)
    larger, *_ = apply(Params(scale=2.0), image, labels, None, (41, 41))
    assert np.unravel_index(int(larger[0].argmax()), (41, 41)) == (20, 40)


def test_flips_come_after_the_rotation():
    image, labels, weights = picture((41, 41))
    both, moved, _ = apply(Params(flips=(True, False), rotation=31.0), image, labels, weights, (25, 25))
    flipped = (np.flip(image, 1), np.flip(labels, 0), np.flip(weights, 0))
    expected, labels_expected, _ = apply(Params(rotation=31.0), *flipped, (25, 25))
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-4)
    assert (moved == labels_expected).float().mean() > 0.99


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (1, 2, 3), (16, 16)])
def test_patch_larger_than_the_image_is_mirrored(size):
    image, labels, weights = picture(size)
    patch = tuple(2 * n + 5 for n in size)
    out, moved, _ = apply(Params(), image, labels, weights, patch)
    pad = [((p - n) // 2, p - n - (p - n) // 2) for p, n in zip(patch, size, strict=True)]
    np.testing.assert_array_equal(out[0].numpy(), np.pad(image[0], pad, "reflect"))
    np.testing.assert_array_equal(moved.numpy(), np.pad(labels, pad, "reflect"))
    turned, labels_turned, _ = apply(Params(rotation=30.0, scale=0.7), image, labels, weights, patch)
    assert bool(torch.isfinite(turned).all())
    assert float(turned.max()) <= image.max() + 1e-6
    assert set(np.unique(labels_turned)) <= set(np.unique(labels))


def test_reads_only_the_window_it_needs():
    class Watched(np.ndarray):
        read = 0

        def __getitem__(self, key):
            found = super().__getitem__(key)
            if isinstance(key, tuple):
                Watched.read += found.size
            return np.asarray(found)

    labels = np.zeros((2000, 2000), np.uint8).view(Watched)
    image = np.zeros((1, 2000, 2000), np.float32)
    apply(Params((1000.0, 900.0), rotation=45.0), image, labels, None, (32, 32))
    assert 0 < Watched.read <= 50**2


def test_draw_is_reproducible_json_and_within_ranges():
    config = Augmentation()
    source = rng(2)
    for _ in range(100):
        params = draw(config, (256, 256), source, centre=(3.0, 4.5))
        assert Params.from_json(json.loads(json.dumps(params.to_json()))) == params
        assert 0.8 <= params.scale <= 1.25
        assert -180 <= params.rotation <= 180
        assert params.gain == 1 or 0.7 <= params.gain <= 1.4
        assert 0 <= params.noise <= 0.05
    assert draw(config, (64, 64), rng(5)) == draw(config, (64, 64), rng(5))
    assert draw(config, (64, 64), rng(5)) != draw(config, (64, 64), rng(6))


def test_grey_values_change_the_image_alone_and_as_stated():
    image, labels, weights = picture((40, 40), 2)
    grey = Params(gain=1.3, offset=-0.2, gamma=0.8, noise=0.05, noise_seed=11, blur=0.9)
    out, moved, weighed = apply(grey, image, labels, weights, (40, 40))
    np.testing.assert_array_equal(moved.numpy(), labels)
    np.testing.assert_array_equal(weighed.numpy(), weights)
    assert not np.array_equal(out.numpy(), image)
    again, *_ = apply(grey, image, labels, weights, (40, 40))
    assert torch.equal(out, again)

    original = torch.from_numpy(image)
    torch.testing.assert_close(
        recolour(Params(gain=2.0, offset=0.5), original.clone()), original * 2 + 0.5, rtol=1e-6, atol=1e-6
    )
    low, high = original.amin((1, 2), keepdim=True), original.amax((1, 2), keepdim=True)
    bent = recolour(Params(gamma=2.0), original.clone())
    torch.testing.assert_close(bent, low + (original - low) ** 2 / (high - low), rtol=1e-4, atol=1e-5)
    blurred = recolour(Params(blur=1.2), original.clone()).numpy()
    expected = [ndimage.gaussian_filter(c.astype(float), 1.2, mode="mirror", radius=4) for c in image]
    np.testing.assert_allclose(blurred, expected, atol=1e-5)
    grain = recolour(Params(noise=0.3, noise_seed=1), torch.zeros(1, 200, 200))
    assert abs(float(grain.std()) - 0.3) < 0.01
    assert torch.equal(recolour(Params(gamma=1.7), torch.full((1, 9, 9), 4.0)), torch.full((1, 9, 9), 4.0))


def test_mirror_equals_numpy_reflect():
    for n in range(1, 6):
        line = np.arange(n)
        np.testing.assert_array_equal(mirror(np.arange(-13, n + 17), n), np.pad(line, (13, 17), "reflect"))


def test_refuses_what_does_not_fit():
    image, labels, weights = picture((8, 8))
    with pytest.raises(ValueError, match="do not fit"):
        apply(Params(), image, labels[:5], weights, (4, 4))
    with pytest.raises(ValueError, match="do not fit"):
        apply(Params(), image, labels, weights, (4, 4, 4))
    with pytest.raises(ValueError, match="cannot cut"):
        apply(Params(), image, labels, weights, (0, 4))
    with pytest.raises(ValueError, match="scale"):
        Augmentation(scale=(2.0, 1.0))
    with pytest.raises(ValueError, match="noise"):
        Augmentation(noise=-1)
    with pytest.raises(ValueError, match="probability"):
        Augmentation(elastic_probability=2)
