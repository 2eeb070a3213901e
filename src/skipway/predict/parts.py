"""One prediction as the work of many processes: each makes its part of the regions, whoever comes last writes the file.

The first process settles the list of regions. Every part has a journal of its own, beside the one that the command
without `--part` gathers them in; what a part has not made, that command makes. So a part that was killed, or never
started, costs its regions and nothing else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skipway.errors import Problem, UsageError
from skipway.regions import share


@dataclass(frozen=True)
class Part:
    """One of several equal parts.

    Attributes:
        number: Which, from 1.
        of: How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Part 3 of 16 out of "3/16".

        Raises:
            UsageError: it is none.

        >>> Part.parse("3/16")
        Part(number=3, of=16)
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(Problem(f"found {text!r}", "--part", "a part and their number, 1/16 to 16/16"))
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.number}/{self.of}"

    def regions(self, count: int) -> range:
        """Numbers of its regions among so many."""
        return share(count, self.number, self.of)

    def journal(self, gathered: Path) -> Path:
        """Where its regions are kept, beside the journal that gathers those of all parts."""
        return gathered.with_name(f"{gathered.stem}.{self.number}-{self.of}{gathered.suffix}")


def journals_of_parts(gathered: Path) -> Iterator[Path]:
    """The journals of all parts that were begun, however many parts were meant."""
    yield from sorted(gathered.parent.glob(f"{gathered.stem}.*-*{gathered.suffix}"))
