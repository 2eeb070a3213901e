"""Write the pages and drawings that come from the code: `uv run python docs/make.py`.

`tests/unit/test_docs.py` fails when one of them is out of date.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skipway.cli.drawing import drawing
from skipway.cli.reference import reference
from skipway.doctor.codes import page as codes

DOCS = Path(__file__).parent

DRAWINGS: Mapping[str, Mapping[str, Any]] = {
    "unet_2015": {"name": "unet_2015"},
    "unet_plus_plus": {"name": "unet_plus_plus", "settings": ["supervised=true"]},
    "unet_plus_plus_L2": {"name": "unet_plus_plus", "settings": ["supervised=true"], "level": 2},
    "unet_plus_plus_valid": {"name": "unet_plus_plus", "settings": ["supervised=true", "padding=valid"]},
    "unet_e": {"name": "unet_e"},
    "unet_plus": {"name": "unet_plus"},
    "unet_3_plus": {"name": "unet_3_plus", "settings": ["supervised=true"]},
    "unet_3d": {"name": "unet", "settings": ["ndim=3", "width=32", "depth=4"]},
}
"""File in `docs/concepts/` -> what `skipway draw` is asked for."""


def pages() -> dict[Path, str]:
    """Every file that comes from the code, with its text."""
    found = {DOCS / "concepts" / f"{file}.svg": drawing(**asked) for file, asked in DRAWINGS.items()}
    return {**found, DOCS / "reference" / "models.md": reference(), DOCS / "reference" / "codes.md": codes()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(path.relative_to(DOCS.parent))
