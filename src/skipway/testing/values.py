"""C: bit depths and values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.testing.cases import Case, case, colours, floats, load, save, tiffs

Change = Callable[[NDArray[Any]], NDArray[Any]]


def images(change: Change, *names: str, **options: Any) -> Any:
    """Every image, or the named ones, changed."""

    def spoil(root: Path) -> None:
        for path in sorted((root / "images").iterdir()):
            if not names or path.name in names:
                save(path, np.ascontiguousarray(change(load(path))), **options)

    return spoil


def _pixel(value: float) -> Change:
    def change(pixels: NDArray[Any]) -> NDArray[Any]:
        pixels = pixels.copy()
        pixels[5, 7] = value
        return pixels

    return change


def _range(low: float, high: float) -> Any:
    return lambda f: (min(r.low for r in f.records), max(r.high for r in f.records)) == (low, high)


def _stretched(dtype: Any, low: float, high: float) -> Change:
    """Each image over the whole range, exactly."""

    def change(pixels: NDArray[Any]) -> NDArray[Any]:
        span = np.ptp(pixels.astype(float))
        return np.rint(low + (pixels.astype(float) - pixels.min()) * ((high - low) / span)).astype(dtype)

    return change


def _deep_colour(root: Path) -> None:
    import imagecodecs

    for path in (root / "images").iterdir():
        pixels = load(path).astype(np.uint16) * 257
        pixels[0, 0] = (65_535, 300, 0)
        path.write_bytes(imagecodecs.png_encode(pixels))


def _bits(root: Path) -> None:
    for path in (root / "images").iterdir():
        save(path, load(path) > 110)


def _palette(root: Path) -> None:
    from PIL import Image

    for path in (root / "images").iterdir():
        Image.fromarray(load(path)).convert("RGB").quantize(32).save(path)


def _key(root: Path) -> None:
    from PIL import Image

    for path in (root / "images").iterdir():
        Image.fromarray(load(path)).save(path, transparency=7)


def _moving(suffix: str) -> Any:
    def spoil(root: Path) -> None:
        from PIL import Image

        frames = [Image.fromarray(load(root / f"images/c{k}.png")) for k in (1, 2)]
        (root / "images/c1.png").unlink()
        frames[0].save(root / f"images/c1{suffix}", save_all=True, append_images=frames[1:])

    return spoil


def _half(root: Path) -> None:
    images(lambda a: (a * 255).astype(np.float32), "c1.tif", "c3.tif", "c5.tif")(root)


def _preview(root: Path) -> None:
    images(lambda a: (np.rint(a * 255) / 255).astype(np.float32), "c2.tif")(root)


def _channel(pixels: NDArray[Any]) -> NDArray[Any]:
    pixels = pixels.copy()
    pixels[..., 1] = 9
    return pixels


def _wide(kind: Any) -> Case:
    name = np.dtype(kind).name
    top = 4_000_000_000 if name == "uint32" else 100_000
    return case(f"C06-{name}", name, "R", images(_stretched(kind, 0, top)), tiffs, holds=_range(0, top))


CASES: tuple[Case, ...] = (
    case("C01", "16-bit ramp", "R", images(_stretched(np.uint16, 0, 65_535)), holds=_range(0, 65_535)),
    case("C02", "12 bits of 16", "R", images(_stretched(np.uint16, 0, 4095)), holds=_range(0, 4095)),
    case(
        "C03",
        "16-bit RGB PNG",
        "R",
        _deep_colour,
        colours,
        holds=lambda f: f.records[0].dtype == "uint16" and f.records[0].high == 65_535,
    ),
    case(
        "C04",
        "big-endian TIFF",
        "R",
        images(lambda a: a.astype(np.uint16) * 3, byteorder=">"),
        tiffs,
        holds=lambda f: max(r.high for r in f.records) < 770,
    ),
    case(
        "C05",
        "int16 with negatives",
        "R",
        images(_stretched(np.int16, -1000, 1000)),
        tiffs,
        holds=_range(-1000, 1000),
    ),
    *(_wide(kind) for kind in (np.uint32, np.float32, np.float64)),
    case("C07", "half 0 to 1, half 0 to 255", "E", _half, floats, says=("c0", "c1")),
    case(
        "C08",
        "8 bits, no value above 1",
        "R",
        images(lambda a: (a > 110).astype(np.uint8)),
        holds=_range(0, 1),
    ),
    case(
        "C09", "one NaN", "E", images(_pixel(np.nan), "c2.tif"), floats, says=("c2.tif", "5 down and 7 right")
    ),
    case(
        "C10",
        "one infinity",
        "E",
        images(_pixel(np.inf), "c2.tif"),
        floats,
        code="C09",
        says=("c2.tif", "infinite"),
    ),
    case("C11", "a constant image", "W", images(lambda a: np.full_like(a, 9), "c2.png"), says=("c2",)),
    case("C12", "a constant channel", "W", images(_channel, "c2.png"), colours, code="C11", says=("c2",)),
    case("C13", "one value of 1e30", "W", images(_pixel(1e30), "c2.tif"), floats, says=("c2",)),
    case("C16", "an image of zeros", "W", images(np.zeros_like, "c2.png"), code="C11", says=("c2",)),
    case("C17", "1-bit images", "R", _bits, holds=_range(0, 1)),
    case("C20", "palette images", "R", _palette, holds=lambda f: f.records[0].channels == 3),
    case("C21", "a transparent grey", "R", _key, holds=lambda f: {r.channels for r in f.records} == {1}),
    case("C22", "a moving PNG", "E", _moving(".png"), says=("c1.png",)),
    case("C22-gif", "a moving GIF", "E", _moving(".gif"), code="C22", says=("c1.gif",)),
    case("C24", "floats through 8 bits", "W", _preview, floats, says=("c2",)),
)
