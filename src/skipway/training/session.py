"""Connects the loop with data, task and validation."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skipway.data.augment import Augmentation
from skipway.data.layouts import Pair, Volume
from skipway.data.sampling import Batch, BatchPlan, make_batch, prefetch
from skipway.losses import Loss
from skipway.machine import cores
from skipway.metrics.pixel import mean_defined
from skipway.models import build
from skipway.nn.graph import SkipGraph
from skipway.plan import Plan
from skipway.predict.logits import log_odds
from skipway.predict.pixels import by_page
from skipway.predict.predictor import Predictor
from skipway.pretrained import load_pretrained
from skipway.runs import Run
from skipway.training.collapse import Collapse
from skipway.training.dataset import TrainingSet, read_masks
from skipway.training.hooks import Hooks, Validation
from skipway.training.loop import fit
from skipway.training.pace import Reserve
from skipway.training.prepare import Prepared
from skipway.training.ranks import ALONE, Ranks
from skipway.training.reserve import NOTHING, Ending, measure
from skipway.training.skipping import batch_number
from skipway.training.start import started
from skipway.training.state import has_state, seed_all

WATCHED, WATCHED_PIXELS = 12, 2_000_000
"""Validation images, and roughly their pixels, looked at during the training; all of them count at its end."""

READ_AHEAD = 0.1
"""Largest share of a time budget spent on decoding the training images before the first step."""

READERS = 4
"""Threads at most that decode them."""

OnLogits = Callable[[tuple[slice, ...], torch.Tensor], None]
"""Told of the region that a tile decides, and of its logits (K, *region)."""

NEVER = 2**62
"""Number of batches that prefetching may go on for: until the loop leaves."""


def run_training(
    prepared: Prepared,
    run: Run,
    device: torch.device,
    event: Callable[[Mapping[str, Any]], None],
    stopped: Callable[[], bool],
    spent: float = 0.0,
    ending: Ending | None = None,
    *,
    ranks: Ranks = ALONE,
    workers: int = 1,
    provisional: bool = False,
) -> SkipGraph:
    """Train in a run folder, from its start or from where it stands.

    Args:
        prepared: What to train on and how.
        run: The folder.
        device: Where the arithmetic happens.
        event: Told of every step.
        stopped: Asked after every step whether to save and stop.
        spent: Seconds of a time budget that went before.
        ending: What follows the training, whose time a budget has to leave; nothing by default.
        provisional: Whether the weights for prediction stay until somebody has judged the new ones.
        workers: Threads that make batches ahead of time; 0 makes each in the loop. The result is the same.
        ranks: The processes that train together.

    Returns:
        The averaged network.

    Raises:
        Interrupted: a stop was asked for.
        NumericalError: loss or gradient is not finite again and again.
        DataError: an image cannot be read any more.
    """
    plan, task, split = prepared.plan, prepared.task, prepared.split
    seed_all(plan.seed)
    going_on = not ranks.first or has_state(run.path)  # the weights come from the first process, or the file
    model = build(plan.model, **plan.config) if going_on else first_weights(plan, run.path)
    samples = TrainingSet(
        split.train_pairs,
        task,
        prepared.normalisation,
        weighted=plan.weighted,
        ndim=plan.ndim,
        cache_bytes=plan.cache,
    )
    batches = batch_plan(prepared, model, len(samples))
    loss = prepared.loss
    affordable = WATCHED_PIXELS // math.prod(prepared.fingerprint.size(plan.ndim))
    watched = spread(prepared.val_volumes, min(WATCHED, max(2, affordable)))
    watch = _Watch(prepared, watched, device, loss)

    @contextmanager
    def stream(step: int, skipped: Sequence[int]) -> Iterator[Iterator[Batch]]:
        part = ranks.part(plan.batch)

        def make(step: int) -> Batch:
            return make_batch(samples, batches, batch_number(step, skipped), part)

        made = prefetch(make, step, NEVER, workers)
        with closing(made):
            yield made

    hooks = Hooks(
        batches=stream,
        validate=watch,
        reserved=lambda average: watch.reserved(average, ending or NOTHING, judged=provisional),
        names=lambda indices: sorted({samples.name(index) for index in indices}),
        collapse=Collapse(prepared.labels.names, prepared.labels.overlapping, prepared.labels.unknown),
        event=event,
        stopped=stopped,
    )
    if plan.seconds is not None:
        spent += _read_ahead(samples, READ_AHEAD * plan.seconds)
    return fit(plan, model, loss, run, hooks, device, spent=spent, provisional=provisional, ranks=ranks)


def batch_plan(prepared: Prepared, model: SkipGraph, count: int) -> BatchPlan:
    """How batches are cut out of `count` samples for a network."""
    plan = prepared.plan
    return BatchPlan(
        seed=plan.seed,
        batch_size=plan.batch,
        patch=plan.patch,
        augmentation=Augmentation(**plan.augmentation),
        n=count,
        margin=min(model.geometry.margins.values()),
        foreground=plan.foreground_share,
        ignore=prepared.labels.unknown,
    )


def full_score(prepared: Prepared, model: SkipGraph, device: torch.device) -> float | None:
    """Score of a network on all validation images, as the final evaluation has it; nothing is written."""
    predictor = predictor_of(prepared, model, device)
    read = ((pair, decoded) for pair, decoded in predicted_pages(predictor, prepared.val_volumes))
    return mean_defined(prepared.task.score(decoded, read_mask(pair)) for pair, decoded in read)[0]


def first_weights(plan: Plan, folder: Path = Path()) -> SkipGraph:
    """The network of a plan as it starts: drawn weights, trained ones in its backbone, or those of another run.

    Args:
        plan: Says which.
        folder: The run folder, for those of another run.

    Raises:
        SkipwayError: see `skipway.pretrained.load_pretrained`.
    """
    if plan.start is not None:
        return started(plan, folder)
    model = build(plan.model, **plan.config)
    if plan.pretrained is not None:
        load_pretrained(model, plan.pretrained)
    return model


def _read_ahead(samples: TrainingSet, limit: float) -> float:
    """Decode samples for `limit` seconds at most, so that the steps that are measured are like those that follow.

    Returns:
        Seconds it took.
    """
    began = time.perf_counter()

    def read(index: int) -> None:
        if time.perf_counter() - began < limit:
            _ = samples[index]

    with ThreadPoolExecutor(_readers()) as pool:
        for _ in pool.map(read, range(len(samples))):
            pass
    return time.perf_counter() - began


def read_ahead_seconds(alone: float, budget: float | None) -> float:
    """What decoding ahead will take of a time budget, where one thread would take `alone` seconds for all samples."""
    return 0.0 if budget is None else min(READ_AHEAD * budget, alone / _readers())


def _readers() -> int:
    return min(READERS, cores())


class _Watch:
    """Scores some validation images or volumes with the code that predicts."""

    def __init__(
        self, prepared: Prepared, watched: Sequence[Volume], device: torch.device, loss: Loss
    ) -> None:
        self._prepared = prepared
        self._watched = watched
        self._device = device
        self._loss = loss

    def __call__(self, average: SkipGraph) -> Validation:
        predictor = predictor_of(self._prepared, average, self._device)
        found = [self._one(predictor, volume) for volume in self._watched]
        return Validation(
            mean_defined(score for scores, _ in found for score in scores)[0],
            mean_defined(loss for _, loss in found)[0],
        )

    def reserved(self, average: SkipGraph, ending: Ending, *, judged: bool) -> Reserve:
        """What a validation and the ending take, and where the weights are judged before, that too."""
        if judged:
            each = ending.each
            ending = replace(ending, each=lambda *one: (self._one(*one), each(*one)))
        predictor = predictor_of(self._prepared, average, self._device)
        volumes, budget = self._prepared.val_volumes, self._prepared.plan.seconds
        return measure(predictor, volumes, self._watched, self._one, ending, budget)

    def _one(self, predictor: Predictor, volume: Volume) -> tuple[list[float | None], float]:
        """Score of each page, and loss; the loss is that of the training, over the image or volume as a whole."""
        task, mask = self._prepared.task, read_masks(volume, predictor.ndim)
        probabilities = np.empty((predictor.model.classes, *mask.shape), np.float32)

        def keep(region: tuple[slice, ...], values: NDArray[np.float32]) -> None:
            probabilities[:, *region] = values

        with volume.image.open_image() as image:
            found = predictor.predict_pages(image, volume.pages, on_probabilities=keep)
        logits = log_odds(torch.from_numpy(probabilities), overlapping=task.labels.overlapping)[None]
        target = torch.from_numpy(task.target(mask).astype(np.int64))[None]
        weights = torch.from_numpy(task.weights(mask))[None] if self._prepared.plan.weighted else None
        pages = zip(by_page(task.decode(found.labels)), by_page(mask), strict=True)
        return [task.score(*page) for page in pages], self._loss(logits, target, weights).item()


def predictor_of(prepared: Prepared, model: SkipGraph, device: torch.device) -> Predictor:
    """A predictor around the last output of a network that is still being trained."""
    return Predictor(model, prepared.task, prepared.normalisation, device, "this training").using()


def read_mask(pair: Pair) -> NDArray[Any]:
    """The user's mask of a pair, (H, W)."""
    return read_masks(Volume((pair,)), 2)


def predicted_pages(
    predictor: Predictor,
    volumes: Iterable[Volume],
    look: Callable[[Volume, tuple[int, ...]], OnLogits | None] = lambda *_: None,
) -> Iterator[tuple[Pair, NDArray[Any]]]:
    """Each page with what is written for it; a volume is predicted and decoded as one, so objects keep their ids.

    Args:
        predictor: What predicts.
        volumes: Pages or volumes.
        look: Asked for what is to be told of the logits of each, given its size (*S).
    """
    for volume in volumes:
        with volume.image.open_image() as image:
            size = (*((len(volume.pages),) if predictor.ndim == 3 else ()), *image.size)
            found = predictor.predict_pages(image, volume.pages, on_logits=look(volume, size))
        yield from zip(volume.pairs, by_page(predictor.task.decode(found.labels)), strict=True)


def spread(volumes: Sequence[Volume], count: int) -> Sequence[Volume]:
    """At most `count` of the volumes, evenly spaced."""
    if len(volumes) <= count:
        return volumes
    return [volumes[(2 * k + 1) * len(volumes) // (2 * count)] for k in range(count)]
