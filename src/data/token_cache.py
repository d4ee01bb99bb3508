"""The token ids of a text, cached in a folder next to it. Its name holds a key: what was tokenised, and by what."""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from src.data.input_file import GZIP, PARQUET, START_BYTES, refuse_other_formats

_LONGEST_PREFIX_BYTES = 160  # a file name has at most 255 bytes
_SAMPLED_BYTES, _FEWEST_BYTES = 1 << 26, 1 << 12  # of all files, and of each one
_SAMPLES = 16  # of a file that is not read whole
_LOCK = ".lock"


def cache_folder(paths: Sequence[Path], files: Sequence[Path], key: str) -> Path:
    """The folder for the tokens of what --data names: next to a file or folder, or to the first of several files.

    A long name is shortened, and completed with its hash.
    """
    text = paths[0] if len(paths) == 1 and paths[0].exists() else files[0]
    text = text if text.name.strip(".") else Path(os.path.abspath(text))
    name = text.name if len(files) == 1 or text != files[0] else f"{text.name}+{len(files) - 1}"
    if len(os.fsencode(name)) > _LONGEST_PREFIX_BYTES:
        name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return text.with_name(f"{name}.{key}.tokens")


def cache_key(files: Sequence[Path], settings: Sequence[str]) -> str:
    """A key that changes with the files, their order and the settings, without reading large files whole.

    A small file is identified by its name and content; a large one by name, size, modification time and samples of its
    content. Up to 64 MB are read of all files together. A renamed folder keeps its key.
    Raises ValueError for a file that begins as another format, such as PDF.
    """
    digest = hashlib.sha256("\0".join(settings).encode())
    share = max(_FEWEST_BYTES, _SAMPLED_BYTES // max(1, len(files)))
    for file in files:
        status = file.stat()
        whole = status.st_size <= share
        facts = (file.name, status.st_size, None if whole else status.st_mtime_ns)
        digest.update(hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).digest())
        digest.update(_sample(file, status.st_size, status.st_size if whole else share))
    return digest.hexdigest()[:16]


def _sample(path: Path, size: int, n_bytes: int) -> bytes:
    """SHA-256 of a file's content, or of evenly spaced samples of it with `n_bytes` bytes together."""
    digest = hashlib.sha256()
    count = 1 if n_bytes == size else _SAMPLES
    with open(path, "rb") as file:
        for number in range(count):
            file.seek((size - n_bytes // count) * number // max(1, count - 1))
            sample = file.read(n_bytes // count)
            if number == 0 and not sample.startswith((GZIP, PARQUET)):
                refuse_other_formats(path, sample[:START_BYTES])
            digest.update(sample)
    return digest.digest()


def lock_folder(folder: Path, notify: Callable[[str], None]) -> AcquireReturnProxy:
    """Create the folder and lock it; if another process is writing tokens to it, wait. Leaving `with` unlocks it.

    Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        notify(f"tokens: waiting for another run, which is tokenising the same text into {folder}")
        return lock.acquire()


def remove_unused(folder: Path) -> None:
    """Delete a locked folder to which no shard was written, because the text cannot be used or the disk is full."""
    if sorted(os.listdir(folder)) in ([], [_LOCK]):
        shutil.rmtree(folder, ignore_errors=True)


def remove_other_caches(keep: Path) -> None:
    """Delete the caches of earlier versions of the same text, and of other tokenizers."""
    prefix = glob.escape(keep.name.rsplit(".", 2)[0])
    key = "[0-9a-f]" * 16
    for other in (*keep.parent.glob(f"{prefix}.{key}.tokens"), *keep.parent.glob(f"{prefix}.{key}.tokens.npy")):
        if other != keep:
            try:
                other.unlink() if other.is_file() else _remove_folder(other)  # earlier versions wrote one file
            except OSError:  # the disk is read-only or, on Windows, another run has it open
                continue


def _remove_folder(folder: Path) -> None:
    """Delete a folder of shards, unless another run has it open on Windows: there, renaming it fails first."""
    leaving = folder.rename(folder.with_name(f"{folder.name}.old"))
    shutil.rmtree(leaving)
