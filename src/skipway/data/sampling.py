"""Batches as a pure function of (seed, k): which image, where in it, how augmented.

All randomness comes from Philox, a generator that is keyed rather than stepped: the 128-bit key holds the
seed and a number, the top word of the counter says what the draw is for.

| what             | key       | top counter word |
|------------------|-----------|------------------|
| order of epoch e | (seed, e) | 0                |
| sample g         | (seed, g) | 1                |

Sample g is number g mod n of epoch g // n, and batch k holds the samples k·B … k·B + B − 1. So no state is
kept, no global generator is touched, and batches may be made in any order, in any thread, process or machine.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipway.data.augment import Augmentation, apply, draw

T = TypeVar("T")

_ORDER, _SAMPLE = 0, 1
_LOOKS = 64  # random looks for a pixel of the wanted kind before the whole mask is searched


@dataclass(frozen=True)
class Sample:
    """One image and what is to be learned from it; arrays may be memory maps, only windows of them are read.

    Attributes:
        image: Normalised values of shape (C, *S), float32.
        target: Class indices of shape (*S), any integer type; the plan's `ignore` where unknown.
        weights: Loss weights of shape (*S), float32, or None.
    """

    image: NDArray[np.float32]
    target: NDArray[np.integer]
    weights: NDArray[np.float32] | None = None


class Samples(Protocol):
    """Any indexed collection of samples; `__getitem__` must give the same sample each time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class BatchPlan:
    """Everything a batch depends on besides the data and k.

    Attributes:
        seed: From 0 to 2^64 − 1.
        batch_size: Patches a batch.
        patch: Size of the input patch, one number an axis; may exceed an image, which is then mirrored.
        augmentation: Ranges to draw from.
        n: Number of samples in the collection.
        margin: Pixels by which the target is smaller than the patch on each side (valid networks); empty: 0.
        foreground: Share of the patches whose target is centred near a random foreground pixel (class
            above 0).
        ignore: Target value that is not learned from.
    """

    seed: int
    batch_size: int
    patch: tuple[int, ...]
    augmentation: Augmentation
    n: int
    margin: tuple[int, ...] = ()
    foreground: float = 1 / 3
    ignore: int = 255

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed {self.seed} is outside 0..2^64 - 1")
        if self.batch_size < 1 or self.n < 1:
            raise ValueError(f"a batch of {self.batch_size} out of {self.n} samples holds nothing")
        if not 0 <= self.foreground <= 1:
            raise ValueError(f"foreground {self.foreground} is no share; expected 0..1")
        if self.margin and len(self.margin) != len(self.patch):
            raise ValueError(f"margin {self.margin} and patch {self.patch} differ in axes")
        if min(self.target_size) < 1:
            raise ValueError(f"a patch of {self.patch} less {self.margin} a side leaves no target")

    @property
    def target_size(self) -> tuple[int, ...]:
        """Size of the target: the patch less the margin on both sides."""
        margin = self.margin or (0,) * len(self.patch)
        return tuple(p - 2 * m for p, m in zip(self.patch, margin, strict=True))


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        image: Values of shape (B, C, *patch), float32.
        target: Class indices of shape (B, *target_size), int64.
        weights: Loss weights of shape (B, *target_size), float32, or None.
        indices: Number of the sample behind each patch.
    """

    image: Tensor
    target: Tensor
    weights: Tensor | None
    indices: tuple[int, ...]


def make_batch(samples: Samples, plan: BatchPlan, k: int, part: range | None = None) -> Batch:
    """Batch k: the same bytes whenever, wherever and in whatever order it is made.

    Args:
        samples: `plan.n` samples of equal channel count, all with weights or all without.
        plan: What to cut and how to augment.
        k: Number of the batch, from 0.
        part: Which of its patches to make; all by default. Parts put together are the batch.

    Returns:
        The batch, or the part, on the CPU.

    Raises:
        ValueError: `samples` are not the number that the plan was made for, or `k` is negative.
    """
    if len(samples) != plan.n or k < 0:
        raise ValueError(f"batch {k} of {len(samples)} samples; the plan is for {plan.n} and batches from 0")
    numbers = range(k * plan.batch_size, (k + 1) * plan.batch_size)
    numbers = numbers if part is None else numbers[part.start : part.stop]
    indices = tuple(sample_index(plan, g) for g in numbers)
    patches = [_patch(samples[i], plan, g) for i, g in zip(indices, numbers, strict=True)]
    images, targets, weights = zip(*patches, strict=True)
    present = [w for w in weights if w is not None]
    if present and len(present) < len(weights):
        raise ValueError("some samples have loss weights and some have none; give all or none")
    return Batch(
        torch.stack(images), torch.stack(targets), torch.stack(present) if present else None, indices
    )


def sample_index(plan: BatchPlan, g: int) -> int:
    """Which sample is the g-th one ever drawn: each epoch of n is a permutation of its own."""
    epoch, place = divmod(g, plan.n)
    return int(generator(plan.seed, epoch, _ORDER).permutation(plan.n)[place])


def generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Philox with key (seed, number) and `purpose` as the top counter word."""
    key = np.array([seed, number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)))


def choose_origin(target: NDArray[np.integer], plan: BatchPlan, rng: np.random.Generator) -> tuple[int, ...]:
    """First pixel of the target window: anywhere in the image, or around a pixel of the wanted kind.

    The window stays inside the image where it fits, and contains the image where it is larger. A window
    without any labelled pixel is moved to one.
    """
    size = plan.target_size
    low = [min(0, n - t) for n, t in zip(target.shape, size, strict=True)]
    high = [max(0, n - t) for n, t in zip(target.shape, size, strict=True)]
    origin = tuple(int(v) for v in rng.integers(low, high, endpoint=True))
    pixel = None
    if rng.random() < plan.foreground:
        pixel = _find(target, lambda v: (v > 0) & (v != plan.ignore), rng)
    if pixel is None:
        inside = tuple(slice(max(0, o), o + t) for o, t in zip(origin, size, strict=True))
        if (np.asarray(target[inside]) == plan.ignore).all():
            pixel = _find(target, lambda v: v != plan.ignore, rng)
    if pixel is None:
        return origin
    around = (p - t // 2 for p, t in zip(pixel, size, strict=True))
    return tuple(min(max(a, lo), hi) for a, lo, hi in zip(around, low, high, strict=True))


def prefetch(make: Callable[[int], T], start: int, count: int, threads: int = 1) -> Generator[T]:
    """make(start), make(start + 1), …, in this order, made ahead of time in background threads.

    At most `threads` + 1 results wait at any time. An error in `make` is raised where its result was due.
    Closing the iterator (leaving the loop) stops the threads after the result they are at.

    Args:
        make: Function of the number alone, safe to call from several threads.
        start: First number.
        count: How many.
        threads: Background threads; 0 makes each result when it is asked for.

    >>> list(prefetch(lambda k: k * k, 3, 4, threads=2))
    [9, 16, 25, 36]
    """
    if threads == 0:
        yield from map(make, range(start, start + count))
        return
    with ThreadPoolExecutor(threads, "prefetch") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for k in range(start, start + count):
                waiting.append(pool.submit(make, k))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _patch(sample: Sample, plan: BatchPlan, g: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Patch g of all: its own generator draws the place first, then the augmentation."""
    rng = generator(plan.seed, g, _SAMPLE)
    origin = choose_origin(sample.target, plan, rng)
    centre = [o + (t - 1) / 2 for o, t in zip(origin, plan.target_size, strict=True)]
    params = draw(plan.augmentation, plan.patch, rng, centre=centre)
    image, target, weights = apply(params, sample.image, sample.target, sample.weights, plan.patch)
    margin = plan.margin or (0,) * len(plan.patch)
    inner = tuple(slice(m, p - m) for m, p in zip(margin, plan.patch, strict=True))
    return image, target[inner], None if weights is None else weights[inner]


def _find(
    target: NDArray[np.integer],
    wanted: Callable[[NDArray[np.integer]], NDArray[np.bool_]],
    rng: np.random.Generator,
) -> tuple[int, ...] | None:
    """A pixel drawn evenly from the wanted ones, or None where there is none.

    A few random looks usually find one (the first hit is an even draw); only if they fail is all of it
    searched.
    """
    looks = tuple(rng.integers(0, n, _LOOKS) for n in target.shape)
    hits = np.flatnonzero(wanted(np.asarray(target[looks])))
    if len(hits):
        return tuple(int(axis[hits[0]]) for axis in looks)
    pixels = np.flatnonzero(wanted(np.asarray(target)))
    if not len(pixels):
        return None
    return tuple(int(i) for i in np.unravel_index(pixels[rng.integers(len(pixels))], target.shape))
