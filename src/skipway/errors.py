"""What skipway says when it refuses something: one line a problem, one exit code a kind.

A message has four parts: what was found, where, what was expected, and what to type next.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

NAMED = 3
"""Files of one fault that a message names."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        found: What was found, with the value.
        where: File, folder or option it was found in.
        expected: What would have been right.
        fix: What the user can type or do.
        code: Stable short name such as `D117`, for scripts and for searching the docs.
        unsafe: Whether it is a file that would be unsafe to trust, which makes the exit code 6.
    """

    found: str
    where: str = ""
    expected: str = ""
    fix: str = ""
    code: str = ""
    unsafe: bool = False

    def __str__(self) -> str:
        """`masks/a.png: found …, expected …. Fix: …`."""
        text = f"{self.where}: {self.found}" if self.where else self.found
        if self.expected:
            text += f", expected {self.expected}"
        return f"{text}. Fix: {self.fix}" if self.fix else text


_NUMBER = re.compile(r"(?<![^\s(])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![^\s,;:)])")
_PAGE = re.compile(r" page \d+$")


def folded(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """One problem for all that differ in the file only, or in more than `NAMED` files in numbers; for printing.

    >>> print(*folded([Problem("NaN", f"masks/{name}.png", fix="mend it") for name in "abcde"]))
    masks/a.png, b.png, c.png and 2 more: NaN. Fix: mend it
    """
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        words = _NUMBER.sub("#", problem.found) if problem.where else problem.found
        key = bool(problem.where), words, problem.expected, problem.fix, problem.code, problem.unsafe
        groups.setdefault(key, []).append(problem)
    lines: list[Problem] = []
    for alike in groups.values():
        same: dict[str, list[Problem]] = {}
        for problem in alike:
            same.setdefault(problem.found, []).append(problem)
        lines += [_one(alike)] if len(alike) > NAMED else [_one(group) for group in same.values()]
    return tuple(lines)


def _one(alike: Sequence[Problem]) -> Problem:
    """One line for problems that say the same, but for numbers: those of the first are given."""
    first = alike[0]
    if len(alike) == 1:
        return first
    files = list(dict.fromkeys(_PAGE.sub("", problem.where) for problem in alike))
    found = first.found
    if any(problem.found != found for problem in alike):
        found += " in the first" if len(files) > 1 else " and others"
    found += f" ({len(alike)} times)" if len(alike) > len(files) else ""
    return replace(first, found=found, where=_listed(files))


def _listed(files: Sequence[str]) -> str:
    """The first names, without the folder where it is that of the first, and how many more."""
    folder = PurePath(files[0]).parent
    names = [str(path.name if path.parent == folder else path) for path in map(PurePath, files[1:NAMED])]
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join([files[0], *names]) + more


class SkipwayError(Exception):
    """Base of every error a user can cause; carries all problems found at once, and prints those alike as one."""

    exit_code = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems: tuple[Problem, ...] = tuple(
            p if isinstance(p, Problem) else Problem(p) for p in problems
        )
        super().__init__("\n".join(str(p) for p in folded(self.problems)))

    @property
    def lines(self) -> Sequence[str]:
        """The lines the command line prints, each starting with `skipway: error`."""
        return [f"skipway: error{' ' + p.code if p.code else ''}: {p}" for p in folded(self.problems)]


class UsageError(SkipwayError):
    """The command or a call was put wrongly (exit 2)."""

    exit_code = 2


class DataError(SkipwayError):
    """The user's files cannot be used as they are (exit 3)."""

    exit_code = 3


class EnvironmentFault(SkipwayError):
    """Disk, memory, permission or device (exit 4)."""

    exit_code = 4


class NumericalError(SkipwayError):
    """Loss, gradient or weights stopped being finite (exit 5)."""

    exit_code = 5


class SecurityError(SkipwayError):
    """A file that would be unsafe to trust (exit 6)."""

    exit_code = 6

    def __init__(self, *problems: Problem | str) -> None:
        super().__init__(*problems)
        self.problems = tuple(replace(problem, unsafe=True) for problem in self.problems)


OF_A_FILE = (DataError, SecurityError)
"""What one file may raise while the others go on."""


def extra(name: str) -> str:
    """What to type for the packages of an optional part.

    >>> extra("zarr")
    "`uv sync --extra zarr`, or `pip install 'skipway[zarr]'`"
    """
    return f"`uv sync --extra {name}`, or `pip install 'skipway[{name}]'`"


def refusal(*problems: Problem) -> DataError | SecurityError:
    """All problems in one error: exit 6 where one of the files would be unsafe to trust, else 3."""
    kind = SecurityError if any(problem.unsafe for problem in problems) else DataError
    error = kind(*problems)
    error.problems = problems  # of which only some are unsafe
    return error


class StopAsked(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP; no `Exception`, so that nobody takes it for a damaged file or a failing library."""


class Interrupted(SkipwayError):
    """Stopped on request with the state saved; the same command continues (exit 75)."""

    exit_code = 75

    @property
    def lines(self) -> Sequence[str]:
        """Lines that say so without calling it an error."""
        return [f"skipway: {problem}" for problem in self.problems]


def interrupted() -> Interrupted:
    """What a `StopAsked` is to whoever reads the messages."""
    return Interrupted(Problem("interrupted; the same command goes on"))


OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
"""Words by which torch and its libraries say so, in errors of many types."""


def fault_of(error: Exception) -> SkipwayError | None:
    """What Python or torch raised, as a fault of the machine; None where it is something else."""
    # torch has no class of its own for this on a CPU
    full = any(words in str(error) for words in OUT_OF_MEMORY)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and full):
        return EnvironmentFault(Problem("not enough memory", fix="a smaller --batch, --patch or --tile"))
    if isinstance(error, OSError):
        return EnvironmentFault(Problem(error.strerror or str(error), str(error.filename or "")))
    return None


class TopologyError(ValueError):
    """A topology that cannot be built or pruned as asked."""


class ShapeError(ValueError):
    """A size that a network cannot take."""


class CheckpointError(DataError, ValueError):
    """Weights that do not fit the model or the run they are loaded into (exit 3)."""
