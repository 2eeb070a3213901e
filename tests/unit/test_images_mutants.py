"""Damaged bytes in every format: read, or refused in one typed line, never anything else."""

import gzip
import re
import resource
import shutil
import signal
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
import zarr
from PIL import Image
from test_places import write_slice

from skipway.errors import SkipwayError
from skipway.images import FORMATS, open_image, open_mask
from skipway.images.formats import identify

ARRAY = np.random.default_rng(0).integers(0, 9, (24, 26), np.uint8)
BUDGET = 1_000_000
"""Pixels that a mutant may decode at once."""

GROWTH = 512
"""MiB that the process may grow by while it reads the mutants of one format: none takes what a header claims."""

TEXT = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Formats whose header is text, of which numbers are exchanged too."""

NUMERALS = (b"0", b"-1", b"3", b"1e9", b"99999999999", b"2.5", b"nan", b"", b"7 7")
NUMBERS = (0, 1, 127, 128, 255)
VALUES = (
    "0",
    "-1",
    "3",
    "1e9",
    "99999999999",
    "2.5",
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    '""',
    '"x"',
    '"../b"',
    '"|O"',
)


def picture(path: Path) -> None:
    Image.fromarray(ARRAY).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=ARRAY, chunks=(8, 8), compression="gzip")


def ome_zarr(path: Path) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if "3" in path.stem else 2)
    group.create_array("0", shape=ARRAY.shape, chunks=(8, 8), dtype="u1")[:] = ARRAY
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}]
    entry = {"multiscales": [{"axes": axes, "datasets": levels}]}
    group.attrs.update({"ome": entry} if "3" in path.stem else entry)


def nifti(path: Path) -> None:
    array = np.stack([ARRAY] * 3, axis=-1).astype(np.int16)
    kind = nibabel.Nifti2Image if "2" in path.name else nibabel.Nifti1Image
    nibabel.save(kind(array, np.diag([0.5, 0.5, 2, 1])), path)


def itk(path: Path) -> None:
    image = sitk.GetImageFromArray(np.stack([ARRAY] * 3))
    image.SetSpacing((0.5, 0.5, 2.0))
    sitk.WriteImage(image, path, useCompression="packed" in path.name)


def series(path: Path) -> None:
    for k in range(3):
        write_slice(path / f"{k}.dcm", ARRAY, (0, 0, k))


MAKERS = {
    "a.png": picture,
    "a.jpg": picture,
    "a.bmp": picture,
    "a.gif": picture,
    "a.webp": picture,
    "a.ppm": picture,
    "strips.tif": lambda path: tifffile.imwrite(path, ARRAY, compression="zlib", rowsperstrip=8),
    "tiles.ome.tif": lambda path: tifffile.imwrite(
        path, np.stack([ARRAY] * 3), tile=(16, 16), metadata={"axes": "ZYX"}
    ),
    "stack.tif": lambda path: tifffile.imwrite(
        path, np.stack([ARRAY] * 3), imagej=True, metadata={"axes": "ZYX"}
    ),
    "a.npy": lambda path: np.save(path, ARRAY),
    "a.h5": hdf5,
    "v2.zarr": ome_zarr,
    "v3.zarr": ome_zarr,
    "one.nii": nifti,
    "two2.nii": nifti,
    "one.nii.gz": nifti,
    "a.nrrd": itk,
    "packed.nrrd": itk,
    "a.nhdr": itk,
    "a.mha": itk,
    "packed.mha": itk,
    "a.mhd": itk,
    "a.dcm": lambda path: write_slice(path, ARRAY, (0, 0, 0), RescaleSlope="2", RescaleIntercept="-1"),
    "series": series,
}
"""One small file of each format; a format added to the table without one fails `test_every_format_is_mutated`."""


FOLDERS = (".zarr", "series")


def mutate(path: Path, rng: np.random.Generator) -> None:
    """Changes, cuts, repeats or removes a few bytes of a file, or of one file of a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        described = [p for p in files if p.suffix == ".json" or p.name.startswith(".z")]
        path = files[int(rng.integers(len(files)))]
        if described and rng.random() < 0.5:
            exchange(described[int(rng.integers(len(described)))], rng)
            return
    data = bytearray(path.read_bytes())
    packed = path.suffix == ".gz" and rng.random() < 0.7  # else the sum at its end tells at once
    if packed:
        data = bytearray(gzip.decompress(data))
    if path.suffix in TEXT and rng.random() < 0.5:
        places = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[:600]))
        at = places[int(rng.integers(len(places)))]
        data[at.start() : at.end()] = NUMERALS[int(rng.integers(len(NUMERALS)))]
        path.write_bytes(data)
        return
    for _ in range(int(rng.integers(1, 5))):
        at = min(int(len(data) * rng.random() ** 2), max(0, len(data) - 1))  # headers come first
        kind = rng.integers(8)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 9))]
        elif kind == 2:
            data[at:at] = data[at : at + int(rng.integers(1, 9))]
        elif kind == 3:
            data[at : at + 4] = bytes([NUMBERS[int(rng.integers(5))]] * 4)
        elif data:
            data[at] = NUMBERS[int(rng.integers(5))] if kind < 6 else int(rng.integers(256))
    if path.suffix == ".png" and rng.random() < 0.7:
        data = summed(bytes(data))
    path.write_bytes(gzip.compress(data, 1) if packed else data)


def summed(data: bytes) -> bytes:
    """A PNG whose chunks have right sums again, as far as it still has chunks."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        data = data[:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4) + data[end + 4 :]
        at = end + 4
    return data


def exchange(path: Path, rng: np.random.Generator) -> None:
    """One value of a JSON text becomes another value, so that it stays JSON."""
    text = path.read_text()
    places = list(re.finditer(r'-?\d+(?:\.\d+)?|"[^"]*"(?!\s*:)|null|true|false|\[\]|\{\}', text))
    if places:
        at = places[int(rng.integers(len(places)))]
        path.write_text(text[: at.start()] + VALUES[int(rng.integers(len(VALUES)))] + text[at.end() :])


def outcome(path: Path) -> str:
    """What reading gives, in a word; another error than a typed one goes through."""
    word = "read"
    for opener in (open_image,) if path.suffix == ".jpg" else (open_image, open_mask):  # no mask is a JPEG
        try:
            with opener(path, max_pixels=BUDGET) as file:
                for page in range(min(file.pages, 4)):
                    height, width = file.size
                    file.read(page, (slice(0, min(height, 64)), slice(max(0, width - 64), width)))
                    if height * width <= BUDGET:
                        file.read(page)
        except SkipwayError as error:
            if "\n" in str(error) or error.exit_code not in (3, 6):
                raise RuntimeError("not one line of a typed error") from error
            word = "refused"
    return word


def _late(*_) -> None:
    raise TimeoutError("15 seconds for one small file")


def run(folder: Path, name: str, count: int, seed: int) -> Counter:
    clean = folder / f"clean_{name}"
    MAKERS[name](clean)
    assert outcome(clean) == "read"
    signal.signal(signal.SIGALRM, _late)
    rng, counts = np.random.default_rng(seed), Counter()
    before = peak()
    bad = folder / name
    for number in range(count):
        if clean.is_dir():
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(clean, bad)
        else:
            shutil.copyfile(clean, bad)
        mutate(bad, rng)
        start = time.monotonic()
        signal.alarm(15)  # whoever catches this is found by the clock below
        try:
            counts[outcome(bad)] += 1
        except Exception as error:
            error.add_note(f"mutant {number} of {name}, seed {seed}")
            raise
        finally:
            signal.alarm(0)
        assert time.monotonic() - start < 10, (name, number)
    assert peak() - before < GROWTH, name
    return counts


def peak() -> float:
    """The most memory that this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_every_format_is_mutated(tmp_path):
    for name, make in MAKERS.items():
        make(tmp_path / name)
    assert {identify(tmp_path / name).name for name in MAKERS} == {form.name for form in FORMATS}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAKERS)
def test_mutants_are_read_or_refused(tmp_path, name):
    counts = run(tmp_path, name, 40 if name.endswith(FOLDERS) else 150, seed=0)
    assert counts["refused"] > 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAKERS)
def test_ten_thousand_mutants_are_read_or_refused(tmp_path, name, capsys):
    counts = run(tmp_path, name, 10_000, seed=1)
    with capsys.disabled():
        print(f"\n{name}: {dict(counts)}")


if __name__ == "__main__":  # one format with any number: FOLDER NAME COUNT
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    print(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), seed=2))
