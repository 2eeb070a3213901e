"""A run folder, ready to predict: network, normalisation and the user's label values in one object."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipway.data.augment import Augmentation
from skipway.data.fingerprint import Constants, Normalisation
from skipway.data.labels import LabelMap
from skipway.devices import resolve_device
from skipway.errors import DataError, Problem, TopologyError, UsageError
from skipway.images import CHANNELS, ImageFile, recoloured, shown
from skipway.nn.graph import SkipGraph
from skipway.plan import Plan
from skipway.predict.backends import TILES, Model, chosen
from skipway.predict.calibration import Calibration
from skipway.predict.ensemble import Ensemble
from skipway.predict.familiar import Familiar
from skipway.predict.known import Known
from skipway.predict.logits import Outputs
from skipway.predict.pixels import ArrayPixels, Pixels, seen
from skipway.predict.planes import PLANES, Planes
from skipway.predict.review import Review
from skipway.predict.samples import sampled
from skipway.predict.stream import Prediction, predict_array, predict_pixels
from skipway.predict.turns import SEVEN, Turns
from skipway.predict.views import KINDS, Views, refuse_unseen, views_of
from skipway.predict.whole_norms import passes, with_whole_norms
from skipway.runs import Run
from skipway.tasks import Task, make_task
from skipway.weights import load_model


@dataclass(frozen=True)
class Predictor:
    """What `skipway.load` returns.

    Attributes:
        model: The network, or several as one, in evaluation mode.
        task: Decodes its class maps.
        normalisation: How pixels become what the network sees.
        device: Where it runs.
        name: Where it came from, for messages.
        known: The images that it was trained on.
        calibration: The temperature of its probabilities and how it was found; None leaves them as they come.
        folds: Of a run of folds, how many there are; those that are finished predict.
        augmentation: What training showed the network, see `viewed`.
        familiar: What its training images look like; None where the run does not say.
        tta: Which views it is shown, see `viewed`.
        planes: In how many planes a network of two axes sees a volume, see `in_planes`.
        whole_norms: Whether instance and group norm take the statistics of the whole image, see `of_whole_image`.
        backend: What computes the network and why, a line; empty for torch in fp32.
        computed: The `identity` where a backend holds the weights; empty where the model does.
    """

    model: Model | Views | Turns | Planes
    task: Task
    normalisation: Normalisation
    device: torch.device
    name: str
    known: Known = field(default_factory=Known)
    calibration: Calibration | None = None
    folds: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    familiar: Familiar | None = None
    tta: str | None = None
    planes: int = 1
    whole_norms: bool = False
    backend: str = ""
    computed: str = ""

    @property
    def ndim(self) -> int:
        """Spatial axes of what predicts: 2 predicts page by page, 3 a stack as one volume."""
        return self.model.geometry.ndim

    @property
    def network(self) -> SkipGraph:
        """The one network that predicts.

        Raises:
            UsageError: there are several, or it is inside of something else.
        """
        if isinstance(self.model, SkipGraph):
            return self.model
        if self.networks > 1:
            fix = f"name one of them, such as {Path(self.name) / 'fold-1'}"
            raise UsageError(Problem(f"a run of {self.networks} networks", self.name, "a run of one", fix))
        several = isinstance(self.model, Views | Turns | Planes)
        found = f"its network {'is shown several views' if several else 'was handed to a runtime'}"
        raise UsageError(Problem(found, self.name, fix="load it again"))

    @property
    def networks(self) -> int:
        """How many networks predict, each for the time of one."""
        model = self._seeing
        model = model.model if isinstance(model, Views | Turns) else model
        return len(model.members) if isinstance(model, Ensemble) else 1

    @property
    def views(self) -> int:
        """How many views of an image each network is shown."""
        model = self._seeing
        if isinstance(model, Turns):
            return SEVEN
        return len(model.views) if isinstance(model, Views) else 1

    @property
    def _seeing(self) -> Model | Views | Turns:
        """What sees an image, or each slice of it."""
        return self.model.model if isinstance(self.model, Planes) else self.model

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str | None = None,
        *,
        member: int | None = None,
        calibrated: bool = True,
        backend: str = "torch",
        precision: str = "fp32",
    ) -> "Predictor":
        """Read a run folder; one of folds becomes the mean of the probabilities of those that are finished.

        Args:
            path: The folder.
            device: Where to predict.
            member: The fold that predicts alone, from 1.
            calibrated: Whether probabilities are those of the run's temperature.
            backend: What computes it, see `running`; one that is not measured.
            precision: In what arithmetic, "fp32" or "bf16".

        Raises:
            UsageError: not a run folder, no such fold, none that is finished, or no such backend.
            CheckpointError: something in it is damaged.
            SecurityError: its weights are not safetensors.
            EnvironmentFault: no such device.
        """
        run = Run.open(Path(path))
        if member is not None:
            run = _member(run, member)
        where = resolve_device(device)
        plan = Plan.from_json(run.read("plan"))
        labels = LabelMap.from_json(run.read("labels"))
        task = make_task(labels, plan.class_weights, plan.min_area)
        normalisation = Normalisation.from_json(run.read("normalisation"))
        known = Known.of(run, normalisation.colour)
        model: SkipGraph | Ensemble
        if run.folds:
            members = [load_model(fold, where) for fold in _finished(run)]
            model = Ensemble(members, overlapping=labels.overlapping).eval()
        else:
            model = load_model(run, where)
        calibration = Calibration.of(run) if calibrated else None
        shown, familiar = Augmentation(**plan.augmentation), Familiar.of(run)
        rest = known, calibration, len(run.folds), shown, familiar
        found = cls(model, task, normalisation, where, str(run.path), *rest)
        return found.running(backend, precision)

    def using(self, outputs: Outputs = "last", level: int | None = None) -> "Predictor":
        """This predictor with a network that computes no more than what is asked for.

        Args:
            outputs: "mean" of all supervised outputs (the accurate mode of UNet++), or the "last" one alone
                (the fast mode).
            level: Output of this column instead of the last: L1, L2, … of UNet++.

        Raises:
            UsageError: the network has no such output.
        """
        if outputs == "mean" and level is None:
            return self
        if isinstance(self.model, Views | Turns | Planes):
            raise ValueError("choose the outputs before the views and the planes")
        nodes = self.model.topology.outputs
        wanted = nodes[-1].column if level is None else level
        if len(nodes) == 1 and nodes[0].column == wanted:
            return self
        calibration = (
            self.calibration if wanted == nodes[-1].column else None
        )  # it is that of the last output
        try:
            return replace(self, model=self.model.pruned(wanted), calibration=calibration)
        except TopologyError as error:
            there = ", ".join(str(node.column) for node in nodes)
            raise UsageError(Problem(str(error), f"--level {level}", f"one of {there}")) from error

    def viewed(self, kind: str | None, *, unseen: bool = False) -> "Predictor":
        """This predictor with test-time augmentation: the mean of the probabilities over views of the image.

        Args:
            kind: One of `views.KINDS`; None for the image as it is.
            unseen: Whether views are allowed that training never showed the network, as where classes tell left
                from right.

        Raises:
            UsageError: no such kind, the network cannot be shown it, or was never.
        """
        if kind is None:
            return self
        if kind not in KINDS:
            raise UsageError(Problem(f"found {kind!r}", "--tta", ", ".join(KINDS)))
        if not unseen:
            refuse_unseen(kind, self.augmentation, self.task.labels)
        if isinstance(self.model, Views | Turns | Planes):
            raise ValueError("its views are chosen already, or its planes")
        plain = self.model
        model = Turns(plain) if kind == "seven" else Views(plain, views_of(kind, self.ndim))
        return replace(self, model=model.train(plain.training), tta=kind)

    def in_planes(self, planes: int = 3) -> "Predictor":
        """This predictor with a network of two axes that sees a volume in three planes: the mean of the probabilities.

        The network is shown every slice along each of the three axes, in every view, and predicts volumes then.

        Args:
            planes: 3; or 1, slice by slice along the first axis, as it is.

        Raises:
            UsageError: another number, or a network that cannot.
        """
        if planes not in PLANES:
            raise UsageError(Problem(f"found {planes}", "--planes", "1 or 3", "--planes 3"))
        if planes == 1:
            return self
        if self.whole_norms:
            raise UsageError(Problem("both --whole-norms and --planes are given", "predict", "one of them"))
        if isinstance(self.model, Planes):
            raise ValueError("its planes are chosen already")
        return replace(self, model=Planes(self.model).train(self.model.training), planes=planes)

    def of_whole_image(self) -> "Predictor":
        """This predictor with the statistics of the whole image in every instance and group norm, as one pass has them.

        Any tile then gives the same; each norm costs a pass over the image up to it. Other norms are left as they are.

        Raises:
            UsageError: several views or planes are asked for, each of which would have statistics of its own.
        """
        if self.planes > 1:
            raise UsageError(Problem("both --whole-norms and --planes are given", "predict", "one of them"))
        if self.views > 1:
            raise UsageError(Problem("both --whole-norms and --tta are given", "predict", "one of them"))
        if self.backend:
            raise UsageError(Problem("both --whole-norms and --backend are given", "predict", "one of them"))
        return replace(self, whole_norms=True)

    def network_for(self, pixels: Pixels, constants: Constants) -> nn.Module:
        """What predicts an image; the model, but for `of_whole_image`.

        Args:
            pixels: The image.
            constants: (offset, scale) of its grey values.
        """
        return with_whole_norms(self.model, pixels, constants) if self.whole_norms else self.model

    def running(
        self,
        backend: str = "auto",
        precision: str = "fp32",
        *,
        images: Sequence[NDArray[Any]] = (),
        tiles: Sequence[Tensor] = (),
    ) -> "Predictor":
        """This predictor with its network computed by a backend.

        In fp32 the labels are those of the run's own network. What computes fewer bits is only taken where it is
        asked for.

        Args:
            backend: "torch", "packed", "onnxruntime", "openvino", "compile", or "auto": the fastest of those that
                compute the same, measured once, but for "compile".
            precision: "fp32", "bf16" or "int8", which is calibrated and refused where it loses more than half a
                point.
            images: What "auto", "compile" and "int8" are measured on, as for `predict`.
            tiles: The same as a network sees it, (1, C, *S) each.

        Raises:
            UsageError: no such backend or precision, or nothing to measure on.
            DataError: too much is lost.
            EnvironmentFault: a package is missing, or the processor has no bfloat16.
        """
        if (backend, precision) == ("torch", "fp32"):
            return self
        if isinstance(self.model, Views | Turns | Planes):
            raise ValueError("choose the backend before the views and the planes")
        measured = [*tiles, *self._tiles(images, TILES.get(precision, 1))]
        sets = self.task.labels.overlapping
        choice = chosen(self.model, backend, precision, measured, overlapping=sets)
        identity = f"{self.identity} by {choice.name} in {precision}"
        return replace(self, model=choice.model, backend=choice.said, computed=identity)

    @property
    def identity(self) -> str:
        """What decides the bits that come of an image, beside the image: SHA-256 of all weights, and who computes."""
        if self.computed:
            return self.computed
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            array = value.detach().cpu().contiguous()
            digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
            digest.update(array.view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _tiles(self, arrays: Sequence[NDArray[Any]], count: int) -> list[Tensor]:
        found: list[Tensor] = []
        for array in arrays:
            image = self._image(np.asarray(array))
            constants = self.normalisation.constants(image)
            each = -(-count // len(arrays))
            found += sampled(ArrayPixels(image), constants, self.model.geometry, each)
        return found

    def predict(self, array: NDArray[Any], *, tile: int | None = None) -> NDArray[Any]:
        """Masks of one image or volume in memory.

        Args:
            array: (H, W), (H, W, C) or (C, H, W), in the value range of the training images; for a network of
                three axes (Z, H, W), (Z, H, W, C) or (C, Z, H, W). Grey or RGB where the run reads all as one.
            tile: Side of a tile in pixels; the result does not depend on it.

        Returns:
            (H, W) or (Z, H, W): the user's label values, or object ids where the run learned objects. Where
            classes overlap, sets: bit k stands for class k of `task.labels.names`.

        Raises:
            DataError: the channels are not those of the training images.
        """
        image = self._image(np.asarray(array))
        constants = self.normalisation.constants(image)
        sets = self.task.labels.overlapping
        model = self.network_for(ArrayPixels(image), constants)
        found = predict_array(model, image, constants, tile=tile, overlapping=sets, device=self.device)
        return self.task.decode(found.labels)

    def _image(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array as (C, *S), in the colour that the run reads."""
        colour, channels = self.normalisation.colour, self.model.in_channels
        if not colour:
            return channels_first(array, channels, self.ndim)
        try:
            image = channels_first(array, channels, self.ndim)
        except DataError:
            image = channels_first(array, 4 - channels, self.ndim)  # of 1 and 3 the other
        return recoloured(image, colour)

    def check(self, image: ImageFile) -> None:
        """Refuse an image that the network cannot take.

        Raises:
            DataError: the channels are not those of the training images, or it is a page where planes are asked for.
        """
        if self.planes > 1 and image.pages == 1:
            found, fix = "an image of one page", "leave out --planes for it"
            raise DataError(Problem(found, shown(image.path), "a volume, for --planes 3", fix))
        wanted = self.model.in_channels
        if image.channels != wanted:
            expected = f"{wanted}, as {self.name} was trained on"
            fix = "give images like those that trained"
            if wanted == 1 and _is_grey(image):
                convert = f'Image.open("{image.path.name}").convert("L").save("{image.path.stem}.png")'
                how = f" (Pillow: {convert})" if image.dtype == np.uint8 else ""
                fix = f"it is grey stored as RGB: save it with one channel{how}"
            if {wanted, image.channels} == set(CHANNELS.values()):
                fix += "; a run of `skipway train --colour grey` or rgb reads both kinds"
            found = f"{image.channels} channel{'s' if image.channels > 1 else ''}"
            raise DataError(Problem(found, shown(image.path), expected, fix, "D05"))

    def predict_pages(
        self,
        image: ImageFile,
        pages: range,
        *,
        tile: int | None = None,
        outputs: Outputs = "last",
        review: Review | None = None,
        **options: Any,
    ) -> Prediction:
        """Class map of one page of a file, or of consecutive pages as a volume for a network of three axes.

        Args:
            image: The file, open.
            pages: See `units`.
            tile: Side of a tile in pixels.
            outputs: "last" or "mean".
            review: Is shown the image and what comes of it, in place of `on_logits` and `on_spread`.
            **options: Those of `skipway.predict.stream.Options`; the probabilities are calibrated.

        Returns:
            Labels of shape (H, W), or (Z, H, W) for three axes.

        Raises:
            DataError: the channels are not those of the training images.
        """
        self.check(image)
        pixels, constants = seen(image, pages, self.ndim, self.normalisation)
        if review is not None:
            review.look(pixels, constants)
            options |= {"on_logits": review.see, "on_spread": review.apart}
        return predict_pixels(
            self.network_for(pixels, constants),
            pixels,
            constants,
            tile=tile,
            outputs=outputs,
            overlapping=self.task.labels.overlapping,
            temperature=self.temperature(outputs),
            device=self.device,
            **options,
        )

    def temperature(self, outputs: Outputs = "last") -> float:
        """T of the probabilities that are given out; 1 for other outputs than the last, which it was fitted on."""
        return 1.0 if self.calibration is None or outputs != "last" else self.calibration.temperature

    def said(self, outputs: Outputs = "last") -> str:
        """Of the probabilities that are given out, one line."""
        if self.calibration is None or outputs != "last":
            return "no: as the network gives them"
        return f"{self.calibration} [--no-calibration]"

    @property
    def remarks(self) -> dict[str, str]:
        """What a user should know before it starts, by name."""
        said = {"backend": self.backend} if self.backend else {}
        if self.folds:
            every, count = self.networks == self.folds, self.networks
            which = f"{count}" if every else f"{count} of {self.folds} folds"
            text = f"{which}, the mean of their probabilities: {count} × the time of one [--member]"
            said["networks"] = text
        if self.views > 1:
            said["views"] = f"{self.views}, the mean of their probabilities: {self.views} × the time of one"
        if self.planes > 1:
            count = self.planes
            said["planes"] = f"{count}, the mean of their probabilities: {count} × the time of slice by slice"
        if self.whole_norms and (count := passes(self.model)):
            said["norms"] = (
                f"{count} with the statistics of the whole image: as many passes, each up to its norm"
            )
        return said

    def review(self, outputs: Outputs = "last") -> Review:
        """What will see one image or page being predicted, and say how good its mask should be."""
        return Review(self.task.labels, self.familiar, self.temperature(outputs))

    def units(self, image: ImageFile) -> tuple[range, ...]:
        """Pages of a file that are predicted at once: all of them as one volume, or each alone."""
        every = range(image.pages)
        return (every,) if self.ndim == 3 else tuple(every[page : page + 1] for page in every)


def _member(run: Run, number: int) -> Run:
    """One fold of a run of folds, from 1."""
    folds = run.folds
    if not folds:
        found = "a run of one network"
        raise UsageError(Problem(found, "--member", "a run of `skipway train --folds`", "leave it out"))
    if not 1 <= number <= len(folds):
        raise UsageError(Problem(f"found {number}", "--member", f"1 to {len(folds)}"))
    return Run.open(folds[number - 1].path)


def _finished(run: Run) -> list[Run]:
    """The folds that came to their end; half-trained ones would spoil the mean."""
    done = [fold for fold in run.folds if fold.finished]
    if not done:
        found, fix = f"none of its {len(run.folds)} folds is finished", "let `skipway train` go on"
        started = next((fold for fold in run.folds if fold.exists), None)
        fix += "" if started is None else f", or predict with {started.path} as it stands"
        raise UsageError(Problem(found, str(run.path), fix=fix))
    return done


def _is_grey(image: ImageFile) -> bool:
    """Whether all three channels of the first page are the same, as WebP and JPEG may keep a grey image."""
    return image.channels == 3 and all(bool((band == band[:1]).all()) for _, band in image.bands(0))


def channels_first(array: NDArray[Any], channels: int, ndim: int = 2) -> NDArray[Any]:
    """An image of shape (*S), (*S, C) or (C, *S) as (C, *S); where both fit, the last axis is C.

    >>> channels_first(np.zeros((4, 5)), 1).shape, channels_first(np.zeros((4, 5, 3)), 3).shape
    ((1, 4, 5), (3, 4, 5))
    >>> channels_first(np.zeros((3, 4, 5)), 1, 3).shape, channels_first(np.zeros((2, 3, 4, 5)), 2, 3).shape
    ((1, 3, 4, 5), (2, 3, 4, 5))
    """
    if array.ndim == ndim and channels == 1:
        return array[None]
    if array.ndim == ndim + 1 and array.shape[-1] == channels:
        return np.moveaxis(array, -1, 0)
    if array.ndim == ndim + 1 and array.shape[0] == channels:
        return array
    axes = "(H, W)" if ndim == 2 else "(Z, H, W)"
    raise DataError(Problem(f"an array of shape {array.shape}", expected=f"{axes} with {channels} channels"))
