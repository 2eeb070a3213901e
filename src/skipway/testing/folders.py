"""A: folders and names."""

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

from skipway.testing.cases import Case, case, load, save, ten

NAMES = ("a b", "q'uo\"te", "ha#sh", "per%cent", "line\nbreak", "-dash", "smile😀")


def _remove(folder: str) -> Any:
    def spoil(root: Path) -> None:
        for path in (root / folder).iterdir():
            path.unlink()

    return spoil


def _renamed(folder: str, name: Any) -> Any:
    def spoil(root: Path) -> None:
        for number, path in enumerate(sorted((root / folder).iterdir())):
            path.rename(path.with_name(name(number, path)))

    return spoil


def _numbers(root: Path) -> None:
    for number, new in ((0, "1"), (1, "2"), (2, "10"), (3, "20"), (4, "3"), (5, "30")):
        (root / f"images/c{number}.png").rename(root / f"images/img{new}.png")
    for number, new in enumerate(("01", "02", "10", "20", "03", "31")):
        (root / f"masks/c{number}.png").rename(root / f"masks/m{new}.png")


def _shuffled(root: Path) -> None:
    for number in (4, 1, 5, 0, 3, 2):
        for folder in ("images", "masks"):
            path = root / folder / f"c{number}.png"
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)


def _one_folder(mark: str) -> Any:
    def spoil(root: Path) -> None:
        for path in sorted((root / "masks").iterdir()):
            path.rename(root / "images" / f"{path.stem}{mark}.png")
        (root / "masks").rmdir()

    return spoil


def _junk(root: Path) -> None:
    for name in (".DS_Store", "._c0.png", "Thumbs.db", "notes.txt"):
        (root / "images" / name).write_bytes(b"\0\5\26\7junk")
    hidden = root / "images" / ".ipynb_checkpoints"
    hidden.mkdir()
    shutil.copy(root / "images/c0.png", hidden / "c0-checkpoint.png")


def _as_jpeg(path: Path) -> None:
    save(path.with_suffix(".jpg"), load(path), quality=92)
    path.with_suffix(".jpg").rename(path)


def _sites(root: Path) -> None:
    for folder in ("images", "masks"):
        for number in range(6):
            goal = root / folder / f"site{number % 2}" / f"{number // 2:03d}.png"
            goal.parent.mkdir(exist_ok=True)
            (root / folder / f"c{number}.png").rename(goal)


def _accents(root: Path) -> None:
    for folder, form in (("images", "NFC"), ("masks", "NFD")):
        (root / folder / "c2.png").rename(root / folder / unicodedata.normalize(form, "café.png"))  # type: ignore[arg-type]


def _dots(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder / "c1.png").rename(root / folder / "a.b.png")


def _odd_names(root: Path) -> None:
    for folder in ("images", "masks"):
        for number, name in enumerate(NAMES[:6]):
            (root / folder / f"c{number}.png").rename(root / folder / f"{name}.png")


def _bytes_name(root: Path) -> None:
    for folder in ("images", "masks"):
        place = os.fsencode(root / folder)
        os.rename(os.path.join(place, b"c1.png"), os.path.join(place, b"\xff.png"))  # noqa: PTH104, PTH118


def _brackets(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder / "c1.png").rename(root / folder / "[1].png")


def _linked(target: str) -> Any:
    def spoil(root: Path) -> None:
        path = root / "images/c2.png"
        (root / "elsewhere.png").write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(root / target if target else path)

    return spoil


def _pipe(root: Path) -> None:
    (root / "images/c2.png").unlink()
    os.mkfifo(root / "images/c2.png")


def _copied(suffix: str) -> Any:
    def spoil(root: Path) -> None:
        pixels = load(root / "images/c0.png")
        (root / "images/c5.png").unlink()
        save(root / f"images/c5{suffix}", pixels)
        (root / "masks/c5.png").write_bytes((root / "masks/c0.png").read_bytes())

    return spoil


def _only(root: Path) -> None:
    for folder in ("images", "masks"):
        for number in range(1, 6):
            (root / folder / f"c{number}.png").unlink()


def _images_as_masks(root: Path) -> None:
    for path in (root / "images").iterdir():
        shutil.copy(path, root / "masks" / path.name)


def _exchanged(root: Path) -> None:
    (root / "images").rename(root / "was")
    (root / "masks").rename(root / "images")
    (root / "was").rename(root / "masks")


def _two_cases(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder / "c1.png").rename(root / folder / "C0.png")


def _both(root: Path) -> None:
    save(root / "images/c1.tif", load(root / "images/c1.png"))


def _page(root: Path) -> None:
    (root / "images/c3.png").write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>")


def _nifti_names(root: Path) -> None:
    from skipway.testing.geometry import nifti

    for folder in ("images", "masks"):
        for path in sorted((root / folder).iterdir()):
            nifti(path.with_name(f"scan.v2.{path.stem}.nii.gz"), load(path)[None])
            path.unlink()


def _six(found: Any) -> bool:
    return len(found.records) == 6 and all(p.image.path.stem == p.mask.path.stem for p in found.pairs.pairs)


def _all_six(found: Any) -> bool:
    return len(found.records) == 6


CASES: tuple[Case, ...] = (
    case("A01", "no image", "E", _remove("images"), says=("images", ".png")),
    case("A02", "no mask", "E", _remove("masks"), says=("masks",)),
    case("A03", "one mask of six removed", "E", lambda r: (r / "masks/c3.png").unlink(), says=("c3",)),
    case(
        "A05",
        "names that share nothing",
        "E",
        _renamed("masks", lambda n, p: f"{'qwerty'[n]}-{7 * n}.png"),
        says=("c0", "q-0"),
    ),
    case("A06", "img10 beside m02", "E", _numbers, code="A03", says=("img",)),
    case("A07", "files created in another order", "R", _shuffled, holds=_six),
    case("A08", "c1.png and c1.tif", "E", _both, says=("c1.png", "c1.tif")),
    case("A09", "masks beside images, marked", "R", _one_folder("_mask"), masks=None, holds=_all_six),
    case("A09-unmarked", "masks beside images, unmarked", "E", _one_folder("x9"), masks=None, code="A09"),
    case(
        "A10",
        "names that differ only in case",
        "E",
        lambda r: (r / "masks/c2.png").rename(r / "masks/C2.png"),
        says=("case",),
    ),
    case("A11", "suffix .PNG", "R", _renamed("images", lambda n, p: f"c{n}.PNG"), holds=_all_six),
    case(
        "A12",
        "two dots in a name",
        "R",
        _dots,
        holds=lambda f: "a.b" in {record.name for record in f.records},
    ),
    case(
        "A12-nifti",
        "scan.v2.c0.nii.gz",
        "R",
        _nifti_names,
        holds=lambda f: {r.name.partition("#")[0] for r in f.records} == {f"scan.v2.c{k}" for k in range(6)},
    ),
    case("A13", "hidden files and folders", "R", _junk, holds=_all_six),
    case("A15", "a web page named .png", "E", _page, says=("c3.png", "HTML")),
    case(
        "A16",
        "JPEG bytes in an image named .png",
        "W",
        lambda r: _as_jpeg(r / "images/c2.png"),
        says=("c2.png", "JPEG"),
    ),
    case(
        "A16-mask",
        "JPEG bytes in a mask named .png",
        "E",
        lambda r: _as_jpeg(r / "masks/c2.png"),
        code="E09",
        says=("c2.png", "JPEG"),
    ),
    case(
        "A17",
        "one name in two sites",
        "R",
        _sites,
        holds=lambda f: {r.name for r in f.records} == {f"site{s}/{n:03d}" for s in (0, 1) for n in range(3)},
    ),
    case("A18", "é in one code point and in two", "R", _accents, holds=_all_six),
    case("A19", "spaces, quotes, signs, a line break", "R", _odd_names, holds=_all_six),
    case("A20", "a name that is no UTF-8", "R", _bytes_name, holds=_all_six),
    case("A21", "[1].png", "R", _brackets, holds=_all_six),
    case("A22", "a link to an image", "R", _linked("elsewhere.png"), holds=_all_six),
    case("A22-loop", "a link to itself", "E", _linked(""), code="F17", says=("c2.png",)),
    case("A22-dangling", "a link to nothing", "E", _linked("gone.png"), code="F17", says=("c2.png", "link")),
    case("A24", "a pipe named .png", "E", _pipe, says=("c2.png", "regular")),
    case("A25", "one image in training and validation", "E", _copied(".png"), says=("c0", "c5")),
    case("A26", "the same as PNG and TIFF", "E", _copied(".tif"), code="A25", says=("c0.png", "c5.tif")),
    case("A29", "one pair", "W", _only, says=("one image",)),
    case("A31", "masks that are the images", "E", _images_as_masks, options={"task": "classes"}),
    case("A31-swapped", "images and masks exchanged", "E", _exchanged, code="A35", says=("swap", "masks")),
    case(
        "A32",
        "output inside the input",
        "E",
        lambda r: None,
        via="predict",
        code="",
        says=("inside",),
        options={"output": "images/out"},
    ),
    case("A34", "two names equal but for case", "W", _two_cases, ten, says=("C0", "case")),
)
