"""L: what belongs together, and what a split must not part."""

from pathlib import Path

import numpy as np

from skipway.testing.cases import Case, case, load, pairs_of, save


def _table(patients: list[str], *, splits: bool = False, rows: int = 6) -> str:
    head = "image,mask,group" + (",split" if splits else "")
    lines = [head]
    for k, patient in enumerate(patients[:rows]):
        side = f",{'val' if k > 3 else 'train'}" if splits else ""
        lines.append(f'images/c{k}.png,masks/c{k}.png,"{patient}"{side}')
    return "\n".join(lines) + "\n"


def _stated(root: Path, seed: int) -> None:
    pairs_of(root, seed)
    (root / "pairs.csv").write_text(_table(["P1", "P1", "P2", "P2", "P3", "P3"], splits=True))


def _divided(root: Path) -> None:
    (root / "pairs.csv").write_text(_table(["P1", "P1", "P2", "P3", "P3", "P3"], splits=True))


def _spelled(root: Path) -> None:
    (root / "pairs.csv").write_text(_table(["P1", "p1 ", "P2", "P2", "P3", "P3"], splits=True))


def _missing(root: Path) -> None:
    lines = (root / "pairs.csv").read_text().splitlines()
    lines[3] = "images/c2.png,masks/c2.png,,train"
    (root / "pairs.csv").write_text("\n".join(lines) + "\n")


def _tiles(root: Path, seed: int) -> None:
    """Tiles of three slides, named by slide and place."""
    pairs_of(root, seed)
    for folder in ("images", "masks"):
        for k in range(6):
            (root / folder / f"c{k}.png").rename(root / folder / f"slide{k // 2}_x{k % 2}_y0.png")


def _listed(root: Path) -> None:
    """A list that holds out one tile of a slide."""
    (root / "val.txt").write_text("slide1_x0_y0\n")


def _frame(root: Path) -> None:
    """The image before the last once more, a little brighter and with new noise, as its next frame."""
    rng = np.random.default_rng(5)
    pixels = load(root / "images/c0.png").astype(float)
    bright = np.clip(1.1 * pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
    save(root / "images/c5.png", bright)
    (root / "masks/c5.png").write_bytes((root / "masks/c0.png").read_bytes())


def _absent(root: Path) -> None:
    (root / "val.txt").write_text("c4\nc9\n")


CASES: tuple[Case, ...] = (
    case(
        "L01", "a patient on both sides", "E", _divided, _stated, images="pairs.csv", masks=None, says=("P3",)
    ),
    case(
        "L02",
        "tiles of one slide on both sides",
        "E",
        _listed,
        _tiles,
        code="L01",
        options={"val": "val.txt"},
        says=("slide1",),
    ),
    case(
        "L03",
        "the next frame of an image, in validation",
        "W",
        _frame,
        says=("c0 with c5", "validation images"),
    ),
    case(
        "L04", "P1 and p1 with a space", "W", _spelled, _stated, images="pairs.csv", masks=None, says=("P1",)
    ),
    case(
        "L05", "a row without a group", "E", _missing, _stated, images="pairs.csv", masks=None, says=("c2",)
    ),
    case(
        "L05-list",
        "a name that is not there",
        "E",
        _absent,
        code="L05",
        options={"val": "val.txt"},
        says=("c9",),
    ),
)
