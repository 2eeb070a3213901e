"""Predicts files into files: one bad file does not stop the others, and nothing that exists is lost."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.labels import LabelMap
from skipway.data.layouts import Reading, find_images
from skipway.data.sources import Source
from skipway.disk import write_json
from skipway.errors import (
    OF_A_FILE,
    EnvironmentFault,
    NumericalError,
    Problem,
    SkipwayError,
    UsageError,
    refusal,
)
from skipway.images import (
    ImageFile,
    open_probabilities,
    shown,
    stem_of,
    write_labels,
)
from skipway.memory import ran_out
from skipway.parts import Part
from skipway.predict.backends import TILES, wants_tiles
from skipway.predict.certificate import Certificate
from skipway.predict.class_files import class_files, write_sets
from skipway.predict.flow import rank
from skipway.predict.known import Trained, noted
from skipway.predict.options import FileOptions
from skipway.predict.pixels import by_page
from skipway.predict.planes import stretched
from skipway.predict.predictor import Predictor
from skipway.predict.review import FILE as REVIEW
from skipway.predict.review import Review, Reviews, Row, said, write_review
from skipway.predict.samples import sampled_files
from skipway.predict.streaming import Made, OnReviews, Streaming, mask_suffix
from skipway.runs import Run
from skipway.tasks.objects import to_objects

Event = Callable[[Mapping[str, Any]], None]

LABELS = "labels.json"
"""Written beside the masks: what their values mean, for `evaluate`."""


@dataclass(frozen=True)
class Summary:
    """What came of a folder.

    Attributes:
        written: The masks, in the order of the images; where classes overlap that of the first class.
        failed: What was wrong with each image that has none.
        certificate: That of the image with the largest difference; None when nothing was predicted.
        trained: How many of the files that were predicted trained the network, whole or some of their pages.
        part: Which part of the regions was made, where no more was asked for and nothing is written.
    """

    written: tuple[Path, ...]
    failed: tuple[SkipwayError, ...]
    certificate: Certificate | None
    trained: int = 0
    part: Part | None = None

    @property
    def error(self) -> SkipwayError:
        """All problems in one error: of the kind of the first, or exit 6 where a file would be unsafe to trust."""
        problems = [problem for error in self.failed for problem in error.problems]
        unsafe = any(problem.unsafe for problem in problems)
        return refusal(*problems) if unsafe else type(self.failed[0])(*problems)

    def __str__(self) -> str:
        """How many, how many of them are not new, and the certificate."""
        total = len(self.written) + len(self.failed)
        lines = [f"{len(self.written)} of {total} images predicted"]
        if self.part is not None:
            lines = [f"part {self.part} of the regions is made; the command without --part writes the files"]
        if self.trained:
            found = f"{self.trained} of {len(self.written)} images trained this network"
            lines.append(f"{found}: their score says nothing about new ones")
        if self.certificate is not None:
            lines.append(str(self.certificate))
        return "\n".join(lines)


@dataclass(frozen=True)
class _Job:
    """One image and the files that come of it."""

    name: str
    source: Source
    masks: tuple[Path, ...]
    probabilities: Path | None

    @property
    def targets(self) -> tuple[Path, ...]:
        return self.masks if self.probabilities is None else (*self.masks, self.probabilities)


@dataclass
class _Reviewing:
    """Gathers what a person should look at first; a context manager, which writes it where something ends it early.

    Attributes:
        predictor: Knows what the training images look like.
        path: Of the table.
        often: Whether to write it after every image: a command that is killed does not come to its end.
        rows: So far.
    """

    predictor: Predictor
    path: Path
    often: bool
    rows: list[Row] = field(default_factory=list)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.rows:
            write_review(self.path, self.rows)

    def see(self, name: str, trained: Trained, reviews: Reviews) -> None:
        """What saw an image being predicted; nothing where nobody asked."""
        found = [one.row(name, page, trained=trained.has(page)) for page, one in reviews]
        self.rows += found
        if found and self.often:
            write_review(self.path, found)

    def close(self, event: Event) -> None:
        """Write the table, and say what is on top."""
        if self.rows:
            write_review(self.path, self.rows)
            text = said(self.rows, compared=self.predictor.familiar is not None)
            event({"event": "line", "name": "review", "text": f"{text} [{self.path}]"})


def predict_files(
    predictor: Predictor, images: Path, output: Path, options: FileOptions, event: Event
) -> Summary:
    """Predict every image of a folder.

    Args:
        predictor: A loaded run.
        images: Folder, searched deeply, or one file.
        output: Folder for the masks; made where it is missing. Names and sub-folders are those of the images;
            where classes overlap there is a folder for each of them, and its masks are 0 and 255.
        options: See there.
        event: Told of every file.

    Returns:
        What was written and what failed; a file that fails does not stop the others.

    Raises:
        UsageError: the output lies in the input, or a file would be replaced.
        DataError: there is no image.
        EnvironmentFault: the folder cannot be written.
    """
    every = _jobs(images, output, options, predictor.task.labels)
    predictor = _as_asked(predictor, [job.source for job in every], options)
    streaming = Streaming(predictor, output, options, event)
    jobs = [job for job in every if not streaming.has(job.targets, job.source)]
    _require_new([job for job in jobs if not streaming.began(job.masks[0])], output, options)
    if len(jobs) < len(every):
        event({"event": "line", "name": "resume", "text": f"{len(every) - len(jobs)} files are finished"})
    remarks = predictor.remarks
    if options.quantity not in ("", "logits"):
        remarks["calibrated"] = predictor.said(options.outputs)
    for name, text in remarks.items():
        event({"event": "line", "name": name, "text": text})
    _make_folders(jobs)
    meaning = _meaning(predictor.task.labels, options).to_json()
    names = [job.name for job in jobs]
    write_json(output / LABELS, {**meaning, **noted(output / LABELS, names, ())})
    trained = 0
    written: list[Path] = []
    failed: list[SkipwayError] = []
    reviewing = _Reviewing(predictor, output / REVIEW, options.stream.asked)
    worst: Certificate | None = None
    with reviewing:
        for done, job in enumerate(jobs, start=1):
            known = predictor.known.trained(job.source)
            if known.has(None):  # now: a command that is killed does not come to its end
                write_json(output / LABELS, {**meaning, **noted(output / LABELS, (), known.names(job.name))})
            try:
                made = _predict_file(
                    predictor, job, options, streaming, partial(reviewing.see, job.name, known)
                )
            except (*OF_A_FILE, NumericalError) as error:
                failed.append(_naming(error, job.source.path))
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                fix = "a smaller tile, such as --tile 256"
                failed.append(EnvironmentFault(Problem("not enough memory", str(job.source), fix=fix)))
            else:
                worst = max((c for c in (worst, made.certificate) if c is not None), key=rank, default=None)
                if made.mask is None:
                    continue
                written.append(made.mask)
                trained += known.has(None)
                event(
                    {
                        "event": "file",
                        "name": job.source.path.name,
                        "written": str(made.mask),
                        "done": done,
                        "of": len(jobs),
                    }
                )
                continue
            event({"event": "warning", "text": str(failed[-1])})
    reviewing.close(event)
    if not failed and options.stream.part is None:
        streaming.close([job.masks[0] for job in every])
    summary = Summary(tuple(written), tuple(failed), worst, trained, options.stream.part)
    counts = {"written": len(written), "failed": len(failed), "trained": trained}
    event({"event": "finished", **counts, "certificate": str(worst or "")})
    return summary


def _as_asked(predictor: Predictor, sources: list[Source], options: FileOptions) -> Predictor:
    """The predictor with outputs, backend and views as they are asked for; measured on the images where it must be."""
    predictor = predictor.using(options.outputs, options.level)
    backend, precision = options.backend, options.precision
    wanted = wants_tiles(backend, precision) and precision in TILES
    tiles = sampled_files(predictor, sources, TILES[precision]) if wanted else []
    predictor = predictor.running(backend, precision, tiles=tiles).viewed(options.tta, unseen=options.unseen)
    predictor = predictor.in_planes(options.planes)
    return predictor.of_whole_image() if options.whole_norms else predictor


def _meaning(labels: LabelMap, options: FileOptions) -> LabelMap:
    """What the values of the masks that are written mean."""
    if not options.objects or labels.task == "objects":
        return labels
    return LabelMap("objects", (labels.values[0], 1), ("background", "object"), ignore=labels.ignore)


def _naming(error: SkipwayError, source: Path) -> SkipwayError:
    """The error, with the file in it."""
    if all(source.name in problem.where for problem in error.problems):
        return error
    return type(error)(*(Problem(str(problem), shown(source)) for problem in error.problems))


def _jobs(images: Path, output: Path, options: FileOptions, labels: LabelMap) -> list[_Job]:
    """Every image with the files that come of it; nothing of the user's is among them.

    Raises:
        UsageError: two images would be written to one file, the output is a run, or objects were asked for where
            classes overlap.
    """
    if options.objects and labels.overlapping:
        found, fix = (
            "the classes of this run overlap",
            "leave it out; connected regions can be told from the masks",
        )
        raise UsageError(Problem(found, "--objects", fix=fix))
    if images.is_dir() and output.resolve().is_relative_to(images.resolve()):
        found = "the output lies inside the input"
        raise UsageError(Problem(found, str(output), fix="give a folder beside it with -o"))
    if Run(output).exists:
        found = "the output is a run folder, whose files would be replaced"
        raise UsageError(
            Problem(found, str(output), fix=f"give a folder of its own with -o, such as {output}/out")
        )
    jobs = []
    for name, source in find_images(images, Reading(layout=options.layout)):
        file = Path(f"{name}{mask_suffix(source.path, options.stream)}")
        masks = class_files(output, file, labels.names) if labels.overlapping else (output / file,)
        what = "logits" if options.quantity == "logits" else "probabilities"
        probable = output / file.with_name(f"{stem_of(file)}_{what}.tif")
        jobs.append(_Job(name, source, masks, probable if options.quantity else None))
    sources = {file.resolve() for job in jobs for file in job.source.files}
    owner: dict[Path, Source] = {}
    for job in jobs:
        for target in job.targets:
            if target.resolve() in sources:
                raise UsageError(
                    Problem("would replace the image itself", shown(target), fix="another folder with -o")
                )
            if target in owner:
                found = f"{owner[target].path.name} and {job.source.path.name} would both be written there"
                raise UsageError(
                    Problem(found, shown(target), fix="predict them in two calls, or rename one")
                )
            owner[target] = job.source
    return jobs


def _require_new(jobs: list[_Job], output: Path, options: FileOptions) -> None:
    """Refuse to replace files.

    Raises:
        UsageError: one would be.
    """
    there = [target for job in jobs for target in job.targets if target.exists()]
    if there and not options.overwrite:
        found = f"{len(there)} of the files to write exist already, the first {there[0].name}"
        raise UsageError(Problem(found, str(output), fix="--overwrite, or another folder with -o"))


def _make_folders(jobs: list[_Job]) -> None:
    try:
        for target in (target for job in jobs for target in job.targets):
            target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = str(target.parent)
        raise EnvironmentFault(Problem(f"cannot make the folder: {error.strerror}", where)) from error


def _predict_file(
    predictor: Predictor, job: _Job, options: FileOptions, streaming: Streaming, reviewed: OnReviews
) -> Made:
    """All pages of one file; `reviewed` is given what saw them."""
    reviews: list[tuple[int | None, Review]] = []
    pages: list[NDArray[Any]] = []
    certificates = []
    with ExitStack() as stack:
        source = replace(job.source, colour=predictor.normalisation.colour)
        image = stack.enter_context(source.open_image())
        predictor.check(image)
        if predictor.planes > 1 and (text := stretched(image.geometry)):
            streaming.event({"event": "warning", "text": f"{image.path.name}: {text}"})
        if streaming.takes(image, job.masks[0]):
            return streaming.predict(image, job.source, job.masks, job.probabilities, reviewed)
        maps = None
        if job.probabilities is not None:
            shape = _shape(predictor, image)
            writer = open_probabilities(job.probabilities, shape, geometry=image.geometry)
            maps = stack.enter_context(writer)
        units = predictor.units(image)
        for unit in units:
            review = predictor.review(options.outputs) if options.review else None
            if review is not None:
                reviews.append((unit.start if len(units) > 1 else None, review))
            into = None if maps is None else _part(maps, unit, predictor.ndim)
            found = predictor.predict_pages(
                image,
                unit,
                tile=options.tile,
                outputs=options.outputs,
                review=review,
                engine=options.engine,
                on_probabilities=_into(into),
            )
            pages.extend(by_page(_decode(predictor, found.labels, options)))
            certificates.append(found.certificate)
    palette = None if options.objects else predictor.task.labels.palette
    labels = np.stack(pages) if len(pages) > 1 else pages[0]
    if predictor.task.labels.overlapping:
        written = write_sets(job.masks, labels, image.geometry)[0]
    else:
        colours = None if palette is None else np.asarray(palette)
        written = write_labels(job.masks[0], labels, palette=colours, geometry=image.geometry)
    reviewed(reviews)
    streaming.note(job.targets, job.source)
    return Made(written, max(certificates, key=rank))


def _shape(predictor: Predictor, image: ImageFile) -> tuple[int, ...]:
    page = (predictor.model.classes, *image.size)
    return (image.pages, *page) if image.pages > 1 else page


def _part(maps: NDArray[np.float32], unit: range, ndim: int) -> NDArray[np.float32]:
    """The part of (K, H, W) or (P, K, H, W) that a unit fills: (K, H, W), or (K, Z, H, W) of a volume."""
    pages = maps.reshape(-1, *maps.shape[-3:])[unit.start : unit.stop]
    return np.moveaxis(pages, 0, 1) if ndim == 3 else pages[0]


def _decode(predictor: Predictor, class_map: NDArray[Any], options: FileOptions) -> NDArray[Any]:
    """What is written: the user's values, or object ids, in 16 bits where they fit; sets as they are."""
    task = predictor.task
    if task.labels.overlapping:
        return class_map
    learned = task.labels.task == "objects"
    if not (options.objects or learned):
        return task.decode(class_map)
    ids = task.decode(class_map) if learned else to_objects(class_map > 0)
    return ids.astype(np.uint16 if ids.max(initial=0) < 2**16 else np.uint32)


def _into(
    maps: NDArray[np.float32] | None,
) -> Callable[[tuple[slice, ...], NDArray[np.float32]], None] | None:
    if maps is None:
        return None

    def write(region: tuple[slice, ...], values: NDArray[np.float32]) -> None:
        maps[:, *region] = values

    return write
