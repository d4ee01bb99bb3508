"""Save and read checkpoint files: atomic, self-describing, and verified by a digest of every entry."""

import os
import platform
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from src.checkpoint.digest import entry_digests
from src.checkpoint.parts import PARTS, SHARDED, Parts, put_tensors
from src.common.atomic_file import atomic_write, remove_stale_temporaries
from src.common.disk import require_free_space
from src.common.messages import one_line
from src.model.foreign import foreign_file
from src.stages import producing_command

FORMAT = "gpt2-pipeline 1"
_DIGESTS = "digests"
_RESERVE_BYTES = 16 * 2**20  # disk space that a save leaves free


class NotACheckpoint(ValueError):
    """The file is intact, but another program made it."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: `path` keeps its old content until the new file is complete.

    Raises ValueError if the content is not just tensors and plain values; OSError if the disk has too little space
    (before anything is written) or if writing fails.
    """
    remove_stale_temporaries(path.parent)  # their space may be needed
    versions = {"torch": str(torch.__version__), "python": platform.python_version()}
    entries = {name: _compact(value) for name, value in content.items() if name != _DIGESTS}
    entries |= {"format": FORMAT, "versions": versions}
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(entries))
    require_free_space(path, n_bytes + _RESERVE_BYTES, "nothing was overwritten")
    try:
        with atomic_write(path) as file:
            torch.save({**entries, _DIGESTS: entry_digests(entries)}, file)
    except (RuntimeError, OSError) as error:
        raise OSError(f"{path}: could not be written ({one_line(error)}); its old content is unchanged") from error


def read_checkpoint(path: Path, *, mapped: bool = False, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the content of a checkpoint, with tensors on the CPU. No code in the file is executed.

    Tensors in files of their own (see parts.py) are read, too. Every entry is compared with its digest, unless the
    file has none: version 0.1 of this project wrote none.
    mapped: memory-map the file, so that a tensor is read from disk only when it is used.
    without: entries to leave out. They are not read, so their digests are not checked.
    Raises FileNotFoundError, PermissionError, or ValueError if the file is damaged or not a checkpoint of ours.
    """
    content, parts = read_without_parts(path, mapped=mapped, without=without)
    if parts is None or {*SHARDED} <= {*without}:
        return content
    try:
        parts.verify()
        return put_tensors(content, parts.read(without))
    except (ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error


def read_without_parts(
    path: Path, *, mapped: bool = False, without: Collection[str] = ()
) -> tuple[dict[str, Any], Parts | None]:
    """Like `read_checkpoint`, but tensors in files of their own are not read. Returns these files, too."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; make it with {producing_command(path)}, or pass another path"
        )
    content = _unpickle(path, mapped)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        other_version = isinstance(content, dict) and str(content.get("format")).startswith(FORMAT.split()[0])
        reason = "a checkpoint of another version" if other_version else "not a checkpoint"
        kind = NotACheckpoint if isinstance(content, dict) and not other_version else ValueError
        raise kind(f"{path}: {reason} of this project; make one with {producing_command(path)}")
    stated = content.pop(_DIGESTS, None)
    content = {name: value for name, value in content.items() if name not in without}
    try:
        _compare(entry_digests(content, max_bytes=path.stat().st_size), stated, content, without)
        parts = Parts.of(path, content.pop(PARTS)) if PARTS in content else None
    except (ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return content, parts


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: {one_line(error)}; make it again with {producing_command(path)}")


def _unpickle(path: Path, mapped: bool) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file can cause many
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _can_be_mapped(path))
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle can raise anything, and PyTorch's message suggests weights_only=False
        if foreign := foreign_file(path):
            raise ValueError(f"{path}: this is {foreign}") from error
        code = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"refused, it contains code ({code[1]}), not just tensors and plain values" if code else "damaged"
        if not _may_be_torch_file(path):
            raise ValueError(
                f"{path}: not a checkpoint of this project; make one with {producing_command(path)}"
            ) from error
        raise ValueError(f"{path}: {problem}; make it again with {producing_command(path)}") from error


def _may_be_torch_file(path: Path) -> bool:
    """Whether a file begins as torch.save writes it: as a zip archive, or in PyTorch's older format as a pickle.

    A file that was cut within its first two bytes may be one, too.
    """
    with path.open("rb") as file:
        start = file.read(2)
    return start.startswith(b"\x80") or b"PK".startswith(start)


def _can_be_mapped(path: Path) -> bool:
    """Whether a file can be memory-mapped: PyTorch's older format is not a zip archive. Windows locks a mapped file."""
    with path.open("rb") as file:
        return file.read(2) == b"PK" and os.name != "nt"


def _compare(found: Mapping[str, str], stated: object, content: Mapping[str, Any], without: Collection[str]) -> None:
    """Raise ValueError naming the entries whose digest is not the stated one."""
    if stated is None and not any(map(_may_be_digests, content.values())):
        return
    if not isinstance(stated, dict):
        raise ValueError("damaged: its digests are unreadable")
    names = sorted({*found, *stated} - {*without}, key=str)
    damaged = [f"{name!r:.60}" for name in names if found.get(name) != stated.get(name)]
    if damaged:
        changed = ", ".join(damaged[:3]) + (" and more" if damaged[3:] else "")
        raise ValueError(f"damaged: {changed} changed since saving; {len(names) - len(damaged)} others are intact")


def _may_be_digests(value: object) -> bool:
    """Whether an entry looks like the digests: if their name is damaged, they must not go unnoticed."""
    return isinstance(value, dict) and {len(part) for part in value.values() if isinstance(part, str)} == {64}


def _compact(value: Any) -> Any:
    """The value with plain dicts, and with tensors that own their memory: torch.save writes all of a shared memory."""
    if isinstance(value, Mapping):
        return {name: _compact(part) for name, part in value.items()}
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        tensor = value.detach()
        n_bytes = tensor.numel() * tensor.element_size()
        owns_memory = tensor.untyped_storage().nbytes() == n_bytes
        return tensor if owns_memory else tensor.clone(memory_format=torch.contiguous_format)
    return value


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return []
