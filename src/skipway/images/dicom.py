"""DICOM files: the header through pydicom, the pixels frame by frame, in physical values where the file gives them.

Images: Rescale slope and intercept are applied; MONOCHROME1 (white is the smallest value) is turned to black is the
smallest; palettes and YBR become RGB. Masks keep the stored numbers.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import Box, Stored, decoding, refused, shown, sized, within_budget
from .geometry import Geometry
from .lps import from_lps
from .voxels import needed

SUFFIXES = (".dcm", ".dicom", ".ima")

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LJPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_12 = ("1.2.840.10008.1.2.4.51",)
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_QUIET = Lock()


def is_dicom(path: Path, head: bytes) -> bool:
    """Whether a file begins like DICOM."""
    return head[128:132] == b"DICM"


def read_header(path: Path) -> Any:
    """Everything of a file but its pixels.

    Raises:
        DataError: damaged.
        EnvironmentFault: pydicom is missing.
    """
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise needed("pydicom", "dicom", "DICOM") from error
    with sized(path), decoding(path), _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break a rule which no pixel depends on
        found = dcmread(path, stop_before_pixels=True)
        found.decode()
        return found


def open_dicom(path: Path, max_pixels: int, *, mask: bool) -> Stored:
    """A DICOM file, its frames as pages, not decoded yet.

    Raises:
        DataError: damaged, without pixels, a segmentation object, or packed in a way that is not read here.
        EnvironmentFault: pydicom is missing.
    """
    header = read_header(path)
    _refuse_others(path, header)
    with decoding(path):
        frames = int(header.get("NumberOfFrames") or 1)
        channels = int(header.get("SamplesPerPixel", 1))
        size = int(header.Rows), int(header.Columns)
        colour = str(header.PhotometricInterpretation)
        stored = _stored_type(header)
        geometry = geometry_of(path, header, frames)
    within_budget(path, size, channels, max_pixels, "an image")
    if frames < 1 or frames > 1 << 20:
        raise refused(path, f"{frames} frames", "at least one", "export the file again", "F08")
    with decoding(path):
        pixels = _Frames(path, header, _decoder(path, header))
        palette = _palette(header) if colour == "PALETTE COLOR" else None
        dtype, finish = _finish(path, header, stored, colour, mask=mask)
    return Stored(
        "DICOM", frames, channels, size, dtype,
        "palette" if palette is not None else "grey" if channels == 1 else "RGB",
        dtype.itemsize * 8,
        lambda page, box: finish(pixels.window(page, box), page),
        pixels.close,
        palette=palette,
        notes=("white was its smallest value (MONOCHROME1) and is its largest here",)
        if colour == "MONOCHROME1" and not mask
        else (),
        geometry=geometry,
    )  # fmt: skip


def _refuse_others(path: Path, header: Any) -> None:
    """Objects of DICOM that are no picture."""
    kind = shown(str(getattr(header.get("SOPClassUID"), "name", "a DICOM object")))
    if header.get("SOPClassUID") == _SEGMENTATION:
        fix = "convert it to NIfTI with one number a class"
        raise refused(path, "a DICOM segmentation object", "one label a voxel", fix, "F21")
    if "Rows" not in header or "Columns" not in header:
        fix = "take it out of the folder"
        raise refused(path, f"{kind}, which has no pixels", "a DICOM image", fix, "A15")


def _stored_type(header: Any) -> np.dtype[Any]:
    bits, signed = int(header.BitsAllocated), int(header.get("PixelRepresentation", 0))
    if bits not in (1, 8, 16, 32):
        raise ValueError(f"{bits} bits a pixel")
    return np.dtype(f"{'i' if signed else 'u'}{max(1, bits // 8)}")


class _Frames:
    """Frames decoded one at a time; the last is kept for the next window."""

    def __init__(self, path: Path, header: Any, decode: Callable[[int], NDArray[Any]]) -> None:
        self._path, self._decode = path, decode
        self._shape = int(header.Rows), int(header.Columns)
        self._kept: tuple[int, NDArray[Any]] | None = None
        self._lock = Lock()

    def window(self, page: int, box: Box) -> NDArray[Any]:
        with self._lock:
            if self._kept is None or self._kept[0] != page:
                self._kept = page, self._frame(page)
            pixels = self._kept[1]
        (top, bottom), (left, right) = box
        return pixels[:, top:bottom, left:right]

    def _frame(self, page: int) -> NDArray[Any]:
        with sized(self._path), decoding(self._path):
            pixels = np.asarray(self._decode(page))
            if pixels.shape[:2] != self._shape:
                raise ValueError(f"a frame of {pixels.shape}, stated {self._shape}")
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    def close(self) -> None:
        self._kept = None


def _decoder(path: Path, header: Any) -> Callable[[int], NDArray[Any]]:
    """What decodes a frame: pydicom where it can, else imagecodecs for the kinds of JPEG it knows.

    Raises:
        DataError: nothing here reads the transfer syntax; it is named.
    """
    from pydicom.pixels import get_decoder, pixel_array

    syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
    if syntax is None:
        raise refused(path, "no transfer syntax", "a complete DICOM header", "export the file again", "F21")
    with suppress(NotImplementedError):  # a syntax that pydicom knows nothing of
        if syntax not in _JPEG_12 and get_decoder(syntax).is_available:  # Pillow's JPEG has 8 bits only
            return lambda page: pixel_array(path, index=page)
    if syntax in (*_LJPEG, *_JPEG_12, *_JPEG_LS):
        return lambda page: _by_imagecodecs(path, syntax, page)
    raise refused(
        path,
        shown(f"pixels packed as {syntax.name} ({syntax})"),
        "a transfer syntax that is read here",
        "unpack it (gdcmconv --raw IN OUT, or dcmdjpeg IN OUT)",
        "F21",
    )


def _by_imagecodecs(path: Path, syntax: str, page: int) -> NDArray[Any]:
    import imagecodecs
    from pydicom import dcmread
    from pydicom.encaps import get_frame

    whole = dcmread(path)
    count = int(whole.get("NumberOfFrames") or 1)
    data = get_frame(whole.PixelData, page, number_of_frames=count)
    if syntax in _JPEG_LS:
        shape = (int(whole.Rows), int(whole.Columns), int(whole.SamplesPerPixel))
        room = np.empty(shape if shape[2] > 1 else shape[:2], f"u{int(whole.BitsAllocated) // 8}")
        pixels = imagecodecs.jpegls_decode(data, out=room)  # never more than the header of the file says
    else:
        pixels = imagecodecs.ljpeg_decode(data) if syntax in _LJPEG else imagecodecs.jpeg_decode(data)
    return np.asarray(pixels).astype(_stored_type(whole), copy=False)


def _palette(header: Any) -> NDArray[Any]:
    """Colour of every number that the stored bits can make, (N, 3)."""
    from pydicom.pixels import apply_color_lut

    numbers = np.arange(1 << int(header.BitsStored), dtype=_stored_type(header))
    return np.asarray(apply_color_lut(numbers[None], header))[0][:, :3]


def _finish(
    path: Path, header: Any, stored: np.dtype[Any], colour: str, *, mask: bool
) -> tuple[np.dtype[Any], Callable[[NDArray[Any], int], NDArray[Any]]]:
    """Type of what `read` gives, and stored numbers to it, per frame; only grey images are changed."""
    if mask or not colour.startswith("MONOCHROME"):
        return stored, lambda pixels, page: pixels
    bits, signed = int(header.get("BitsStored", header.BitsAllocated)), stored.kind == "i"
    turn = -1 if signed else (1 << bits) - 1
    table = "ModalityLUTSequence" in header

    def finish(pixels: NDArray[Any], page: int) -> NDArray[Any]:
        if table:
            from pydicom.pixels import apply_modality_lut

            return np.asarray(apply_modality_lut(pixels, header)).astype(np.float32)
        slope, intercept = _rescale(header, page)
        values = pixels.astype(np.float64)
        values = turn - values if colour == "MONOCHROME1" else values
        return (values * slope + intercept).astype(np.float32)

    return np.dtype(np.float32), finish


def _rescale(header: Any, page: int) -> tuple[float, float]:
    found = group(header, page, "PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = float(found.get("RescaleSlope") or 1), float(found.get("RescaleIntercept") or 0)
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise ValueError(f"a rescale of {slope} and {intercept}")
    return slope, intercept


def group(header: Any, page: int, sequence: str, key: str) -> Any:
    """Where a value of a frame stands: in its own group, the shared one, or the header itself."""
    frames, shared = (header.get(f"{kind}FunctionalGroupsSequence") or () for kind in ("PerFrame", "Shared"))
    for found in (*frames[page : page + 1], *shared[:1]):
        inner = found.get(sequence)
        if inner and key in inner[0]:
            return inner[0]
    return header


def geometry_of(path: Path, header: Any, frames: int) -> Geometry | None:
    """Spacing and affine of the frames of a file; the third axis from the positions of the frames."""
    measures = group(header, 0, "PixelMeasuresSequence", "PixelSpacing")
    spacing = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    if not spacing or len(spacing) != 2:
        return None
    in_plane = (float(spacing[1]), float(spacing[0]))
    places = [place(header, page) for page in range(frames)] if frames < 1 << 14 else []
    between = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0)
    if not places or None in places:
        return from_lps(path, in_plane, np.eye(2), (), world=False)
    found = [p for p in places if p is not None]
    return stacked(path, in_plane, found, between) or from_lps(path, in_plane, np.eye(2), (), world=False)


def place(header: Any, page: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(position, directions) of a frame: the centre of its first pixel, and where columns and rows go, LPS."""
    position = group(header, page, "PlanePositionSequence", "ImagePositionPatient").get(
        "ImagePositionPatient"
    )
    turn = group(header, page, "PlaneOrientationSequence", "ImageOrientationPatient").get(
        "ImageOrientationPatient"
    )
    if not position or not turn or len(position) != 3 or len(turn) != 6:
        return None
    return np.array(position, np.float64), np.array(turn, np.float64).reshape(2, 3)


def stacked(
    path: Path,
    in_plane: tuple[float, float],
    places: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    between: float,
) -> Geometry | None:
    """Geometry of parallel slices, None where they are not evenly spaced.

    Args:
        path: For messages.
        in_plane: (x, y) spacing.
        places: Of each slice.
        between: Distance of slices where there is only one.
    """
    (first, (x, y)), (last, _) = places[0], places[-1]
    step = (last - first) / (len(places) - 1) if len(places) > 1 else np.cross(x, y) * (between or 1.0)
    length = float(np.linalg.norm(step))
    if length == 0:
        return None
    for k, (position, turn) in enumerate(places):
        off = np.abs(position - first - k * step).max()
        if off > 0.01 * length or np.abs(turn - places[0][1]).max() > 1e-4:
            return None
    return from_lps(path, (*in_plane, length), np.column_stack([x, y, step / length]), first)
