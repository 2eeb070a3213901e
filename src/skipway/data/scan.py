"""Looking at thousands of pairs: on all cores, in children that may die, and never twice at the same bytes.

Small sets are read by threads. From `MANY` pairs on, or when asked, each core gets a child process that reads one job
a line on its input and answers one line of JSON: a decoder that crashes or hangs then costs its own file and no more.
What was seen is kept under the state of the files (size, times and inode, and SHA-256 where these changed).
"""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Timer
from typing import Any

from skipway import __version__
from skipway.data.layouts import Pair
from skipway.data.records import FileRecord
from skipway.data.sources import Source
from skipway.errors import EnvironmentFault, Problem
from skipway.machine import cores

MANY = 200
"""Pairs from which children are worth the two seconds that they need to start."""

WORKER = (sys.executable, "-m", "skipway.data.worker")

READY = "ready"
"""What a child says when it has started, so that its start does not count as time for a file."""

START = 300.0
"""Longest start of a child, seconds; machines can be very busy."""

Job = Sequence[Pair]


@dataclass
class Found:
    """What one pair gave: a record, or problems."""

    record: FileRecord | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Scan:
    """How to look, and what was seen before.

    Attributes:
        isolate: Decode in children, always or never; by the number of pairs without it.
        seconds: Longest time for one pair of files in a child, and one more for each 10 MB.
        before: What an earlier scan stored, see `remembered`.
        worker: The command of a child.
    """

    isolate: bool | None = None
    seconds: float = 60.0
    before: Mapping[str, Any] = field(default_factory=dict, repr=False)
    worker: tuple[str, ...] = WORKER


def scan(
    jobs: Sequence[Job],
    look: Callable[[Job, int | None], list[Found]],
    how: Scan,
    ignore: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Found], dict[str, Any]]:
    """Looks at every job that was not seen before.

    Args:
        jobs: Pairs that share their files.
        look: What looks at one job in this process.
        how: See `Scan`.
        ignore: Mask value of pixels without annotation.
        progress: Called with (pairs done, pairs in all).

    Returns:
        What was found, in the order of the jobs, and what to remember for the next time.
    """
    total = sum(map(len, jobs))
    isolate = total >= MANY if how.isolate is None else how.isolate
    found: list[Found] = []
    memory: dict[str, Any] = {}
    with ThreadPoolExecutor(min(cores(), max(1, len(jobs)))) as pool, _Children(how, isolate) as children:

        def one(job: Job) -> tuple[list[Found], dict[str, Any]]:
            known, kept = recalled(job, ignore, how.before)
            if known is not None:
                return known, kept
            result = children.look(job, ignore) if isolate else look(job, ignore)
            return result, remembered(job, ignore, result)

        for part, kept in pool.map(one, jobs):
            found += part
            memory.update(kept)
            if progress is not None:
                progress(len(found), total)
    return found, {"version": _version(), "pairs": memory}


def patient(
    event: Callable[[Mapping[str, Any]], None], name: str, after: float = 2.0
) -> Callable[[int, int], None]:
    """Progress as events, from the moment on that somebody may wonder, seconds."""
    began = time.monotonic()

    def progress(done: int, of: int) -> None:
        if time.monotonic() - began > after:
            event({"event": "file", "name": name, "done": done, "of": of})

    return progress


class _Children:
    """Processes that decode; one is taken for a job and given back, a dead one is replaced by the next."""

    def __init__(self, how: Scan, wanted: bool) -> None:
        self._how, self._wanted = how, wanted
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all: list[subprocess.Popen[str]] = []
        self._lock = Lock()

    def __enter__(self) -> "_Children":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):  # words that a dead child can no longer hear
                        pipe.close()

    def _take(self) -> subprocess.Popen[str]:
        with self._lock:
            if not self._free.empty():
                return self._free.get()
            child = subprocess.Popen(
                self._how.worker,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                errors="surrogateescape",
            )
            self._all.append(child)
        if _asked(child, None, START)[0].strip() != READY:
            raise EnvironmentFault(
                Problem("a process that decodes images did not start", fix="try again with --no-isolate")
            )
        return child

    def look(self, job: Job, ignore: int | None) -> list[Found]:
        """The answer of a child, or a problem that names the files it died of."""
        child = self._take()
        limit = self._how.seconds + sum(_size(path) for path in _files(job)) / 10e6
        question = json.dumps({"ignore": ignore, "pairs": [_plain(pair) for pair in job]})
        answer, late = _asked(child, question, limit)
        if not answer.endswith("\n"):
            return [Found(problems=[_died(job, child.wait(), limit if late else None)])]
        self._free.put(child)
        said = json.loads(answer)
        if isinstance(said, dict):  # a package is missing, which is the fault of no file
            raise EnvironmentFault(*(Problem(**problem) for problem in said["fault"]))
        return [_found(value) for value in said]


def _asked(child: subprocess.Popen[str], question: str | None, limit: float) -> tuple[str, bool]:
    """The next line a child says, empty where it died, and whether it was killed for taking too long."""
    timer = Timer(limit, child.kill)
    timer.start()
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        if question is not None:
            child.stdin.write(question + "\n")
            child.stdin.flush()
        line = child.stdout.readline()
    except OSError:
        line = ""
    finally:
        late = not timer.is_alive()
        timer.cancel()
    return line, late


def _died(job: Job, status: int, limit: float | None) -> Problem:
    name = signal.Signals(-status).name if status < 0 else f"exit {status}"
    what = f"took more than {limit:.0f} s to decode" if limit is not None else f"the decoder died ({name})"
    files = " or ".join(str(part) for part in (job[0].image.whole, job[0].mask.whole))
    return Problem(
        what,
        files,
        "files that decode",
        "export both files again, or leave them out",
        "F20",
    )


def answer(line: str, look: Callable[[Job, int | None], list[Found]]) -> str:
    """What a child says to a line of its input."""
    asked = json.loads(line)
    job = [
        Pair(name, Source.from_json(image), Source.from_json(mask)) for name, image, mask in asked["pairs"]
    ]
    try:
        found = look(job, asked["ignore"])
    except EnvironmentFault as fault:
        return json.dumps({"fault": [asdict(p) for p in fault.problems]})
    return json.dumps([
        {"record": f.record and f.record.to_json(), "problems": [asdict(p) for p in f.problems]}
        for f in found
    ])  # fmt: skip


def _plain(pair: Pair) -> list[Any]:
    return [pair.name, pair.image.to_json(), pair.mask.to_json()]


def _found(value: Mapping[str, Any]) -> Found:
    record = value["record"] and FileRecord.from_json(value["record"])
    return Found(record or None, [Problem(**problem) for problem in value["problems"]])


def remembered(job: Job, ignore: int | None, found: Sequence[Found]) -> dict[str, Any]:
    """What was seen of a job and the state of its files; nothing where there was a problem."""
    if any(f.record is None for f in found):
        return {}
    try:
        "".join([*(pair.name for pair in job), *map(str, _files(job))]).encode()
        files = {str(path): [*_state(path), _content(path)] for path in _files(job)}
    except (OSError, UnicodeEncodeError):  # names that are no UTF-8 cannot be written down
        return {}
    return {_key(job, ignore): {"files": files, "records": [f.record.to_json() for f in found if f.record]}}


def recalled(
    job: Job, ignore: int | None, before: Mapping[str, Any]
) -> tuple[list[Found] | None, dict[str, Any]]:
    """What was seen of a job whose files are the same as then, else None."""
    try:
        key = _key(job, ignore)
        stored = before["pairs"][key] if before["version"] == _version() else None
        if stored is None:
            return None, {}
        files = {}
        for path in _files(job):
            *state, content = stored["files"][str(path)]
            if state != _state(path) and content != _content(path):
                return None, {}
            files[str(path)] = [*_state(path), content]
        found = [Found(FileRecord.from_json(record)) for record in stored["records"]]
        return (found if len(found) == len(job) else None), {key: {**stored, "files": files}}
    except (KeyError, TypeError, ValueError, OSError):  # of another version, or damaged: look again
        return None, {}


def _version() -> str:
    return f"{__version__} 1"


def _key(job: Job, ignore: int | None) -> str:
    return json.dumps([ignore, *(_plain(pair) for pair in job)])


def _files(job: Job) -> tuple[Path, ...]:
    return tuple(dict.fromkeys((*job[0].image.files, *job[0].mask.files)))


def _state(path: Path) -> list[int]:
    """Size, times and inode. The time of the last change of state cannot be set back by a program."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _content(path: Path) -> str:
    """SHA-256 of the bytes. A folder that is one image is never remembered."""
    if path.is_dir():
        raise IsADirectoryError(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
