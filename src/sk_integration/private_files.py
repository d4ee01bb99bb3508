"""Files that only their owner may read, written whole or not at all, by one program at a time."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

LOCK_WAIT_S = 10.0
_REPLACE_WAITS_S = (0.05, 0.1, 0.2, 0.4)
CHECK_FOLDER = "check the room and the permissions there, or pass another --memory-dir"


def readable(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 file can hold: replacement characters take their place."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def make_private_folder(folder: Path) -> None:
    """Make a folder, where it is missing, that only its owner can look into. Raises OSError in one line."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: cannot be made ({error.strerror}); {CHECK_FOLDER}") from error


def write_private(path: Path, text: str) -> None:
    """Write a UTF-8 file beside its place, flush it to the disk, then rename: the old stays until the new is whole.

    To be called inside `locked`. Raises OSError in one line; the old file is then as it was.
    """
    try:
        # Under the lock, whatever lies here belongs to a program that was killed while it saved.
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink()
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # mode 600
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error.strerror}); what was saved before is untouched; {CHECK_FOLDER}"
        ) from error


def _replace(temporary: str, path: Path) -> None:
    """Rename over `path`. Windows refuses while somebody reads it, as virus scanners do for a moment."""
    for wait_s in _REPLACE_WAITS_S:
        try:
            return os.replace(temporary, path)
        except PermissionError:
            time.sleep(wait_s)
    os.replace(temporary, path)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free `name.damaged-N.suffix` beside it, and return that path.

    Raises OSError in one line.
    """
    n = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{n}{path.suffix}")).exists():
        n += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise OSError(f"{path}: damaged, and cannot be renamed ({error.strerror}); move it away yourself") from error
    return aside


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Inside, no other program is inside for the same folder, which is made where it is missing.

    The lock ends with the process that holds it. Raises OSError in one line, after `LOCK_WAIT_S` at the latest.
    """
    make_private_folder(folder)
    # SQLite's lock on an empty file: in Python's own library, on every system, and it waits.
    with closing(sqlite3.connect(":memory:", timeout=LOCK_WAIT_S, isolation_level=None)) as lock:
        try:
            lock.execute("ATTACH ? AS lock", (str(folder / ".lock"),))
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            raise OSError(f"{folder}: cannot be written to: {reason(error)}") from error
        yield


def reason(error: sqlite3.Error) -> str:
    """What SQLite says, and what helps."""
    if "is locked" in str(error):
        return f"another program has kept it locked for {LOCK_WAIT_S:g} s; end that one"
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return f"{error}; start the program again: it keeps a damaged file aside and begins a new one"
    return f"{error}; {CHECK_FOLDER}"
