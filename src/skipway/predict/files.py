"""Predicts files into files: one bad file does not stop the others, and nothing that exists is lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.layouts import find_images
from skipway.errors import DataError, EnvironmentFault, NumericalError, Problem, SkipwayError, UsageError
from skipway.images import open_image, output_name, write_labels, write_probabilities
from skipway.predict.certificate import Certificate
from skipway.predict.logits import Outputs
from skipway.predict.predictor import Predictor
from skipway.tasks.objects import to_objects

Event = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class FileOptions:
    """How to predict files.

    Attributes:
        probabilities: Write `<stem>_probabilities.tif`, float32 (K, H, W), beside each mask.
        objects: Write object ids even where the run learned classes.
        tile: Side of a tile in pixels.
        overwrite: Replace files that exist.
        outputs: Which supervised outputs: "last" or "mean".
    """

    probabilities: bool = False
    objects: bool = False
    tile: int | None = None
    overwrite: bool = False
    outputs: Outputs = "last"


@dataclass(frozen=True)
class Summary:
    """What came of a folder.

    Attributes:
        written: The masks, in the order of the images.
        failed: What was wrong with each image that has none.
        certificate: That of the image with the largest difference; None when nothing was predicted.
    """

    written: tuple[Path, ...]
    failed: tuple[SkipwayError, ...]
    certificate: Certificate | None

    @property
    def error(self) -> SkipwayError:
        """All problems in one error, of the kind of the first."""
        problems = [problem for error in self.failed for problem in error.problems]
        return type(self.failed[0])(*problems)

    def __str__(self) -> str:
        total = len(self.written) + len(self.failed)
        lines = [f"{len(self.written)} of {total} images predicted"]
        if self.certificate is not None:
            lines.append(str(self.certificate))
        return "\n".join(lines)


def predict_files(
    predictor: Predictor, images: Path, output: Path, options: FileOptions, event: Event
) -> Summary:
    """Predict every image of a folder.

    Args:
        predictor: A loaded run.
        images: Folder, searched deeply, or one file.
        output: Folder for the masks; made where it is missing. Names and sub-folders are those of the images.
        options: See there.
        event: Told of every file.

    Raises:
        UsageError: the output lies in the input, or holds a file that would be replaced.
        DataError: there is no image.
        EnvironmentFault: the folder cannot be written.
    """
    jobs = _jobs(images, output, options)
    written, failed, worst = [], [], None
    for done, (source, target) in enumerate(jobs, start=1):
        try:
            mask, certificate = _predict_file(predictor, source, target, options)
        except (DataError, NumericalError) as error:
            failed.append(error if _names(error, source) else type(error)(Problem(str(error), str(source))))
            event({"event": "warning", "text": str(failed[-1])})
            continue
        written.append(mask)
        worst = certificate if worst is None else max(worst, certificate, key=_rank)
        event({"event": "file", "name": source.name, "written": str(mask), "done": done, "of": len(jobs)})
    summary = Summary(tuple(written), tuple(failed), worst)
    event(
        {"event": "finished", "written": len(written), "failed": len(failed), "certificate": str(worst or "")}
    )
    return summary


def _names(error: SkipwayError, source: Path) -> bool:
    return all(str(source) in problem.where for problem in error.problems)


def _jobs(images: Path, output: Path, options: FileOptions) -> list[tuple[Path, Path]]:
    """Every image with the file its mask goes to."""
    root = images if images.is_dir() else images.parent
    if images.is_dir() and output.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            Problem("the output lies inside the input", str(output), fix="give a folder beside it with -o")
        )
    jobs = [(path, output / Path(name).parent / output_name(path)) for name, path in find_images(images)]
    there = [target for _, target in jobs if target.exists()]
    if there and not options.overwrite:
        found_text = f"{len(there)} of {len(jobs)} masks exist already, the first {there[0].name}"
        raise UsageError(Problem(found_text, str(output), fix="--overwrite, or another folder with -o"))
    try:
        for _, target in jobs:
            target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(Problem(f"cannot make the folder: {error.strerror}", str(output))) from error
    return jobs


def _predict_file(
    predictor: Predictor, source: Path, target: Path, options: FileOptions
) -> tuple[Path, Certificate]:
    """All pages of one file; the mask's path and the certificate with the largest difference."""
    pages, certificates = [], []
    with open_image(source) as image:
        for page in range(image.pages):
            maps = (
                np.empty((predictor.task.outputs, *image.size), np.float32) if options.probabilities else None
            )
            found = predictor.predict_page(
                image, page, tile=options.tile, outputs=options.outputs, on_probabilities=_into(maps)
            )
            pages.append(_decode(predictor, found.labels, options))
            certificates.append(found.certificate)
            if maps is not None:
                number = f"_{page:03d}" if image.pages > 1 else ""
                write_probabilities(target.with_name(f"{target.stem}_probabilities{number}.tif"), maps)
    labels = np.stack(pages) if len(pages) > 1 else pages[0]
    palette = predictor.task.labels.palette
    written = write_labels(
        target, labels, palette=None if options.objects or palette is None else np.asarray(palette)
    )
    return written, max(certificates, key=_rank)


def _decode(predictor: Predictor, class_map: NDArray[np.uint8], options: FileOptions) -> NDArray[Any]:
    """What is written: the user's values, or object ids, in 16 bits where they fit."""
    task = predictor.task
    objects = options.objects or task.labels.task == "objects"
    if not objects:
        return task.decode(class_map)
    ids = task.decode(class_map) if task.labels.task == "objects" else to_objects(class_map > 0)
    return ids.astype(np.uint16 if ids.max(initial=0) < 2**16 else np.uint32)


def _rank(certificate: Certificate) -> tuple[bool, float]:
    """Certificates that saw a seam come before those of one pass."""
    return certificate.tiles > 1, certificate.max_difference


def _into(
    maps: NDArray[np.float32] | None,
) -> Callable[[tuple[slice, ...], NDArray[np.float32]], None] | None:
    if maps is None:
        return None

    def write(region: tuple[slice, ...], values: NDArray[np.float32]) -> None:
        maps[:, *region] = values

    return write
