"""Reads every PNG, TIFF and JPEG below a folder in 3 GiB of address space; prints a tally as JSON."""

import csv
import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

from skipway.errors import DataError
from skipway.images import IMAGE_SUFFIXES, open_image, open_mask


def main(root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    with (root / "index.csv").open() as file:
        stated = {row["file"]: row for row in csv.DictReader(file)}
    tally = {"image read": 0, "image refused": 0, "mask read": 0, "mask refused": 0, "shapes compared": 0}
    tally |= {"pixels compared": 0, "other": [], "slow": [], "shape differs": []}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            name = str(path.relative_to(root))
            for what, opener in (("image", open_image), ("mask", open_mask)):
                start = time.monotonic()
                try:
                    with opener(path) as file:
                        pages = [file.read(page) for page in range(file.pages)]
                    tally[f"{what} read"] += 1
                    if what == "image":
                        compare(name, path, file, pages, stated.get(name, {}), tally)
                except DataError as error:
                    tally[f"{what} refused"] += 1
                    if "\n" in str(error):
                        tally["other"].append(f"{name}: more than one line")
                except Exception as error:  # what this test looks for
                    tally["other"].append(f"{name}: {error!r}")
                if time.monotonic() - start > 5:
                    tally["slow"].append(name)
    print(json.dumps(tally))


def compare(name: str, path: Path, file, pages: list, row: dict[str, str], tally: dict) -> None:
    """Sorted lengths of all axes longer than 1, so that the order of axes does not matter."""
    known = row.get("tifffile", "") or re.sub(r"^mode \S+ ", "", row.get("pillow", ""))
    found = re.match(r"(\d+(?:x\d+)*) ", known)
    if not found or "ERROR" in known or "palette" in file.kind:
        return
    expected = sorted(n for n in map(int, found[1].split("x")) if n > 1)
    array = np.stack(pages)
    expanded = row.get("pillow", "").startswith("mode P ") or "PALETTE" in known
    dropped = row.get("pillow", "").startswith(("mode RGBA", "mode LA"))
    actual = (
        sorted(n for n in array[:, :1].shape if n > 1)
        if expanded
        else sorted(n for n in array.shape if n > 1)
    )
    tally["shapes compared"] += 1
    if actual != expected and not dropped:
        tally["shape differs"].append(f"{name}: {array.shape}, stated {found[1]}")
    if file.format == "TIFF" and not expanded and actual == expected and not file.notes:
        axes = re.search(r"axes (\w+)", known)[1]
        if axes in ("YX", "YXS", "SYX", "CYX", "ZYX", "IYX"):
            whole = tifffile.imread(path)
            if axes == "YXS":
                whole = np.moveaxis(whole, -1, 0)
            assert np.array_equal(array.reshape(whole.shape), whole, equal_nan=whole.dtype.kind == "f"), name
            tally["pixels compared"] += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
