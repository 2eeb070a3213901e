"""B: sizes, axes, orientation."""

from pathlib import Path
from typing import Any

import numpy as np

from skipway.testing.cases import Case, case, load, lone_images, pairs_of, picture, save, scene, square, tiffs


def _mask(name: str, change: Any) -> Any:
    def spoil(root: Path) -> None:
        path = root / "masks" / name
        save(path, np.ascontiguousarray(change(load(path))))

    return spoil


def _all_masks(change: Any) -> Any:
    def spoil(root: Path) -> None:
        for path in sorted((root / "masks").iterdir()):
            save(path, np.ascontiguousarray(change(load(path))))

    return spoil


def _stacks(root: Path, seed: int) -> None:
    """Three stacks of 24 slices through balls, whose sections change from slice to slice."""
    for k in range(3):
        rng = np.random.default_rng([seed, k])
        at = np.moveaxis(np.mgrid[:24, :48, :64], 0, -1)
        mask = np.zeros((24, 48, 64), np.uint8)
        for _ in range(30):
            centre, radius = rng.uniform((0, 0, 0), (24, 48, 64)), rng.uniform(3, 6)
            mask[((at - centre) ** 2).sum(axis=-1) < radius**2] = 255
        slices = np.stack([picture(rng, section) for section in mask])
        save(root / f"images/s{k}.tif", slices, metadata={"axes": "ZYX"})
        save(root / f"masks/s{k}.tif", mask, metadata={"axes": "ZYX"})


def _behind(root: Path) -> None:
    path = root / "masks/s1.tif"
    save(path, load(path)[::-1].copy(), metadata={"axes": "ZYX"})


def _sized(*sizes: tuple[int, int]) -> Any:
    """Other pairs of these sizes beside the clean ones."""

    def spoil(root: Path) -> None:
        for number, size in enumerate(sizes):
            rng = np.random.default_rng([7, number])
            labels = scene(rng, size, 2)
            labels[: max(1, size[0] // 3), : max(1, size[1] // 3)] = 1
            save(root / f"images/s{number}.png", picture(rng, labels))
            save(root / f"masks/s{number}.png", (255 * (labels > 0)).astype(np.uint8))

    return spoil


def _holds(*sizes: tuple[int, int]) -> Any:
    return lambda found: {*sizes} <= {record.size for record in found.records}


def _lone(*sizes: tuple[int, int]) -> Any:
    def spoil(root: Path) -> None:
        for number, size in enumerate(sizes):
            rng = np.random.default_rng([9, number])
            save(root / f"images/s{number}.png", rng.integers(2, 250, size, np.uint8))

    return spoil


def _tiff(name: str, change: Any, **options: Any) -> Any:
    def spoil(root: Path) -> None:
        path = root / "images" / name
        save(path, np.ascontiguousarray(change(load(path))), **options)

    return spoil


def _channels_first(root: Path, seed: int, **options: Any) -> None:
    pairs_of(root, seed, suffix=".tif")
    for path in (root / "images").iterdir():
        pixels = load(path)
        save(path, np.stack([pixels, pixels // 2, 255 - pixels]), **options)


def _named_axes(root: Path) -> None:
    for path in (root / "images").iterdir():
        save(path, load(path), metadata={"axes": "CYX"})


def _unnamed_axes(root: Path) -> None:
    for path in (root / "images").iterdir():
        save(path, load(path), metadata=None)


def _named(root: Path, seed: int) -> None:
    _channels_first(root, seed, metadata={"axes": "CYX"})


def _pyramid(root: Path) -> None:
    import tifffile

    path = root / "images/c1.tif"
    pixels = load(path)
    with tifffile.TiffWriter(path) as file:
        options: dict[str, Any] = {"photometric": "minisblack", "tile": (32, 32)}
        file.write(pixels, subifds=1, **options)
        file.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **options)


def _series(root: Path) -> None:
    pixels = load(root / "images/c1.tif")
    stack = np.stack([np.stack([pixels, pixels])[:, None]] * 2)[:, :, :, :]
    (root / "images/c1.tif").unlink()
    save(root / "images/c1.ome.tif", stack, metadata={"axes": "TZCYX"})


def _large(root: Path) -> None:
    """A tiled image that need not be decoded at once, with its mask."""
    rng = np.random.default_rng(3)
    options: dict[str, Any] = {"tile": (256, 256), "compression": "zlib", "compressionargs": {"level": 1}}
    labels = np.zeros((10_240, 10_240), np.uint8)
    labels[100:400, 200:900] = 255
    save(root / "images/big.tif", rng.integers(2, 20, labels.shape, np.uint8) + labels // 2, **options)
    save(root / "masks/big.tif", labels, **options)


def _orientation(root: Path) -> None:
    from PIL import Image

    path = root / "images/c1.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.ascontiguousarray(load(path)[::-1, ::-1])).save(path, exif=exif)


def _array(root: Path) -> None:
    np.save(root / "images/c1.npy", np.zeros((4, 4, 4), np.uint8))
    (root / "images/c1.png").unlink()


def _geotiff(root: Path) -> None:
    path = root / "images/c1.tif"
    pixels = load(path).copy()
    pixels[:8, :8] = 0
    save(path, pixels, extratags=[(42113, 2, 2, "0", True), (33550, 12, 3, (0.5, 0.5, 0.0), True)])


CASES: tuple[Case, ...] = (
    case(
        "B02",
        "one mask transposed, not square",
        "E",
        _mask("c2.png", lambda a: a.T),
        says=("c2.png", "transpose"),
    ),
    case(
        "B03",
        "all masks mirrored",
        "W",
        _all_masks(lambda a: a[:, ::-1]),
        square,
        says=("mirrored left to right",),
    ),
    case(
        "B03-slices",
        "the slices of a mask reversed",
        "W",
        _behind,
        _stacks,
        says=("1 of 3", "reversed", "s1"),
    ),
    case(
        "B03-transposed",
        "all masks transposed, square",
        "W",
        _all_masks(lambda a: a.T),
        square,
        says=("transposed", "c0"),
    ),
    case(
        "B03-one",
        "one mask upside down",
        "W",
        _mask("c3.png", lambda a: a[::-1]),
        square,
        says=("upside down", "c3"),
    ),
    case(
        "B03-shifted",
        "all masks moved by 9 and 7 pixels",
        "W",
        _all_masks(lambda a: np.roll(a, (9, -7), (0, 1))),
        square,
        says=("9 px up", "7 px to the right"),
    ),
    case(
        "B04",
        "a mask of half the size",
        "E",
        _mask("c2.png", lambda a: a[::2, ::2]),
        says=("c2.png", "nearest"),
    ),
    case("B05", "an image of one pixel", "R", _lone((1, 1)), lone_images, via="predict"),
    case("B07", "smaller than a patch", "R", _sized((9, 21)), holds=_holds((9, 21))),
    case("B08", "smaller than the network's steps", "R", _lone((3, 2)), lone_images, via="predict"),
    case("B09", "97 × 131", "R", _lone((97, 131)), lone_images, via="predict"),
    case(
        "B10",
        "a tile, and one pixel more or less",
        "R",
        _lone((64, 63), (65, 128), (127, 64)),
        lone_images,
        via="predict",
        options={"tile": 64},
    ),
    case("B11", "20 × 5000", "R", _lone((20, 5000)), lone_images, via="predict"),
    case("B12", "mixed sizes", "R", _sized((40, 50), (61, 33)), holds=_holds((40, 50), (61, 33))),
    case("B13", "104 million pixels, tiled", "R", _large, holds=_holds((10_240, 10_240)), slow=True),
    case(
        "B15",
        "five pages for one mask",
        "E",
        _tiff("c1.tif", lambda a: np.stack([a] * 5), metadata={"axes": "ZYX"}),
        tiffs,
        says=("c1.tif", "pages"),
    ),
    case(
        "B16", "channels first, named", "R", _named_axes, _named, holds=lambda f: f.records[0].channels == 3
    ),
    case(
        "B16-unnamed", "channels first, not named", "E", _unnamed_axes, _named, code="B15", says=("c0.tif",)
    ),
    case("B17", "4 × 4 × 4 numbers", "E", _array, says=("c1.npy", "axes")),
    case("B18", "several times", "E", _series, tiffs, says=("c1.ome.tif",)),
    case("B19", "a pyramid", "R", _pyramid, tiffs, holds=lambda f: {r.size for r in f.records} == {(48, 64)}),
    case("B22", "turned by its tag", "W", _orientation, says=("c1.png", "orientation")),
    case(
        "B23",
        "the tag in a PNG is obeyed",
        "R",
        _orientation,
        code="B03",
        holds=lambda f: min(r.fit.here for r in f.records) > 6,
    ),
    case(
        "B25",
        "nodata in a GeoTIFF",
        "R",
        _geotiff,
        tiffs,
        holds=lambda f: "pixels without data" in str(f.to_json()),
    ),
)
