"""A case: a clean data set, the fault that is put into it, and what has to be said about that."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Spoil = Callable[[Path], object]
Base = Callable[[Path, int], None]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: Row of the catalogue, with a word after it where a row has several forms.
        about: How it is made.
        verdict: "E" refused, "W" a warning that names the file, "R" the right result without that warning.
        spoil: Puts the fault into a clean data set.
        base: Makes the clean data set, given folder and seed.
        code: That the refusal or warning bears.
        says: Words it holds.
        holds: For R: whether the findings of the check are right.
        via: What meets it: "check" IMAGES MASKS, or "predict" IMAGES with a network of one grey channel.
        options: Of that call.
        images: Folder or file of the images inside the data set.
        masks: The same of the masks; None to let them be found.
        root_sees_it: Whether it also is a fault for a user who may read everything.
        slow: Whether it takes more than a few seconds.
        seed: Of the clean data set.
    """

    name: str
    about: str
    verdict: str
    spoil: Spoil
    base: Base
    code: str = ""
    says: tuple[str, ...] = ()
    holds: Callable[[Any], bool] | None = None
    via: str = "check"
    options: Mapping[str, Any] = field(default_factory=dict)
    images: str = "images"
    masks: str | None = "masks"
    root_sees_it: bool = True
    slow: bool = False
    seed: int = 0

    @property
    def row(self) -> str:
        """Of the catalogue, such as `A03`."""
        return self.name[:3]

    def seeded(self, seed: int) -> "Case":
        """The same with another seed."""
        return replace(self, seed=seed)

    def twin(self, root: Path) -> None:
        """Write the clean data set."""
        self.base(root, self.seed)

    def make(self, root: Path) -> None:
        """Write the data set with the fault."""
        self.base(root, self.seed)
        self.spoil(root)


def case(name: str, about: str, verdict: str, spoil: Spoil, base: Base | None = None, **others: Any) -> Case:
    """A case; the code is that of its row unless `code` says otherwise, the base six grey images."""
    others.setdefault("code", name[:3])
    return Case(name, about, verdict, spoil, base or grey, **others)


def digest(root: Path) -> dict[str, str]:
    """SHA-256 of every regular file below a folder."""
    found = {}
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = Path(os.fsdecode(os.path.join(folder, name)))  # noqa: PTH118
            if path.is_file() and os.access(path, os.R_OK):
                found[os.fsencode(path).hex()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def save(path: Path, array: NDArray[Any], **options: Any) -> None:
    """An array as TIFF or PNG or what else the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    else:
        from PIL import Image

        Image.fromarray(array).save(path, **options)


def load(path: Path) -> NDArray[Any]:
    """An array out of a PNG or TIFF of `save`."""
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        return np.asarray(tifffile.imread(path))
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def scene(rng: np.random.Generator, size: tuple[int, int] = (48, 64), number: int = 5) -> NDArray[np.uint16]:
    """Numbered discs that do not touch, at least one in each scene."""
    labels = np.zeros(size, np.uint16)
    rows, columns = np.mgrid[: size[0], : size[1]]
    found = 0
    for _ in range(40 * number):
        radius = rng.uniform(3, 6)
        y, x = (rng.uniform(0.05, 0.95) * side for side in size)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        if disc.sum() > 12 and not labels[(rows - y) ** 2 + (columns - x) ** 2 < (radius + 2) ** 2].any():
            found += 1
            labels[disc] = found
        if found == number:
            break
    return labels


def picture(rng: np.random.Generator, labels: NDArray[Any]) -> NDArray[np.uint8]:
    """A noisy grey image of a scene: dark ground that differs from image to image, bright discs."""
    from scipy import ndimage

    ground = ndimage.gaussian_filter(rng.normal(size=labels.shape), 6, mode="wrap")
    light = 60 + 150 * ground + 90 * (labels > 0) + rng.normal(0, 6, labels.shape)
    return np.clip(light, 2, 253).astype(np.uint8)


def pairs_of(
    root: Path,
    seed: int,
    *,
    number: int = 6,
    size: tuple[int, int] = (48, 64),
    suffix: str = ".png",
    image: Callable[[NDArray[np.uint8]], NDArray[Any]] = lambda a: a,
    mask: Callable[[NDArray[np.uint16]], NDArray[Any]] = lambda a: (255 * (a > 0)).astype(np.uint8),
    folders: Sequence[str] = ("images", "masks"),
    objects: int = 5,
) -> None:
    """Twin folders of images c0, c1, … and masks of the same names."""
    for k in range(number):
        rng = np.random.default_rng([seed, k])
        labels = scene(rng, size, objects + k % 3)
        save(root / folders[0] / f"c{k}{suffix}", image(picture(rng, labels)))
        save(root / folders[1] / f"c{k}{'.png' if suffix == '.jpg' else suffix}", mask(labels))


def grey(root: Path, seed: int) -> None:
    """Six 8-bit grey images with masks of 0 and 255."""
    pairs_of(root, seed)


def square(root: Path, seed: int) -> None:
    """Eight images of 64 × 64."""
    pairs_of(root, seed, number=8, size=(64, 64), objects=7)


def ten(root: Path, seed: int) -> None:
    """Ten images."""
    pairs_of(root, seed, number=10)


def floats(root: Path, seed: int) -> None:
    """Six float TIFFs between 0 and 1."""
    pairs_of(root, seed, suffix=".tif", image=fine)


def fine(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Floats in 0…1 with more levels than 8 bits."""
    rng = np.random.default_rng(int(pixels.sum()))
    return ((pixels + rng.random(pixels.shape)) / 256).astype(np.float32)


def tiffs(root: Path, seed: int) -> None:
    """Six 8-bit grey TIFFs."""
    pairs_of(root, seed, suffix=".tif")


def colours(root: Path, seed: int) -> None:
    """Six RGB images."""
    pairs_of(root, seed, image=rgb)


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three different channels."""
    return np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)


def classes(root: Path, seed: int) -> None:
    """Six images with the classes 0, 1, 2 and 3, the discs of three kinds."""
    pairs_of(root, seed, mask=lambda a: np.where(a > 0, (a - 1) % 3 + 1, 0).astype(np.uint8))


def numbered(root: Path, seed: int) -> None:
    """Six images with 16-bit object numbers."""
    pairs_of(root, seed, suffix=".tif", mask=lambda a: a)


def lone_images(root: Path, seed: int) -> None:
    """Six images, for prediction."""
    pairs_of(root, seed, folders=("images", "unused"))
