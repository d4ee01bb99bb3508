"""Write files completely or not at all."""

import glob
import os
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

OWNER_ONLY = 0o600  # the mode of a private file

_STALE_AFTER_S = 3600.0  # a live process writes to its temporary file more often than this
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
    remove_stale_temporaries(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_stale_temporaries(path: Path) -> None:
    """Delete the temporary files of `path` that killed processes left behind."""
    target = Path(path).resolve()
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*-????????.tmp"):
        try:
            if _is_stale(leftover):
                leftover.unlink()
        except OSError:  # already gone, in use, or owned by someone else
            continue


def _is_stale(temporary: Path) -> bool:
    """Whether a temporary file is over an hour old, or its process has ended. Its name contains the process id."""
    if time.time() - temporary.stat().st_mtime > _STALE_AFTER_S:
        return True
    if os.name == "nt":  # Windows does not delete open files, so trying is safe
        return True
    try:
        os.kill(int(temporary.name.split(".")[-2].partition("-")[0]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, PermissionError):
        return False
    return False


def _rename(temporary: Path, target: Path) -> None:
    """Replace `target`. On Windows this fails while another program, such as a virus scanner, has it open: retry."""
    for pause_s in _RENAME_PAUSES_S:
        try:
            return os.replace(temporary, target)
        except PermissionError:
            time.sleep(pause_s)
    os.replace(temporary, target)
