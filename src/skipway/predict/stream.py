"""Predicts an image of any size in tiles: read a window, normalise, run, keep the classes, forget the rest.

Memory is that of one tile plus one byte a pixel for the labels. Tiles are exact (see `skipway.tiles`), so
their size is a matter of memory and time, never of the result.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipway.data.composites import set_type
from skipway.data.fingerprint import Constants, normalised
from skipway.errors import DataError, NumericalError, Problem, UsageError
from skipway.predict.certificate import Certificate, Witness
from skipway.predict.logits import Outputs, combine, decided, probabilities
from skipway.predict.pixels import ArrayPixels, PagePixels, Pixels
from skipway.shapes import Geometry
from skipway.tiles import Tile, count_tiles, default_tile, plan_tiles, redundancy, round_tile

if TYPE_CHECKING:
    from skipway.images import ImageFile


class Options(TypedDict, total=False):
    """What may be said about a prediction; nothing of it changes the labels except `outputs`.

    Attributes:
        tile: Step between tiles, in pixels; rounded down to a multiple of the stride (`Prediction.tile`
            says to what). Left out: `tiles.default_tile` with the model's width and 2 GiB.
        outputs: "last" output of the model, or the "mean" of the probabilities of all of them.
        overlapping: Whether a pixel may be of several classes; each channel then has a sigmoid of its own, and
            the labels are sets of classes, Σ 2^k.
        device: Where to run; the model is moved there. Left out: where the model is.
        labels: Array to write the classes into, uint8 of shape (*S), such as a memory map; for sets the
            smallest unsigned type that holds them. Left out: a new one.
        temperature: T of the probabilities, those of logits / T.
        on_probabilities: Called for each tile with the region decided and its probabilities (K, *region),
            float32; K = 1 with sigmoid.
        on_logits: Called for each tile with the region decided and its logits (K, *region), where they are.
        on_progress: Called after each tile with the number of tiles done and of all tiles.
    """

    tile: int | Sequence[int] | None
    outputs: Outputs
    overlapping: bool
    device: torch.device | str | None
    labels: NDArray[Any] | None
    temperature: float
    on_probabilities: Callable[[tuple[slice, ...], NDArray[np.float32]], None] | None
    on_logits: Callable[[tuple[slice, ...], Tensor], None] | None
    on_progress: Callable[[int, int], None] | None


@dataclass(frozen=True)
class Prediction:
    """What came of one image.

    Attributes:
        labels: Class index of each pixel, shape (*S), uint8; or its set of classes, unsigned.
        certificate: How far tiles changed the result.
        tile: Step between tiles that was used.
        tiles: Number of tiles.
        redundancy: Pixels the network computed over pixels of the image.
    """

    labels: NDArray[Any]
    certificate: Certificate
    tile: tuple[int, ...]
    tiles: int
    redundancy: float


def predict_page(
    model: nn.Module,
    image: "ImageFile",
    normalise: Constants | None = None,
    *,
    page: int = 0,
    **options: Unpack[Options],
) -> Prediction:
    """Predict one page of an image file, reading only the window of the tile in hand.

    Args:
        model: Network; see `predict_pixels`.
        image: The file.
        normalise: (offset, scale) of the whole page; see `predict_pixels`.
        page: Page of the file.
        **options: Those of `Options`.
    """
    return predict_pixels(model, PagePixels(image, page), normalise, **options)


def predict_array(
    model: nn.Module,
    array: NDArray[np.generic],
    normalise: Constants | None = None,
    **options: Unpack[Options],
) -> Prediction:
    """Predict an array or memory map of shape (C, *S); it is read, never written. See `predict_pixels`."""
    return predict_pixels(model, ArrayPixels(array), normalise, **options)


def predict_pixels(
    model: nn.Module, pixels: Pixels, normalise: Constants | None = None, **options: Unpack[Options]
) -> Prediction:
    """Predict anything that has a shape (C, *S) and can be read in windows.

    Args:
        model: Network with a `geometry`, whose call gives logits (B, K, *S) or a tuple of them; run in
            evaluation mode, its mode restored afterwards.
        pixels: The image.
        normalise: (offset, scale), each of shape (C,): the network sees (x - offset) / scale. They belong
            to the whole image; computed per tile they would make seams. Left out: pixels as they are.
        **options: Those of `Options`.

    Returns:
        Labels and certificate. The same labels to the last pixel whatever the tile, as far as rounding goes.

    Raises:
        UsageError: A tile, or an array for the labels, that does not fit.
        DataError: An image whose axes or channels the model does not take.
        NumericalError: Logits that are not finite.
    """
    run = _Run.of(model, pixels, normalise, options)
    size, geometry = run.size, run.geometry
    step = _step(run, options.get("tile"))
    sets = run.overlapping
    labels = _labels(options.get("labels"), size, _label_type(model, run))
    on_probabilities, on_progress = options.get("on_probabilities"), options.get("on_progress")
    on_logits, temperature = options.get("on_logits"), options.get("temperature", 1.0)
    tiles = count_tiles(size, step, geometry)
    witness = Witness(size, step, geometry, seed=run.content)
    with evaluating(model):
        for done, tile in enumerate(plan_tiles(size, step, geometry), start=1):
            logits = run.logits(tile)
            labels[tile.write] = decided(logits, overlapping=sets).cpu().numpy()
            if on_probabilities:
                shares = probabilities(logits.float(), overlapping=sets, temperature=temperature)
                on_probabilities(tile.write, shares.cpu().numpy())
            if on_logits:
                on_logits(tile.write, logits)
            if tiles > 1:
                witness.see(tile, logits)
            if on_progress:
                on_progress(done, tiles)
        certificate = _certify(run, witness, tiles)
    return Prediction(labels, certificate, step, tiles, redundancy(size, step, geometry))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and without TF32; afterwards all is as it was.

    TF32 rounds the inputs of a convolution to 10 bits and does so differently for different tiles.
    """
    training = [module for module in model.modules() if module.training]
    tf32 = torch.backends.cudnn.allow_tf32
    model.eval()
    try:
        torch.backends.cudnn.allow_tf32 = False
        with torch.inference_mode():
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for module in training:
            module.training = True


@dataclass(frozen=True)
class _Run:
    """A model on an image: everything but the tile."""

    model: nn.Module
    pixels: Pixels
    geometry: Geometry
    constants: Constants | None
    outputs: Outputs
    overlapping: bool
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, model: nn.Module, pixels: Pixels, normalise: Constants | None, options: Options) -> "_Run":
        geometry = getattr(model, "geometry", None)
        if not isinstance(geometry, Geometry):
            raise TypeError(f"{type(model).__name__} has no geometry that says how far it looks")
        _check_axes(model, pixels.shape, geometry)
        if (device := options.get("device")) is not None:
            model.to(device)
        weight = next(model.parameters())
        outputs, sets = options.get("outputs", "last"), options.get("overlapping", False)
        return cls(model, pixels, geometry, normalise, outputs, sets, weight.device, weight.dtype)

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape[1:])

    @property
    def content(self) -> tuple[object, ...]:
        """The normalisation, which stands for the image's content."""
        return tuple(number for values in self.constants or () for number in np.asarray(values).tolist())

    def logits(self, tile: Tile) -> Tensor:
        """Logits of the pixels that the tile decides, shape (K, *write)."""
        # In the network's own precision, so that a tile is not computed in another one.
        exact: type[np.floating] = np.float64 if self.dtype == torch.float64 else np.float32
        read = tile.take(self.pixels.read(tile.read))
        read = read.astype(exact) if self.constants is None else normalised(read, self.constants, exact)
        run = getattr(self.model, "frugal", self.model)  # the same numbers in less memory
        outputs = run(torch.from_numpy(read)[None].to(self.device, self.dtype))
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        logits = combine(outputs, self.outputs, overlapping=self.overlapping)
        logits = logits[0][:, *tile.crop]
        # The sum is finite if all are, and costs one pass where isfinite().all() costs three.
        if not bool(torch.isfinite(logits.sum(dtype=torch.promote_types(logits.dtype, torch.float32)))):
            place = ", ".join(f"{w.start}:{w.stop}" for w in tile.write)
            found = f"the network's output for region [{place}] is not finite"
            raise NumericalError(Problem(found, expected="finite pixels and weights"))
        return logits


def _check_axes(model: nn.Module, shape: tuple[int, ...], geometry: Geometry) -> None:
    if len(shape) != geometry.ndim + 1 or min(shape) < 1:
        found = f"an image of shape {tuple(shape)}"
        raise DataError(
            Problem(found, expected=f"channels and {geometry.ndim} spatial axes, none of them empty")
        )
    wanted = getattr(model, "in_channels", shape[0])
    if shape[0] != wanted:
        raise DataError(
            Problem(f"an image of {shape[0]} channels", expected=f"{wanted}, as the model was trained on")
        )


def _step(run: _Run, tile: int | Sequence[int] | None) -> tuple[int, ...]:
    if tile is None:
        return default_tile(run.geometry, run.size, pixel_bytes=_pixel_bytes(run.model))
    try:
        return round_tile(tile, run.geometry)
    except ValueError as error:
        raise UsageError(Problem(str(error), "tile")) from error


def _pixel_bytes(model: nn.Module) -> int:
    """Bytes a pixel takes at the peak of a pass: 12 maps as wide as the first layer.

    Counted in live tensors at 320², nodes in bands: 2 to 8 for the family, 25 for UNet 3+; the kernels need some more.
    """
    first = next(model.parameters())
    return 12 * first.shape[0] * first.element_size()


def _label_type(model: nn.Module, run: _Run) -> np.dtype[Any]:
    """Of class indices, or of sets of so many classes as the model has."""
    return set_type(getattr(model, "classes", 8)) if run.overlapping else np.dtype(np.uint8)


def _labels(given: NDArray[Any] | None, size: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if given is None:
        return np.empty(size, dtype)
    if given.shape != size or given.dtype != dtype:
        found = f"an array of {given.dtype} {given.shape} for the labels"
        raise UsageError(Problem(found, "labels", f"{dtype} {size}"))
    return given


def _certify(run: _Run, witness: Witness, tiles: int) -> Certificate:
    if tiles == 1:
        whole = tuple(slice(0, side) for side in run.size)
        return Certificate(whole, 0.0, 0, 0.0, tiles, run.geometry.tile_exact)
    again, exact = run.logits(witness.tile), run.geometry.tile_exact
    rounding = getattr(run.model, "rounding", 1e-4)
    return witness.compare(again, tiles, tile_exact=exact, overlapping=run.overlapping, rounding=rounding)
