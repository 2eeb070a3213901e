"""The page of the fault runs: `uv run pytest -m faults --faults-json=benchmarks/results/faults.json`, then this."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FIGURES = HERE / "results" / "faults.json"
PAGE = HERE.parent / "docs" / "results" / "faults.md"

HEAD = """# Faults fired at trainings

    uv run pytest -m faults --faults-json=benchmarks/results/faults.json
    uv run python benchmarks/faults.py

The first command fires all of it at toy trainings (16 steps, 32 × 32 pixels, one thread) and keeps what it found,
the second writes this page. What is promised, and how the runs work: [reliability.md](../reliability.md).
"""


def page(found: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items() if name != "system")
    lines = [HEAD, f"**{found['line']}** ({found['machine']['system']}; {machine})", ""]
    lines += [f"Note: {found['note']}.", ""] if "note" in found else []
    lines += ["| case | fault | what was done | times | found |", "|---|---|---|---|---|"]
    for name, row in found["rows"].items():
        if "reason" in row:
            lines.append(f"| {name} | {row['fault']} | not run here | | {row['reason']} |")
        for one in row.get("runs", ()):
            lines.append(f"| {name} | {row['fault']} | {one['done']} | {one['n']} | {one['figure']} |")
        if not row["passed"] and "reason" not in row:
            lines.append(f"| {name} | {row['fault']} | **failed or not run** | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8", newline="\n")
    print(PAGE.relative_to(HERE.parent))
