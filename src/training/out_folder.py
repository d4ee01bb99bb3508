"""The folder of a run, which only one run at a time may use."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import lock_descriptor

from src.checkpoint import BEST, LATEST
from src.common.atomic_file import remove_stale_temporaries
from src.distributed.environment import is_first

LOCK = ".lock"


@contextmanager
def locked_folder(out: Path, stage: str) -> Iterator[None]:
    """Hold the folder of a run, which is created if it is missing, so that no other run can use it.

    The operating system frees the folder when this process ends, even if it is killed. The lock file stays, unless the
    run leaves nothing else in the folder. Temporary files that killed runs left there are deleted.
    Raises OSError with a one-line message if another run holds the folder, or if the folder cannot be written.
    """
    if not is_first():  # the first process locks it for all
        yield
        return
    new_folders = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    with _open_lock(out) as lock:
        if not _acquire(lock, out):
            other = _holder(lock)
            raise OSError(f"--out {out} is in use by another run{other}; wait until it ends, or pass another --out")
        _write_holder(lock, out, stage)
        _refuse_folders_as_checkpoints(out)
        remove_stale_temporaries(out)
        try:
            yield
        finally:
            _remove_if_unused(out, new_folders)


def refuse_folder_of_base(metadata: Mapping[str, Any], out: Path) -> None:
    """Raises ValueError if saving a run in `out` would overwrite the model that the run starts from."""
    base = (metadata.get("parent") or {}).get("path")
    if base and Path(base).resolve().parent == out.resolve() and Path(base).name in (BEST, LATEST):
        raise ValueError(f"--out {out} holds the model to start from, {base}; pass another --out")


def _refuse_folders_as_checkpoints(out: Path) -> None:
    """Raise OSError if a folder is in the place of a checkpoint: better now than at the first save."""
    for name in (BEST, LATEST):
        if (out / name).is_dir():
            raise IsADirectoryError(f"{out / name} is a folder; move it, or pass another --out")


def _open_lock(out: Path) -> BinaryIO:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return open(out / LOCK, "a+b", buffering=0)  # not buffered: see _holder
    except OSError as error:
        raise _not_writable(out, error) from error


def _acquire(lock: BinaryIO, out: Path) -> bool:
    """Whether this run holds the folder now."""
    try:
        return lock_descriptor(lock.fileno(), blocking=False)
    except OSError as error:  # some network drives have no locks
        print(f"note: {out} cannot be locked ({error.strerror}); make sure that no other run uses it")
        return True


def _write_holder(lock: BinaryIO, out: Path, stage: str) -> None:
    holder = {
        "stage": stage,
        "pid": os.getpid(),
        "host": platform.node(),
        "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    }
    try:
        lock.truncate(0)
        lock.write(b"\n" + json.dumps(holder).encode("ascii"))
    except OSError as error:
        raise _not_writable(out, error) from error


def _holder(lock: BinaryIO) -> str:
    """Describe the run that holds the folder. Empty if the lock file does not say."""
    try:
        lock.seek(1)  # Windows lets no one read the first byte, which is locked
        holder = json.loads(lock.read())
        return " ({stage}, process {pid} on {host}, started {started})".format_map(holder)
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _remove_if_unused(out: Path, new_folders: Sequence[Path]) -> None:
    """Delete the lock file and the folders that this run created, if it saved nothing in them."""
    try:
        if os.listdir(out) == [LOCK]:
            (out / LOCK).unlink()
            for folder in new_folders:
                folder.rmdir()
    except OSError:  # not empty, or on Windows, which deletes no open file
        return


def _not_writable(out: Path, error: OSError) -> OSError:
    return OSError(f"--out {out} cannot be written ({error.strerror}); pass another --out")
