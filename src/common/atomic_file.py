"""Write files completely or not at all."""

import os
import re
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

OWNER_ONLY = 0o600  # the mode of a private file

_WINDOWS = os.name == "nt"
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
_STALE_AFTER_S = 3600.0  # if the file system has no locks
_RENAME_PAUSES_S = (0.05, 0.1, 0.2, 0.4)


@contextmanager
def atomic_write(path: Path, mode: int = 0o666) -> Generator[BinaryIO, None, None]:
    """Open a binary file for writing. `path` keeps its old content until the new content is complete.

    The bytes go to a temporary file in the same folder, which is created if it is missing. At the end the file is
    flushed to disk and renamed. If an exception is raised inside, Ctrl-C included, the temporary file is deleted and
    `path` is unchanged. `mode` is the permissions of the new file, before the umask.
    """
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(target.parent)
    file = _create_temporary(target, mode)
    temporary = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not _WINDOWS:
                _rename(temporary, target)  # while the lock is held: closing the file releases it
        if _WINDOWS:  # it does not rename open files
            _rename(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_stale_temporaries(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder, whatever files they were to become."""
    try:
        leftovers = [folder / name for name in os.listdir(folder) if _TEMPORARY.fullmatch(name)]
    except OSError:  # no such folder yet, or one that this user may not list
        return
    for leftover in leftovers:
        try:
            if _is_stale(leftover):
                leftover.unlink()
        except OSError:  # already gone, in use, or owned by someone else
            continue


def _create_temporary(target: Path, mode: int) -> BinaryIO:
    """A new file next to `target`, open for writing. A lock shows other processes that it is in use."""
    while True:
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        file = open(temporary, "xb", opener=partial(os.open, mode=mode))  # noqa: SIM115
        if _lock(file) is not False and temporary.exists():
            return file
        file.close()  # another process took the file for a stale one, in the moment before it was locked


def _is_stale(temporary: Path) -> bool:
    """Whether no process is writing the file. A process id in its name proves nothing: ids are reused."""
    if _WINDOWS:  # Windows does not delete open files, so trying is safe
        return True
    with open(temporary, "r+b") as file:
        locked = _lock(file)
    return time.time() - temporary.stat().st_mtime > _STALE_AFTER_S if locked is None else locked


def _lock(file: BinaryIO) -> bool | None:
    """Lock an open file until it is closed or its process ends: False if another process holds the lock.

    None if the file system has no locks, and on Windows, where a lock would also keep this process from reading.
    """
    if _WINDOWS:
        return None
    try:
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError:
        return None


def _rename(temporary: Path, target: Path) -> None:
    """Replace `target`. On Windows this fails while another program, such as a virus scanner, has it open: retry."""
    for pause_s in _RENAME_PAUSES_S:
        try:
            return os.replace(temporary, target)
        except PermissionError:
            time.sleep(pause_s)
    os.replace(temporary, target)
