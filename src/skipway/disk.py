"""Files that are replaced as a whole: no moment at which a reader sees half of one, whatever is killed when."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from skipway.errors import EnvironmentFault, Problem

TEMPORARY = ".skipway-tmp-"
"""How the names of files begin that a killed writer may leave."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path, *, needed: int = 0, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Write `path` so that a reader sees the old file or the new one, never a part.

    Writes a temporary file beside it, syncs it, renames it over `path`, syncs the folder.

    Args:
        path: The file.
        needed: Bytes that will be written, for the message of a full disk.
        previous: What stood at `path` stays under this name; one of the two is whole at every moment.

    Raises:
        EnvironmentFault: the disk is full or the folder cannot be written; the old file stands.
    """
    temporary = _temporary(path)
    try:
        # Not by tempfile, whose files only their owner may read: a run folder is there to be shared.
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            _keep(path, previous)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error, needed) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that has become read-only; the next start sweeps
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError, needed: int = 0) -> EnvironmentFault:
    """What to say when a file or folder cannot be written; on a full disk also how much is needed and free.

    >>> print(cannot_write(Path("run"), OSError(errno.EACCES, "Permission denied")))
    run: cannot write: Permission denied. Fix: free space or choose another folder with -o
    """
    found = f"cannot write: {error.strerror or error}"
    if error.errno in _FULL and needed:
        with contextlib.suppress(OSError):
            found += f"; {needed:,} bytes are needed and {shutil.disk_usage(path.parent).free:,} are free"
    return EnvironmentFault(Problem(found, str(path), fix="free space or choose another folder with -o"))


def try_lock(file: IO[Any]) -> bool:
    """Hold an open file for this process; False where another holds it. The lock dies with the process."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove what writers of this machine that are gone left in a folder; files of those that live stay.

    Raises:
        EnvironmentFault: the disk refused.
    """
    if os.name != "posix":  # elsewhere nobody can be asked whether they live
        return
    for path in folder.glob(f"{TEMPORARY}*"):
        machine, _, process = path.name.rpartition(".")[2].partition("-")
        if machine == _machine() and process.isdecimal() and not _lives(int(process)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's
        return True
    return True


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{path.name}.{_machine()}-{os.getpid()}")


def _machine() -> str:
    """Tells the writers of several machines on one disk apart."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _keep(path: Path, previous: Path) -> None:
    """A second name for a file, in place of what had that name; on disks without links the name alone moves."""
    link = _temporary(previous)
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(previous)
    except OSError:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
        path.replace(previous)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # other systems cannot open a folder; their rename is durable by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def utf8(text: str) -> bytes:
    r"""Text as bytes; a byte of a file name that is no UTF-8 becomes the escape by which JSON gives it back.

    >>> utf8(json.dumps(os.fsdecode(b"caf\xe9"), ensure_ascii=False))
    b'"caf\\udce9"'
    """
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically: keys in the order given, no NaN, a newline at the end."""
    text = utf8(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)) + b"\n"
    with replacing(path, needed=len(text)) as file:
        file.write(text)
