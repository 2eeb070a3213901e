"""Predicts an image of any size in tiles: read a window, normalise, run, keep the classes, forget the rest.

Memory is that of one tile plus one byte a pixel for the labels. Tiles are exact (see `skipway.tiles`), so
their size is a matter of memory and time, never of the result.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipway.data.composites import set_type
from skipway.data.fingerprint import Constants, normalised
from skipway.errors import DataError, NumericalError, Problem, UsageError
from skipway.nn.rows import NotInRows
from skipway.predict.ahead import ahead
from skipway.predict.certificate import Certificate, Witness
from skipway.predict.logits import Outputs, decided, probabilities
from skipway.predict.opinions import agreed, heard, told
from skipway.predict.pixels import ArrayPixels, PagePixels, Pixels
from skipway.predict.strips import Strips, plan_strips
from skipway.shapes import Geometry
from skipway.tiles import Tile, count_tiles, default_tile, plan_tiles, redundancy, round_tile

if TYPE_CHECKING:
    from skipway.images import ImageFile


OnMap = Callable[[tuple[slice, ...], Tensor], None]
"""Told of a region and of a map there, where that is."""

Engine = Literal["tiles", "strips"]


class Options(TypedDict, total=False):
    """What may be said about a prediction; nothing of it changes the labels except `outputs`.

    Attributes:
        tile: Step between tiles, in pixels; rounded down to a multiple of the stride (`Prediction.tile`
            says to what). Left out: `tiles.default_tile` with the model's width and 2 GiB. Of strips, their
            rows; any number.
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
        on_spread: Called for each tile, before `on_logits`, with the region decided and how far its opinions lie
            apart, (*region) from 0 to 1; not called by a model that has one opinion. See `opinions.agreed`.
        on_progress: Called after each tile with the number of tiles done and of all tiles.
        engine: "strips" compute every pixel once, for a local network; "tiles" can do any network. Left out: tiles.
    """

    engine: Engine | None
    tile: int | Sequence[int] | None
    outputs: Outputs
    overlapping: bool
    device: torch.device | str | None
    labels: NDArray[Any] | None
    temperature: float
    on_probabilities: Callable[[tuple[slice, ...], NDArray[np.float32]], None] | None
    on_logits: OnMap | None
    on_spread: OnMap | None
    on_progress: Callable[[int, int], None] | None


Piece = tuple[tuple[slice, ...], Tensor]
"""A region of the image, and its logits (K, *region)."""


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
    on_spread = options.get("on_spread")
    witness = Witness(size, step, geometry, seed=run.content)
    with evaluating(model):
        strips = _strips(run, options)
        tiles = strips.count if strips else count_tiles(size, step, geometry)
        pieces = run.in_strips(strips, on_spread) if strips else run.in_tiles(step, on_spread)
        for done, (region, logits) in enumerate(pieces, start=1):
            labels[region] = decided(logits, overlapping=sets).cpu().numpy()
            if on_probabilities:
                shares = probabilities(logits.float(), overlapping=sets, temperature=temperature)
                on_probabilities(region, shares.cpu().numpy())
            if on_logits:
                on_logits(region, logits)
            if tiles > 1:
                witness.see(region, logits)
            if on_progress:
                on_progress(done, tiles)
        certificate = _certify(run, witness, tiles)
    if strips:
        return Prediction(labels, certificate, strips.size, tiles, strips.redundancy)
    return Prediction(labels, certificate, step, tiles, redundancy(size, step, geometry))


def predict_tiles(
    model: nn.Module,
    pixels: Pixels,
    normalise: Constants | None,
    tiles: Iterable[Tile],
    **options: Unpack[Options],
) -> Iterator[tuple[Tile, Tensor]]:
    """The logits of any tiles of an image, in their order; the next one is read while the network runs.

    Args:
        model: As for `predict_pixels`, but in evaluation mode already; see `evaluating`.
        pixels: The image.
        normalise: (offset, scale) of the whole image.
        tiles: Such as those of `skipway.regions.Regions.passes`.
        **options: Of those of `Options` outputs, overlapping, device and on_spread.

    Yields:
        The tile, and its logits (K, *write) where they are.

    Raises:
        DataError: An image whose axes or channels the model does not take.
        NumericalError: Logits that are not finite.
    """
    run = _Run.of(model, pixels, normalise, options)
    for tile, read in ahead(run.seen, tiles):
        yield tile, run.computed(tile, read, options.get("on_spread"))


def predict_strips(
    model: nn.Module,
    pixels: Pixels,
    normalise: Constants | None,
    stretch: slice,
    rows: int,
    **options: Unpack[Options],
) -> Iterator[Piece]:
    """The logits of a stretch of an image's first axis, strip by strip; see `predict_tiles`.

    Args:
        model: As for `predict_tiles`.
        pixels: The image.
        normalise: (offset, scale) of the whole image.
        stretch: From its first row to beyond its last.
        rows: Of a strip.
        **options: Of those of `Options` outputs, overlapping, device and on_spread.

    Yields:
        The region decided, and its logits (K, *region).

    Raises:
        UsageError: a network that is not local.
        DataError: An image whose axes or channels the model does not take.
        NumericalError: Logits that are not finite.
    """
    run = _Run.of(model, pixels, normalise, options)
    strips = strips_of(model, run.size, outputs=run.outputs, rows=rows, axis=0, stretch=stretch)
    yield from run.in_strips(strips, options.get("on_spread"))


def strips_of(model: nn.Module, size: Sequence[int], **wanted: Any) -> Strips:
    """See `plan_strips`.

    Raises:
        UsageError: the network is not local.
    """
    try:
        return plan_strips(model, size, **wanted)
    except NotInRows as error:
        found, fix = (
            f"this network cannot predict in strips: {error}",
            "leave out --engine, or `--engine tiles`",
        )
        raise UsageError(Problem(found, "engine", fix=fix)) from error


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

    def in_tiles(self, step: tuple[int, ...], on_spread: OnMap | None = None) -> Iterator[Piece]:
        """The image tile by tile."""
        for tile in plan_tiles(self.size, step, self.geometry):
            yield tile.write, self.logits(tile, on_spread)

    def in_strips(self, strips: Strips, on_spread: OnMap | None = None) -> Iterator[Piece]:
        """The image strip by strip."""
        for region, crop, outputs in strips.run(
            self.pixels, lambda read: self._given(self._normalised(read))
        ):
            yield region, self._agreed(told(outputs, self.outputs), crop, region, on_spread)

    def logits(self, tile: Tile, on_spread: OnMap | None = None) -> Tensor:
        """Logits of the pixels that the tile decides, shape (K, *write)."""
        return self.computed(tile, self.seen(tile), on_spread)

    def seen(self, tile: Tile) -> NDArray[np.floating]:
        """What the network sees of a tile, shape (C, *region)."""
        return self._normalised(tile.take(self.pixels.read(tile.read)))

    def computed(self, tile: Tile, read: NDArray[np.floating], on_spread: OnMap | None = None) -> Tensor:
        """Logits of the pixels that a tile decides, of what the network sees of it."""
        first = tuple(side.start for side in tile.region)
        said = heard(self.model, self._given(read), first, self.outputs, tile.crop)
        return self._agreed(said, tile.crop, tile.write, on_spread)

    def _normalised(self, read: NDArray[Any]) -> NDArray[np.floating]:
        """In the network's own precision, so that a tile is not computed in another one."""
        exact: type[np.floating] = np.float64 if self.dtype == torch.float64 else np.float32
        return read.astype(exact) if self.constants is None else normalised(read, self.constants, exact)

    def _given(self, read: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(read)[None].to(self.device, self.dtype)

    def _agreed(
        self,
        said: Iterable[Tensor],
        crop: tuple[slice, ...],
        region: tuple[slice, ...],
        on_spread: OnMap | None,
    ) -> Tensor:
        """Logits of a region, (K, *region), out of all that has a say in it.

        Raises:
            NumericalError: They are not finite.
        """
        both, spread = agreed(said, overlapping=self.overlapping, apart=on_spread is not None)
        if on_spread is not None and spread is not None:
            on_spread(region, spread[0][crop])
        logits = both[0][:, *crop]
        # The sum is finite if all are, and costs one pass where isfinite().all() costs three.
        if not bool(torch.isfinite(logits.sum(dtype=torch.promote_types(logits.dtype, torch.float32)))):
            place = ", ".join(f"{w.start}:{w.stop}" for w in region)
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


def _strips(run: _Run, options: Options) -> Strips | None:
    if options.get("engine") != "strips":
        return None
    return strips_of(run.model, run.size, outputs=run.outputs, rows=options.get("tile"))


def _pixel_bytes(model: nn.Module) -> int:
    """Bytes a pixel takes at the peak of a pass: what the model says, or 12 maps as wide as the first layer.

    Counted in live tensors at 320², nodes in bands: 2 to 8 for the family, 25 for UNet 3+; the kernels need some more.
    """
    if (known := getattr(model, "pixel_bytes", None)) is not None:
        return int(known)
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
