"""One of several equal parts, as it is typed: 2/5."""

import re
from dataclasses import dataclass

from skipway.errors import Problem, UsageError


@dataclass(frozen=True)
class Part:
    """One of several equal parts.

    Attributes:
        number: From 1.
        of: How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str, flag: str, *, least: int = 1) -> "Part":
        """A part as it is typed.

        Args:
            text: What was given.
            flag: The option it was given to, for the message.
            least: How many parts there must be.

        Raises:
            UsageError: it is none.

        >>> Part.parse("2/5", "--fold")
        Part(number=2, of=5)
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or not 1 <= part.number <= part.of or part.of < least:
            expected = "K/N with K from 1 to N, such as 2/5"
            most = max(least, part.of) if part else 5
            nearest = min(max(1, part.number), most) if part else 2
            fix = f"{flag} {nearest}/{most}"
            raise UsageError(Problem(f"found {text!r}", flag, expected, fix))
        return part

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.number}/{self.of}"

    def share(self, count: int) -> range:
        """Which of so many things are its own: consecutive ones, as many as the others have or one more.

        >>> [Part(number, 3).share(10) for number in (1, 2, 3)]
        [range(0, 3), range(3, 6), range(6, 10)]
        """
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)
