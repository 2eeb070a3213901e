"""Files that are predicted region by region: which, in what memory, and what is kept of them until they are done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch

from skipway import memory
from skipway.data.sources import Source
from skipway.errors import OF_A_FILE, EnvironmentFault, NumericalError
from skipway.images import ImageFile, labels_suffix, suffix_of
from skipway.images.paged import SMALL
from skipway.images.paged import WRITERS as STREAMED
from skipway.predict.certificate import Certificate
from skipway.predict.cluster import Recipe, made_on_cluster
from skipway.predict.finish import write_flow
from skipway.predict.flow import Event, Flow, kept_for_later, opened, require_room
from skipway.predict.looking import Looking, mask_of, open_only
from skipway.predict.making import stored_as
from skipway.predict.options import FileOptions, StreamOptions
from skipway.predict.parts import journals_of_parts
from skipway.predict.predictor import Predictor
from skipway.predict.resume import FOLDER, Resume, stamps
from skipway.predict.review import Reviews
from skipway.predict.room import Room

_PACKED = 4
"""Labels shrink to a quarter at least, as a rule: that much room is asked for."""

_WHOLE = {False: 8, True: 48}
"""Bytes a pixel of an image that is predicted in memory: labels, decoded and written; with objects their distances."""


@dataclass(frozen=True)
class Made:
    """What came of one file.

    Attributes:
        mask: The first mask; None where only a part was made.
        certificate: That with the largest difference; None where nothing was left to make.
    """

    mask: Path | None
    certificate: Certificate | None


OnReviews = Callable[[Reviews], None]
"""Given what saw an image being predicted, before the image counts as finished."""


@dataclass
class Streaming:
    """The files of one command.

    Attributes:
        predictor: Whose network runs.
        output: Folder of the masks.
        options: See there.
        event: Told of every region.
    """

    predictor: Predictor
    output: Path
    options: FileOptions
    event: Event

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the labels depend on beside the image."""
        predictor, options, stream = self.predictor, self.options, self.options.stream
        return {
            "network": predictor.identity,
            "normalisation": predictor.normalisation.to_json(),
            "outputs": options.outputs,
            "views": predictor.tta,
            "planes": predictor.planes,
            "norms": predictor.whole_norms,
            "quantity": options.quantity,
            "temperature": predictor.temperature(options.outputs),
            "device": predictor.device.type,
            "torch": torch.__version__,
            "tile": options.tile,
            "engine": options.engine or "tiles",
            "skip_empty": stream.skip_empty,
            "ram": stream.ram,
            "vram": stream.vram,
        }

    @cached_property
    def resume(self) -> Resume:
        """What a killed command left."""
        written = {"objects": self.options.objects, "format": self.options.stream.format}
        return Resume(self.output, lambda: {**self.about, **written})

    @cached_property
    def room(self) -> Room:
        """The budgets."""
        quantity, stream = self.options.quantity, self.options.stream
        classes = self.predictor.model.classes * stored_as(quantity).itemsize if quantity else 0
        return Room(self.predictor, self.options.outputs, stream.ram, stream.vram, 1 + classes)

    def takes(self, image: ImageFile, target: Path) -> bool:
        """Whether an image goes region by region: when asked, begun so, or where it would not fit into memory."""
        if self.options.stream.asked or self.began(target):
            return True
        objects = self.options.objects or self.predictor.task.labels.task == "objects"
        most = memory.budget(torch.device("cpu"), None)
        return most is not None and _pixels(image) * _WHOLE[objects] > most / 2

    def has(self, targets: Sequence[Path], source: Source) -> bool:
        """Whether the same command, killed, had finished these files."""
        return self.resume.has(targets, self._made_of(source))

    def note(self, targets: Sequence[Path], source: Source) -> None:
        """These files are finished; the same command, killed later, leaves them as they are.

        Raises:
            EnvironmentFault: the disk refused.
        """
        self.resume.note(targets, self._made_of(source))

    def began(self, target: Path) -> bool:
        """Whether a killed command had begun this file, and may have written it in its last moment."""
        return self.resume.journal(target).is_file()

    def predict(
        self,
        image: ImageFile,
        source: Source,
        masks: Sequence[Path],
        classes: Path | None,
        reviewed: OnReviews,
    ) -> Made:
        """One file, in bounded memory; what is finished of it stays where it fails.

        Args:
            image: The file, open.
            source: What it was opened from.
            masks: See `write_flow`.
            classes: See `write_flow`.
            reviewed: Given what saw it; nothing where nobody asked, or a part of it was made without a look.

        Raises:
            SkipwayError: it failed; what is finished of it is kept, and said.
        """
        shape = [image.pages, image.channels, *image.size]
        about = {**self.about, "image": stamps(source.files), "shape": shape, "type": str(image.dtype)}
        stream = self.options.stream
        only = None if stream.only is None else mask_of(stream.only, image.path)
        about["only"] = None if only is None else stamps([only])
        about["shards"] = self._sharded(masks)
        with nullcontext() if only is None else open_only(only, image) as mask:
            looking = Looking(stream.skip_empty, mask)
            return self._predict(image, source, masks, classes, about, looking, reviewed)

    def _predict(
        self,
        image: ImageFile,
        source: Source,
        masks: Sequence[Path],
        classes: Path | None,
        about: dict[str, Any],
        looking: Looking,
        reviewed: OnReviews,
    ) -> Made:
        options, part = self.options, self.options.stream.part
        journal = self.resume.journal(masks[0])
        self.room.held = _made_whole(image, masks[0])
        flow = opened(
            self.predictor, image, journal, about, self.room, self.event,
            tile=options.tile, engine=options.engine, quantity=options.quantity, part=part, looking=looking,
            goal=masks[0] if about["shards"] else None,
        )  # fmt: skip
        try:
            require_room(self.output, self._needed(image, masks, flow), image.path)
            certificate = self._made(flow, source)
            if part is not None:
                flow.journal.close()
                return Made(None, certificate)
            reviews = flow.reviews() if options.review else ()
            written = write_flow(flow, masks, classes, objects=options.objects)
            reviewed(reviews)
        except (*OF_A_FILE, NumericalError, EnvironmentFault) as error:
            flow.journal.close()
            if not flow.journal.done:
                flow.journal.remove()
            raise kept_for_later(error, flow.journal, flow.count) from error
        except BaseException:
            flow.journal.close()
            raise
        self._done(written if classes is None else (*written, classes), source, flow)
        return Made(written[0], certificate)

    def _made_of(self, source: Source) -> Iterator[Path]:
        yield from source.files
        if self.options.stream.only is not None:
            yield mask_of(self.options.stream.only, source.path)

    def _sharded(self, masks: Sequence[Path]) -> bool:
        """Whether a region's labels are written as soon as it is made; ids of objects are known after the last."""
        labels = self.predictor.task.labels
        joined = self.options.objects or labels.task == "objects" or labels.overlapping
        return masks[0].name.endswith(".zarr") and not joined

    def close(self, targets: Sequence[Path]) -> None:
        """Everything is finished, whoever did it; of what is written, the first file of each image."""
        if (self.output / FOLDER).is_dir():
            self.resume.clear(targets)

    def _made(self, flow: Flow, source: Source) -> Certificate | None:
        options, part, cluster = self.options, self.options.stream.part, self.options.stream.cluster
        if not cluster:
            regions = None if part is None else part.share(flow.count)
            if part is not None and not regions:
                few = f"{flow.image.path.name}: too few regions ({flow.count}) for {part.of} parts"
                text = f"{few}, and part {part} has none; a smaller --tile makes more"
                self.event({"event": "warning", "text": text})
            return flow.run(self.event, regions, reviewed=options.review)
        recipe = Recipe(
            str(Path(self.predictor.name).absolute()),
            source.absolute(),
            flow.regions,
            options.outputs,
            options.level,
            options.quantity,
            calibrated=self.predictor.calibration is not None,
            device=self.predictor.device.type,
            tta=self.predictor.tta,
            planes=self.predictor.planes,
            identity=self.predictor.identity,
            image=stamps(source.files),
            reviewed=options.review,
            shards="" if flow.shards is None else str(flow.shards.folder.resolve()),
        )
        return made_on_cluster(flow, recipe, cluster, self.event)

    def _done(self, targets: Sequence[Path], source: Source, flow: Flow) -> None:
        self.note(targets, source)
        for other in journals_of_parts(flow.journal.path):
            other.unlink(missing_ok=True)
        flow.journal.remove()

    def _needed(self, image: ImageFile, masks: Sequence[Path], flow: Flow) -> int:
        """Bytes that the journal and the files are expected to take; the journal is there in part."""
        left = 1 - len(flow.journal.done) / flow.count
        plain = masks[0].suffix in (".nii", ".npy")
        pixels = _pixels(image)
        labels = 0 if flow.shards else pixels * len(masks) * (1 if plain else 1 / _PACKED)
        return int(
            labels + left * pixels / _PACKED + (1 + left) * pixels * self.room.item - pixels * (1 + left)
        )


def mask_suffix(path: Path, options: StreamOptions) -> str:
    """Suffix of the mask of an image: an OME-Zarr where that is asked for, or for one that goes region by region."""
    of_zarr = options.asked and suffix_of(path).lower() in (".zarr", ".ome.zarr")
    return ".zarr" if of_zarr or options.format == "zarr" else labels_suffix(path)


def _made_whole(image: ImageFile, mask: Path) -> int:
    """Bytes for labels that can only be made in memory."""
    pixels = _pixels(image)
    streamed = pixels <= SMALL or suffix_of(mask).lower() in (*STREAMED, ".zarr", ".ome.zarr")
    return 0 if streamed else _WHOLE[False] * pixels


def _pixels(image: ImageFile) -> int:
    return image.pages * prod(image.size)
