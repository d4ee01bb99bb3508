"""Files that only their owner can read, and a lock that lets one program write at a time."""

import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from src.common.atomic_file import OWNER_ONLY, atomic_write

LOCK_TIMEOUT_S = 10.0
_NEEDED_BYTES = 100_000  # of free space: an empty long-term memory and a short conversation
CHECK_FOLDER = "check its free space and permissions, or pass another --memory-dir"
CHECK_FILE = "check its permissions, or choose another session"


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can open, unless it exists. Raises OSError with a one-line message."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: cannot be created ({error.strerror}); {CHECK_FOLDER}") from error


def reason(error: OSError) -> str:
    """The system's or SQLite's reason for an error, such as "Permission denied", without what our messages add."""
    while not error.strerror and isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error.strerror or str(error.__cause__ or error)


def why_not_writable(folder: Path) -> str:
    """The reason why no file can be saved in a folder, which is created if it is missing; "" if files can."""
    try:
        make_private_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_NEEDED_BYTES))
            file.flush()
        return ""
    except OSError as error:
        return reason(error)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically. Call it inside `locked`.

    Raises OSError with a one-line message; the old file is then unchanged.
    """
    try:
        with atomic_write(path, OWNER_ONLY) as file:
            file.write(content)
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error.strerror}); the version saved before is unchanged; {CHECK_FOLDER}"
        ) from error


def quarantine(path: Path) -> Path:
    """Rename a damaged file to the first free `name.damaged-N.suffix` in its folder and return the new path.

    Raises OSError with a one-line message.
    """
    n = 1
    while (new_path := path.with_name(f"{path.stem}.damaged-{n}{path.suffix}")).exists():
        n += 1
    try:
        path.rename(new_path)
    except OSError as error:
        raise OSError(f"{path}: damaged, and cannot be renamed ({error.strerror}); move it away yourself") from error
    return new_path


def damaged_files(folder: Path) -> list[str]:
    """The names of the files that `quarantine` renamed. They may contain anything, also deleted facts."""
    return sorted(file.name for file in folder.glob("*.damaged-*"))


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Hold the folder's lock, which excludes other programs. Creates the folder if it is missing.

    The lock is released when the process ends, even if it is killed. Raises OSError with a one-line message if the
    lock is not free within `LOCK_TIMEOUT_S`.
    """
    make_private_folder(folder)
    # SQLite's lock on an empty file: it is in the standard library, works on every system and has a timeout.
    with closing(sqlite3.connect(":memory:", timeout=LOCK_TIMEOUT_S, isolation_level=None)) as lock:
        try:
            lock.execute("ATTACH ? AS lock", (str(folder / ".lock"),))
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            raise OSError(f"{folder}: cannot be written to: {explain(error)}") from error
        yield


def explain(error: sqlite3.Error) -> str:
    """SQLite's message and the remedy."""
    if "is locked" in str(error):
        return f"another program has held its lock for {LOCK_TIMEOUT_S:g} s; close that program"
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return f"{error}; restart this program: it moves a damaged file aside and creates a new one"
    return f"{error}; {CHECK_FOLDER}"
