"""What a killed prediction leaves, so that the same command goes on: journals, and the files that are finished."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from skipway.data.sources import Source
from skipway.disk import sweep, write_json

FOLDER = ".resume"
"""In the output folder, while a prediction is not finished."""


class Resume:
    """The folder of journals beside the masks.

    Args:
        output: Folder of the masks.
        about: What a finished file depends on beside its image; those of another are not counted.
    """

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        self.folder, self._output = output / FOLDER, output
        self._about = json.loads(json.dumps(about))
        self._file = self.folder / "finished.json"
        self._finished: dict[str, Any] = {}
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            if known["about"] == self._about:
                self._finished = dict(known["files"])
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def journal(self, target: Path) -> Path:
        """Where the regions of a file are kept."""
        name = os.fsencode(str(target.relative_to(self._output)))
        return self.folder / f"{hashlib.sha256(name).hexdigest()[:16]}.regions"

    def has(self, targets: Iterable[Path], source: Source) -> bool:
        """Whether these files were written by the same command before, of the image as it is now."""
        of = stamps(source.files)
        return all(self._finished.get(self._key(target)) == [of, *_stamp(target)] for target in targets)

    def note(self, targets: Iterable[Path], source: Source) -> None:
        """These files are finished.

        Raises:
            EnvironmentFault: the disk refused.
        """
        of = stamps(source.files)
        self._finished |= {self._key(target): [of, *_stamp(target)] for target in targets}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._file, {"about": self._about, "files": self._finished})

    def clear(self, targets: Iterable[Path]) -> None:
        """All of these are finished: leave nothing behind but what belongs to other commands."""
        for target in targets:
            for path in self.folder.glob(f"{self.journal(target).stem}.*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for folder in (self.folder, self._output):
            sweep(folder)
        self._file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            self.folder.rmdir()

    def _key(self, target: Path) -> str:
        return target.relative_to(self._output).as_posix()


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
