"""The run folder: JSON, safetensors and hashes, and no moment at which a reader sees half a file.

    plan.json          what is trained and how; enough to build the net again
    labels.json        the user's label values and the class each became
    split.json         which pairs trained, which validated, with SHA-256
    normalisation.json how pixels become numbers
    fingerprint.json   what the data looked like
    check.json         what the check saw of each file, so that a second start need not decode all again
    selftest.json      what the self-test found before the first step
    warnings.json      what was said during the training, if anything
    versions.json      skipway, torch, numpy, Python, machine
    model.safetensors  the weights to predict with; carries its own SHA-256
    start.safetensors  the first weights, where they come from another run
    state.safetensors  everything needed to go on training (absent once finished)
    previous.safetensors  the same of the save before, should the newest get damaged
    metrics.csv        one row per reported step
    evaluation.json    scores on the validation images beside a baseline's; scores.json has them by image
    calibration.json   temperature of the probabilities; of a fold the pixels it was fitted on as .safetensors
    familiar.json      what the training images look like, to tell images of another kind
    report.html        the page to look at
    fold-1, fold-2 …   of `--folds`: the folds, each a run folder; the weights are theirs

Weights are read by safetensors, which holds numbers and nothing else. A pickle, a zip or an archive of
code in their place is refused, not opened.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.disk import TEMPORARY, cannot_write, replacing, try_lock, utf8, write_json
from skipway.errors import CheckpointError, EnvironmentFault, Problem, SecurityError, UsageError

FORMAT = 1
MARK = "run.json"
_HASH = "skipway.sha256"
_FACTS = "skipway.facts"
_MAX_HEADER = 100 * 1024 * 1024
_CODE_CARRIERS = {
    b"PK\x03\x04": "a zip archive (PyTorch or TorchScript), which can run code",
    b"\x80": "a pickle, which can run code",
    b"\x1f\x8b": "a gzip archive",
}

Tensors = Mapping[str, NDArray[Any]]


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        CheckpointError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            Problem("file is missing", str(path), fix="copy the whole run folder")
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            Problem(f"not readable as JSON ({error})", str(path), fix="copy the run folder again")
        ) from error


def write_tensors(
    path: Path, tensors: Tensors, facts: Mapping[str, Any], *, previous: Path | None = None
) -> None:
    """Write arrays and JSON facts as one safetensors file that carries the SHA-256 of both.

    safetensors itself does not notice a flipped bit; the hash does.

    Args:
        path: The file.
        tensors: Arrays by name.
        facts: What else belongs to them.
        previous: What stood at `path` stays under this name.
    """
    from safetensors.numpy import save

    ordered = {name: np.array(tensors[name], order="C") for name in sorted(tensors)}
    text = utf8(json.dumps(facts, ensure_ascii=False, allow_nan=False)).decode()
    metadata = {_FACTS: text, _HASH: _digest(ordered, text)}
    data = save(ordered, metadata=metadata)
    with replacing(path, needed=len(data), previous=previous) as file:
        file.write(data)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_tensors` wrote and check its hash.

    Returns:
        Arrays by name, and the facts.

    Raises:
        SecurityError: the file is a pickle, an archive, or claims a header it cannot have.
        CheckpointError: the file is missing, cut, or differs from what was written.
    """
    from safetensors import SafetensorError, safe_open

    refuse_code(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _damaged(path, f"not a whole safetensors file ({error})") from error
    text = metadata.get(_FACTS, "")
    if metadata.get(_HASH) != _digest(tensors, text):
        raise _damaged(path, "its SHA-256 is not the one it was written with")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its facts are not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise _damaged(path, "its facts are no JSON object")
    return tensors, facts


def refuse_code(path: Path) -> None:
    """Refuse anything that is not safetensors by its first bytes, without parsing it.

    safetensors starts with the length of its header in 8 bytes; the header is JSON and starts with a brace.

    Raises:
        SecurityError: a pickle, an archive or anything else, or an impossible header length.
        CheckpointError: no such file, or next to nothing in it.
    """
    if not path.is_file():
        raise CheckpointError(
            Problem("file is missing", str(path), fix="copy the whole run folder, or train again")
        )
    with path.open("rb") as file:
        head = file.read(9)
    if len(head) < 9:
        raise _damaged(path, f"only {len(head)} bytes")
    length = int.from_bytes(head[:8], "little")
    if head[8:] != b"{" or length > _MAX_HEADER:
        what = next(
            (name for magic, name in _CODE_CARRIERS.items() if head.startswith(magic)), "another kind of file"
        )
        raise SecurityError(
            Problem(f"found {what}", str(path), "safetensors", "use a file that skipway wrote")
        )


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        Problem(
            what, str(path), "the file as it was written", "copy it again, or train again into a new folder"
        )
    )


def _digest(tensors: Tensors, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Run:
    """A run folder, by path."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> "Run":
        """Start a run in a new or empty folder.

        Raises:
            UsageError: the folder holds something already.
            EnvironmentFault: the folder cannot be made.
        """
        cls(path).require_free()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                Problem(f"cannot make the folder: {error.strerror}", str(path), fix="choose another with -o")
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open a run folder that `train` wrote.

        Raises:
            UsageError: the folder is missing or holds no run.
            CheckpointError: it was written in a newer format.
        """
        if not (path / MARK).is_file():
            found = "no such folder" if not path.exists() else "not a run folder"
            raise UsageError(
                Problem(found, str(path), "a folder written by `skipway train … -o RUN`", "check the name")
            )
        written = read_json(path / MARK)
        if not isinstance(written, dict) or written.get("format") != FORMAT:
            raise CheckpointError(
                Problem(
                    f"run format {written.get('format') if isinstance(written, dict) else '?'}",
                    str(path),
                    f"format {FORMAT}",
                    "update skipway",
                )
            )
        return cls(path)

    def require_free(self) -> None:
        """Accept a missing or empty folder, or one with nothing but what a start that was killed left.

        Raises:
            UsageError: the folder holds something already.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(
                Problem(
                    "is a file", str(self.path), "a folder to write the run to", "give another name with -o"
                )
            )
        names = [entry.name for entry in self.path.iterdir()] if self.path.exists() else []
        if (self.path / "data" / "arrays.json").is_file():  # the data of this very run, written before it
            names.remove("data")
        if any(name != ".lock" and not name.startswith(TEMPORARY) for name in names):
            raise UsageError(
                Problem(
                    "the folder is not empty and holds no run",
                    str(self.path),
                    "a new or empty folder",
                    "give another name with -o",
                )
            )

    @property
    def folds(self) -> tuple["Run", ...]:
        """The runs of the folds that this one is made of; none where it is a training by itself."""
        mark = self.read(MARK.removesuffix(".json"))
        asked = mark.get("asked") if isinstance(mark, dict) else None
        count = asked.get("folds") if isinstance(asked, dict) else None
        numbers = range(1, count + 1) if isinstance(count, int) else ()
        return tuple(Run(self.path / f"fold-{number}") for number in numbers)

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.exists and self.read(MARK.removesuffix(".json")).get("finished") is True

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / MARK).is_file()

    def write(self, name: str, value: Any) -> None:
        """Write `name`.json."""
        write_json(self.path / f"{name}.json", value)

    def read(self, name: str) -> Any:
        """Read `name`.json."""
        return read_json(self.path / f"{name}.json")

    def sweep(self) -> None:
        """Remove temporary files that a killed writer left here; nothing else is touched."""
        masks = (self.path / "validation").rglob(".*.part.tif")
        for entry in (*self.path.glob(f"{TEMPORARY}*"), *masks):
            entry.unlink(missing_ok=True)

    def require_writable(self) -> None:
        """Find out before hours of work whether the folder can be written.

        Raises:
            EnvironmentFault: it, or the folder that it would be made in, cannot.
        """
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise cannot_write(there, OSError(errno.EACCES, "no permission, or a read-only disk"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one writer. The lock is the operating system's and dies with the process.

        Raises:
            UsageError: another process trains in this folder.
            EnvironmentFault: the folder cannot be written.
        """
        try:
            opened = (self.path / ".lock").open("a+")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with opened as file:
            if not try_lock(file):
                raise UsageError(
                    Problem(
                        "another skipway is writing here",
                        str(self.path),
                        fix="wait for it, or give another -o",
                    )
                )
            yield

    def append_metrics(
        self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, keep_to: int | None = None
    ) -> None:
        """Add rows to metrics.csv.

        Args:
            columns: Names of the columns.
            rows: What to add.
            keep_to: Old rows after this step are dropped: no state was saved with them.

        Raises:
            EnvironmentFault: it cannot be written.
            CheckpointError: what stands there is no such table.
        """
        path = self.path / "metrics.csv"
        try:
            old = [row for row in self.metrics() if keep_to is None or int(row["step"]) <= keep_to]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise CheckpointError(
                Problem(f"not the table that training writes ({error})", str(path), fix="move it away")
            ) from error
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*old, *rows])
        text = utf8(buffer.getvalue())
        with replacing(path, needed=len(text)) as file:
            file.write(text)

    def metrics(self) -> Iterator[dict[str, str]]:
        """Rows of metrics.csv, as text."""
        path = self.path / "metrics.csv"
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                yield from csv.DictReader(file)
