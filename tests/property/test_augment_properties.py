import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from skipway.data.augment import Augmentation, Params, apply, draw, mirror, positions

SPATIAL = Augmentation(grey_probability=0)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(1, 40), min_size=2, max_size=3),
    st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.uint16]),
)
def test_labels_stay_labels_and_nothing_but_the_image_is_interpolated(seed, size, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 3, 7, 255], size).astype(dtype)
    image = rng.random((1, *size), np.float32)
    weights = np.where(labels == 3, 2, 1).astype(np.float32)
    patch = tuple(int(p) for p in rng.integers(1, 30, len(size)))
    centre = [float(c) for c in rng.uniform(0, size)]
    params = draw(Augmentation(), patch, rng, centre=centre)
    out, moved, weighed = apply(params, image, labels, weights, patch)
    assert set(np.unique(moved)) <= set(np.unique(labels).tolist())
    assert out.shape == (1, *patch)
    assert moved.shape == weighed.shape == patch
    assert np.isfinite(out.numpy()).all()
    assert 1 - 1e-6 < float(weighed.min()) <= float(weighed.max()) < 2 + 1e-6
    assert np.isin(apply(params, image, labels, None, patch)[1].numpy(), labels).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_image_and_labels_move_by_the_same_map(seed):
    """A smooth disc and its mask: where the moved image crosses one half, the moved label changes."""
    rng = np.random.default_rng(seed)
    size = 96
    y, x = np.mgrid[:size, :size]
    cy, cx = rng.uniform(40, 56, 2)
    height = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 14**2))
    labels = (height >= 0.5).astype(np.int64)
    params = draw(SPATIAL, (size, size), rng)
    out, moved, _ = apply(params, height[None].astype(np.float32), labels, None, (size, size))
    at = np.abs(positions(params, (size, size)).double().numpy() + (size - 1) / 2) % (2 * size - 2)
    at = np.minimum(at, 2 * size - 2 - at)  # the image goes on as its mirror image
    ours = out[0].double().numpy()
    truth = np.exp(-((at[0] - cy) ** 2 + (at[1] - cx) ** 2) / (2 * 14**2))
    weight, expected = ours + 1e-9, truth + 1e-9
    drift = np.subtract(ndimage.center_of_mass(weight), ndimage.center_of_mass(expected))
    assert np.abs(drift).max() <= 0.01
    sure = np.abs(ours - 0.5) > 0.75 * 0.61 / 14  # further in height than the nearest pixel is away
    np.testing.assert_array_equal(moved.numpy()[sure], ours[sure] >= 0.5)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1), st.integers(1, 1000))
def test_mirror_stays_inside_and_is_even_about_both_borders(index, n):
    line = np.array(index)
    folded = mirror(line, n)
    assert folded.min() >= 0
    assert folded.max() < n
    np.testing.assert_array_equal(folded, mirror(-line, n))
    np.testing.assert_array_equal(folded, mirror(2 * (n - 1) - line, n))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_flipping_twice_is_the_identity(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.integers(1, 20, rng.integers(2, 4)))
    image, labels = rng.random((2, *size), np.float32), rng.integers(0, 2**40, size)
    flips = Params(flips=tuple(bool(f) for f in rng.random(len(size)) < 0.5))
    once = apply(flips, image, labels, None, size)
    twice = apply(flips, once[0].numpy(), once[1].numpy(), None, size)
    np.testing.assert_array_equal(twice[0].numpy(), image)
    np.testing.assert_array_equal(twice[1].numpy(), labels)
