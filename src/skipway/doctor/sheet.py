"""The sheet of a check: pictures of the pairs to look at, the suspicious ones first, each with its reason."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from skipway.data.labels import LabelMap
from skipway.data.layouts import Pair
from skipway.data.records import FileRecord
from skipway.disk import replacing, utf8
from skipway.doctor.findings import Findings
from skipway.errors import DataError, folded
from skipway.report import pictures
from skipway.report.page import page_template

SUSPICIOUS, RANDOM, SIDE = 24, 8, 420
"""Pairs shown because of a warning, pairs drawn by lot, longest side of a picture in pixels."""


@dataclass(frozen=True)
class Shown:
    """One pair on the sheet."""

    name: str
    reasons: tuple[str, ...]
    image: str
    mask: str
    outline: str
    size: tuple[int, int]


def write_sheet(path: Path, found: Findings, *, seed: int = 0) -> Path:
    """Write the sheet as one HTML file that needs no other and no network.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    page = render(found, seed=seed)
    with replacing(path) as file:
        file.write(utf8(page))
    return path


def render(found: Findings, *, seed: int = 0) -> str:
    """The sheet as text."""
    template = page_template(files(__package__).joinpath("sheet.html.j2").read_text("utf-8"))
    pairs = {pair.name: pair for pair in found.pairs.pairs} if found.pairs else {}
    chosen = dict(choose(found, seed=seed))
    shown = [_shown(pairs[name], reasons, found.labels) for name, reasons in chosen.items() if name in pairs]
    swatches = []
    if found.labels is not None and found.labels.task != "objects":
        sets = found.labels.overlapping  # drawn by value: a pixel of two classes has a colour of its own
        coloured = ((row, row.value if sets else index) for index, row in enumerate(found.label_rows))
        swatches = [(row, pictures.label_colour(index)) for row, index in coloured if index]
    return str(
        template.render(
            found=found,
            problems=folded(found.problems),
            text=str(found),
            swatches=swatches,
            shown=[case for case in shown if case is not None],
        )
    )


def choose(found: Findings, *, seed: int = 0) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, reasons) of the pairs to look at: suspicious, then extreme, then drawn by lot; none twice."""
    reasons: dict[str, list[str]] = {}
    for suspicion in found.suspicions:
        for name in suspicion.names[:6]:
            if name in reasons or len(reasons) < SUSPICIOUS:
                reasons.setdefault(name, []).append(f"{suspicion.code} {suspicion.text}")
    for name, reason in _extremes(found.records, found.labels):
        reasons.setdefault(name, []).append(reason)
    rest = [record.name for record in found.records if record.name not in reasons]
    for name in random.Random(seed).sample(rest, min(RANDOM, len(rest))):
        reasons[name] = ["drawn by lot"]
    for name, texts in reasons.items():
        yield name, tuple(texts)


def _extremes(records: Sequence[FileRecord], labels: LabelMap | None) -> Iterator[tuple[str, str]]:
    if len(records) < 3:
        return
    background = labels.background if labels is not None else 0
    by_share = sorted(records, key=lambda r: r.values.share(background))
    yield by_share[0].name, "largest share of foreground"
    yield by_share[-1].name, "smallest share of foreground"
    yield max(records, key=lambda r: r.values.regions).name, "most objects"
    by_light = sorted(records, key=lambda r: r.mean)
    yield by_light[0].name, "darkest"
    yield by_light[-1].name, "brightest"


def _shown(pair: Pair, reasons: tuple[str, ...], labels: LabelMap | None) -> Shown | None:
    """Image, labels and outline; pixels are thinned out alike, so that all three stay aligned."""
    try:
        with pair.image.open_image() as image, pair.mask.open_mask() as mask:
            pixels = pictures.thin_out(image.read(pair.image.page or 0), SIDE)
            values = pictures.thin_out(mask.read(pair.mask.page or 0)[0], SIDE)
    except DataError:
        return None
    indices = values
    if labels is not None:
        indices = labels.instances(values) if labels.task == "objects" else _encoded(labels, values)
    colours = pictures.colour_labels(indices)
    outline = pictures.overlay(pixels, indices.astype(np.int64))
    return Shown(
        pair.name,
        reasons,
        pictures.data_uri(pictures.stretch(pixels), photo=True),
        pictures.data_uri(colours),
        pictures.data_uri(outline, photo=True),
        (colours.shape[1], colours.shape[0]),
    )


def _encoded(labels: LabelMap, values: np.ndarray) -> np.ndarray:
    """Class indices; what is not annotated is shown as background."""
    indices = labels.encode(values)
    return indices if labels.ignore is None else np.where(values == labels.ignore, 0, indices)
