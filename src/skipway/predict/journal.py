"""The manifest of a prediction: finished regions in one file that only grows, each with its own checksum.

The first line says whose regions they are: network, input, options, and the list of regions. What follows is one record
a region: a mark, its number, what arrays it holds, their packed bytes, and a SHA-256 over all of it. A writer that is
killed leaves half a record at the end, which fails its checksum, as does any bit that turns later: such a region counts
as not made. Nothing is ever written over, so that no moment exists in which a finished region could be lost.

    skipway regions 1 {"network": …}⏎
    SKRG number:8 description:4 payload:8   sha256:32   description (JSON)   payload (zlib pieces)
"""

import contextlib
import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from skipway.disk import cannot_write, try_lock, utf8
from skipway.errors import DataError, Problem, UsageError

_FIRST = b"skipway regions 1 "
_HEAD = struct.Struct("<4sQIQ32s")
_MARK = b"SKRG"
_CHUNK = 1 << 20
_PIECE = 1 << 18
"""Bytes of an array that are packed together at least, so that a part of a region can be read alone."""

_LONGEST = 1 << 24
_LEVEL = 1
"""Of zlib: labels shrink to little at any."""


class Journal:
    """The finished regions of one image; a context manager.

    Threads may share it. Two processes cannot write one file: give each its own, and bring them together by `absorb`.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Open a manifest, and go on with what it holds if it is about the same.

        Args:
            path: The file; made where it is missing.
            about: Plain values that tell whose regions they are.
            fresh: Throw away what is there.

        Raises:
            UsageError: another process has it open.
            EnvironmentFault: the file cannot be written.
        """
        self.path, self._lock = path, Lock()
        self._at: dict[int, int] = {}
        self.damaged = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what a full disk refused must not linger. Whatever is written goes to the end.
            self._file: IO[bytes] = path.open("ab+", buffering=0)
            self._hold()
            known = None if fresh else about_of(path)
            if known != json.loads(json.dumps(about)):
                self._file.truncate(0)
                self._file.write(_first_line(about))
            end = self._scan()
            self._file.truncate(end)
        except OSError as error:
            raise cannot_write(path, error) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the regions that are finished."""
        return frozenset(self._at)

    def add(self, number: int, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Append a finished region; in the file when this returns, though a power failure may still take it.

        Args:
            number: Of the region.
            arrays: By name, of any type and shape.

        Returns:
            Bytes that were written.

        Raises:
            EnvironmentFault: the disk is full.
        """
        record = packed(number, arrays)
        self._append(number, record)
        return len(record)

    def take(self, record: bytes) -> None:
        """Append a finished region that was packed elsewhere, by `packed`.

        Raises:
            DataError: it was damaged on the way.
            EnvironmentFault: the disk is full.
        """
        number = number_of(record)
        if number is None:
            raise DataError(Problem("a region was damaged on its way here", str(self.path)))
        self._append(number, record)

    def absorb(self, other: "Journal") -> int:
        """Take over the regions that another manifest has and this one has not; how many they were.

        Raises:
            EnvironmentFault: the disk is full.
        """
        wanted = sorted(other.done - self.done)
        for number in wanted:
            self._append(number, other._record(number))
        return len(wanted)

    def forget(self, number: int) -> None:
        """Count a region as not made; the next that is added under its number counts."""
        del self._at[number]

    def read(self, number: int, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """An array of a finished region, or some of its rows (the first axis).

        Raises:
            KeyError: no such region or array.
            DataError: the file was damaged after it was opened.
        """
        start = self._at[number]
        try:
            with self._lock:
                self._file.seek(start)
                _, _, length, _, _ = _HEAD.unpack(self._file.read(_HEAD.size))
                described = json.loads(self._file.read(length))
            at = start + _HEAD.size + length
            for found, dtype, shape, step, sizes in described:
                if found == name:
                    return self._rows(at, np.dtype(dtype), tuple(shape), step, sizes, rows)
                at += sum(sizes)
        except (ValueError, struct.error, zlib.error, TypeError) as error:
            fix = "give the same command again: it makes the region anew"
            raise DataError(
                Problem(f"region {number} was damaged on the disk", str(self.path), fix=fix)
            ) from error
        raise KeyError(name)

    def close(self) -> None:
        """Free the file, which stays."""
        self._file.close()

    def remove(self) -> None:
        """Free the file and delete it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _hold(self) -> None:
        if not try_lock(self._file):
            self._file.close()
            fix = "wait for it, or give another folder with -o"
            raise UsageError(Problem("another skipway predicts this image", str(self.path), fix=fix))

    def _append(self, number: int, record: bytes) -> None:
        with self._lock:
            end, rest = self._file.seek(0, 2), memoryview(record)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._cut(end)
                raise cannot_write(self.path, error, len(record)) from error
            self._at[number] = end

    def _record(self, number: int) -> bytes:
        with self._lock:
            self._file.seek(self._at[number])
            head = self._file.read(_HEAD.size)
            _, _, length, payload, _ = _HEAD.unpack(head)
            return head + self._file.read(length + payload)

    def _rows(
        self, at: int, dtype: np.dtype[Any], shape: tuple[int, ...], step: int, sizes: list[int], rows: slice
    ) -> NDArray[Any]:
        first, last, _ = rows.indices(shape[0])
        found = np.empty((max(0, last - first), *shape[1:]), dtype)
        for index, size in enumerate(sizes):
            top = index * step
            bottom = min(top + step, shape[0])
            if top < last and bottom > first:
                with self._lock:
                    self._file.seek(at)
                    packed = self._file.read(size)
                piece = np.frombuffer(zlib.decompress(packed), dtype).reshape(bottom - top, *shape[1:])
                above, below = max(top, first), min(bottom, last)
                found[above - first : below - first] = piece[above - top : below - top]
            at += size
        return found

    def _cut(self, end: int) -> None:
        """Takes half a record away again, as far as the disk lets us; what stays fails its checksum."""
        try:
            self._file.truncate(end)
        except OSError:
            return

    def _scan(self) -> int:
        """Finds the records whose checksum holds; the end of the last of them, from where the file goes on."""
        file = self._file
        file.seek(0)
        good = at = len(file.readline())
        size = file.seek(0, 2)
        while at < size:
            number, after = self._checked(at, size)
            if number is None:
                self.damaged += 1
                at = _next_mark(file, at + 1, size)
                continue
            self._at[number] = at
            good = at = after
        return good

    def _checked(self, at: int, size: int) -> tuple[int | None, int]:
        """Number of the record at a place and where it ends; None where it is damaged."""
        file = self._file
        file.seek(at)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None, size
        mark, number, length, payload, digest = _HEAD.unpack(head)
        end = at + _HEAD.size + length + payload
        if mark != _MARK or end > size:
            return None, size
        found = hashlib.sha256(head[:-32])
        left = length + payload
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                return None, size
            found.update(chunk)
            left -= len(chunk)
        return (number, end) if found.digest() == digest else (None, end)


def packed(number: int, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A finished region as a journal keeps it, checksum and all.

    >>> number_of(packed(7, {"labels": np.zeros((2, 3), np.uint8)}))
    7
    """
    described, pieces = [], []
    for name, array in arrays.items():
        rows = max(1, _PIECE // max(1, array[:1].nbytes))
        shrunk = [
            zlib.compress(np.ascontiguousarray(array[at : at + rows]).data.cast("B"), _LEVEL)
            for at in range(0, len(array), rows)
        ]
        described.append([name, array.dtype.str, [*array.shape], rows, [len(piece) for piece in shrunk]])
        pieces += shrunk
    text = json.dumps(described).encode()
    payload = b"".join(pieces)
    head = _HEAD.pack(_MARK, number, len(text), len(payload), bytes(32))[:-32]
    return head + hashlib.sha256(head + text + payload).digest() + text + payload


def number_of(record: bytes) -> int | None:
    """Number of a packed region; None where it is damaged."""
    if len(record) < _HEAD.size:
        return None
    mark, number, text, payload, digest = _HEAD.unpack(record[: _HEAD.size])
    whole = mark == _MARK and len(record) == _HEAD.size + text + payload
    found = hashlib.sha256(record[: _HEAD.size - 32] + record[_HEAD.size :]).digest()
    return number if whole and found == digest else None


def settled(path: Path, about: Mapping[str, Any]) -> Any:
    """What the first line of a manifest says that several processes begin: what the first of them would have it say.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(_first_line(about))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # unlike a rename it fails where another was faster
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)
    return about_of(path)


def _first_line(about: Mapping[str, Any]) -> bytes:
    return _FIRST + utf8(json.dumps(about, ensure_ascii=False)) + b"\n"


def about_of(path: Path) -> Any:
    """What the first line of a manifest says; None where there is no manifest."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST)
    except FileNotFoundError:
        return None
    if not line.startswith(_FIRST) or not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line[len(_FIRST) :])
    except ValueError:
        return None


def differences(before: Any, now: Mapping[str, Any]) -> list[str]:
    """Keys in which two descriptions differ, in the order of the second.

    >>> differences({"network": "a", "input": 1}, {"network": "b", "input": 1})
    ['network']
    """
    known = before if isinstance(before, dict) else {}
    plain = json.loads(json.dumps(now))
    return [key for key, value in plain.items() if known.get(key) != value]


def _next_mark(file: IO[bytes], at: int, size: int) -> int:
    """Where the next mark stands that may begin a record; the end of the file where there is none."""
    while at < size:
        file.seek(at)
        chunk = file.read(_CHUNK)
        found = chunk.find(_MARK)
        if found >= 0:
            return at + found
        if len(chunk) < _CHUNK:
            return size
        at += len(chunk) - len(_MARK) + 1
    return size
