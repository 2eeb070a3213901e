"""Regions that are made by the workers of a Dask cluster, and kept here.

A task is one region. It is told in plain text and numbers where the run and the image lie, loads both once, and gives
back the packed region with its checksum, which goes into the journal of this process; of an OME-Zarr it writes the
shard itself. So no two workers write one file, a task can be given to any of them any number of times, and one that is
killed costs the region in its hand.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skipway.data.sources import Source
from skipway.errors import EnvironmentFault, Problem, SkipwayError, UsageError, extra
from skipway.images import ImageFile
from skipway.machine import cores
from skipway.predict.certificate import Certificate
from skipway.predict.flow import Clock, Event, Flow, rank
from skipway.predict.journal import packed
from skipway.predict.logits import Outputs
from skipway.predict.making import Making, Quantity
from skipway.predict.predictor import Predictor
from skipway.predict.shards import Shards
from skipway.predict.stream import evaluating
from skipway.regions import Regions

if TYPE_CHECKING:
    from distributed import Client

RETRIES = 3
"""How often a region is tried again whose worker died or failed."""

AHEAD = 3
"""Regions a worker that wait for it."""


@dataclass(frozen=True)
class Recipe:
    """All that a worker has to know to make any region of an image.

    Attributes:
        run: The run folder.
        source: The image.
        regions: Those of one unit.
        outputs: "last" or "mean".
        level: Output of this column instead of the last.
        quantity: What is kept beside the labels.
        calibrated: Whether probabilities are those of the run's temperature.
        device: Kind of device the network runs on.
        tta: Which views the network is shown.
        planes: In how many planes it sees a volume.
        identity: That of the network; a worker that finds another one under `run` says so.
        image: Size and time of the image, so that a worker opens it anew when it has changed.
        reviewed: Whether to keep what `Review` sees.
        shards: Folder that workers write the labels to; without one they come back with the region.
        threads: Of torch in a worker; None leaves them as they are.
    """

    run: str
    source: Source
    regions: Regions
    outputs: Outputs
    level: int | None
    quantity: Quantity
    calibrated: bool
    device: str
    tta: str | None = None
    planes: int = 1
    identity: str = ""
    image: Any = None
    reviewed: bool = False
    shards: str = ""
    threads: int | None = None

    def to_text(self) -> str:
        """As JSON."""
        plain = {**vars(self), "source": self.source.to_json(), "regions": self.regions.to_json()}
        return json.dumps(plain)

    @classmethod
    def from_text(cls, text: str) -> "Recipe":
        """Out of JSON."""
        plain = json.loads(text)
        parts = {"source": Source.from_json(plain["source"]), "regions": Regions.from_json(plain["regions"])}
        return cls(**{**plain, **parts})


def made_on_cluster(flow: Flow, recipe: Recipe, cluster: str, event: Event) -> Certificate | None:
    """Make the regions that are not there yet.

    Args:
        flow: Whose journal keeps them.
        recipe: The same for the workers.
        cluster: Address of a Dask scheduler, or how many processes are started here.
        event: Told of every region.

    Returns:
        The certificate with the largest difference, made here; None where every region was there.

    Raises:
        EnvironmentFault: Dask is not installed, no scheduler answers, or a region failed on every worker it was given.
    """
    clock = Clock(flow.image.path.name, flow.count, len(flow.journal.done), event)
    makings: dict[int, Making] = {}

    def tasks() -> Iterator[tuple[int, int, list[list[float]]]]:
        for unit in range(len(flow.units)):
            for number in flow.left(unit):
                if unit not in makings:
                    makings[unit] = flow.making(unit)
                yield unit, number, [np.asarray(values).tolist() for values in makings[unit].constants]

    with _client(cluster) as (client, local):
        text = replace(recipe, threads=1 if local else None).to_text()
        for record in _gathered(client, text, tasks()):
            flow.journal.take(record)
            clock.tick()
    with evaluating(flow.predictor.model):
        found = [making.certified(making.witness()) for making in makings.values()]
    return max(found, key=rank, default=None)


def region_of(recipe: str, unit: int, number: int, constants: list[list[float]]) -> bytes:
    """What a worker does: one region, packed for a journal."""
    told, predictor, image = _loaded(recipe)
    offset, scale = (np.asarray(values) for values in constants)
    making = Making.of(
        predictor,
        image,
        predictor.units(image)[unit],
        (offset, scale),
        regions=told.regions,
        outputs=told.outputs,
        quantity=told.quantity,
    )
    with evaluating(making.network):
        ((_, arrays),) = making.made([number], reviewed=told.reviewed)
    number += unit * len(told.regions)
    if told.shards:
        arrays = Shards(Path(told.shards), told.regions, predictor.task.labels).keep(number, arrays)
    return packed(number, arrays)


@lru_cache(maxsize=2)
def _loaded(recipe: str) -> tuple[Recipe, Predictor, ImageFile]:
    """A recipe with its network and its image, open; once a process."""
    import torch

    told = Recipe.from_text(recipe)
    if told.threads is not None:
        torch.set_num_threads(told.threads)
    predictor = Predictor.load(told.run, device=told.device, calibrated=told.calibrated).using(
        told.outputs, told.level
    )
    # Whether the views may be shown was asked where the command was typed.
    predictor = predictor.viewed(told.tta, unseen=True).in_planes(told.planes)
    if told.identity and predictor.identity != told.identity:
        found, fix = "other weights than those of this prediction", "the same run folder on all machines"
        raise EnvironmentFault(Problem(found, told.run, fix=fix))
    image = replace(told.source, colour=predictor.normalisation.colour).open_image()
    return told, predictor, image


def _gathered(client: "Client", recipe: str, tasks: Iterator[tuple[Any, ...]]) -> Iterator[bytes]:
    """Packed regions in the order in which they are ready; only a few tasks a worker are told of at a time."""
    from distributed import KilledWorker, as_completed

    def submitted(count: int) -> list[Any]:
        some = islice(tasks, count)
        return [client.submit(region_of, recipe, *task, retries=RETRIES, pure=False) for task in some]

    workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    running = as_completed(submitted(AHEAD * workers))
    for future in running:
        try:
            record = future.result()
        except KilledWorker as error:
            found = "the workers that were given a region died, one after the other"
            fix = "give them more memory, or a smaller --tile; the same command goes on"
            raise EnvironmentFault(Problem(found, "--cluster", fix=fix)) from error
        except SkipwayError:
            raise
        except Exception as error:  # whatever is wrong over there
            found = (
                f"a worker failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
            fix = "the same skipway, run folder and images on every worker; the same command goes on"
            raise EnvironmentFault(Problem(found, "--cluster", fix=fix)) from error
        future.release()
        for new in submitted(1):
            running.add(new)
        yield record


@contextmanager
def _client(cluster: str) -> Iterator[tuple["Client", bool]]:
    """A connected client, and whether its workers were started here."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        fix = extra("dask")
        raise EnvironmentFault(Problem("Dask is not installed", "--cluster", fix=fix)) from error
    if cluster.isdecimal():
        with (
            LocalCluster(n_workers=int(cluster), threads_per_worker=1, dashboard_address=None) as here,
            Client(here) as client,
        ):
            yield client, True
        return
    try:
        client = Client(cluster, timeout=10)
    except (OSError, ValueError) as error:
        found = f"no Dask scheduler answers at {cluster}: {error}"
        raise EnvironmentFault(
            Problem(found, "--cluster", "an address such as tcp://host:8786, or a number")
        ) from error
    with client:
        yield client, False


def require_workers(cluster: str) -> str:
    """A cluster as it was typed, if it can be one.

    Raises:
        UsageError: it is neither a number of processes nor an address.
    """
    most = 4 * cores()
    if cluster.isdecimal() and not 1 <= int(cluster) <= most:
        raise UsageError(Problem(f"found {cluster}", "--cluster", f"1 to {most} processes"))
    if not cluster.isdecimal() and "://" not in cluster:
        raise UsageError(
            Problem(
                f"found {cluster!r}", "--cluster", "tcp://host:8786, or a number of processes", "--cluster 2"
            )
        )
    return cluster
