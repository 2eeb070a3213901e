"""Every format that is read: how its files begin and end, and what opens them. A new one is a row of `FORMATS`."""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from . import dicom, dicom_series, metaimage, nifti, nrrd
from .arrays import open_hdf5, open_npy
from .bitmap import open_bmp, open_pnm
from .codecs import Stored, refused
from .raster import open_jpeg, open_png
from .tiff import open_tiff
from .web import open_gif, open_webp
from .zarrs import is_zarr, open_zarr


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: As people know it.
        suffixes: Endings of its names, in lower case; the longest that fits a name is its suffix.
        open: `open(path, max_pixels, mask)` gives what the file holds, its pixels not decoded yet.
        starts: First bytes, any of these.
        told: Looks at a path and its first 512 bytes, where a fixed beginning does not tell.
        folder: Whether it is a folder, which counts as one file.
        lossy: Whether its pixels may differ from those that were saved, which no mask survives.
        single: Whether a file has one page, always, so that it need not be opened to count them.
        labels: Suffix of the label map of such an image, one of `writers.WRITERS`; "" for the same suffix.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, int, bool], Stored]
    starts: tuple[bytes, ...] = ()
    told: Callable[[Path, bytes], bool] = lambda path, head: False
    folder: bool = False
    lossy: bool = False
    single: bool = False
    labels: str = ""

    def matches(self, path: Path, head: bytes) -> bool:
        """Whether a file is of this format, by its content."""
        return head.startswith(self.starts) if self.starts else self.told(path, head)


FORMATS = (
    Format(  # before TIFF, whose beginning a DICOM file may carry as well
        "DICOM",
        dicom.SUFFIXES,
        lambda path, limit, mask: dicom.open_dicom(path, limit, mask=mask),
        told=dicom.is_dicom,
        labels=".nii.gz",
    ),
    Format(
        "PNG",
        (".png",),
        lambda path, limit, mask: open_png(path, limit),
        (b"\x89PNG\r\n\x1a\n",),
        single=True,
    ),
    Format(
        "TIFF",
        (".tif", ".tiff", ".ome.tif", ".ome.tiff"),
        lambda path, limit, mask: open_tiff(path, limit, mask=mask),
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    Format(
        "JPEG",
        (".jpg", ".jpeg"),
        lambda path, limit, mask: open_jpeg(path, limit),
        (b"\xff\xd8\xff",),
        lossy=True,
        single=True,
        labels=".png",
    ),
    Format(
        "NIfTI",
        nifti.SUFFIXES,
        lambda path, limit, mask: nifti.open_nifti(path, limit, mask=mask),
        told=nifti.is_nifti,
    ),
    Format(
        "NRRD",
        nrrd.SUFFIXES,
        lambda path, limit, mask: nrrd.open_nrrd(path, limit, mask=mask),
        (b"NRRD000",),
        labels=".nrrd",
    ),
    Format(
        "MetaImage",
        metaimage.SUFFIXES,
        lambda path, limit, mask: metaimage.open_metaimage(path, limit, mask=mask),
        told=metaimage.is_metaimage,
        labels=".mha",
    ),
    Format(
        "DICOM series",
        (),
        lambda path, limit, mask: dicom_series.open_series(path, limit, mask=mask),
        told=lambda path, head: bool(dicom_series.slices_in(path)),
        folder=True,
        labels=".nii.gz",
    ),
    Format(
        "BMP",
        (".bmp",),
        lambda path, limit, mask: open_bmp(path, limit),
        (b"BM",),
        single=True,
        labels=".png",
    ),
    Format(
        "GIF",
        (".gif",),
        lambda path, limit, mask: open_gif(path, limit, mask=mask),
        (b"GIF8",),
        labels=".png",
    ),
    Format(
        "WebP",
        (".webp",),
        lambda path, limit, mask: open_webp(path, limit, mask=mask),
        told=lambda path, head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
        labels=".png",
    ),
    Format(
        "PNM",
        (".pgm", ".ppm"),
        lambda path, limit, mask: open_pnm(path, limit),
        (b"P5", b"P6"),
        single=True,
        labels=".png",
    ),
    Format(
        "NumPy",
        (".npy",),
        lambda path, limit, mask: open_npy(path, limit, mask=mask),
        (b"\x93NUMPY",),
    ),
    Format(
        "HDF5",
        (".h5", ".hdf5"),
        lambda path, limit, mask: open_hdf5(path, limit, mask=mask),
        (b"\x89HDF\r\n\x1a\n",),
        labels=".tif",
    ),
    Format(
        "Zarr",
        (".zarr", ".ome.zarr"),
        lambda path, limit, mask: open_zarr(path, limit, mask=mask),
        told=lambda path, head: is_zarr(path),
        folder=True,
        labels=".tif",
    ),
)

IMAGE_SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMATS for suffix in form.suffixes))

_SERIES = next(form for form in FORMATS if form.folder and not form.suffixes)

_UNREAD_SUFFIXES = (
    *(".jp2", ".j2k", ".jxl", ".avif", ".heic", ".npz", ".mat", ".img", ".hdr", ".mnc"),
    *(".czi", ".nd2", ".lif", ".lsm", ".oib", ".oif", ".vsi", ".svs", ".ndpi", ".mrxs", ".scn", ".ims"),
)
"""Endings of images of other formats: where such files lie, it is said that they are left aside."""

_REFUSED_SIGNATURES = (
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"P2", "a PGM as text"),
    (b"P3", "a PPM as text"),
    (b"\x80", "a Python pickle, which is never opened"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "PDF"),
    (b"version https://git-lfs", "a Git LFS pointer, the file itself was not fetched"),
)


def suffix_of(path: PurePath) -> str:
    """The ending of a name that says its format, as it is written; the last `.x` of a file where it says none.

    >>> suffix_of(PurePath("a.b.OME.tif")), suffix_of(PurePath("a.b.txt")), suffix_of(PurePath("a"))
    ('.OME.tif', '.txt', '')
    """
    name = path.name.lower()
    fitting = [s for s in IMAGE_SUFFIXES if name.endswith(s) and len(s) < len(name)]
    if fitting:
        return path.name[-len(max(fitting, key=len)) :]
    series = isinstance(path, Path) and path.is_dir()  # called Doe.John, or 1.2.840.7
    return "" if series or path.suffix[1:].isdigit() else path.suffix


def stem_of(path: PurePath) -> str:
    """The name without `suffix_of`.

    >>> stem_of(PurePath("in/scan.v2.ome.tif"))
    'scan.v2'
    """
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_image(path: PurePath, *, folder: bool = False) -> bool:
    """Whether a name is that of an image file, or of a folder that is one image."""
    suffix = suffix_of(path).lower()
    return any(form.folder == folder and suffix in form.suffixes for form in FORMATS)


def is_unread_image(path: PurePath) -> bool:
    """Whether a name is that of an image of a format that is not read.

    >>> is_unread_image(PurePath("slide.SVS")), is_unread_image(PurePath("a.nii.gz"))
    (True, False)
    """
    return path.suffix.lower() in _UNREAD_SUFFIXES


def format_of(path: PurePath) -> Format | None:
    """The format that a name says, a folder without ending being a DICOM series; None where it says none."""
    suffix = suffix_of(path).lower()
    named = next((form for form in FORMATS if suffix in form.suffixes), None)
    series = named is None and isinstance(path, Path) and path.is_dir()
    return _SERIES if series else named


def labels_suffix(path: PurePath) -> str:
    """Suffix of the labels of an image, as the format that its name says wants it.

    >>> labels_suffix(PurePath("a.JPG")), labels_suffix(PurePath("b.ome.tif")), labels_suffix(PurePath("c.dcm"))
    ('.png', '.ome.tif', '.nii.gz')
    """
    form = format_of(path)
    return (form.labels if form else "") or suffix_of(path)


def identify(path: Path) -> Format:
    """Format of a file from its first bytes.

    Raises:
        DataError: not a regular file, empty, unreadable, or another format.
    """
    whole = f"a complete file of {', '.join(form.name for form in FORMATS)}"
    head = b""
    try:
        status = path.stat()
        folder = stat.S_ISDIR(status.st_mode)
        if not (folder or stat.S_ISREG(status.st_mode)):  # opening a named pipe would wait for ever
            raise refused(path, "not a regular file", whole, "remove it from the folder", "A24")
        if not folder:
            with path.open("rb") as file:
                head = file.read(512)
    except OSError as error:
        reason = "a broken link" if path.is_symlink() else (error.strerror or "cannot be opened").lower()
        raise refused(path, reason, whole, "check the path and its permissions", "F17") from error
    if not (head or folder):
        raise refused(
            path, "empty file of 0 bytes", whole, "copy or export the file again, or remove it", "F01"
        )
    for form in FORMATS:
        if form.folder == folder and form.matches(path, head):
            return form
    found = "a folder" if folder else f"content looks like {_guess(head)}"
    raise refused(path, found, whole, "export it as PNG or TIFF", "A15")


def _guess(head: bytes) -> str:
    for signature, name in _REFUSED_SIGNATURES:
        if head.startswith(signature):
            return name
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head")):
        return "HTML, a web page saved under an image's name"
    if text.startswith((b"{", b"[")):
        return "JSON"
    if head[4:12] in (b"ftypavif", b"ftypheic"):
        return "AVIF or HEIC"
    if not any(head):
        return "nothing but zero bytes"
    return "no image format known here"
