import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from skipway.data.augment import NONE, Augmentation
from skipway.data.sampling import (
    BatchPlan,
    Sample,
    choose_origin,
    generator,
    make_batch,
    prefetch,
    sample_index,
)


def samples(n=7, size=(40, 50), weights=True, seed=0):
    rng = np.random.default_rng(seed)

    def one(number):
        target = rng.integers(0, 3, size)
        image = rng.random((1, *size), np.float32) + number
        return Sample(image, target, rng.random(size, np.float32) if weights else None)

    return [one(i) for i in range(n)]


def plan(**change):
    return BatchPlan(
        **{"seed": 11, "batch_size": 3, "patch": (24, 32), "augmentation": Augmentation(), "n": 7} | change
    )


def bits(batch):
    parts = (batch.image, batch.target, batch.weights)
    return b"".join(p.numpy().tobytes() for p in parts if p is not None) + repr(batch.indices).encode()


def test_batch_is_a_function_of_seed_and_number_alone():
    data = samples()
    forwards = [bits(make_batch(data, plan(), k)) for k in range(6)]
    np.random.seed(1)  # noqa: NPY002  the global generators must neither matter nor move
    torch.manual_seed(5)
    before = (np.random.get_state()[1].tobytes(), torch.get_rng_state())  # noqa: NPY002
    backwards = [bits(make_batch(data, plan(), k)) for k in reversed(range(6))]
    assert backwards[::-1] == forwards
    assert np.random.get_state()[1].tobytes() == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    assert len(set(forwards)) == 6
    assert bits(make_batch(data, plan(seed=12), 0)) != forwards[0]


def test_another_process_and_threads_make_the_same_bytes():
    code = (
        "import sys; sys.path.insert(0, 'tests/unit'); import hashlib, test_sampling as t;"
        "print(hashlib.sha256(t.bits(t.make_batch(t.samples(), t.plan(), 4))).hexdigest())"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import hashlib

    data = samples()
    for threads in (0, 1, 4):
        made = list(prefetch(lambda k: bits(make_batch(data, plan(), k)), 2, 4, threads))
        assert hashlib.sha256(made[2]).hexdigest() == child.stdout.strip()


def test_every_image_once_an_epoch_in_an_order_of_its_own():
    drawn = [i for k in range(14) for i in make_batch(samples(), plan(), k).indices]
    epochs = [tuple(drawn[e * 7 : e * 7 + 7]) for e in range(6)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) > 4
    assert [sample_index(plan(), g) for g in range(42)] == drawn


def test_the_same_image_is_augmented_differently_each_epoch_and_each_seed():
    data = samples(1)
    seen = {bits(make_batch(data, plan(n=1, batch_size=1, seed=s), k)) for k in range(20) for s in range(3)}
    assert len(seen) == 60


def test_streams_of_the_generator_differ():
    draws = {
        generator(*key).integers(2**63)
        for key in [(1, 2, 0), (2, 1, 0), (1, 2, 1), (1, 3, 0), (2**64 - 1, 0, 0)]
    }
    assert len(draws) == 5


def test_without_augmentation_a_patch_is_a_piece_of_its_image():
    data = samples()
    batch = make_batch(data, plan(augmentation=NONE, foreground=0.5), 3)
    for image, target, weights, index in zip(
        batch.image, batch.target, batch.weights, batch.indices, strict=True
    ):
        windows = np.lib.stride_tricks.sliding_window_view(data[index].image[0], (24, 32))
        places = np.argwhere((windows == image[0].numpy()).all((2, 3)))
        assert len(places) == 1
        y, x = places[0]
        np.testing.assert_array_equal(target, data[index].target[y : y + 24, x : x + 32])
        np.testing.assert_array_equal(weights, data[index].weights[y : y + 24, x : x + 32])
    assert batch.target.dtype == torch.int64


def test_origins_cover_the_image_and_stay_inside():
    empty, rng = np.zeros((10, 6), np.uint8), np.random.default_rng(0)
    small = plan(patch=(4, 6), foreground=0.5)
    assert {choose_origin(empty, small, rng) for _ in range(300)} == {(y, 0) for y in range(7)}
    large = plan(patch=(13, 6))
    assert {choose_origin(empty, large, rng)[0] for _ in range(200)} == {-3, -2, -1, 0}


def test_share_of_patches_centred_on_foreground():
    target = np.zeros((300, 300), np.uint8)
    target[200, 100], target[50, 50] = 1, 255  # one pixel of foreground in 90,000, one that is ignored
    rng = np.random.default_rng(0)
    wanted = plan(patch=(31, 31), foreground=0.25)
    hits = [choose_origin(target, wanted, rng) == (185, 85) for _ in range(800)]
    assert abs(np.mean(hits) - 0.25) < 0.05
    corner = np.zeros((40, 40), np.uint8)
    corner[0, 39] = 2
    assert choose_origin(corner, plan(patch=(16, 16), foreground=1.0), rng) == (0, 24)


def test_foreground_pixels_are_drawn_evenly_wherever_they_are():
    target = np.zeros((60, 60), np.uint8)
    target[5:10, 5:10], target[40:50, 40:50] = 1, 2
    rng = np.random.default_rng(4)
    chosen = plan(patch=(1, 1), foreground=1.0)
    where = [target[choose_origin(target, chosen, rng)] for _ in range(2000)]
    assert abs(np.mean(np.array(where) == 2) - 0.8) < 0.03
    assert min(where) == 1


def test_a_window_without_labels_is_moved_to_one():
    target = np.full((200, 200), 255, np.uint8)
    target[150, 20] = 0
    rng = np.random.default_rng(1)
    for _ in range(50):
        y, x = choose_origin(target, plan(patch=(21, 21)), rng)
        assert (target[y : y + 21, x : x + 21] != 255).any()
    everywhere_unknown = np.full((30, 30), 255, np.uint8)
    data = [Sample(np.ones((1, 30, 30), np.float32), everywhere_unknown)]
    assert (make_batch(data, plan(n=1, patch=(16, 16)), 0).target == 255).all()


@pytest.mark.parametrize("size", [(40, 50), (9, 70), (1, 1)])
def test_valid_networks_get_a_larger_patch_than_target(size):
    data = samples(2, size)
    wanted = plan(n=2, patch=(44, 36), margin=(12, 8), augmentation=NONE)
    batch = make_batch(data, wanted, 1)
    assert batch.image.shape == (3, 1, 44, 36)
    assert batch.target.shape == batch.weights.shape == (3, *wanted.target_size) == (3, 20, 20)
    same = make_batch([Sample(s.target[None].astype(np.float32), s.target) for s in data], wanted, 1)
    np.testing.assert_array_equal(same.image[:, 0, 12:-12, 8:-8], same.target)


def test_three_dimensions():
    rng = np.random.default_rng(0)
    data = [Sample(rng.random((2, 9, 20, 18), np.float32), rng.integers(0, 2, (9, 20, 18))) for _ in range(2)]
    batch = make_batch(data, plan(n=2, patch=(12, 16, 16)), 0)
    assert batch.image.shape == (3, 2, 12, 16, 16)
    assert batch.weights is None
    assert set(np.unique(batch.target)) <= {0, 1}


def test_prefetch_keeps_order_raises_in_place_and_stops():
    def slow(k):
        time.sleep(0.002 * (k % 3))
        if k == 6:
            raise KeyError("six")
        return k

    got = []
    with pytest.raises(KeyError, match="six"):
        for k in prefetch(slow, 0, 10, threads=3):
            got.append(k)
    assert got == list(range(6))

    made, before = [], threading.active_count()
    for k in prefetch(lambda k: made.append(k) or k, 0, 1000, threads=2):
        if k == 3:
            break
    assert len(made) <= 8
    assert threading.active_count() <= before + 2
    assert list(prefetch(slow, 5, 0)) == []


def test_refuses_what_cannot_be_a_plan():
    with pytest.raises(ValueError, match="seed"):
        plan(seed=-1)
    with pytest.raises(ValueError, match="holds nothing"):
        plan(batch_size=0)
    with pytest.raises(ValueError, match="leaves no target"):
        plan(margin=(12, 3))
    with pytest.raises(ValueError, match="share"):
        plan(foreground=1.5)
    with pytest.raises(ValueError, match="plan is for 7"):
        make_batch(samples(3), plan(), 0)
    mixed = samples(1) + samples(1, weights=False)
    with pytest.raises(ValueError, match="all or none"):
        make_batch(mixed, plan(n=2), 0)
