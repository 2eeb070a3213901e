"""One prediction as the work of many processes: each makes its part of the regions, whoever comes last writes the file.

The first process settles the list of regions. Every part has a journal of its own, beside the one that the command
without `--part` gathers them in; what a part has not made, that command makes. So a part that was killed, or never
started, costs its regions and nothing else.
"""

from collections.abc import Iterator
from pathlib import Path

from skipway.parts import Part


def journal_of(part: Part, gathered: Path) -> Path:
    """Where the regions of a part are kept, beside the journal that gathers those of all parts."""
    return gathered.with_name(f"{gathered.stem}.{part.number}-{part.of}{gathered.suffix}")


def journals_of_parts(gathered: Path) -> Iterator[Path]:
    """The journals of all parts that were begun, however many parts were meant."""
    yield from sorted(gathered.parent.glob(f"{gathered.stem}.*-*{gathered.suffix}"))
