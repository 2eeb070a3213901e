"""What a killed prediction leaves, so that the same command goes on: journals, and the files that are finished."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from skipway.disk import sweep, write_json

FOLDER = ".resume"
"""In the output folder, while a prediction is not finished."""


class Resume:
    """The folder of journals beside the masks.

    Args:
        output: Folder of the masks.
        about: What a finished file depends on beside what it was made of; those of another are not counted. Asked
            for once, and only where there is something to compare it with or to note.
    """

    def __init__(self, output: Path, about: Callable[[], Mapping[str, Any]]) -> None:
        self.folder, self._output = output / FOLDER, output
        self._asked = about

    def journal(self, target: Path) -> Path:
        """Where the regions of a file are kept."""
        return self._of(target, "regions")

    def has(self, targets: Sequence[Path], made_of: Iterable[Path]) -> bool:
        """Whether the same command wrote these files before, of what it would make them of now."""
        try:
            known = json.loads(self._record(targets).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(known == self._facts(targets, made_of))

    def note(self, targets: Sequence[Path], made_of: Iterable[Path]) -> None:
        """These files are finished.

        Raises:
            EnvironmentFault: the disk refused.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._record(targets), self._facts(targets, made_of))

    def clear(self, targets: Iterable[Path]) -> None:
        """All of these are finished: leave nothing behind but what belongs to other commands."""
        for target in targets:
            for path in self.folder.glob(f"{self.journal(target).stem}.*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for folder in (self.folder, self._output):
            sweep(folder)
        with suppress(OSError):  # not empty
            self.folder.rmdir()

    @cached_property
    def _about(self) -> Any:
        return json.loads(json.dumps(self._asked()))

    def _facts(self, targets: Iterable[Path], made_of: Iterable[Path]) -> dict[str, Any]:
        written = {target.relative_to(self._output).as_posix(): _stamp(target) for target in targets}
        return {"about": self._about, "of": stamps(made_of), "written": written}

    def _record(self, targets: Sequence[Path]) -> Path:
        """A file of its own for what is made of one image: other commands may write into this folder, too."""
        return self._of(targets[0], "finished.json")

    def _of(self, target: Path, ending: str) -> Path:
        name = os.fsencode(str(target.relative_to(self._output)))
        return self.folder / f"{hashlib.sha256(name).hexdigest()[:16]}.{ending}"


def stamps(files: Iterable[Path]) -> list[Any]:
    """Name, size and time of files, or of all files in folders, as one short list that changes when they do."""
    digest, count = hashlib.sha256(), 0
    for path in files:
        inner = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inner:
            name = os.fsencode(str(file.relative_to(path) if path.is_dir() else file.name))
            digest.update(repr((name, *_stamp(file))).encode())
            count += 1
    return [count, digest.hexdigest()]


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return [-1, -1]
    return [found.st_size, found.st_mtime_ns]
