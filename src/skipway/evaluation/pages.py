"""Which prediction belongs to which truth, page by page, and reading them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.data.class_folders import class_mask, class_masks, files_by_class, has_class_folders
from skipway.data.folders import twins
from skipway.data.layouts import Reading, find_masks, list_files, natural
from skipway.data.sources import Source, page_name
from skipway.errors import DataError, Problem
from skipway.images import open_image, shown, stem_of

PROBABILITIES = "_probabilities"
_MOST_NAMES = 20


@dataclass(frozen=True)
class Page:
    """One predicted and one true mask of the same size.

    Attributes:
        name: Stem of the files, with `#003` behind it for page 3 of a stack.
        prediction: The predicted mask.
        truth: The true mask.
        index: Page in both files.
        probabilities: File of the class probabilities, (K, H, W) a page, where there is one.
    """

    name: str
    prediction: Source
    truth: Source
    index: int = 0
    probabilities: Path | None = None

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Truth and prediction, whole numbers of shape (H, W)."""
        return _read(self.truth, self.index), _read(self.prediction, self.index)

    def read_probabilities(self) -> NDArray[Any]:
        """Class probabilities, float (K, H, W).

        Raises:
            DataError: no such file or page, or one that is damaged.
        """
        if self.probabilities is None:
            raise DataError(Problem("no probabilities", str(self.prediction)))
        with open_image(self.probabilities) as file:
            if self.index >= file.pages:
                found, expected = f"probabilities of {file.pages} pages", f"one for page {self.index}"
                fix = "predict again with --probabilities"
                raise DataError(Problem(found, shown(self.probabilities), expected, fix, "J07"))
            return file.read(self.index)


def _read(source: Source, index: int) -> NDArray[Any]:
    with source.open_mask() as file:
        return file.read(index)[0]


def pair_pages(
    prediction: Path,
    truth: Path,
    reading: Reading | None = None,
    names: Sequence[str] = (),
    *,
    partly: bool = False,
) -> tuple[tuple[Page, ...], tuple[str, ...]]:
    """Pairs predictions with truths by exact stem; a single file on each side needs no common name.

    Args:
        prediction: Folder or file.
        truth: Folder or file; of a folder that holds a data set, its masks.
        reading: How the folder of truths is read.
        names: Classes that overlap, where they do; both sides may have a folder for each.
        partly: Leave truths without prediction aside, as long as one has a prediction.

    Returns:
        Pages in natural order of their names, and warnings about files of either side that have no partner.

    Raises:
        DataError: truths without prediction (with `partly`: none with one), or other sizes or page counts; all
            of them in one error.
        UsageError: a path that does not exist.
    """
    predictions, probabilities = _listing(prediction, _sets(prediction, names) or list_files(prediction))
    if names and prediction.is_dir():  # one file beside the folders of the classes
        files = {name: prediction / f"{name}{PROBABILITIES}.tif" for name in predictions}
        probabilities |= {name: file for name, file in files.items() if file.is_file()}
    truths, _ = _listing(truth, _sets(truth, names) or _in_order(find_masks(truth, reading), names))
    if len(truths) == len(predictions) == 1 and not (truth.is_dir() and prediction.is_dir()):
        (name,) = truths
        predictions = dict(zip([name], predictions.values(), strict=True))
        probabilities = dict(zip([name], probabilities.values(), strict=False))
    missing = sorted(truths.keys() - predictions.keys(), key=natural)
    some = f"{len(truths) - len(missing)} of {len(truths)} truths have a prediction"
    both = len(missing) < len(truths)
    if missing and not (partly and both):
        raise DataError(
            Problem(
                f"{len(missing)} of {len(truths)} truths have no prediction: {_some(missing)}",
                shown(prediction),
                "a prediction of the same name for every truth",
                "predict these images too" + (", or score the others alone with --partly" if both else ""),
                "A04",
            )
        )
    extra = sorted(predictions.keys() - truths.keys(), key=natural)
    warnings = [f"{len(extra)} predictions without a truth are not scored: {_some(extra)}"] if extra else []
    warnings += [f"{some}; the others are not scored"] if missing else []
    names = sorted(truths.keys() & predictions.keys(), key=natural)
    paired = [Page(name, predictions[name], truths[name], 0, probabilities.get(name)) for name in names]
    counts: list[int] = []
    problems: list[Problem] = []
    for page in paired:
        with page.truth.open_mask() as mask, page.prediction.open_mask() as predicted:
            problems += _differences(page, (mask.pages, *mask.size), (predicted.pages, *predicted.size))
            counts.append(mask.pages)
    if problems:
        raise DataError(*problems)
    pages = [one for page, count in zip(paired, counts, strict=True) for one in _unfold(page, count)]
    return tuple(pages), tuple(warnings)


def _sets(path: Path, names: Sequence[str]) -> tuple[tuple[str, Source], ...]:
    """Masks in one folder a class, where the classes overlap and are kept like that; else nothing."""
    found = twins(path, beside=False) if path.is_dir() else None
    root = found[1] if found else path
    return class_masks(root, names) if names and has_class_folders(root, names) else ()


def _in_order(files: Iterable[tuple[str, Source]], names: Sequence[str]) -> Iterable[tuple[str, Source]]:
    """Masks with the classes of each in the order of `names`, whatever theirs is."""
    for name, source in files:
        if names and source.kind == "classes":
            parts = files_by_class(source)
            strange = sorted(parts.keys() - set(names))
            if strange:
                expected = f"classes {', '.join(names)}"
                fix = "use masks of the same classes, or train again with these among them"
                raise DataError(Problem(f"masks of {', '.join(strange)}", str(source), expected, fix, "E01"))
            source = class_mask(parts, names)
        elif names and source.names:  # shapes, whose bits follow from the names
            source = replace(source, names=tuple(names))
        yield name, source


def _listing(path: Path, files: Iterable[tuple[str, Source]]) -> tuple[dict[str, Source], dict[str, Path]]:
    """Masks by name, and probability files by the name of their mask."""
    groups: defaultdict[str, list[Source]] = defaultdict(list)
    for name, file in files:
        groups[unicodedata.normalize("NFC", name)].append(file)
    twice = [files for files in groups.values() if len(files) > 1]
    if twice:
        raise DataError(
            *(
                Problem(
                    f"two masks of one name: {_some(file.path.name for file in files)}",
                    shown(path),
                    "one file a name",
                    "remove one of them",
                    "A08",
                )
                for files in twice
            )
        )
    masks = {name: files[0] for name, files in groups.items()}
    pairs = ((name, masks.get(name + PROBABILITIES)) for name in masks)
    beside = {
        name: other.path
        for name, other in pairs
        if other is not None and other.path.suffix.lower() in (".tif", ".tiff")
    }  # a mask of its own may well be called x_probabilities, as long as there is no x
    kept = {name: file for name, file in masks.items() if file.path not in beside.values()}
    return kept, beside if path.is_dir() else _beside(kept)


def _beside(masks: Mapping[str, Source]) -> dict[str, Path]:
    """Probability files next to masks that were named one by one."""
    found = {
        name: file.path.with_name(f"{stem_of(file.path)}{PROBABILITIES}.tif") for name, file in masks.items()
    }
    return {name: file for name, file in found.items() if file.is_file()}


def _differences(page: Page, wanted: tuple[int, int, int], found: tuple[int, int, int]) -> list[Problem]:
    """What keeps two files of shape (pages, rows, columns) from being compared."""
    where, other = str(page.prediction), str(page.truth)
    if found[0] != wanted[0]:
        fix = "predict the whole stack"
        return [Problem(f"{found[0]} pages", where, f"{wanted[0]} as in {other}", fix, "B07")]
    if found != wanted:
        sizes = [f"{columns} × {rows}" for _, rows, columns in (found, wanted)]
        fix = "check that the two belong together"
        return [Problem(f"{sizes[0]} pixels", where, f"{sizes[1]} as in {other}", fix, "B01")]
    return []


def _unfold(page: Page, count: int) -> list[Page]:
    """Every page of a pair of stacks under its own name."""
    if count == 1:
        return [page]
    return [replace(page, name=page_name(page.name, index, count), index=index) for index in range(count)]


def values_of(array: NDArray[Any]) -> NDArray[np.int64]:
    """Distinct values of a mask, ascending."""
    if array.dtype in (np.uint8, np.uint16, np.bool_):
        return np.flatnonzero(np.bincount(array.reshape(-1)))
    return np.unique(array).astype(np.int64)


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    shortened = [shown(name) for name in names]
    more = f" and {len(shortened) - _MOST_NAMES} more" if len(shortened) > _MOST_NAMES else ""
    return ", ".join(shortened[:_MOST_NAMES]) + more
