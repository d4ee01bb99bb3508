"""Files that only their owner may read, written whole or not at all, by one program at a time."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from src.common.atomic_file import OWNER_ONLY, atomic_write

LOCK_WAIT_S = 10.0
CHECK_FOLDER = "check the room and the permissions there, or pass another --memory-dir"


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
        with atomic_write(path, OWNER_ONLY) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error.strerror}); what was saved before is untouched; {CHECK_FOLDER}"
        ) from error


def quarantine(path: Path) -> Path:
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
