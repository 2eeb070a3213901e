"""What every peer of a race is given: the same images and masks, the same seconds, the same form of an answer."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = tuple[str, str, str]
"""Name, path of the image, path of the mask."""


@dataclass(frozen=True)
class Job:
    """One entry of a race.

    Attributes:
        train: Pictures that train.
        val: Pictures to predict; their masks are not for reading.
        values: Mask value of class 0, 1, …; where masks number objects, of background and of inside.
        objects: Whether the masks number objects.
        grey: Whether images are read as grey.
        seconds: Wall clock from the first image read to the end of the last step.
        seed: Of everything random.
        out: Folder for the class maps.
    """

    train: tuple[Picture, ...]
    val: tuple[Picture, ...]
    values: tuple[int, ...]
    objects: bool
    grey: bool
    seconds: float
    seed: int
    out: str

    @property
    def classes(self) -> int:
        """Classes of a pixel."""
        return len(self.values)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return 1 if self.grey else 3

    def write(self, path: Path) -> Path:
        """Write it to a file, whose path comes back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path | str) -> "Job":
        """Read what `write` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    def image(self, path: str) -> NDArray[np.float32]:
        """An image from 0 to 1, (C, H, W)."""
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("L" if self.grey else "RGB"), np.float32) / 255
        return pixels[None] if self.grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def target(self, path: str) -> NDArray[np.uint8]:
        """Class of every pixel, (H, W)."""
        with Image.open(path) as file:
            mask = np.asarray(file)
        if self.objects:
            return (mask > 0).astype(np.uint8)
        return np.searchsorted(self.values, mask).astype(np.uint8)

    def keep(self, name: str, class_map: NDArray[Any]) -> None:
        """Write the answer for an image: class of every pixel, (H, W)."""
        path = class_map_of(Path(self.out), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(class_map.astype(np.uint8)).save(path)

    def finish(self, clock: "Clock") -> None:
        """Write how far it came."""
        facts = {"steps": clock.steps, "seconds": clock.used}
        (Path(self.out) / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def class_map_of(folder: Path, name: str) -> Path:
    """File of the class map of an image."""
    return folder / "maps" / f"{name}.png"


@dataclass
class Clock:
    """Wall clock of a training, started when this is made."""

    seconds: float
    steps: int = 0
    used: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def ticks(self) -> Iterator[float]:
        """The share of the time that is gone, before each step, until it is all gone."""
        while (gone := time.perf_counter() - self.began) < self.seconds:
            yield gone / self.seconds
            self.steps += 1
            self.used = time.perf_counter() - self.began
